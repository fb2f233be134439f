"""Writes the golden ZipNN streams and streams.json beside this file.

    PYTHONPATH=tests/native python tests/golden/streams/make.py LIBRARY

needs numpy and `pip install --no-deps zipnn==0.5.4`. Run it only to add streams: those that exist are the contract.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from interop_zipnn import samples
from native_codec import NativeCodec
from zipnn_peer import ELEMENT_TYPES, ZipnnPeer

HERE = Path(__file__).parent
ZIPNN = "zipnn 0.5.4"
OURS = "dumont-gpu"


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
            (HERE / f"{name}.zipnn").write_bytes(stream)
            entries.append({
                "name": name,
                "maker": case.maker,
                "dtype": kind.dtype,
                "block_log2": case.block_log2,
                "original_size": len(original),
                "original_sha256": hashlib.sha256(original).hexdigest(),
            })
    peer.close()
    (HERE / "streams.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()
