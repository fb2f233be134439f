"""Tables of tree entries in C: rows of fixed layout, sorted, joined, and moved to and from pages of a manifest."""

from __future__ import annotations

import ctypes
import enum
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from dumont_gpu.native.library import I32, I64, POINTER, TEXT, U32, U64, Function
from dumont_gpu.native.memory import address

ENTRY: Final = struct.Struct("<qQIIIHBB")  # DumontEntry of entry_table.h
EXTENT: Final = struct.Struct("<QII")
PIECE: Final = struct.Struct("<III32s")
OWNER: Final = struct.Struct("<II")
TYPE_AT: Final = 30  # offset of an entry's type
FLAGS_AT: Final = 31
FILE, DIR, SYMLINK, HARDLINK = range(4)
DROPPED: Final = 255  # type of a row that is no entry any more
CHANGED_FLAG: Final = 1
NO_OWNER: Final = (1 << 32) - 1


class _Table(ctypes.Structure):
    _fields_ = (
        ("entries", POINTER), ("entry_count", U64), ("names", POINTER), ("names_size", U64), ("extents", POINTER),
        ("extent_count", U64), ("pieces", POINTER), ("piece_count", U64), ("owners", POINTER),
    )  # fmt: skip


class PageNeeds(NamedTuple):
    """What a page adds to a table."""

    names: int  # bytes
    extents: int  # items
    owners: bool


class PageError(enum.IntEnum):
    """What is wrong with a page: DumontPageError of entry_table.h."""

    MALFORMED = -1
    PATH = -2
    ORDER = -3
    PARENT = -4
    TYPE = -5
    MODE = -6
    SIZE = -7
    EXTENTS = -8
    PIECE = -9
    TARGET = -10
    LEADER = -11
    OWNER = -12
    CHANGED = -13


@dataclass(slots=True)
class Columns:
    """The columns of a table, each as long as what is in use."""

    entries: bytearray = field(default_factory=bytearray)  # of ENTRY
    names: bytearray = field(default_factory=bytearray)  # paths and targets of links, each with a NUL
    extents: bytearray = field(default_factory=bytearray)  # of EXTENT
    pieces: bytearray = field(default_factory=bytearray)  # of PIECE
    owners: bytearray | None = None  # of OWNER, one an entry; None: no entry has an owner

    @contextmanager
    def in_c(self) -> Iterator[Any]:
        """Yields the table as C takes it; meanwhile no column can change its length."""
        with ExitStack() as stack:

            def start(column: bytearray) -> int:
                return stack.enter_context(address(memoryview(column), writable=True))

            yield ctypes.pointer(
                _Table(
                    start(self.entries), len(self.entries) // ENTRY.size,
                    start(self.names), len(self.names),
                    start(self.extents), len(self.extents) // EXTENT.size,
                    start(self.pieces), len(self.pieces) // PIECE.size,
                    None if self.owners is None else start(self.owners),
                )
            )  # fmt: skip


_sort = Function("dumont_sort_entries", U64, POINTER, POINTER)


def sort_entries(columns: Columns) -> None:
    """Brings entries into the byte order of their paths, and leaves out dropped rows."""
    order = memoryview(bytearray(4 * (len(columns.entries) // ENTRY.size)))
    with columns.in_c() as table, address(order, writable=True) as start:
        left = _sort(table, start)
    del columns.entries[left * ENTRY.size :]
    if columns.owners is not None:
        del columns.owners[left * OWNER.size :]


_find = Function("dumont_find_entry", I64, POINTER, TEXT)


def find_entry(columns: Columns, path: bytes) -> int:
    """Returns the index of the entry with this path among sorted entries, or -1."""
    with columns.in_c() as table:
        index: int = _find(table, path)
    return index


_find_many = Function("dumont_find_entries", None, POINTER, TEXT, U64, POINTER)


def find_entries(columns: Columns, paths: Sequence[bytes]) -> Sequence[int]:
    """Returns the index of the entry with each of these paths among sorted entries, or -1."""
    rows = (ctypes.c_int64 * len(paths))()
    with columns.in_c() as table:
        _find_many(table, b"".join(path + b"\0" for path in paths), len(paths), rows)
    return rows[:]


_join = Function("dumont_join_paths", U64, POINTER, U64, U64, I32, POINTER)


def join_paths(columns: Columns, first: int, count: int, *, slashes: bool) -> bytearray:
    """Returns the paths of `count` entries, each followed by a line feed; `slashes`: with one after directories."""
    with columns.in_c() as table:
        joined = bytearray(_join(table, first, count, slashes, None))
        with address(memoryview(joined), writable=True) as start:
            _join(table, first, count, slashes, start)
    return joined


_page_entries = Function("dumont_page_entries", U64, POINTER, U64, U64)
_write_page = Function("dumont_write_page", U64, POINTER, U64, U64, POINTER, U32, POINTER, POINTER)


def write_pages(columns: Columns, limit: int) -> Iterator[tuple[int, int, int, bytearray]]:
    """Yields (first entry, entries, new pieces, page) for pages of at most `limit` entries; the entries are sorted."""
    numbers = bytearray(b"\xff" * (4 * (len(columns.pieces) // PIECE.size)))
    following = ctypes.c_uint32(0)
    count = len(columns.entries) // ENTRY.size
    first = 0
    with columns.in_c() as table, address(memoryview(numbers), writable=True) as numbering:
        while first < count:
            entries = _page_entries(table, first, limit)
            before = following.value
            arguments = (table, first, entries, numbering, before, ctypes.byref(following))
            page = bytearray(_write_page(*arguments, None))
            with address(memoryview(page), writable=True) as out:
                _write_page(*arguments, out)
            yield first, entries, following.value - before, page
            first += entries


_needs = Function("dumont_page_needs", I64, POINTER, U64, U64, POINTER)


def page_needs(page: memoryview, entries: int) -> PageNeeds | None:
    """Returns what a page of `entries` entries adds to a table; None for a malformed page."""
    needs = (ctypes.c_uint64 * 3)()
    with address(page) as start:
        if _needs(start, len(page), entries, needs):
            return None
    return PageNeeds(needs[0], needs[1], bool(needs[2]))


_read_page = Function("dumont_read_page", I64, POINTER, U64, U64, U64, POINTER, U64, POINTER, POINTER)


def read_page(
    page: memoryview, entries: int, pieces: int, needs: PageNeeds, chunk_sizes: Sequence[int], columns: Columns
) -> tuple[PageError, int] | None:
    """Appends a page to a table and checks every rule of the format.

    Args:
        page: the page's bytes.
        entries: how many entries the page has.
        pieces: how many new pieces it has.
        needs: from `page_needs`.
        chunk_sizes: the raw bytes of each chunk, as an array of 32-bit numbers.
        columns: the table; useless after an error.

    Returns:
        None, or the rule that the page breaks and the number of the entry within the page.
    """
    before = [len(columns.entries), len(columns.names), len(columns.extents), len(columns.pieces)]
    counts = before[0] // ENTRY.size, before[1], before[2] // EXTENT.size, before[3] // PIECE.size
    columns.entries.extend(bytes(entries * ENTRY.size))
    columns.names.extend(bytes(needs.names))
    columns.extents.extend(bytes(needs.extents * EXTENT.size))
    columns.pieces.extend(bytes(pieces * PIECE.size))
    if needs.owners and columns.owners is None:
        columns.owners = bytearray(b"\xff" * (counts[0] * OWNER.size))
    if columns.owners is not None:
        columns.owners.extend(b"\xff" * (len(columns.entries) // ENTRY.size * OWNER.size - len(columns.owners)))
    wrong = ctypes.c_uint64()
    with columns.in_c() as table, address(page) as start, address(memoryview(chunk_sizes)) as sizes:  # type: ignore[arg-type]
        used = table.contents
        used.entry_count, used.names_size, used.extent_count, used.piece_count = counts
        error = _read_page(start, len(page), entries, pieces, sizes, len(chunk_sizes), table, ctypes.byref(wrong))
        names, extents = used.names_size, used.extent_count
    if error:
        return PageError(error), wrong.value
    del columns.names[names:]
    del columns.extents[extents * EXTENT.size :]
    return None
