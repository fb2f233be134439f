"""Which rows of an entry table have bytes in which chunk, and whether a decoded chunk holds these bytes."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dumont_gpu.native.entry_table import Columns
from dumont_gpu.native.library import I64, POINTER, U64, Function
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


_check_pieces = Function("dumont_check_pieces", I64, POINTER, POINTER, U64, POINTER, U64, U64, POINTER)
_DAMAGED: Final = -1


class WrongPieceError(ValueError):
    """A piece does not match its digest."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"piece {number} does not match its digest")


def check_pieces(columns: Columns, placed: memoryview, content: memoryview, below: int) -> memoryview:
    """Compares small pieces of a decoded chunk with their BLAKE3 digests; returns the numbers of the pieces left.

    Args:
        columns: the table.
        placed: the rows that have bytes in the chunk, as PLACED.
        content: the raw bytes of the chunk.
        below: bytes that a small piece does not have.

    Raises:
        WrongPieceError: a piece does not match its digest.
        ValueError: a piece leaves the content.
    """
    count = len(placed) // PLACED.size
    numbers = memoryview(bytearray(4 * count))
    with (
        columns.in_c() as table,
        address(placed) as rows,
        address(content) as start,
        address(numbers, writable=True) as out,
    ):
        left: int = _check_pieces(table, rows, count, start, len(content), below, out)
    if left == _DAMAGED:
        raise WrongPieceError(numbers.cast("I")[0])
    if left < 0:
        raise ValueError("a piece leaves its chunk")
    return numbers.cast("I")[:left]
