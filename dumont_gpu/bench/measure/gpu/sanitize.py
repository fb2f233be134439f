"""A short run of every kernel, to be watched by compute-sanitizer.

    compute-sanitizer --tool memcheck python -m dumont_gpu.bench.measure.gpu.sanitize all STREAMS
    compute-sanitizer --tool racecheck python -m dumont_gpu.bench.measure.gpu.sanitize ours STREAMS
    compute-sanitizer --tool initcheck python -m dumont_gpu.bench.measure.gpu.sanitize good STREAMS

STREAMS is the checkout's `tests/golden/streams`. `good`: streams and frames that decode, and chunks of every type to
encode, without nvCOMP's kernels, which are not ours to check. `ours`: damaged streams and frames, too; the kernels'
answers are compared with the CPU's. `all`: with nvCOMP.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dumont_gpu.backends import CpuBackend, DigestCheck, open_device
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.backends.device import Lz4Batch, Stream
from dumont_gpu.codecs import Codec, Lz4, ZipNN
from dumont_gpu.codecs.lz4 import frame_header
from dumont_gpu.errors import DumontError
from dumont_gpu.format.digests import digest_function
from dumont_gpu.native import Dtype, layout
from dumont_gpu.sizes import MiB

ROOM = MiB  # the largest chunk here
OVERREAD = 16  # bytes after the encoded ones that kernels may read, and ignore: zipnn_blocks.h
HEADERS = layout("kHeaderSize"), len(frame_header(1))  # bytes that are copied in before those that kernels wrote
DAMAGES = 6  # of each stream
LARGEST = 600_000  # bytes; longer streams show nothing more, and a sanitizer is slow


class PaddedDevice:
    """Writes the bytes that kernels may read beyond a copy, so that initcheck reports only other bytes.

    Args:
        nvcomp: whether nvCOMP encodes. Otherwise our kernels write every block of a frame raw.
    """

    def __init__(self, device: Any, nvcomp: bool) -> None:
        self._device, self._nvcomp = device, nvcomp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def new_stream(self) -> Any:
        return PaddedStream(self._device.new_stream(), self._nvcomp)


class PaddedStream:
    def __init__(self, stream: Stream, nvcomp: bool) -> None:
        self._stream, self._nvcomp = stream, nvcomp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def copy_in(self, to: int, source: memoryview) -> None:
        self._stream.copy_in(to, source)
        if len(source) not in HEADERS:
            self._stream.clear(to + len(source), OVERREAD)

    def encode_lz4(self, batch: Lz4Batch, block_size: int, scratch: int) -> None:
        if self._nvcomp:
            self._stream.encode_lz4(batch, block_size, scratch)


def zipnn_streams(folder: Path) -> list[tuple[bytes, int]]:
    """Streams and original sizes: the golden streams, and a stream of each type with blocks of every mixture."""
    found = []
    for path in sorted(folder.glob("*.zipnn")):
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
    # Without nvCOMP: frames of raw blocks only, which reach the copying kernel alone.
    contents = [draw.randbytes(200_001)] if noise_only else [text, text + draw.randbytes(150_000) + text]
    frames = []
    for content in contents:
        out = memoryview(bytearray(2 * len(content) + 1024))
        frames.append((bytes(out[: Lz4().encode(memoryview(content), out)]), len(content)))
    return frames


def chunks() -> Iterator[tuple[Codec, bytes]]:
    """Chunks to encode: blocks of every mixture of raw, constant and coded planes, whole and cut off, as each type."""
    draw = random.Random(9)
    floats = struct.pack("<50000f", *(draw.gauss(0, 0.02) for _ in range(50_000)))
    halves = b"".join(floats[at + 2 : at + 4] for at in range(0, len(floats), 4))
    skewed = bytes(draw.choices(range(256), weights=[1.1**-i for i in range(256)], k=140_000))
    mixed = halves + skewed + draw.randbytes(140_000) + bytes(140_000)
    for dtype in Dtype:
        for content in (floats, mixed, mixed[:12_345], skewed[:8]):
            yield ZipNN(dtype), content[: len(content) // dtype.size * dtype.size]
    text = b"".join(b"epoch %d loss=%.4f\n" % (i, draw.random()) for i in range(9_000))
    for content in (text, text + draw.randbytes(150_001), draw.randbytes(65_536), text[:1]):
        yield Lz4(), content


def encoded_alike(place: CudaBackend, codec: Codec, content: bytes) -> bool:
    """Whether the device encodes a chunk rightly: to the CPU's ZipNN bytes, or an LZ4 frame that the CPU decodes."""
    digest = bytearray()
    out, ours = (memoryview(bytearray(2 * len(content) + 1024)) for _ in range(2))
    stored = out[: place.encode(codec, memoryview(content), out, digest)]
    if digest != digest_function("blake3")(stored):
        return False
    if codec.id == ZipNN().id:
        return stored == ours[: codec.encode(memoryview(content), ours)]
    return outcome(CpuBackend(), codec.id, bytes(stored), len(content)) == content


def damaged(stored: bytes, seed: int) -> bytes:
    draw = random.Random(seed)
    bad = bytearray(stored)
    for _ in range(draw.choice((1, 2, 8))):
        bad[draw.randrange(32, len(bad))] = draw.randrange(256)  # the header stays: the CPU refuses a damaged header
    return bytes(bad)


def outcome(place: Any, codec: int, stored: bytes, size: int) -> str | bytes:
    out = memoryview(bytearray(size))
    check = DigestCheck(digest_function("blake3")(stored), lambda: None)
    try:
        place.decode(codec, memoryview(bytearray(stored)), out, check)
    except DumontError as error:
        return str(error)
    return bytes(out)


def main() -> int:
    parser = argparse.ArgumentParser(description="Decode and encode a little of everything on a CUDA device.")
    parser.add_argument("what", choices=("good", "ours", "all"))
    parser.add_argument("streams", type=Path, help="the checkout's tests/golden/streams")
    parser.add_argument("--device", type=int, default=0)
    options = parser.parse_args()
    cases = [(ZipNN().id, stored, size) for stored, size in zipnn_streams(options.streams)]
    cases += [(Lz4().id, stored, size) for stored, size in lz4_frames(noise_only=options.what != "all")]
    if options.what != "good":
        cases += [
            (codec, damaged(stored, seed), size) for codec, stored, size in list(cases) for seed in range(DAMAGES)
        ]
    device = PaddedDevice(open_device(options.device), nvcomp=options.what == "all")
    backend = CudaBackend(device, memory=512 * MiB, minimum=0)
    backend.prepare(ROOM, encode=True, decode=True)
    wrong = sum(outcome(backend, *case) != outcome(CpuBackend(), *case) for case in cases)
    print(f"{len(cases)} chunks, {backend.repeated} found damaged by the device, {wrong} unlike the CPU's")
    to_encode = list(chunks())
    unlike = sum(not encoded_alike(backend, *chunk) for chunk in to_encode)
    print(f"{len(to_encode)} chunks encoded, {unlike} not as the CPU would; {len(cases)} decoded: {wrong} unlike")
    wrong += unlike
    backend.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
