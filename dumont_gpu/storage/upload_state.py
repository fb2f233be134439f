"""The record of this user's own unfinished upload of an object: a small file, locked while a process is at the upload.

The lock, not the file, says that an upload is active: the lock ends with its process, however the process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

_LONGEST: Final = 16_384  # bytes of such a file


class UploadState:
    """The record of one object's upload, held by this process until `close` or `forget`."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path, self._fd = path, fd
        self.upload_id, self.intended = _parse(os.pread(fd, _LONGEST, 0))

    def intend(self, place: str, now: float) -> None:
        """Remembers that an upload is about to begin; `now` in seconds since 1970, by the server's clock.

        Raises:
            OSError: the record cannot be written.
        """
        self._write({"place": place, "intended": now})

    def write(self, place: str, upload_id: str) -> None:
        """Remembers an upload that has begun.

        Raises:
            OSError: the record cannot be written.
        """
        self._write({"place": place, "upload_id": upload_id})
        self.upload_id = upload_id

    def _write(self, record: dict[str, Any]) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(record).encode(), 0)
        os.fsync(self._fd)

    def forget(self) -> None:
        """Removes the record: the upload is gone."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # never closed twice, whatever the result of close
            os.close(fd)


def folder() -> Path:
    """The folder of the records: below XDG_STATE_HOME, as its specification says."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path("~/.local/state").expanduser()
    return base / "dumont-gpu" / "uploads"


def hold(place: str) -> UploadState | None:
    """Returns the record for the object at `place`, an address without secrets.

    None: another process holds it, or there can be no record (no home, a full disk, a file system without locks): then
    an upload does not outlive its process.
    """
    try:
        path = folder() / f"{hashlib.sha256(place.encode()).hexdigest()[:40]}.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.lstat()):  # not a record that was removed meanwhile
            return UploadState(path, fd)
    except OSError:
        pass
    os.close(fd)
    return None


def _parse(record: bytes) -> tuple[str, float]:
    """Returns the id of the upload ("": unknown), and the time when an upload was about to begin (0.0: none was)."""
    try:
        found = json.loads(record)
    except (ValueError, RecursionError):
        return "", 0.0
    if not isinstance(found, dict):
        return "", 0.0
    named, intended = found.get("upload_id"), found.get("intended")
    right = isinstance(named, str) and named.isascii() and named.isprintable() and " " not in named
    return str(named) if right else "", float(intended) if isinstance(intended, (int, float)) else 0.0
