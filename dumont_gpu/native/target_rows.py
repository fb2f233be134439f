"""Rows of an entry table become files and directories of a target, many in one call.

From Python, every system call releases and retakes the interpreter lock, which costs more than the call itself.
These functions release the lock once for many entries.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from dumont_gpu.native.entry_table import ENTRY, Columns
from dumont_gpu.native.library import I32, POINTER, U32, U64, Function
from dumont_gpu.native.memory import address

PLACED: Final = struct.Struct("<II")  # DumontPlacedRow of target_rows.h
NO_EXTENT: Final = (1 << 32) - 1


class PlacedRows(NamedTuple):
    """Extents sorted by chunk: those of group g are rows `starts[g]` to `starts[g + 1]` of `rows`."""

    starts: memoryview  # of 64-bit numbers; groups 2c and 2c + 1 are chunk c's, see target_rows.h
    rows: memoryview  # of PLACED


_place = Function("dumont_place_rows", U64, POINTER, U64, U64, POINTER, POINTER, POINTER)


def place_rows(columns: Columns, chunks: int, small_below: int, apart: bytearray | None) -> PlacedRows:
    """Sorts the extents of files by chunk, and in each chunk whole small files before all others.

    Args:
        columns: the table; no extent lies beyond chunk number `chunks` - 1.
        chunks: how many chunks there are.
        small_below: bytes that a small file does not have.
        apart: a byte per entry: 1 for files that must not count as small; None: there are none.
    """
    starts = memoryview(bytearray(8 * (2 * chunks + 3)))
    with columns.in_c() as table, address(starts, writable=True) as groups, address(memoryview(apart or b"")) as mask:
        arguments = table, chunks, small_below, mask if apart else None, groups
        rows = memoryview(bytearray(PLACED.size * _place(*arguments, None)))
        with address(rows, writable=True) as out:
            _place(*arguments, out)
    return PlacedRows(starts.cast("Q"), rows)


_size_in_blocks = Function("dumont_size_in_blocks", U64, POINTER, U64)


def size_in_blocks(columns: Columns, block: int) -> int:
    """Returns how many bytes the extents of files take, each in whole blocks of `block` bytes."""
    with columns.in_c() as table:
        size: int = _size_in_blocks(table, block)
    return size


_create_files = Function("dumont_create_files", U64, I32, POINTER, POINTER, U64, POINTER, U64, U32, POINTER)


def create_files(
    root: int, columns: Columns, placed: memoryview, content: memoryview, mode_mask: int
) -> Iterator[tuple[int, int]]:
    """Creates whole files below `root`; yields (index, errno) of each file that cannot be created.

    Args:
        root: descriptor of the target, whose directories exist.
        columns: the table.
        placed: the files, as PLACED.
        content: the raw bytes of their chunk.
        mode_mask: the bits of modes to set.
    """
    error = ctypes.c_int32()
    first, count = 0, len(placed) // PLACED.size
    with columns.in_c() as table, address(placed) as rows, address(content) as start:
        while first < count:
            at = rows + first * PLACED.size
            first += _create_files(root, table, at, count - first, start, len(content), mode_mask, ctypes.byref(error))
            if error.value:
                yield first, error.value
                first += 1


_make_directories = Function("dumont_make_directories", U64, I32, POINTER, U64, POINTER)


def make_directories(root: int, columns: Columns) -> Iterator[tuple[int, int]]:
    """Creates a table's directories below `root`; yields (row, errno) of each failure."""
    error = ctypes.c_int32()
    row, count = 0, len(columns.entries) // ENTRY.size
    with columns.in_c() as table:
        while row < count:
            row = _make_directories(root, table, row, ctypes.byref(error))
            if error.value:
                yield row, error.value
                row += 1


_finish_directories = Function("dumont_finish_directories", U64, I32, POINTER, U64, U32, POINTER)


def finish_directories(root: int, columns: Columns, mode_mask: int) -> Iterator[tuple[int, int]]:
    """Sets times and modes of a table's directories, the last first; yields (row, errno) of each failure."""
    error = ctypes.c_int32()
    end = len(columns.entries) // ENTRY.size
    with columns.in_c() as table:
        while end > 0:
            end = _finish_directories(root, table, end, mode_mask, ctypes.byref(error))
            if error.value:
                yield end, error.value
