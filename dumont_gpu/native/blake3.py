"""BLAKE3 digests of many pieces of one buffer in one call.

The blake3 package costs a Python call of 400 ns a digest, which is more than a small file's digest itself.
"""

from __future__ import annotations

from array import array
from typing import Final

from dumont_gpu.native.library import I64, POINTER, U64, Function
from dumont_gpu.native.memory import address

_DIGEST: Final = 32  # bytes

_blake3_many = Function("dumont_blake3_many", I64, POINTER, U64, POINTER, POINTER, U64, POINTER)


def digest_many(data: memoryview, begins: array[int], sizes: array[int], out: memoryview) -> None:
    """Writes the digests of pieces of `data` to `out`, 32 bytes each, in the order of the pieces.

    Args:
        data: bytes that hold every piece; pieces may overlap.
        begins: where each piece begins, an array of type "Q". No other thread may change it meanwhile.
        sizes: bytes of each piece, likewise.
        out: at least 32 bytes a piece.

    Raises:
        ValueError: a piece leaves `data`, or a buffer has not the size or type it must have. Nothing is hashed then.
    """
    if begins.typecode != "Q" or sizes.typecode != "Q" or len(begins) != len(sizes):
        raise ValueError("begins and sizes are two arrays of type Q, a number for each piece")
    if out.nbytes < _DIGEST * len(sizes):
        raise ValueError(f"{len(sizes)} digests do not fit in {out.nbytes} bytes")
    first_begin, count = begins.buffer_info()
    first_size, _ = sizes.buffer_info()
    with address(data) as start, address(out, writable=True) as target:
        status: int = _blake3_many(start, data.nbytes, first_begin, first_size, count, target)
    if status < 0:
        raise ValueError(f"a piece leaves the buffer of {data.nbytes} bytes")
