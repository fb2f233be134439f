"""Names a part of a snapshot, as `SNAP:path` does, and opens that part as if it were the whole."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

from dumont_gpu.columns.subtree import subtree
from dumont_gpu.columns.table import EntryTable, as_table
from dumont_gpu.errors import SnapshotNotFoundError, UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.snapshot.reader import Snapshot, opened_source, read_snapshot
from dumont_gpu.storage import NetworkOptions, scheme_name

_IN_ADDRESS: Final = re.compile(r"(.*?\.dumont):(.*)", re.DOTALL | re.IGNORECASE)


class Place(NamedTuple):
    """A snapshot, or a part of it."""

    location: str  # path or address of the snapshot
    inside: str = ""  # path of a directory or file in the snapshot; "": the whole snapshot


def place_of(text: str) -> Place:
    """Takes `SNAP:path` apart.

    A path names a file that exists, with all its colons; else, the path inside follows the longest beginning that
    names a file. In an address, where nobody can look, the path inside follows the first `.dumont:`; the query of an
    http address stands behind it.

    Raises:
        UsageError: the path inside leads out (`..`).
    """
    if scheme_name(text):
        address, mark, query = text.partition("?") if scheme_name(text) in ("http", "https") else (text, "", "")
        found = _IN_ADDRESS.fullmatch(address)
        return Place(found[1] + mark + query, normal_path(found[2])) if found else Place(text)
    if not os.path.lexists(text):
        for colon in sorted((at for at, letter in enumerate(text) if letter == ":"), reverse=True):
            if _is_file(text[:colon]):
                return Place(text[:colon], normal_path(text[colon + 1 :]))
    return Place(text)


def whole_snapshot(text: str) -> str:
    """Returns a location that must name no part of a snapshot.

    Raises:
        UsageError: it names a part.
    """
    place = place_of(text)
    if place.inside:
        raise UsageError(f"name the whole snapshot here, without :{printable(place.inside)}")  # an address has secrets
    return place.location


@contextmanager
def opened_snapshot(text: str, network: NetworkOptions, expect: str | None = None) -> Iterator[Snapshot]:
    """Opens a snapshot, or the part that `text` names, with its table of contents verified.

    Raises:
        SnapshotNotFoundError: nothing is at the location, or the snapshot holds no such path.
        DamagedError, UnsupportedError, UsageError, DumontError: as `read_snapshot` and `open_source` do.
    """
    place = place_of(text)
    with opened_source(place.location, network) as source:
        yield part_of_snapshot(read_snapshot(source, expect), place.inside)


def part_of_snapshot(snapshot: Snapshot, inside: str) -> Snapshot:
    """Returns the snapshot with only the content of the directory `inside`, or with only that file or link.

    Raises:
        SnapshotNotFoundError: the snapshot holds no such path.
    """
    if not inside:
        return snapshot
    table = as_table(snapshot.manifest.entries)
    entry = entry_at_path(snapshot, table, inside)
    if entry.type is EntryType.DIR:
        part, root = subtree(table, inside), entry._replace(path="")
    else:
        part, root = EntryTable([_alone(table, entry)]), None
    return replace(snapshot, manifest=replace(snapshot.manifest, entries=part, root=root), inside=inside)


def entry_at_path(snapshot: Snapshot, table: EntryTable, path: str) -> FileEntry:
    """Returns the entry at a path of a snapshot.

    Args:
        table: the snapshot's entries.

    Raises:
        SnapshotNotFoundError: there is none.
    """
    row = table.find(path)
    if row is None:
        raise SnapshotNotFoundError(f"{snapshot.source.location}: holds no {printable(path)}")
    return table[row]


def normal_path(path: str) -> str:
    """Returns a path in a snapshot without empty components and dots, as the snapshot has it.

    Raises:
        UsageError: the path leads out (`..`).
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"{printable(path)}: a path in a snapshot has no ..")
    return "/".join(parts)


def _is_file(path: str) -> bool:
    """Whether something that is no directory stands at `path`."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _alone(table: EntryTable, entry: FileEntry) -> FileEntry:
    """Returns a file or link under its name alone; a hard link is the file that it leads to."""
    name = entry.path.rpartition("/")[2]
    row = table.find(entry.target) if entry.type is EntryType.HARDLINK else None
    return (entry if row is None else table[row])._replace(path=name)
