"""Plain small files of a scan, as rows of an entry table: half of what a pack meets, and too many for objects."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dumont_gpu import native
from dumont_gpu.columns.rows import drop_at, size_at, type_at
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.tree.source.files import SourceFile, SourceTree

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory that has rows."""

    tree: SourceTree
    relative: str  # path within the tree's handles
    device: int  # of every row's file


class SmallFiles:
    """Regular files whose metadata fits a row of a table, in the order in which directories were scanned.

    Besides its row, 8 bytes a file say how to find the file again: the inode. The rest is its folder's.

    Args:
        limits: the largest files that become rows.
        left_out: files that never become rows: who wants them looks at each by itself.
        with_owner: record user and group ids.
    """

    def __init__(
        self, limits: native.RowLimits, left_out: Collection[Identity] = (), *, with_owner: bool = False
    ) -> None:
        self.table = EntryTable()
        if with_owner:
            self.table.columns.owners = bytearray()
        self.size = 0  # bytes of all files
        self.inodes = bytearray()
        self._linked = bytearray()  # rows of files with several names
        self._dropped = 0
        self._folders: list[Folder] = []
        self._starts: list[int] = []  # the first row of each folder
        self._scanner = native.DirectoryScanner(limits, sorted(left_out))

    @property
    def count(self) -> int:
        """How many entries the rows are."""
        return len(self.table) - self._dropped

    def scan(self, tree: SourceTree, relative: str, path: str, directory: int) -> tuple[list[str], int]:
        """Adds the plain small files of a directory.

        Args:
            tree: holds the directory.
            relative: the directory's path within the tree's handles.
            path: the directory's path in the snapshot.
            directory: its descriptor.

        Returns:
            The names of all other entries, in byte order, and 0 or the errno that ended the listing early.
        """
        first = len(self.table)
        prefix = os.fsencode(path) + b"/" if path else b""
        found = self._scanner.scan(directory, prefix, self.table.columns, self.inodes, self._linked)
        self.size += found.size
        if len(self.table) > first:
            self._folders.append(Folder(tree, relative, found.device))
            self._starts.append(first)
        return [os.fsdecode(name) for name in found.others], found.error

    def drop(self, row: int) -> None:
        """Leaves out a file."""
        self.size -= size_at(self.table.columns, row)
        drop_at(self.table.columns, row)
        self._dropped += 1

    def give_up(self, identities: Collection[Identity]) -> list[SourceFile]:
        """Takes the names of these files out of the rows; returns them as objects."""
        if not identities:
            return []
        rows = [
            row
            for device, inode, row in native.LINKED.iter_unpack(self._linked)
            if (device, inode) in identities and type_at(self.table.columns, row) == native.FILE
        ]
        files = [self.source_file(row, links=2) for row in rows]
        for row in rows:
            self.drop(row)
        return files

    def link(self) -> None:
        """Turns the second and later names of each file, in path order, into hard links to the first."""
        if self._linked:
            self.size -= native.link_rows(self.table.columns, self._linked)
            self._linked.clear()

    def folders(self, rows: range) -> Iterator[tuple[Folder, range]]:
        """Yields the folders of consecutive rows, each with its rows among these."""
        at = bisect_right(self._starts, rows.start) - 1
        first = rows.start
        while first < rows.stop:
            following = self._starts[at + 1] if at + 1 < len(self._starts) else rows.stop
            yield self._folders[at], range(first, min(following, rows.stop))
            first, at = following, at + 1

    def source_file(self, row: int, links: int = 1) -> SourceFile:
        """Returns a row's file as an object, to be packed as other files are."""
        entry = self.table[row]
        folder = self._folders[bisect_right(self._starts, row) - 1]
        name = entry.path.rpartition("/")[2]
        (inode,) = native.INODE.unpack_from(self.inodes, row * native.INODE.size)
        return SourceFile(
            entry=entry,
            tree=folder.tree,
            relative=f"{folder.relative}/{name}" if folder.relative else name,
            identity=(folder.device, inode),
            links=links,
            allocated=entry.size,
        )

    def close(self) -> None:
        """Frees what only a scan needs."""
        self._scanner.close()
