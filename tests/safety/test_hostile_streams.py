"""Malformed streams whose checksums are right: the attacker made them, too."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.devices import emulated_device
from support.hostile import (  # fmt: skip
    LZ4,
    LZ4_HC,
    RAW,
    ZIPNN,
    ZSTD,
    Archive,
    Chunk,
    clear_error,
    command,
    encode,
    float_bytes,
    header_checksum,
    lz4_frame,
    undecodable,
    written,
    zipnn_stream,
    zstd_frame,
)

from dumont_gpu.backends import Backend, select_backend
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.codecs import codec_by_id
from dumont_gpu.errors import DamagedError, DumontError, UnsupportedError
from dumont_gpu.native import cpu_path, select_cpu_path, zipnn_decode

CONTENT = float_bytes(100_000)  # 200,000 bytes: four blocks of 64 KiB
TEXT = bytes(range(256)) * 300 + b"the end"  # 76,807 bytes: two blocks


@pytest.fixture(params=["cpu", "device"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend that runs codecs; all must refuse alike."""
    if request.param == "cpu":
        yield select_backend("cpu")
        return
    device = CudaBackend(emulated_device(), minimum=0)
    device.prepare(1 << 20, decode=True)
    yield device
    device.close()


def archive_of(stored: bytes, size: int, codec: int) -> Archive:
    """A snapshot of a file whose only chunk is `stored`."""
    archive = Archive([], [Chunk(stored, size, codec)], header={"chunk_size": 64 << 20})
    archive.file("f", size=size, extents=[[0, 0, 0, size]], sha256=[bytes(32).hex()])
    return archive


def decode(backend: Backend, codec: int, stored: bytes, size: int) -> bytes:
    """Decodes within a larger buffer and checks that the bytes around are untouched."""
    room = bytearray(b"\xa5" * (size + 512))
    out = memoryview(room)[256 : 256 + size]
    try:
        backend.decode(codec, memoryview(stored), out)
    finally:
        assert room[:256] == room[256 + size :] == b"\xa5" * 256
    return bytes(out)


def must_refuse(
    backend: Backend, codec: int, stored: bytes, size: int, error: type[DumontError] = DamagedError
) -> None:
    clear_error(lambda: decode(backend, codec, stored, size), error)


# --- raw --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 4096, 64 << 20])
def test_stored_chunk_of_another_size_is_refused(size: int, backend: Backend, target: Path) -> None:
    must_refuse(backend, RAW, b"content", size)
    undecodable(archive_of(b"content", size, RAW), target)


# --- lz4 --------------------------------------------------------------------------------------------------------------

FRAME = lz4_frame(TEXT)
BLOCKS = 15  # where the blocks of a frame with its size begin


def lz4_cases() -> Iterator[tuple[str, bytes]]:
    """Frames that stand for TEXT, or nearly."""
    yield "linked blocks", lz4_frame(TEXT, block_linked=True)
    yield "blocks of 256 KiB", lz4_frame(TEXT, block_size=5)
    yield "blocks of 4 MiB", lz4_frame(TEXT, block_size=7)
    yield "no content size", lz4_frame(TEXT, store_size=False)
    yield "content size one too small", lz4_frame(TEXT[:-1])[:BLOCKS] + FRAME[BLOCKS:]
    yield "content size one too large", lz4_frame(TEXT + b"x")[:BLOCKS] + FRAME[BLOCKS:]
    yield "one byte less", lz4_frame(TEXT[:-1])
    yield "one byte more", lz4_frame(TEXT + b"x")
    yield "declared rightly, holds less", FRAME[:BLOCKS] + lz4_frame(TEXT[:-1])[BLOCKS:]
    yield "declared rightly, holds more", FRAME[:BLOCKS] + lz4_frame(TEXT + b"x")[BLOCKS:]
    yield "no blocks", FRAME[:BLOCKS] + bytes(4)
    yield "only a header", FRAME[:BLOCKS]
    yield "no end mark", FRAME[:-4]
    yield "a byte follows", FRAME + b"\0"
    yield "a frame follows", FRAME + FRAME
    yield "an empty frame follows", FRAME + lz4_frame(b"")
    yield "a skippable frame follows", FRAME + b"\x50\x2a\x4d\x18" + bytes(4)
    yield "a skippable frame before", b"\x50\x2a\x4d\x18" + bytes(4) + FRAME
    yield "a skippable frame of that size", b"\x50\x2a\x4d\x18" + struct.pack("<I", len(TEXT)) + TEXT[:70_000]
    yield "a legacy frame", b"\x02\x21\x4c\x18" + FRAME[BLOCKS:]
    yield "a block, no frame", FRAME[BLOCKS + 4 :]
    yield "magic of zstd", b"\x28\xb5\x2f\xfd" + FRAME[4:]
    yield "bad header checksum", FRAME[:14] + bytes([FRAME[14] ^ 1]) + FRAME[15:]
    yield "block larger than 64 KiB", FRAME[:BLOCKS] + struct.pack("<I", 65_537) + bytes(65_537) + bytes(4)
    yield "block larger than the frame", FRAME[:BLOCKS] + struct.pack("<I", 65_000) + FRAME[BLOCKS + 4 :]
    yield "raw block larger than 64 KiB", FRAME[:BLOCKS] + struct.pack("<I", 65_537 | 1 << 31) + bytes(65_541)
    yield "block sizes of 2^31 - 1", FRAME[:BLOCKS] + struct.pack("<I", (1 << 31) - 1) + FRAME[BLOCKS + 4 :]
    yield "first block twice", FRAME[:BLOCKS] + 2 * first_block() + bytes(4)
    yield "offset before the block", FRAME[:BLOCKS] + lz4_block(b"\x1fx\x02\x00" + b"\xff" * 200 + b"\0")
    yield "offset of zero", FRAME[:BLOCKS] + lz4_block(b"\x1fx\x00\x00" + b"\xff" * 200 + b"\0")
    yield "endless literal length", FRAME[:BLOCKS] + lz4_block(b"\xf0" + b"\xff" * 60_000)
    yield "endless match length", FRAME[:BLOCKS] + lz4_block(b"\x1fx\x01\x00" + b"\xff" * 60_000)
    yield "offset into the block before", FRAME[:BLOCKS] + first_block() + lz4_block(b"\x1fx\x02\x00\xff\0\x50abcde")


def lz4_block(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def first_block() -> bytes:
    (size,) = struct.unpack_from("<I", FRAME, BLOCKS)
    return FRAME[BLOCKS : BLOCKS + 4 + (size & 0x7FFFFFFF)]


@pytest.mark.parametrize("codec", [LZ4, LZ4_HC])
@pytest.mark.parametrize(("what", "stored"), list(lz4_cases()), ids=[what for what, _ in lz4_cases()])
def test_malformed_lz4_frame_is_refused(what: str, stored: bytes, codec: int, backend: Backend, target: Path) -> None:
    must_refuse(backend, codec, stored, len(TEXT))
    if backend.name == "cpu" and len(stored) <= len(TEXT):
        undecodable(archive_of(stored, len(TEXT), codec), target)
        assert not any(content for _, content in written(target).values())


def test_lz4_frame_with_a_reserved_bit_or_another_version_is_refused(backend: Backend) -> None:
    for offset, bits in ((4, 0x02), (4, 0x80), (4, 0xC0), (5, 0x01), (5, 0x80)):
        frame = bytearray(FRAME)
        frame[offset] ^= bits
        frame[14] = header_checksum(bytes(frame[4:14]))
        must_refuse(backend, LZ4, bytes(frame), len(TEXT))


def test_lz4_frame_with_a_dictionary_is_refused(backend: Backend) -> None:
    header = bytes([FRAME[4] | 1]) + FRAME[5:14] + struct.pack("<I", 7)
    frame = FRAME[:4] + header + bytes([header_checksum(header)]) + FRAME[15:]
    must_refuse(backend, LZ4, frame, len(TEXT))


@pytest.mark.parametrize("option", ["content_checksum", "block_checksum"])
def test_wrong_checksum_inside_an_lz4_frame_is_refused(option: str, backend: Backend) -> None:
    """The format allows both, though ours covers them."""
    frame = lz4_frame(TEXT, **{option: True})
    assert decode(backend, LZ4, frame, len(TEXT)) == TEXT
    at = len(frame) - (1 if option == "content_checksum" else 5)
    must_refuse(backend, LZ4, frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :], len(TEXT))


# --- zipnn ------------------------------------------------------------------------------------------------------------

STREAM = zipnn_stream(CONTENT)
PLANES, NUM_BLOCKS = 2, 4
TYPES, ENDS = 32, 32 + PLANES * NUM_BLOCKS
BODY = ENDS + 8 * PLANES * NUM_BLOCKS


def zipnn(planes: list[list[bytes]], size: int, block_log2: int = 16, types: bytes | None = None) -> bytes:
    """A bf16 stream of the given encoded blocks, valid or not."""
    blocks = [block for plane in planes for block in plane]
    ends = b""
    for plane in planes:
        ends += b"".join(struct.pack("<Q", sum(map(len, plane[: at + 1]))) for at in range(len(plane)))
    body = (types or b"\1" * len(blocks)) + ends + b"".join(blocks)
    header = b"ZN\0\5\4\x0a\1\0\1\0\0\0\0\0" + bytes([block_log2, 6]) + struct.pack("<QQ", size, 32 + len(body))
    return header + body


def bent(offset: int, data: bytes) -> bytes:
    return STREAM[:offset] + data + STREAM[offset + len(data) :]


def u64(number: int) -> bytes:
    return struct.pack("<Q", number % (1 << 64))


def end(index: int) -> int:
    """A field of the table of block ends."""
    return int.from_bytes(STREAM[ENDS + 8 * index : ENDS + 8 * index + 8], "little")


def zipnn_cases() -> Iterator[tuple[str, bytes]]:
    yield "wrong magic", bent(0, b"NZ")
    for size in (0, 1, len(CONTENT) - 1, len(CONTENT) + 1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1):
        yield f"original size {size}", bent(16, u64(size))
    for size in (0, 31, 32, len(STREAM) - 1, len(STREAM) + 1, 1 << 32, 1 << 63, (1 << 64) - 1):
        yield f"stream size {size}", bent(24, u64(size))
    for kind in (2, 3, 127, 255):
        yield f"block type {kind}", bent(TYPES, bytes([kind]))
    for index in (0, 3, 4, 7):
        for number in (0, end(index) - 1, end(index) + 1, 1 << 32, 1 << 63, (1 << 64) - 1, -len(STREAM)):
            if number % (1 << 64) != end(index):
                yield f"end {index} is {number}", bent(ENDS + 8 * index, u64(number))
    yield "a raw block that is said to be coded", bent(TYPES + 4, b"\0")
    yield "smaller blocks than it has", bent(14, b"\x0f")
    yield "larger blocks than it has", bent(14, b"\x11")
    yield "one block of everything", bent(14, b"\x3e")
    yield "followed by a byte", STREAM + b"\0"
    yield "followed by a stream", STREAM + STREAM
    yield "only a header", STREAM[:24] + u64(32)
    yield "empty", b""
    yield "an empty stream", zipnn([[], []], 0)
    yield "streams without end", zipnn([[], []], 0) * 100
    yield "said to be one of many, and alone twice", bent(13, b"\x94") + STREAM
    yield "many, of which the last is short", bent(13, b"\x94") + STREAM[:100]
    yield "many empty ones", (zipnn([[], []], 0)[:13] + b"\x94" + zipnn([[], []], 0)[14:]) * 1000
    coded = bytes(STREAM[BODY + end(3) : BODY + end(3) + end(4)])
    raw = [b"\1"] * 4
    for what, block in huff0_cases(coded):
        yield f"huff0: {what}", zipnn([raw, [block] * 3 + [b"\1"]], len(CONTENT))


def huff0_cases(good: bytes) -> Iterator[tuple[str, bytes]]:
    """A damaged block of 32,768 exponents; after its tree come three u16 sizes and four streams."""
    tree = 1 + (good[0] if good[0] < 128 else (good[0] - 126) // 2)
    jump = list(struct.unpack_from("<HHH", good, tree))
    yield "empty", b""
    yield "only a tree", good[:tree]
    yield "no streams", good[: tree + 6]
    yield "one byte short", good[:-1]
    yield "one byte more", good + b"\0"
    yield "no end mark", good[:-1] + b"\0"
    yield "another end mark", good[:-1] + bytes([good[-1] ^ 0x80 if good[-1] != 0x80 else 0x40])
    yield "no tree at all", b"\0" + good[tree:]
    yield "tree longer than the block", b"\x7f" + good[1 : tree + 6]
    for header in (0, 1, 2, 127, 128, 129, 255):
        yield f"tree header {header}", bytes([header]) + good[1:]
    for at in range(3):
        for size in (0, 1, jump[at] - 1, jump[at] + 1, 0x7FFF, 0xFFFF):
            sizes = jump[:at] + [size] + jump[at + 1 :]
            yield f"stream {at} of {size} bytes", good[:tree] + struct.pack("<HHH", *sizes) + good[tree + 6 :]
    yield "all weights zero", b"\xff" + bytes(64) + good[tree:]
    yield "one weight", b"\x80\x10" + good[tree:]
    yield "weights beyond the limit", b"\x83\xff\xff" + good[tree:]
    yield "weights that do not add up", b"\x84\x12\x34\x50" + good[tree:]
    yield "longest code of 12 bits and no others", b"\x80\xb0" + good[tree:]
    yield "zeros", bytes(1000)
    yield "ones", b"\xff" * 1000


@pytest.mark.parametrize(("what", "stored"), list(zipnn_cases()), ids=[what for what, _ in zipnn_cases()])
def test_malformed_zipnn_stream_is_refused(what: str, stored: bytes, backend: Backend) -> None:
    must_refuse(backend, ZIPNN, stored, len(CONTENT))


def test_malformed_zipnn_stream_ends_a_restore(target: Path) -> None:
    for _, stored in list(zipnn_cases())[::7]:
        if 0 < len(stored) <= len(CONTENT):
            undecodable(archive_of(stored, len(CONTENT), ZIPNN), target / hashlib.sha256(stored).hexdigest())


@pytest.mark.parametrize(
    ("offset", "values"),
    [(2, [1, 255]), (3, [4, 6, 255]), (5, [0, 9, 220]), (6, [0, 2]), (7, [2, 9, 255]), (8, [0, 2, 3]), (9, [1, 255]),
     (10, [1]), (11, [1]), (12, [1]), (13, [1, 127]), (14, [0, 63, 64, 255]), (15, [0, 1, 3, 4, 7, 28, 255])],
)  # fmt: skip
def test_zipnn_feature_outside_the_format_is_not_supported(offset: int, values: list[int], backend: Backend) -> None:
    for value in values:
        must_refuse(backend, ZIPNN, bent(offset, bytes([value])), len(CONTENT), UnsupportedError)


# --- zstd -------------------------------------------------------------------------------------------------------------

WORDS = b"".join(b"%d words of a log, and %d more\n" % (at, at * at % 977) for at in range(6000))  # more than a block
ZSTD_FRAME = zstd_frame(WORDS)  # a single segment: nine bytes before the first block
SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"skip"
RAW_BLOCK = struct.pack("<I", 1 | 300 << 3)[:3] + WORDS[:300]


def zstd_header(flags: int, *fields: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd" + bytes([flags]) + b"".join(fields)


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def zstd_cases() -> Iterator[tuple[str, bytes]]:
    """Frames that stand for WORDS, or nearly."""
    body, size = ZSTD_FRAME[9:], u32(len(WORDS))
    yield "no content size", zstd_frame(WORDS, write_content_size=False)
    yield "content size one too small", zstd_header(0xA0, u32(len(WORDS) - 1)) + body
    yield "content size one too large", zstd_header(0xA0, u32(len(WORDS) + 1)) + body
    yield "declared rightly, holds less", zstd_header(0xA0, size) + zstd_frame(WORDS[:-1])[9:]
    yield "declared rightly, holds more", zstd_header(0xA0, size) + zstd_frame(WORDS + b"x")[9:]
    yield "one byte less", zstd_frame(WORDS[:-1])
    yield "one byte more", zstd_frame(WORDS + b"x")
    yield "declares 1 GiB", zstd_header(0xA0, u32(1 << 30)) + body
    yield "declares 2^64 - 1", zstd_header(0xE0, b"\xff" * 8) + body
    yield "a window of 2 GiB", zstd_header(0x80, b"\xa8", size) + body
    yield "a window of just over 128 MiB", zstd_header(0x80, b"\x89", size) + body
    yield "a dictionary", zstd_header(0xA1, b"\7", size) + body
    yield "a dictionary of four bytes", zstd_header(0xA3, u32(7), size) + body
    yield "a dictionary without a number", zstd_header(0xA1, b"\0", size) + body
    yield "the reserved bit", zstd_header(0xA8, size) + body
    yield "a checksum that is announced and missing", zstd_header(0xA4, size) + body
    yield "a checksum that is not announced", ZSTD_FRAME + zstd_frame(WORDS, write_checksum=True)[-4:]
    yield "only a magic", ZSTD_FRAME[:4]
    yield "only a header", ZSTD_FRAME[:9]
    yield "no blocks but an empty one", ZSTD_FRAME[:9] + b"\1\0\0"
    last = 3 + (int.from_bytes(body[:3], "little") >> 3)  # of two blocks
    yield "no last block", ZSTD_FRAME[:9] + body[:last] + bytes([body[last] & ~1]) + body[last + 1 :]
    yield "a byte follows", ZSTD_FRAME + b"\0"
    yield "a frame follows", ZSTD_FRAME + ZSTD_FRAME
    yield "an empty frame follows", ZSTD_FRAME + zstd_frame(b"")
    yield "a skippable frame follows", ZSTD_FRAME + SKIPPABLE
    yield "a skippable frame before", SKIPPABLE + ZSTD_FRAME
    yield "a skippable frame of that size", b"\x50\x2a\x4d\x18" + size + WORDS
    yield "two frames that make the content", zstd_frame(WORDS[:1000]) + zstd_frame(WORDS[1000:])
    yield "a dictionary, no frame", b"\x37\xa4\x30\xec" + ZSTD_FRAME[4:]
    yield "a legacy frame", b"\x27\xb5\x2f\xfd" + ZSTD_FRAME[4:]
    yield "magic of LZ4", b"\x04\x22\x4d\x18" + ZSTD_FRAME[4:]
    yield "a block of the reserved type", ZSTD_FRAME[:9] + bytes([body[0] | 6]) + body[1:]
    yield "a block beyond the frame", ZSTD_FRAME[:9] + b"\xfd\xff\xff" + body[3:]
    yield "a raw block beyond the frame", ZSTD_FRAME[:9] + b"\xf9\xff\xff" + body[3:]
    yield "a repeated byte that is missing", ZSTD_FRAME[:9] + struct.pack("<I", 3 | len(WORDS) << 3)[:3]
    yield "more of a repeated byte than a block has", ZSTD_FRAME[:9] + b"\xfb\xff\xff" + b"x"
    yield "a raw block and no more", ZSTD_FRAME[:9] + RAW_BLOCK
    yield "a million empty blocks", ZSTD_FRAME[:9] + bytes(3_000_000) + b"\1\0\0"
    yield "a million empty blocks, then nothing", ZSTD_FRAME[:9] + bytes(3_000_000)
    for fill in (b"\0", b"\xff"):
        yield f"a block of {fill!r}", ZSTD_FRAME[:9] + body[:3] + fill * (len(body) - 3)


@pytest.mark.parametrize(("what", "stored"), list(zstd_cases()), ids=[what for what, _ in zstd_cases()])
def test_malformed_zstd_frame_is_refused(what: str, stored: bytes, backend: Backend, target: Path) -> None:
    must_refuse(backend, ZSTD, stored, len(WORDS))
    if backend.name == "cpu" and len(stored) <= len(WORDS):
        undecodable(archive_of(stored, len(WORDS), ZSTD), target)
        assert not any(content for _, content in written(target).values())


def test_wrong_checksum_of_a_zstd_frame_is_refused(backend: Backend) -> None:
    frame = zstd_frame(WORDS, write_checksum=True)
    assert decode(backend, ZSTD, frame, len(WORDS)) == WORDS
    for back in range(1, 5):
        at = len(frame) - back
        must_refuse(backend, ZSTD, frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :], len(WORDS))
    must_refuse(backend, ZSTD, frame[:60] + bytes([frame[60] ^ 1]) + frame[61:], len(WORDS))


def test_zstd_frame_of_a_window_of_128_mib_is_decoded(backend: Backend) -> None:
    frame = zstd_header(0x80, b"\x88", u32(len(WORDS))) + ZSTD_FRAME[9:]
    assert decode(backend, ZSTD, frame, len(WORDS)) == WORDS


def test_stream_of_another_codec_is_refused(backend: Backend) -> None:
    stored = {codec: encode(codec, CONTENT) for codec in (LZ4, LZ4_HC, ZIPNN, ZSTD)}
    must_refuse(backend, LZ4, stored[ZIPNN], len(CONTENT))
    must_refuse(backend, LZ4_HC, stored[ZIPNN], len(CONTENT))
    must_refuse(backend, ZIPNN, stored[LZ4], len(CONTENT))
    must_refuse(backend, ZSTD, stored[LZ4], len(CONTENT))
    must_refuse(backend, LZ4, stored[ZSTD], len(CONTENT))


# --- anything at all --------------------------------------------------------------------------------------------------

STREAMS = {
    LZ4: (FRAME, TEXT),
    LZ4_HC: (encode(LZ4_HC, TEXT), TEXT),
    ZIPNN: (zipnn_stream(CONTENT[:9000]), CONTENT[:9000]),
    ZSTD: (zstd_frame(WORDS), WORDS),
}


def refuses_or_fills(backend: Backend, codec: int, stored: bytes, size: int) -> bytes | None:
    try:
        return decode(backend, codec, stored, size)
    except (DamagedError, UnsupportedError):
        return None


@pytest.mark.parametrize("codec", STREAMS)
def test_truncated_stream_is_refused(codec: int, backend: Backend) -> None:
    stored, content = STREAMS[codec]
    assert decode(backend, codec, stored, len(content)) == content
    for size in [*range(min(200, len(stored))), *range(200, len(stored), 97), len(stored) - 1]:
        must_refuse(backend, codec, stored[:size], len(content))


@pytest.mark.parametrize("codec", STREAMS)
def test_damaged_stream_is_refused_or_fills_its_place_exactly(codec: int, backend: Backend) -> None:
    stored, content = STREAMS[codec]
    chance = random.Random(codec)
    for _ in range(600):
        data = bytearray(stored)
        for _ in range(chance.choice((1, 1, 2, 10))):
            data[min(int(chance.expovariate(1 / 200)), len(data) - 1)] = chance.choice((0, 1, 127, 128, 254, 255))
        refuses_or_fills(backend, codec, bytes(data), len(content))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=400), size=st.integers(0, 5000), codec=st.sampled_from([LZ4, LZ4_HC, ZIPNN, ZSTD]))
def test_random_bytes_are_refused(data: bytes, size: int, codec: int) -> None:
    for prefix in (
        b"",
        FRAME[:BLOCKS],
        STREAM[:16] + u64(size) + u64(32 + len(data)),
        b"\x28\xb5\x2f\xfd\xc0\x58" + u64(size),
    ):
        refuses_or_fills(select_backend("cpu"), codec, prefix + data, size)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(block=st.binary(min_size=2, max_size=300), size=st.integers(0, 2000))
def test_random_huff0_blocks_are_refused_alike_by_every_instruction_set(block: bytes, size: int) -> None:
    """The attacker does not choose the machine: all backends accept the same streams, with the same bytes."""
    stored, before = zipnn([[b"\1"], [block]], 2 * size), cpu_path()
    results = []
    try:
        for path in ("portable", "avx2", "avx512", "neon"):
            if select_cpu_path(path):
                results.append(refuses_or_fills(select_backend("cpu"), ZIPNN, stored, 2 * size))
    finally:
        select_cpu_path(before)
    assert results
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_every_codec_refuses_an_empty_stream(codec: int) -> None:
    for size in (1, 100):
        with pytest.raises(DamagedError):
            codec_by_id(codec).decode(memoryview(b""), memoryview(bytearray(size)))


def test_malformed_streams_end_the_command_with_one_line(tmp_path: Path) -> None:
    snapshot, target = tmp_path / "x.dumont", tmp_path / "target"
    archive_of(FRAME[:-4], len(TEXT), LZ4).write(snapshot)
    for arguments in (["verify", snapshot, "--content"], ["restore", snapshot, target]):
        ran = command(*arguments)
        assert (ran.code, ran.out) == (4, "")
        assert "chunk 0" in ran.error
    archive_of(bent(3, b"\7"), len(CONTENT), ZIPNN).write(snapshot)
    for arguments in (["verify", snapshot, "--content"], ["restore", snapshot, tmp_path / "other"]):
        ran = command(*arguments)
        assert (ran.code, ran.out) == (8, "")
        assert ran.error


def test_zipnn_decoder_takes_read_only_input() -> None:
    out = bytearray(len(CONTENT))
    zipnn_decode(memoryview(STREAM), memoryview(out))
    assert out == CONTENT
