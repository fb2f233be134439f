"""What lists and reports say of all entries of a snapshot, without an object for each if the entries are columns."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from dumont_gpu import native
from dumont_gpu.columns.rows import TYPES
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.format.entries import EntryType, FileEntry

_AT_ONCE: Final = 8192  # entries: their paths take about 1 MiB


def paths_of(entries: Sequence[FileEntry], *, slashes: bool = False) -> Iterator[list[str]]:
    """Yields the paths of the entries, many at a time; with `slashes`, the path of a directory ends with a slash."""
    for first in range(0, len(entries), _AT_ONCE):
        count = min(_AT_ONCE, len(entries) - first)
        if isinstance(entries, EntryTable):
            joined = native.join_paths(entries.columns, first, count, slashes=slashes)
            paths = os.fsdecode(bytes(joined)).split("\n")[:-1]
            if len(paths) == count:  # no name has a line feed
                yield paths
                continue
        yield [_path(entry, slashes) for entry in entries[first : first + count]]


def entries_of_type(entries: Sequence[FileEntry], kind: EntryType) -> Iterator[FileEntry]:
    """Yields the entries of a type, in order."""
    if isinstance(entries, EntryTable):
        return entries.of_type(kind)
    return (entry for entry in entries if entry.type is kind)


def count_types(entries: Sequence[FileEntry]) -> dict[EntryType, int]:
    """Returns how many entries there are of each type that occurs."""
    if isinstance(entries, EntryTable):
        types = entries.types()
        return {kind: count for number, kind in enumerate(TYPES) if (count := types.count(number))}
    return Counter(entry.type for entry in entries)


def count_changed(entries: Sequence[FileEntry]) -> int:
    """Returns how many files changed while they were packed."""
    if isinstance(entries, EntryTable):
        return entries.columns.entries[native.FLAGS_AT :: native.ENTRY.size].count(native.CHANGED_FLAG)
    return sum(entry.changed for entry in entries)


def _path(entry: FileEntry, slashes: bool) -> str:
    return f"{entry.path}/" if slashes and entry.type is EntryType.DIR else entry.path
