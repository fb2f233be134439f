"""Snapshots that are files on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from dumont_gpu.direct_io import read_at, write_at
from dumont_gpu.errors import DamagedError, DumontError, SnapshotNotFoundError, UsageError


class LocalSource:
    remote = False

    def __init__(self, path: str) -> None:
        self.location = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise SnapshotNotFoundError(f"{path}: no such snapshot") from None
        except OSError as error:
            raise DumontError(f"{path}: {error.strerror}") from None
        status = os.fstat(self._fd)
        self.size = status.st_size
        self.identity = f"{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x} {status.st_size}"
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise UsageError(f"{path}: not a regular file")

    def read_into(self, offset: int, out: memoryview) -> None:
        done = read_at(self._fd, offset, out)
        if done < len(out):
            raise DamagedError(f"ends at byte {offset + done}, {len(out) - done} are missing")

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._fd)


class LocalSink:
    """Writes beside the final path and renames: an existing snapshot stays whole until the new one is durable."""

    in_order = False

    def __init__(self, path: str) -> None:
        self.location = path
        final = Path(path)
        if final.is_dir() or not final.name:
            raise UsageError(f"{path}: is a directory; name a file, such as workspace.dumont")
        self._final = final
        # One fixed name, locked: what a killed run left behind is replaced, and a run in progress is not disturbed.
        self._partial = final.with_name(f".{final.name[:200]}.partial")
        try:
            self._fd = self._create()
        except OSError as error:
            raise DumontError(f"{path}: cannot be written: {error.strerror}") from None
        self._open = True

    def _create(self) -> int:
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(self._partial, flags, 0o666)
            except FileExistsError:
                self._remove_stale()
                continue
            # Between its creation and the lock another process may have taken the file for a stale one.
            if self._lock(fd) and self._is_partial(fd):
                return fd
            os.close(fd)

    def _remove_stale(self) -> None:
        """Removes what a killed run left under the partial name; it is never opened for writing, nor cut."""
        try:
            fd = os.open(self._partial, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DumontError(f"{self._partial}: is in the way, and no file of ours; move it away")
            if not self._lock(fd):
                raise DumontError(f"{self.location}: another dumont-gpu is writing it")
            if self._is_partial(fd):
                self._partial.unlink()
        finally:
            os.close(fd)

    @staticmethod
    def _lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_partial(self, fd: int) -> bool:
        """Whether the open file still is what stands under the partial name."""
        try:
            return os.path.samestat(os.fstat(fd), self._partial.lstat())
        except FileNotFoundError:
            return False

    def identities(self) -> frozenset[tuple[int, int]]:
        """Of the file being written and of the one it will replace."""
        found = {_identity(os.fstat(self._fd))}
        with contextlib.suppress(OSError):
            found.add(_identity(self._final.lstat()))
        return frozenset(found)

    def expect(self, size: int) -> None:
        pass

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

    def cancel(self) -> None:
        pass

    def abort(self, error: BaseException | None = None) -> None:
        if self._open:
            with contextlib.suppress(OSError):
                self._partial.unlink()
            self._close()

    def _close(self) -> None:
        os.close(self._fd)
        self._open = False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
