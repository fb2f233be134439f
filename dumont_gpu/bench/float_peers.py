"""One chunk of bf16 weights through our codec and through those of other packages that are installed, on one core."""

from __future__ import annotations

import importlib
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final

import lz4.frame

from dumont_gpu.bench.corpora import Corpus
from dumont_gpu.bench.rows import Room, scanned
from dumont_gpu.codecs import ZipNN
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.native import Dtype

_ZSTD_LEVEL: Final = 3
# How zipnn's Python layer asks its core for bf16: planes, bit order, byte order, block; then what it keeps, and checks.
_PLANES, _BIT_ORDER, _BYTE_ORDER, _BLOCK = 2, 1, 10, 1 << 18
_THRESHOLD, _CHECKS = 0.95, 10
_HEADER_SIZE: Final = 32


@dataclass(slots=True)
class PeerFigures:
    """One package on one chunk. Sizes are bytes."""

    corpus: str
    who: str
    size: int
    stored_size: int = 0
    intact: bool = True
    encode_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Peer:
    figures: PeerFigures
    encode: Callable[[bytes], bytes | memoryview]  # of a copy that it may spoil
    decode: Callable[[bytes | memoryview], bytes | bytearray | memoryview]


def measure_float_peers(corpus: Corpus, repeats: int) -> list[PeerFigures]:
    """Encodes and decodes the first bf16 chunk of `corpus`: everyone once in each repeat, after an untimed turn."""
    content = next((content for content in corpus.contents if content.key == "bf16"), None)
    if content is None:
        return []
    path = max(content.files, key=lambda file: file.stat().st_size)
    room = Room(1, DEFAULT_CHUNK_SIZE, DEFAULT_CHUNK_SIZE, None)
    with scanned(corpus) as files:
        loaded = room.load([files[str(path.relative_to(corpus.root))]])
    chunk = next((c for c in loaded if isinstance(c.codec, ZipNN) and c.codec.dtype is Dtype.BF16), None)
    if chunk is None:
        return []
    original = bytes(chunk.content)
    peers = list(_peers(corpus.name, original, chunk.room, room.outputs[0]))
    for repeat in range(repeats + 1):
        for peer in peers:
            encode_seconds, decode_seconds = _turn(peer, original)
            if repeat:
                peer.figures.encode_seconds.append(encode_seconds)
                peer.figures.decode_seconds.append(decode_seconds)
    return [peer.figures for peer in peers]


def _turn(peer: _Peer, original: bytes) -> tuple[float, float]:
    copy = bytes(memoryview(original))
    started = time.perf_counter()
    stored = peer.encode(copy)
    encoded = time.perf_counter()
    decoded = peer.decode(stored)
    ended = time.perf_counter()
    peer.figures.stored_size = len(stored)
    peer.figures.intact = peer.figures.intact and decoded == original
    return encoded - started, ended - encoded


def _peers(corpus: str, original: bytes, stored: memoryview, out: memoryview) -> Iterator[_Peer]:
    size = len(original)

    def ours_encode(data: bytes) -> memoryview:
        return stored[: ZipNN(Dtype.BF16).encode(memoryview(data), stored)]

    def ours_decode(data: bytes | memoryview) -> memoryview:
        ZipNN().decode(memoryview(data), out[:size])
        return out[:size]

    yield _Peer(PeerFigures(corpus, "dumont-gpu", size), ours_encode, ours_decode)
    if core := _module("zipnn_core"):
        yield _Peer(PeerFigures(corpus, "zipnn", size), *_zipnn(core, size))
    if zstd := _module("zstandard"):
        yield _Peer(
            PeerFigures(corpus, f"zstd -{_ZSTD_LEVEL}", size),
            zstd.ZstdCompressor(level=_ZSTD_LEVEL).compress,
            zstd.ZstdDecompressor().decompress,
        )
    yield _Peer(PeerFigures(corpus, "lz4", size), lz4.frame.compress, lz4.frame.decompress)


def _zipnn(
    core: ModuleType, size: int
) -> tuple[Callable[[bytes], bytes], Callable[[bytes | memoryview], bytes | bytearray]]:
    head = struct.pack("<2s7B", b"ZN", 0, 5, 4, _BYTE_ORDER, _BIT_ORDER, 0, 1)
    head += struct.pack("<5x2BQ8x", 18, Dtype.BF16, size)

    def encode(data: bytes) -> bytes:
        stream: bytes = core.zipnn_core(
            bytearray(head), data, _PLANES, _BIT_ORDER, _BYTE_ORDER, 0, _BLOCK, _THRESHOLD, _CHECKS, 1
        )
        return stream

    def decode(stream: bytes | memoryview) -> bytes | bytearray:
        body = memoryview(stream)[_HEADER_SIZE:]
        decoded: bytes | bytearray = core.combine_dtype(body, _PLANES, _BIT_ORDER, _BYTE_ORDER, _BLOCK, size, 1)
        return decoded

    return encode, decode


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
