"""Where the array of a NumPy file begins."""

from __future__ import annotations

from typing import Final

from dumont_gpu.plan.tensors.cursor import Cursor
from dumont_gpu.plan.tensors.tensor import Tensor, UnsoundError

MAGIC: Final = b"\x93NUMPY"
_HEADER_SIZE_WIDTH: Final = {1: 2, 2: 4, 3: 4}  # version of the format -> bytes of the header's size


def tensors(cursor: Cursor) -> list[Tensor]:
    """Returns the array of an .npy file."""
    return [Tensor(data_start(cursor, 0), cursor.size, None)]


def data_start(cursor: Cursor, start: int) -> int:
    """Returns where the data of the .npy file that begins at `start` begins.

    The header's element type is not used: NumPy holds tokens, images and tables in floats as often as weights, so
    samples choose the better codec, and NumPy has no name for bf16.
    """
    cursor.move_to(start)
    if cursor.read(len(MAGIC)) != MAGIC:
        raise UnsoundError("no NumPy file")
    version, _ = cursor.read(2)
    if version not in _HEADER_SIZE_WIDTH:
        raise UnsoundError("an unknown version of the NumPy format")
    header_size = cursor.number(_HEADER_SIZE_WIDTH[version])
    return cursor.at + header_size
