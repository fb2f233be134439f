"""Decides what becomes of what stands in the target where entries belong: by policy, or as a former run's leftovers."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Sequence
from typing import Final, Literal

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.format.entries import EntryType, FileEntry, with_new_leaders
from dumont_gpu.format.paths import printable
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.target.access import FolderAccess
from dumont_gpu.tree.target.refusals import is_refusal
from dumont_gpu.tree.target.same_names import SameNames
from dumont_gpu.tree.target.traits import COARSEST_TIME
from dumont_gpu.tree.unfinished import is_unfinished

Overwrite = Literal["refuse", "always", "if-changed", "never"]
OVERWRITE_CHOICES: Final = ("always", "if-changed", "never")


class ExistingEntries:
    """What there is under `target`; changes nothing."""

    def __init__(self, access: FolderAccess, same_names: SameNames, target: str, overwrite: Overwrite) -> None:
        self._access, self._same_names, self._target, self._overwrite = access, same_names, target, overwrite
        self.keeps_modes = True  # does the file system; what keeps none rounds times, too
        self.kept = 0  # entries that stay as they are
        self.kept_files: list[FileEntry] = []  # of these, regular files
        self.replaced: list[str] = []  # paths of what stands there and will be written over
        self.replaceable: set[str] = set()  # paths of what a former run left: they may be replaced, whatever the policy
        self.foreign: set[str] = set()  # of these, files that somebody else may have changed since

    def resolve(
        self, entries: Sequence[FileEntry], distrusted: Container[str] = ()
    ) -> tuple[list[FileEntry], frozenset[int]]:
        """Returns `entries` without those that the policy keeps as they are, and which these are.

        Args:
            distrusted: paths of files that only look as if they could stay.

        Raises:
            DumontError: something of another kind stands where an entry belongs.
        """
        self.kept, self.kept_files, self.replaced = 0, [], []
        wanted: list[FileEntry] = []
        files = {entry.path: entry for entry in entries if entry.type is EntryType.FILE}
        kept_files: dict[str, tuple[int, int]] = {}
        kept: set[int] = set()
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
                self.kept += entry.type is not EntryType.DIR
                if entry.type is EntryType.FILE:
                    self.kept_files.append(entry)
                kept_files[entry.path] = identity
                kept.add(index)
            else:
                wanted.append(entry)
                if entry.type is not EntryType.DIR:
                    self.replaced.append(entry.path)
        return with_new_leaders(wanted, files), frozenset(kept)  # only files that this restore writes are linked to

    def resolve_again(self, entries: Sequence[FileEntry], kept: Container[int]) -> list[FileEntry]:
        """As `resolve`, after an interruption: what the former run of this restore left is no reason to keep it.

        Args:
            entries: the same as then.
            kept: which of them stay as they are, if they are still there.

        Raises:
            DumontError: something of another kind stands where an entry belongs.
            UsageError: a link has been put there since, and nothing says that it may be replaced.
        """
        self.kept_files, self.replaced = [], []
        self.replaceable, self.foreign = set(), set()
        files = {entry.path: entry for entry in entries if entry.type is EntryType.FILE}
        kept = {index for index in range(len(entries)) if index in kept and self._status(entries[index]) is not None}
        stay = [entries[index] for index in sorted(kept)]
        self.kept = sum(entry.type is not EntryType.DIR for entry in stay)
        self.kept_files += (entry for entry in stay if entry.type is EntryType.FILE)
        wanted = []
        leaders: dict[str, os.stat_result | None] = {}
        for entry in with_new_leaders((entry for index, entry in enumerate(entries) if index not in kept), files):
            status = leaders[entry.path] = self._status(entry)
            if status is not None and entry.type is not EntryType.DIR:
                if self._is_left_over(entry, status, files.get(entry.target), leaders.get(entry.target)):
                    self.replaceable.add(entry.path)
                elif self._overwrite == "never":
                    self.kept += 1
                    continue
                elif self._overwrite == "refuse":
                    if entry.type is not EntryType.FILE:
                        raise self.changed(entry.path)
                    self.foreign.add(entry.path)
                    self.replaceable.add(entry.path)
                else:
                    self.replaced.append(entry.path)
            wanted.append(entry)
        return with_new_leaders(wanted, files)

    def _is_left_over(
        self, entry: FileEntry, status: os.stat_result, leader: FileEntry | None, leader_status: os.stat_result | None
    ) -> bool:
        """Whether the former run of this restore made it: files and their links are known by their mode or time."""
        if entry.type is EntryType.SYMLINK:
            return stat.S_ISLNK(status.st_mode) and self._read_link(entry) == entry.target
        if leader_status is not None and os.path.samestat(status, leader_status):
            return True
        if is_unfinished(status):
            return True
        if not stat.S_ISREG(status.st_mode):
            return False
        difference = abs(status.st_mtime_ns - (leader or entry).mtime_ns)
        if self.keeps_modes:
            return difference == 0
        return difference < COARSEST_TIME or status.st_size == 0  # nothing is lost with an empty one

    def _keeps(self, entry: FileEntry, status: os.stat_result) -> bool:
        if self._overwrite == "never":
            return True
        if self._overwrite != "if-changed" or entry.type is EntryType.DIR:
            return False
        same_time = status.st_mtime_ns == entry.mtime_ns
        if entry.type is EntryType.FILE:
            return stat.S_ISREG(status.st_mode) and same_time and status.st_size == entry.size
        if entry.type is EntryType.SYMLINK and stat.S_ISLNK(status.st_mode):
            return self._read_link(entry) == entry.target
        return False

    def _status(self, entry: FileEntry) -> os.stat_result | None:
        folder, name = split(entry.path)
        try:
            status = self._access.attempt(folder, lambda parent: os.stat(name, dir_fd=parent, follow_symlinks=False))
        except FileNotFoundError:
            return None
        except OSError as error:
            if is_refusal(error):  # no such name can be there
                return None
            raise self.located(error, entry.path) from error
        if stat.S_ISDIR(status.st_mode) != (entry.type is EntryType.DIR):
            if self._is_another(entry):
                return None
            found = "a directory" if stat.S_ISDIR(status.st_mode) else "not a directory"
            raise DumontError(f"{self._shown(entry.path)}: is {found} there; move it away and run again")
        return status

    def _is_another(self, entry: FileEntry) -> bool:
        """Whether what stands under its name is another entry of the snapshot: the restore will say so."""
        folder, name = split(entry.path)

        def look(parent: int) -> bool:
            names = self._same_names
            return (names.owner(parent, folder, name) or names.alike(parent, folder, name)) is not None

        return self._access.attempt(folder, look)

    def _read_link(self, entry: FileEntry) -> str:
        folder, name = split(entry.path)
        return self._access.attempt(folder, lambda parent: os.readlink(name, dir_fd=parent))

    # --- how it is called in messages -----------------------------------------------------------------------------

    def changed(self, path: str) -> UsageError:
        return UsageError(
            f"{self._shown(path)}: was changed since this restore was interrupted; move it away and run again, "
            "or --overwrite always"
        )

    def _shown(self, path: str) -> str:
        return printable(f"{self._target.rstrip('/')}/{path}")

    def located(self, error: OSError, path: str) -> OSError:
        """The error with its place below the target, and a reason that says what is the matter there."""
        reason = error.strerror or str(error)
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            reason = "a symlink or a file stands where the snapshot has a directory; it is not followed"
        return OSError(error.errno, reason, self._shown(path))
