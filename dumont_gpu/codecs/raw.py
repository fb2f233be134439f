"""Codec 0: the bytes as they are, for what would not shrink."""

from __future__ import annotations

from dataclasses import dataclass

from dumont_gpu.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Raw:
    id: int = 0
    name: str = "none"

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        if len(chunk) > len(out):
            return 0
        out[: len(chunk)] = chunk
        return len(chunk)

    def decode(self, stored: memoryview, out: memoryview) -> None:
        if len(stored) != len(out):
            raise DamagedError(f"a stored chunk has {len(stored)} bytes instead of {len(out)}")
        out[:] = stored
