"""Codec 3: ZipNN streams, which split floats into byte planes and Huffman-code the planes that hold little information.

Streams are compatible with the `zipnn` package in both directions; the code is ours (kernels/cpu).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dumont_gpu import native
from dumont_gpu.native import Dtype

# 128 KiB: on a CPU a sixth faster than 64 KiB at the same size; half of zipnn's 256 KiB gives a GPU twice the streams.
BLOCK_LOG2: Final = 17


@dataclass(frozen=True, slots=True)
class ZipNN:
    """Encodes whole elements of `dtype`; decodes elements of every type, as the stream says."""

    dtype: Dtype = Dtype.BF16
    id: int = 3
    name: str = "zipnn"
    encode_rate: float = field(default=2.5e9, compare=False)  # measured on a Zen 4 core
    decode_rate: float = field(default=4.5e9, compare=False)  # measured on a Xeon core, on bf16 weights

    @property
    def element_size(self) -> int:
        return self.dtype.size

    def encoder_memory(self, size: int) -> int:
        return 0

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        return native.zipnn_encode(chunk, out, self.dtype, BLOCK_LOG2)

    def decode(self, encoded: memoryview, out: memoryview) -> None:
        native.zipnn_decode(encoded, out)
