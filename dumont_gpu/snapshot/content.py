"""Checks the files' bytes in a decoded chunk."""

from __future__ import annotations

from typing import Final

from dumont_gpu import native
from dumont_gpu.columns.placement import Placement
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.reader import Snapshot

_SMALL: Final = 16 * KiB  # below, BLAKE3 of many pieces in one call is faster than a call for each: kernels/README.md


def check_content(content: memoryview, snapshot: Snapshot, placement: Placement, chunk: int) -> None:
    """Checks every extent in a decoded chunk; bytes that several files share are hashed once.

    Args:
        content: the raw bytes of the chunk.
        snapshot: says how extents are hashed.
        placement: the files in each chunk.
        chunk: the chunk's number.

    Raises:
        DamagedError: a file's bytes are not the bytes that were packed.
    """
    try:
        below = _SMALL if snapshot.header.digest == "blake3" else 0
        for number in placement.check_small_pieces(chunk, content, below):
            piece = placement.piece(number)
            if snapshot.digest(content[piece.begin : piece.begin + piece.size]) != piece.digest:
                raise native.WrongPieceError(number)
    except native.WrongPieceError as error:
        path = placement.owner_of(error.number, chunk).path
        raise DamagedError(f"{printable(path)}: its content does not match its digest") from None
