"""Leaves out of chunks the extents that the snapshot has already."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from dumont_gpu.buffers import Turns
from dumont_gpu.format.entries import Extent
from dumont_gpu.plan.cutter import PlannedChunk, PlannedExtent
from dumont_gpu.plan.equal_parts import SHARE_MINIMUM

_Move = tuple[int, int, int]  # within a chunk: from, to, length


class SharedExtents:
    """Remembers the extents of a pack by their digests; used from many threads.

    Digests are of the bytes that were read to be stored, not of an earlier reading: whatever happens to files
    meanwhile, an extent that shares stored bytes has those bytes.
    """

    def __init__(self) -> None:
        self.saved = 0  # bytes of extents that are not stored again
        self._lock = threading.Lock()
        self._stored: dict[bytes, Extent] = {}

    def settle(
        self,
        chunk: PlannedChunk,
        extents: Sequence[PlannedExtent],
        digests: Sequence[bytes],
        raw: memoryview,
        turns: Turns | None,
        *,
        complete: bool,
    ) -> tuple[list[Extent], memoryview]:
        """Moves the new extents of a chunk together, over those that the snapshot has already.

        Args:
            chunk: the chunk.
            extents: what was read into the chunk.
            digests: of these extents.
            raw: the chunk's raw bytes.
            turns: let chunks in by their turns, so that the same tree gives the same chunks; None: as they come.
            complete: whether everything was read. Otherwise elements keep their places: nothing moves, and the chunk
                is left out only as a whole.

        Returns:
            The extents as they are in the snapshot, and what is left of `raw`, if anything.

        Raises:
            ClosedError: the pipeline is over.
        """
        with self._lock if turns is None else turns.take(chunk.turn):
            settled, moves, size = self._share(chunk.number, extents, digests, in_place=not complete)
        if not complete:
            return settled, raw if size else raw[:0]
        for source, target, length in moves:
            raw[target : target + length] = raw[source : source + length]
        return settled, raw[:size]

    def _share(
        self, number: int, extents: Sequence[PlannedExtent], digests: Sequence[bytes], *, in_place: bool
    ) -> tuple[list[Extent], list[_Move], int]:
        """Returns the extents as they are in the snapshot, the moves of new extents, and how many bytes are new."""
        settled, moves = [], []
        size = repeated = 0
        for extent, digest in zip(extents, digests, strict=True):
            known = self._stored.get(digest)
            if known is not None:
                settled.append(Extent(extent.file_offset, known.chunk, known.chunk_offset, known.length, digest))
                repeated += known.length
                continue
            place = extent.chunk_offset if in_place else size
            new = Extent(extent.file_offset, number, place, extent.length, digest)
            if extent.length >= SHARE_MINIMUM:
                self._stored[digest] = new
            if place < extent.chunk_offset:
                moves.append((extent.chunk_offset, place, extent.length))
            settled.append(new)
            size += extent.length
        if not in_place or not size:
            self.saved += repeated
        return settled, moves, size


def as_planned(number: int, extents: Sequence[PlannedExtent], digests: Sequence[bytes]) -> list[Extent]:
    """Returns the extents of a chunk whose bytes stay where they were planned."""
    return [
        Extent(extent.file_offset, number, extent.chunk_offset, extent.length, digest)
        for extent, digest in zip(extents, digests, strict=True)
    ]
