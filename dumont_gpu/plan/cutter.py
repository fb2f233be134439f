"""Cuts regions of files into the extents of chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu.codecs import Codec
from dumont_gpu.plan.regions import Region

_SECONDS_PER_EXTENT: Final = 20e-6


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


class Cutter:
    """Cuts regions into chunks: a full chunk holds one extent; the ends of regions share chunks of their codec.

    Args:
        chunk_size: the most bytes of a chunk.
        planned: gets the bytes of each file that are in chunks.
        first: the number of the first chunk.
        whole: whether the end of a region stays in one piece, so that equal regions give equal extents. A chunk that
            has no room for it is not full then, but more than half full.
    """

    def __init__(self, chunk_size: int, planned: dict[int, int], *, first: int, whole: bool) -> None:
        self._chunk_size, self._planned, self._whole = chunk_size, planned, whole
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
            if self._whole and start < region.end:
                yield from self._add_whole(index, start, region.end, region.codec)
                continue
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

    def _add_whole(self, index: int, start: int, end: int, codec: Codec) -> Iterator[PlannedChunk]:
        """Puts less than a chunk's bytes into one chunk; yields a chunk that is full, or has no room for them."""
        shared = self._shared.pop(codec, None)
        has_room = shared is not None and shared.size + end - start <= self._chunk_size
        chunk = shared if shared is not None and has_room else self._new_chunk(codec)
        self._append(chunk, index, start, end - start)
        if shared is not None and not has_room:
            chunk, fuller = sorted((shared, chunk), key=lambda each: each.size)
            yield fuller
        if chunk.size < self._chunk_size:
            self._shared[codec] = chunk
        else:
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
