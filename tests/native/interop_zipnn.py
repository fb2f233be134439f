"""Checks the CPU codec against the real `zipnn` package, in both directions.

    python tests/native/interop_zipnn.py LIBRARY

needs numpy and zipnn_core (`pip install --no-deps zipnn==0.5.4`). Prints a summary line and exits 1 on a difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from native_codec import NativeCodec
from zipnn_peer import ELEMENT_TYPES, ElementType, ZipnnPeer

SIZES = (
    *range(1, 130),
    255,
    256,
    257,
    511,
    512,
    513,
    599,
    600,
    1023,
    4095,
    8191,
    20_001,
    65_536,
    65_537,
    98_303,
    131_072,
    196_609,
    400_003,
)  # elements


def as_element(values: np.ndarray, kind: ElementType) -> bytes:
    """float32 values as elements of `kind`; bf16 and fp8 are cut, not rounded."""
    floats = values.astype("<f4")
    if kind.name == "fp32":
        return floats.tobytes()
    if kind.name == "fp16":
        with np.errstate(over="ignore"):
            return floats.astype("<f2").tobytes()
    if kind.name == "bf16":
        return (floats.view("<u4") >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        return (floats.astype("<f2").view("<u2") >> 8).astype("u1").tobytes()


def samples(kind: ElementType, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    size = count * kind.planes
    yield "gauss", as_element(rng.standard_normal(count) * 0.02, kind)
    yield "constant", as_element(np.full(count, 0.5), kind)
    yield "random", rng.bytes(size)
    yield "denormal", as_element(rng.standard_normal(count) * 1e-39, kind)
    special = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0]), count, p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05])
    yield "nan", as_element(special, kind)
    yield "one-bit", rng.choice(np.array([0, 1, 7, 200], "u1"), size, p=[0.9, 0.06, 0.03, 0.01]).tobytes()
    yield "256 symbols", np.minimum(rng.geometric(0.03, size) - 1, 255).astype("u1").tobytes()
    yield "deep code", np.minimum(rng.geometric(0.5, size) - 1, 255).astype("u1").tobytes()
    half = rng.integers(0, 192, size).astype("u1")
    half[rng.random(size) < 0.25] = 192
    yield "equal weights", half.tobytes()
    halves = np.concatenate([np.zeros(size // 2, "u1"), rng.integers(0, 40, size - size // 2).astype("u1")])
    yield "uneven streams", halves.tobytes()
    if kind.name == "fp32":
        yield "from bf16", (rng.standard_normal(count).astype("<f4").view("<u4") & 0xFFFF0000).astype("<u4").tobytes()
        yield "from fp16", rng.standard_normal(count).astype("<f2").astype("<f4").tobytes()


def main() -> int:
    codec = NativeCodec(Path(sys.argv[1]))
    peer = ZipnnPeer()
    rng = np.random.default_rng(1)
    paths = codec.paths()
    ours_read_by_theirs = theirs_read_by_ours = crashes = failures = 0
    compared = [0, 0]
    for kind in ELEMENT_TYPES:
        for count in SIZES:
            for name, data in samples(kind, count, rng):
                for block_log2 in (10, 14, 17) if count > 600 else (int(rng.integers(10, 18)),):
                    label = f"{kind.name} {name} {count} elements, block 2^{block_log2}"
                    codec.select(paths[-1])
                    stream = codec.encode(kind.dtype, data, block_log2)
                    try:
                        same = peer.decode(kind, stream) == data
                        ours_read_by_theirs += same
                        failures += not same
                        if not same:
                            print("zipnn reads our stream differently:", label)
                    except EOFError:
                        crashes += 1
                        print("zipnn crashed on our stream:", label)
                for block_log2 in (14, 17, 18):
                    label = f"{kind.name} {name} {count} elements, block 2^{block_log2}"
                    try:
                        theirs = peer.encode(kind, data, block_log2)
                    except EOFError:
                        crashes += 1
                        print("zipnn crashed while encoding:", label)
                        continue
                    if block_log2 == 17:
                        compared[0] += len(theirs)
                        compared[1] += len(codec.encode(kind.dtype, data, 17))
                    for path in paths:
                        codec.select(path)
                        try:
                            good = codec.decode(theirs, len(data)) == data
                        except ValueError as error:
                            good = False
                            print(error)
                        theirs_read_by_ours += good
                        if not good:
                            failures += 1
                            print(f"we ({path}) read zipnn's stream differently:", label)
    peer.close()
    print(
        f"zipnn read {ours_read_by_theirs} of our streams; we read {theirs_read_by_ours} of its streams "
        f"(on {', '.join(paths)}); {crashes} zipnn crashes, {failures} differences; "
        f"size against zipnn {compared[1] / compared[0]:.4f}"
    )
    return 1 if failures or crashes else 0


if __name__ == "__main__":
    sys.exit(main())
