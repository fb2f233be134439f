"""The ZipNN codec of the CPU kernels: whole streams, and estimates of their size."""

from __future__ import annotations

import ctypes
import enum
from typing import Final

from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.native.library import I64, NO_MEMORY, POINTER, TEXT, U32, U64, UNSUPPORTED, Function
from dumont_gpu.native.memory import address


class Dtype(enum.IntEnum):
    """Element types of the float codec, numbered as in a ZipNN stream header."""

    FP32 = 1
    FP16 = 4
    BF16 = 6
    FP8_E4M3 = 29
    FP8_E5M2 = 30

    @property
    def size(self) -> int:
        """Bytes in one element."""
        return {Dtype.FP32: 4, Dtype.FP16: 2, Dtype.BF16: 2}.get(self, 1)


_encode = Function("dumont_zipnn_encode", I64, POINTER, U64, POINTER, U64, U32, U32)


def zipnn_encode(source: memoryview, out: memoryview, dtype: Dtype, block_log2: int) -> int:
    """Writes `source` (whole elements) as one ZipNN stream; returns the stream's size, or 0 if `out` is too small."""
    with address(source) as start, address(out, writable=True) as target:
        size: int = _encode(start, len(source), target, len(out), dtype, block_log2)
    if size == NO_MEMORY:
        raise MemoryError
    if size < 0:
        raise ValueError(f"{len(source)} bytes of {dtype.name} in blocks of 2^{block_log2} cannot be encoded")
    return size


_decode = Function("dumont_zipnn_decode", I64, POINTER, U64, POINTER, U64)


def zipnn_decode(stream: memoryview, out: memoryview) -> None:
    """Decodes a ZipNN stream, or a sequence of streams, into exactly `len(out)` bytes.

    Raises:
        DamagedError: the stream is malformed, or has another raw size.
        UnsupportedError: the stream uses a ZipNN feature outside FORMAT.md.
    """
    with address(stream) as start, address(out, writable=True) as target:
        status: int = _decode(start, len(stream), target, len(out))
    if status == NO_MEMORY:
        raise MemoryError
    if status == UNSUPPORTED:
        raise UnsupportedError("a ZipNN stream with a feature this version does not have")
    if status < 0:
        raise DamagedError("malformed ZipNN stream")


# The results of `probe`, in the order of dumont_probe: element type, and where in the sample the first whole element
# starts.
PROBE_CANDIDATES: Final = (
    *((Dtype.FP32, phase) for phase in range(4)),
    *((Dtype.BF16, phase) for phase in range(2)),
    *((Dtype.FP16, phase) for phase in range(2)),
    (Dtype.FP8_E4M3, 0),
)

_probe = Function("dumont_probe", I64, POINTER, U64, POINTER)


def probe(sample: memoryview) -> list[float]:
    """Estimates, for each of PROBE_CANDIDATES, which fraction of its size the float codec would encode `sample` in."""
    fractions = (ctypes.c_float * len(PROBE_CANDIDATES))()
    with address(sample) as start:
        _probe(start, len(sample), fractions)
    return list(fractions)


_cpu_path = Function("dumont_cpu_path", TEXT)


def cpu_path() -> str:
    """Returns the instruction set that the kernels use: portable, avx2, avx512 or neon."""
    name: bytes = _cpu_path()
    return name.decode()


_select_cpu_path = Function("dumont_select_cpu_path", I64, TEXT)


def select_cpu_path(name: str) -> bool:
    """Switches to another instruction set, for tests and benchmarks; False if this machine or build lacks it."""
    return bool(_select_cpu_path(name.encode()) == 0)
