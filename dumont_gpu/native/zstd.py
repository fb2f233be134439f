"""The end of a zstd frame, which libzstd's Python package does not tell."""

from __future__ import annotations

from dumont_gpu.errors import DamagedError
from dumont_gpu.native.library import I64, POINTER, U64, Function
from dumont_gpu.native.memory import address

_blocks = Function("dumont_zstd_blocks", I64, POINTER, U64)


def zstd_blocks(blocks: memoryview) -> int:
    """Returns the bytes from the first block header of a zstd frame, at the start of `blocks`, to the last block's end.

    Raises:
        DamagedError: the last block is missing, a block is cut short, or a block has no known type.
    """
    with address(blocks) as start:
        size: int = _blocks(start, len(blocks))
    if size < 0:
        raise DamagedError("the blocks of a zstd frame do not end")
    return size
