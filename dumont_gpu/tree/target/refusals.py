"""Entries that a file system refuses: problems of single entries, after which the restore goes on.

A file system refuses an entry that it cannot hold, or that this user may not create. A failure of the disk, the mount
or the network (EIO, ENOSPC, EROFS, EDQUOT, ESTALE …) is no entry's fault, and ends the restore.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from typing import Final

from dumont_gpu.columns.table import EntryTable, part_of
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.problems import Problem

_REFUSALS: Final = frozenset(
    {
        errno.EPERM,  # an immutable file; links, owners or special names on a mount without them
        errno.EINVAL,
        errno.EILSEQ,  # a name that is not UTF-8, on NTFS, exFAT and others
        errno.ENAMETOOLONG,
        errno.EOPNOTSUPP,
        errno.ENOSYS,  # FUSE: the file system lacks this call
        errno.EFBIG,  # more than 4 GiB on FAT
        errno.EMLINK,
        errno.EXDEV,
    }
)


def is_refusal(error: OSError) -> bool:
    """Whether the file system refused an entry, rather than failed."""
    return error.errno in _REFUSALS


def refusal(reason: str) -> OSError:
    """Returns an error that counts as a refusal, with this program's own words."""
    return OSError(errno.EINVAL, reason)


def meaning_of_not_found(error: FileNotFoundError, parent: int) -> OSError:
    """Returns a refusal if `parent` still exists: exFAT reports ENOENT for a new name with a colon."""
    return refusal("this file system cannot have such a name") if os.fstat(parent).st_nlink else error


@contextlib.contextmanager
def creating(parent: int) -> Iterator[None]:
    """Wraps a system call that creates an entry in `parent`: ENOENT may be a refusal of the name.

    Raises:
        OSError: a refusal, if `parent` still exists.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise meaning_of_not_found(error, parent) from None


class Refusals:
    """Collects the refusals of a restore. Used from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}
        self._absent: set[str] = set()
        self._folders: dict[str, str] = {}  # path of a refused directory -> the reason
        self.ignored: set[str] = set()  # "modes", "times": metadata that the file system does not keep; reported once

    def refuse(self, path: str, reason: str) -> None:
        """Takes note that an entry will not be in the target."""
        with self._lock:
            self._reasons.setdefault(path, reason)
            self._absent.add(path)

    def refuse_folder(self, path: str, reason: str) -> None:
        """Takes note that neither the directory nor anything below will be in the target."""
        self._folders[path] = reason
        self.refuse(path, reason)

    def note(self, path: str, reason: str) -> None:
        """Takes note that an entry is in the target, but differs from the snapshot."""
        with self._lock:
            self._reasons.setdefault(path, reason)

    def is_refused(self, path: str) -> bool:
        """Whether an entry, or its directory, is refused."""
        return bool(self._absent) and self.reason_not_there(path) is not None

    @property
    def of_folders(self) -> bool:
        """Whether any directory is refused: something else may then stand in its place."""
        return bool(self._folders)

    def reason_not_there(self, path: str) -> str | None:
        """Returns the reason why an entry will not be in the target; None if nothing forbids the entry."""
        if not self._absent:
            return None
        if path in self._absent:
            return self._reasons[path]
        return self._folders.get(split(path)[0])

    def present(self, entries: EntryTable) -> EntryTable:
        """Returns the `entries` that are not refused; refuses entries in a refused directory for the same reason."""
        if not self._absent:
            return entries
        for entry in entries:
            reason = self._folders.get(split(entry.path)[0])
            if reason is not None:
                self.refuse(entry.path, reason)
        return part_of(entries, (row for row, entry in enumerate(entries) if entry.path not in self._absent))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Refused entries and entries that differ from the snapshot, in path order."""
        return tuple(Problem(path, self._reasons[path]) for path in sorted(self._reasons, key=os.fsencode))
