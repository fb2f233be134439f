"""Opened snapshots that everybody in this process shares who opens the same with the same options."""

from __future__ import annotations

import os
from typing import Final
from weakref import WeakValueDictionary

from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.snapshot.inside import place_of
from dumont_gpu.storage import scheme_name

Identity = tuple[int, ...]  # of a file: another file at the same path, or another content, has another one

_opened: Final[WeakValueDictionary[tuple[str, ReadOptions, Identity], SnapshotFiles]] = WeakValueDictionary()


class SharedSnapshot:
    """Opens a snapshot when it is first needed, and anew when another file stands at its path.

    Whoever has a file open reads on in the snapshot that it was opened in.

    Args:
        location: path or address of a snapshot, perhaps with `:path` of a part of it.
        options: of the network, and memory for chunks.
    """

    def __init__(self, location: str, options: ReadOptions) -> None:
        self._location, self._options = location, options
        self._path = "" if scheme_name(location) else place_of(location).location
        self._identity: Identity = ()
        self._files: SnapshotFiles | None = None

    def files(self) -> SnapshotFiles:
        """Returns the snapshot, open.

        Raises:
            SnapshotNotFoundError, DamagedError, UnsupportedError, UsageError, DumontError: as `SnapshotFiles`.
        """
        identity, files = self._identity_now(), self._files
        if files is None or files.cancelled or identity != self._identity:
            files = _shared(self._location, self._options, identity)
            self._files, self._identity = files, identity
        return files

    def forget(self) -> None:
        """Makes the next use open the snapshot anew."""
        self._files = None
        _opened.pop((self._location, self._options, self._identity), None)

    def _identity_now(self) -> Identity:
        """Returns what the file at the path is; nothing for an address: each request says which object it is about."""
        if not self._path:
            return ()
        try:
            status = os.stat(self._path)
        except OSError:
            return (0,)  # opening it says what is wrong
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _shared(location: str, options: ReadOptions, identity: Identity) -> SnapshotFiles:
    """Two threads at once may open a snapshot twice; then one of both goes on alone."""
    key = location, options, identity
    files = _opened.get(key)
    if files is not None and files.cancelled:
        _opened.pop(key, None)
        files = None
    if files is None:
        files = _opened.setdefault(key, SnapshotFiles(location, options))
    return files
