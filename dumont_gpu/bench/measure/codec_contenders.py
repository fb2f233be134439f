"""The codecs that are compared: ours on every instruction set, zipnn, lz4 and zstd, behind one protocol."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, Final, Protocol

from dumont_gpu import native
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.errors import DumontError
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import MiB

OURS: Final = "dumont-gpu"
FRESH: Final = "dumont-gpu, fresh buffers"
PATHS: Final = ("portable", "avx2", "avx512", "neon")
PEERS: Final = ("zipnn_core", "lz4.frame", "zstandard")  # modules that take part where they are installed
_CHUNKS_PER_THREAD: Final = 4  # enough that one slow core does not set the pace
_ZSTD_LEVEL: Final = 3
_LARGE_ALLOCATION: Final = 32 * MiB  # from here on, malloc takes fresh pages each time (DEFAULT_MMAP_THRESHOLD_MAX)


@dataclass(frozen=True, slots=True)
class Label:
    """Which contender a figure belongs to."""

    codec: str
    threads: int
    path: str = ""  # instruction set; empty: a peer
    block_log2: int = 0  # 0: the codec's own choice


class Contender(Protocol):
    """A codec set up for one input. A run is prepare, encode, decode; `prepare` is not timed."""

    label: Label

    def prepare(self) -> None: ...
    def encode(self) -> int:
        """Returns the encoded size in bytes; 0 if the input does not shrink."""

    def decode(self) -> None: ...
    def matches(self) -> bool:
        """Whether the last `decode` gave the input back."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Shared by all contenders of a run."""

    pool: ThreadPoolExecutor  # one thread per core
    modules: dict[str, ModuleType]  # the peers that can be imported

    def each(self, threads: int, run: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        return list((self.pool.map if threads > 1 else map)(run, *columns))


def installed_peers() -> dict[str, ModuleType]:
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.import_module(name)
        except ImportError:
            continue
    return found


def available_paths() -> list[str]:
    """The instruction sets of this machine and build; the default comes last, and stays selected."""
    default = native.cpu_path()
    others = [name for name in PATHS if name != default and native.select_cpu_path(name)]
    native.select_cpu_path(default)
    return [*others, default]


@dataclass(slots=True)
class Buffers:
    """Room for one encoded and one decoded copy, which our contenders use in turn."""

    size: int
    encoded: memoryview = field(init=False)
    decoded: memoryview = field(init=False)

    def __post_init__(self) -> None:
        self.encoded = anonymous(self.size + self.size // 64)
        self.decoded = anonymous(self.size)


class Ours:
    """The package's codec through `native`; a contender called FRESH allocates its buffers in every timed run."""

    def __init__(self, data: memoryview, dtype: Dtype, label: Label, shared: Machine, buffers: Buffers) -> None:
        self.label, self._data, self._shared, self._buffers = label, data, shared, buffers
        self._chunks = _chunks_of(data, label.threads)
        self._encode = partial(native.zipnn_encode, dtype=dtype, block_log2=label.block_log2)
        self._sizes: list[int] = []

    def prepare(self) -> None:
        if not native.select_cpu_path(self.label.path):
            raise DumontError(f"the {self.label.path} kernels are gone")

    def encode(self) -> int:
        if self.label.codec == FRESH:
            self._buffers = Buffers(len(self._data))
        self._sizes = self._shared.each(self.label.threads, self._encode, self._chunks, self._slots())
        return sum(self._sizes) if all(self._sizes) else 0

    def decode(self) -> None:
        if self.label.codec == FRESH:
            self._buffers.decoded = anonymous(len(self._data))
        streams = [slot[:size] for slot, size in zip(self._slots(), self._sizes, strict=True)]
        targets = _chunks_of(self._buffers.decoded[: len(self._data)], self.label.threads)
        self._shared.each(self.label.threads, native.zipnn_decode, streams, targets)

    def matches(self) -> bool:
        return self._buffers.decoded[: len(self._data)] == self._data

    def _slots(self) -> list[memoryview]:
        first = len(self._chunks[0])
        room = first + first // 64
        return [self._buffers.encoded[i * room : (i + 1) * room] for i in range(len(self._chunks))]


@dataclass(frozen=True, slots=True)
class ZipnnType:
    """How zipnn cuts a type, as its Python layer asks its core to."""

    planes: int
    bit_reorder: int
    byte_reorder: int
    block_log2: int = 18  # its default


_ZIPNN_TYPES: Final = {
    Dtype.FP32: ZipnnType(4, 1, 220),
    Dtype.BF16: ZipnnType(2, 1, 10),
    Dtype.FP16: ZipnnType(2, 0, 10),
    Dtype.FP8_E4M3: ZipnnType(1, 1, 10, 17),
}
_ZIPNN_HEADER_SIZE: Final = 32
_ZIPNN_THRESHOLD, _ZIPNN_CHECKS = 0.95, 10  # its defaults: keep blocks that shrink below; how often to look


class Zipnn:
    """The core of the `zipnn` package, with its own threads; it overwrites its input and allocates its output."""

    def __init__(self, data: memoryview, dtype: Dtype, core: ModuleType, threads: int) -> None:
        self.label = Label("zipnn", threads)
        self._data, self._dtype, self._core, self._type = data, dtype, core, _ZIPNN_TYPES[dtype]
        self._input, self._stream, self._decoded = b"", b"", bytearray()

    def prepare(self) -> None:
        self._input = bytes(self._data)

    def encode(self) -> int:
        kind = self._type
        self._stream = self._core.zipnn_core(
            self._header(), self._input, kind.planes, kind.bit_reorder, kind.byte_reorder, 0, 1 << kind.block_log2,
            _ZIPNN_THRESHOLD, _ZIPNN_CHECKS, self.label.threads,
        )  # fmt: skip
        return len(self._stream)

    def decode(self) -> None:
        kind = self._type
        self._decoded = self._core.combine_dtype(
            memoryview(self._stream)[_ZIPNN_HEADER_SIZE:], kind.planes, kind.bit_reorder, kind.byte_reorder,
            1 << kind.block_log2, len(self._data), self.label.threads,
        )  # fmt: skip

    def matches(self) -> bool:
        return self._data == self._decoded

    def _header(self) -> bytearray:
        kind = self._type
        head = struct.pack("<2s7B", b"ZN", 0, 5, 4, kind.byte_reorder, kind.bit_reorder, 0, 1)
        return bytearray(head + struct.pack("<5x2BQ8x", 18, self._dtype, len(self._data)))


class Library:
    """A general codec with a Python binding; its threads take a chunk each, and every call allocates its output."""

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
        self._chunks, self._shared, self._encode, self._decode = _chunks_of(data, threads), shared, encode, decode
        self._encoded: list[bytes] = []
        self._decoded: list[bytes] = []

    def prepare(self) -> None:
        self._decoded = []

    def encode(self) -> int:
        self._encoded = self._shared.each(self.label.threads, self._encode, self._chunks)
        return sum(map(len, self._encoded))

    def decode(self) -> None:
        self._decoded = self._shared.each(self.label.threads, self._decode, self._encoded)

    def matches(self) -> bool:
        return len(self._decoded) == len(self._chunks) and all(map(memoryview.__eq__, self._chunks, self._decoded))


def contenders(
    data: memoryview,
    dtype: Dtype,
    shared: Machine,
    buffers: Buffers,
    threads: Sequence[int],
    paths: Sequence[str],
    block_log2s: Sequence[int],
) -> Iterator[Contender]:
    """Yields every codec that encodes `data`, on each number of `threads`; ours on `paths`, in blocks of each size."""
    for count in threads:
        for path in paths:
            for block_log2 in block_log2s:
                yield Ours(data, dtype, Label(OURS, count, path, block_log2), shared, buffers)
        if len(data) >= _LARGE_ALLOCATION:
            yield Ours(data, dtype, Label(FRESH, count, paths[-1], block_log2s[-1]), shared, buffers)
        yield from _peers(data, dtype, shared, count)


def _peers(data: memoryview, dtype: Dtype, shared: Machine, threads: int) -> Iterator[Contender]:
    if core := shared.modules.get("zipnn_core"):
        yield Zipnn(data, dtype, core, threads)
    if lz4 := shared.modules.get("lz4.frame"):
        yield Library("lz4", data, shared, threads, lz4.compress, lz4.decompress)
    if zstandard := shared.modules.get("zstandard"):

        def compress(chunk: memoryview) -> bytes:  # a context must not be shared by threads
            encoded: bytes = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(chunk)
            return encoded

        def decompress(encoded: bytes) -> bytes:
            chunk: bytes = zstandard.ZstdDecompressor().decompress(encoded)
            return chunk

        yield Library(f"zstd -{_ZSTD_LEVEL}", data, shared, threads, compress, decompress)


def _chunks_of(data: memoryview, threads: int) -> list[memoryview]:
    """The whole of `data` for one thread, else several chunks of whole MiB (at least one MiB) for each thread."""
    size = len(data) if threads == 1 else max(MiB, len(data) // (_CHUNKS_PER_THREAD * threads) // MiB * MiB)
    return [data[start : start + size] for start in range(0, len(data), size)]
