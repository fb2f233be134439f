"""Codec 3: ZipNN streams, which split floats into byte planes and Huffman-code those that hold little information.

The streams are those of the `zipnn` package, in both directions; the code is ours (kernels/cpu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dumont_gpu import native
from dumont_gpu.native import Dtype

# 128 KiB: on a CPU a sixth faster than 64 KiB at the same size; half of zipnn's 256 KiB leaves a GPU twice the streams.
BLOCK_LOG2: Final = 17


@dataclass(frozen=True, slots=True)
class ZipNN:
    """Encodes elements of `dtype`, whole ones only; decodes all of them, as the stream says."""

    dtype: Dtype = Dtype.BF16
    id: int = 3
    name: str = "zipnn"

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        return native.zipnn_encode(chunk, out, self.dtype, BLOCK_LOG2)

    def decode(self, stored: memoryview, out: memoryview) -> None:
        native.zipnn_decode(stored, out)
