"""The errors this package raises, each with the exit code of the command line.

DumontError                  1   the job failed
├── UsageError               2   the request makes no sense
├── DamagedError             4   the snapshot's bytes contradict themselves
├── NetworkError             5   the link gave up after every retry
│   └── GaveUpError          5   in the middle, after all patience; the same command goes on
├── NoSpaceError             6   not enough room at the target
├── DeviceError              7   the device that was asked for cannot be used
├── UnsupportedError         8   a valid snapshot that needs a newer dumont-gpu
└── SnapshotNotFoundError   10   nothing at that path or address

Exit code 3, "done, but some source files could not be read", is no error: see `PackResult.problems`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # system calls that fail so mean NoSpaceError


class DumontError(Exception):
    """The job failed; the message is one line that says what, where and what to do."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What a job that did not end well has left somewhere else, for people and for programs."""

    text: str  # a clause
    facts: dict[str, str | int]
    goes_on: bool  # the same command uses it


def leave_behind(error: BaseException, left: LeftBehind) -> None:
    """Notes on an error, or on a signal, what is left because of it."""
    error.left_behind = left  # type: ignore[attr-defined]


def left_behind(error: BaseException) -> LeftBehind | None:
    """What is left because of an error, or of the one that it tells of in other words."""
    found: LeftBehind | None = getattr(error, "left_behind", None)
    return left_behind(error.__cause__) if found is None and error.__cause__ is not None else found


class UsageError(DumontError):
    """The request makes no sense."""

    exit_code = 2


class DamagedError(DumontError):
    """The snapshot's bytes contradict themselves: a failed digest, a broken rule, a malformed stream."""

    exit_code = 4


class NetworkError(DumontError):
    """The link gave up after every retry."""

    exit_code = 5


class GaveUpError(NetworkError):
    """A server that had answered did so no more, for as long as patience allowed: the same command goes on."""


class NoSpaceError(DumontError):
    """Not enough room at the target."""

    exit_code = 6


class DeviceError(DumontError):
    """The device that was asked for cannot be used."""

    exit_code = 7


class UnsupportedError(DumontError):
    """A snapshot that is not damaged but needs something this version does not have."""

    exit_code = 8


class SnapshotNotFoundError(DumontError):
    """Nothing at that path or address."""

    exit_code = 10
