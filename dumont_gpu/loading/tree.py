"""The tree of an open snapshot as a file system shows it: what is at a path, and what a directory holds."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from dumont_gpu.columns.directory import rows_in
from dumont_gpu.columns.rows import entry_at
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.snapshot.reader import Snapshot

ROOT_ROW: Final = -1
FORMATS: Final = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIR: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
}  # in st_mode
_LINK_MODE: Final = 0o777  # of every symlink on Linux
_ROOT_MODE: Final = 0o755  # where the snapshot says nothing of its root


class Node(NamedTuple):
    """What stands at a path.

    Args:
        row: index in the table: the same for all names of a file; ROOT_ROW for the root.
        entry: a file, directory or symlink, without extents. Another name of a file is that file under that name.
    """

    row: int
    entry: FileEntry


class SnapshotTree:
    """Looks nodes up in a table, and makes no object for any other entry.

    Args:
        snapshot: whose root has a mode and a time.
        table: its entries.
    """

    def __init__(self, snapshot: Snapshot, table: EntryTable) -> None:
        self._table = table
        manifest = snapshot.manifest
        root = manifest.root or FileEntry("", EntryType.DIR, _ROOT_MODE, manifest.created_ns)
        self.root = root._replace(path="")

    def node(self, path: str) -> Node | None:
        """Returns what stands at a path without empty components and dots; None: nothing."""
        if not path:
            return Node(ROOT_ROW, self.root)
        row = self._table.find(path)
        return None if row is None else self._node(row)

    def children(self, folder: str) -> Iterator[Node]:
        """Yields what stands directly in a directory, in the byte order of the names."""
        return (self._node(row) for row in rows_in(self._table, folder))

    def _node(self, row: int) -> Node:
        entry = entry_at(self._table.columns, row, extents=False)
        if entry.type is EntryType.HARDLINK:
            leader = self._table.find(entry.target)
            assert leader is not None  # a rule of the format
            return Node(leader, entry_at(self._table.columns, leader, extents=False)._replace(path=entry.path))
        return Node(row, entry._replace(mode=_LINK_MODE) if entry.type is EntryType.SYMLINK else entry)
