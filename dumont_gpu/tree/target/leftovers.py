"""What a former run of a restore may have left of one file: how far it got, by everything but its content."""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.tree.target.traits import COARSEST_TIME
from dumont_gpu.tree.unfinished import is_unfinished


class Kind(enum.Enum):
    COMPLETE = enum.auto()  # size, mode, time and owner are as they shall be
    UNFINISHED = enum.auto()  # begun by a restore, of the right size: can be written to
    OTHER = enum.auto()  # a file of the right size; somebody may have changed it


@dataclass(frozen=True, slots=True)
class Leftover:
    kind: Kind
    name: str  # its own, or the temporary one beside an older file
    fingerprint: tuple[int, ...]

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.fingerprint[0], self.fingerprint[1]


def examine(
    parent: int, name: str, entry: FileEntry, mode: int | None, owner: tuple[int, int] | None, *, modes: bool = True
) -> Leftover | None:
    """Looks at what stands under `name` in the directory `parent`; None if nothing of a file's content is to be had.

    Args:
        mode: what a complete file has; None if it cannot be complete under this name.
        owner: user and group that the file shall have, if that matters.
        modes: whether this file system keeps them; where it does not, a temporary name tells an unfinished file.
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


def fingerprint_of(status: os.stat_result) -> tuple[int, ...]:
    """Tells a file from another that got its inode number after it was deleted."""
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


def _is_complete(status: os.stat_result, entry: FileEntry, mode: int | None, owner: tuple[int, int] | None) -> bool:
    step = 1 if mode is not None else COARSEST_TIME  # what keeps no modes rounds times, too
    return (
        abs(status.st_mtime_ns - entry.mtime_ns) < step
        and (mode is None or stat.S_IMODE(status.st_mode) == mode)
        and (owner is None or (status.st_uid, status.st_gid) == owner)
    )
