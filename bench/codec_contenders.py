"""The codecs that the CPU benchmark compares: ours on every path, zipnn, lz4 and zstd, behind one protocol."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from dumont_gpu import native
from dumont_gpu.native import Dtype

MiB = 1 << 20
PATHS = ("portable", "avx2", "avx512", "neon")
BLOCK_LOG2S = (16, 17)  # what the package writes, and half of zipnn's default of 18
CHUNKS_PER_THREAD = 4  # chunks per thread: enough that one slow core does not set the pace
ZSTD_LEVEL = 3
LARGE_ALLOCATION = 32 * MiB  # from here on, malloc takes fresh pages each time (DEFAULT_MMAP_THRESHOLD_MAX)


@dataclass(frozen=True, slots=True)
class Label:
    """Which contender a figure belongs to."""

    codec: str
    threads: int
    path: str = ""  # instruction set; empty: not ours
    block_log2: int = 0  # 0: the codec's own choice


class Contender(Protocol):
    """A codec set up for one input. A run is prepare, encode, decode; the first is not timed."""

    label: Label

    def prepare(self) -> None: ...
    def encode(self) -> int:
        """Returns the stored size in bytes."""

    def decode(self) -> None: ...
    def matches(self) -> bool:
        """Whether the last `decode` gave the input back."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What all contenders of a run share."""

    pool: ThreadPoolExecutor  # one thread per core
    cores: int
    modules: dict[str, ModuleType]  # the peers that can be imported

    def each(self, threads: int, run: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        return list((self.pool.map if threads > 1 else map)(run, *columns))


def anonymous(size: int) -> memoryview:
    """Memory as the package's buffers are: page-aligned."""
    return memoryview(mmap.mmap(-1, size))


def chunks_of(data: memoryview, threads: int) -> list[memoryview]:
    """The whole of `data` for one thread, else several chunks of whole MiB (or one) for each."""
    size = len(data) if threads == 1 else max(MiB, len(data) // (CHUNKS_PER_THREAD * threads) // MiB * MiB)
    return [data[start : start + size] for start in range(0, len(data), size)]


@dataclass(slots=True)
class Buffers:
    """Room for one stored and one decoded copy, which our contenders take in turn."""

    size: int
    stored: memoryview = field(init=False)
    decoded: memoryview = field(init=False)

    def __post_init__(self) -> None:
        self.stored = anonymous(self.size + self.size // 64)
        self.decoded = anonymous(self.size)


class Ours:
    """The package's codec, straight through `native`; `fresh` allocates its buffers anew in every timed run."""

    def __init__(
        self, data: memoryview, dtype: Dtype, label: Label, shared: Machine, buffers: Buffers, fresh: bool = False
    ) -> None:
        self.label, self._data, self._shared, self._buffers, self._fresh = label, data, shared, buffers, fresh
        self._chunks = chunks_of(data, label.threads)
        self._encode = partial(native.zipnn_encode, dtype=dtype, block_log2=label.block_log2)
        self._sizes: list[int] = []

    def prepare(self) -> None:
        if not native.select_cpu_path(self.label.path):
            raise SystemExit(f"the {self.label.path} kernels are gone")

    def encode(self) -> int:
        if self._fresh:
            self._buffers = Buffers(len(self._data))
        self._sizes = self._shared.each(self.label.threads, self._encode, self._chunks, self._slots())
        if not all(self._sizes):
            raise SystemExit(f"{self.label} does not shrink its input")
        return sum(self._sizes)

    def decode(self) -> None:
        if self._fresh:
            self._buffers.decoded = anonymous(len(self._data))
        streams = [slot[:size] for slot, size in zip(self._slots(), self._sizes, strict=True)]
        targets = chunks_of(self._buffers.decoded[: len(self._data)], self.label.threads)
        self._shared.each(self.label.threads, native.zipnn_decode, streams, targets)

    def matches(self) -> bool:
        return self._buffers.decoded[: len(self._data)] == self._data

    def _slots(self) -> list[memoryview]:
        first = len(self._chunks[0])
        room = first + first // 64
        return [self._buffers.stored[i * room : (i + 1) * room] for i in range(len(self._chunks))]


@dataclass(frozen=True, slots=True)
class ZipnnType:
    """How zipnn cuts a type, as its Python layer asks its core to."""

    planes: int
    bit_reorder: int
    byte_reorder: int
    block_log2: int = 18  # its default


ZIPNN_TYPES = {
    Dtype.FP32: ZipnnType(4, 1, 220),
    Dtype.BF16: ZipnnType(2, 1, 10),
    Dtype.FP16: ZipnnType(2, 0, 10),
    Dtype.FP8_E4M3: ZipnnType(1, 1, 10, 17),
}
ZIPNN_HEADER_SIZE = 32
ZIPNN_THRESHOLD, ZIPNN_CHECKS = 0.95, 10  # its defaults: keep what shrinks below; how often to look


class Zipnn:
    """The core of the `zipnn` package, with its own threads; it overwrites its input and allocates its output."""

    def __init__(self, data: memoryview, dtype: Dtype, core: ModuleType, threads: int) -> None:
        self.label = Label("zipnn", threads)
        self._data, self._dtype, self._core, self._type = data, dtype, core, ZIPNN_TYPES[dtype]
        self._input, self._stream, self._decoded = b"", b"", bytearray()

    def prepare(self) -> None:
        self._input = bytes(self._data)

    def encode(self) -> int:
        kind = self._type
        self._stream = self._core.zipnn_core(
            self._header(), self._input, kind.planes, kind.bit_reorder, kind.byte_reorder, 0, 1 << kind.block_log2,
            ZIPNN_THRESHOLD, ZIPNN_CHECKS, self.label.threads,
        )  # fmt: skip
        return len(self._stream)

    def decode(self) -> None:
        kind = self._type
        self._decoded = self._core.combine_dtype(
            memoryview(self._stream)[ZIPNN_HEADER_SIZE:], kind.planes, kind.bit_reorder, kind.byte_reorder,
            1 << kind.block_log2, len(self._data), self.label.threads,
        )  # fmt: skip

    def matches(self) -> bool:
        return self._data == self._decoded

    def _header(self) -> bytearray:
        kind = self._type
        head = struct.pack("<2s7B", b"ZN", 0, 5, 4, kind.byte_reorder, kind.bit_reorder, 0, 1)
        return bytearray(head + struct.pack("<5x2BQ8x", 18, self._dtype, len(self._data)))


class Library:
    """A general codec of Python's, over chunks where it has threads; its output is allocated by it."""

    def __init__(
        self,
        name: str,
        data: memoryview,
        shared: Machine,
        threads: int,
        encode: Callable[[memoryview], bytes],
        decode: Callable[[bytes], bytes],
    ) -> None:
        self.label = Label(name, threads)
        self._chunks, self._shared, self._encode, self._decode = chunks_of(data, threads), shared, encode, decode
        self._stored: list[bytes] = []
        self._decoded: list[bytes] = []

    def prepare(self) -> None:
        self._decoded = []

    def encode(self) -> int:
        self._stored = self._shared.each(self.label.threads, self._encode, self._chunks)
        return sum(map(len, self._stored))

    def decode(self) -> None:
        self._decoded = self._shared.each(self.label.threads, self._decode, self._stored)

    def matches(self) -> bool:
        return len(self._decoded) == len(self._chunks) and all(map(memoryview.__eq__, self._chunks, self._decoded))


def available_paths() -> list[str]:
    """The instruction sets of this machine and build, the default one last; it stays selected."""
    default = native.cpu_path()
    others = [name for name in PATHS if name != default and native.select_cpu_path(name)]
    native.select_cpu_path(default)
    return [*others, default]


def contenders(
    data: memoryview, dtype: Dtype, shared: Machine, buffers: Buffers, threads: Sequence[int]
) -> Iterator[Contender]:
    """Yields everyone who encodes `data`, on each number of `threads`."""
    paths = available_paths()
    for count in threads:
        for path in paths:
            for block_log2 in BLOCK_LOG2S:
                yield Ours(data, dtype, Label("dumont-gpu", count, path, block_log2), shared, buffers)
        if len(data) >= LARGE_ALLOCATION:
            fresh = Label("dumont-gpu, fresh buffers", count, paths[-1], BLOCK_LOG2S[-1])
            yield Ours(data, dtype, fresh, shared, buffers, fresh=True)
        yield from _peers(data, dtype, shared, count)


def _peers(data: memoryview, dtype: Dtype, shared: Machine, threads: int) -> Iterator[Contender]:
    if core := shared.modules.get("zipnn_core"):
        yield Zipnn(data, dtype, core, threads)
    if lz4 := shared.modules.get("lz4.frame"):
        yield Library("lz4", data, shared, threads, lz4.compress, lz4.decompress)
    if zstandard := shared.modules.get("zstandard"):

        def compress(chunk: memoryview) -> bytes:  # a context must not be shared by threads
            stored: bytes = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(chunk)
            return stored

        def decompress(stored: bytes) -> bytes:
            chunk: bytes = zstandard.ZstdDecompressor().decompress(stored)
            return chunk

        yield Library(f"zstd -{ZSTD_LEVEL}", data, shared, threads, compress, decompress)
