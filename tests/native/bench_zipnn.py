"""Measures the CPU codec against the real `zipnn` package, one core each, in one run.

    python tests/native/bench_zipnn.py LIBRARY [PATH]

needs numpy and `pip install --no-deps zipnn==0.5.4`. 64 MiB of normal weights per type; blocks of 128 KiB for us and
zipnn's default 256 KiB for it. Figures are GB/s of original bytes, best of several; "hot" repeats 1 MiB that stays in
cache.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zipnn_core
from interop_zipnn import as_element
from native_codec import NativeCodec
from zipnn_peer import ELEMENT_TYPES, HEADER_SIZE, ElementType, header_of

MiB = 1 << 20
SIZE = 64 * MiB
HOT_SIZE = MiB
BLOCK_LOG2 = 17
ZIPNN_BLOCK_LOG2 = 18


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def weights(kind: ElementType) -> bytes:
    """A quarter of SIZE, four times over: far enough apart that no codec here notices."""
    values = np.random.default_rng(1).standard_normal(SIZE // kind.planes // 4, dtype=np.float32)
    scale = np.float32(0.5 if kind.planes == 1 else 0.02)
    return as_element(values * scale, kind) * 4


class Ours:
    def __init__(self, codec: NativeCodec, kind: ElementType, data: bytes) -> None:
        self._lib, self._kind, self._data = codec._lib, kind, data
        self._stream = ctypes.create_string_buffer(len(data) + len(data) // 64)
        self._out = ctypes.create_string_buffer(len(data))
        self.stored = 0

    def encode(self, size: int) -> None:
        self.stored = self._lib.dumont_zipnn_encode(
            self._data, size, self._stream, len(self._stream), self._kind.dtype, BLOCK_LOG2
        )

    def decode(self, size: int) -> None:
        if self._lib.dumont_zipnn_decode(self._stream, self.stored, self._out, size) != size:
            raise SystemExit("the stream did not decode")

    def speeds(self, size: int, repeats: int) -> tuple[float, float]:
        encode = best_seconds(lambda: self.encode(size), repeats)
        decode = best_seconds(lambda: self.decode(size), repeats)
        if self._out.raw[:size] != self._data[:size]:
            raise SystemExit("the round trip changed the bytes")
        return size / encode / 1e9, size / decode / 1e9


def zipnn_speeds(kind: ElementType, data: bytes) -> tuple[float, float]:
    block_size = 1 << (17 if kind.planes == 1 else ZIPNN_BLOCK_LOG2)
    encode = []
    for _ in range(3):
        private = bytes(bytearray(data))  # zipnn overwrites its input
        header = header_of(kind, len(data), ZIPNN_BLOCK_LOG2)
        start = time.perf_counter()
        stream = bytes(
            zipnn_core.zipnn_core(
                header, private, kind.planes, kind.bit_reorder, kind.byte_reorder, 0, block_size, 0.95, 10, 1
            )
        )
        encode.append(time.perf_counter() - start)
    body = stream[HEADER_SIZE:]
    decode = best_seconds(
        lambda: zipnn_core.combine_dtype(
            body, kind.planes, kind.bit_reorder, kind.byte_reorder, block_size, len(data), 1
        ),
        4,
    )
    return len(data) / min(encode) / 1e9, len(data) / decode / 1e9


def main() -> None:
    codec = NativeCodec(Path(sys.argv[1]))
    path = sys.argv[2] if len(sys.argv) > 2 else codec.default_path()
    if not codec.select(path):
        raise SystemExit(f"this CPU or build lacks {path}")
    print(f"{path}: GB/s             encode  zipnn  ratio   decode  zipnn  ratio   hot: encode decode")
    for kind in ELEMENT_TYPES:
        data = weights(kind)
        ours = Ours(codec, kind, data)
        encode, decode = ours.speeds(len(data), 5)
        stored = ours.stored / len(data)
        hot_encode, hot_decode = ours.speeds(HOT_SIZE, 50)
        zipnn_encode, zipnn_decode = zipnn_speeds(kind, data)
        print(
            f"{kind.name:9s} stored {stored:.4f} {encode:7.2f} {zipnn_encode:6.2f} {encode / zipnn_encode:5.1f}x "
            f"{decode:8.2f} {zipnn_decode:6.2f} {decode / zipnn_decode:5.1f}x {hot_encode:12.2f} {hot_decode:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
