"""Reads a snapshot's files, every byte verified before it is handed out, in the memory of a few chunks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from dumont_gpu.backends import Backend
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.entries import Extent, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.chunk_checks import chunk_check
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.reader import Snapshot

_ROOM: Final = 256 * MiB  # for decoded chunks: four of the usual size; one, if chunks are larger
_ZEROS: Final = memoryview(bytes(MiB))  # what holes are made of


class FileReader:
    """Decodes chunks as files need them, and keeps the last few: files that follow each other share some.

    Args:
        snapshot: has the files.
        backend: decodes.
    """

    def __init__(self, snapshot: Snapshot, backend: Backend) -> None:
        self._snapshot, self._backend = snapshot, backend
        self._most = max(1, _ROOM // snapshot.header.chunk_size)
        self._decoded: OrderedDict[int, memoryview] = OrderedDict()
        backend.prepare(max((chunk.size_original for chunk in snapshot.chunks), default=1), decode=True)

    def read(self, file: FileEntry) -> Iterator[memoryview]:
        """Yields a file's bytes in order, holes as zeros; a piece is valid until the next one is asked for.

        Raises:
            DamagedError: bytes do not match their digest, or contradict FORMAT.md. No such byte is yielded.
            DumontError: the snapshot cannot be read.
        """
        at = 0
        for extent in file.extents:
            yield from _zeros(extent.file_offset - at)
            yield self._checked(file, extent)
            at = extent.file_end
        yield from _zeros(file.size - at)

    def _checked(self, file: FileEntry, extent: Extent) -> memoryview:
        content = self._chunk(extent.chunk)[extent.chunk_offset : extent.chunk_offset + extent.length]
        if self._snapshot.digest(content) != extent.digest:
            raise DamagedError(
                f"{self._snapshot.source.location}: chunk {extent.chunk}: {printable(file.path)}: its content does "
                "not match its digest"
            )
        return content

    def _chunk(self, number: int) -> memoryview:
        content = self._decoded.get(number)
        if content is None:
            while len(self._decoded) >= self._most:  # the memory goes before more is taken
                self._decoded.popitem(last=False)
            content = self._decoded[number] = self._decode(number)
        self._decoded.move_to_end(number)
        return content

    def _decode(self, number: int) -> memoryview:
        snapshot, record = self._snapshot, self._snapshot.chunks[number]
        encoded, content = (memoryview(bytearray(size)) for size in (record.size_compressed, record.size_original))
        snapshot.read_chunk(number, encoded)
        try:
            self._backend.decode(record.compressor_id, encoded, content, chunk_check(snapshot, number, encoded))
        except DamagedError as error:
            raise DamagedError(f"{snapshot.source.location}: chunk {number}: {error}") from None
        return content.toreadonly()


def _zeros(size: int) -> Iterator[memoryview]:
    for at in range(0, size, len(_ZEROS)):
        yield _ZEROS[: size - at]
