"""The first question to a new device: a chunk of every element type and an LZ4 frame, both ways; tensors, loaded there.

    python -m dumont_gpu.bench.measure.gpu.smoke [--size BYTES] [--device N]

Takes the backend as jobs do. Each line is printed when its chunk is done: a chunk that hangs follows the last line.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

from dumont_gpu.backends import open_device
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.bench.measure.gpu.frames import text
from dumont_gpu.bench.measure.gpu.load_check import check_loads
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.codecs import Codec, Lz4, ZipNN
from dumont_gpu.errors import DumontError
from dumont_gpu.native import Dtype, spoil
from dumont_gpu.sizes import KiB, MiB

SIZE = 64 * MiB  # a chunk, as jobs have it
PERIOD = 256 * KiB  # bytes of weights that are drawn: no block, coded alone, is larger
CHUNKS: tuple[Codec, ...] = (*(ZipNN(dtype) for dtype in Dtype), Lz4())


class WrongError(Exception):
    """The device gives another result than the CPU."""


def content_for(codec: Codec, size: int) -> memoryview:
    """Normal weights, cut to the size of the type, or text."""
    if not isinstance(codec, ZipNN):
        return text(size, 0.1)
    draw = random.Random(codec.dtype)
    floats = struct.pack(f"<{PERIOD // 4}f", *(draw.gauss(0, 0.02) for _ in range(PERIOD // 4)))
    if codec.dtype is Dtype.FP16:
        floats = struct.pack(f"<{PERIOD // 4}e", *struct.unpack(f"<{PERIOD // 4}f", floats))
    elif codec.dtype is not Dtype.FP32:  # the upper half of a float, or its upper byte: sign and exponent
        floats = b"".join(floats[at + 4 - codec.dtype.size : at + 4] for at in range(0, len(floats), 4))
    out = anonymous(size)
    for start in range(0, size, len(floats)):
        out[start : start + len(floats)] = floats[: len(out[start : start + len(floats)])]
    return out


def check(backend: CudaBackend, codec: Codec, content: memoryview) -> str:
    """Decodes and encodes one chunk; returns the times as text.

    Raises:
        WrongError: the result is not the CPU's, or the device left the work to the CPU.
        DumontError: the device failed.
    """
    room = len(content) + len(content) // 64 + 1024
    ours, theirs = anonymous(room), anonymous(room)
    expected = ours[: codec.encode(content, ours)]
    out = anonymous(len(content))
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
    encoded_chunk = theirs[: backend.encode(codec, content, theirs)]
    encoded = time.perf_counter()
    if isinstance(codec, ZipNN) and encoded_chunk != expected:
        raise WrongError(f"the device encodes to {len(encoded_chunk)} bytes, unlike the CPU's {len(expected)}")
    spoil(out)
    codec.decode(encoded_chunk, out)
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
    loads = loaded(options.device)
    print(
        f"{backend.name}: {len(CHUNKS) - wrong} of {len(CHUNKS)} chunks of {options.size // MiB} MiB are right, "
        f"{loads.count(True)} of {len(loads)} ways of loading tensors"
    )
    backend.close()
    return 1 if wrong or not all(loads) else 0


def loaded(number: int) -> list[bool]:
    """Loads tensors of every kind into the device's memory; returns for each way whether they were right."""
    found = []
    try:
        with tempfile.TemporaryDirectory(prefix="dumont-smoke-") as folder:
            for check in check_loads(Path(folder), number):
                outcome = f"WRONG: {check.problem}" if check.problem else "right"
                print(f"loading, {check.method}, {check.framework}, {check.way}: {outcome}")
                found.append(not check.problem)
    except (DumontError, OSError) as error:
        print(f"loading tensors: WRONG: {error}")
        found.append(False)
    return found


if __name__ == "__main__":
    sys.exit(main())
