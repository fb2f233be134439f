"""The errors that this package raises, each with its exit code on the command line.

DumontError                  1   the job failed
├── UsageError               2   the request makes no sense
├── DamagedError             4   the snapshot's bytes contradict themselves
├── NetworkError             5   the link gave up after every retry
│   └── GaveUpError          5   in the middle of a job, after all patience; the same command continues
├── NoSpaceError             6   not enough room at the target
├── DeviceError              7   the requested device cannot be used
├── UnsupportedError         8   a valid snapshot that needs a newer dumont-gpu
└── SnapshotNotFoundError   10   nothing at that path or address

Exit code 3, "done, but some source files could not be read", is no error: see `PackResult.problems`.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final, NamedTuple

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errnos that mean NoSpaceError


class DumontError(Exception):
    """The job failed. The message is a single line: the failure, its location and the remedy."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """The remains of a failed job in another place, such as parts of an upload; for people and for programs."""

    text: str  # a clause
    facts: dict[str, str | int]
    goes_on: bool  # the same command continues from these remains


def leave_behind(error: BaseException, left: LeftBehind) -> None:
    """Attaches a job's remains to the error, or the signal, that ended the job."""
    error.left_behind = left  # type: ignore[attr-defined]


def left_behind(error: BaseException) -> LeftBehind | None:
    """Returns the remains attached to an error or to its cause; None without any."""
    found: LeftBehind | None = getattr(error, "left_behind", None)
    return left_behind(error.__cause__) if found is None and error.__cause__ is not None else found


class UsageError(DumontError):
    """The request makes no sense."""

    exit_code = 2


class LostFile(NamedTuple):
    """A file or hard link that a damaged snapshot cannot bring back whole."""

    path: str
    chunk: int  # the first damaged chunk that holds bytes of it

    def sort_key(self) -> bytes:
        """Returns what brings files into the order of a snapshot."""
        return os.fsencode(self.path)


class DamagedError(DumontError):
    """The snapshot's bytes contradict themselves: a failed digest, a broken rule, a malformed stream."""

    exit_code = 4
    lost: tuple[LostFile, ...] = ()  # where a verification knows them: the files that are lost


class NetworkError(DumontError):
    """The link gave up after every retry."""

    exit_code = 5


class GaveUpError(NetworkError):
    """A server that had answered fell silent for longer than patience allows. The same command continues the job."""


class NoSpaceError(DumontError):
    """Not enough room at the target."""

    exit_code = 6


class DeviceError(DumontError):
    """The requested device cannot be used."""

    exit_code = 7


class UnsupportedError(DumontError):
    """The snapshot is valid but needs a feature that this version lacks."""

    exit_code = 8


class SnapshotNotFoundError(DumontError):
    """Nothing at that path or address."""

    exit_code = 10
