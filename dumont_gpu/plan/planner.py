"""Cuts files into regions of one codec, and regions into the extents of chunks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, TypeVar

from blake3 import blake3

from dumont_gpu.codecs import CODECS, Codec
from dumont_gpu.disk.outputs import is_snapshot
from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import MAX_EXTENTS
from dumont_gpu.format.header import MAGIC, MAX_CHUNKS
from dumont_gpu.native import Dtype
from dumont_gpu.plan.methods import PROBE_MINIMUM, Method
from dumont_gpu.plan.regions import Region, find_regions
from dumont_gpu.plan.rows import cut_rows
from dumont_gpu.shortages import is_shortage
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.files import SourceFile
from dumont_gpu.tree.source.small_files import SmallFiles

_SHARE_MINIMUM: Final = 16 * KiB  # smaller files are not compared: opening each file twice costs more
_SAMPLES: Final = 4  # checkpoints of one model have the same size and header, but differ in their samples
_SAMPLE_SIZE: Final = 4 * KiB
_LARGE: Final = 16 * MiB  # worth a thread of its own
_HASH_PIECE: Final = 1 * MiB
_PARTIAL_CHUNKS: Final = 6 * (len(CODECS) + len(Dtype) - 1)  # at most one per flush and codec, or element type
_SECONDS_PER_EXTENT: Final = 20e-6

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlannedExtent:
    """Bytes of one source file that go into a chunk."""

    file: int  # index into Plan.files
    file_offset: int
    chunk_offset: int
    length: int


@dataclass(slots=True)
class PlannedChunk:
    """A chunk to be: its extents lie end to end."""

    number: int
    codec: Codec
    size: int = 0
    extents: list[PlannedExtent] = field(default_factory=list)
    rows: range = range(0)  # instead of extents: the chunk holds the files of these rows
    turn: int = 0  # how many chunks were cut before this chunk; `number` is given when a chunk is begun


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
        self, files: Sequence[SourceFile], method: Method, chunk_size: int, threads: int, small: SmallFiles | None = None
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
        self._cutter = _Cutter(chunk_size, self.planned, first=len(self._row_chunks))
        # An upper bound until all chunks are cut.
        self.size = self._row_size + sum(file.entry.size for file in files)
        # Rows that change while they are packed become files, which need chunks, too.
        self.max_chunks = len(self._row_chunks) + self.size // chunk_size + _PARTIAL_CHUNKS
        if self.max_chunks > MAX_CHUNKS:
            raise UsageError(
                f"{self.max_chunks} chunks; a snapshot may have {MAX_CHUNKS}: choose a larger --chunk-size"
            )

    def encoder_memory(self, size: int) -> int:
        """Returns the bytes that encoding a chunk of `size` raw bytes takes, beside the chunk's buffers."""
        return self._method.plain.encoder_memory(size)

    def chunks(self) -> Iterator[PlannedChunk]:
        """Yields the chunks, once. Reads samples of large files, and the whole of files that look like copies."""
        sizes = _equal((file.entry.size, i) for i, file in enumerate(self.files) if file.entry.size >= _SHARE_MINIMUM)
        alike = {index for group in sizes for index in group}
        with ThreadPoolExecutor(self._threads) as pool:
            different = [index for index in range(len(self.files)) if index not in alike]
            yield from self._cut(different, pool, before=self._row_chunks)
            self.copies = self._find_copies(sizes, pool)
            yield from self._cut([index for index in sorted(alike) if index not in self.copies], pool)
        self.size = self._row_size + sum(self.planned.values())

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
        codec = self._method.plain
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
            regions = find_regions(fd, ranges, method) if method.looks else []
        if not method.looks or len(regions) > MAX_EXTENTS // 2:
            regions = [Region(start, end, method.plain) for start, end in ranges]
        return regions, found

    def _find_copies(self, groups: list[list[int]], pool: ThreadPoolExecutor) -> dict[int, int]:
        """Maps files to an earlier file of the same content, by equal size, then equal samples, then equal digest."""
        for digest in (_sample_digest, _content_digest):
            candidates = (index for group in groups for index in group)
            digests = dict(self._map_files(digest, candidates, pool))
            groups = [
                equal
                for group in groups
                for equal in _equal((digests[index], index) for index in group if index in digests)
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


class _Cutter:
    """Cuts regions into chunks: a full chunk holds one extent; the ends of regions share chunks of their codec."""

    def __init__(self, chunk_size: int, planned: dict[int, int], first: int) -> None:
        self._chunk_size, self._planned = chunk_size, planned
        self._shared: dict[Codec, PlannedChunk] = {}
        self._count = first

    def add(self, index: int, regions: Iterable[Region]) -> Iterator[PlannedChunk]:
        """Puts the regions of file number `index` into chunks; yields the chunks that are full."""
        for region in regions:
            start = region.start
            while region.end - start >= self._chunk_size:
                chunk = self._new_chunk(region.codec)
                self._append(chunk, index, start, self._chunk_size)
                start += self._chunk_size
                yield chunk
            while start < region.end:
                chunk = self._shared.get(region.codec) or self._new_chunk(region.codec)
                length = min(region.end - start, self._chunk_size - chunk.size)
                self._append(chunk, index, start, length)
                start += length
                if chunk.size < self._chunk_size:
                    self._shared[region.codec] = chunk
                else:
                    self._shared.pop(region.codec, None)
                    yield chunk

    def flush(self) -> Iterator[PlannedChunk]:
        """Yields the chunks that are not full, the slowest first."""
        chunks = sorted(self._shared.values(), key=_expected_seconds, reverse=True)
        self._shared.clear()
        yield from chunks

    def _new_chunk(self, codec: Codec) -> PlannedChunk:
        self._count += 1
        return PlannedChunk(self._count - 1, codec)

    def _append(self, chunk: PlannedChunk, index: int, start: int, length: int) -> None:
        chunk.extents.append(PlannedExtent(index, start, chunk.size, length))
        chunk.size += length
        self._planned[index] += length


def _expected_seconds(chunk: PlannedChunk) -> float:
    """Returns about how long one core takes to read and encode the chunk; only the order of chunks depends on this."""
    return chunk.size / chunk.codec.encode_rate + len(chunk.extents) * _SECONDS_PER_EXTENT


def _equal(keyed: Iterable[tuple[Hashable, int]]) -> list[list[int]]:
    """Returns the groups of two or more indices that have the same key."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for key, index in keyed:
        groups[key].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _sample_digest(file: SourceFile) -> bytes:
    digest = blake3()
    with file.open() as fd:
        for sample in range(_SAMPLES):
            digest.update(os.pread(fd, _SAMPLE_SIZE, (file.entry.size - _SAMPLE_SIZE) * sample // (_SAMPLES - 1)))
    return digest.digest()


def _content_digest(file: SourceFile) -> bytes:
    digest = blake3()
    with file.open() as fd:
        for offset in range(0, file.entry.size, _HASH_PIECE):
            digest.update(os.pread(fd, _HASH_PIECE, offset))
    return digest.digest()
