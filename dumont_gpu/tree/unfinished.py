"""Tells what a restore began to write from everything else: by a mode that nobody gives to a file.

The sticky bit means nothing on a file, a kill does not take it away, and it comes into being with the file. A complete
file gets its own mode last, after its bytes and its time.
"""

from __future__ import annotations

import os
import stat
from typing import Final

UNFINISHED_MODE: Final = 0o1600  # kUnfinishedMode in kernels/cpu/small_files.cpp


def is_unfinished(status: os.stat_result, owner: int | None = None) -> bool:
    """Whether this file was begun by this user's restore, which may have given it to `owner` already.

    Never if it has another name, too: writing to it could change a file elsewhere.
    """
    return (
        stat.S_ISREG(status.st_mode)
        and stat.S_IMODE(status.st_mode) == UNFINISHED_MODE
        and status.st_nlink == 1
        and status.st_uid in (os.geteuid(), owner)
    )
