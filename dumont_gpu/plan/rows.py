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
_LARGEST_TEXT: Final = 1 * MiB
# A look at such a file finds no floats, and takes ten times as long as reading the file as a row. Logs and tables are
# looked at: LZ4 may suit those.
_TEXT_ENDINGS: Final = frozenset(
    {".py", ".pyc", ".pyi", ".pyx", ".pxd", ".ipynb", ".c", ".cc", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".rs", ".go"}
    | {".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".map", ".css", ".html", ".json", ".yaml", ".yml", ".toml", ".md"}
)
_FIRST_CHUNK: Final = 8 * MiB  # threads that encode wait for it; each chunk after it may have twice as many bytes


def row_limits(chunk_size: int) -> native.RowLimits:
    """Returns which files become rows: those that are too small to look at, and those that hold text or code."""
    most = chunk_size // _SHARE_OF_CHUNK
    return native.RowLimits(min(PROBE_MINIMUM - 1, most), min(_LARGEST_TEXT, most), _TEXT_ENDINGS)


def cut_rows(small: SmallFiles, chunk_size: int) -> Iterator[tuple[range, int]]:
    """Yields ranges of rows, each with the bytes of its files: at most `chunk_size`, and fewer in the first chunks."""
    columns, end = small.table.columns, len(small.table)
    first, limit = 0, _FIRST_CHUNK
    while first < end:
        stop, size = native.cut_rows(columns, first, end, min(limit, chunk_size), _MAX_ROWS)
        yield range(first, stop), size
        first, limit = stop, 2 * limit
