"""Snapshots with right and wrong values of every field outside the chunks, by row of FORMAT.md's table in section 9."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from blake3 import blake3

from support.column_manifest import in_columns
from support.frozen_codecs import FIRST_UNKNOWN
from support.hostile import MTIME, Archive, Chunk, lz4_frame, sha256
from support.streams import as_stream

OK, DAMAGED, UNSUPPORTED = "ok", "damaged", "not supported"
KIB = 1 << 10

Archives = Iterator[tuple[str, bytes]]  # a verdict, and the snapshot that must get the verdict
RULES: dict[str, Callable[[], Archives]] = {}


def rule(row: str) -> Callable[[Callable[[], Archives]], Callable[[], Archives]]:
    def register(cases: Callable[[], Archives]) -> Callable[[], Archives]:
        RULES[row] = cases
        return cases

    return register


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
    """An entry with other fields; `absent` removes a field."""
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
    yield OK, in_columns(Archive(header={"flags": 1})).to_bytes()
    yield OK, as_stream(archive().to_bytes())
    yield DAMAGED, with_header(flags=4)  # and no last block
    for bit in range(3, 16):
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
    most = (1 << 20) + (16 << 20)  # of JSON, without entries and chunks
    yield DAMAGED, Archive(stored_manifest=bytes(most + most // 128 + 64 * KIB + 1)).to_bytes()


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


@rule("stream: header of the first block")
def _() -> Archives:
    data = archive().to_bytes()
    yield OK, as_stream(data)
    yield OK, as_stream(in_columns(archive()).to_bytes())
    yield OK, as_stream(Archive().to_bytes())
    for wrong in ({"num_chunks": 1}, {"num_files": 4}, {"manifest_size": 1}, {"index_sha256": bytes(31) + b"\1"}):
        yield DAMAGED, as_stream(data, wrong)
    yield DAMAGED, as_stream(data, {"chunk_size": 64 * KIB + 1})
    yield DAMAGED, as_stream(data, {"flags": 5})
    yield DAMAGED, as_stream(data, {"flags": 0})
    yield DAMAGED, as_stream(data, {"magic": b"DUMONTXX"})
    yield DAMAGED, as_stream(data, {"reserved": b"\1"})
    yield UNSUPPORTED, as_stream(data, {"version": 3})
    yield UNSUPPORTED, as_stream(data, {"flags": 12})
    yield UNSUPPORTED, as_stream(data, {"magic": b"DUMONT03"})


@rule("stream: header of the last block")
def _() -> Archives:
    data = archive().to_bytes()
    yield OK, as_stream(data, {"flags": 0xFFFF0004}, {"flags": 0xFFFF0004})
    for wrong in (
        *({"magic": b"DUMONT03"}, {"magic": bytes(8)}, {"version": 3}, {"flags": 0}, {"flags": 5}, {"flags": 12}),
        *({"chunk_size": 4095}, {"chunk_size": 64 * KIB + 1}, {"reserved": b"\1"}, {"index_sha256": bytes(32)}),
        *({"num_chunks": 0}, {"num_chunks": 4_194_305}, {"num_files": 3}, {"total_size_compressed": 1 << 20}),
    ):
        yield DAMAGED, as_stream(data, closing=wrong)
    whole = as_stream(data)
    for size in (0, 1, 511, 512, 4095, 4096, 8191, len(whole) - 4096, len(whole) - 1):
        yield DAMAGED, whole[:size]
    yield DAMAGED, whole + bytes(1)
    yield DAMAGED, whole + bytes(4096)
    yield DAMAGED, whole[:-4096] + bytes(4096)


@rule("stream: manifest_offset and manifest_size")
def _() -> Archives:
    data = archive().to_bytes()
    at, size = (int.from_bytes(data[start : start + 8], "little") for start in (48, 56))
    for offset in (0, 512, 4095, at - 1, at + 1, at + 4096, (1 << 64) - size, (1 << 64) - 1):
        yield DAMAGED, as_stream(data, closing={"manifest_offset": offset})
    for wrong in (0, size - 1, size + 1, (1 << 64) - at, (1 << 64) - 1):
        yield DAMAGED, as_stream(data, closing={"manifest_size": wrong})
    yield DAMAGED, as_stream(data, gap=bytes(8192))


@rule("stream: nonce")
def _() -> Archives:
    data = archive().to_bytes()
    yield OK, as_stream(data, {"nonce": bytes(32)}, {"nonce": bytes(32)})
    yield DAMAGED, as_stream(data, {"nonce": bytes(32)})
    yield DAMAGED, as_stream(data, closing={"nonce": bytes(32)})


@rule("stream: rest of both blocks")
def _() -> Archives:
    data = archive().to_bytes()
    for wrong in (b"\1", bytes(3551) + b"\1"):
        yield DAMAGED, as_stream(data, {"rest": wrong})
        yield DAMAGED, as_stream(data, closing={"rest": wrong})


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
    for codec in (FIRST_UNKNOWN, FIRST_UNKNOWN + 1, 128, 255):
        yield UNSUPPORTED, with_chunk(codec=codec)
    yield DAMAGED, with_chunk(codec=FIRST_UNKNOWN, size_original=0)  # the bounds come first


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
    yield OK, with_entry(FILE, size=(1 << 20) + 1)  # its end is a hole
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
