"""Snapshots that are files on this machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from dumont_gpu.direct_io import write_at
from dumont_gpu.errors import DamagedError, DumontError, SnapshotNotFoundError, UsageError


class LocalSource:
    def __init__(self, path: str) -> None:
        self.location = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise SnapshotNotFoundError(f"{path}: no such snapshot") from None
        except OSError as error:
            raise DumontError(f"{path}: {error.strerror}") from None
        status = os.fstat(self._fd)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise UsageError(f"{path}: not a regular file")

    def read_into(self, offset: int, out: memoryview) -> None:
        done = 0
        while done < len(out):
            count = os.preadv(self._fd, [out[done:]], offset + done)
            if count == 0:
                raise DamagedError(f"{self.location}: ends at byte {offset + done}, {len(out) - done} are missing")
            done += count

    def close(self) -> None:
        os.close(self._fd)


class LocalSink:
    """Writes beside the final path and renames: an existing snapshot stays whole until the new one is durable."""

    def __init__(self, path: str) -> None:
        self.location = path
        final = Path(path)
        if final.is_dir() or not final.name:
            raise UsageError(f"{path}: is a directory; name a file, such as workspace.dumont")
        self._final = final
        # One fixed name, locked: what a killed run left behind is reused, and a run in progress is not disturbed.
        self._partial = final.with_name(f".{final.name[:200]}.partial")
        try:
            self._fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise DumontError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            if error.errno == errno.EWOULDBLOCK:
                raise DumontError(f"{path}: another dumont-gpu is writing it") from None
            raise
        os.ftruncate(self._fd, 0)
        self._open = True

    def identity(self) -> tuple[int, int]:
        """Device and inode of the file being written, for leaving it out of what is packed."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def write_at(self, offset: int, data: memoryview) -> None:
        write_at(self._fd, offset, data)

    def commit(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        os.fsync(self._fd)
        self._partial.rename(self._final)
        self._close()
        folder = os.open(self._final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        if self._open:
            with contextlib.suppress(OSError):
                self._partial.unlink()
            self._close()

    def _close(self) -> None:
        os.close(self._fd)
        self._open = False
