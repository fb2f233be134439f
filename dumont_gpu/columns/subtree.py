"""The entries below a directory as a table of their own, whose paths begin below that directory."""

from __future__ import annotations

import os
from bisect import bisect_left
from typing import Final

from dumont_gpu import native
from dumont_gpu.columns.rows import path_at
from dumont_gpu.columns.table import EntryTable, part_of, rows_at
from dumont_gpu.format.entries import EntryType, with_new_leaders

_WORDS: Final = native.ENTRY.size // 4
_PATH_WORD: Final = 4  # which of a row's 32-bit words is the offset of its path
_TARGET_WORD: Final = 5  # of a link, that of its target


def subtree(table: EntryTable, folder: str) -> EntryTable:
    """Returns the entries below `folder`. Both tables may share their names and extents: append to neither.

    A hard link whose leader lies outside gets a new leader.
    """
    prefix = os.fsencode(folder) + b"/"
    rows = range(len(table))
    first = bisect_left(rows, prefix, key=lambda row: path_at(table.columns, row))
    end = bisect_left(rows, prefix[:-1] + b"0", first, key=lambda row: path_at(table.columns, row))  # "0" follows "/"
    part = part_of(table, rows[first:end])
    links = list(part.of_type(EntryType.HARDLINK))
    if links:
        leaders = {table.path(row): table[row] for row in rows_at(table, {link.target for link in links})}
        part = EntryTable(with_new_leaders(part, leaders))
    words = memoryview(part.columns.entries).cast("I")
    for row, number in enumerate(part.types()):  # the same names, from where the prefix ends
        words[row * _WORDS + _PATH_WORD] += len(prefix)
        if number == native.HARDLINK:
            words[row * _WORDS + _TARGET_WORD] += len(prefix)
    return part
