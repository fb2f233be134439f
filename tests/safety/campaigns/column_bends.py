"""Bends of a manifest in columns: in values, columns, pages and the head. bends.py draws them, and bends the rest of a snapshot."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import campaign  # noqa: F401 - says where the tests' modules are
from support.column_manifest import NAMES, Columns, Page, in_columns, number
from support.hostile import Archive, sha256, small_archive, zstd_frame

Bend = tuple[Any, ...]
FLAT = ("prefix", "mode", "mtime", "size", "extents", "gap", "piece", "chunk", "at", "rest", "uid", "gid")  # of numbers
PARTS = (
    b"\0",
    b"\1",
    b"/",
    b".",
    b"..\0",
    b"/..\0",
    b"\xff",
    b"\x80\0",
    b"a\0",
    b"d\0",
    b"d/raw\0",
    b"\xff" * 9 + b"\1",
)


def rich() -> Archive:
    """Every entry type, owners, a changed file, holes, a file of many extents, pieces that files share."""
    archive = small_archive()
    content = b"as it is"
    rows = [[at * 3, 0, at, 1] for at in range(8)]
    entry = archive.file(
        "t", size=400, extents=rows, sha256=[sha256(content[at : at + 1]).hex() for at in range(8)], changed=True
    )
    archive.entries.append({**entry, "path": "u", "owner": [7, 1 << 20], "changed": False})
    archive.symlink("z", "../out")
    archive.head = {"root": {"mode": 0o755, "mtime_ns": 1, "owner": [0, 0]}}
    return archive


BASES: dict[str, Callable[[], Columns]] = {
    "columns": lambda: in_columns(small_archive()),
    "columns in pages": lambda: in_columns(rich(), 3),
    "columns, an entry a page": lambda: in_columns(rich(), 1),
    "no columns": lambda: in_columns(Archive()),
}


def draw(dice: random.Random, numbers: tuple[int, ...]) -> Bend:
    page, at, byte = dice.randrange(1 << 8), dice.randrange(1 << 12), dice.randrange(256)
    name, value = dice.choice((*NAMES, "changed", "uid", "gid")), dice.choice((*range(9), *numbers))
    return dice.choice(
        (
            ("column byte", page, name, at, byte),
            ("column part", page, name, at, dice.choice((0, 0, 1, 2)), dice.choice(PARTS)),
            ("column cut", page, name, at, 1 + dice.randrange(3)),
            ("column number", page, dice.choice(FLAT), at, value),
            ("column number", page, dice.choice(FLAT), at, value),
            ("column plus", page, dice.choice(FLAT), at, dice.choice((-2, -1, 1, 2, 1 << 32))),
            ("column as", page, name, dice.randrange(1 << 8), dice.choice((name, dice.choice(NAMES)))),
            ("column gone", page, name),
            ("column more", page, dice.choice(("x", "changed", "uid", "Type", "")), bytes([byte]) * dice.randrange(4)),
            ("page", page, dice.choice(("num_entries", "num_pieces", "page_size", "frame_size", "path_size")), value),
            ("page", page, "num_columns", value),
            ("page plus", page, dice.choice(("num_entries", "num_pieces")), dice.choice((-1, 1))),
            ("page byte", page, at % 160, byte),
            ("frame byte", page, at, byte),
            ("first path", page, dice.choice((b"", b"a", b"d", b"zz", b"d/text", b"\0", b"x" * 40_000))),
            dice.choice((("pages twice", page), ("pages without", page), ("pages swapped", page, at))),
            ("head", dice.choice(("head_size", "facts_size", "num_pages")), value),
            ("manifest byte", at, byte),
            ("manifest cut", at),
        )
    )  # fmt: skip


def build(base: str, bends: tuple[Bend, ...]) -> Archive:
    """Returns the archive with its bent manifest in place."""
    columns = BASES[base]()
    for kind, *parameters in bends:
        if kind in BENDS:
            BENDS[kind](columns, *parameters)
    columns.place()
    for kind, *parameters in bends:
        if kind in OF_BYTES and columns.archive.stored_manifest:
            columns.manifest = OF_BYTES[kind](columns.archive.stored_manifest, *parameters)
            columns.place()
    return columns.archive


BENDS: dict[str, Callable[..., None]] = {}


def bend(kind: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(apply: Callable[..., None]) -> Callable[..., None]:
        BENDS[kind] = apply
        return apply

    return register


def _page(columns: Columns, at: int) -> Page:
    """Returns one of the pages, or one outside the archive if there are none."""
    return columns.pages[at % len(columns.pages)] if columns.pages else Page({}, 0, 0, b"")


@bend("column byte")
def _(columns: Columns, page: int, name: str, at: int, byte: int) -> None:
    values = _page(columns, page).columns
    column = bytearray(values.get(name, b""))
    if column:
        column[at % len(column)] = byte
        values[name] = bytes(column)


@bend("column part")
def _(columns: Columns, page: int, name: str, at: int, instead: int, part: bytes) -> None:
    values = _page(columns, page).columns
    column = values.get(name, b"")
    at %= len(column) + 1
    values[name] = column[:at] + part + column[at + instead :]


@bend("column cut")
def _(columns: Columns, page: int, name: str, at: int, count: int) -> None:
    values = _page(columns, page).columns
    if values.get(name):
        at %= len(values[name])
        values[name] = values[name][:at] + values[name][at + count :]


def _with_number(columns: Columns, page: int, name: str, at: int, change: Callable[[int], int]) -> None:
    values = _page(columns, page).columns
    found = _numbers(values.get(name, b""))
    if found:
        at %= len(found)
        found[at] = change(found[at]) % (1 << 64)
        values[name] = b"".join(map(number, found))


def _numbers(column: bytes) -> list[int]:
    found, value, shift = [], 0, 0
    for byte in column:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(value)
            value = shift = 0
    return found


@bend("column number")
def _(columns: Columns, page: int, name: str, at: int, value: int) -> None:
    _with_number(columns, page, name, at, lambda _: value)


@bend("column plus")
def _(columns: Columns, page: int, name: str, at: int, value: int) -> None:
    _with_number(columns, page, name, at, lambda before: before + value)


@bend("column as")
def _(columns: Columns, page: int, name: str, other_page: int, other: str) -> None:
    _page(columns, page).columns[name] = _page(columns, other_page).columns.get(other, b"")


@bend("column gone")
def _(columns: Columns, page: int, name: str) -> None:
    _page(columns, page).columns.pop(name, None)


@bend("column more")
def _(columns: Columns, page: int, name: str, column: bytes) -> None:
    _page(columns, page).columns[name] = column


@bend("page")
def _(columns: Columns, page: int, field: str, value: int) -> None:
    width = 16 if field in ("path_size", "num_columns") else 32
    setattr(_page(columns, page), field, value % (1 << width))


@bend("page plus")
def _(columns: Columns, page: int, field: str, value: int) -> None:
    bent = _page(columns, page)
    setattr(bent, field, max(0, getattr(bent, field) + value))


@bend("page byte")
def _(columns: Columns, page: int, at: int, byte: int) -> None:
    bent = _page(columns, page)
    raw = bytearray(bent.page())
    raw[at % len(raw)] = byte
    bent.raw = bytes(raw)


@bend("frame byte")
def _(columns: Columns, page: int, at: int, byte: int) -> None:
    bent = _page(columns, page)
    frame = bytearray(zstd_frame(bent.page()))
    frame[at % len(frame)] = byte
    bent.frame, bent.page_size = bytes(frame), len(bent.page())


@bend("first path")
def _(columns: Columns, page: int, path: bytes) -> None:
    _page(columns, page).first_path = path


@bend("pages twice")
def _(columns: Columns, page: int) -> None:
    if columns.pages:
        columns.pages.insert(page % len(columns.pages), _page(columns, page))


@bend("pages without")
def _(columns: Columns, page: int) -> None:
    if columns.pages:
        del columns.pages[page % len(columns.pages)]


@bend("pages swapped")
def _(columns: Columns, page: int, other: int) -> None:
    if columns.pages:
        a, b = page % len(columns.pages), other % len(columns.pages)
        columns.pages[a], columns.pages[b] = columns.pages[b], columns.pages[a]


@bend("head")
def _(columns: Columns, field: str, value: int) -> None:
    setattr(columns, field, value % (1 << 32))


def _byte(manifest: bytes, at: int, byte: int) -> bytes:
    at %= len(manifest)
    return manifest[:at] + bytes([byte]) + manifest[at + 1 :]


def _cut(manifest: bytes, count: int) -> bytes:
    return manifest[: len(manifest) - count % len(manifest)]


OF_BYTES: dict[str, Callable[..., bytes]] = {"manifest byte": _byte, "manifest cut": _cut}
