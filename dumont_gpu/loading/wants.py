"""What is wanted of a snapshot's files, and the bytes of its chunks that this is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from dumont_gpu.format.entries import Extent, FileEntry

P = TypeVar("P")  # memory of the host, or of a device


@dataclass(slots=True, eq=False)
class Want(Generic[P]):
    """Consecutive bytes of a file.

    Args:
        file: a regular file of the snapshot.
        start: offset of the first byte in the file.
        size: bytes.
        place: `size` bytes of memory for them; set before the first chunk of the want is loaded.
        left: pieces that are still to come.
    """

    file: FileEntry
    start: int
    size: int
    place: P | None = None
    left: int = 0

    @property
    def end(self) -> int:
        return self.start + self.size

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yields start and end, within the place, of bytes that no chunk holds: they are zero."""
        at = self.start
        for extent in extents_between(self.file, self.start, self.end):
            if extent.file_offset > at:
                yield at - self.start, extent.file_offset - self.start
            at = extent.file_end
        if at < self.end:
            yield at - self.start, self.size


@dataclass(frozen=True, slots=True)
class Piece(Generic[P]):
    """Bytes of a decoded chunk that belong into the place of a want."""

    want: Want[P]
    at: int  # in the place
    begin: int  # in the chunk
    size: int


@dataclass(slots=True)
class ChunkPieces(Generic[P]):
    """A chunk, and what is wanted of it.

    Args:
        number: of the chunk.
        pieces: by their begin in the chunk; pieces may overlap there, where files share bytes.
        extents: that the pieces are of, each with the path of its file.
    """

    number: int
    pieces: list[Piece[P]] = field(default_factory=list)
    extents: list[tuple[Extent, str]] = field(default_factory=list)

    def fills_one_place(self, size: int) -> bool:
        """Whether all `size` raw bytes of the chunk are wanted, in one place and in their order."""
        return len(self.pieces) == 1 and (self.pieces[0].begin, self.pieces[0].size) == (0, size)


def cut(wants: Iterable[Want[P]]) -> list[ChunkPieces[P]]:
    """Returns the chunks that hold bytes of the wants, in the snapshot's order; counts the pieces of each want."""
    chunks: dict[int, ChunkPieces[P]] = {}
    for want in wants:
        for extent in extents_between(want.file, want.start, want.end):
            chunk = chunks.setdefault(extent.chunk, ChunkPieces(extent.chunk))
            first, end = max(extent.file_offset, want.start), min(extent.file_end, want.end)
            begin = extent.chunk_offset + first - extent.file_offset
            chunk.pieces.append(Piece(want, first - want.start, begin, end - first))
            chunk.extents.append((extent, want.file.path))
    for chunk in chunks.values():
        chunk.pieces = _joined(chunk.pieces)
        for piece in chunk.pieces:
            piece.want.left += 1
    return [chunks[number] for number in sorted(chunks)]


def size_before_next_chunk(file: FileEntry, start: int, size: int) -> int:
    """Returns how many of `size` bytes from `start` on lie in holes and in the first chunk that has any of them."""
    first: int | None = None
    for extent in extents_between(file, start, start + size):
        if first is not None and extent.chunk != first:
            return extent.file_offset - start
        first = extent.chunk
    return size


def extents_between(file: FileEntry, start: int, end: int) -> Iterator[Extent]:
    """Yields the extents of a file that have bytes from `start` up to `end`, in file order."""
    if start >= end:
        return
    first = bisect_right(file.extents, start, key=lambda extent: extent.file_end)
    for number in range(first, len(file.extents) if start < end else first):
        extent = file.extents[number]
        if extent.file_offset >= end:
            break
        yield extent


def _joined(pieces: list[Piece[P]]) -> list[Piece[P]]:
    """Returns the pieces by their begin; those that follow each other in chunk and place become one."""
    joined: list[Piece[P]] = []
    for piece in sorted(pieces, key=lambda piece: piece.begin):
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.want is piece.want
            and last.begin + last.size == piece.begin
            and last.at + last.size == piece.at
        ):
            joined[-1] = replace(last, size=last.size + piece.size)
        else:
            joined.append(piece)
    return joined


def count_pieces(chunk: ChunkPieces[P], lock: AbstractContextManager[object], done: Callable[[Want[P]], None]) -> None:
    """Counts the pieces of a chunk, which are in their places.

    Args:
        lock: held while the count of a want changes.
        done: told of each want that is complete.
    """
    for piece in chunk.pieces:
        with lock:
            piece.want.left -= 1
            last = not piece.want.left
        if last:
            done(piece.want)
