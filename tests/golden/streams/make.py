"""Writes the golden ZipNN streams and streams.json beside this file.

    PYTHONPATH=tests/native python tests/golden/streams/make.py LIBRARY

needs numpy and `pip install --no-deps zipnn==0.5.4`. Run this script only to add streams: existing streams are the contract.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from interop_zipnn import samples
from native_codec import NativeCodec
from zipnn_peer import ELEMENT_TYPES, ElementType, ZipnnPeer, header_of

HERE = Path(__file__).parent
ZIPNN = "zipnn 0.5.4"
OURS = "dumont-gpu"
BY_HAND = "make.py"  # marks streams that no encoder writes


@dataclass(frozen=True, slots=True)
class Case:
    maker: str
    data: str  # a name of interop_zipnn.samples
    elements: dict[int, int]  # by bytes per element
    block_log2: int


CASES = (
    Case(ZIPNN, "gauss", {1: 20_000, 2: 10_001, 4: 5_003}, 18),  # the package's defaults; a ragged tail
    Case(ZIPNN, "gauss", {1: 9_999, 2: 6_001, 4: 3_001}, 11),  # many small blocks
    Case(ZIPNN, "constant", {1: 3_000, 2: 3_001, 4: 3_001}, 18),
    Case(ZIPNN, "one-bit", {1: 30_000, 2: 15_001, 4: 7_501}, 14),
    Case(ZIPNN, "nan", {1: 5_000, 2: 5_001, 4: 2_501}, 12),
    Case(OURS, "gauss", {1: 9_999, 2: 6_001, 4: 3_001}, 12),
    Case(OURS, "deep code", {1: 12_000, 2: 6_001, 4: 3_001}, 13),
    Case(OURS, "equal weights", {1: 9_000, 2: 4_501, 4: 2_251}, 17),
    Case(OURS, "uneven streams", {1: 9_000, 2: 4_501, 4: 2_251}, 17),
)


def huff0_block(lengths: list[int], data: bytes) -> bytes:
    """Returns a block with a given complete code (bits of symbols 0, 1, ...), its weights as nibbles."""
    longest = max(lengths)
    weights = [longest + 1 - length for length in lengths[:-1]] + [0]  # the last is implied; 0 only pads
    count = len(lengths) - 1
    tree = bytes([127 + count]) + bytes(weights[i] << 4 | weights[i + 1] for i in range(0, count, 2))
    cell = 0
    codes = {}
    for length in range(longest, 0, -1):
        for symbol in (s for s, bits in enumerate(lengths) if bits == length):
            codes[symbol] = format(cell >> (longest - length), f"0{length}b")
            cell += 1 << (longest - length)
    segment = (len(data) + 3) // 4
    streams = []
    for part in (data[i * segment : (i + 1) * segment] for i in range(4)):
        bits = "1" + "".join(codes[symbol] for symbol in part)
        streams.append(int(bits, 2).to_bytes((len(bits) + 7) // 8, "little"))
    return tree + struct.pack("<3H", *map(len, streams[:3])) + b"".join(streams)


def longest_codes(kind: ElementType) -> tuple[bytes, bytes]:
    """A stream with 12-bit codes, which a reader must accept and `zipnn` crashes on; and its original."""
    lengths = [12, 12, *range(11, 0, -1)]
    shares = np.array([2.0 ** (-length / 2) for length in lengths])
    original = np.random.default_rng(7).choice(len(lengths), 9_000, p=shares / shares.sum()).astype("u1").tobytes()
    block = huff0_block(lengths, original)
    stream = header_of(kind, len(original), 17) + b"\x01" + struct.pack("<Q", len(block)) + block
    stream[24:32] = struct.pack("<Q", len(stream))
    return bytes(stream), original


def entry(name: str, maker: str, stream: bytes, original: bytes) -> dict[str, str | int]:
    (HERE / f"{name}.zipnn").write_bytes(stream)
    return {
        "name": name,
        "maker": maker,
        "dtype": stream[15],
        "block_log2": stream[14],
        "original_size": len(original),
        "original_sha256": hashlib.sha256(original).hexdigest(),
    }


def main() -> None:
    codec = NativeCodec(Path(sys.argv[1]))
    peer = ZipnnPeer()
    entries = []
    for kind in ELEMENT_TYPES:
        for case in CASES:
            original = dict(samples(kind, case.elements[kind.planes], np.random.default_rng(7)))[case.data]
            if case.maker == ZIPNN:
                stream = peer.encode(kind, original, case.block_log2)
            else:
                stream = codec.encode(kind.dtype, original, case.block_log2)
            maker = "zipnn" if case.maker == ZIPNN else "dumont"
            name = f"{kind.name}-{case.data.replace(' ', '-')}-{case.block_log2}-{maker}"
            if peer.decode(kind, stream) != original:
                raise SystemExit(f"zipnn does not read {name}")
            entries.append(entry(name, case.maker, stream, original))
    peer.close()
    fp8 = next(kind for kind in ELEMENT_TYPES if kind.planes == 1)
    entries.append(entry(f"{fp8.name}-longest-codes-17-hand", BY_HAND, *longest_codes(fp8)))
    (HERE / "streams.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()
