"""The first thing that a new device is asked: one chunk of every element type and one LZ4 frame, both ways.

    python bench/gpu_smoke.py [--size BYTES] [--device N]

Takes the backend as jobs do. Each line is printed when its chunk is done: the last one names what hangs.
"""

from __future__ import annotations

import argparse
import mmap
import random
import struct
import sys
import time

from gpu_lz4 import text

from dumont_gpu.backends import CudaBackend, open_device
from dumont_gpu.codecs import Codec, Lz4, ZipNN
from dumont_gpu.errors import DumontError
from dumont_gpu.native import Dtype, spoil

MiB = 1 << 20
SIZE = 64 * MiB  # a chunk, as jobs have it
PERIOD = 256 << 10  # bytes of weights that are drawn; blocks are coded alone, and are no larger
CHUNKS: tuple[Codec, ...] = (*(ZipNN(dtype) for dtype in Dtype), Lz4())


class WrongError(Exception):
    """The device does something else than the CPU."""


def content_for(codec: Codec, size: int) -> memoryview:
    """What such chunks hold: normal weights, whatever their type makes of the bytes, or text."""
    if not isinstance(codec, ZipNN):
        return text(size, 0.1)
    draw = random.Random(codec.dtype)
    floats = struct.pack(f"<{PERIOD // 4}f", *(draw.gauss(0, 0.02) for _ in range(PERIOD // 4)))
    if codec.dtype is Dtype.FP16:
        floats = struct.pack(f"<{PERIOD // 4}e", *struct.unpack(f"<{PERIOD // 4}f", floats))
    elif codec.dtype is not Dtype.FP32:  # the upper half of a float, or its upper byte: sign and exponent
        floats = b"".join(floats[at + 4 - codec.dtype.size : at + 4] for at in range(0, len(floats), 4))
    out = memoryview(mmap.mmap(-1, size))
    for start in range(0, size, len(floats)):
        out[start : start + len(floats)] = floats[: len(out[start : start + len(floats)])]
    return out


def check(backend: CudaBackend, codec: Codec, content: memoryview) -> str:
    """Decodes and encodes one chunk; returns how long that took.

    Raises:
        WrongError: the result is not the CPU's, or the device did not do it.
        DumontError: the device failed.
    """
    room = len(content) + len(content) // 64 + 1024
    ours, theirs = memoryview(mmap.mmap(-1, room)), memoryview(mmap.mmap(-1, room))
    expected = ours[: codec.encode(content, ours)]
    out = memoryview(mmap.mmap(-1, len(content)))
    if not (backend.decodes(codec.id, len(content)) and backend.encodes(codec, len(content))):
        raise WrongError("the device does not take this chunk")
    repeated = backend.repeated
    decoding = time.perf_counter()
    backend.decode(codec.id, expected, out)
    decoded = time.perf_counter()
    if backend.repeated != repeated:
        raise WrongError("the device calls a good chunk damaged")
    if out != content:
        raise WrongError("the device decodes to other bytes")
    encoding = time.perf_counter()
    stored = theirs[: backend.encode(codec, content, theirs)]
    encoded = time.perf_counter()
    if isinstance(codec, ZipNN) and stored != expected:
        raise WrongError(f"the device encodes to {len(stored)} bytes, unlike the CPU's {len(expected)}")
    spoil(out)
    codec.decode(stored, out)
    if out != content:
        raise WrongError("the CPU decodes what the device encoded to other bytes")
    return f"decoded in {(decoded - decoding) * 1e3:.1f} ms, encoded in {(encoded - encoding) * 1e3:.1f} ms"


def label(codec: Codec) -> str:
    return f"{codec.name} {codec.dtype.name.lower()}" if isinstance(codec, ZipNN) else codec.name


def main() -> int:
    parser = argparse.ArgumentParser(description="Decode and encode one chunk of everything on a CUDA device.")
    parser.add_argument("--size", type=int, default=SIZE, metavar="BYTES")
    parser.add_argument("--device", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    try:
        backend = CudaBackend(open_device(options.device), minimum=0)
        backend.prepare(options.size, encode=True, decode=True)
    except DumontError as error:
        print(error)
        return 1
    for codec in CHUNKS:
        try:
            print(f"{label(codec)}: right, {check(backend, codec, content_for(codec, options.size))}")
        except (DumontError, WrongError) as error:
            wrong += 1
            print(f"{label(codec)}: WRONG: {error}")
    print(f"{backend.name}: {len(CHUNKS) - wrong} of {len(CHUNKS)} chunks of {options.size >> 20} MiB are right")
    backend.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
