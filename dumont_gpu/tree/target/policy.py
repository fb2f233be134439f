"""Decides whether a file that stands where an entry belongs is kept, replaced or continued."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Sequence

from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import DumontError
from dumont_gpu.format.entries import EntryType, FileEntry, with_new_leaders
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.target.messages import changed, shown
from dumont_gpu.tree.target.options import Overwrite
from dumont_gpu.tree.target.plan import Decision, SelectedEntries
from dumont_gpu.tree.target.same_names import SameNames
from dumont_gpu.tree.target.standing import compare, is_same_file, link_at, refused, status_at
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.target.traits import COARSEST_TIME
from dumont_gpu.tree.unfinished import is_unfinished


class Policy:
    """The overwrite policy of a restore in its target. Looks at the target and changes nothing.

    Args:
        owner: whether what has another owner is not what the entry says.
    """

    def __init__(self, target: Target, selected: SelectedEntries, overwrite: Overwrite, *, owner: bool) -> None:
        self._target, self._selected, self._overwrite, self._owner = target, selected, overwrite, owner
        self._same_names = SameNames(selected.paths)

    def decide(self, distrusted: Container[str] = ()) -> Decision:
        """Decides for every selected entry.

        Args:
            distrusted: paths of files that must not be kept, because their content is wrong.

        Raises:
            DumontError: a directory stands where a file belongs, or the reverse.
            UsageError: an entry changed after this restore was interrupted, and the policy does not replace it; or the
                policy replaces nothing, and the target is neither empty nor complete.
            OSError: the target cannot be read.
        """
        if self._target.occupied:
            return self._decide_complete(distrusted)
        if self._target.fresh and not self._target.resumed:
            return Decision(self._selected.entries)
        entries = list(self._selected.entries)  # looked at more than once
        if self._target.resumed:
            kept = self._target.journal.kept
            if distrusted:
                kept = frozenset(index for index in kept if entries[index].path not in distrusted)
            return self._decide_again(entries, kept)
        return self._decide(entries, distrusted)

    def _decide_complete(self, distrusted: Container[str]) -> Decision:
        """Keeps all that stands in a target that no policy lets be written over, if every entry is there already."""
        entries = list(self._selected.entries)
        standing = compare(self._target, entries, owner=self._owner)
        standing.differing += [path for path in standing.same if path in distrusted]
        if not standing.complete:
            standing.same = [path for path in standing.same if path not in distrusted]
            raise refused(self._target, standing)
        return Decision(
            wanted=EntryTable(),
            kept_indices=frozenset(range(len(entries))),
            kept=_count(entries),
            kept_files=_regular(entries),
            complete=True,
        )

    def _decide(self, entries: Sequence[FileEntry], distrusted: Container[str]) -> Decision:
        """Decides for a target that was not empty when the restore began."""
        wanted: list[FileEntry] = []
        replaced: list[str] = []
        newer: list[str] = []
        kept: list[int] = []
        kept_files: dict[str, tuple[int, int]] = {}  # path -> device and inode
        for index, entry in enumerate(entries):
            status = self._status(entry)
            if status is None:
                wanted.append(entry)
                continue
            identity = status.st_dev, status.st_ino
            if entry.path not in distrusted and (
                self._keeps(entry, status)
                or (entry.type is EntryType.HARDLINK and kept_files.get(entry.target) == identity)
            ):
                kept_files[entry.path] = identity
                kept.append(index)
            else:
                wanted.append(entry)
                if entry.type is not EntryType.DIR:
                    replaced.append(entry.path)
                    newer += [entry.path] * _is_newer(entry, status)
        left = [entries[index] for index in kept]
        return Decision(
            # A hard link's leader must be among the files that this restore writes.
            wanted=EntryTable(with_new_leaders(wanted, _files(entries))),
            kept_indices=frozenset(kept),
            kept=_count(left),
            kept_files=_regular(left),
            replaced=replaced,
            newer=newer,
        )

    def _decide_again(self, entries: Sequence[FileEntry], kept: Container[int]) -> Decision:
        """Decides after an interruption: files that the interrupted run wrote are not kept as existing files.

        Args:
            kept: indices of the entries that the interrupted run kept; they stay kept if they still exist.
        """
        replaced: list[str] = []
        newer: list[str] = []
        replaceable: set[str] = set()
        foreign: set[str] = set()
        files = _files(entries)
        kept = {index for index in range(len(entries)) if index in kept and self._status(entries[index]) is not None}
        left = [entries[index] for index in sorted(kept)]
        newly_kept = 0
        wanted = []
        leaders: dict[str, os.stat_result | None] = {}
        for entry in with_new_leaders((entry for index, entry in enumerate(entries) if index not in kept), files):
            status = leaders[entry.path] = self._status(entry)
            if status is not None and entry.type is not EntryType.DIR:
                if self._is_left_over(entry, status, files.get(entry.target), leaders.get(entry.target)):
                    replaceable.add(entry.path)
                elif self._overwrite == "never":
                    newly_kept += 1
                    continue
                elif self._overwrite == "refuse":
                    if entry.type is not EntryType.FILE:
                        raise changed(self._target.path, entry.path)
                    foreign.add(entry.path)
                    replaceable.add(entry.path)
                else:
                    replaced.append(entry.path)
                    newer += [entry.path] * _is_newer(entry, status)
            wanted.append(entry)
        return Decision(
            wanted=EntryTable(with_new_leaders(wanted, files)),
            kept=_count(left) + newly_kept,
            kept_files=_regular(left),
            replaced=replaced,
            newer=newer,
            replaceable=frozenset(replaceable),
            foreign=frozenset(foreign),
        )

    def _is_left_over(
        self, entry: FileEntry, status: os.stat_result, leader: FileEntry | None, leader_status: os.stat_result | None
    ) -> bool:
        """Whether an interrupted run of this restore made the entry: the mode or time of a file, or leader, tells."""
        if entry.type is EntryType.SYMLINK:
            return stat.S_ISLNK(status.st_mode) and link_at(self._target, entry.path) == entry.target
        if leader_status is not None and os.path.samestat(status, leader_status):
            return True
        if is_unfinished(status):
            return True
        if not stat.S_ISREG(status.st_mode):
            return False
        difference = abs(status.st_mtime_ns - (leader or entry).mtime_ns)
        if self._target.traits.modes:
            return difference == 0
        return difference < COARSEST_TIME or status.st_size == 0  # replacing an empty file loses nothing

    def _keeps(self, entry: FileEntry, status: os.stat_result) -> bool:
        """Whether the policy keeps the existing entry of this `status`."""
        if self._overwrite == "never":
            return True
        if self._overwrite != "if-changed" or entry.type is EntryType.DIR:
            return False
        if entry.type is EntryType.FILE:
            return is_same_file(entry, status)
        if entry.type is EntryType.SYMLINK and stat.S_ISLNK(status.st_mode):
            return link_at(self._target, entry.path) == entry.target
        return False

    def _status(self, entry: FileEntry) -> os.stat_result | None:
        """Returns the status of the file under the entry's name; None if there is none, or another entry's file.

        Raises:
            DumontError: a directory stands where a file belongs, or the reverse.
        """
        status = status_at(self._target, entry)
        if status is None:
            return None
        if stat.S_ISDIR(status.st_mode) != (entry.type is EntryType.DIR):
            if self._is_another(entry):
                return None
            found = "a directory" if stat.S_ISDIR(status.st_mode) else "not a directory"
            raise DumontError(f"{shown(self._target.path, entry.path)}: is {found} there; move it away and run again")
        return status

    def _is_another(self, entry: FileEntry) -> bool:
        """Whether another entry of the snapshot stands under this entry's name; the restore then reports a problem."""
        folder, name = split(entry.path)

        def look(parent: int) -> bool:
            names = self._same_names
            return (names.owner(parent, folder, name) or names.alike(parent, folder, name)) is not None

        return self._target.access.attempt(folder, look)


def _files(entries: Iterable[FileEntry]) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in entries if entry.type is EntryType.FILE}


def _regular(entries: Iterable[FileEntry]) -> list[FileEntry]:
    return [entry for entry in entries if entry.type is EntryType.FILE]


def _count(entries: Iterable[FileEntry]) -> int:
    """Counts the entries that are not directories."""
    return sum(entry.type is not EntryType.DIR for entry in entries)


def _is_newer(entry: FileEntry, status: os.stat_result) -> bool:
    """Whether somebody has changed a file since the time that the snapshot has of it."""
    return entry.type is EntryType.FILE and status.st_mtime_ns > entry.mtime_ns
