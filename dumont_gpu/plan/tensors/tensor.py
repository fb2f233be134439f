"""A tensor's place in a file, and the bounds that every parser keeps."""

from __future__ import annotations

from typing import Final, NamedTuple

from dumont_gpu.format.entries import MAX_EXTENTS
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB

# A border costs two extents, some 200 bytes of manifest and 40 µs. MiniLM's attention matrices have 576 KiB in fp32:
# borders for tensors of 1 MiB and more would miss a quarter of that model, borders from 64 KiB on miss 0.3 %.
SHORTEST: Final = 64 * KiB
MAX_TENSORS: Final = MAX_EXTENTS // 8  # of one file; each takes an extent, as do the bytes before it, and its odd ends


class Tensor(NamedTuple):
    """Bytes of a file that one tensor, or one storage of several tensors, fills."""

    start: int
    end: int
    dtype: Dtype | None  # what the file says; None if it says nothing, or a type without a codec


class UnsoundError(ValueError):
    """A file's table of contents is not what its format asks for: the file has no tensors that we know of."""
