"""Snapshots bent by rule: how bends are drawn, applied, and made simpler.

A bend is a tuple of plain values: a kind and its parameters. `build` applies bends to a sound archive and signs the result:
every digest is made to fit again, so that a reader meets the bend and not a digest.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import campaign  # noqa: F401 - says where the tests' modules are
import column_bends
from blake3 import blake3
from support import independent_reader
from support.hostile import (
    LZ4,
    LZ4_HC,
    RAW,
    ZIPNN,
    Archive,
    Chunk,
    float_bytes,
    header_checksum,
    lz4_frame,
    sha256,
    small_archive,
)

Bend = tuple[Any, ...]


@dataclass(frozen=True)
class Bent:
    """An archive by name, and its bends, in order."""

    base: str
    bends: tuple[Bend, ...]


# --- sound archives ---------------------------------------------------------------------------------------------------


def floats() -> Archive:
    """A stream of each element type, and a sequence of two."""
    from dumont_gpu.native import Dtype, zipnn_encode

    archive = Archive(header={"chunk_size": 64 << 10})
    streams = []
    for number, dtype in enumerate(Dtype):
        content = float_bytes(1500, seed=number + 1)
        out = memoryview(bytearray(8000))
        streams.append((bytes(out[: zipnn_encode(memoryview(content), out, dtype, 10)]), content))
    parts = [(stream[:13] + b"\x94" + stream[14:], content) for stream, content in streams[:2]]
    streams.append((b"".join(part for part, _ in parts), b"".join(content for _, content in parts)))
    for number, (stream, content) in enumerate(streams):
        if not 0 < len(stream) <= len(content):
            continue
        archive.chunks.append(Chunk(stream, len(content), ZIPNN))
        place = [0, len(archive.chunks) - 1, 0, len(content)]
        archive.file(f"f{number}", size=len(content), extents=[place], sha256=[sha256(content).hex()])
    return archive


def blake3_digests() -> Archive:
    """Digests are BLAKE3; a file in pieces, with holes, that shares its chunk with another file."""
    content = b"some words, again and again " * 20
    stored = lz4_frame(content)
    hashed = blake3(stored)
    archive = Archive([], [Chunk(stored, len(content), LZ4, checksum=hashed.digest()[:8], digest=hashed.hexdigest())])
    archive.header["flags"] = 1
    pieces = [[0, 0, 0, 100], [200, 0, 300, 260], [1000, 0, 10, 5]]
    digests = [blake3(content[at : at + length]).hexdigest() for _, _, at, length in pieces]
    entry = archive.file("a", size=2000, extents=pieces, blake3=digests, changed=True)
    archive.head = {"root": {"mode": 0o755, "mtime_ns": 1, "owner": [0, 0]}}
    archive.entries.append({**entry, "path": "b", "extents": pieces[:1], "blake3": digests[:1], "owner": [1000, 1000]})
    return archive


def many() -> Archive:
    """So many entries that the manifest may have 1 GiB."""
    archive = Archive()
    for number in range(70):
        archive.directory(f"{number:02}")
    return archive


BASES: dict[str, Callable[[], Archive]] = {
    "empty": Archive,
    "many": many,
    "blake3": blake3_digests,
    "small": small_archive,
    "floats": floats,
}

# --- drawing ----------------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, -1, 4095, 4096, 4097, 511, 512, 65536, 1 << 20, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), -(1 << 63) - 1)  # fmt: skip
VALUES = (None, True, False, 0.5, 1e300, "", "a", "A" * 64, "0" * 64, "/", "..", "a/b", "d", "d/raw", "\0", "\ud800", "é", "\x1b[2J",
          "x" * 256, "file", "dir", "symlink", "hardlink", [], [0], [[0, 0, 0, 1]], {}, {"path": "x"}, *NUMBERS)  # fmt: skip
KEYS = ("path", "path_b64", "type", "mode", "mtime_ns", "owner", "size", "extents", "sha256", "blake3", "changed", "target",
        "target_b64", "unknown")  # fmt: skip
HEADER = ("magic", "version", "flags", "num_chunks", "num_files", "total_size_compressed", "total_size_original", "chunk_size",
          "manifest_offset", "manifest_size", "reserved", "index_sha256", "manifest_sha256")  # fmt: skip
TEXTS = (b" ", b",", b"\n", b"\r", b"\t", b'"', b"{", b"}", b"[", b"]", b"]}", b"0", b"-", b"NaN", b"\xff", b"\0", b"\xef\xbb\xbf",
         b"null", b"1e9", b'"path":"d",', b"\\u0000", b"\\ud800")  # fmt: skip


def draw(dice: random.Random) -> Bent:
    if dice.randrange(3) == 0:
        base = dice.choice(tuple(column_bends.BASES))
        bends = tuple(_draw_column_bend(dice) for _ in range(dice.choice((1, 1, 1, 2, 3))))
        return Bent(base, bends)
    base = dice.choice(("small", "small", "floats", "floats", "blake3", "many", "many", "empty"))
    return Bent(base, tuple(_draw_bend(dice) for _ in range(dice.choice((1, 1, 1, 1, 2, 2, 3)))))


def _draw_column_bend(dice: random.Random) -> Bend:
    if dice.randrange(8) == 0:
        return "header", dice.choice(HEADER), dice.choice((*NUMBERS, 1 << dice.randrange(64)))
    return column_bends.draw(dice, NUMBERS)


def _draw_bend(dice: random.Random) -> Bend:
    at, byte = dice.randrange(1 << 16), dice.randrange(256)
    near = dice.choice((dice.randrange(32), dice.randrange(120), at))
    plus, few = dice.choice((-4096, -1, 1, 4096)), dice.randrange(9)
    areas: tuple[tuple[Callable[[], Bend], ...], ...] = (
        (
            lambda: ("header", dice.choice(HEADER), dice.choice((*NUMBERS, 1 << dice.randrange(64)))),
            lambda: ("header plus", dice.choice(HEADER), plus),
        ),
        (
            lambda: ("entry", at, dice.choice(KEYS), dice.choice(VALUES)),
            lambda: ("entry without", at, dice.choice(KEYS)),
            lambda: ("entry from", at, dice.choice(KEYS), few),
            lambda: ("entry text", at, dice.choice(("path", "target")), dice.randrange(40), dice.choice(("/", "\0", ".", "\x7f", "é", ""))),
            lambda: dice.choice((("twice", at), ("without", at), ("swapped", at, few))),
        ),
        (
            lambda: ("extent", at, few, dice.randrange(4), dice.choice((*NUMBERS, None, 0.0))),
            lambda: ("extent plus", at, few, dice.randrange(4), dice.choice((-1, 1, 7))),
            lambda: ("extents twice", at),
            lambda: ("digest", at, dice.randrange(70), dice.choice("0aAgG é")),
        ),
        (
            lambda: ("head", dice.choice(("method", "tool", "created_ns", "root", "chunks", "entries", "unknown")), dice.choice(VALUES)),
            lambda: ("root", dice.choice(KEYS), dice.choice(VALUES)),
        ),
        (
            lambda: ("manifest", at, dice.choice(TEXTS), dice.randrange(3)),
            lambda: ("manifest near", dice.choice((b",\n", b"[\n", b"\n]}", b'":', b"}")), few, dice.choice(TEXTS), dice.randrange(2)),
        ),
        (
            lambda: ("frame", dice.randrange(30), byte),
            lambda: ("frame size", dice.choice((0, 1, 1 << 20, 1 << 28, 1 << 30, (1 << 30) + 1, 1 << 62))),
        ),
        (
            lambda: ("chunk", at, dice.choice(("size_original", "size_compressed", "codec", "offset")), dice.choice((*range(6), *NUMBERS))),
            lambda: ("chunk plus", at, dice.choice(("size_original", "size_compressed", "offset")), plus),
            lambda: dice.choice((("padding", bytes([byte])), ("trailer", bytes([byte])), ("cut", at))),
        ),
        (
            lambda: ("stored", at, near, byte),
            lambda: ("stored", at, dice.randrange(32), dice.choice((0, 1, 2, 5, 62, 63, 127, 128, 255))),
            lambda: ("stored number", at, dice.randrange(8), dice.choice(NUMBERS)),
            lambda: dice.choice((("stored cut", at, near), ("stored longer", at, b"\0\0\0\0"), ("stored twice", at))),
        ),
    )  # fmt: skip
    return dice.choice(dice.choice(areas))()


def smaller(case: Bent) -> Iterator[Bent]:
    """Yields the case with a bend less, then in a simpler archive, then with simpler numbers."""
    for number in range(len(case.bends)):
        if len(case.bends) > 1:
            yield Bent(case.base, case.bends[:number] + case.bends[number + 1 :])
    for base in column_bends.BASES if case.base in column_bends.BASES else BASES:
        if base == case.base:
            break
        yield Bent(base, case.bends)
    for number, bend in enumerate(case.bends):
        for at, value in enumerate(bend):
            if type(value) is int and value > 20:
                for simpler in (value % 8, value % 64):
                    if simpler != value:
                        yield Bent(
                            case.base,
                            (*case.bends[:number], (*bend[:at], simpler, *bend[at + 1 :]), *case.bends[number + 1 :]),
                        )


# --- bending ----------------------------------------------------------------------------------------------------------


def build(case: Bent) -> bytes:
    """The bytes of a bent snapshot, signed."""
    if case.base in column_bends.BASES:
        archive = column_bends.build(case.base, case.bends)
        return _whole(archive, [bend for bend in case.bends if bend[0] == "header"])
    archive = BASES[case.base]()
    late: list[Bend] = []
    for bend in case.bends:
        kind, *parameters = bend
        if kind in LATE:
            late.append(bend)
        elif kind in EARLY:
            EARLY[kind](archive, *parameters)
    _sign_chunks(archive)
    manifest = _manifest(archive, [bend for bend in late if bend[0].startswith("manifest")])
    stored = bytearray(lz4_frame(manifest))
    for bend in late:
        if bend[0] == "frame":
            stored[bend[1] % len(stored)] = bend[2]
        elif bend[0] == "frame size":
            stored[6:14] = struct.pack("<Q", bend[1] % (1 << 64))
        if bend[0] in ("frame", "frame size"):
            stored[14] = header_checksum(bytes(stored[4:14]))
    archive.stored_manifest = bytes(stored)
    return _whole(archive, [bend for bend in late if bend[0] in ("header", "header plus", "cut")])


LATE = {"manifest", "manifest near", "frame", "frame size", "header", "header plus", "cut"}


def _manifest(archive: Archive, bends: list[Bend]) -> bytes:
    manifest = bytearray(archive.manifest_json())
    for kind, *parameters in bends:
        if kind == "manifest":
            at, text, how = parameters
            at %= len(manifest)
            manifest[at : at + (len(text), 0, 1)[how]] = text  # replaces as many bytes, none, or a single byte
        else:
            mark, number, text, after = parameters
            places = [at for at in range(len(manifest)) if manifest.startswith(mark, at)]
            if places:
                at = places[number % len(places)] + (len(mark) if after else 0)
                manifest[at:at] = text
    return bytes(manifest)


def _whole(archive: Archive, bends: list[Bend]) -> bytes:
    fields = {"magic": b"DUMONT02", "reserved": b""}
    cut = 0
    for kind, *parameters in bends:
        if kind == "cut":
            cut = parameters[0]
            continue
        name, value = parameters
        if name == "magic":
            fields[name] = b"DUMONT%02d" % (value % 100) if value % 2 else struct.pack("<q", value % (1 << 63))
        elif name in ("reserved", "index_sha256", "manifest_sha256"):
            fields[name] = bytes([value % 256])
        else:
            width = 4 if name in ("version", "flags", "num_chunks", "num_files") else 8
            plus = _declared(archive, name) if kind == "header plus" else 0
            archive.header[name] = (plus + value) % (1 << 8 * width)
    archive.header |= {name: value for name, value in fields.items() if value not in (b"DUMONT02", b"")}
    data = archive.to_bytes()
    return data[: len(data) - cut % len(data)] if cut else data


def _declared(archive: Archive, name: str) -> int:
    """Returns the value of a header field before any bend."""
    offsets = {"version": 8, "flags": 12, "num_chunks": 16, "num_files": 20, "total_size_compressed": 24, "total_size_original": 32,
               "chunk_size": 40, "manifest_offset": 48, "manifest_size": 56}  # fmt: skip
    return int.from_bytes(
        archive.to_bytes()[offsets[name] :][: 4 if name in ("version", "flags", "num_chunks", "num_files") else 8],
        "little",
    )


def _sign_chunks(archive: Archive) -> None:
    """Gives chunks that were bent their digests, and files whose bytes still decode those of their extents."""
    flags = archive.header.get("flags", 0) & 1
    name = "blake3" if flags else "sha256"
    digest = (lambda data: blake3(data).digest()) if flags else sha256
    for number, chunk in enumerate(archive.chunks):
        if flags:
            chunk.digest, chunk.checksum = digest(chunk.stored).hex(), digest(chunk.stored)[:8]
        if not isinstance(chunk.size_original, int) or not 0 <= chunk.size_original <= 1 << 20:
            continue
        try:
            entry = independent_reader.Chunk(0, len(chunk.stored), chunk.size_original, chunk.codec, b"")
            content = independent_reader.decode_chunk(chunk.stored, entry)
        except (KeyError, ValueError, independent_reader.Unsupported):  # KeyError: no such codec
            continue
        for file in archive.entries:
            rows, digests = file.get("extents"), file.get(name)
            if not isinstance(rows, list) or not isinstance(digests, list):
                continue
            for at, row in enumerate(rows[: len(digests)]):
                if _usable(row, number) and digests[at] == str(digests[at]).lower():
                    digests[at] = digest(content[row[2] : row[2] + row[3]]).hex()


def _usable(row: Any, chunk: int) -> bool:
    """Whether an extent lies in this chunk."""
    if not isinstance(row, list) or len(row) != 4 or not all(type(part) is int for part in row):
        return False
    return row[1] == chunk and 0 <= row[2] <= 1 << 30 and 0 < row[3] <= 1 << 20


EARLY: dict[str, Callable[..., None]] = {}


def early(kind: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(bend: Callable[..., None]) -> Callable[..., None]:
        EARLY[kind] = bend
        return bend

    return register


def _of(items: list[Any], at: int) -> Any:
    """Returns one of the items, or a new object, outside the archive, if there are none."""
    return items[at % len(items)] if items else {}


@early("entry")
def _(archive: Archive, at: int, key: str, value: Any) -> None:
    _of(archive.entries, at)[key] = value


@early("entry without")
def _(archive: Archive, at: int, key: str) -> None:
    _of(archive.entries, at).pop(key, None)


@early("entry from")
def _(archive: Archive, at: int, key: str, other: int) -> None:
    entry = _of(archive.entries, other)
    if key in entry:
        _of(archive.entries, at)[key] = json.loads(json.dumps(entry[key]))


@early("entry text")
def _(archive: Archive, at: int, key: str, place: int, text: str) -> None:
    entry = _of(archive.entries, at)
    if isinstance(entry.get(key), str):
        entry[key] = entry[key][:place] + text + entry[key][place:]


@early("twice")
def _(archive: Archive, at: int) -> None:
    if archive.entries:
        archive.entries.insert(at % len(archive.entries), json.loads(json.dumps(_of(archive.entries, at))))


@early("without")
def _(archive: Archive, at: int) -> None:
    if archive.entries:
        del archive.entries[at % len(archive.entries)]


@early("swapped")
def _(archive: Archive, at: int, other: int) -> None:
    entries = archive.entries
    if entries:
        a, b = at % len(entries), other % len(entries)
        entries[a], entries[b] = entries[b], entries[a]


def _row(archive: Archive, at: int, number: int) -> Any:
    rows = [
        row
        for entry in archive.entries
        for row in entry.get("extents") or []
        if isinstance(row, list) and len(row) == 4
    ]
    return _of(rows, at + number)


@early("extent")
def _(archive: Archive, at: int, number: int, field: int, value: Any) -> None:
    _row(archive, at, number)[field] = value


@early("extent plus")
def _(archive: Archive, at: int, number: int, field: int, value: int) -> None:
    row = _row(archive, at, number)
    if row and type(row[field]) is int:
        row[field] += value


@early("extents twice")
def _(archive: Archive, at: int) -> None:
    entry = _of(archive.entries, at)
    for key in ("extents", "sha256", "blake3"):
        if isinstance(entry.get(key), list):
            entry[key] = entry[key] * 2


@early("digest")
def _(archive: Archive, at: int, place: int, text: str) -> None:
    entry = _of(archive.entries, at)
    for key in ("sha256", "blake3"):
        if isinstance(entry.get(key), list) and entry[key] and isinstance(entry[key][0], str):
            entry[key][0] = entry[key][0][:place] + text + entry[key][0][place + 1 :]


@early("head")
def _(archive: Archive, key: str, value: Any) -> None:
    archive.head[key] = value


@early("root")
def _(archive: Archive, key: str, value: Any) -> None:
    root = archive.head.get("root")
    archive.head["root"] = (root if isinstance(root, dict) else {"mode": 0o755, "mtime_ns": 5}) | {key: value}


@early("chunk")
def _(archive: Archive, at: int, field: str, value: int) -> None:
    if archive.chunks:
        width = {"codec": 8, "offset": 64}.get(field, 32)
        setattr(_of(archive.chunks, at), field, value % (1 << width))


@early("chunk plus")
def _(archive: Archive, at: int, field: str, value: int) -> None:
    if archive.chunks:
        chunk = _of(archive.chunks, at)
        now = {"size_original": chunk.size_original, "size_compressed": len(chunk.stored), "offset": 8192}[field]
        setattr(chunk, field, (now + value) % (1 << 32))


def _stored(archive: Archive, at: int, bend: Callable[[bytes], bytes]) -> None:
    if archive.chunks:
        chunk = _of(archive.chunks, at)
        chunk.stored = bend(chunk.stored)


@early("stored")
def _(archive: Archive, at: int, place: int, byte: int) -> None:
    def bend(stored: bytes) -> bytes:
        bent = bytearray(stored)
        if bent:
            bent[place % len(bent)] = byte
        if bent[:4] == b"\x04\x22\x4d\x18" and len(bent) > 15 and place % len(bent) < 14:
            bent[14] = header_checksum(bytes(bent[4:14]))
        return bytes(bent)

    _stored(archive, at, bend)


@early("stored number")
def _(archive: Archive, at: int, place: int, value: int) -> None:
    """Sizes and tables of a ZipNN stream are numbers of 8 bytes."""
    offset = 16 + 8 * place
    _stored(archive, at, lambda stored: stored[:offset] + struct.pack("<Q", value % (1 << 64)) + stored[offset + 8 :])


@early("stored cut")
def _(archive: Archive, at: int, count: int) -> None:
    _stored(archive, at, lambda stored: stored[: len(stored) - count % max(1, len(stored))])


@early("stored longer")
def _(archive: Archive, at: int, more: bytes) -> None:
    _stored(archive, at, lambda stored: stored + more)


@early("stored twice")
def _(archive: Archive, at: int) -> None:
    _stored(archive, at, lambda stored: stored * 2)


@early("padding")
def _(archive: Archive, text: bytes) -> None:
    archive.padding = text


@early("trailer")
def _(archive: Archive, text: bytes) -> None:
    archive.trailer = text


__all__ = ["BASES", "LZ4_HC", "RAW", "Bend", "Bent", "build", "draw", "smaller"]
