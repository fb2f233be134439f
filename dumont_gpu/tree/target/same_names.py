"""Names that differ in the snapshot but not on the file system, which ignores case or normalises Unicode."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from typing import Final

from dumont_gpu.format.names import to_utf8
from dumont_gpu.tree.handles import split

_HERE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SameNames:
    """Finds the entry of the snapshot that stands under another entry's name. Used from many threads."""

    def __init__(self, paths: Callable[[], frozenset[str]]) -> None:
        """Takes a function that returns the paths of the selected entries."""
        self._paths = paths
        self._lock = threading.Lock()
        self._folded: dict[str, list[str]] = {}  # folded path -> paths; empty until first needed
        self._listings: dict[str, set[str]] = {}  # directory -> its names when it was last listed

    def owner(self, parent: int, folder: str, name: str) -> str | None:
        """Returns the path of another entry that stands under `name`, which exists; None without such an entry.

        Args:
            parent: descriptor of `folder`.

        Raises:
            OSError: the directory cannot be listed, or `name` is gone.
        """
        with self._lock:
            if name in self._listings.get(folder, ()):
                return None
            names = self._listings[folder] = _list(parent)
        if name in names:
            return None
        real = _real_name(parent, name, names)
        path = real if not folder or real is None else f"{folder}/{real}"
        return path if path is not None and path in self._paths() else None

    def alike(self, parent: int, folder: str, name: str) -> str | None:
        """As `owner`, for a file system that lists all names in small letters; for a name that should not exist."""
        with self._lock:
            if not self._folded:
                for path in self._paths():
                    self._folded.setdefault(_fold(path), []).append(path)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        for path in self._folded.get(_fold(f"{folder}/{name}" if folder else name), ()):
            other_folder, other = split(path)
            if other_folder == folder and other != name and _is_same(parent, other, status):
                return path
        return None


def _list(parent: int) -> set[str]:
    fd = os.open(".", _HERE, dir_fd=parent)  # all threads share the read position of `parent`
    try:
        return set(os.listdir(fd))
    finally:
        os.close(fd)


def _real_name(parent: int, name: str, names: set[str]) -> str | None:
    """Returns the listed name of the file that answers to `name`: the only name that folds alike, or the same inode."""
    folded = _fold(name)
    alike = [other for other in names if _fold(other) == folded]
    if len(alike) == 1:
        return alike[0]
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return next((other for other in names if _is_same(parent, other, status)), None)


def _is_same(parent: int, name: str, status: os.stat_result) -> bool:
    """Whether `name` leads to the file of `status`, which has no hard links to confuse it with."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(found, status) and (stat.S_ISDIR(found.st_mode) or found.st_nlink == 1)


def _fold(name: str) -> str:
    import unicodedata  # rarely needed, so imported late

    return unicodedata.normalize("NFKD", to_utf8(name)).casefold().rstrip(". ")
