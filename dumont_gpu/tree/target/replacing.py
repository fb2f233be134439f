"""Replaces an existing entry by a new one, if the policy allows; at every moment, one of the two exists."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.target.options import TargetOptions
from dumont_gpu.tree.target.plan import TreePlan
from dumont_gpu.tree.target.refusals import creating, refusal
from dumont_gpu.tree.target.same_names import SameNames
from dumont_gpu.tree.target.target import LOST_AND_FOUND, Target
from dumont_gpu.tree.target.temporary import is_ours, temporary_name


class Replacing:
    """Creates a new entry under a temporary name and renames it over the old. Used from many threads."""

    def __init__(
        self,
        target: Target,
        plan: TreePlan,
        options: TargetOptions,
    ) -> None:
        self._target, self._plan, self._options = target, plan, options
        self._same_names = SameNames(plan.selected.paths)
        self._lock = threading.Lock()
        # Device and inode of complete files: an entry with another spelling of the name must not replace such a file.
        self._final = {(fingerprint[0], fingerprint[1]) for fingerprint in plan.complete.values()}

    def check(self, parent: int, name: str, entry: FileEntry) -> None:
        """Checks that `entry` may replace the file under its name.

        Raises:
            OSError: EEXIST, or a refusal if another entry of the snapshot stands there.
        """
        folder = split(entry.path)[0]
        replaceable = self._may_replace(entry)
        other = self._same_names.owner(parent, folder, name)
        if other is None and not replaceable:
            other = self._same_names.alike(parent, folder, name)
        if other is not None:
            raise refusal(f"this file system takes its name for that of {printable(other)}")
        if not replaceable:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def check_directory(self, parent: int, name: str, path: str) -> None:
        """Checks that the restore may fill the directory that exists at `path`.

        Raises:
            OSError: EEXIST, or a refusal if another entry of the snapshot stands there.
        """
        folder = split(path)[0]
        unexpected = self._options.overwrite == "refuse" and not self._target.resumed and path != LOST_AND_FOUND
        other = self._same_names.owner(parent, folder, name)
        if other is None and unexpected:
            other = self._same_names.alike(parent, folder, name)
        if other is not None:
            raise refusal(f"this file system takes its name for that of {printable(other)}") from None
        if unexpected:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def create(self, create: Callable[[str], None], parent: int, name: str, entry: FileEntry) -> None:
        """Calls `create` with the entry's name; if the name exists, with a temporary name, which then replaces it.

        Raises:
            OSError: from `create`, or the existing file must not be replaced.
        """
        try:
            create(name)
        except FileExistsError:
            self.check(parent, name, entry)
            self.clear(parent, name, entry)
            temporary = temporary_name(name)
            create(temporary)
            try:
                self.move(parent, temporary, name, entry)
            except OSError:
                os.unlink(temporary, dir_fd=parent)
                raise

    def move(self, parent: int, temporary: str, name: str, entry: FileEntry) -> None:
        """Renames a finished entry from its temporary name to its own.

        Raises:
            OSError: a refusal if another entry of the snapshot stands there, or the rename fails.
        """
        traits = self._target.traits
        if traits.modes and not traits.one_case:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            return
        with self._lock:  # two threads may hold entries whose names are the same to this file system
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if there.st_nlink == 1 and (there.st_dev, there.st_ino) in self._final:
                    raise refusal("this file system takes its name for that of another entry")
                self.check(parent, name, entry)
            moved = identity_of(parent, temporary)
            with creating(parent) if moved is not None else contextlib.nullcontext():
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            if moved is not None:
                self._final.add(moved)

    def clear(self, parent: int, name: str, entry: FileEntry) -> None:
        """Deletes a leftover under the temporary name of `entry`.

        Raises:
            OSError: a refusal, if the file there is not this program's.
        """
        temporary = temporary_name(name)
        try:
            status = os.stat(temporary, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        file = self._plan.selected.file(entry.path)
        owner = file.owner[0] if file is not None and file.owner is not None and self._options.owner else None
        if not is_ours(status, file, owner, modes=self._target.traits.modes):
            raise refusal(f"{temporary} beside it is not of this program; move it away")
        os.unlink(temporary, dir_fd=parent)

    def _may_replace(self, entry: FileEntry) -> bool:
        return self._options.overwrite in ("always", "if-changed") or entry.path in self._plan.decision.replaceable


def identity_of(parent: int, name: str) -> tuple[int, int] | None:
    """Returns the device and inode of the entry `name` in the directory `parent`; None without an entry."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
