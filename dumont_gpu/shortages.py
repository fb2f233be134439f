"""What a machine or its limits may run short of: memory, threads, descriptors. It is never a file's fault."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dumont_gpu.errors import DumontError

_MEMORY_HINT: Final = "try --jobs 1 --memory 140MiB, or allow more"  # one chunk of the default size, as it is and as it is stored
_HINTS: Final = {
    errno.ENOMEM: _MEMORY_HINT,
    errno.EMFILE: "raise the limit of this process (ulimit -n)",
    errno.ENFILE: "the whole machine has reached its limit (fs.file-max)",
}
_NO_THREAD: Final = "can't start new thread"  # what CPython says; there is no type of its own


def is_shortage(number: int | None) -> bool:
    """Whether an errno says that the process, and no file, is what is wrong."""
    return number in _HINTS


def shortage(error: BaseException) -> str:
    """Says what ran short, and which setting helps; empty if `error` is none of these."""
    if isinstance(error, MemoryError):
        return f"out of memory: {_MEMORY_HINT}"
    if isinstance(error, OSError) and error.errno in _HINTS:
        return f"{os.strerror(error.errno)}: {_HINTS[error.errno]}"
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return f"no further thread can be started: {_MEMORY_HINT}"
    return ""


@contextmanager
def told() -> Iterator[None]:
    """Turns what ran short into an error that says so. Also decorates a function.

    Raises:
        DumontError: memory, threads or descriptors ran short.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not (short := shortage(error)):
            raise
        raise DumontError(short) from error
