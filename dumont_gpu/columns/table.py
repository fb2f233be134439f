"""Tree entries in columns: 140 bytes an entry instead of 600 as objects, and no work in Python for each of them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

from dumont_gpu import native
from dumont_gpu.columns.rows import NUMBERS, PieceKey, append_entry, entry_at, path_at
from dumont_gpu.format.entries import EntryType, FileEntry

_WORDS: Final = native.ENTRY.size // 8
_SIZE_WORD: Final = 1  # which of a row's 64-bit words is the size


class EntryTable(Sequence[FileEntry]):
    """Tree entries in the byte order of their paths; an entry becomes an object when somebody asks for it.

    `append`, and the jobs that fill `columns`, leave the order to `sort`.
    """

    def __init__(self, entries: Iterable[FileEntry] = ()) -> None:
        self.columns = native.Columns()
        self._pieces: dict[PieceKey, int] = {}  # of appended entries
        for entry in entries:
            self.append(entry)

    def __len__(self) -> int:
        return len(self.columns.entries) // native.ENTRY.size

    @overload
    def __getitem__(self, index: int) -> FileEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[FileEntry]: ...
    def __getitem__(self, index: int | slice) -> FileEntry | list[FileEntry]:
        if isinstance(index, slice):
            return [entry_at(self.columns, each) for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return entry_at(self.columns, index % len(self))

    def __iter__(self) -> Iterator[FileEntry]:
        return (entry_at(self.columns, index) for index in range(len(self)))

    def append(self, entry: FileEntry) -> None:
        """Adds an entry at the end, whatever its path."""
        append_entry(self.columns, entry, self._pieces)

    def sort(self) -> None:
        """Brings the entries into the byte order of their paths, and leaves out dropped rows."""
        native.sort_entries(self.columns)

    def find(self, path: str) -> int | None:
        """Returns the index of the entry at `path`, or None."""
        index = native.find_entry(self.columns, os.fsencode(path))
        return None if index < 0 else index

    def path(self, index: int) -> str:
        """Returns the path of an entry."""
        return os.fsdecode(path_at(self.columns, index))

    def types(self) -> bytes:
        """Returns the number of each entry's type: native.FILE, DIR, SYMLINK, HARDLINK."""
        return bytes(self.columns.entries[native.TYPE_AT :: native.ENTRY.size])

    def of_type(self, kind: EntryType) -> Iterator[FileEntry]:
        """Yields the entries of a type, in order."""
        return (entry_at(self.columns, row) for row in self.rows_of(kind))

    def rows_of(self, kind: EntryType) -> Iterator[int]:
        """Yields the indices of the entries of a type, in order: in no time where there are few."""
        types, number = self.types(), NUMBERS[kind]
        row = types.find(number)
        while row >= 0:
            yield row
            row = types.find(number, row + 1)

    def total_size(self) -> int:
        """Returns the bytes of all files."""
        return sum(memoryview(self.columns.entries).cast("Q")[_SIZE_WORD::_WORDS])


def sizes_of(table: EntryTable, rows: Iterable[int]) -> int:
    """Returns the bytes of the files at these indices."""
    words = memoryview(table.columns.entries).cast("Q")
    return sum(words[row * _WORDS + _SIZE_WORD] for row in rows)


def as_table(entries: Sequence[FileEntry]) -> EntryTable:
    """Returns the entries, which are in order, as a table."""
    return entries if isinstance(entries, EntryTable) else EntryTable(entries)


def rows_at(table: EntryTable, paths: Iterable[str]) -> Iterator[int]:
    """Yields the indices of the entries that there are at these paths."""
    return (row for row in native.find_entries(table.columns, [os.fsencode(path) for path in paths]) if row >= 0)


def changed_files(table: EntryTable) -> Iterator[FileEntry]:
    """Yields the files that changed while they were packed."""
    flags = bytes(table.columns.entries[native.FLAGS_AT :: native.ENTRY.size])
    if flags.count(0) == len(flags):
        return iter(())
    return (table[row] for row, flag in enumerate(flags) if flag & native.CHANGED_FLAG)


def part_of(table: EntryTable, rows: Iterable[int]) -> EntryTable:
    """Returns a table of some of the entries. Both tables share their names and extents: append to neither."""
    part, columns, rows = EntryTable(), table.columns, list(rows)
    entries, owners = memoryview(columns.entries), memoryview(columns.owners or b"")
    part.columns = native.Columns(
        entries=bytearray().join(_row(entries, native.ENTRY, row) for row in rows),
        names=columns.names,
        extents=columns.extents,
        pieces=columns.pieces,
        owners=bytearray().join(_row(owners, native.OWNER, row) for row in rows) if owners else None,
    )
    return part


def _row(column: memoryview, layout: struct.Struct, row: int) -> memoryview:
    return column[row * layout.size : (row + 1) * layout.size]
