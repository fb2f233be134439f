"""Snapshots that are files on this machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Final

from dumont_gpu.disk.direct_io import read_at, write_at
from dumont_gpu.disk.outputs import UNFINISHED, Identity, check_output, identity, is_unfinished, unfinished_name
from dumont_gpu.errors import NO_ROOM, DamagedError, DumontError, NoSpaceError, SnapshotNotFoundError, UsageError
from dumont_gpu.format.header import HEADER_SIZE
from dumont_gpu.shortages import is_shortage

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems have none


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
        with contextlib.suppress(OSError):  # all that was wanted of it has been read
            os.close(self._fd)


class LocalSink:
    """Writes beside the final path and renames: an existing snapshot stays whole until the new one is durable.

    Args:
        path: where the snapshot will stand.
        force: replace a file there that is no snapshot.

    Raises:
        UsageError: nothing may be written there (`dumont_gpu.disk.outputs`).
        DumontError: nothing can be written there.
    """

    in_order = False

    def __init__(self, path: str, *, force: bool = False) -> None:
        self.location = path
        self._force = force
        self._output = check_output(path, force=force)
        self._final = self._output.path
        self._partial = self._final.with_name(unfinished_name(self._final.name))
        self._head = b""  # the header, as it was written
        self._locked = True
        try:
            self._fd = self._create()
        except OSError as error:
            if is_shortage(error.errno):
                raise
            failure = NoSpaceError if error.errno in NO_ROOM else DumontError
            raise failure(f"{path}: cannot be written: {error.strerror}") from None
        self._open = True

    def _create(self) -> int:
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(self._partial, flags, 0o666)
            except FileExistsError:
                self._remove_stale()
                continue
            try:
                # Looked at once: a descriptor that fails later must not keep what failed from being taken away.
                self._identity = identity(os.fstat(fd))
                # Between its creation and the lock another process may have taken the file for a stale one.
                if self._lock(fd) and self._is_partial(self._identity):
                    write_at(fd, 0, memoryview(UNFINISHED))
                    return fd
            except BaseException:
                with contextlib.suppress(OSError):
                    self._partial.unlink()
                os.close(fd)
                raise
            os.close(fd)

    def _remove_stale(self) -> None:
        """Removes what a killed run left under the partial name; it is never opened for writing, nor cut."""
        try:
            fd = os.open(self._partial, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise DumontError(f"{self._partial}: is in the way, and no file of ours; move it away")
            if not self._lock(fd):
                raise DumontError(f"{self.location}: another dumont-gpu is writing it")
            if not self._is_partial(identity(status)):  # renamed, or given up, before it was locked
                return
            if status.st_size and not is_unfinished(os.pread(fd, HEADER_SIZE, 0)):
                raise DumontError(f"{self._partial}: is in the way, and no file of ours; move it away")
            self._partial.unlink()
        finally:
            os.close(fd)

    def _lock(self, fd: int) -> bool:
        """Whether nobody else has the file locked. Where there are no locks, `notes` says so."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._locked = False
        return True

    def _is_partial(self, file: Identity) -> bool:
        """Whether that file is what stands under the partial name."""
        try:
            return identity(self._partial.lstat()) == file
        except FileNotFoundError:
            return False

    def _unlink_partial(self) -> None:
        with contextlib.suppress(OSError):
            if self._is_partial(self._identity):
                self._partial.unlink()

    def identities(self) -> frozenset[Identity]:
        """Of the file being written and of the one it will replace."""
        return self._output.identities | {self._identity}

    def notes(self) -> tuple[str, ...]:
        if self._locked:
            return ()
        return (f"the file system of {self.location} has no locks: two packs to it at once would not notice",)

    def expect(self, size: int) -> None:
        pass

    def write_at(self, offset: int, data: memoryview) -> None:
        if offset == 0:
            self._head = bytes(data[:HEADER_SIZE])
        write_at(self._fd, offset, data)

    def commit(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        os.fsync(self._fd)
        self._check_place()
        self._partial.rename(self._final)
        try:
            self._close()
            folder = os.open(self._final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            why = f"its last sync failed: {error.strerror}"
            raise DumontError(f"{self.location}: was written, but may not outlive a power loss: {why}") from None
        self._read_back(size)

    def _check_place(self) -> None:
        """Raises DumontError if somebody else has touched either name meanwhile: both must be what they were."""
        if not self._is_partial(self._identity):
            raise DumontError(f"{self.location}: another program took {self._partial.name} away")
        try:
            check_output(str(self._final), force=self._force)
        except UsageError as error:
            raise DumontError(f"{error}; it was put there while the snapshot was made") from None

    def _read_back(self, size: int) -> None:
        """Raises DumontError unless the name leads to what was written: some mounts copy where others rename."""
        try:
            fd = os.open(self._final, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found, head = os.fstat(fd).st_size, os.pread(fd, HEADER_SIZE, 0)
            finally:
                os.close(fd)
        except OSError as error:
            raise DumontError(f"{self.location}: was written, but cannot be read back: {error.strerror}") from None
        if (found, head[: len(self._head)]) != (size, self._head):
            raise DumontError(f"{self.location}: was written, but is another file when read back: do not rely on it")

    def cancel(self) -> None:
        pass

    def abort(self, error: BaseException | None = None) -> None:
        if self._open:
            self._unlink_partial()
            self._close()

    def _close(self) -> None:
        self._open = False  # whatever close says
        os.close(self._fd)
