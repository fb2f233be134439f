"""Gives entries their owner, time and mode, and notes where that cannot be."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Final

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.tree.target.refusals import Refusals, is_refusal
from dumont_gpu.tree.target.traits import Traits

_PERMISSIONS: Final = 0o777
_ALL_MODE_BITS: Final = 0o7777


class Metadata:
    """Sets what the options ask for. Used from many threads."""

    def __init__(
        self, refusals: Refusals, traits: Callable[[], Traits], root: FileEntry | None, *, owner: bool, special: bool
    ) -> None:
        """Takes how problems are noted, what the file system keeps, and the entry of the target itself.

        Args:
            owner: whether entries get the user and group of the snapshot.
            special: whether they get setuid, setgid and sticky bits.
        """
        self._refusals, self._traits, self._root = refusals, traits, root
        self._owner = owner
        self._bits = _ALL_MODE_BITS if special else _PERMISSIONS

    def mode(self, entry: FileEntry) -> int:
        return entry.mode & self._bits

    def set(self, fd: int, entry: FileEntry) -> None:
        """Gives an open file or directory all of it."""
        mode, path = self.mode(entry), self._path_of(entry)
        if not self.give_owner(entry, lambda uid, gid: os.fchown(fd, uid, gid)):
            mode &= _PERMISSIONS  # a setuid program must not become this user's
        self.attempt(path, "times", lambda: os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns)))
        self.attempt(path, "modes", lambda: os.fchmod(fd, mode))  # last: until then a file is marked as unfinished

    def set_like(self, fd: int, status: os.stat_result, path: str) -> None:
        """Gives a copy what its original has."""
        if self._owner:
            with contextlib.suppress(PermissionError):  # then the original's could not be set either
                os.fchown(fd, status.st_uid, status.st_gid)
        self.attempt(path, "times", lambda: os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns)))
        self.attempt(path, "modes", lambda: os.fchmod(fd, stat.S_IMODE(status.st_mode)))

    def give_owner(self, entry: FileEntry, chown: Callable[[int, int], None]) -> bool:
        """Gives an entry to its owner, if that is asked for; returns whether it has the one it shall have."""
        if not self._owner or entry.owner is None:
            return True
        uid, gid = entry.owner
        try:
            chown(uid, gid)
        except OSError as error:
            if not is_refusal(error):
                raise
            self._refusals.note(self._path_of(entry), f"cannot be given to its owner {uid}:{gid}: {error.strerror}")
            return False
        return True

    def attempt(self, path: str, what: str, change: Callable[[], None]) -> None:
        """Sets "modes" or "times" of an entry; that a file system keeps none is said once, not of every entry."""
        try:
            change()
        except OSError as error:
            if not is_refusal(error):
                raise
            if getattr(self._traits(), what):
                self._refusals.note(path, f"its {what[:-1]} cannot be set: {error.strerror}")
            else:
                self._refusals.ignored.add(what)

    def _path_of(self, entry: FileEntry) -> str:
        return "." if entry is self._root else entry.path
