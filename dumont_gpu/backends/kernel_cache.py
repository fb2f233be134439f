"""Keeps compiled kernels on disk, so that the compiler is loaded once on a machine and not in every job."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dumont_gpu.sizes import MiB

_MAX_FILES: Final = 64  # some 16 kernels for each version and device; older files are deleted
_MAX_SIZE: Final = 16 * MiB  # of one file
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_DIGEST_SIZE: Final = hashlib.sha256().digest_size


class KernelCache:
    """Files of compiled kernels in one folder, by key. A file is a digest, and the code that it is of.

    Whoever can write there decides what runs on the device: a folder or a file that is not this user's own, or that
    others may write to, counts as missing. So does a cache that cannot be read or written. Nothing here raises.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_user(cls) -> KernelCache | None:
        """Returns the cache in $XDG_CACHE_HOME or ~/.cache; None if there is no home."""
        root = Path(os.environ.get("XDG_CACHE_HOME", ""))
        try:
            return cls((root if root.is_absolute() else Path("~/.cache").expanduser()) / "dumont-gpu" / "kernels")
        except RuntimeError:
            return None

    def load(self, key: str) -> bytes | None:
        with suppress(OSError), self._opened() as folder:
            descriptor = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or not _is_private(status) or status.st_size > _MAX_SIZE:
                    return None
                content = file.read(_MAX_SIZE)
            code = content[_DIGEST_SIZE:]
            if content[:_DIGEST_SIZE] == hashlib.sha256(code).digest():
                return code
        return None

    def store(self, key: str, code: bytes) -> None:
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as folder:
                _write(folder, key, hashlib.sha256(code).digest() + code)
                _delete_oldest(folder)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Yields the folder's descriptor: another program may put another folder in its place meanwhile."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _is_private(os.fstat(folder)):
                raise PermissionError
            yield folder
        finally:
            os.close(folder)


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE


def _write(folder: int, name: str, content: bytes) -> None:
    """Makes a file that is there complete or not at all."""
    new = f"{secrets.token_hex(8)}.new"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise


def _delete_oldest(folder: int) -> None:
    age = {name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime for name in os.listdir(folder)}
    for name in sorted(age, key=lambda name: age[name])[:-_MAX_FILES]:
        os.unlink(name, dir_fd=folder)
