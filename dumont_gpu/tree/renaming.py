"""Gives the entries of a restore other paths: without the names in front that `--strip` takes away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import counted


class Stripped(NamedTuple):
    """Entries under shorter paths."""

    entries: EntryTable
    left_out: int  # files and links whose path has no name left


def strip(entries: Sequence[FileEntry], count: int) -> Stripped:
    """Takes the first `count` names off every path; an entry without a name left is left out, as tar does.

    Directories that come under one path become one. Hard links lead to the first of their names in the new order.

    Raises:
        UsageError: two files or links, or one and a directory, come under one path; or nothing is left.
    """
    renamed: dict[str, tuple[str, FileEntry]] = {}  # new path -> path in the snapshot, entry
    leaders: dict[str, list[str]] = {}  # path of a file in the snapshot -> the new paths of all its names
    files: dict[str, FileEntry] = {}
    left_out = 0
    for entry in entries:
        path = "/".join(entry.path.split("/")[count:])
        if entry.type is EntryType.FILE:
            files[entry.path] = entry
        if not path:
            left_out += entry.type is not EntryType.DIR
            continue
        if path in renamed:
            other_path, other = renamed[path]
            if other.type is EntryType.DIR and entry.type is EntryType.DIR:
                continue
            names = f"{printable(other_path)} and {printable(entry.path)}"
            raise UsageError(f"--strip {count}: {names} would both be {printable(path)}")
        renamed[path] = entry.path, entry._replace(path=path)
        if entry.type in (EntryType.FILE, EntryType.HARDLINK):
            leaders.setdefault(entry.target or entry.path, []).append(path)
    if not renamed:
        raise UsageError(f"--strip {count}: no path has more than {counted(count, 'name', 'names')}")
    _lead(renamed, leaders, files)
    return Stripped(EntryTable(sorted((entry for _, entry in renamed.values()), key=_sort_key)), left_out)


def _lead(
    renamed: dict[str, tuple[str, FileEntry]], leaders: dict[str, list[str]], files: dict[str, FileEntry]
) -> None:
    """Makes the first name of every file the file, and its other names hard links to that."""
    for leader, paths in leaders.items():
        if len(paths) == 1 and renamed[paths[0]][0] == leader:
            continue
        first, *others = sorted((renamed[path][1] for path in paths), key=_sort_key)
        renamed[first.path] = first.path, files[leader]._replace(path=first.path)
        for other in others:
            renamed[other.path] = other.path, FileEntry(other.path, EntryType.HARDLINK, target=first.path)


def _sort_key(entry: FileEntry) -> bytes:
    return entry.sort_key
