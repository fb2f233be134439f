"""Makes directories writable for their owner while a restore fills them."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from dumont_gpu.tree.handles import DirectoryHandles, split

T = TypeVar("T")
_OWNER: Final = 0o700
_PATH_ONLY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # works without read permission


class FolderAccess:
    """Runs operations in directories; if an operation is denied, makes the directory writable and runs it again.

    `put_back` gives every such directory its former mode. A restore does so last, and also when it fails. Used from
    many threads.
    """

    def __init__(self, handles: DirectoryHandles) -> None:
        self._handles = handles
        self._lock = threading.Lock()
        self._modes: dict[str, int] = {}  # path of a directory -> its former mode
        self.read_only = False  # for a plan, which must change no mode

    def attempt(self, folder: str, act: Callable[[int], T]) -> T:
        """Returns `act(descriptor of folder)`. After EACCES, `act` is called again: it must change nothing before.

        Raises:
            OSError: from `act`, or because the directory cannot be opened.
        """
        try:
            with self._handles.lease(folder) as parent:
                return act(parent)
        except OSError as error:
            if error.errno != errno.EACCES or not self._make_accessible(folder):
                raise
        with self._handles.lease(folder) as parent:
            return act(parent)

    def forget(self, paths: Iterable[str]) -> None:
        """Drops the former modes of directories that have got their final modes."""
        if self._modes:
            for path in paths:
                self._modes.pop(path, None)

    def put_back(self) -> None:
        """Gives directories their former modes, the innermost first."""
        for path in sorted(self._modes, reverse=True):
            self._set_mode(path, self._modes.pop(path))

    def _make_accessible(self, folder: str) -> bool:
        """Gives the owner all rights on a directory and its parents; returns whether that changed any mode."""
        if self.read_only:
            return False
        names = folder.split("/") if folder else []
        with self._lock:
            changed = [self._give_rights("/".join(names[:depth])) for depth in range(len(names) + 1)]
        return any(changed)

    def _give_rights(self, path: str) -> bool:
        if path in self._modes:
            return True  # another thread was faster
        mode = self._mode(path)
        if mode & _OWNER == _OWNER:
            return False
        try:
            self._set_mode(path, mode | _OWNER)
        except PermissionError:  # another user's directory
            return False
        self._modes[path] = mode
        return True

    def _mode(self, path: str) -> int:
        if not path:
            with self._handles.lease("") as root:
                return stat.S_IMODE(os.fstat(root).st_mode)
        folder, name = split(path)
        with self._handles.lease(folder) as parent:
            return stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)

    def _set_mode(self, path: str, mode: int) -> None:
        if not path:
            with self._handles.lease("") as root:
                os.fchmod(root, mode)
            return
        folder, name = split(path)
        with self._handles.lease(folder) as parent:
            fd = os.open(name, _PATH_ONLY, dir_fd=parent)
            try:
                Path(f"/proc/self/fd/{fd}").chmod(mode)  # fchmod does not accept an O_PATH descriptor
            finally:
                os.close(fd)
