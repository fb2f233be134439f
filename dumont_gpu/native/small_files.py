"""Many small files or directories of one directory in one call.

From Python, every system call releases and retakes the interpreter lock, which costs more than the call itself.
These functions release the lock once for each directory.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from dumont_gpu.native.library import I32, POINTER, TEXT, U64, Function
from dumont_gpu.native.memory import address


class NewFile(NamedTuple):
    """A file to create from bytes `begin` to `begin + size` of a buffer."""

    name: str  # within its directory
    begin: int
    size: int
    mtime_ns: int
    mode: int


class Directory(NamedTuple):
    """The metadata of a directory whose content is complete."""

    name: str  # within its own directory
    mtime_ns: int
    mode: int


class OldFile(NamedTuple):
    """A file to read into bytes `begin` to `begin + size` of a buffer, with the metadata that the scan found."""

    name: str  # within its directory
    begin: int
    size: int
    mtime_ns: int
    device: int
    inode: int


_NEW_FILE: Final = struct.Struct("<QQQqQ")
_DIRECTORY: Final = struct.Struct("<QqQ")
_OLD_FILE: Final = struct.Struct("<QQQqQQ")

# Results of `read_files` that are no errno: DumontReadProblem of small_files.h.
NOT_REGULAR: Final = -1
SHORT: Final = -2
CHANGED: Final = -3


_create_files = Function("dumont_create_files", U64, I32, TEXT, POINTER, U64, POINTER, U64, POINTER)


def create_files(directory: int, files: Sequence[NewFile], content: memoryview) -> Iterator[tuple[int, int]]:
    """Creates files of one directory; yields (index, errno) of each file that cannot be created, and goes on."""
    names, records = _records(_NEW_FILE, files)
    with address(content) as start, address(memoryview(records)) as table:
        yield from _each(
            len(files),
            lambda first, error: _create_files(
                directory, names, start, len(content), table + first * _NEW_FILE.size, len(files) - first, error
            ),
        )


_finish_directories = Function("dumont_finish_directories", U64, I32, TEXT, POINTER, U64, POINTER)


def finish_directories(parent: int, directories: Sequence[Directory]) -> Iterator[tuple[int, int]]:
    """Sets times and modes of directories in `parent`; yields (index, errno) of each failure, and goes on."""
    names, records = _records(_DIRECTORY, directories)
    with address(memoryview(records)) as table:
        yield from _each(
            len(directories),
            lambda first, error: _finish_directories(
                parent, names, table + first * _DIRECTORY.size, len(directories) - first, error
            ),
        )


_read_files = Function("dumont_read_files", None, I32, TEXT, POINTER, U64, TEXT, U64, POINTER)


def read_files(directory: int, files: Sequence[OldFile], out: memoryview) -> Sequence[int]:
    """Reads files of one directory into `out`; returns 0, an errno, NOT_REGULAR, SHORT or CHANGED for each file."""
    names, records = _records(_OLD_FILE, files)
    results = (ctypes.c_int32 * len(files))()
    with address(out, writable=True) as start:
        _read_files(directory, names, start, len(out), records, len(files), results)
    return results[:]


def _each(count: int, work: Callable[[int, object], int]) -> Iterator[tuple[int, int]]:
    """Calls `work` until every item is done or has failed; `work` starts at an item and returns the number done."""
    error = ctypes.c_int32()
    first = 0
    while first < count:
        first += work(first, ctypes.byref(error))
        if error.value:
            yield first, error.value
            first += 1


def _records(
    layout: struct.Struct, files: Sequence[NewFile] | Sequence[OldFile] | Sequence[Directory]
) -> tuple[bytes, bytes]:
    """Returns the names, each with a NUL, and a table of records that refer to the names."""
    names, records = bytearray(), bytearray()
    for name, *numbers in files:
        records += layout.pack(len(names), *numbers)
        names += os.fsencode(name) + b"\0"
    return bytes(names), bytes(records)
