"""Many small files of one directory read in one call.

From Python, every system call releases and retakes the interpreter lock, which costs more than the call itself.
This function releases the lock once for each directory.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from dumont_gpu.native.library import I32, POINTER, TEXT, U64, Function
from dumont_gpu.native.memory import address


class OldFile(NamedTuple):
    """A file to read into bytes `begin` to `begin + size` of a buffer, with the metadata that the scan found."""

    name: str  # within its directory
    begin: int
    size: int
    mtime_ns: int
    device: int
    inode: int


_OLD_FILE: Final = struct.Struct("<QQQqQQ")

# Results of `read_files` that are no errno: DumontReadProblem of small_files.h.
NOT_REGULAR: Final = -1
SHORT: Final = -2
CHANGED: Final = -3


_read_files = Function("dumont_read_files", None, I32, TEXT, POINTER, U64, TEXT, U64, POINTER)


def read_files(directory: int, files: Sequence[OldFile], out: memoryview) -> Sequence[int]:
    """Reads files of one directory into `out`; returns 0, an errno, NOT_REGULAR, SHORT or CHANGED for each file."""
    names, records = bytearray(), bytearray()
    for name, *numbers in files:
        records += _OLD_FILE.pack(len(names), *numbers)
        names += os.fsencode(name) + b"\0"
    results = (ctypes.c_int32 * len(files))()
    with address(out, writable=True) as start:
        _read_files(directory, bytes(names), start, len(out), bytes(records), len(files), results)
    return results[:]
