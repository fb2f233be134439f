"""Plain small files as rows of an entry table: listed, cut, read, and stored once where contents are equal."""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from dumont_gpu.native.entry_table import ENTRY, EXTENT, OWNER, PIECE, Columns
from dumont_gpu.native.library import I32, POINTER, TEXT, U32, U64, Function
from dumont_gpu.native.memory import address

INODE: Final = struct.Struct("<Q")
LINKED: Final = struct.Struct("<QQQ")  # DumontLinkedRow of file_rows.h: device, inode, row
_RESULTS: Final = (("Q", 8), ("Q", 8), ("i", 4))
_SLOT: Final = struct.Struct("<I")
_FEWEST_SLOTS: Final = 1 << 12


class _Listing(ctypes.Structure):
    _fields_ = (
        ("rows", POINTER), ("owners", POINTER), ("inodes", POINTER), ("names", POINTER), ("linked", POINTER),
        ("others", POINTER), ("row_count", U64), ("names_size", U64), ("linked_count", U64), ("others_size", U64),
        ("size", U64), ("device", U64),
    )  # fmt: skip


class _Rules(ctypes.Structure):
    _fields_ = (
        ("max_size", U64), ("max_text_size", U64), ("text_endings", POINTER), ("left_out", POINTER),
        ("left_out_count", U64),
    )  # fmt: skip


class RowLimits(NamedTuple):
    """Which files become rows. Sizes are bytes."""

    size: int  # of any file
    text_size: int = 0  # of a file whose name has one of the endings
    text_endings: Collection[str] = ()


class FoundRows(NamedTuple):
    """What a scan of a directory found."""

    error: int  # 0, or the errno that ended the scan
    device: int
    size: int  # bytes of the rows' files
    others: list[bytes]  # names of entries that are no rows


_new_listing = Function("dumont_new_listing", POINTER)
_free_listing = Function("dumont_free_listing", None, POINTER)
_scan_directory = Function("dumont_scan_directory", I32, POINTER, I32, TEXT, U64, U64, POINTER)


class DirectoryScanner:
    """Lists directories, one by one, and appends their plain small files to a table.

    Args:
        limits: the largest files that become rows.
        left_out: device and inode of files that must not become rows.
    """

    def __init__(self, limits: RowLimits, left_out: Sequence[tuple[int, int]]) -> None:
        endings = "".join(f"{ending}\0" for ending in limits.text_endings)
        self._endings = ctypes.create_string_buffer(endings.encode())
        flat = [number for identity in left_out for number in identity]
        self._left_out = (ctypes.c_uint64 * len(flat))(*flat)
        self._rules = _Rules(
            limits.size,
            limits.text_size,
            ctypes.addressof(self._endings),
            ctypes.addressof(self._left_out),
            len(left_out),
        )
        self._listing: int = _new_listing()
        if not self._listing:
            raise MemoryError
        self._found = _Listing.from_address(self._listing)

    def close(self) -> None:
        """Frees the memory; a second time does nothing."""
        _free_listing(self._listing)
        self._listing = 0

    def scan(self, directory: int, prefix: bytes, columns: Columns, inodes: bytearray, linked: bytearray) -> FoundRows:
        """Lists a directory.

        Args:
            directory: descriptor.
            prefix: what stands before names in paths, with its slash.
            columns: gets the rows; owners only if it has some already.
            inodes: gets an INODE for each row.
            linked: gets a LINKED for each row of a file with several names.
        """
        rows = len(columns.entries) // ENTRY.size
        error = _scan_directory(
            self._listing, directory, prefix, rows, len(columns.names), ctypes.addressof(self._rules)
        )
        found = self._found
        if found.row_count:
            columns.entries += ctypes.string_at(found.rows, found.row_count * ENTRY.size)
            columns.names += ctypes.string_at(found.names, found.names_size)
            inodes += ctypes.string_at(found.inodes, found.row_count * INODE.size)
            if columns.owners is not None:
                columns.owners += ctypes.string_at(found.owners, found.row_count * OWNER.size)
            if found.linked_count:
                linked += ctypes.string_at(found.linked, found.linked_count * LINKED.size)
        others = ctypes.string_at(found.others, found.others_size).split(b"\0")[:-1] if found.others_size else []
        return FoundRows(error, found.device, found.size, others)


_link_rows = Function("dumont_link_rows", U64, POINTER, POINTER, U64)


def link_rows(columns: Columns, linked: bytearray) -> int:
    """Turns all but the first name of each file into hard links; returns the bytes of the files that became links.

    Args:
        columns: the table.
        linked: a LINKED for each row of a file with several names; is sorted.
    """
    with columns.in_c() as table, address(memoryview(linked), writable=True) as start:
        saved: int = _link_rows(table, start, len(linked) // LINKED.size)
    return saved


_cut_rows = Function("dumont_cut_rows", U64, POINTER, U64, U64, U64, U64, POINTER)


def cut_rows(columns: Columns, first: int, end: int, max_size: int, max_rows: int) -> tuple[int, int]:
    """Returns where the chunk that begins with row `first` ends, and the bytes of its files."""
    size = ctypes.c_uint64()
    with address(memoryview(columns.entries)) as rows:
        end = _cut_rows(rows, first, end, max_size, max_rows, ctypes.byref(size))
    return end, size.value


_read_rows = Function(
    "dumont_read_rows", U64, I32, U64, POINTER, POINTER, POINTER, U64, POINTER, U64, U64, POINTER, POINTER, POINTER
)


class RowReader:
    """A context in which the files of consecutive rows are read into a chunk's buffer, directory by directory.

    Args:
        columns: the table; meanwhile, no other thread changes the length of its entries and names.
        inodes: an INODE for each row of the table.
        rows: of the chunk.
        out: the chunk's buffer.
    """

    def __init__(self, columns: Columns, inodes: bytearray, rows: range, out: memoryview) -> None:
        self.rows, self._size = rows, len(out)
        self.end = 0  # of what was read
        # Of each row, where its file's content is in the buffer; no bytes of what was not read.
        self.begins, self.sizes, self._results = (array(kind, bytes(width * len(rows))) for kind, width in _RESULTS)
        self._memory = (columns.entries, columns.names, inodes, out, self.begins, self.sizes, self._results)
        self._exported = ExitStack()

    def __enter__(self) -> RowReader:
        self._addresses = [
            self._exported.enter_context(address(memoryview(memory), writable=True)) for memory in self._memory
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._exported.close()

    def read(self, directory: int, device: int, rows: range) -> None:
        """Reads the files of `rows`, all of one directory, behind what was read before."""
        entries, names, inodes, out, begins, sizes, results = self._addresses
        at = rows.start - self.rows.start
        self.end = _read_rows(
            directory, device, entries + rows.start * ENTRY.size, names, inodes + rows.start * INODE.size, len(rows),
            out, self._size, self.end, begins + 8 * at, sizes + 8 * at, results + 4 * at,
        )  # fmt: skip

    def fail(self, rows: range, error: int) -> None:
        """Notes that no file of `rows` can be read."""
        at = rows.start - self.rows.start
        self._results[at : at + len(rows)] = array("i", [error]) * len(rows)

    def failures(self) -> list[tuple[int, int]]:
        """Returns the rows that were not read, each with an errno, NOT_REGULAR, SHORT or CHANGED."""
        if not any(self._results):
            return []
        return [(row, result) for row, result in zip(self.rows, self._results, strict=True) if result]


_index_pieces = Function("dumont_index_pieces", None, POINTER, U64, POINTER, U64)
_share_rows = Function(
    "dumont_share_rows", U64, POINTER, U64, U64, U32, POINTER, POINTER, POINTER, POINTER, POINTER, U64
)


class ContentIndex:
    """Finds the piece of a table that has the same content: 6 to 12 bytes a piece. Used by one thread at a time."""

    def __init__(self, columns: Columns) -> None:
        self._columns, self._slots = columns, bytearray(_FEWEST_SLOTS * _SLOT.size)

    def share(self, reader: RowReader, chunk: int, raw: memoryview, digests: bytearray) -> int:
        """Gives rows their extents: in pieces of equal content, or in new pieces, whose bytes move together.

        Args:
            reader: has read the rows into the chunk; rows that could not be read are dropped.
            chunk: its number.
            raw: its bytes.
            digests: of each row's content.

        Returns:
            How many bytes are left in the chunk.
        """
        columns, rows = self._columns, reader.rows
        extents, pieces = len(columns.extents), len(columns.pieces)
        self._grow(pieces // PIECE.size + len(rows))
        columns.extents += bytes(EXTENT.size * len(rows))
        columns.pieces += bytes(PIECE.size * len(rows))
        with (
            columns.in_c() as table, address(raw, writable=True) as start,
            address(memoryview(reader.begins)) as begins, address(memoryview(reader.sizes)) as sizes,
            address(memoryview(digests)) as hashes, address(memoryview(self._slots), writable=True) as slots,
        ):  # fmt: skip
            used = table.contents
            used.extent_count, used.piece_count = extents // EXTENT.size, pieces // PIECE.size
            left: int = _share_rows(
                table, rows.start, len(rows), chunk, start, begins, sizes, hashes, slots, len(self._slots) // _SLOT.size
            )
            extents, pieces = used.extent_count * EXTENT.size, used.piece_count * PIECE.size
        del columns.extents[extents:]
        del columns.pieces[pieces:]
        return left

    def close(self) -> None:
        """Frees the slots; the table keeps its pieces."""
        self._slots = bytearray()

    def _grow(self, pieces: int) -> None:
        """Makes room: lookups stay short while at least a third of the slots is free."""
        count = len(self._slots) // _SLOT.size
        if pieces * 3 <= count * 2:
            return
        while pieces * 3 > count * 2:
            count *= 2
        self._slots = bytearray(count * _SLOT.size)
        known = len(self._columns.pieces) // PIECE.size
        with (
            address(memoryview(self._columns.pieces)) as start,
            address(memoryview(self._slots), writable=True) as slots,
        ):
            _index_pieces(start, known, slots, count)
