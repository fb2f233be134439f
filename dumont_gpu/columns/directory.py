"""What lies directly in a directory: found by bisection, whatever the number of entries elsewhere."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator

from dumont_gpu.columns.rows import path_at
from dumont_gpu.columns.table import EntryTable


def rows_in(table: EntryTable, folder: str) -> Iterator[int]:
    """Yields the indices of the entries directly in `folder`, in order; "" is the root."""

    def first_from(path: bytes, low: int) -> int:
        return bisect_left(rows, path, low, key=lambda row: path_at(table.columns, row))

    rows = range(len(table))
    prefix = os.fsencode(folder) + b"/" if folder else b""
    row = first_from(prefix, 0)
    end = first_from(_behind(prefix), row) if folder else len(table)
    while row < end:
        path = path_at(table.columns, row)
        slash = path.find(b"/", len(prefix))
        if slash < 0:
            yield row
            row += 1
        else:
            row = first_from(_behind(path[: slash + 1]), row)


def _behind(prefix: bytes) -> bytes:
    """Returns what follows every path that begins with `prefix`, which ends with a slash."""
    return prefix[:-1] + b"0"  # "0" follows "/"
