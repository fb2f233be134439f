"""nvCOMP's batched calls on data in device memory, which our kernels are compared with."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

from dumont_gpu.backends.nvcomp import nvcomp_path

CHAR, UNKNOWN = 0, 0xFF  # nvcompType_t
TYPES = {"fp8": 9, "half": 10, "fp32": 11}  # nvcompType_t of 6.0; "half" is for every float of 16 bits
TYPES_BEFORE_6 = {"half": 9, "fp8": 10}
DEFAULT_BACKEND, CUDA_BACKEND = 0, 2  # nvcompDecompressBackend_t
ALIGNMENT = 256


class Options(ctypes.Structure):
    """Every options struct of ANS and LZ4, by value: two enums, then small fields, then reserved zeros."""

    _fields_ = (("first", ctypes.c_int), ("second", ctypes.c_int), ("rest", ctypes.c_uint8 * 56))


class NvcompError(Exception):
    """nvCOMP refused a call, or did not decode a block."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to call a decoder."""

    name: str
    algorithm: str  # as in the functions' names
    compress: Options
    decompress: Options


def ans_variants(element: str, version: str, unchecked: bool = False) -> list[Variant]:
    """ANS with the element type named, in the ways that nvCOMP's header offers to make its decoder faster.

    Args:
        element: "half", "fp32" or "fp8".
        version: of nvCOMP.
        unchecked: whether to add the decoder that skips its own validation.
    """
    recent = int(version.partition(".")[0]) >= 6
    data_type = (TYPES if recent else TYPES_BEFORE_6).get(element)
    if data_type is None:
        return []
    packed = Options(0, data_type)
    if not recent:  # 5.x always reads the type from the block
        return [Variant("ANS, typed", "ANS", packed, Options(DEFAULT_BACKEND, CHAR))]

    def decode(named: int, *fields: int) -> Options:
        return Options(DEFAULT_BACKEND, named, (ctypes.c_uint8 * 56)(*fields))

    # Fields: most parts of a block (0: read it), states of a lane (2: the packer's default), skip the checks.
    found = [
        Variant("ANS, typed", "ANS", packed, decode(UNKNOWN)),
        Variant("ANS, type named", "ANS", packed, decode(data_type, 0, 2)),
    ]
    if unchecked:
        found.append(Variant("ANS, type named, unchecked", "ANS", packed, decode(data_type, 0, 2, 1)))
    return found


def lz4_variants() -> list[Variant]:
    return [Variant("LZ4", "LZ4", Options(CHAR, 0), Options(CUDA_BACKEND, 0))]


class Blocks:
    """`total` bytes at a device address as blocks of `block` bytes, compressed by nvCOMP, and room to decode them.

    `stream` must be CuPy's current stream: arrays come and go there. `compress_again`: whether `compress` is called.
    """

    def __init__(
        self, stream: Any, address: int, total: int, block: int, variant: Variant, compress_again: bool = False
    ) -> None:
        import cupy
        import numpy as np

        self._cupy, self._numpy, self._stream, self._variant = cupy, np, stream, variant
        self.count, self.block, self.total = total // block, block, total
        largest = ctypes.c_size_t()
        _check(_call(variant.algorithm, "CompressGetMaxOutputChunkSize")(
            ctypes.c_size_t(block), variant.compress, ctypes.byref(largest)))  # fmt: skip
        stride = -(-largest.value // ALIGNMENT) * ALIGNMENT
        self._packed = cupy.empty(self.count * stride, np.uint8)
        self._out = cupy.empty(total, np.uint8)
        self._statuses = cupy.empty(self.count, np.int32)
        self._packed_sizes, self._actual = (cupy.empty(self.count, np.uint64) for _ in range(2))
        self._sizes = cupy.asarray(np.full(self.count, block, np.uint64))
        self._packed_at, self._out_at = self._table(self._packed.data.ptr, stride), self._table(self._out.data.ptr)
        self._source_at = self._table(address)
        self._compress_temporary = self._temporary_memory("CompressGetTempSize", variant.compress)
        self.compress()
        self._wait_for_success()
        if not compress_again:
            self._compress_temporary = None  # LZ4's memory is as large as the data
        self._temporary = self._temporary_memory("DecompressGetTempSize", variant.decompress)
        self.stored = int(self._packed_sizes.get().sum()) / total

    def compress(self, count: int | None = None) -> None:
        """Compresses the first `count` blocks, or all, again; does not wait."""
        temporary = self._compress_temporary
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        _check(_call(self._variant.algorithm, "CompressAsync")(
            pointer(self._source_at.data.ptr), pointer(self._sizes.data.ptr), size(self.block),
            size(self.count if count is None else count),
            pointer(temporary.data.ptr if temporary.size else None), size(temporary.size),
            pointer(self._packed_at.data.ptr), pointer(self._packed_sizes.data.ptr), self._variant.compress,
            pointer(self._statuses.data.ptr), pointer(self._stream.ptr),
        ))  # fmt: skip

    def decode(self, count: int | None = None) -> None:
        """Decodes the first `count` blocks, or all; does not wait."""
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        _check(_call(self._variant.algorithm, "DecompressAsync")(
            pointer(self._packed_at.data.ptr), pointer(self._packed_sizes.data.ptr), pointer(self._sizes.data.ptr),
            pointer(self._actual.data.ptr), size(self.count if count is None else count),
            pointer(self._temporary.data.ptr if self._temporary.size else None), size(self._temporary.size),
            pointer(self._out_at.data.ptr), self._variant.decompress, pointer(self._statuses.data.ptr),
            pointer(self._stream.ptr),
        ))  # fmt: skip

    def decoded(self) -> Any:
        """Decodes everything into cleared memory; returns the bytes, on the device.

        Raises:
            NvcompError: nvCOMP says that it did not work.
        """
        self._cupy.cuda.runtime.memsetAsync(self._out.data.ptr, 0, self.total, self._stream.ptr)
        self._cupy.cuda.runtime.memsetAsync(self._statuses.data.ptr, 0xFF, 4 * self.count, self._stream.ptr)
        self.decode()
        self._wait_for_success()
        if (self._actual.get() != self.block).any():
            raise NvcompError("blocks of another size came out")
        return self._out

    def _wait_for_success(self) -> None:
        self._stream.synchronize()
        wrong = self._statuses.get()
        if wrong.any():
            raise NvcompError(
                f"status {int(wrong[wrong != 0][0])} for {int((wrong != 0).sum())} of {self.count} blocks"
            )

    def _table(self, base: int, stride: int | None = None) -> Any:
        np = self._numpy
        places = np.uint64(base) + np.arange(self.count, dtype=np.uint64) * np.uint64(stride or self.block)
        return self._cupy.asarray(places)

    def _temporary_memory(self, query: str, options: Options) -> Any:
        size = ctypes.c_size_t()
        arguments = [ctypes.c_size_t(self.count), ctypes.c_size_t(self.block), options, ctypes.byref(size)]
        arguments.append(ctypes.c_size_t(self.total))
        try:
            function = _call(self._variant.algorithm, query)
            arguments.append(ctypes.c_void_p(self._stream.ptr))
        except AttributeError:  # its name, and no stream, before 6.0
            function = _call(self._variant.algorithm, f"{query}Async")
        _check(function(*arguments))
        return self._cupy.empty(size.value, self._numpy.uint8)


def _call(algorithm: str, name: str) -> Any:
    return getattr(_library(), f"nvcompBatched{algorithm}{name}")


@functools.cache
def _library() -> ctypes.CDLL:
    path = nvcomp_path()
    if path is None:
        raise NvcompError("there is no nvCOMP")
    return ctypes.CDLL(str(path))  # not the package's own, which knows LZ4's options by another type


def _check(status: int) -> None:
    if status:
        raise NvcompError(f"nvCOMP refused a call with status {status}")
