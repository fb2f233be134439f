"""How many names each file of a table has."""

from __future__ import annotations

from collections import Counter

from dumont_gpu import native
from dumont_gpu.columns.rows import target_at
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.format.entries import EntryType


def other_names(table: EntryTable) -> Counter[int]:
    """Returns the number of hard links by the index of the file that they lead to."""
    targets = [target_at(table.columns, row) for row in table.rows_of(EntryType.HARDLINK)]
    return Counter(native.find_entries(table.columns, targets))
