"""Snapshots that leave through standard output: written forward, whoever reads them."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dumont_gpu.disk.outputs import Identity, Output, identity
from dumont_gpu.errors import NO_ROOM, DumontError, NoSpaceError, UsageError
from dumont_gpu.shortages import is_shortage
from dumont_gpu.storage.standard_input import enlarge_pipe

if TYPE_CHECKING:
    from dumont_gpu.storage.base import Sink
    from dumont_gpu.storage.network import NetworkOptions

LOCATION: Final = "standard output"
_STANDARD_OUTPUT: Final = 1
_SOON: Final = 100  # milliseconds until a write that waits notices that it was cancelled
_ZEROS: Final = memoryview(bytes(64 * 1024))


def open_sink(location: str, _: NetworkOptions, *, force: bool) -> Sink:
    check_standard_output()
    return PipeSink(_STANDARD_OUTPUT)


def check_place(location: str, sources: Sequence[str], _: NetworkOptions | None, *, force: bool) -> Output:
    check_standard_output()
    status = os.fstat(_STANDARD_OUTPUT)
    return Output(Path(LOCATION), status if stat.S_ISREG(status.st_mode) else None)


def check_standard_output() -> None:
    """Raises UsageError if standard output is a terminal, or a file that has something in it already."""
    if os.isatty(_STANDARD_OUTPUT):
        raise UsageError(f"{LOCATION} is a terminal, which this is not for: pipe it into a program, or name a file")
    status = os.fstat(_STANDARD_OUTPUT)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        raise UsageError(f"{LOCATION} is a file that is not empty, and would be no archive or snapshot afterwards")


class PipeSink:
    """Writes to a descriptor in the order of offsets.

    Nothing that was written can be taken back: who reads must see that the end is missing.

    Args:
        fd: a pipe, a socket or a file; it stays open.
        location: the name of `fd` in messages.
    """

    forward = True
    parts = None
    notes: tuple[str, ...] = ()

    def __init__(self, fd: int, location: str = LOCATION) -> None:
        self.location = location
        self._given, self._end = fd, 0
        self._open = self._over = False
        self._fd = _waiting_nowhere(fd)
        self._open = True

    @property
    def files(self) -> frozenset[Identity]:
        """The file that standard output leads to: it grows while it is packed."""
        status = os.fstat(self._given)
        return frozenset([identity(status)]) if stat.S_ISREG(status.st_mode) else frozenset()

    def write_at(self, offset: int, data: memoryview) -> None:
        if offset < self._end:
            raise ValueError(f"byte {offset} of a stream that is written up to {self._end}")
        while self._end < offset:
            self._write(_ZEROS[: offset - self._end])
        self._write(data)

    def commit(self, size: int) -> None:
        self.write_at(size, memoryview(b""))
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.fsync(self._fd)
        self._close()

    def cancel(self) -> None:
        self._over = True

    def abort(self, error: BaseException | None = None) -> None:
        self._close()

    def _write(self, data: memoryview) -> None:
        done = 0
        try:
            while done < len(data):
                self._wait()
                with contextlib.suppress(BlockingIOError):
                    done += os.write(self._fd, data[done:])
        except OSError as error:
            raise _failure(self.location, error) from None
        self._end += len(data)

    def _wait(self) -> None:
        """Waits until the descriptor takes bytes; raises DumontError once the sink is cancelled."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while True:
            if self._over or not self._open:
                raise DumontError(f"{self.location}: nothing more is written there")
            if poll.poll(_SOON):
                return

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)


def _waiting_nowhere(fd: int) -> int:
    """Returns another descriptor of a pipe whose writes never wait, so that a signal can end them.

    The flag belongs to all who share a descriptor, and a parent's must stay as it is; a pipe can be opened again, a
    socket or a file cannot, and is duplicated.
    """
    enlarge_pipe(fd)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise _failure(LOCATION, BrokenPipeError(errno.EPIPE, "")) from None
    return os.dup(fd)


def _failure(location: str, error: OSError) -> DumontError | OSError:
    if error.errno == errno.EPIPE:
        return DumontError(f"{location}: was closed before the end: whoever read it has a part, which is of no use")
    if error.errno in NO_ROOM:
        return NoSpaceError(f"{location}: no room for more: {error.strerror}")
    return error if is_shortage(error.errno) else DumontError(f"{location}: {error.strerror}")
