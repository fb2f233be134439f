"""Snapshots with right and wrong values of every field of a manifest in columns, by row of FORMAT.md's table in section 9."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support.column_manifest import HEAD, NAMES, Columns, difference, in_columns, number
from support.hostile import MTIME, Archive, lz4_frame, sha256, zstd_frame
from support.snapshot_rules import DAMAGED, OK, Archives, archive

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CONTENT = b"content " * 20  # of the file in `archive`
LONGEST = b"\xff" * 9 + b"\x01"  # the number 2^64 - 1
TOO_LONG = (b"\x80\x00", b"\x81\x80\x00", b"\xff" * 9 + b"\x02", b"\xff" * 9 + b"\x81\x00", b"\xff" * 10, b"\x80", b"")

COLUMN_RULES: dict[str, Callable[[], Archives]] = {}


def rule(row: str) -> Callable[[Callable[[], Archives]], Callable[[], Archives]]:
    def register(cases: Callable[[], Archives]) -> Callable[[], Archives]:
        COLUMN_RULES[row] = cases
        return cases

    return register


def columns(bend: Callable[[Columns], object] = lambda built: None, page_entries: int = 1 << 13) -> bytes:
    built = in_columns(archive(), page_entries)
    bend(built)
    return built.to_bytes()


def head(**fields: Any) -> bytes:
    return columns(lambda built: vars(built).update(fields))


def page(at: int = 0, page_entries: int = 1 << 13, **fields: Any) -> bytes:
    return columns(lambda built: vars(built.pages[at]).update(fields), page_entries)


def column(**values: bytes | None) -> bytes:
    """Other bytes in columns, or (None) a column less."""

    def bend(built: Columns) -> None:
        kept = built.pages[0].columns | values
        built.pages[0].columns = {name: value for name, value in kept.items() if value is not None}

    return columns(bend)


def facts(**fields: Any) -> bytes:
    """Other facts; an absent one is None."""
    given = {"method": "none", "tool": "hostile", "created_ns": MTIME} | fields
    text = json.dumps({key: value for key, value in given.items() if value is not absent}).encode()
    return head(facts_text=text)


class absent:  # noqa: N801 - a value
    """Stands for a key that is not there."""


def file_of(extents: list[list[int]], size: int = 160, content: bytes = CONTENT) -> Archive:
    """A chunk of 160 bytes and another, and a file of these extents."""
    built = Archive(header={"chunk_size": 64 * KIB})
    built.chunk(content)
    built.chunk(content[::-1])
    digests = [sha256((content, content[::-1])[row[1]][row[2] : row[2] + row[3]]).hex() for row in extents]
    built.file("f", size=size, extents=extents, sha256=digests)
    return built


def pieces(extents: list[list[int]], size: int = 160, **values: bytes) -> bytes:
    """A file of these extents, with other bytes in columns."""
    built = in_columns(file_of(extents, size))
    built.pages[0].columns |= values
    return built.to_bytes()


@rule("head: head_size")
def _() -> Archives:
    yield OK, columns()
    for wrong in (0, 11, 12, 13, 100, (1 << 32) - 1):
        yield DAMAGED, head(head_size=wrong)
    yield DAMAGED, head(manifest=b"")
    yield DAMAGED, head(manifest=bytes(11))
    yield DAMAGED, head(manifest=HEAD.pack(12, 0, 0))
    yield DAMAGED, head(head_end=b"\0")
    most = MIB + 4 * 32_818 + 32 + 12  # of an archive with 4 entries and a chunk
    yield DAMAGED, head(head_end=bytes(most))


@rule("head: facts_size")
def _() -> Archives:
    text = b'{"method":"","tool":"","created_ns":0,"x":"'
    for size, verdict in ((MIB, OK), (MIB + 1, DAMAGED)):
        yield verdict, head(facts_text=text + b"x" * (size - len(text) - 2) + b'"}')
    for wrong in (0, 1, 1000, (1 << 32) - 1):
        yield DAMAGED, head(facts_size=wrong)


@rule("head: num_pages")
def _() -> Archives:
    yield OK, in_columns(Archive()).to_bytes()
    yield OK, columns(page_entries=1)
    for wrong in (0, 2, 1 << 20, (1 << 20) + 1, (1 << 32) - 1):
        yield DAMAGED, head(num_pages=wrong)

    def without(built: Columns) -> None:
        built.pages.pop()

    yield DAMAGED, columns(without)
    yield DAMAGED, columns(without, page_entries=2)


@rule("head: facts")
def _() -> Archives:
    yield OK, head(facts_text=b'\t{"method":"","tool":"","created_ns":-1}'[1:])
    for text in (b"", b"{}", b"[]", b"null", b'"x"', b"{", b'{"method":"","tool":"","created_ns":0}\n',
                 b' {"method":"","tool":"","created_ns":0}', b'{"method":"","tool":"","tool":"","created_ns":0}',
                 b'{"method":"","tool":"","created_ns":0,"x":NaN}', b'{"method":"\xff","tool":"","created_ns":0}',
                 b"[" * 100_000):  # fmt: skip
        yield DAMAGED, head(facts_text=text)
    for value in (absent, None, 1, ["none"]):
        yield DAMAGED, facts(method=value)
        yield DAMAGED, facts(tool=value)
    for value in (0, -1, -(1 << 63), (1 << 63) - 1):
        yield OK, facts(created_ns=value)
    for wrong in (absent, None, "1", 1.0, True, -(1 << 63) - 1, 1 << 63):
        yield DAMAGED, facts(created_ns=wrong)
    yield OK, facts(root={"mode": 0o7777, "mtime_ns": -1, "owner": [0, 1], "type": "file"})
    for root in (None, [], {}, {"mode": 0}, {"mtime_ns": 0}):
        yield DAMAGED, facts(root=root)
    for fields in ({"mode": 4096}, {"mtime_ns": 1.0}, {"owner": None}, {"owner": [0]}):
        yield DAMAGED, facts(root={"mode": 0, "mtime_ns": 0} | fields)


@rule("head: unknown facts")
def _() -> Archives:
    for value in (None, 1.5, [[]], "\ud800", {"path": {}}):
        yield OK, facts(unknown=value, entries=value, chunks=value)


@rule("head: chunks")
def _() -> Archives:
    digest = sha256(CONTENT)
    yield OK, head(chunks=digest)
    for wrong in (b"", digest[:31], digest * 2, bytes(32), digest[:7] + bytes(25), digest[::-1]):
        yield DAMAGED, head(chunks=wrong)
    yield DAMAGED, head(chunks=digest[:8] + bytes(24))  # the chunk's bytes have another digest


@rule("page record: frame_size")
def _() -> Archives:
    for wrong in (0, 1, 4096, (1 << 32) - 1):
        yield DAMAGED, page(frame_size=wrong)
    yield DAMAGED, head(end=b"\0")
    yield DAMAGED, head(end=zstd_frame(b""))


@rule("page record: page_size")
def _() -> Archives:
    size = len(in_columns(archive()).pages[0].page())
    for wrong in (0, 1, size - 1, size + 1, 16 * MIB, 16 * MIB + 1, (1 << 32) - 1):
        yield DAMAGED, page(page_size=wrong)
    for spare, verdict in ((0, OK), (1, DAMAGED)):  # a page of 16 MiB, and one that is larger
        built = in_columns(archive())
        built.pages[0].columns["pad"] = b""
        built.pages[0].columns["pad"] = bytes(16 * MIB - len(built.pages[0].page()) + spare)
        yield verdict, built.to_bytes()
    built = in_columns(many_entries(65), 1)
    for each in built.pages:
        each.page_size = 16 * MIB  # 65 times: more than 1 GiB
    yield DAMAGED, built.to_bytes()


def many_entries(count: int) -> Archive:
    built = Archive()
    for each in range(count):
        built.directory(f"{each:06}")
    return built


@rule("page record: num_entries")
def _() -> Archives:
    for wrong in (0, 3, 5, 1 << 24, (1 << 32) - 1):
        yield DAMAGED, page(num_entries=wrong)

    def moved(built: Columns) -> None:  # the sum is right
        built.pages[0].num_entries += 1
        built.pages[1].num_entries -= 1

    yield DAMAGED, columns(moved, page_entries=2)

    def empty(built: Columns) -> None:
        built.pages.append(in_columns(many_entries(1)).pages[0])
        built.pages[-1].num_entries = 0
        built.pages[-1].first_path = b"t"

    yield DAMAGED, columns(empty)
    for count in (3, 5, (1 << 24) + 1, (1 << 32) - 1):  # both say so; there are 4
        built = in_columns(archive())
        built.pages[0].num_entries = count
        built.archive.header["num_files"] = count
        yield DAMAGED, built.to_bytes()


@rule("page record: num_pieces")
def _() -> Archives:
    for wrong in (0, 2, 1 << 26, (1 << 32) - 1):
        yield DAMAGED, page(num_pieces=wrong)
    yield DAMAGED, page(at=0, page_entries=1, num_pieces=1)
    built = in_columns(shared(), 1)
    yield OK, built.to_bytes()
    built.pages[0].num_pieces, built.pages[1].num_pieces = 0, 1  # the sum is right
    yield DAMAGED, built.to_bytes()


def shared() -> Archive:
    """Two files of the same piece, and one of two pieces."""
    built = file_of([[0, 0, 0, 160]])
    digest = [sha256(CONTENT).hex(), sha256(CONTENT[::-1]).hex()]
    built.file("g", size=160, extents=[[0, 0, 0, 160]], sha256=digest[:1])
    built.file("h", size=400, extents=[[0, 1, 0, 160], [200, 0, 0, 160]], sha256=digest[::-1])
    return built


@rule("page record: frame_sha256")
def _() -> Archives:
    yield DAMAGED, page(frame_sha256=bytes(31) + b"\1")
    yield DAMAGED, page(frame_sha256=sha256(in_columns(archive()).pages[0].page()))
    yield DAMAGED, head(head_sha256=bytes(32))
    yield DAMAGED, head(head_sha256=sha256(b""))


@rule("page record: first_path")
def _() -> Archives:
    for wrong in (b"", b"c", b"e", b"d/", b"d\0", b"x" * (32 * KIB), b"x" * (32 * KIB + 1), b"x" * 65535):
        yield DAMAGED, page(first_path=wrong)
    for size in (0, 2, 65535):
        yield DAMAGED, page(path_size=size)
    for wrong in (b"d", b"c", b"d/f", b"s"):  # of the second page, d/f
        yield (OK if wrong == b"d/f" else DAMAGED), page(at=1, page_entries=1, first_path=wrong)

    def swapped(built: Columns) -> None:
        built.pages.reverse()

    yield DAMAGED, columns(swapped, page_entries=2)
    yield DAMAGED, columns(lambda built: built.pages.insert(1, built.pages[0]), page_entries=2)


@rule("page: frame")
def _() -> Archives:
    raw = in_columns(archive()).pages[0].page()
    sound = zstd_frame(raw)
    yield OK, page(frame=zstd_frame(raw, level=19, write_checksum=True))
    yield OK, page(frame=zstd_frame(raw, level=-5))
    frames = [b"", b"\0", raw, sound[:-1], sound + b"\0", sound * 2, lz4_frame(raw), zstd_frame(raw[:-1]), zstd_frame(raw + b"\0"),
              zstd_frame(raw, write_content_size=False), b"\x50\x2a\x4d\x18\0\0\0\0" + sound,
              sound[:4] + bytes([sound[4] | 8]) + sound[5:], sound[:-4] + bytes(4)]  # fmt: skip
    for frame in frames:
        yield DAMAGED, page(frame=frame)


@rule("page: num_columns")
def _() -> Archives:
    yield OK, column(**{f"x{number}": b"" for number in range(50)})
    yield DAMAGED, column(**{f"x{number}": b"" for number in range(51)})
    for wrong in (0, 13, 15, 64, 65, 65535):
        yield DAMAGED, page(num_columns=wrong)
    for raw in (b"", b"\0", b"\1", bytes(2), b"\1\0", b"\1\0\4type"):
        yield DAMAGED, page(raw=raw)


@rule("page: names of columns")
def _() -> Archives:
    sound = rows()
    yield OK, page(rows=sound[::-1])
    yield OK, page(rows=sound[5:] + sound[:5])
    for name in NAMES:
        yield DAMAGED, column(**{name: None})
        yield DAMAGED, page(rows=[row if row[0] != name.encode() else (row[0].upper(), *row[1:]) for row in sound])
        yield DAMAGED, page(rows=[*sound, (name.encode(), 0, b"")])
        yield DAMAGED, page(rows=[(name.encode() + b"\0", 0, b""), *(row for row in sound if row[0] != name.encode())])
    yield DAMAGED, page(rows=[*sound, (b"x", 1, b"1"), (b"x", 1, b"1")])
    yield DAMAGED, page(rows=[(b"", 0, b""), *sound, (b"", 0, b"")])


def rows() -> list[tuple[bytes, int, bytes]]:
    return [(name.encode(), len(value), value) for name, value in in_columns(archive()).pages[0].columns.items()]


@rule("page: sizes of columns")
def _() -> Archives:
    sound = rows()
    for at, (name, size, value) in enumerate(sound):
        for wrong in (size - 1, size + 1, (1 << 32) - 1):
            if wrong >= 0:
                yield DAMAGED, page(rows=[*sound[:at], (name, wrong, value), *sound[at + 1 :]])
    yield DAMAGED, page(raw=in_columns(archive()).pages[0].page() + b"\0")
    yield DAMAGED, page(raw=in_columns(archive()).pages[0].page()[:-1])


@rule("page: unknown columns")
def _() -> Archives:
    yield OK, column(x=b"", typ=bytes(1000), types=b"\xff", **{"x" * 255: b"1"})
    yield OK, page(rows=[(b"", 3, b"abc"), (b"type\0", 1, b"\0"), (b"\xff", 1, b"\0"), *rows()])


NUMBERS = ("prefix", "mode", "mtime", "size", "extents", "gap", "piece", "chunk", "at", "rest")


@rule("page: a number")
def _() -> Archives:
    sound = in_columns(archive()).pages[0].columns
    owned = archive()
    owned.entries[0]["owner"] = [5, 5]
    for name in NUMBERS:
        for wrong in TOO_LONG:
            yield DAMAGED, column(**{name: wrong + first_number_less(sound[name])})
            yield DAMAGED, column(**{name: last_number_less(sound[name]) + wrong})
    for name in ("uid", "gid"):
        for wrong in TOO_LONG:
            built = in_columns(owned)
            built.pages[0].columns[name] = wrong + first_number_less(built.pages[0].columns[name])
            yield DAMAGED, built.to_bytes()


def first_number_less(values: bytes) -> bytes:
    """A column without its first number."""
    return values[next(at for at, byte in enumerate(values) if byte < 128) + 1 :]


def last_number_less(values: bytes) -> bytes:
    """A column without its last number."""
    at = len(values) - 1
    while at > 0 and values[at - 1] >= 128:
        at -= 1
    return values[:at]


@rule("page: a column")
def _() -> Archives:
    sound = in_columns(archive()).pages[0].columns
    for name in NAMES:
        for wrong in (b"", sound[name][:-1], sound[name] + b"\0", sound[name] + b"a", sound[name] * 2):
            yield DAMAGED, column(**{name: wrong})
    built = in_columns(archive())
    built.pages[0].columns["changed"] = b"\0\0"  # there is one file
    yield DAMAGED, built.to_bytes()


@rule("column: prefix")
def _() -> Archives:
    # d, d/f, d/h, s
    yield OK, column(prefix=b"\0\1\2\0", suffix=b"d\0/f\0h\0s\0")
    yield DAMAGED, column(prefix=b"\0\0\2\0", suffix=b"d\0d/f\0h\0s\0")  # not all that is equal
    yield DAMAGED, column(prefix=b"\0\1\1\0", suffix=b"d\0/f\0/h\0s\0")
    for first in (b"\1", b"\2", LONGEST):
        yield DAMAGED, column(prefix=first + b"\1\2\0")
    for second in (b"\2", b"\x7f", LONGEST):
        yield DAMAGED, column(prefix=b"\0" + second + b"\2\0")
    built = in_columns(archive(), 2)  # a page begins anew
    built.pages[1].columns |= {"prefix": b"\2\0", "suffix": b"h\0s\0"}
    yield DAMAGED, built.to_bytes()


def last_path(path: bytes) -> bytes:
    """Another path for the symlink, the last entry; what precedes it is d/h."""
    shared = next((at for at, (a, b) in enumerate(zip(path, b"d/h", strict=False)) if a != b), min(3, len(path)))
    sound = in_columns(archive()).pages[0].columns
    return column(prefix=sound["prefix"][:-1] + number(shared), suffix=sound["suffix"][:-2] + path[shared:] + b"\0")


@rule("column: suffix")
def _() -> Archives:
    for path in (b"d/i", b"s", b"x" * 255, b"\xff", b"t\\b", b"s:\n"):
        yield OK, last_path(path)
    for wrong in (b"", b"/s", b"s/", b"s//t", b"t/../s", b"./s", b".", b"..", b"s/.", b"t" * 256, b"a", b"d", b"d/g", b"d/h", b"x/s",
                  b"d/f/x", b"d/h/x", b"d/h/", b"s\0"):  # fmt: skip
        yield DAMAGED, last_path(wrong)
    for size, verdict in ((128, OK), (129, DAMAGED)):  # a path of 32 KiB, and of a byte more
        names = [*["x" * 255] * 126, "x" * 127, "x" * size, "x" * 255]
        deep = Archive()
        for count in range(1, len(names) + 1):
            deep.directory("/".join(names[:count]))
        yield verdict, in_columns(deep).to_bytes()
    for page_entries in (1, 2, 4):  # the directory may be in a page before
        yield OK, columns(page_entries=page_entries)


@rule("column: type")
def _() -> Archives:
    yield OK, column()
    for wrong in (4, 5, 127, 128, 254, 255):
        yield DAMAGED, column(type=b"\1\0\3" + bytes([wrong]))
        yield DAMAGED, column(type=bytes([wrong]) + b"\0\3\2")
    yield DAMAGED, column(type=b"\1\0\3\3")  # a symlink's other values are left over
    yield DAMAGED, column(type=b"\1\1\3\2")


@rule("column: mode")
def _() -> Archives:
    for value in (0, 0o7777):
        yield OK, column(mode=number(value) * 3)
    for wrong in (0o10000, 65536 + 0o644, (1 << 32) + 0o644, (1 << 64) - 1):
        for at in range(3):
            yield DAMAGED, column(mode=b"".join(number(wrong if at == each else 0o644) for each in range(3)))


@rule("column: mtime")
def _() -> Archives:
    for values in ((0, 0, 0), (MTIME, 1, -1), ((1 << 63) - 1, 1, 1), (-(1 << 63), -1, 5), ((1 << 64) - 1, 1 << 63, 0)):
        yield OK, column(mtime=b"".join(map(difference, values)))
    yield OK, column(mtime=LONGEST * 3)


@rule("column: size")
def _() -> Archives:
    yield OK, pieces([[0, 0, 0, 160]], size=MIB)  # its end is a hole
    yield DAMAGED, column(size=number(161), rest=number(1))  # the header says 160
    for wrong in (1 << 63, (1 << 63) + 160, (1 << 64) - 1):
        built = in_columns(archive())
        built.pages[0].columns |= {"size": number(wrong), "rest": number(wrong - 160)}
        built.archive.header["total_size_original"] = wrong
        yield DAMAGED, built.to_bytes()


@rule("column: extents")
def _() -> Archives:
    yield OK, pieces([[0, 0, 8, 8], [8, 0, 8, 8], [100, 0, 0, 8]])
    yield OK, pieces([])
    for wrong in (0, 2, 99_999, 100_001, 1 << 32, (1 << 64) - 1):
        yield DAMAGED, column(extents=number(wrong))
    for count, verdict in ((100_000, OK), (100_001, DAMAGED)):
        built = Archive()
        chunk = built.chunk(b"x" * 4096)
        places = [[at, chunk, 0, 1] for at in range(count)]
        built.file("f", size=count, extents=places, sha256=[sha256(b"x").hex()] * count)
        yield verdict, in_columns(built).to_bytes()


@rule("column: gap")
def _() -> Archives:
    yield OK, pieces([[0, 0, 0, 8], [152, 0, 152, 8]])
    yield OK, pieces([[159, 0, 0, 1]])
    for wrong in (1, 152, 159, 160, 161, 1 << 63, (1 << 64) - 1, (1 << 64) - 160):
        yield DAMAGED, pieces([[0, 0, 0, 160]], gap=number(wrong))
        yield (
            DAMAGED,
            pieces([[0, 0, 0, 8], [152, 0, 0, 8]], gap=number(0) + number(152 + wrong if wrong < 153 else wrong)),
        )


@rule("column: piece")
def _() -> Archives:
    yield OK, in_columns(shared()).to_bytes()
    yield OK, in_columns(shared(), 1).to_bytes()
    yield OK, in_columns(shared(), 2).to_bytes()
    for wrong in (1, 2, 1 << 32, (1 << 64) - 1):
        yield DAMAGED, column(piece=number(wrong))
    for each in range(1, 4):
        for wrong in (3, 4, 1 << 32, (1 << 64) - 1, (1 << 64) - 2):
            built = in_columns(shared(), each)
            built.pages[-1].columns["piece"] = built.pages[-1].columns["piece"][:-1] + number(wrong)
            yield DAMAGED, built.to_bytes()
    short = file_of([[0, 0, 0, 160]])  # the piece is longer than the second file, or than what is left of it
    short.file("g", size=159, extents=[[0, 0, 0, 160]], sha256=[sha256(CONTENT).hex()])
    yield DAMAGED, in_columns(short).to_bytes()
    short.entries[1] |= {"size": 200, "extents": [[41, 0, 0, 160]]}
    yield DAMAGED, in_columns(short).to_bytes()
    short.entries[1]["size"] = 201
    yield OK, in_columns(short).to_bytes()


@rule("column: chunk")
def _() -> Archives:
    yield OK, pieces([[0, 1, 0, 80], [80, 0, 80, 80]])
    for wrong in (2, 3, -1, 1 << 22, 1 << 32, (1 << 32) + 1, 1 << 62, -(1 << 63)):
        yield DAMAGED, pieces([[0, 0, 0, 160]], chunk=difference(wrong))
        yield DAMAGED, pieces([[0, 0, 0, 80], [80, 0, 80, 80]], chunk=difference(0) + difference(wrong))


@rule("column: at")
def _() -> Archives:
    yield OK, pieces([[0, 0, 80, 80], [80, 0, 0, 80]])
    for wrong in (1, 160, 161, -1, -160, 1 << 32, (1 << 32) + 1, 1 << 62, -(1 << 63)):
        yield DAMAGED, pieces([[0, 0, 0, 160]], at=difference(wrong))
        yield (
            DAMAGED,
            pieces(
                [[0, 0, 80, 80], [80, 0, 0, 80]], at=difference(80) + difference(wrong - 160 if wrong != 160 else 1)
            ),
        )


@rule("column: rest")
def _() -> Archives:
    yield OK, pieces([[0, 0, 0, 80]])
    for wrong in (160, 161, 1 << 32, (1 << 32) + 80, (1 << 64) - 1):
        yield DAMAGED, pieces([[0, 0, 0, 80]], rest=number(wrong))
    for shorter in (0, 1, 81, 159):  # of other bytes, which have another digest
        yield DAMAGED, pieces([[0, 0, 0, 80]], rest=number(shorter))
    yield DAMAGED, pieces([[0, 0, 0, 160]], size=161, rest=number(0))  # longer than its chunk


@rule("column: digest")
def _() -> Archives:
    yield DAMAGED, column(digest=bytes(32))
    yield DAMAGED, column(digest=sha256(CONTENT[1:]))


def with_symlink(target: bytes) -> bytes:
    return column(target=b"d/f\0" + target + b"\0")


@rule("column: target of a symlink")
def _() -> Archives:
    for target in (b"/", b"../..", b"x" * (32 * KIB), b"\xff"):
        yield OK, with_symlink(target)
    for wrong in (b"", b"x" * (32 * KIB + 1), b"a\0b", b"\0"):
        yield DAMAGED, with_symlink(wrong)
    yield DAMAGED, column(target=b"d/f\0d/f")


@rule("column: target of a hard link")
def _() -> Archives:
    for wrong in (b"", b"d", b"s", b"d/h", b"nothing", b"d/f/", b"./d/f", b"d/", b"x" * (64 * KIB), b"d/f\xff"):
        yield DAMAGED, column(target=wrong + b"\0d/f\0")
    for page_entries in (1, 2):  # the file may be in a page before
        yield OK, columns(page_entries=page_entries)


@rule("column: changed")
def _() -> Archives:
    for value in (b"\0", b"\1"):
        yield OK, column(changed=value)
    for wrong in (b"\2", b"\xff", b"\x80", b"", b"\0\0"):
        yield DAMAGED, column(changed=wrong)


@rule("column: uid and gid")
def _() -> Archives:
    highest = (1 << 32) - 1
    for each in (0, 1, highest):
        yield OK, column(uid=number(each) * 3, gid=number(each) * 3)
    yield OK, column(uid=b"\0\0" + number(1), gid=b"\0\0" + number(highest))
    for uid, gid in ((0, 1), (1, 0), (highest + 1, 1), (1, highest + 1), ((1 << 32) + 1, 1), ((1 << 64) - 1, 1)):
        yield DAMAGED, column(uid=b"\0\0" + number(uid), gid=b"\0\0" + number(gid))
    yield DAMAGED, column(uid=b"\0\0\0")
    yield DAMAGED, column(gid=b"\0\0\0")
    for wrong in (b"", b"\0\0", b"\0\0\0\0"):
        yield DAMAGED, column(uid=wrong, gid=b"\0\0\0")
        yield DAMAGED, column(uid=b"\0\0\0", gid=wrong)
