"""Every row of the table in FORMAT.md, section 9: what a field may be, and which error anything else is.

Right and wrong values of each, judged by the program and by the independent reader; streams also by a device's decoder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import independent_reader
import pytest
from blake3 import blake3
from conftest import emulated_device
from hostile import LZ4, MTIME, RAW, ZIPNN, Archive, Chunk, header_checksum, lz4_frame, sha256

import dumont_gpu
from dumont_gpu.backends import Backend, CudaBackend, select_backend
from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.native import Dtype, zipnn_encode
from dumont_gpu.storage import MemorySource
from dumont_gpu.verify import VerifyOptions, verify

OK, DAMAGED, UNSUPPORTED = "ok", "damaged", "not supported"
FORMAT = (Path(dumont_gpu.__file__).parent / "FORMAT.md").read_text()
GIB, KIB = 1 << 30, 1 << 10

Archives = Iterator[tuple[str, bytes]]  # a verdict, and the snapshot that shall have it
Streams = Iterator[tuple[str, int, bytes, int]]  # a verdict, codec, stored bytes and original size
RULES: dict[str, Callable[[], Archives]] = {}
STREAM_RULES: dict[str, Callable[[], Streams]] = {}


def rule(row: str) -> Callable[[Callable[[], Archives]], Callable[[], Archives]]:
    def register(cases: Callable[[], Archives]) -> Callable[[], Archives]:
        RULES[row] = cases
        return cases

    return register


def stream_rule(row: str) -> Callable[[Callable[[], Streams]], Callable[[], Streams]]:
    def register(cases: Callable[[], Streams]) -> Callable[[], Streams]:
        STREAM_RULES[row] = cases
        return cases

    return register


# --- snapshots --------------------------------------------------------------------------------------------------------


def archive() -> Archive:
    """A directory, a file in a chunk of its own, a hard link to it, a symlink."""
    built = Archive(header={"chunk_size": 64 * KIB})
    built.directory("d")
    built.file("d/f", b"content " * 20)
    built.hardlink("d/h", "d/f")
    built.symlink("s", "d/f")
    return built


DIRECTORY, FILE, HARDLINK, SYMLINK = range(4)  # entries of `archive`


def with_header(**fields: Any) -> bytes:
    built = archive()
    built.header |= fields
    return built.to_bytes()


def with_entry(number: int, **fields: Any) -> bytes:
    """One entry with other fields; `absent` takes one away."""
    built = archive()
    built.entries[number] |= fields
    built.entries[number] = {key: value for key, value in built.entries[number].items() if value is not absent}
    return built.to_bytes()


class absent:  # noqa: N801 - a value
    """Stands for a key that is not there."""


def with_head(**fields: Any) -> bytes:
    built = archive()
    built.head = fields
    return built.to_bytes()


def with_manifest(bend: Callable[[bytes], bytes]) -> bytes:
    built = archive()
    built.manifest = bend(built.manifest_json())
    return built.to_bytes()


def replaced(old: bytes, new: bytes) -> bytes:
    def bend(manifest: bytes) -> bytes:
        assert manifest.count(old)
        return manifest.replace(old, new, 1)

    return with_manifest(bend)


def with_chunk(**fields: Any) -> bytes:
    built = archive()
    for name, value in fields.items():
        setattr(built.chunks[0], name, value)
    return built.to_bytes()


def resigned(data: bytes) -> bytes:
    return data[:480] + sha256(data[:480]) + data[512:]


@rule("header: magic")
def _() -> Archives:
    yield OK, archive().to_bytes()
    yield UNSUPPORTED, with_header(magic=b"DUMONT01")
    yield UNSUPPORTED, with_header(magic=b"DUMONT99")
    yield DAMAGED, with_header(magic=b"DUMONT0x")
    yield DAMAGED, with_header(magic=b"dumont02")
    yield DAMAGED, b""
    yield DAMAGED, b"DUMONT0"


@rule("header: version")
def _() -> Archives:
    for version in (0, 1, 3, (1 << 32) - 1):
        yield UNSUPPORTED, with_header(version=version)


@rule("header: flags, bits 0–15")
def _() -> Archives:
    yield OK, Archive(header={"flags": 1}).to_bytes()
    for bit in range(1, 16):
        yield UNSUPPORTED, with_header(flags=1 << bit)


@rule("header: flags, bits 16–31")
def _() -> Archives:
    for bit in range(16, 32):
        yield OK, with_header(flags=1 << bit)


@rule("header: num_chunks")
def _() -> Archives:
    yield OK, Archive().to_bytes()
    for count in (0, 2, 200, 4_194_304, 4_194_305, (1 << 32) - 1):
        yield DAMAGED, with_header(num_chunks=count)


@rule("header: num_files")
def _() -> Archives:
    for count in (0, 3, 5, 16_777_216, 16_777_217, (1 << 32) - 1):
        yield DAMAGED, with_header(num_files=count)


@rule("header: total_size_compressed")
def _() -> Archives:
    for size in (0, 159, 161, 1 << 63, (1 << 64) - 1):
        yield DAMAGED, with_header(total_size_compressed=size)


@rule("header: total_size_original")
def _() -> Archives:
    for size in (0, 159, 161, (1 << 64) - 1):
        yield DAMAGED, with_header(total_size_original=size)


@rule("header: chunk_size")
def _() -> Archives:
    for size in (4096, 4097, 1 << 30):
        yield OK, with_header(chunk_size=size)
    for size in (0, 4095, (1 << 30) + 1, (1 << 64) - 1):
        yield DAMAGED, with_header(chunk_size=size)


@rule("header: manifest_offset")
def _() -> Archives:
    moved = archive()
    stored, at = lz4_frame(moved.manifest_json()), len(moved.to_bytes()) - len(lz4_frame(moved.manifest_json()))
    moved.header["manifest_offset"] = at + 7
    data = moved.to_bytes()
    yield OK, data[:at] + bytes(7) + stored
    yield DAMAGED, data
    for offset in (0, 512, 4096, at - 1, at + 1, (1 << 64) - len(stored), (1 << 64) - 1):
        yield DAMAGED, with_header(manifest_offset=offset)


@rule("header: manifest_size")
def _() -> Archives:
    for size in (0, 1, (1 << 64) - 4096):
        yield DAMAGED, with_header(manifest_size=size)
    most = (1 << 20) + (16 << 20)  # without entries and chunks
    for size, verdict in ((most + most // 128 + 64 * KIB, "manifest_sha256"), (1 << 25, "manifest_size")):
        yield DAMAGED, Archive(stored_manifest=bytes(size)).to_bytes()
        assert verdict


@rule("header: index_sha256")
def _() -> Archives:
    yield DAMAGED, with_header(index_sha256=bytes(32))


@rule("header: manifest_sha256")
def _() -> Archives:
    yield DAMAGED, with_header(manifest_sha256=bytes(32))


@rule("header: reserved")
def _() -> Archives:
    yield DAMAGED, with_header(reserved=b"\1")
    yield DAMAGED, with_header(reserved=bytes(351) + b"\1")


@rule("header: header_sha256")
def _() -> Archives:
    data = archive().to_bytes()
    yield OK, resigned(data)
    yield DAMAGED, data[:511] + bytes([data[511] ^ 1]) + data[512:]


@rule("index: offset")
def _() -> Archives:
    for offset in (0, 512, 4097, 8192, (1 << 64) - 4096):
        yield DAMAGED, with_chunk(offset=offset)
    two = archive()
    two.file("t", b"x" * 5000)
    two.chunks[1].offset = 4096
    yield DAMAGED, two.to_bytes()


@rule("index: size_compressed")
def _() -> Archives:
    for size in (0, 161, (1 << 32) - 1):
        yield DAMAGED, with_chunk(size_compressed=size)


@rule("index: size_original")
def _() -> Archives:
    for size in (0, 159, 64 * KIB + 1, (1 << 32) - 1):
        yield DAMAGED, with_chunk(size_original=size)


@rule("index: compressor_id")
def _() -> Archives:
    for codec in (4, 5, 128, 255):
        yield UNSUPPORTED, with_chunk(codec=codec)
    yield DAMAGED, with_chunk(codec=4, size_original=0)  # the bounds come first


@rule("index: checksum")
def _() -> Archives:
    yield DAMAGED, with_chunk(checksum=bytes(8))


@rule("file: bytes between the parts")
def _() -> Archives:
    data = bytearray(archive().to_bytes())
    for at in (512 + 25, 4095, 4096 + 160, 8191):
        bent = data.copy()
        bent[at] = 1
        yield DAMAGED, bytes(bent)


@rule("manifest: first line")
def _() -> Archives:
    yield OK, replaced(b'"method":', b'"pad":"' + b"x" * 1000_000 + b'","method":')
    yield DAMAGED, replaced(b'"method":', b'"pad":"' + b"x" * (1 << 20) + b'","method":')
    yield DAMAGED, replaced(b'"entries":[\n', b'"entries": [\n')
    yield DAMAGED, replaced(b'"entries":[\n', b'"entries":[ \n')
    yield DAMAGED, replaced(b'"entries":[\n', b'"entries":[')
    yield DAMAGED, with_manifest(lambda manifest: b" " + manifest)
    yield DAMAGED, with_manifest(lambda manifest: b"[" + manifest)
    yield DAMAGED, with_manifest(lambda manifest: b"\xef\xbb\xbf" + manifest)


@rule("manifest: a line of an entry")
def _() -> Archives:
    yield OK, replaced(b'"path": "d"', b'\t"path"  :"d"')
    for old, new in [(b",\n", b" ,\n"), (b",\n", b", \n"), (b",\n", b",\r\n"), (b'{"path"', b' {"path"'), (b",\n", b"\n"),
                     (b",\n", b",,\n"), (b"}\n]}", b"},\n]}"), (b"}\n]}", b"} \n]}"), (b"},\n", b"},\n\n"), (b"},\n", b"},"),
                     (b'{"path"', b'[{"path"')]:  # fmt: skip
        yield DAMAGED, replaced(old, new)
    yield DAMAGED, with_entry(DIRECTORY, pad="x" * (16 << 20))


@rule("manifest: last line")
def _() -> Archives:
    for end in (b"\n]}", b"\n]}\n\n", b"\n]}\n]}\n", b"\n]} \n", b"\n ]}\n", b"\n]\n}\n", b"\n]}\r\n", b"\n"):
        yield DAMAGED, with_manifest(lambda manifest, end=end: manifest.removesuffix(b"\n]}\n") + end)  # type: ignore[misc]


@rule("manifest: JSON")
def _() -> Archives:
    yield DAMAGED, replaced(b'"path": "d"', b'"path": "d", "path": "d"')
    yield DAMAGED, replaced(b'"path": "d"', b'"path": "d", "x": {"y": 1, "y": 1}')
    yield DAMAGED, replaced(b'"path": "d"', b'"path": "d", "x": NaN')
    yield DAMAGED, replaced(b'"path": "d"', b'"path": "d", "x": [-Infinity]')
    yield DAMAGED, replaced(b'"path": "d"', b'"path": "\xff"')
    yield DAMAGED, replaced(b'"path": "d"', b"'path': 'd'")
    yield DAMAGED, replaced(b'"tool":', b'"tool":"x","tool":')


@rule("manifest: unknown keys")
def _() -> Archives:
    for value in (None, 1.5, -1e300, "\ud800", [[]], {"path": {}}):
        yield OK, with_head(unknown=value)
        yield OK, with_entry(FILE, unknown=value, target=value)
        yield OK, with_entry(HARDLINK, mode=value, owner=value, size=value, extents=value, changed=value)


@rule("manifest: method")
def _() -> Archives:
    yield OK, with_head(method="")
    for value in (None, 1, ["none"]):
        yield DAMAGED, with_head(method=value)


@rule("manifest: tool")
def _() -> Archives:
    yield OK, with_head(tool="of somebody else")
    for value in (None, 1, {}):
        yield DAMAGED, with_head(tool=value)


WRONG_NUMBERS = (None, "1", 1.0, 1e3, True, [1], {})


@rule("manifest: created_ns")
def _() -> Archives:
    for value in (0, -1, -(1 << 63), (1 << 63) - 1):
        yield OK, with_head(created_ns=value)
    for wrong in (*WRONG_NUMBERS, -(1 << 63) - 1, 1 << 63, 1 << 64, 10**400):
        yield DAMAGED, with_head(created_ns=wrong)


@rule("manifest: root")
def _() -> Archives:
    yield OK, with_head(root={"mode": 0o755, "mtime_ns": MTIME})
    yield OK, with_head(root={"mode": 0, "mtime_ns": -1, "owner": [0, 1], "path_b64": 3, "type": "file"})
    for value in (None, [], "x", {}, {"mode": 0}, {"mtime_ns": 0}):
        yield DAMAGED, with_head(root=value)
    for fields in ({"mode": 4096}, {"mtime_ns": 1.0}, {"owner": None}, {"owner": [0]}):
        yield DAMAGED, with_head(root={"mode": 0, "mtime_ns": 0} | fields)


@rule("manifest: chunks")
def _() -> Archives:
    digest = sha256(b"content " * 20).hex()
    yield OK, with_head(chunks=[digest])
    for value in (None, digest, [], [digest] * 2, [None], [1], {"0": digest}, [digest[:16] + "0" * 47], [digest[::-1]]):
        yield DAMAGED, with_head(chunks=value)


@rule("manifest: a digest")
def _() -> Archives:
    digest = sha256(b"content " * 20).hex()
    assert digest != digest.upper()
    wrong = (
        digest.upper(),
        digest[:32] + digest[32:].upper(),
        digest[:-1],
        digest + "0",
        digest[:-2] + " " + digest[-2],
        " " + digest[1:],
    )
    for value in (
        *wrong,
        "0x" + digest[2:],
        digest[:-1] + "g",
        digest[:-1] + "\u0661",
        digest[:30] + "  " + digest[32:],
    ):
        yield DAMAGED, with_head(chunks=[value])
        yield DAMAGED, with_entry(FILE, sha256=[value])


@rule("entry: path")
def _() -> Archives:
    for path in ("é", "\x01", "x" * 255, "a\\b", "C:"):
        yield OK, with_entry(SYMLINK, path="t" + path[1:])
    for wrong in (None, 1, ["s"], "", "/s", "s/", "s//t", "t/../s", "./s", "t\0", "t" * 256, "\ud800", absent):
        yield DAMAGED, with_entry(SYMLINK, path=wrong)


@rule("entry: path_b64")
def _() -> Archives:
    for path in ("eP8=", "dA==", "eHl6"):  # x\xff; t, which is UTF-8; xyz
        yield OK, with_entry(SYMLINK, path=absent, path_b64=path)
    for wrong in (None, 1, "", "dA", "dA=", "dA===", "dB==", "dA==\n", " dA==", "d-_=", "\u0661A==", "L3g="):
        yield DAMAGED, with_entry(SYMLINK, path=absent, path_b64=wrong)
    for value in ("s", None):
        yield DAMAGED, with_entry(SYMLINK, path=value, path_b64="cw==")
    yield DAMAGED, with_entry(SYMLINK, path_b64=None)


@rule("entry: order")
def _() -> Archives:
    for path in ("a", "d", "d/g", "x/s", "d/f/x", "d/h/x"):
        yield DAMAGED, with_entry(SYMLINK, path=path)


@rule("entry: type")
def _() -> Archives:
    for value in (None, absent, "", "File", "fifo", 1, ["file"]):
        yield DAMAGED, with_entry(FILE, type=value)


@rule("entry: mode")
def _() -> Archives:
    for number in (DIRECTORY, FILE, SYMLINK):
        for value in (0, 0o7777):
            yield OK, with_entry(number, mode=value)
        for wrong in (*WRONG_NUMBERS, absent, -1, 0o10000):
            yield DAMAGED, with_entry(number, mode=wrong)


@rule("entry: mtime_ns")
def _() -> Archives:
    for number in (DIRECTORY, FILE, SYMLINK):
        for value in (0, -(1 << 63), (1 << 63) - 1):
            yield OK, with_entry(number, mtime_ns=value)
        for wrong in (*WRONG_NUMBERS, absent, -(1 << 63) - 1, 1 << 63):
            yield DAMAGED, with_entry(number, mtime_ns=wrong)


@rule("entry: owner")
def _() -> Archives:
    for number in (DIRECTORY, FILE, SYMLINK):
        yield OK, with_entry(number, owner=[0, (1 << 32) - 2])
        for wrong in (None, 0, [], [0], [0, 0, 0], [0, (1 << 32) - 1], [-1, 0], ["0", "0"], [True, 0], [0.0, 0], {}):
            yield DAMAGED, with_entry(number, owner=wrong)


@rule("entry: size")
def _() -> Archives:
    hole = archive()
    hole.file("z", size=(1 << 63) - 1 - 160)
    assert program(hole.to_bytes()) == OK  # the other reader returns the content: not of this one
    for wrong in (*WRONG_NUMBERS, absent, -1, 1 << 63):
        yield DAMAGED, with_entry(FILE, size=wrong)


@rule("entry: extents")
def _() -> Archives:
    digest = sha256(b"content ").hex()
    yield OK, with_entry(FILE, extents=[[0, 0, 8, 8], [8, 0, 8, 8], [100, 0, 0, 8]], sha256=[digest] * 3)
    yield OK, with_entry(FILE, extents=[], sha256=[])
    places: list[Any] = [None, 0, {}, [0, 0, 8], [0, 0, 8, 8, 0], [-1, 0, 8, 8], [0, -1, 8, 8], [0, 1, 8, 8], [0, 0, -8, 8],
                         [0, 0, 8, 0], [0, 0, 153, 8], [0, 0, 1 << 64, 8], [153, 0, 8, 8], [0, 0, 8, 1 << 63],
                         [0.0, 0, 8, 8], [False, 0, 8, 8]]  # fmt: skip
    for place in places:
        yield DAMAGED, with_entry(FILE, extents=[place], sha256=[digest])
    for rows in ([[0, 0, 8, 8]] * 2, [[8, 0, 8, 8], [0, 0, 8, 8]], [[0, 0, 8, 8], [7, 0, 8, 8]]):
        yield DAMAGED, with_entry(FILE, extents=rows, sha256=[digest] * 2)
    for value in (None, absent, {}, "[]", [[0, 0, 8, 8]] * 2):
        yield DAMAGED, with_entry(FILE, extents=value, sha256=[digest])
    for count, verdict in ((100_000, OK), (100_001, DAMAGED)):
        built = Archive()
        chunk = built.chunk(b"x" * 4096)
        rows = [[at, chunk, 0, 1] for at in range(count)]
        built.file("f", size=count, extents=rows, sha256=[sha256(b"x").hex()] * count)
        yield verdict, built.to_bytes()


@rule("entry: sha256 or blake3")
def _() -> Archives:
    content = b"content " * 20
    hashed = blake3(content)
    built = Archive(
        [], [Chunk(content, 160, checksum=hashed.digest()[:8], digest=hashed.hexdigest())], header={"flags": 1}
    )
    extent = [[0, 0, 0, 160]]
    built.file("f", size=160, extents=extent, blake3=[hashed.hexdigest()], sha256=None)
    yield OK, built.to_bytes()
    built.entries[0] |= {"blake3": None, "sha256": [sha256(content).hex()]}
    yield DAMAGED, built.to_bytes()
    for value in (None, absent, {}, "x", [], [sha256(content).hex()] * 2, [None], [bytes(32).hex()]):
        yield DAMAGED, with_entry(FILE, sha256=value)


@rule("entry: changed")
def _() -> Archives:
    for value in (True, False):
        yield OK, with_entry(FILE, changed=value)
    for wrong in (None, 1, 0, "true", []):
        yield DAMAGED, with_entry(FILE, changed=wrong)


@rule("entry: target of a symlink")
def _() -> Archives:
    for target in ("/", "../..", "x" * (32 * KIB), "é"):
        yield OK, with_entry(SYMLINK, target=target)
    for wrong in (None, absent, 1, "", "a\0b", "x" * (32 * KIB + 1), "é" * (16 * KIB) + "x", "\udcff"):
        yield DAMAGED, with_entry(SYMLINK, target=wrong)


@rule("entry: target of a hard link")
def _() -> Archives:
    for wrong in (None, absent, 1, "", "d", "s", "d/h", "nothing", "d/f/", "./d/f"):
        yield DAMAGED, with_entry(HARDLINK, target=wrong)


@rule("entry: target_b64")
def _() -> Archives:
    yield OK, with_entry(SYMLINK, target=absent, target_b64="/w==")
    yield OK, with_entry(HARDLINK, target=absent, target_b64="ZC9m")
    for wrong in (None, 1, "", "/w", "/x==", "_w==", "/w== "):
        yield DAMAGED, with_entry(SYMLINK, target=absent, target_b64=wrong)
    yield DAMAGED, with_entry(SYMLINK, target_b64="/w==")


# --- stored bytes of chunks -------------------------------------------------------------------------------------------

TEXT = bytes(range(256)) * 300 + b"the end"  # 76,807 bytes: two blocks
FRAME = lz4_frame(TEXT)


@stream_rule("none: stored bytes")
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


@stream_rule("ZipNN stream: original bytes, bytes 16–23")
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
    yield zipnn(OK, stream(byte32=1))  # coded, in as many bytes as it stands for: the bytes themselves


@stream_rule("ZipNN stream: a Huff0 block")
def _() -> Streams:
    sound = stream()
    for at in range(len(sound) - 8, len(sound)):
        yield zipnn(DAMAGED, sound[:at] + b"\0" * (len(sound) - at))


# --- judges -----------------------------------------------------------------------------------------------------------


def program(data: bytes) -> str:
    try:
        verify(MemorySource(data), VerifyOptions(content=True, jobs=1, device="cpu", memory=4 * GIB))
    except DamagedError:
        return DAMAGED
    except UnsupportedError:
        return UNSUPPORTED
    return OK


def reader(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except independent_reader.Unsupported:
        return UNSUPPORTED
    except ValueError:
        return DAMAGED
    return OK


def decoded(backend: Backend, codec: int, stored: bytes, size: int) -> tuple[str, bytes]:
    out = memoryview(bytearray(size))
    try:
        backend.decode(codec, memoryview(stored), out)
    except DamagedError:
        return DAMAGED, b""
    except UnsupportedError:
        return UNSUPPORTED, b""
    return OK, bytes(out)


@pytest.mark.parametrize("row", RULES)
def test_program_and_reader_give_a_snapshot_the_verdict_of_the_table(row: str) -> None:
    for number, (verdict, data) in enumerate(RULES[row]()):
        assert (number, verdict) == (number, program(data))
        assert (number, verdict) == (number, reader(lambda data=data: independent_reader.read(data)))


@pytest.fixture(scope="module", params=["cpu", "device"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "cpu":
        yield select_backend("cpu")
        return
    device = CudaBackend(emulated_device(), minimum=0)
    device.prepare(1 << 20, decode=True)
    yield device
    device.close()


@pytest.mark.parametrize("row", STREAM_RULES)
def test_decoders_and_reader_give_stored_bytes_the_verdict_of_the_table(row: str, backend: Backend) -> None:
    for number, (verdict, codec, stored, size) in enumerate(STREAM_RULES[row]()):
        found, content = decoded(backend, codec, stored, size)
        assert (number, verdict) == (number, found)
        if backend.name != "cpu":
            continue
        entry = independent_reader.Chunk(0, len(stored), size, codec, b"")
        assert (number, verdict) == (number, reader(lambda e=entry, s=stored: independent_reader.decode_chunk(s, e)))
        if verdict == OK:
            assert content == independent_reader.decode_chunk(stored, entry)


def test_every_row_of_the_table_has_cases() -> None:
    table = FORMAT.split("\n## 9. ")[1].split("\n## ")[0]
    rows = [
        re.split(r" \| ?", line.strip("| ").replace("`", "")) for line in table.splitlines() if line.startswith("| ")
    ]
    named = {f"{part}: {field}" for part, field, *_ in rows[1:]}
    assert named == RULES.keys() | STREAM_RULES.keys()


def test_every_row_has_a_wrong_value_or_says_that_there_is_none() -> None:
    for line in FORMAT.split("\n## 9. ")[1].split("\n## ")[0].splitlines():
        if not line.startswith("| ") or line.startswith("| part"):
            continue
        part, field, _, otherwise = (cell.strip() for cell in line.strip("|").split("|"))
        row = f"{part}: {field}".replace("`", "")
        verdicts = {case[0] for case in (RULES.get(row) or STREAM_RULES[row])()}
        assert {word for word in (DAMAGED, UNSUPPORTED) if word in otherwise} <= verdicts, row
        assert otherwise or verdicts == {OK}, row
