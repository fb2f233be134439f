"""Normal weights as elements of every type that the float codec knows, without NumPy."""

from __future__ import annotations

import mmap
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from typing import Final

from dumont_gpu.bench.corpora.synthetic import SEED, SIGMA, normal_bf16, normal_fp32, quantiles
from dumont_gpu.native import Dtype

PERIOD: Final = 4  # weights are drawn for 1/PERIOD of the size and repeated: too far apart for any codec to notice
_FARTHEST: Final = 5.3  # sigmas: about the farthest of 16 million normal values, which scales a tensor of fp8


def weights(size: int) -> Iterator[tuple[str, Dtype, memoryview]]:
    """Yields a name, an element type and `size` bytes of normal weights for each kind of weights."""
    kinds: tuple[tuple[str, Dtype, Callable[[int], bytes]], ...] = (
        ("fp32", Dtype.FP32, normal_fp32),
        ("bf16", Dtype.BF16, normal_bf16),
        ("fp16", Dtype.FP16, _normal_fp16),
        ("fp8 e4m3", Dtype.FP8_E4M3, _normal_e4m3),
        ("fp32 that is bf16", Dtype.FP32, _widened_bf16),
    )
    for name, dtype, draw in kinds:
        yield name, dtype, _repeated(draw, size)


def bf16_weights(size: int) -> memoryview:
    """Returns the bf16 weights that `weights` yields."""
    return _repeated(normal_bf16, size)


def _repeated(draw: Callable[[int], bytes], size: int) -> memoryview:
    data = memoryview(mmap.mmap(-1, size))
    data[:] = draw(size // PERIOD) * PERIOD
    return data.toreadonly()


def _normal_fp16(size: int) -> bytes:
    values = quantiles()
    table = array("H", struct.pack(f"<{len(values)}e", *values))
    return array("H", map(table.__getitem__, _ranks(size // 2))).tobytes()


def _normal_e4m3(size: int) -> bytes:
    """Values scaled to the type's range, each as the nearest code (of two, the even one)."""
    codes = range(127)  # 0x7F is NaN
    grid = [code % 8 * 2.0**-9 if code < 8 else (1 + code % 8 / 8) * 2.0 ** (code // 8 - 7) for code in codes]
    halfway = [(low + high) / 2 for low, high in pairwise(grid)]

    def code(value: float) -> int:
        found = bisect_left(halfway, abs(value))
        tie = found < len(halfway) and abs(value) == halfway[found] and found % 2 == 1
        return found + tie + (0x80 if value < 0 else 0)

    scale = grid[-1] / (_FARTHEST * SIGMA)
    table = bytes(code(value * scale) for value in quantiles())
    return bytes(map(table.__getitem__, _ranks(size)))


def _widened_bf16(size: int) -> bytes:
    bf16, out = normal_bf16(size // 2), bytearray(size)
    out[2::4], out[3::4] = bf16[0::2], bf16[1::2]
    return bytes(out)


def _ranks(count: int) -> array[int]:
    return array("H", Random(SEED).randbytes(2 * count))
