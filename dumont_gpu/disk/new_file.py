"""A file that is written from its start to its end, and appears under its name complete or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from dumont_gpu.disk.outputs import check_output
from dumont_gpu.errors import NO_ROOM, DumontError, NoSpaceError

_MODE: Final = 0o666  # less the umask


class NewFile:
    """Replaces no file but an empty one. Until `commit` the file has no name, where the file system can do that.

    Args:
        location: the path that the user named.
        kind: the name of such files in messages.

    Raises:
        UsageError: no file may be written there.
        DumontError: no file can be written there.
    """

    def __init__(self, location: str, kind: str) -> None:
        self.location = location
        output = check_output(location, kind=kind, expendable=lambda _: False, way_out="")
        self._final, self._replaces_empty = output.path, output.replaced is not None
        self._named: Path | None = None
        try:
            self._fd = self._create()
        except OSError as error:
            raise DumontError(f"{location}: cannot be written: {error.strerror}") from None
        self._open = True

    def write(self, data: memoryview) -> None:
        """Appends all of `data`. Raises ValueError once the file is closed: its descriptor may be another file's."""
        if not self._open:
            raise ValueError(f"{self.location}: is closed")
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            if error.errno in NO_ROOM:
                raise NoSpaceError(f"{self.location}: no room for more: {error.strerror}") from None
            raise

    def commit(self) -> None:
        """Makes the file durable, and visible under its name."""
        try:
            os.fsync(self._fd)
            folder = os.open(self._final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._appear(folder)
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise DumontError(f"{self.location}: was put there while it was written: name another file") from None
        except OSError as error:
            raise DumontError(f"{self.location}: cannot be written: {error.strerror}") from None
        self.close()

    def close(self) -> None:
        """Leaves no trace of the file, unless it was committed."""
        if self._open:
            self._open = False
            os.close(self._fd)
            if self._named is not None:
                with contextlib.suppress(OSError):
                    self._named.unlink()

    def _create(self) -> int:
        with contextlib.suppress(OSError):  # not every file system has files without a name
            return os.open(self._final.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, _MODE)
        fd, path = tempfile.mkstemp(".partial", f".{self._final.name[:100]}.", self._final.parent)
        self._named = Path(path)
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(fd, _MODE & ~mask)
        return fd

    def _appear(self, folder: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._replaces_empty and not self._final.stat().st_size:  # nobody has written to it meanwhile
                self._final.unlink()
        if self._named is not None:
            os.link(self._named, self._final)
        else:  # with src_dir_fd, Python makes the system call that follows the link in /proc
            os.link(f"/proc/self/fd/{self._fd}", self._final, src_dir_fd=folder, follow_symlinks=True)
