"""The file beside the final path that a snapshot is written to: locked, and told apart from what is not ours."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from dumont_gpu.disk.direct_io import write_at
from dumont_gpu.disk.outputs import UNFINISHED, Identity, identity, is_unfinished, unfinished_name
from dumont_gpu.errors import DumontError
from dumont_gpu.format.header import HEADER_SIZE

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems have no locks


class PartialFile:
    """A new file of its own under the unfinished name of `final`, open and locked.

    Args:
        final: where the snapshot will stand.
        location: the same path as the user wrote it, for messages.

    Raises:
        DumontError: another process is writing there, or something that is not ours is in the way.
        OSError: the file cannot be created.
    """

    def __init__(self, final: Path, location: str) -> None:
        self.path = final.with_name(unfinished_name(final.name))
        self._location = location
        self.locked = True  # False: the file system has no locks
        self.fd = self._create()

    def stands(self) -> bool:
        """Whether the partial name still leads to this file."""
        return self._leads_to(self.identity)

    def unlink(self) -> None:
        with contextlib.suppress(OSError):
            if self.stands():
                self.path.unlink()

    def _create(self) -> int:
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(self.path, flags, 0o666)
            except FileExistsError:
                self._remove_stale()
                continue
            try:
                # Looked at once: a descriptor that fails later must not keep the file from being taken away.
                self.identity = identity(os.fstat(fd))
                # Between its creation and the lock another process may have taken the file for a stale one.
                if self._lock(fd) and self.stands():
                    write_at(fd, 0, memoryview(UNFINISHED))
                    return fd
            except BaseException:
                with contextlib.suppress(OSError):
                    self.path.unlink()
                os.close(fd)
                raise
            os.close(fd)

    def _remove_stale(self) -> None:
        """Removes the file that a killed run left under the partial name; never opens it for writing, nor cuts it."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise DumontError(f"{self.path}: is in the way, and no file of ours; move it away")
            if not self._lock(fd):
                raise DumontError(f"{self._location}: another dumont-gpu is writing it")
            if not self._leads_to(identity(status)):  # renamed, or given up, before it was locked
                return
            if status.st_size and not is_unfinished(os.pread(fd, HEADER_SIZE, 0)):
                raise DumontError(f"{self.path}: is in the way, and no file of ours; move it away")
            self.path.unlink()
        finally:
            os.close(fd)

    def _leads_to(self, file: Identity) -> bool:
        try:
            return identity(self.path.lstat()) == file
        except FileNotFoundError:
            return False

    def _lock(self, fd: int) -> bool:
        """Locks a file; returns whether no other process holds its lock, as far as the file system has locks."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.locked = False
        return True
