"""Cuts files into chunks: files, then regions of one codec, then extents, then chunks that decode alone."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Final, TypeVar

from dumont_gpu.codecs import Codec
from dumont_gpu.errors import UsageError
from dumont_gpu.format import MAX_CHUNKS, KiB, MiB
from dumont_gpu.manifest import MAX_EXTENTS
from dumont_gpu.methods import LZ4, PROBE_MINIMUM, UNIFORM_METHODS, codec_for_small_file
from dumont_gpu.regions import Region, find_regions
from dumont_gpu.tree.scan import Problem, SourceFile

_SHARE_MINIMUM: Final = 16 * KiB  # equal files below this are not looked for: opening each twice costs more
_SAMPLES: Final = 4  # checkpoints of one model share size and header, but not these places: few files are read twice
_SAMPLE_SIZE: Final = 4 * KiB
_LARGE: Final = 16 * MiB  # worth a thread of its own
_HASH_PIECE: Final = 1 * MiB


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


@dataclass(slots=True)
class Plan:
    files: Sequence[SourceFile]
    chunks: list[PlannedChunk]
    copies: dict[int, int]  # file index -> index of the file with the same content, whose extents it shares
    problems: dict[int, Problem]  # file index -> why it cannot be packed

    @property
    def size(self) -> int:
        """Original bytes in all chunks."""
        return sum(chunk.size for chunk in self.chunks)


def plan_chunks(files: Sequence[SourceFile], method: str, chunk_size: int, threads: int) -> Plan:
    """Plans the chunks of a snapshot. Reads samples of large files, and all of those that look like copies.

    Args:
        files: what to pack, in path order.
        method: a name from METHODS.
        chunk_size: the most original bytes in one chunk; a multiple of 4 KiB, so of every element size.
        threads: how many large files are looked at at once.

    Raises:
        UsageError: more chunks than a snapshot may have.
    """
    problems: dict[int, Problem] = {}
    with ThreadPoolExecutor(threads) as pool:
        copies = _find_copies(files, pool, problems)
        unique = [index for index in range(len(files)) if index not in copies and index not in problems]
        sampled = [index for index in unique if _is_sampled(files[index])]
        found = chain(
            _map_files(partial(_find_regions, method=method), sampled, files, pool, problems),
            ((index, _by_extension(files[index], method)) for index in unique if not _is_sampled(files[index])),
        )
        chunks = _cut(found, chunk_size)
    if len(chunks) > MAX_CHUNKS:
        raise UsageError(f"{len(chunks)} chunks; a snapshot may have {MAX_CHUNKS}: choose a larger --chunk-size")
    return Plan(files, chunks, copies, problems)


def _is_sampled(file: SourceFile) -> bool:
    """Whether cutting the file into regions takes a look at it: a large one's bytes, or a sparse one's holes."""
    return file.entry.size >= PROBE_MINIMUM or file.allocated < file.entry.size


def _by_extension(file: SourceFile, method: str) -> list[Region]:
    codec = UNIFORM_METHODS.get(method) or codec_for_small_file(file.entry.path)
    return [Region(0, file.entry.size, codec)]


def _find_regions(file: SourceFile, method: str) -> list[Region]:
    ranges = file.data_ranges()
    codec = UNIFORM_METHODS.get(method)
    if codec is None and file.entry.size < PROBE_MINIMUM:
        codec = codec_for_small_file(file.entry.path)
    if codec is None:
        with file.open() as fd:
            regions = find_regions(fd, ranges)
        if len(regions) <= MAX_EXTENTS // 2:
            return regions
    return [Region(start, end, codec or LZ4) for start, end in ranges]


def _cut(found: Iterable[tuple[int, list[Region]]], chunk_size: int) -> list[PlannedChunk]:
    """Full chunks hold one extent; what is left of regions shares chunks with others of the same codec."""
    chunks: list[PlannedChunk] = []
    shared: dict[Codec, PlannedChunk] = {}

    def new_chunk(codec: Codec) -> PlannedChunk:
        chunks.append(PlannedChunk(len(chunks), codec))
        return chunks[-1]

    def add(chunk: PlannedChunk, index: int, start: int, length: int) -> None:
        chunk.extents.append(PlannedExtent(index, start, chunk.size, length))
        chunk.size += length

    for index, regions in found:
        for region in regions:
            start = region.start
            while region.end - start >= chunk_size:
                add(new_chunk(region.codec), index, start, chunk_size)
                start += chunk_size
            while start < region.end:
                chunk = shared.get(region.codec)
                if chunk is None or chunk.size == chunk_size:
                    chunk = shared[region.codec] = new_chunk(region.codec)
                length = min(region.end - start, chunk_size - chunk.size)
                add(chunk, index, start, length)
                start += length
    return chunks


def _find_copies(files: Sequence[SourceFile], pool: ThreadPoolExecutor, problems: dict[int, Problem]) -> dict[int, int]:
    """Maps files to an earlier file of the same content: same size, then same samples, then same SHA-256."""
    groups = _equal((file.entry.size, index) for index, file in enumerate(files) if file.entry.size >= _SHARE_MINIMUM)
    for digest in (_sample_digest, _content_digest):
        candidates = [index for group in groups for index in group]
        digests = dict(_map_files(digest, candidates, files, pool, problems))
        groups = [
            equal
            for group in groups
            for equal in _equal((digests[index], index) for index in group if index in digests)
        ]
    return {index: group[0] for group in groups for index in group[1:]}


def _equal(keyed: Iterable[tuple[Hashable, int]]) -> list[list[int]]:
    """The groups of two or more indices that have a key in common."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for key, index in keyed:
        groups[key].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _sample_digest(file: SourceFile) -> bytes:
    digest = hashlib.sha256()
    with file.open() as fd:
        for sample in range(_SAMPLES):
            digest.update(os.pread(fd, _SAMPLE_SIZE, (file.entry.size - _SAMPLE_SIZE) * sample // (_SAMPLES - 1)))
    return digest.digest()


def _content_digest(file: SourceFile) -> bytes:
    digest = hashlib.sha256()
    with file.open() as fd:
        for offset in range(0, file.entry.size, _HASH_PIECE):
            digest.update(os.pread(fd, _HASH_PIECE, offset))
    return digest.digest()


def _map_files(
    work: Callable[[SourceFile], T],
    indices: Sequence[int],
    files: Sequence[SourceFile],
    pool: ThreadPoolExecutor,
    problems: dict[int, Problem],
) -> Iterator[tuple[int, T]]:
    """Yields (index, result), large files first; a file that cannot be read becomes a problem instead.

    Only large files go through the pool: for small ones, handing over costs three times what the work does.
    """

    def guarded(index: int) -> T | OSError:
        try:
            return work(files[index])
        except OSError as error:
            return error

    large = [index for index in indices if files[index].entry.size >= _LARGE]
    small = [index for index in indices if files[index].entry.size < _LARGE]
    results = chain(zip(large, pool.map(guarded, large), strict=True), zip(small, map(guarded, small), strict=True))
    for index, result in results:
        if isinstance(result, OSError):
            problems[index] = Problem(files[index].entry.path, result.strerror or str(result))
        else:
            yield index, result
