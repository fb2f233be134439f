"""Directories that this user may write to only after giving himself the right: while they are filled, they have it."""

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
_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # of a directory that cannot be read


class FolderAccess:
    """Calls what works in a directory, and if that is denied, makes the directory writable and calls it again.

    `put_back` gives every such directory the mode it had. A restore does so last, and also when it fails. Used from
    many threads.
    """

    def __init__(self, handles: DirectoryHandles) -> None:
        self._handles = handles
        self._lock = threading.Lock()
        self._modes: dict[str, int] = {}  # as they were, by path
        self.read_only = False  # whether nothing may be changed: for a plan

    def attempt(self, folder: str, act: Callable[[int], T]) -> T:
        """Returns `act(descriptor of folder)`; `act` may be called twice, if it changed nothing the first time.

        Raises:
            OSError: from `act`, or because the directory is not to be had.
        """
        try:
            with self._handles.lease(folder) as parent:
                return act(parent)
        except OSError as error:
            if error.errno != errno.EACCES or not self._open_up(folder):
                raise
        with self._handles.lease(folder) as parent:
            return act(parent)

    def forget(self, paths: Iterable[str]) -> None:
        """These directories have the modes that they shall have."""
        if self._modes:
            for path in paths:
                self._modes.pop(path, None)

    def put_back(self) -> None:
        """Gives directories the modes they had, the innermost first."""
        for path in sorted(self._modes, reverse=True):
            self._set_mode(path, self._modes.pop(path))

    def _open_up(self, folder: str) -> bool:
        """Makes a directory, and those on the way to it, usable for this user; whether there was anything to do."""
        if self.read_only:
            return False
        names = folder.split("/") if folder else []
        with self._lock:
            done = [self._open_up_one("/".join(names[:depth])) for depth in range(len(names) + 1)]
        return any(done)

    def _open_up_one(self, path: str) -> bool:
        if path in self._modes:
            return True  # by another thread, meanwhile
        mode = self._mode(path)
        if mode & _OWNER == _OWNER:
            return False
        try:
            self._set_mode(path, mode | _OWNER)
        except PermissionError:  # somebody else's
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
            fd = os.open(name, _PLACE, dir_fd=parent)
            try:
                Path(f"/proc/self/fd/{fd}").chmod(mode)  # fchmod does not take a descriptor of this kind
            finally:
                os.close(fd)
