"""Copies a restored file, for hard links on a file system that has none."""

from __future__ import annotations

import errno
import os
from typing import Final

from dumont_gpu.sizes import MiB

_PIECE: Final = 1 * MiB
_NO_HOLES: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def copy_file(source: int, out: int) -> None:
    """Copies an open file to an empty one; holes stay holes where the file system reports them.

    Args:
        source: descriptor of the file.
        out: descriptor of the empty file.

    Raises:
        OSError: a read or a write fails, or the source becomes shorter.
    """
    size = os.fstat(source).st_size
    os.ftruncate(out, size)
    begin = 0
    while begin < size:
        begin, end = _next_data(source, begin, size)
        while begin < end:
            piece = os.pread(source, min(_PIECE, end - begin), begin)
            if not piece:
                raise OSError(errno.ESTALE, "was changed by another program during the restore")
            view = memoryview(piece)
            while view:
                count = os.pwrite(out, view, begin)
                begin, view = begin + count, view[count:]


def _next_data(source: int, begin: int, size: int) -> tuple[int, int]:
    try:
        start = os.lseek(source, begin, os.SEEK_DATA)
        return start, min(size, os.lseek(source, start, os.SEEK_HOLE))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole up to the end
            return size, size
        if error.errno in _NO_HOLES:
            return begin, size
        raise
