"""Rows of an entry table to tree entries and back: one at a time, for those that somebody asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from dumont_gpu import native
from dumont_gpu.format.entries import EntryType, Extent, FileEntry

TYPES: Final = (EntryType.FILE, EntryType.DIR, EntryType.SYMLINK, EntryType.HARDLINK)  # by their numbers in a row
NUMBERS: Final = {kind: number for number, kind in enumerate(TYPES)}

_read_entry: Final = native.ENTRY.unpack_from

PieceKey = tuple[int, int, int, bytes]  # chunk, offset in the chunk, length, digest


def entry_at(columns: native.Columns, index: int, *, extents: bool = True) -> FileEntry:
    """Returns an entry as an object; without its extents, of which some files have thousands, if nobody wants them."""
    mtime_ns, size, path, first, count, mode, number, flags = _read_entry(columns.entries, index * native.ENTRY.size)
    return FileEntry(  # by position: by name, a tuple takes twice the time
        os.fsdecode(_bytes_at(columns, path)),
        TYPES[number],
        mode,
        mtime_ns,
        size,
        _extents(columns, first, count) if count and extents else (),
        os.fsdecode(_bytes_at(columns, first)) if number == native.SYMLINK or number == native.HARDLINK else "",
        None if columns.owners is None else _owner(columns.owners, index),
        flags & native.CHANGED_FLAG != 0,
    )


def path_at(columns: native.Columns, index: int) -> bytes:
    """Returns the path of an entry as it is on disk."""
    return _bytes_at(columns, native.ENTRY.unpack_from(columns.entries, index * native.ENTRY.size)[2])


def target_at(columns: native.Columns, index: int) -> bytes:
    """Returns the target of a link."""
    return _bytes_at(columns, native.ENTRY.unpack_from(columns.entries, index * native.ENTRY.size)[3])


def size_at(columns: native.Columns, index: int) -> int:
    """Returns the size of an entry's file."""
    size: int = native.ENTRY.unpack_from(columns.entries, index * native.ENTRY.size)[1]
    return size


def type_at(columns: native.Columns, index: int) -> int:
    """Returns the number of an entry's type, or native.DROPPED."""
    return columns.entries[index * native.ENTRY.size + native.TYPE_AT]


def drop_at(columns: native.Columns, index: int) -> None:
    """Makes an entry a row that sorting leaves out."""
    columns.entries[index * native.ENTRY.size + native.TYPE_AT] = native.DROPPED


def renumber_chunks(columns: native.Columns, numbers: Mapping[int, int]) -> None:
    """Gives chunks new numbers in all extents; `numbers`: old -> new."""
    chunks = memoryview(columns.pieces).cast("I")[:: native.PIECE.size // 4]
    for index, number in enumerate(chunks):
        chunks[index] = numbers[number]


def extent_at(columns: native.Columns, index: int) -> Extent:
    """Returns an extent as an object."""
    offset, piece, _ = native.EXTENT.unpack_from(columns.extents, index * native.EXTENT.size)
    return Extent(offset, *native.PIECE.unpack_from(columns.pieces, piece * native.PIECE.size))


def append_entry(columns: native.Columns, entry: FileEntry, pieces: dict[PieceKey, int]) -> None:
    """Adds a row. `pieces`: the numbers of the table's pieces; equal ones are stored once."""
    path = len(columns.names)
    columns.names += os.fsencode(entry.path) + b"\0"
    first, count = len(columns.extents) // native.EXTENT.size, len(entry.extents)
    if entry.target:
        first = len(columns.names)
        columns.names += os.fsencode(entry.target) + b"\0"
    for extent in entry.extents:
        columns.extents += native.EXTENT.pack(extent.file_offset, _piece(columns, extent, pieces), 0)
    if entry.owner is not None and columns.owners is None:
        columns.owners = bytearray(b"\xff" * (len(columns.entries) // native.ENTRY.size * native.OWNER.size))
    if columns.owners is not None:
        columns.owners += native.OWNER.pack(*entry.owner or (native.NO_OWNER, native.NO_OWNER))
    flags = native.CHANGED_FLAG if entry.changed else 0
    columns.entries += native.ENTRY.pack(
        entry.mtime_ns, entry.size, path, first, count, entry.mode, NUMBERS[entry.type], flags
    )


def _bytes_at(columns: native.Columns, offset: int) -> bytes:
    names = columns.names
    return bytes(names[offset : names.index(0, offset)])


def _owner(owners: bytearray, index: int) -> tuple[int, int] | None:
    uid, gid = native.OWNER.unpack_from(owners, index * native.OWNER.size)
    return None if uid == native.NO_OWNER else (uid, gid)


def _extents(columns: native.Columns, first: int, count: int) -> tuple[Extent, ...]:
    if count == 1:  # nearly every file
        return (extent_at(columns, first),)
    return tuple(extent_at(columns, number) for number in range(first, first + count))


def _piece(columns: native.Columns, extent: Extent, pieces: dict[PieceKey, int]) -> int:
    key = extent.chunk, extent.chunk_offset, extent.length, extent.digest
    count = len(columns.pieces) // native.PIECE.size
    number = pieces.setdefault(key, count)
    if number == count:
        columns.pieces += native.PIECE.pack(*key)
    return number
