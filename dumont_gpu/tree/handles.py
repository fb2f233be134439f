"""Opens directories below a root, component by component, never through a symlink."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import ClassVar, Final

from dumont_gpu.limits import open_files

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
REREAD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in the file's place must not block
_MAX_OPEN: Final = 128  # handles kept for reuse; a common limit for a process is 1024
_RESERVED: Final = 16  # descriptors that a job needs besides directories and their files


def split(path: str) -> tuple[str, str]:
    """Splits a relative path into its directory ("" for the root) and its name."""
    folder, _, name = path.rpartition("/")
    return folder, name


class _Handle:
    """An open directory; closed only while no lease is held."""

    __slots__ = ("descriptor", "leases")

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.leases = descriptor, 0


class Lease:
    """`with handles.lease(path) as fd:` as a class, which takes half the time of a generator, once per file."""

    __slots__ = ("_handle", "_handles", "_path")

    def __init__(self, handles: DirectoryHandles, path: str) -> None:
        self._handles, self._path = handles, path

    def __enter__(self) -> int:
        self._handle = self._handles.acquire(self._path)
        return self._handle.descriptor

    def __exit__(self, *_: object) -> None:
        self._handles.release(self._handle)


class DirectoryHandles:
    """Leases file descriptors of directories below `root_fd`, which it owns.

    Each name is looked up in its parent's descriptor with O_NOFOLLOW: a directory swapped for a symlink leads to an
    error, never outside the root. Used from many threads.

    Where the root is `/`, an `admitted` directory is opened by its whole path, as its parents need not be readable.
    Directories below it are opened component by component.
    """

    _trees: ClassVar[int] = 0  # instances that share the process's spare descriptors

    def __init__(self, root_fd: int) -> None:
        DirectoryHandles._trees += 1
        self._spare = int(open_files().value) - _RESERVED
        self._root = root_fd
        self.admitted: set[str] = set()
        self._root_handle = _Handle(root_fd)
        self._open: OrderedDict[str, _Handle] = OrderedDict()  # by path, recently used last
        self._lock = threading.Lock()

    def lease(self, path: str) -> Lease:
        """Returns a context in which a descriptor of the directory at `path` is open ("" for the root).

        Raises:
            OSError: on entry, if a component is missing, is no directory, or is a symlink.
        """
        return Lease(self, path)

    def acquire(self, path: str) -> _Handle:
        """Returns the directory's handle, opened if need be; the caller must `release` the handle."""
        if not path:
            return self._root_handle
        with self._lock:
            handle = self._open.get(path)
            if handle is None:
                handle = self._open_below(path)
            self._open.move_to_end(path)
            handle.leases += 1
            return handle

    def release(self, handle: _Handle) -> None:
        with self._lock:
            handle.leases -= 1

    def close(self) -> None:
        DirectoryHandles._trees -= 1
        for handle in self._open.values():
            os.close(handle.descriptor)
        self._open.clear()
        os.close(self._root)

    def _open_below(self, path: str) -> _Handle:
        """Opens a directory and keeps its parents open, too, for its neighbours."""
        names = []
        while path and path not in self._open and path not in self.admitted:
            path, name = split(path)
            names.append(name)
        handle = self._open.get(path) if path else self._root_handle
        if handle is None:
            handle = self._keep(path, os.open(f"/{path}", _FLAGS))
        for name in reversed(names):
            path = f"{path}/{name}" if path else name
            handle = self._keep(path, os.open(name, _FLAGS, dir_fd=handle.descriptor))
        return handle

    def _keep(self, path: str, descriptor: int) -> _Handle:
        handle = self._open[path] = _Handle(descriptor)
        handle.leases += 1
        self._evict()
        handle.leases -= 1
        return handle

    def _evict(self) -> None:
        # Half of the spare descriptors: the other half is for files.
        most = min(_MAX_OPEN, max(0, self._spare // DirectoryHandles._trees - 1) // 2)
        for path in list(self._open) if len(self._open) > most else ():
            if not self._open[path].leases:
                os.close(self._open.pop(path).descriptor)
            if len(self._open) <= most:
                return
