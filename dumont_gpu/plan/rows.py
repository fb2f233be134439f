"""Cuts the rows of plain small files into ranges that become chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dumont_gpu import native
from dumont_gpu.plan.methods import PROBE_MINIMUM
from dumont_gpu.sizes import MiB
from dumont_gpu.tree.source.small_files import SmallFiles

_MAX_ROWS: Final = 1 << 16  # of a chunk: several threads then read a tree of tiny files; contents need 48 bytes a row
_SHARE_OF_CHUNK: Final = 8  # a row's file is not cut: this part of a chunk is the most that stays unused

_FIRST_CHUNK: Final = (
    8 * MiB
)  # threads that encode wait for the first chunk; each next one may have twice as many bytes


def largest_small_file(chunk_size: int) -> int:
    """Returns the most bytes of a file that becomes a row."""
    return min(PROBE_MINIMUM - 1, chunk_size // _SHARE_OF_CHUNK)


def cut_rows(small: SmallFiles, chunk_size: int) -> Iterator[tuple[range, int]]:
    """Yields ranges of rows, each with the bytes of its files: at most `chunk_size`, and fewer in the first chunks."""
    columns, end = small.table.columns, len(small.table)
    first, limit = 0, _FIRST_CHUNK
    while first < end:
        stop, size = native.cut_rows(columns, first, end, min(limit, chunk_size), _MAX_ROWS)
        yield range(first, stop), size
        first, limit = stop, 2 * limit
