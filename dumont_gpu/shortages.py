"""Shortages of memory, threads or descriptors: the fault of the machine or its limits, never of a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dumont_gpu.errors import DumontError

# 140 MiB: the raw and the encoded bytes of a chunk of the default size.
_MEMORY_HINT: Final = "try --jobs 1 --memory 140MiB, or allow more"
_HINTS: Final = {
    errno.ENOMEM: _MEMORY_HINT,
    errno.EMFILE: "raise the limit of this process (ulimit -n)",
    errno.ENFILE: "the whole machine has reached its limit (fs.file-max)",
}
# Messages of errors without an errno: from the dynamic linker, from liblz4, and from CPython starting a thread.
_NO_MEMORY: Final = ("failed to map segment", "cannot allocate memory", "ERROR_allocation_failed")
_NO_FILES: Final = os.strerror(errno.EMFILE)
_NO_THREAD: Final = "can't start new thread"


def is_shortage(number: int | None) -> bool:
    """Whether an errno blames the process or the machine, and no file."""
    return number in _HINTS


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library's error means that memory ran out, though its type does not say so."""
    return isinstance(error, ImportError | RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def shortage(error: BaseException) -> str:
    """Names the resource that ran short, and the setting that helps; empty if `error` is no shortage."""
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return f"out of memory: {_MEMORY_HINT}"
    if isinstance(error, OSError) and error.errno in _HINTS:
        return f"{os.strerror(error.errno)}: {_HINTS[error.errno]}"
    if isinstance(error, ImportError) and _NO_FILES in str(error):
        return shortage(OSError(errno.EMFILE, ""))
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return f"no further thread can be started: {_MEMORY_HINT}"
    return ""


@contextmanager
def explain_shortages() -> Iterator[None]:
    """Turns a shortage into an error that names the resource and the remedy. Also decorates a function.

    Raises:
        DumontError: memory, threads or descriptors ran short.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError, ImportError) as error:
        if not (short := shortage(error)):
            raise
        raise DumontError(short) from error
