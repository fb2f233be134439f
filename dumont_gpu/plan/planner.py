"""Decides which bytes of which files go into which chunk."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Final, TypeVar

from dumont_gpu.codecs import CODECS
from dumont_gpu.disk.outputs import is_snapshot
from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import MAX_EXTENTS
from dumont_gpu.format.header import MAGIC, MAX_CHUNKS
from dumont_gpu.native import Dtype
from dumont_gpu.plan.cutter import Cutter, PlannedChunk
from dumont_gpu.plan.equal_parts import SHARE_MINIMUM, content_digest, groups_of_equal, sample_digest
from dumont_gpu.plan.methods import PROBE_MINIMUM, Method
from dumont_gpu.plan.regions import Region, find_regions, find_tensor_regions
from dumont_gpu.plan.rows import cut_rows
from dumont_gpu.shortages import is_shortage
from dumont_gpu.sizes import MiB
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.files import SourceFile
from dumont_gpu.tree.source.small_files import SmallFiles

_LARGE: Final = 16 * MiB  # worth a thread of its own
_PARTIAL_CHUNKS: Final = 6 * (len(CODECS) + len(Dtype) - 1)  # at most one per flush and codec, or element type

T = TypeVar("T")


class Plan:
    """How the files of a scan become chunks. The first chunks are packed while later chunks are cut.

    Args:
        files: the files to pack, in path order.
        method: chooses the codecs.
        chunk_size: the most raw bytes in one chunk; a multiple of 4 KiB, and so of every element size.
        threads: how many large files are sampled and hashed at once.
        small: more files, which are rows; chunks of these come first.

    Raises:
        UsageError: the files need more chunks than a snapshot may have.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        method: Method,
        chunk_size: int,
        threads: int,
        small: SmallFiles | None = None,
    ) -> None:
        self.files = list(files)
        self.small = small
        self.copies: dict[int, int] = {}  # file index -> index of the file with the same content
        self.problems: dict[int, Problem] = {}  # file index -> why the file cannot be packed
        self.snapshots: set[int] = set()  # file index: the file is a snapshot itself
        self.planned: dict[int, int] = defaultdict(int)  # file index -> bytes of the file in chunks
        self._method, self._chunk_size, self._threads = method, chunk_size, threads
        self._row_chunks = list(self._chunks_of_rows(small)) if small else []
        self._row_size = sum(chunk.size for chunk in self._row_chunks)
        # An upper bound until all chunks are cut.
        self.size = self._row_size + sum(file.entry.size for file in files)
        # Rows that change while they are packed become files, which need chunks, too.
        others = len(self._row_chunks) + _PARTIAL_CHUNKS
        # Borders of tensors make equal extents of equal tensors, and of equal files, too: the job stores them once, and
        # no files are compared. They cost chunks that may be only half full.
        self.align_tensors = method.aligns and 2 * self.size // chunk_size <= MAX_CHUNKS - others
        self._cutter = Cutter(chunk_size, self.planned, first=len(self._row_chunks), whole=self.align_tensors)
        self.max_chunks = (1 + self.align_tensors) * self.size // chunk_size + others
        if self.max_chunks > MAX_CHUNKS:
            raise UsageError(
                f"{self.max_chunks} chunks; a snapshot may have {MAX_CHUNKS}: choose a larger --chunk-size"
            )

    def encoder_memory(self, size: int) -> int:
        """Returns the bytes that encoding a chunk of `size` raw bytes takes, beside the chunk's buffers."""
        return self._method.plain.encoder_memory(size)

    def chunks(self) -> Iterator[PlannedChunk]:
        """Yields the chunks, once. Reads samples of large files, and the whole of files that look like copies."""
        sizes = [] if self.align_tensors else self._equal_sizes()
        alike = {index for group in sizes for index in group}
        with ThreadPoolExecutor(self._threads) as pool:
            different = [index for index in range(len(self.files)) if index not in alike]
            yield from self._cut(different, pool, before=self._row_chunks)
            self.copies = self._find_copies(sizes, pool)
            yield from self._cut([index for index in sorted(alike) if index not in self.copies], pool)
        self.size = self._row_size + sum(self.planned.values())

    def _equal_sizes(self) -> list[list[int]]:
        return groups_of_equal(
            (file.entry.size, i) for i, file in enumerate(self.files) if file.entry.size >= SHARE_MINIMUM
        )

    def more_chunks(self, files: Iterable[SourceFile], orphaned: Iterable[int]) -> Iterator[PlannedChunk]:
        """Yields chunks of files that have to be packed after all.

        Args:
            files: rows that changed after the scan.
            orphaned: indices of files whose original has changed since they were compared, or was lost. The files are
                still copies of each other.
        """
        added = len(self.files)
        self.files += files
        leaders: dict[int, int] = {}  # the former leader -> the new leader
        for index in sorted(orphaned):
            leader = leaders.setdefault(self.copies.pop(index), index)
            if leader != index:
                self.copies[index] = leader
        with ThreadPoolExecutor(self._threads) as pool:
            yield from self._cut([*sorted(leaders.values()), *range(added, len(self.files))], pool)
        self.size = self._row_size + sum(self.planned.values())

    def _chunks_of_rows(self, small: SmallFiles) -> Iterator[PlannedChunk]:
        codec = self._method.for_small_file("")
        for number, (rows, size) in enumerate(cut_rows(small, self._chunk_size)):
            yield PlannedChunk(number, codec, size, rows=rows)

    def _cut(
        self, indices: Sequence[int], pool: ThreadPoolExecutor, before: Iterable[PlannedChunk] = ()
    ) -> Iterator[PlannedChunk]:
        """Cuts files into chunks: small files first, which take longest per byte, while the pool samples the rest."""
        indices = [index for index in indices if index not in self.problems]
        sampled = self._map_files(self._look, filter(self._is_sampled, indices), pool)
        yield from before
        for index in indices:
            if not self._is_sampled(index):
                yield from self._cutter.add(index, [self._unseen(index)])
        yield from self._cutter.flush()
        for index, (regions, is_a_snapshot) in sampled:
            if is_a_snapshot:
                self.snapshots.add(index)
            yield from self._cutter.add(index, regions)
        yield from self._cutter.flush()

    def _is_sampled(self, index: int) -> bool:
        """Whether cutting the file opens it: for the bytes of a large file, or the holes of a sparse file."""
        file = self.files[index]
        return file.entry.size >= PROBE_MINIMUM or file.allocated < file.entry.size

    def _unseen(self, index: int) -> Region:
        entry = self.files[index].entry
        return Region(0, entry.size, self._method.for_small_file(entry.path))

    def _look(self, file: SourceFile) -> tuple[list[Region], bool]:
        """Returns the regions of a file, and whether the file is a snapshot."""
        ranges, method = file.data_ranges(), self._method
        if file.entry.size < PROBE_MINIMUM:
            codec = method.for_small_file(file.entry.path)
            return [Region(start, end, codec) for start, end in ranges], False
        with file.open() as fd:
            found = is_snapshot(os.pread(fd, len(MAGIC), 0))
            if not method.looks:
                regions = []
            elif self.align_tensors:
                regions = find_tensor_regions(fd, ranges, method, self._chunk_size)
            else:
                regions = find_regions(fd, ranges, method)
        if not method.looks or len(regions) > MAX_EXTENTS // 2:
            regions = [Region(start, end, method.plain) for start, end in ranges]
        return regions, found

    def _find_copies(self, groups: list[list[int]], pool: ThreadPoolExecutor) -> dict[int, int]:
        """Maps files to an earlier file of the same content, by equal size, then equal samples, then equal digest."""
        for digest in (sample_digest, content_digest):
            candidates = (index for group in groups for index in group)
            digests = dict(self._map_files(partial(_whole, digest), candidates, pool))
            groups = [
                equal
                for group in groups
                for equal in groups_of_equal((digests[index], index) for index in group if index in digests)
            ]
        return {index: group[0] for group in groups for index in group[1:]}

    def _map_files(
        self, work: Callable[[SourceFile], T], indices: Iterable[int], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[int, T]]:
        """Yields (index, result), large files first; a file that cannot be read becomes a problem instead.

        Only large files go through the pool, all at once: for small files, the pool costs three times the work itself.
        """

        def guarded(index: int) -> T | OSError:
            try:
                return work(self.files[index])
            except OSError as error:
                return error

        large: list[int] = []
        small: list[int] = []
        for index in indices:
            (large if self.files[index].entry.size >= _LARGE else small).append(index)
        results = chain(zip(large, pool.map(guarded, large), strict=True), zip(small, map(guarded, small), strict=True))
        return self._without_problems(results)

    def _without_problems(self, results: Iterable[tuple[int, T | OSError]]) -> Iterator[tuple[int, T]]:
        for index, result in results:
            if isinstance(result, OSError):
                if is_shortage(result.errno):
                    raise result
                self.problems[index] = Problem(self.files[index].entry.path, result.strerror or str(result))
            else:
                yield index, result


def _whole(digest: Callable[[SourceFile, int, int], bytes], file: SourceFile) -> bytes:
    return digest(file, 0, file.entry.size)
