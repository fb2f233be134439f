"""Rows of an entry table become files and directories of a target, many in one call.

From Python, every system call releases and retakes the interpreter lock, which costs more than the call itself.
These functions release the lock once for many entries.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from dumont_gpu.native.entry_table import ENTRY, Columns
from dumont_gpu.native.library import I32, POINTER, U32, U64, Function
from dumont_gpu.native.memory import address
from dumont_gpu.native.placed_rows import PLACED

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
