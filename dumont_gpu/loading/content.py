"""Compares the content of files in a decoded chunk with its digests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dumont_gpu.errors import DamagedError
from dumont_gpu.format.entries import Extent
from dumont_gpu.format.paths import printable
from dumont_gpu.loading.wants import ChunkPieces


def check_extents(
    chunk: ChunkPieces[Any], digest_of: Callable[[Extent], bytes], checked: set[Extent] | None = None
) -> None:
    """Compares all of each extent that something is wanted of.

    Args:
        digest_of: returns the digest of an extent's bytes, as they were decoded.
        checked: extents that are right, which are left out; those that are found right are added.

    Raises:
        DamagedError: a file's bytes are not the bytes that were packed.
    """
    checked = set() if checked is None else checked
    for extent, path in chunk.extents:
        if extent in checked:
            continue
        if digest_of(extent) != extent.digest:
            raise DamagedError(f"{printable(path)}: its content does not match its digest")
        checked.add(extent)
