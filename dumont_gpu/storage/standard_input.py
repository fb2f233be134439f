"""Snapshots that come through standard input: a reader needs their end first, so that they wait in an unnamed file."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dumont_gpu.disk.direct_io import write_at
from dumont_gpu.disk.outputs import is_snapshot
from dumont_gpu.errors import NO_ROOM, DamagedError, DumontError, NoSpaceError, UsageError
from dumont_gpu.format.header import HEADER_SIZE
from dumont_gpu.shortages import is_shortage
from dumont_gpu.sizes import MiB
from dumont_gpu.storage.local import FileSource

if TYPE_CHECKING:
    from dumont_gpu.storage.base import Source

_PIPE_SIZE: Final = 1 * MiB  # of the kernel's buffer: fewer switches between two programs
_WRITE_SIZE: Final = 4 * MiB  # of aligned memory: written past the page cache, as a pack writes a file
_STANDARD_INPUT: Final = 0


def open_source(room: str | None) -> Source:
    return SpooledSource(_STANDARD_INPUT, "standard input", room)


def enlarge_pipe(fd: int) -> None:
    """Gives a pipe a larger buffer, if the kernel allows that; does nothing for what is no pipe."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


class SpooledSource(FileSource):
    """A snapshot that was read to its end from a pipe, in a file without a name: the kernel frees it in any case.

    Args:
        fd: is read to its end, and stays open.
        location: the name of `fd` in messages.
        room: a path on the disk that should hold the file; None: the disk of temporary files.

    Raises:
        UsageError: `fd` is a terminal.
        DamagedError: what comes is no snapshot.
        NoSpaceError: the disk cannot hold it.
        DumontError: `fd` cannot be read.
    """

    def __init__(self, fd: int, location: str, room: str | None = None) -> None:
        if os.isatty(fd):
            raise UsageError(f"{location} is a terminal: pipe a snapshot into this command, or name one")
        enlarge_pipe(fd)
        try:
            super().__init__(_unnamed_file(room), location, 0)
        except OSError as error:
            raise DumontError(f"{location}: no temporary file for it: {error.strerror}") from None
        try:
            self.size = self._spool(fd)
        except BaseException:
            self.close()
            raise

    def _spool(self, fd: int) -> int:
        """Copies `fd` to the file; returns its size."""
        buffer = memoryview(mmap.mmap(-1, _WRITE_SIZE))
        size = filled = 0
        while count := self._receive(fd, buffer[filled:]):
            before, filled = filled, filled + count
            if not size and before < HEADER_SIZE <= filled and not is_snapshot(bytes(buffer[:HEADER_SIZE])):
                # At once: the rest may take hours.
                raise DamagedError(f"{self.location}: not a .dumont file (it does not start with DUMONT02)")
            if filled == len(buffer):
                self._keep(size, buffer)
                size, filled = size + filled, 0
        self._keep(size, buffer[:filled])
        if not size + filled:
            raise DamagedError(f"{self.location}: nothing came")
        return size + filled

    def _receive(self, fd: int, buffer: memoryview) -> int:
        try:
            return os.readv(fd, [buffer])
        except OSError as error:
            if is_shortage(error.errno):
                raise
            raise DumontError(f"{self.location}: cannot be read: {error.strerror}") from None

    def _keep(self, offset: int, data: memoryview) -> None:
        try:
            write_at(self._fd, offset, data)
        except OSError as error:
            if error.errno in NO_ROOM:
                why = "it waits on disk until it has come whole, beside the target or in TMPDIR"
                raise NoSpaceError(f"{self.location}: no room for the snapshot: {error.strerror}; {why}") from None
            raise


def _unnamed_file(room: str | None) -> int:
    """Opens a file without a name in the folder at or above `room`, or else among temporary files."""
    if room is not None:
        folder = Path(os.path.abspath(room))
        while not folder.is_dir():
            folder = folder.parent
        with contextlib.suppress(OSError):  # the file system has no such files, or the folder is not ours to write in
            return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())
