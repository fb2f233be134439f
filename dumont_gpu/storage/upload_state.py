"""Which unfinished upload of an object is this user's own: a small file, locked while a process is at it.

The lock, not the file, says that an upload is active: it goes with its process, however that ends.
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
            OSError: it cannot be remembered.
        """
        self._write({"place": place, "intended": now})

    def write(self, place: str, upload_id: str) -> None:
        """Remembers an upload.

        Raises:
            OSError: it cannot be remembered.
        """
        self._write({"place": place, "upload_id": upload_id})
        self.upload_id = upload_id

    def _write(self, record: dict[str, Any]) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(record).encode(), 0)
        os.fsync(self._fd)

    def forget(self) -> None:
        """The upload is no more."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # never closed twice, whatever close says
            os.close(fd)


def folder() -> Path:
    """Where the records are: XDG_STATE_HOME, as its specification says."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path("~/.local/state").expanduser()
    return base / "dumont-gpu" / "uploads"


def hold(place: str) -> UploadState | None:
    """Returns the record for the object at `place`, an address without secrets.

    None: another process is at it, or nothing can be remembered (no home, a disk that is full, a file system without
    locks): an upload then does not outlive its process.
    """
    try:
        path = folder() / f"{hashlib.sha256(place.encode()).hexdigest()[:40]}.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.lstat()):  # not one that was forgotten meanwhile
            return UploadState(path, fd)
    except OSError:
        pass
    os.close(fd)
    return None


def _parse(record: bytes) -> tuple[str, float]:
    """Returns the upload's id, "" if none is known, and when one was about to begin, 0.0 if none was."""
    try:
        found = json.loads(record)
    except (ValueError, RecursionError):
        return "", 0.0
    if not isinstance(found, dict):
        return "", 0.0
    named, intended = found.get("upload_id"), found.get("intended")
    right = isinstance(named, str) and named.isascii() and named.isprintable() and " " not in named
    return str(named) if right else "", float(intended) if isinstance(intended, (int, float)) else 0.0
