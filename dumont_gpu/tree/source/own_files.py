"""Tells this program's unfinished files from the user's files: unfinished files are not packed.

A name alone is no proof, so each kind has a mark that no other program makes: the first bytes of an unfinished
snapshot or of a journal, or the mode of a file that a restore began.
"""

from __future__ import annotations

import os
import stat

from dumont_gpu.disk.outputs import is_unfinished as is_unfinished_snapshot
from dumont_gpu.disk.outputs import read_head
from dumont_gpu.tree.target.journal import MAGIC as JOURNAL_MAGIC
from dumont_gpu.tree.target.journal import NAMES as JOURNAL_NAMES
from dumont_gpu.tree.target.temporary import is_temporary_name
from dumont_gpu.tree.unfinished import UNFINISHED_MODE


def is_own(parent: int, name: str, status: os.stat_result) -> bool:
    """Whether the regular file `name` in the directory `parent` is an unfinished file of a pack or a restore.

    Raises:
        OSError: the file cannot be read.
    """
    if is_journal(parent, name, status):
        return True
    if not name.endswith(".partial"):
        return False
    if is_temporary_name(name):
        return is_begun(status)
    return is_unfinished_snapshot(read_head(name, parent))


def is_journal(parent: int, name: str, status: os.stat_result) -> bool:
    """Whether the file is the journal of an unfinished restore. Arguments and errors as for `is_own`."""
    return name in JOURNAL_NAMES and is_begun(status) and read_head(name, parent).startswith(JOURNAL_MAGIC)


def is_begun(status: os.stat_result) -> bool:
    """Whether the file has the mode of an unfinished file, whoever's restore began it."""
    return stat.S_IMODE(status.st_mode) == UNFINISHED_MODE and status.st_nlink == 1
