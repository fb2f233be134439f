"""Sets the owner, time and mode of entries, and notes entries on which they cannot be set."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Final

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.tree.target.options import TargetOptions
from dumont_gpu.tree.target.refusals import Refusals, is_refusal
from dumont_gpu.tree.target.traits import Traits

_PERMISSIONS: Final = 0o777


class Metadata:
    """Sets the metadata that the options ask for. Used from many threads."""

    def __init__(self, refusals: Refusals, traits: Traits, root: FileEntry | None, options: TargetOptions) -> None:
        """Takes the `traits` of the target's file system, and as `root` the entry of the target itself."""
        self._refusals, self._traits, self._root = refusals, traits, root
        self._owner = options.owner
        self.mode, self.mode_mask = options.mode, options.mode_mask

    def set(self, fd: int, entry: FileEntry) -> None:
        """Sets the owner, time and mode of an open file or directory.

        Raises:
            OSError: the file system fails; a refusal is noted.
        """
        mode, path = self.mode(entry), self._path_of(entry)
        if not self.give_owner(entry, lambda uid, gid: os.fchown(fd, uid, gid)):
            mode &= _PERMISSIONS  # this user must not become the owner of a setuid program
        self.attempt(path, "times", lambda: os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns)))
        self.attempt(path, "modes", lambda: os.fchmod(fd, mode))  # last: the old mode marks an unfinished file

    def set_like(self, fd: int, status: os.stat_result, path: str) -> None:
        """Sets the metadata of an open copy; `status`: of its original. Raises as `set`."""
        if self._owner:
            with contextlib.suppress(PermissionError):  # setting the original's owner was refused, too
                os.fchown(fd, status.st_uid, status.st_gid)
        self.attempt(path, "times", lambda: os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns)))
        self.attempt(path, "modes", lambda: os.fchmod(fd, stat.S_IMODE(status.st_mode)))

    def give_owner(self, entry: FileEntry, chown: Callable[[int, int], None]) -> bool:
        """Sets an entry's owner if the options say so; returns False if the file system refuses. Raises as `set`."""
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

    def attempt(self, path: str, trait: str, change: Callable[[], None]) -> None:
        """Calls `change`, which sets a mode or a time. Raises as `set`.

        Args:
            trait: "modes" or "times"; a file system without the trait is reported once, not per entry.
        """
        try:
            change()
        except OSError as error:
            if not is_refusal(error):
                raise
            if getattr(self._traits, trait):
                self._refusals.note(path, f"its {trait[:-1]} cannot be set: {error.strerror}")
            else:
                self._refusals.ignored.add(trait)

    def _path_of(self, entry: FileEntry) -> str:
        return "." if entry is self._root else entry.path
