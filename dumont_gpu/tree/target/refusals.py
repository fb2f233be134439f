"""What could not be in a target as the snapshot has it: a matter of one entry, after which the restore goes on.

An entry is refused by what its file system cannot hold, or its user may not do. What fails because the disk, the mount
or the link does (EIO, ENOSPC, EROFS, EDQUOT, ESTALE …) is no entry's fault, and ends the restore.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.problems import Problem

_REFUSALS: Final = frozenset(
    {
        errno.EPERM,  # an immutable file; links, owners or special names on a mount that has none
        errno.EINVAL,
        errno.EILSEQ,  # a name that is not UTF-8, on NTFS, exFAT and others
        errno.ENAMETOOLONG,
        errno.EOPNOTSUPP,
        errno.ENOSYS,  # FUSE: the file system does not have this call
        errno.EFBIG,  # more than 4 GiB on FAT
        errno.EMLINK,
        errno.EXDEV,
    }
)


def is_refusal(error: OSError) -> bool:
    """Whether the file system refused one entry, rather than failed."""
    return error.errno in _REFUSALS


def refusal(reason: str) -> OSError:
    """Returns the error that says so in words of our own."""
    return OSError(errno.EINVAL, reason)


def meaning_of_not_found(error: FileNotFoundError, parent: int) -> OSError:
    """What ENOENT means to whoever creates something in `parent`: exFAT says so to a name with a colon."""
    return refusal("this file system cannot have such a name") if os.fstat(parent).st_nlink else error


@contextlib.contextmanager
def creating(parent: int) -> Iterator[None]:
    """Creates something in a directory, where ENOENT may mean something else."""
    try:
        yield
    except FileNotFoundError as error:
        raise meaning_of_not_found(error, parent) from None


class Refusals:
    """Collects them. Used from many threads; what a file system ignores altogether is kept apart, to be said once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}
        self._absent: set[str] = set()
        self._folders: dict[str, str] = {}  # directories that are not there, and why
        self.ignored: set[str] = set()  # "modes", "times": what the file system does not keep

    def refuse(self, path: str, reason: str) -> None:
        """The entry is not in the target."""
        with self._lock:
            self._reasons.setdefault(path, reason)
            self._absent.add(path)

    def refuse_folder(self, path: str, reason: str) -> None:
        """Neither is the directory, nor anything below it."""
        self._folders[path] = reason
        self.refuse(path, reason)

    def note(self, path: str, reason: str) -> None:
        """The entry is there, but not quite as the snapshot has it."""
        with self._lock:
            self._reasons.setdefault(path, reason)

    def is_refused(self, path: str) -> bool:
        return bool(self._absent) and self.reason_not_there(path) is not None

    def lacks(self, folder: str) -> bool:
        """Whether this directory is not there."""
        return folder in self._folders

    def reason_not_there(self, path: str) -> str | None:
        """Why an entry will not be there, so that nothing of it is to be written; None if it will."""
        if not self._absent:
            return None
        if path in self._absent:
            return self._reasons[path]
        return self._folders.get(split(path)[0])

    def present(self, entries: Sequence[FileEntry]) -> Sequence[FileEntry]:
        """Returns those of `entries` that are, or can be, there; the others share the reason of their directory."""
        if not self._absent:
            return entries
        for entry in entries:
            reason = self._folders.get(split(entry.path)[0])
            if reason is not None:
                self.refuse(entry.path, reason)
        return [entry for entry in entries if entry.path not in self._absent]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All of them, in path order."""
        return tuple(Problem(path, self._reasons[path]) for path in sorted(self._reasons, key=os.fsencode))
