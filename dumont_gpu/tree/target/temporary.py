"""Temporary files beside the files that they will replace: their names, and the proof that a restore made them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import Final

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.tree.unfinished import is_unfinished

_PATTERN: Final = re.compile(r"\.dumont-[0-9a-f]{16}\.partial")


def temporary_name(name: str) -> str:
    """Returns the temporary name for `name`; always the same, so that the next run finds a killed run's file."""
    return f".dumont-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.partial"


def is_temporary_name(name: str) -> bool:
    return _PATTERN.fullmatch(name) is not None


def is_ours(status: os.stat_result, file: FileEntry | None, owner: int | None, *, modes: bool) -> bool:
    """Whether the entry under a temporary name was made by a restore, and may be deleted.

    Args:
        status: of the entry under the temporary name.
        file: the file (for a hard link, its leader) whose complete content the entry may have, if a run was killed
            just before the rename.
        owner: user id to which the restore may have given the entry.
        modes: whether the file system keeps modes; if not, the name is the only mark.
    """
    if stat.S_ISLNK(status.st_mode):  # deleting a symlink loses no content
        return True
    if not stat.S_ISREG(status.st_mode):
        return False
    if file is not None and (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns):
        return True
    return is_unfinished(status, owner) or (not modes and status.st_nlink == 1)
