"""Maps chunks to the files of a table that have bytes in them. Small files stay rows: many are written in one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

from dumont_gpu import native
from dumont_gpu.columns.rows import entry_at, extent_at
from dumont_gpu.columns.table import EntryTable, sizes_of
from dumont_gpu.disk.direct_io import DIRECT_MINIMUM
from dumont_gpu.format.entries import Extent, FileEntry

# Files that have bytes in a chunk, each with its extents there in file order.
FileExtents = Sequence[tuple[FileEntry, Sequence[Extent]]]


class Piece(NamedTuple):
    """A run of bytes of a chunk, which several extents may share."""

    begin: int
    size: int
    digest: bytes


class SmallFiles(Sequence[tuple[FileEntry, int]]):
    """Small files that lie in one chunk as a whole, in path order: (entry, offset of its bytes in the chunk)."""

    __slots__ = ("rows", "table")

    def __init__(self, table: EntryTable, rows: memoryview) -> None:
        self.table = table
        self.rows = rows  # of native.PLACED

    def __len__(self) -> int:
        return len(self.rows) // native.PLACED.size

    @property
    def size(self) -> int:
        """Bytes of all the files."""
        return sizes_of(self.table, self.rows.cast("B").cast("I")[::2])

    @overload
    def __getitem__(self, index: int) -> tuple[FileEntry, int]: ...
    @overload
    def __getitem__(self, index: slice) -> SmallFiles: ...
    def __getitem__(self, index: int | slice) -> tuple[FileEntry, int] | SmallFiles:
        size = native.PLACED.size
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return SmallFiles(self.table, self.rows[start * size : stop * size])
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, extent = native.PLACED.unpack_from(self.rows, index * size)
        columns = self.table.columns
        return entry_at(columns, row), 0 if extent == native.NO_EXTENT else extent_at(columns, extent).chunk_offset


class Placement:
    """The chunks that hold bytes of a table's files: iterates over their numbers.

    Args:
        table: the files, among other entries.
        chunks: how many chunks the snapshot has.
        apart: indices of files that must not count as small, however small they are.
    """

    def __init__(self, table: EntryTable, chunks: int, apart: Iterable[int] = ()) -> None:
        self._table, self._chunks = table, chunks
        mask: bytearray | None = None
        for row in apart:
            mask = mask or bytearray(len(table))
            mask[row] = 1
        self._starts, self._rows = native.place_rows(table.columns, chunks, DIRECT_MINIMUM, mask)

    def __contains__(self, chunk: int) -> bool:
        return self.count(chunk) > 0

    def __iter__(self) -> Iterator[int]:
        return (chunk for chunk in range(self._chunks) if self.count(chunk))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def count(self, chunk: int) -> int:
        """Returns the number of extents in a chunk."""
        return self._starts[2 * chunk + 2] - self._starts[2 * chunk]

    def small(self, chunk: int | None) -> SmallFiles:
        """Returns the whole small files in a chunk; None: the files without bytes, which lie in no chunk."""
        return SmallFiles(self._table, self._group(2 * (self._chunks if chunk is None else chunk)))

    def others(self, chunk: int | None) -> FileExtents:
        """Returns all other files with bytes in a chunk; None: all other files without extents."""
        columns = self._table.columns
        result: list[tuple[FileEntry, list[Extent]]] = []
        last = -1
        for row, extent in native.PLACED.iter_unpack(self._group(2 * (self._chunks if chunk is None else chunk) + 1)):
            if row != last:
                result.append((entry_at(columns, row), []))
                last = row
            if extent != native.NO_EXTENT:
                result[-1][1].append(extent_at(columns, extent))
        return result

    def largest(self, chunk: int) -> Extent | None:
        """Returns the largest extent in a chunk that is no whole small file."""
        columns = self._table.columns
        extents = (extent_at(columns, number) for number in self._group(2 * chunk + 1).cast("I")[1::2])
        return max(extents, key=lambda extent: extent.length, default=None)

    def piece(self, number: int) -> Piece:
        """Returns a piece of the table."""
        return Piece(*native.PIECE.unpack_from(self._table.columns.pieces, number * native.PIECE.size)[1:])

    def check_small_pieces(self, chunk: int, content: memoryview, below: int) -> memoryview:
        """Compares pieces of less than `below` bytes with their BLAKE3 digests; returns the numbers of the pieces left.

        Raises:
            native.WrongPieceError: a piece does not match its digest.
        """
        return native.check_pieces(self._table.columns, self._rows_of(2 * chunk, 2 * chunk + 2), content, below)

    def owner_of(self, piece: int, chunk: int) -> FileEntry:
        """Returns the first file that has this piece of a chunk."""
        columns = self._table.columns
        placed = native.PLACED.iter_unpack(self._rows_of(2 * chunk, 2 * chunk + 2))
        return entry_at(columns, min(row for row, extent in placed if _piece_of(columns.extents, extent) == piece))

    def _group(self, group: int) -> memoryview:
        return self._rows_of(group, group + 1)

    def _rows_of(self, first: int, end: int) -> memoryview:
        return self._rows[self._starts[first] * native.PLACED.size : self._starts[end] * native.PLACED.size]


def _piece_of(extents: bytearray, index: int) -> int:
    number: int = native.EXTENT.unpack_from(extents, index * native.EXTENT.size)[1]
    return number
