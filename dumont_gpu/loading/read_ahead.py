"""Decodes the next chunk of a file that somebody reads from front to back, beside the reader."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dumont_gpu.errors import DumontError
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.loading.wants import Want, extents_between
from dumont_gpu.sizes import MiB

_RUN: Final = 4 * MiB  # read in a row: whoever looks at a header alone must not cause a transfer of 64 MiB
_ORDER: Final = 1 * MiB  # reads of the kernel that run at once may come in another order


class FollowedFile:
    """A file, and how far somebody has read it."""

    def __init__(self, entry: FileEntry, files: SnapshotFiles) -> None:
        self.entry = entry
        self._file = files.open_entry(entry)
        self._at = self._run = 0  # bytes
        self._asked = -1  # the chunk that was decoded ahead last

    @property
    def size(self) -> int:
        return self.entry.size

    def read_at(self, offset: int, out: memoryview) -> None:
        """Fills `out`, as `SnapshotFile.read_at`."""
        self._file.read_at(offset, out)
        end = offset + len(out)
        if abs(offset - self._at) <= _ORDER:
            self._run, self._at = self._run + len(out), max(self._at, end)
        else:
            self._run, self._at = len(out), end

    def next_want(self, distance: int) -> Want[memoryview] | None:
        """Returns a byte of the chunk that will be needed `distance` bytes further on, once for each chunk."""
        at = min(self._at + distance, self.size - 1)
        extent = next(extents_between(self.entry, at, at + 1), None) if self._run >= _RUN else None
        if extent is None or extent.chunk == self._asked:
            return None
        self._asked = extent.chunk
        return Want(self.entry, at, 1, memoryview(bytearray(1)))


class ReadAhead:
    """Loads chunks in a thread of its own.

    Args:
        files: keeps decoded chunks, for whoever will read them.
    """

    def __init__(self, files: SnapshotFiles) -> None:
        self._files = files
        self._distance = files.snapshot.header.chunk_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dumont-ahead")

    def follow(self, file: FollowedFile, readers: int) -> None:
        """Begins to decode what `file` will need next, unless its reader and the others need all the room there is."""
        if 2 * readers <= self._files.kept and (want := file.next_want(self._distance)) is not None:
            self._thread.submit(self._load, want)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self, want: Want[memoryview]) -> None:
        with contextlib.suppress(DumontError):  # its reader will meet it
            self._files.load([want])
