"""A file of a snapshot as a seekable file object, for any library that reads one."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final

from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.loading.chunk_loader import ChunkLoader
from dumont_gpu.loading.opened import OpenedSnapshot
from dumont_gpu.loading.wants import Want, size_before_next_chunk
from dumont_gpu.sizes import KiB

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER: Final = 256 * KiB  # libraries that read a few bytes at a time should not ask for each of them


class SnapshotFile(io.RawIOBase):
    """The bytes of a file of a snapshot, read-only; loads the chunks that hold what is read, and checks them.

    Args:
        file: a regular file.
        opened: the snapshot, which stays open while the file is read.
        loader: of that snapshot; several files may share one.
    """

    def __init__(self, file: FileEntry, opened: OpenedSnapshot, loader: ChunkLoader) -> None:
        super().__init__()
        self._file, self._opened, self._loader = file, opened, loader
        self._at = 0
        self.name = file.path

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}.get(whence)
        if base is None:
            raise UsageError(f"whence {whence} is none of 0, 1 and 2")
        if base + offset < 0:
            raise OSError(22, "Invalid argument")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Reads once, as raw files do: a short read ends where the file's next chunk begins."""
        out = memoryview(buffer).cast("B")
        self._check_open()
        size = max(0, min(len(out), self.size - self._at))
        if size <= _BUFFER:  # as of a reader ahead; a chunk for bytes that nobody may want would be dear
            size = size_before_next_chunk(self._file, self._at, size)
        if size:
            self.read_at(self._at, out[:size])
            self._at += size
        return size

    def readall(self) -> bytes:
        self._check_open()
        content = bytearray(max(0, self.size - self._at))
        if content:
            self.read_at(self._at, memoryview(content))
            self._at += len(content)
        return bytes(content)

    def read_at(self, offset: int, out: memoryview) -> None:
        """Fills `out` with the bytes at `offset`, which the file must have; from any thread.

        Raises:
            DamagedError: bytes do not match their digest; `out` is worthless.
            DumontError: the snapshot cannot be read, or was closed.
        """
        self._opened.check_open()
        self._loader.load([Want(self._file, offset, len(out), out)])

    def buffered(self) -> io.BufferedReader:
        """Returns a file object that reads ahead a little."""
        return io.BufferedReader(self, _BUFFER)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
