"""Codec 0: raw bytes, for chunks that do not shrink."""

from __future__ import annotations

from dataclasses import dataclass, field

from dumont_gpu.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Raw:
    id: int = 0
    name: str = "none"
    element_size: int = field(default=1, compare=False)
    encode_rate: float = field(default=10e9, compare=False)  # a copy
    decode_rate: float = field(default=10e9, compare=False)

    def encoder_memory(self, size: int) -> int:
        return 0

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        if len(chunk) > len(out):
            return 0
        out[: len(chunk)] = chunk
        return len(chunk)

    def decode(self, encoded: memoryview, out: memoryview) -> None:
        if len(encoded) != len(out):
            raise DamagedError(f"a stored chunk has {len(encoded)} bytes instead of {len(out)}")
        out[:] = encoded
