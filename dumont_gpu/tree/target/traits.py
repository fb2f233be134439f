"""The metadata that a target's file system keeps, tested on a file of our own, not guessed from its type."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.target.refusals import is_refusal
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

_TIME: Final = 1_000_000_000_123_456_789  # ns since 1970, in 2001
COARSEST_TIME: Final = 2 * 10**9  # ns: FAT's times have steps of two seconds
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Traits:
    """Whether a file system keeps the modes and times that are set, and tells names by case."""

    modes: bool = True
    times: bool = True
    only_closed: bool = False  # keeps them only if set after the file was written and closed (s3fs)
    one_case: bool = False  # names that differ only in case lead to the same file


def traits_of(fd: int, folder: int, name: str) -> Traits:
    """Tests a file system on an open file.

    Args:
        fd: the file, created with UNFINISHED_MODE; its time is changed.
        folder: descriptor of its directory.
        name: its name there.

    Raises:
        OSError: the file system fails.
    """
    status = os.fstat(fd)
    modes = stat.S_IMODE(status.st_mode) == UNFINISHED_MODE
    one_case = _is_called(folder, name.upper(), status)
    if _keeps_time(fd):
        return Traits(modes, one_case=one_case)
    with _probe(folder) as name:
        again = os.open(name, _REOPEN, dir_fd=folder)
        try:
            times = _keeps_time(again)
        finally:
            os.close(again)
    return Traits(modes, times, only_closed=times, one_case=one_case)


def keeps_modes(folder: int) -> bool:
    """Tests on a new file, deleted afterwards, whether a file system keeps modes; True if no file can be created.

    Raises:
        OSError: the machine is short of descriptors or memory.
    """
    try:
        with _probe(folder) as name:
            return stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode) == UNFINISHED_MODE
    except OSError as error:
        if is_shortage(error.errno):
            raise
        return True


def _is_called(folder: int, name: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), status)
    except OSError:
        return False


def _keeps_time(fd: int) -> bool:
    try:
        os.utime(fd, ns=(_TIME, _TIME))
    except OSError as error:
        if not is_refusal(error):
            raise
        return False
    return abs(os.fstat(fd).st_mtime_ns - _TIME) < COARSEST_TIME


@contextlib.contextmanager
def _probe(folder: int) -> Iterator[str]:
    """Creates a small file, yields its name, and deletes the file."""
    name = f".dumont-{os.urandom(8).hex()}.partial"
    fd = os.open(name, _CREATE, UNFINISHED_MODE, dir_fd=folder)
    try:
        os.write(fd, b"?")
    finally:
        os.close(fd)
    try:
        yield name
    finally:
        os.unlink(name, dir_fd=folder)
