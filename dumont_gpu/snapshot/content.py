"""Checks the files' bytes in a decoded chunk."""

from __future__ import annotations

from dumont_gpu.columns.placement import Placement
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.digests import Digest
from dumont_gpu.format.paths import printable


def check_content(content: memoryview, placement: Placement, chunk: int, digest: Digest) -> None:
    """Checks every extent in a decoded chunk; bytes that several files share are hashed once.

    Args:
        content: the raw bytes of the chunk.
        placement: the files in each chunk.
        chunk: the chunk's number.
        digest: the digest function of extents.

    Raises:
        DamagedError: a file's bytes are not the bytes that were packed.
    """
    for piece in placement.pieces(chunk):
        if digest(content[piece.begin : piece.begin + piece.size]) != piece.digest:
            path = placement.owner_of(piece, chunk).path
            raise DamagedError(f"{printable(path)}: its content does not match its digest")
