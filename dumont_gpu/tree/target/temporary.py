"""Files that stand beside what they will replace: their names, and which of them a restore may take for its own."""

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
    """Of the file that will replace `name`: always the same, so that the next run replaces what a killed one left."""
    return f".dumont-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.partial"


def is_temporary_name(name: str) -> bool:
    return _PATTERN.fullmatch(name) is not None


def is_ours(status: os.stat_result, file: FileEntry | None, owner: int | None, *, modes: bool) -> bool:
    """Whether what stands under a temporary name was made by a restore, and may go.

    Args:
        file: whose content it may have, complete already: killed just before it was renamed. A hard link's is its file.
        owner: user that the restore may have given it to.
        modes: whether this file system keeps modes; where it does not, the name is the only mark.
    """
    if stat.S_ISLNK(status.st_mode):  # holds nothing
        return True
    if not stat.S_ISREG(status.st_mode):
        return False
    if file is not None and (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns):
        return True
    return is_unfinished(status, owner) or (not modes and status.st_nlink == 1)
