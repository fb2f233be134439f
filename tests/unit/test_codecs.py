"""A conformance suite for every codec; then tests of single codecs."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.frozen_codecs import FIRST_UNKNOWN, FROZEN_CODECS

from dumont_gpu import native
from dumont_gpu.codecs import CODECS, LZ4, LZ4_HC, ZSTD, Codec, ZipNN, Zstd, codec_by_id
from dumont_gpu.codecs.zstd import MAX_LEVEL, parse_frame_header
from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import GiB, KiB, MiB

GOLDEN_LZ4 = Path(__file__).resolve().parents[1] / "golden" / "lz4"

EVERY = [*(codec for codec in CODECS if not isinstance(codec, ZipNN)), *(ZipNN(dtype) for dtype in Dtype)]
codecs = pytest.mark.parametrize("codec", EVERY, ids=lambda codec: getattr(codec, "dtype", codec).name.lower())


def encode(codec: Codec, data: bytes) -> bytes:
    out = memoryview(bytearray(len(data) + len(data) // 8 + 4096))
    size = codec.encode(memoryview(data), out)
    assert 0 < size <= len(out)
    return bytes(out[:size])


def decode(codec: Codec, stored: bytes, size: int) -> bytes:
    out = bytearray(size)
    codec.decode(memoryview(stored), memoryview(out))
    return bytes(out)


def samples() -> Iterator[tuple[str, bytes]]:
    rng = random.Random(7)
    yield "one element", bytes(4)
    yield "zeros", bytes(300_000)
    yield "random", rng.randbytes(200_000)
    yield "text", b"".join(f"step {i} loss {rng.random():.4f}\n".encode() for i in range(9000))[:196_608]
    yield "floats", struct.pack("<50000f", *(rng.gauss(0, 0.02) for _ in range(50_000)))
    yield "bf16", b"".join(struct.pack("<f", rng.gauss(0, 0.02))[2:] for _ in range(70_000))
    yield "nan", struct.pack("<f", float("nan")) * 30_000
    yield "denormal", struct.pack("<20000I", *(rng.randrange(1 << 20) for _ in range(20_000)))


@codecs
@pytest.mark.parametrize(("kind", "data"), [pytest.param(*sample, id=sample[0]) for sample in samples()])
def test_round_trip(codec: Codec, kind: str, data: bytes) -> None:
    assert decode(codec, encode(codec, data), len(data)) == data


@codecs
@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=3000), repeats=st.integers(1, 30))
def test_round_trip_of_anything(codec: Codec, data: bytes, repeats: int) -> None:
    data = (data * repeats) + bytes(-len(data) * repeats % codec.element_size)
    assert decode(codec, encode(codec, data), len(data)) == data


@codecs
def test_input_is_not_modified(codec: Codec) -> None:
    data = bytearray(random.Random(1).randbytes(4096) * 8)
    before = bytes(data)
    stored = bytearray(encode(codec, data))  # type: ignore[arg-type]
    assert bytes(data) == before
    kept = bytes(stored)
    decode(codec, stored, len(data))  # type: ignore[arg-type]
    assert bytes(stored) == kept


@codecs
def test_what_does_not_fit_is_refused_and_nothing_is_written_past_the_end(codec: Codec) -> None:
    data = random.Random(2).randbytes(65536)
    for room in (0, 1, 31, 100, 65535):
        memory = bytearray(b"\xa5" * (room + 64))
        assert codec.encode(memoryview(data), memoryview(memory)[:room]) == 0
        assert memory[room:] == b"\xa5" * 64


@codecs
@pytest.mark.parametrize("wrong", [-1, 1, -4, 4, 65536])
def test_another_original_size_is_damaged(codec: Codec, wrong: int) -> None:
    stored = encode(codec, bytes(range(256)) * 512)
    with pytest.raises(DamagedError):
        decode(codec, stored, 256 * 512 + wrong)


@codecs
def test_truncation_and_trailing_bytes_are_damaged(codec: Codec) -> None:
    data = b"".join(struct.pack("<f", i * 0.001) for i in range(4096))
    stored = encode(codec, data)
    cuts = [*range(64), *range(64, len(stored), 997), len(stored) - 1]
    for bad in (*(stored[:cut] for cut in cuts if cut < len(stored)), stored + b"\0", stored + stored):
        with pytest.raises((DamagedError, UnsupportedError)):
            decode(codec, bad, len(data))


def test_the_registry_knows_each_id_once() -> None:
    assert [(codec.id, codec.name) for codec in CODECS] == list(FROZEN_CODECS.items())
    assert [codec_by_id(number) for number in FROZEN_CODECS] == list(CODECS)
    for unknown in (FIRST_UNKNOWN, 255):
        with pytest.raises(UnsupportedError):
            codec_by_id(unknown)


# --- lz4 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [LZ4, LZ4_HC], ids=["lz4", "lz4_hc"])
def test_frames_are_independent_64_kib_blocks_with_their_size(codec: Codec) -> None:
    stored = encode(codec, b"workspace " * 20_000)
    assert stored[:4] == b"\x04\x22\x4d\x18"
    assert stored[4] & 0b0010_0000, "block independence"
    assert stored[5] >> 4 == 4, "64 KiB blocks"
    assert struct.unpack_from("<Q", stored, 6) == (200_000,)


@pytest.mark.skipif(not shutil.which("lz4"), reason="the lz4 command is not installed")
@pytest.mark.parametrize("codec", [LZ4, LZ4_HC], ids=["lz4", "lz4_hc"])
def test_the_lz4_command_decodes_our_frames(codec: Codec) -> None:
    for _, data in samples():
        stored = encode(codec, data)
        assert subprocess.run(["lz4", "-dc"], input=stored, capture_output=True, check=True).stdout == data


@pytest.mark.parametrize("frame", sorted(GOLDEN_LZ4.glob("*.lz4")), ids=lambda path: path.name)
def test_frames_of_the_lz4_command_decode(frame: Path) -> None:
    data = (GOLDEN_LZ4 / "original.txt").read_bytes()
    assert decode(LZ4, frame.read_bytes(), len(data)) == data


# --- zstd -------------------------------------------------------------------------------------------------------------

zstd_command = pytest.mark.skipif(not shutil.which("zstd"), reason="the zstd command is not installed")


def test_zstd_frames_have_their_size_and_no_checksum() -> None:
    stored = encode(ZSTD, b"workspace " * 20_000)
    assert stored[:4] == b"\x28\xb5\x2f\xfd"
    assert stored[4] == 0b1010_0000, "a single segment with a content size of four bytes"
    assert struct.unpack_from("<I", stored, 5) == (200_000,)
    large = encode(ZSTD, b"workspace " * 2_000_000)
    assert large[4:6] == b"\x80\x58", "a window of 2 MiB: what a decoder allocates is no more"


def test_equal_chunks_become_equal_zstd_frames() -> None:
    data = b"".join(f"line {number}\n".encode() for number in range(100_000))
    assert encode(ZSTD, data) == encode(ZSTD, data)


@zstd_command
def test_the_zstd_command_decodes_our_frames() -> None:
    for _, data in samples():
        stored = encode(ZSTD, data)
        assert subprocess.run(["zstd", "-dc"], input=stored, capture_output=True, check=True).stdout == data


@zstd_command
@pytest.mark.parametrize("options", [["-1"], ["-19"], ["--ultra", "-22"], ["--long=27"], ["--no-check"]], ids=" ".join)
def test_frames_of_the_zstd_command_decode(options: list[str], tmp_path: Path) -> None:
    """From a file, so that the command knows the content size; with a checksum unless told otherwise."""
    for name, data in samples():
        path = tmp_path / name
        path.write_bytes(data)
        stored = subprocess.run(["zstd", "-c", *options, path], capture_output=True, check=True).stdout
        assert decode(ZSTD, stored, len(data)) == data


@zstd_command
def test_longer_windows_of_the_zstd_command_are_damaged() -> None:
    data = bytes(1000)
    options = ["-c", "--long=28", "--stream-size=300000000", "--no-check"]
    stored = subprocess.run(["zstd", *options], input=bytes(300_000_000), capture_output=True, check=True).stdout
    with pytest.raises(DamagedError, match="window"):
        decode(ZSTD, stored[:6] + struct.pack("<I", len(data)) + stored[10:], len(data))


def test_every_level_of_zstd_round_trips() -> None:
    data = b"".join(f"line {number}\n".encode() for number in range(20_000))
    for level in range(1, 20):
        assert decode(ZSTD, encode(Zstd(level=level), data), len(data)) == data


@pytest.mark.parametrize("level", range(1, MAX_LEVEL + 1))
def test_no_level_of_zstd_makes_a_window_that_readers_refuse(level: int) -> None:
    """At level 19, large chunks have windows of 8 MiB; at level 22, of the 128 MiB that are allowed."""
    import zstandard

    for size in (4 * KiB, 4 * MiB, 64 * MiB, GiB):
        stream = zstandard.ZstdCompressor(level=level).compressobj(size=size)
        frame = stream.compress(bytes(4 * KiB)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        assert parse_frame_header(memoryview(frame)).content_size == size  # which checks the window


@pytest.mark.parametrize("level", [9, 12, 19])
def test_the_encoder_takes_no_more_memory_than_it_says(level: int) -> None:
    """In a process of its own, with peak memory set back before the chunk is encoded."""
    grown, most = subprocess.run(
        [sys.executable, "-c", ENCODER_MEMORY, str(level)], capture_output=True, check=True, text=True
    ).stdout.split()
    assert int(grown) <= int(most) < 2 * int(grown) + MiB


ENCODER_MEMORY = """
import random
import sys
from dumont_gpu.codecs import Zstd

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) << 10

codec, size = Zstd(level=int(sys.argv[1])), 4 << 20
chunk = memoryview(random.Random(1).randbytes(4096) * (size >> 12))
out = memoryview(bytearray(b"x" * size))
codec.encode(chunk[:1000], out)
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = resident("VmRSS")
codec.encode(chunk, out)
print(resident("VmHWM") - before, codec.encoder_memory(size))
"""


# --- zipnn ------------------------------------------------------------------------------------------------------------


def test_golden_streams_decode() -> None:
    import hashlib

    folder = Path(__file__).resolve().parents[1] / "golden" / "streams"
    listed = json.loads((folder / "streams.json").read_text())
    assert len(listed) == len(list(folder.glob("*.zipnn"))) > 10
    for stream in listed:
        stored = (folder / f"{stream['name']}.zipnn").read_bytes()
        content = decode(ZipNN(), stored, stream["original_size"])
        assert hashlib.sha256(content).hexdigest() == stream["original_sha256"], stream["name"]


def test_every_instruction_set_writes_and_reads_the_same() -> None:
    chosen = native.cpu_path()
    paths = [path for path in ("portable", "avx2", "avx512", "neon") if native.select_cpu_path(path)]
    try:
        assert len(paths) >= 1
        for dtype in Dtype:
            for _, data in samples():
                streams = []
                for path in paths:
                    assert native.select_cpu_path(path)
                    streams.append(encode(ZipNN(dtype), data))
                for path in paths:
                    assert native.select_cpu_path(path)
                    for stream in streams:
                        assert decode(ZipNN(dtype), stream, len(data)) == data
    finally:
        native.select_cpu_path(chosen)


@pytest.mark.parametrize(
    ("kind", "dtype", "low", "high"),
    [
        ("bf16", Dtype.BF16, 0.60, 0.70),
        ("fp32", Dtype.FP32, 0.80, 0.88),
        ("fp32 that is bf16", Dtype.FP32, 0.30, 0.35),
        ("fp32 that is fp16", Dtype.FP32, 0.40, 0.46),
    ],
)
def test_gaussian_weights_shrink_as_they_should(kind: str, dtype: Dtype, low: float, high: float) -> None:
    rng = random.Random(3)
    values = [rng.gauss(0, 0.02) for _ in range(100_000)]
    data = struct.pack("<100000f", *values)
    if kind == "bf16":
        data = b"".join(data[i + 2 : i + 4] for i in range(0, len(data), 4))
    elif kind == "fp32 that is bf16":
        data = b"".join(b"\0\0" + data[i + 2 : i + 4] for i in range(0, len(data), 4))
    elif kind == "fp32 that is fp16":
        data = struct.pack("<100000f", *struct.unpack("<100000e", struct.pack("<100000e", *values)))
    assert low < len(encode(ZipNN(dtype), data)) / len(data) < high


def test_partial_elements_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="FP32"):
        ZipNN(Dtype.FP32).encode(memoryview(bytes(6)), memoryview(bytearray(100)))
