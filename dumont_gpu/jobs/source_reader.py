"""Reads the files of a plan, chunk by chunk, and notes the files that changed after the scan."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from dumont_gpu import native
from dumont_gpu.disk.direct_io import DIRECT_MINIMUM, read_at
from dumont_gpu.format.entries import Extent
from dumont_gpu.plan.cutter import PlannedChunk, PlannedExtent
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.files import SourceFile

_NOT_REGULAR: Final = "is no regular file any more"


class SourceReader:
    """Fills chunks; used from many threads. `files` are indexed as in the plan."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._files = files
        self.lost: dict[int, Problem] = {}  # file index -> why the file cannot be in the snapshot
        self.changed: set[int] = set()  # indices of files that changed after the scan
        self.missing: dict[int, int] = {}  # file index -> planned bytes that the file no longer has
        self._ends: dict[int, int] = {}  # file index -> the lowest offset at which a read found the file's end
        self._shrunk: dict[int, int] = {}  # file index -> the smallest size seen below the scanned size
        self.came: Callable[[int], None] = lambda size: None  # called with the bytes planned of the files just read
        self._lock = threading.Lock()

    def read(self, chunk: PlannedChunk, content: memoryview) -> Sequence[PlannedExtent]:
        """Fills `content` with the raw bytes of a chunk; returns the extents that were read.

        An extent is shorter than planned, or absent, where a file ended early or was unreadable: zeros fill the rest.

        Raises:
            OSError: the machine is short of memory or descriptors.
        """
        small: dict[tuple[int, str], list[PlannedExtent]] = defaultdict(list)  # tree and directory -> whole files
        large: list[PlannedExtent] = []
        incomplete: dict[PlannedExtent, int] = {}  # extents that were not read to their end -> bytes read
        for extent in chunk.extents:
            file = self._files[extent.file]
            if extent.length == file.entry.size < DIRECT_MINIMUM:
                small[id(file.tree), split(file.relative)[0]].append(extent)
            else:
                large.append(extent)
        for index, grouped in itertools.groupby(large, key=lambda extent: extent.file):
            of_one_file = list(grouped)
            self._read_large(self._files[index], of_one_file, content, incomplete)
            self.came(sum(extent.length for extent in of_one_file))
        for extents in small.values():
            self._read_small(extents, content, incomplete)
            self.came(sum(extent.length for extent in extents))
        return _read_extents(chunk.extents, incomplete)

    def size_of(self, index: int, extents: Sequence[Extent]) -> int:
        """Returns the size that a changed file gets in the snapshot: the lowest end that a read found.

        Bytes before that end were there when they were read; bytes after it are from another moment.

        Args:
            index: the file's index in the plan.
            extents: the extents that were read, in file order.
        """
        size = self._files[index].entry.size
        end = self._ends.get(index, size)
        last = max((extent.file_end for extent in extents if extent.file_offset < end), default=0)
        return max(last, min(end, self._shrunk.get(index, size)))

    def _read_large(
        self, file: SourceFile, extents: list[PlannedExtent], content: memoryview, incomplete: dict[PlannedExtent, int]
    ) -> None:
        """Reads parts of one file, opened once."""
        try:
            with file.open() as fd:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    self._lose(extents, content, incomplete, _NOT_REGULAR)
                    return
                for run in _adjoining(extents):
                    start, shift = run[0].file_offset, run[0].chunk_offset - run[0].file_offset
                    end = start + read_at(
                        fd, start, content[start + shift : run[-1].file_offset + run[-1].length + shift]
                    )
                    for extent in run:
                        if extent.file_offset + extent.length > end:
                            self._cut(extent, content, incomplete, max(0, end - extent.file_offset))
                status = os.fstat(fd)
                if not file.unchanged(status):
                    self.changed.add(extents[0].file)
                if status.st_size < file.entry.size:
                    self._note_end(self._shrunk, extents[0], status.st_size)
        except OSError as error:
            if is_shortage(error.errno):
                raise
            self._lose(extents, content, incomplete, error.strerror or str(error))

    def _read_small(
        self, extents: Sequence[PlannedExtent], content: memoryview, incomplete: dict[PlannedExtent, int]
    ) -> None:
        """Reads whole files of a single directory."""
        files = [self._files[extent.file] for extent in extents]
        folder = split(files[0].relative)[0]
        wanted = []
        for file, extent in zip(files, extents, strict=True):
            name = split(file.relative)[1]
            scanned = (file.entry.mtime_ns, *file.identity)
            wanted.append(native.OldFile(name, extent.chunk_offset, extent.length, *scanned))
        try:
            with files[0].tree.handles.lease(folder) as directory:
                results = native.read_files(directory, wanted, content)
        except OSError as error:
            results = [error.errno or errno.EIO] * len(extents)
        for file, extent, result in zip(files, extents, results, strict=True):
            if is_shortage(result):
                raise OSError(result, os.strerror(result))
            if result == native.CHANGED:
                self.changed.add(extent.file)
            elif result == native.SHORT:  # read again to learn where the file ends
                self._read_large(file, [extent], content, incomplete)
            elif result:
                reason = _NOT_REGULAR if result == native.NOT_REGULAR else os.strerror(result)
                self._lose([extent], content, incomplete, reason)

    def _cut(self, extent: PlannedExtent, content: memoryview, incomplete: dict[PlannedExtent, int], done: int) -> None:
        """Keeps the bytes read of an extent in which the file ends."""
        _clear(content[extent.chunk_offset + done : extent.chunk_offset + extent.length])
        incomplete[extent] = done
        with self._lock:
            self.missing[extent.file] = self.missing.get(extent.file, 0) + extent.length - done
        self._note_end(self._ends, extent, extent.file_offset + done)
        self.changed.add(extent.file)

    def _note_end(self, ends: dict[int, int], extent: PlannedExtent, end: int) -> None:
        with self._lock:
            ends[extent.file] = min(end, ends.get(extent.file, end))

    def _lose(
        self, extents: list[PlannedExtent], content: memoryview, incomplete: dict[PlannedExtent, int], reason: str
    ) -> None:
        """Notes that the file of these extents cannot be in the snapshot."""
        for extent in extents:
            _clear(content[extent.chunk_offset : extent.chunk_offset + extent.length])
            incomplete[extent] = 0
            self.lost.setdefault(extent.file, Problem(self._files[extent.file].entry.path, reason))


def _adjoining(extents: list[PlannedExtent]) -> Iterator[list[PlannedExtent]]:
    """Yields runs of extents that lie end to end in the file as in the chunk: one read fills them."""
    run = extents[:1]
    for before, extent in itertools.pairwise(extents):
        ends = before.file_offset + before.length, before.chunk_offset + before.length
        if (extent.file_offset, extent.chunk_offset) != ends:
            yield run
            run = []
        run.append(extent)
    yield run


def _read_extents(extents: list[PlannedExtent], incomplete: dict[PlannedExtent, int]) -> list[PlannedExtent]:
    """Returns the extents cut to the bytes that were read, without empty extents."""
    if not incomplete:
        return extents
    cut = (replace(extent, length=incomplete.get(extent, extent.length)) for extent in extents)
    return [extent for extent in cut if extent.length]


def _clear(content: memoryview) -> None:
    """Zeroes `content`: the buffer may hold another chunk's bytes."""
    content[:] = bytes(len(content))
