"""Errors that name an entry of the target by its path."""

from __future__ import annotations

import errno

from dumont_gpu.errors import UsageError
from dumont_gpu.format.paths import printable


def shown(target: str, path: str) -> str:
    """Returns the path of an entry below `target`, safe to print."""
    return printable(f"{target.rstrip('/')}/{path}")


def located(error: OSError, target: str, path: str) -> OSError:
    """Adds the entry's path to an error, and explains ELOOP and ENOTDIR."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        reason = "a symlink or a file stands where the snapshot has a directory; it is not followed"
    return OSError(error.errno, reason, shown(target, path))


def changed(target: str, path: str) -> UsageError:
    """Returns the error for an entry that another program changed after the restore was interrupted."""
    return UsageError(
        f"{shown(target, path)}: was changed since this restore was interrupted; move it away and run again, "
        "or --overwrite always"
    )
