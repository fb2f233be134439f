"""Finds the files that an interrupted restore left, and judges them by everything but their content."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.handles import REREAD, split
from dumont_gpu.tree.target.messages import located
from dumont_gpu.tree.target.options import TargetOptions
from dumont_gpu.tree.target.refusals import is_refusal
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.target.temporary import temporary_name
from dumont_gpu.tree.target.traits import COARSEST_TIME
from dumont_gpu.tree.unfinished import is_unfinished

Fingerprint = tuple[int, ...]  # see `fingerprint_of`


class Kind(enum.Enum):
    """How complete a leftover looks."""

    COMPLETE = enum.auto()  # size, mode, time and owner are right
    UNFINISHED = enum.auto()  # begun by a restore, of the right size: can be continued
    OTHER = enum.auto()  # a file of the right size that another program may have changed


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file in the target that may hold an entry's content."""

    kind: Kind
    name: str  # the entry's own name, or the temporary name beside an older file
    fingerprint: Fingerprint

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.fingerprint[0], self.fingerprint[1]


class Leftovers:
    """Looks for files in a target; changes nothing. Used from many threads."""

    def __init__(self, target: Target, options: TargetOptions) -> None:
        self._target, self._options = target, options

    def find(self, entry: FileEntry) -> Leftover | None:
        """Returns the leftover of a file, under the entry's name or a temporary name; None without any.

        Raises:
            OSError: the target cannot be read.
        """
        name = split(entry.path)[1]
        owner = entry.owner if self._options.owner else None
        modes = self._target.traits.modes

        def look(parent: int) -> Leftover | None:
            found = examine(parent, name, entry, self._options.mode(entry), owner, modes=modes)
            if found is None or found.kind is Kind.OTHER:
                return examine(parent, temporary_name(name), entry, None, owner, modes=modes) or found
            return found

        return self._look(entry, look)

    def standing(self, entry: FileEntry) -> Leftover | None:
        """Returns the file under the entry's name, if its size is right. Raises as `find`."""
        name = split(entry.path)[1]
        return self._look(entry, lambda parent: examine(parent, name, entry, self._options.mode(entry), None))

    def open(self, entry: FileEntry, leftover: Leftover) -> int | None:
        """Opens a leftover for reading; returns None if the file is gone, replaced, or unreadable for this user."""
        try:
            with self._target.handles.lease(split(entry.path)[0]) as parent:
                fd = os.open(leftover.name, REREAD, dir_fd=parent)
        except OSError as error:
            if is_shortage(error.errno):
                raise
            return None
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == leftover.identity:
            return fd
        os.close(fd)
        return None

    def _look(self, entry: FileEntry, look: Callable[[int], Leftover | None]) -> Leftover | None:
        try:
            return self._target.access.attempt(split(entry.path)[0], look)
        except FileNotFoundError:
            return None
        except OSError as error:
            if is_refusal(error):  # no file of this name can exist here
                return None
            raise located(error, self._target.path, entry.path) from error


def examine(
    parent: int, name: str, entry: FileEntry, mode: int | None, owner: tuple[int, int] | None, *, modes: bool = True
) -> Leftover | None:
    """Examines the file `name` in the directory `parent`; returns None if the file cannot hold the entry's content.

    Args:
        mode: the mode of a complete file; None for a temporary name, under which no file is complete.
        owner: the user and group of a complete file; None: any.
        modes: whether the file system keeps modes; if not, a temporary name marks an unfinished file.
    """
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        return None
    fingerprint = fingerprint_of(status)
    if mode is not None and _is_complete(status, entry, mode if modes else None, owner):
        return Leftover(Kind.COMPLETE, name, fingerprint)
    marked = is_unfinished(status, owner[0] if owner else None)
    if marked or (not modes and mode is None and status.st_nlink == 1):
        return Leftover(Kind.UNFINISHED, name, fingerprint)
    return None if mode is None else Leftover(Kind.OTHER, name, fingerprint)


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """Returns numbers that tell a file from a later file with the same inode number."""
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


def _is_complete(status: os.stat_result, entry: FileEntry, mode: int | None, owner: tuple[int, int] | None) -> bool:
    step = 1 if mode is not None else COARSEST_TIME  # a file system without modes rounds times, too
    return (
        abs(status.st_mtime_ns - entry.mtime_ns) < step
        and (mode is None or stat.S_IMODE(status.st_mode) == mode)
        and (owner is None or (status.st_uid, status.st_gid) == owner)
    )
