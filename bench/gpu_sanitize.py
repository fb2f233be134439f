"""A short decoding run of every kernel, to be watched by compute-sanitizer.

    compute-sanitizer --tool memcheck python bench/gpu_sanitize.py all
    compute-sanitizer --tool racecheck python bench/gpu_sanitize.py ours
    compute-sanitizer --tool initcheck python bench/gpu_sanitize.py good

`good`: streams and frames that decode, without nvCOMP's kernels, which are not ours to check. `ours`: damaged ones too;
what the kernels answer to damage is held against the CPU. `all`: with nvCOMP.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from pathlib import Path
from typing import Any

from dumont_gpu.backends import CpuBackend, CudaBackend, open_device
from dumont_gpu.backends.device import Stream
from dumont_gpu.codecs import Lz4, ZipNN
from dumont_gpu.errors import DumontError
from dumont_gpu.native import Dtype

STREAMS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "streams"
ROOM = 1 << 20  # the largest chunk here
OVERREAD = 16  # bytes after the stored ones that kernels may read, whatever is there: kernels/zipnn_blocks.h
DAMAGES = 6  # of each stream
LARGEST = 600_000  # bytes; longer streams only repeat what shorter ones show, and a sanitizer is slow


class PaddedDevice:
    """Writes the bytes that kernels may read beyond a copy, so that initcheck reports the others only."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def new_stream(self) -> Any:
        return PaddedStream(self._device.new_stream())


class PaddedStream:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def copy_in(self, to: int, source: memoryview) -> None:
        self._stream.copy_in(to, source)
        self._stream.clear(to + len(source), OVERREAD)


def zipnn_streams() -> list[tuple[bytes, int]]:
    """Stored bytes and original sizes: the golden streams, and one of each type with blocks of every mixture."""
    found = []
    for path in sorted(STREAMS.glob("*.zipnn")):
        if path.stem.endswith("-hand"):
            continue  # its codes are too long for the kernel, whose output then stays unwritten
        stored = path.read_bytes()
        (size,) = struct.unpack_from("<Q", stored, 16)
        if size <= LARGEST:
            found.append((stored, size))
    draw = random.Random(3)
    skewed = bytes(draw.choices(range(256), weights=[1.1**-i for i in range(256)], k=300_000))
    noise = draw.randbytes(200_000)
    for dtype in (Dtype.FP32, Dtype.BF16, Dtype.FP8_E4M3):
        for content in (skewed + noise + bytes(100_000), noise):
            out = memoryview(bytearray(2 * len(content)))
            if size := ZipNN(dtype).encode(memoryview(content), out):
                found.append((bytes(out[:size]), len(content)))
    return found


def lz4_frames(noise_only: bool) -> list[tuple[bytes, int]]:
    draw = random.Random(5)
    text = b"".join(b"epoch %d loss=%.4f\n" % (i, draw.random()) for i in range(9_000))
    # Without nvCOMP: frames of nothing but stored blocks, which reach the copying kernel only.
    contents = [draw.randbytes(200_001)] if noise_only else [text, text + draw.randbytes(150_000) + text]
    frames = []
    for content in contents:
        out = memoryview(bytearray(2 * len(content) + 1024))
        frames.append((bytes(out[: Lz4().encode(memoryview(content), out)]), len(content)))
    return frames


def damaged(stored: bytes, seed: int) -> bytes:
    draw = random.Random(seed)
    bad = bytearray(stored)
    for _ in range(draw.choice((1, 2, 8))):
        bad[draw.randrange(32, len(bad))] = draw.randrange(256)  # the header stays: the CPU refuses those
    return bytes(bad)


def outcome(place: Any, codec: int, stored: bytes, size: int) -> str | bytes:
    out = memoryview(bytearray(size))
    try:
        place.decode(codec, memoryview(bytearray(stored)), out)
    except DumontError as error:
        return str(error)
    return bytes(out)


def main() -> int:
    parser = argparse.ArgumentParser(description="Decode a little of everything on a CUDA device.")
    parser.add_argument("what", choices=("good", "ours", "all"))
    parser.add_argument("--device", type=int, default=0)
    options = parser.parse_args()
    cases = [(ZipNN().id, stored, size) for stored, size in zipnn_streams()]
    cases += [(Lz4().id, stored, size) for stored, size in lz4_frames(noise_only=options.what != "all")]
    if options.what != "good":
        cases += [
            (codec, damaged(stored, seed), size) for codec, stored, size in list(cases) for seed in range(DAMAGES)
        ]
    device = PaddedDevice(open_device(options.device))
    backend = CudaBackend(device, memory=256 << 20, minimum=0)
    backend.prepare(ROOM)
    wrong = sum(outcome(backend, *case) != outcome(CpuBackend(), *case) for case in cases)
    print(f"{len(cases)} chunks, {backend.repeated} found damaged by the device, {wrong} unlike the CPU's")
    backend.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
