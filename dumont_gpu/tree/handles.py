"""Directories opened below a root, component by component and never through a symlink."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN: Final = 128  # handles kept for reuse; a common limit for a process is 1024


def split(path: str) -> tuple[str, str]:
    """Splits a relative path into its directory ("" for the root) and its name."""
    folder, _, name = path.rpartition("/")
    return folder, name


class DirectoryHandles:
    """Leases file descriptors of directories below `root_fd`, which it owns.

    A name is looked up in its parent's descriptor with O_NOFOLLOW, so a directory that is swapped for a symlink
    meanwhile leads to an error, never outside the root. Used from many threads.
    """

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._open: OrderedDict[str, list[int]] = OrderedDict()  # path -> [descriptor, leases], recently used last
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lease(self, path: str) -> Iterator[int]:
        """A descriptor of the directory at `path`, relative to the root ("" is the root itself).

        Raises:
            OSError: a component is missing, is no directory, or is a symlink.
        """
        if not path:
            yield self._root
            return
        with self._lock:
            entry = self._open.get(path)
            if entry is None:
                entry = self._open[path] = [self._open_below(path), 0]
            self._open.move_to_end(path)
            entry[1] += 1
            self._evict()
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1

    def close(self) -> None:
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()
        os.close(self._root)

    def _open_below(self, path: str) -> int:
        nearest, rest = path, []
        while nearest and nearest not in self._open:
            nearest, name = split(nearest)
            rest.append(name)
        descriptor = os.dup(self._open[nearest][0] if nearest else self._root)
        for name in reversed(rest):
            parent = descriptor
            try:
                descriptor = os.open(name, _FLAGS, dir_fd=parent)
            finally:
                os.close(parent)
        return descriptor

    def _evict(self) -> None:
        for path in list(self._open) if len(self._open) > _MAX_OPEN else ():
            descriptor, leases = self._open[path]
            if not leases:
                os.close(descriptor)
                del self._open[path]
            if len(self._open) <= _MAX_OPEN:
                return
