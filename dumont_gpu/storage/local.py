"""Snapshots that are files on this machine."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dumont_gpu.disk.direct_io import read_at, write_at
from dumont_gpu.disk.outputs import Identity, Output, check_output
from dumont_gpu.errors import NO_ROOM, DamagedError, DumontError, NoSpaceError, SnapshotNotFoundError, UsageError
from dumont_gpu.format.header import HEADER_SIZE
from dumont_gpu.shortages import is_shortage
from dumont_gpu.storage.partial_file import PartialFile

if TYPE_CHECKING:
    from dumont_gpu.storage.base import Sink, Source
    from dumont_gpu.storage.network import NetworkOptions


def open_source(location: str, _: NetworkOptions) -> Source:
    return LocalSource(location)


def open_sink(location: str, _: NetworkOptions, *, force: bool) -> Sink:
    return LocalSink(location, force=force)


def check_place(location: str, sources: Sequence[str], _: NetworkOptions | None, *, force: bool) -> Output:
    output = check_output(location, force=force, sources=sources)
    if not os.access(output.path.parent, os.W_OK | os.X_OK):
        raise DumontError(f"{location}: cannot be written: its folder is not writable")
    return output


class FileSource:
    """A snapshot in a file that is open.

    Args:
        fd: of the file, owned by the source from now on.
        location: the file's name in messages.
        size: bytes of the file.
    """

    remote = False

    def __init__(self, fd: int, location: str, size: int) -> None:
        self._fd, self.location, self.size = fd, location, size

    def read_into(self, offset: int, out: memoryview) -> None:
        done = read_at(self._fd, offset, out)
        if done < len(out):
            raise DamagedError(f"ends at byte {offset + done}, {len(out) - done} are missing")

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every byte that was wanted has been read
            os.close(self._fd)


class LocalSource(FileSource):
    """A snapshot in a regular file."""

    def __init__(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise SnapshotNotFoundError(f"{path}: no such snapshot") from None
        except OSError as error:
            raise DumontError(f"{path}: {error.strerror}") from None
        status = os.fstat(fd)
        super().__init__(fd, path, status.st_size)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise UsageError(f"{path}: not a regular file")


class LocalSink:
    """Writes beside the final path and renames: an existing snapshot stays whole until the new snapshot is durable.

    Args:
        path: where the snapshot will stand.
        force: replace a file there that is no snapshot.

    Raises:
        UsageError: nothing may be written there (`dumont_gpu.disk.outputs`).
        DumontError: nothing can be written there.
    """

    forward = False
    parts = None

    def __init__(self, path: str, *, force: bool = False) -> None:
        self.location = path
        self._force = force
        self._output = check_output(path, force=force)
        self._final = self._output.path
        self._head = b""  # the header, as it was written
        try:
            self._partial = PartialFile(self._final, path)
        except OSError as error:
            if is_shortage(error.errno):
                raise
            failure = NoSpaceError if error.errno in NO_ROOM else DumontError
            raise failure(f"{path}: cannot be written: {error.strerror}") from None
        self._open, self._cancelled = True, False

    @property
    def files(self) -> frozenset[Identity]:
        """The file that is being written, and the file that it will replace."""
        return self._output.identities | {self._partial.identity}

    @property
    def notes(self) -> tuple[str, ...]:
        if self._partial.locked:
            return ()
        return (f"the file system of {self.location} has no locks: two packs to it at once would not notice",)

    def write_at(self, offset: int, data: memoryview) -> None:
        self._check_writing()
        if offset == 0:
            self._head = bytes(data[:HEADER_SIZE])
        write_at(self._partial.fd, offset, data)

    def commit(self, size: int) -> None:
        self._check_writing()
        os.ftruncate(self._partial.fd, size)
        os.fsync(self._partial.fd)
        self._check_names()
        self._partial.path.rename(self._final)
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

    def cancel(self) -> None:
        self._cancelled = True

    def abort(self, error: BaseException | None = None) -> None:
        if self._open:
            self._partial.unlink()
            self._close()

    def _check_writing(self) -> None:
        if self._cancelled or not self._open:
            raise DumontError(f"{self.location}: nothing more is written there")

    def _check_names(self) -> None:
        """Raises DumontError if another program has touched either name: both must lead to the same files as before."""
        if not self._partial.stands():
            raise DumontError(f"{self.location}: another program took {self._partial.path.name} away")
        try:
            check_output(str(self._final), force=self._force)
        except UsageError as error:
            raise DumontError(f"{error}; it was put there while the snapshot was made") from None

    def _read_back(self, size: int) -> None:
        """Raises DumontError unless the name leads to the bytes written: some mounts copy where others rename."""
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

    def _close(self) -> None:
        self._open = False  # whatever close says
        os.close(self._partial.fd)
