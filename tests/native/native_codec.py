"""The CPU codec through its C ABI, for the scripts beside this file."""

from __future__ import annotations

import ctypes
from pathlib import Path


class NativeCodec:
    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.dumont_zipnn_encode.restype = ctypes.c_int64
        self._lib.dumont_zipnn_encode.argtypes = (
            ctypes.c_char_p,
            ctypes.c_uint64,
            ctypes.c_char_p,
            ctypes.c_uint64,
            ctypes.c_uint32,
            ctypes.c_uint32,
        )
        self._lib.dumont_zipnn_decode.restype = ctypes.c_int64
        self._lib.dumont_zipnn_decode.argtypes = (ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64)
        self._lib.dumont_select_cpu_path.restype = ctypes.c_int64
        self._lib.dumont_select_cpu_path.argtypes = (ctypes.c_char_p,)

        self._lib.dumont_cpu_path.restype = ctypes.c_char_p

    def default_path(self) -> str:
        path: bytes = self._lib.dumont_cpu_path()
        return path.decode()

    def paths(self) -> list[str]:
        names = ("portable", "avx2", "avx512", "neon")
        return [name for name in names if self.select(name)]

    def select(self, name: str) -> bool:
        return bool(self._lib.dumont_select_cpu_path(name.encode()) == 0)

    def encode(self, dtype: int, data: bytes, block_log2: int) -> bytes:
        capacity = 32 + len(data) + 9 * 4 * (len(data) // (1 << block_log2) + 1)
        out = ctypes.create_string_buffer(capacity)
        size = self._lib.dumont_zipnn_encode(data, len(data), out, capacity, dtype, block_log2)
        if size <= 0:
            raise ValueError(f"encode returned {size}")
        return ctypes.string_at(out, size)

    def decode(self, stream: bytes, size: int) -> bytes:
        out = ctypes.create_string_buffer(max(size, 1))
        result = self._lib.dumont_zipnn_decode(stream, len(stream), out, size)
        if result != size:
            raise ValueError(f"decode returned {result}")
        return ctypes.string_at(out, size)
