"""Marks a file that a restore has begun, by a mode that nobody gives to a file.

The sticky bit means nothing on a file, is set as the file is created, and survives a kill. A complete file gets its
own mode last, after its bytes and its time.
"""

from __future__ import annotations

import os
import stat
from typing import Final

UNFINISHED_MODE: Final = 0o1600  # kUnfinishedMode in kernels/cpu/target_rows.cpp


def is_unfinished(status: os.stat_result, owner: int | None = None) -> bool:
    """Whether a restore of this user began the file, and may have given the file to `owner` (a user id) already.

    A file with a second name never counts as unfinished: writing to it could change a file elsewhere.
    """
    return (
        stat.S_ISREG(status.st_mode)
        and stat.S_IMODE(status.st_mode) == UNFINISHED_MODE
        and status.st_nlink == 1
        and status.st_uid in (os.geteuid(), owner)
    )
