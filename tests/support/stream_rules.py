"""Encoded bytes of chunks with right and wrong values of every field, by row of FORMAT.md's table in section 9."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from blake3 import blake3

from dumont_gpu.native import Dtype, zipnn_encode
from support.hostile import LZ4, RAW, ZIPNN, ZSTD, header_checksum, lz4_frame, zstd_frame

OK, DAMAGED, UNSUPPORTED = "ok", "damaged", "not supported"
KIB = 1 << 10

Streams = Iterator[tuple[str, int, bytes, int]]  # a verdict, codec, encoded bytes and raw size
STREAM_RULES: dict[str, Callable[[], Streams]] = {}


def stream_rule(row: str) -> Callable[[Callable[[], Streams]], Callable[[], Streams]]:
    def register(cases: Callable[[], Streams]) -> Callable[[], Streams]:
        STREAM_RULES[row] = cases
        return cases

    return register


TEXT = bytes(range(256)) * 300 + b"the end"  # 76,807 bytes: two blocks
FRAME = lz4_frame(TEXT)


@stream_rule("none: encoded bytes")
def _() -> Streams:
    yield OK, RAW, b"x", 1
    for size in (0, 2, 4096):
        yield DAMAGED, RAW, b"x", size


def frame(flags: int | None = None, block: int = 0x40, size: int = len(TEXT)) -> tuple[int, bytes, int]:
    """FRAME with other bytes in its header, whose checksum is right again."""
    fields = bytes([FRAME[4] if flags is None else flags, block]) + struct.pack("<Q", size)
    return LZ4, FRAME[:4] + fields + bytes([header_checksum(fields)]) + FRAME[15:], len(TEXT)


@stream_rule("LZ4 frame: magic")
def _() -> Streams:
    yield (OK, *frame())
    for magic in (b"\x05\x22\x4d\x18", b"\x50\x2a\x4d\x18", b"\x02\x21\x4c\x18", bytes(4), b"", b"\x04\x22"):
        yield DAMAGED, LZ4, magic + (FRAME[4:] if len(magic) == 4 else b""), len(TEXT)


@stream_rule("LZ4 frame: version, bits 6–7 of byte 4")
def _() -> Streams:
    for version in (0, 2, 3):
        yield (DAMAGED, *frame(FRAME[4] & 0x3F | version << 6))


@stream_rule("LZ4 frame: independent blocks, bit 5 of byte 4")
def _() -> Streams:
    yield (DAMAGED, *frame(FRAME[4] & ~0x20))
    yield DAMAGED, LZ4, lz4_frame(TEXT, block_linked=True), len(TEXT)


@stream_rule("LZ4 frame: block and content checksums, bits 4 and 2 of byte 4")
def _() -> Streams:
    for option, back in (("content_checksum", 1), ("block_checksum", 5)):
        checked = lz4_frame(TEXT, **{option: True})
        yield OK, LZ4, checked, len(TEXT)
        yield (
            DAMAGED,
            LZ4,
            checked[:-back] + bytes([checked[-back] ^ 1]) + checked[len(checked) - back + 1 :],
            len(TEXT),
        )
    for bit in (0x10, 0x04):
        yield (DAMAGED, *frame(FRAME[4] | bit))


@stream_rule("LZ4 frame: content size present, bit 3 of byte 4")
def _() -> Streams:
    yield DAMAGED, LZ4, lz4_frame(TEXT, store_size=False), len(TEXT)


@stream_rule("LZ4 frame: reserved, bit 1 of byte 4")
def _() -> Streams:
    yield (DAMAGED, *frame(FRAME[4] | 0x02))


@stream_rule("LZ4 frame: dictionary, bit 0 of byte 4")
def _() -> Streams:
    fields = bytes([FRAME[4] | 1]) + FRAME[5:14] + struct.pack("<I", 7)
    yield DAMAGED, LZ4, FRAME[:4] + fields + bytes([header_checksum(fields)]) + FRAME[15:], len(TEXT)


@stream_rule("LZ4 frame: block size, byte 5")
def _() -> Streams:
    for block in (0x00, 0x30, 0x41, 0x4F, 0x50, 0x60, 0x70, 0xC0):
        yield (DAMAGED, *frame(block=block))


@stream_rule("LZ4 frame: content size")
def _() -> Streams:
    for size in (0, 1, len(TEXT) - 1, len(TEXT) + 1, 1 << 30, 1 << 62, (1 << 64) - 1):
        yield (DAMAGED, *frame(size=size))
        yield DAMAGED, LZ4, frame(size=size)[1], min(size, 1 << 20)


@stream_rule("LZ4 frame: header checksum")
def _() -> Streams:
    yield DAMAGED, LZ4, FRAME[:14] + bytes([FRAME[14] ^ 1]) + FRAME[15:], len(TEXT)


@stream_rule("LZ4 frame: blocks")
def _() -> Streams:
    raw = struct.pack("<I", 1 << 31 | 64 * KIB) + TEXT[: 64 * KIB]
    (first,) = struct.unpack_from("<I", FRAME, 15)  # bytes of the first block
    yield OK, LZ4, FRAME[:15] + raw + FRAME[19 + first :], len(TEXT)
    large = struct.pack("<I", 1 << 31 | len(TEXT)) + TEXT + bytes(4)
    yield DAMAGED, LZ4, FRAME[:15] + large, len(TEXT)
    yield DAMAGED, LZ4, FRAME[:15] + struct.pack("<I", 3) + b"\xff\xff\xff" + bytes(4), len(TEXT)


@stream_rule("LZ4 frame: end")
def _() -> Streams:
    for stored in (FRAME[:-4], FRAME[:-1], FRAME + b"\0", FRAME + FRAME, FRAME + b"\x50\x2a\x4d\x18" + bytes(4)):
        yield DAMAGED, LZ4, stored, len(TEXT)


# Floats as each type has them, and their streams; small, so that a decoder in Python is quick.
SIZE = 3000
PLANES = {Dtype.FP32: 4, Dtype.FP16: 2, Dtype.BF16: 2, Dtype.FP8_E4M3: 1, Dtype.FP8_E5M2: 1}


def floats(dtype: Dtype, size: int = SIZE) -> bytes:
    """Elements whose last byte shrinks, and whose other bytes do not."""
    noise = blake3(b"floats").digest(length=size)
    planes = PLANES[dtype]
    return bytes(60 + noise[at] % 3 if at % planes == planes - 1 else noise[at] for at in range(size))


def stream(dtype: Dtype = Dtype.BF16, block_log2: int = 10, **fields: int) -> bytes:
    """A sound stream but for bytes that `fields` replace: byte5=220."""
    content = floats(dtype)
    out = memoryview(bytearray(2 * SIZE))
    encoded = bytearray(out[: zipnn_encode(memoryview(content), out, dtype, block_log2)])
    for name, value in fields.items():
        encoded[int(name.removeprefix("byte"))] = value
    return bytes(encoded)


def zipnn(verdict: str, stored: bytes, size: int = SIZE) -> tuple[str, int, bytes, int]:
    return verdict, ZIPNN, stored, size


def every(at: int, allowed: dict[Dtype, set[int]]) -> Streams:
    """Every value of a byte, whose other values are not supported."""
    for dtype, good in allowed.items():
        for value in range(256):
            yield zipnn(OK if value in good else UNSUPPORTED, stream(dtype, **{f"byte{at}": value}))


def raw_stream(dtype: Dtype, block_log2: int, size: int) -> bytes:
    """A stream of raw blocks, of any block size."""
    planes, content = PLANES[dtype], floats(dtype, size)
    head = bytearray(stream(dtype)[:32])
    head[14] = block_log2
    block = min(1 << block_log2, 128 * KIB) if planes == 1 else 1 << block_log2
    pieces = [content[at : at + block] for at in range(0, size, block)]
    ends, body = b"", b""
    for plane in range(planes):
        end = 0
        for piece in pieces:
            end += len(piece[plane::planes])
            ends += struct.pack("<Q", end)
            body += piece[plane::planes]
    head[16:32] = struct.pack("<QQ", size, 32 + 9 * planes * len(pieces) + size)
    return bytes(head) + bytes(planes * len(pieces)) + ends + body


@stream_rule("ZipNN stream: magic, bytes 0–1")
def _() -> Streams:
    for dtype in Dtype:
        yield zipnn(OK, stream(dtype))
    for stored in (stream(byte0=0), stream(byte1=0), b"", stream()[:31], stream(byte0=0, byte2=9)):
        yield zipnn(DAMAGED, stored)


@stream_rule("ZipNN stream: version, bytes 2–3")
def _() -> Streams:
    yield from every(2, {Dtype.BF16: {0}})
    yield from every(3, {Dtype.BF16: {5}})


@stream_rule("ZipNN stream: patch level, byte 4")
def _() -> Streams:
    yield from every(4, {Dtype.BF16: set(range(256))})


@stream_rule("ZipNN stream: byte order, byte 5")
def _() -> Streams:
    yield from every(5, {dtype: {220 if dtype is Dtype.FP32 else 10} for dtype in Dtype})


@stream_rule("ZipNN stream: sign moved, byte 6")
def _() -> Streams:
    allowed = {Dtype.FP32: {1}, Dtype.FP16: {0}, Dtype.BF16: {1}}
    yield from every(6, allowed | {dtype: set(range(256)) for dtype in (Dtype.FP8_E4M3, Dtype.FP8_E5M2)})


@stream_rule("ZipNN stream: method, byte 7")
def _() -> Streams:
    yield from every(7, {Dtype.BF16: {0, 1}})


@stream_rule("ZipNN stream: input, byte 8")
def _() -> Streams:
    yield from every(8, {Dtype.BF16: {1}})


@stream_rule("ZipNN stream: delta and lossy, bytes 9–12")
def _() -> Streams:
    for at in range(9, 13):
        yield from every(at, {Dtype.BF16: {0}})


@stream_rule("ZipNN stream: sequence, byte 13")
def _() -> Streams:
    yield from every(13, {Dtype.BF16: {0, *range(128, 256)}})
    part = stream(byte13=148)
    yield zipnn(OK, part + stream(Dtype.FP32, byte13=128) + part, 3 * SIZE)
    yield zipnn(OK, part + raw_stream(Dtype.FP16, 10, 0)[:13] + b"\x80" + raw_stream(Dtype.FP16, 10, 0)[14:])
    yield zipnn(DAMAGED, part + part)
    yield zipnn(DAMAGED, part + part, 2 * SIZE + 1)
    yield zipnn(DAMAGED, part + part[:31], 2 * SIZE)
    yield zipnn(DAMAGED, stream() + stream(), 2 * SIZE)
    yield zipnn(UNSUPPORTED, part + stream(byte13=128, byte15=3), 2 * SIZE)
    yield zipnn(DAMAGED, part[:-1] + b"\0" + stream(byte13=128, byte15=3), 2 * SIZE)  # in turn: the first error counts


@stream_rule("ZipNN stream: a later stream's byte 13")
def _() -> Streams:
    for value, verdict in ((0, DAMAGED), (1, UNSUPPORTED), (127, UNSUPPORTED), (128, OK), (255, OK)):
        yield zipnn(verdict, stream(byte13=128) + stream(byte13=value), 2 * SIZE)


@stream_rule("ZipNN stream: block exponent, byte 14")
def _() -> Streams:
    for dtype, planes in PLANES.items():
        for exponent in range(256):
            sound = planes <= 1 << exponent and exponent <= 62
            yield zipnn(OK if sound else UNSUPPORTED, raw_stream(dtype, exponent if sound else 10, 64)[:14]
                        + bytes([exponent]) + raw_stream(dtype, exponent if sound else 10, 64)[15:], 64)  # fmt: skip
    yield zipnn(DAMAGED, stream(byte14=9))
    yield zipnn(OK, raw_stream(Dtype.FP8_E4M3, 20, 130 * KIB), 130 * KIB)  # C is at most 128 KiB there


@stream_rule("ZipNN stream: dtype, byte 15")
def _() -> Streams:
    same = {Dtype.FP32: {1, 2}, Dtype.FP16: {4, 5}, Dtype.BF16: {6}, Dtype.FP8_E4M3: {29, 30}}
    alike = {
        Dtype.FP32: set(),
        Dtype.FP16: {29, 30},
        Dtype.BF16: {29, 30},
        Dtype.FP8_E4M3: {6},
    }  # in bytes 5 and 6 only
    for dtype, sound in same.items():
        for value in range(256):
            verdict = OK if value in sound else DAMAGED if value in alike[dtype] else UNSUPPORTED
            yield zipnn(verdict, stream(dtype, byte15=value))


@stream_rule("ZipNN stream: raw bytes, bytes 16–23")
def _() -> Streams:
    for size in (0, SIZE - 2, SIZE - 1, SIZE + 1, 1 << 31, 1 << 62, (1 << 64) - 1):
        yield zipnn(DAMAGED, stream()[:16] + struct.pack("<Q", size) + stream()[24:])
        yield zipnn(DAMAGED, stream(), min(size, 1 << 20))


@stream_rule("ZipNN stream: stream bytes, bytes 24–31")
def _() -> Streams:
    for size in (0, 31, 32, len(stream()) - 1, len(stream()) + 1, 1 << 62, (1 << 64) - 1):
        yield zipnn(DAMAGED, stream()[:24] + struct.pack("<Q", size) + stream()[32:])
    yield zipnn(DAMAGED, stream() + b"\0")
    yield zipnn(UNSUPPORTED, stream(byte2=1)[:24] + bytes(8))  # bytes 2 to 15 come first


@stream_rule("ZipNN stream: type of a block")
def _() -> Streams:
    for value in range(2, 256):
        yield zipnn(DAMAGED, stream(byte32=value))


@stream_rule("ZipNN stream: cum")
def _() -> Streams:
    ends = 32 + 2 * 3  # two groups of three blocks of 1 KiB
    for index in range(6):
        at = ends + 8 * index
        (end,) = struct.unpack_from("<Q", stream(), at)
        for value in (end - 1, end + 1, 1 << 32, (1 << 64) - 1):
            yield zipnn(DAMAGED, stream()[:at] + struct.pack("<Q", value) + stream()[at + 8 :])


@stream_rule("ZipNN stream: a raw block")
def _() -> Streams:
    for group in (3, 4, 5):  # blocks of the exponents, which are coded
        yield zipnn(DAMAGED, stream(**{f"byte{32 + group}": 0}))
    yield zipnn(OK, stream(byte32=1))  # marked as coded, but as long as its content: the bytes themselves


@stream_rule("ZipNN stream: a Huff0 block")
def _() -> Streams:
    sound = stream()
    for at in range(len(sound) - 8, len(sound)):
        yield zipnn(DAMAGED, sound[:at] + b"\0" * (len(sound) - at))


# A zstd frame built by hand: every field of its header is one argument.


def zstd_block(kind: int, size: int, content: bytes, last: bool = True) -> bytes:
    return (last | kind << 1 | size << 3).to_bytes(3, "little") + content


WHOLE = zstd_block(0, 256, TEXT[:256], last=False) + zstd_block(1, 44, b"r")  # a raw block and a repeated byte
WHOLE_SIZE = 300


def zstd(
    verdict: str,
    *,
    magic: bytes = b"\x28\xb5\x2f\xfd",
    flags: int = 0x80,  # a content size of four bytes, and a window
    window: int | None = 0x58,  # 2 MiB
    size: bytes = struct.pack("<I", WHOLE_SIZE),
    blocks: bytes = WHOLE,
    raw: int = WHOLE_SIZE,
) -> tuple[str, int, bytes, int]:
    header = magic + bytes([flags]) + (b"" if window is None else bytes([window])) + size
    return verdict, ZSTD, header + blocks, raw


@stream_rule("zstd frame: magic, bytes 0–3")
def _() -> Streams:
    yield zstd(OK)
    yield OK, ZSTD, zstd_frame(TEXT), len(TEXT)
    for magic in (b"\x27\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x04\x22\x4d\x18", b"\x37\xa4\x30\xec", bytes(4)):
        yield zstd(DAMAGED, magic=magic)
    for size in range(6):
        yield DAMAGED, ZSTD, zstd(OK)[2][:size], WHOLE_SIZE


@stream_rule("zstd frame: dictionary, bits 0–1 of byte 4")
def _() -> Streams:
    for bits, width in ((1, 1), (2, 2), (3, 4)):
        for number in (0, 7):
            field = number.to_bytes(width, "little")
            yield zstd(DAMAGED, flags=0x80 | bits, size=field + struct.pack("<I", WHOLE_SIZE))
        yield zstd(DAMAGED, flags=0x80 | bits)


@stream_rule("zstd frame: checksum, bit 2 of byte 4")
def _() -> Streams:
    checked = zstd_frame(TEXT, write_checksum=True)
    yield OK, ZSTD, checked, len(TEXT)
    for back in range(1, 5):
        at = len(checked) - back
        yield DAMAGED, ZSTD, checked[:at] + bytes([checked[at] ^ 1]) + checked[at + 1 :], len(TEXT)
        yield DAMAGED, ZSTD, checked[:at], len(TEXT)
    yield zstd(DAMAGED, flags=0x84)


@stream_rule("zstd frame: reserved, bit 3 of byte 4")
def _() -> Streams:
    yield zstd(DAMAGED, flags=0x88)


@stream_rule("zstd frame: unused, bit 4 of byte 4")
def _() -> Streams:
    yield zstd(OK, flags=0x90)


@stream_rule("zstd frame: window")
def _() -> Streams:
    for window in range(256):
        large = (1 << 10 + (window >> 3)) // 8 * (8 + window % 8) > 128 << 20
        yield zstd(DAMAGED if large else OK, window=window)
    for size in (128 << 20, (128 << 20) + 1, 1 << 30):
        yield zstd(DAMAGED, flags=0xA0, window=None, size=struct.pack("<I", size))


@stream_rule("zstd frame: content size")
def _() -> Streams:
    yield zstd(OK, flags=0x40, size=struct.pack("<H", WHOLE_SIZE - 256))
    yield zstd(OK, flags=0xC0, size=struct.pack("<Q", WHOLE_SIZE))
    for flags, size in ((0x60, struct.pack("<H", WHOLE_SIZE - 256)), (0xA0, struct.pack("<I", WHOLE_SIZE))):
        yield zstd(OK, flags=flags, window=None, size=size)
    few = zstd_block(1, 44, b"r")
    yield zstd(OK, flags=0x20, window=None, size=b"\x2c", blocks=few, raw=44)
    yield zstd(DAMAGED, flags=0x00, size=b"")
    yield DAMAGED, ZSTD, zstd_frame(TEXT, write_content_size=False), len(TEXT)
    for wrong in (0, 1, WHOLE_SIZE - 1, WHOLE_SIZE + 1, 1 << 30, (1 << 32) - 1):
        yield zstd(DAMAGED, size=struct.pack("<I", wrong))
        yield zstd(DAMAGED, raw=min(wrong, 1 << 20))
        if 0 < wrong < 1 << 20:
            yield zstd(DAMAGED, size=struct.pack("<I", wrong), raw=wrong)
    for huge in (1 << 32 | WHOLE_SIZE, 1 << 62, (1 << 64) - 1):
        yield zstd(DAMAGED, flags=0xC0, size=struct.pack("<Q", huge))


@stream_rule("zstd frame: blocks")
def _() -> Streams:
    yield zstd(DAMAGED, blocks=zstd_block(0, 256, TEXT[:256], last=False) + zstd_block(3, 44, bytes(44)))
    yield zstd(DAMAGED, blocks=zstd_block(2, 200, b"\xff" * 200))
    yield zstd(DAMAGED, blocks=zstd_block(2, 0, b""))
    yield zstd(OK, blocks=zstd_block(0, 0, b"", last=False) * 9 + WHOLE)
    large = struct.pack("<I", 200 * KIB)
    yield zstd(DAMAGED, size=large, blocks=zstd_block(2, 130 * KIB, bytes(130 * KIB)), raw=200 * KIB)


@stream_rule("zstd frame: end")
def _() -> Streams:
    sound = zstd(OK)[2]
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"skip"
    wrong = [sound[:size] for size in range(6, len(sound))]
    wrong += [sound + b"\0", sound + sound, sound + skippable, skippable + sound, sound + zstd_frame(b"")]
    wrong += [sound + bytes(4), sound[:-4] + zstd_block(1, 44, b"r", last=False)]
    for encoded in wrong:
        yield DAMAGED, ZSTD, encoded, WHOLE_SIZE
