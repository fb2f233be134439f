"""Builds manifests in columns byte by byte, right or wrong: the part of `hostile.Archive` that FORMAT.md, section 6.2, describes.

`Columns` holds the head and the pages of an archive's entries; whatever a test bends, `to_bytes` makes every digest fit again.
Written from the format's description, without the package's own writer.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from support.hostile import MTIME, Archive, sha256, zstd_frame

HEAD = struct.Struct("<3I")
RECORD = struct.Struct("<4I32sH")
KINDS = ("file", "dir", "symlink", "hardlink")
NAMES = (
    *("prefix", "suffix", "type", "mode", "mtime", "size", "extents"),
    *("gap", "piece", "chunk", "at", "rest", "digest", "target"),
)
FLAG = 2


def number(value: int) -> bytes:
    """LEB128 in as few bytes as it takes."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def difference(value: int) -> bytes:
    value %= 1 << 64
    return number(value * 2 if value < 1 << 63 else ((1 << 64) - value) * 2 - 1)


@dataclass
class Page:
    """A page and its record in the head. Fields that are None follow from the others."""

    columns: dict[str, bytes]
    num_entries: int
    num_pieces: int
    first_path: bytes
    rows: list[tuple[bytes, int, bytes]] | None = None  # name, size and bytes of columns, instead of `columns`
    num_columns: int | None = None
    raw: bytes | None = None  # the decoded page
    frame: bytes | None = None
    frame_size: int | None = None
    page_size: int | None = None
    frame_sha256: bytes | None = None
    path_size: int | None = None

    def page(self) -> bytes:
        if self.raw is not None:
            return self.raw
        rows = self.rows
        if rows is None:
            rows = [(name.encode(), len(column), column) for name, column in self.columns.items()]
        table = struct.pack("<H", len(rows) if self.num_columns is None else self.num_columns)
        table += b"".join(bytes([len(name)]) + name + struct.pack("<I", size) for name, size, _ in rows)
        return table + b"".join(column for _, _, column in rows)

    def record_and_frame(self) -> tuple[bytes, bytes]:
        page = self.page()
        frame = zstd_frame(page) if self.frame is None else self.frame
        record = RECORD.pack(
            len(frame) if self.frame_size is None else self.frame_size,
            len(page) if self.page_size is None else self.page_size,
            self.num_entries,
            self.num_pieces,
            self.frame_sha256 or sha256(frame),
            len(self.first_path) if self.path_size is None else self.path_size,
        )
        return record + self.first_path, frame


@dataclass
class Columns:
    """An archive whose manifest is in columns. Fields that are None follow from the others."""

    archive: Archive
    pages: list[Page]
    facts: dict[str, Any] = field(default_factory=dict)  # that shall differ
    facts_text: bytes | None = None
    chunks: bytes | None = None  # the digests
    num_pages: int | None = None
    facts_size: int | None = None
    head_size: int | None = None
    head_end: bytes = b""  # after the page records
    head_sha256: bytes | None = None
    end: bytes = b""  # after the frames
    manifest: bytes | None = None  # the whole of it; its head is what head_size says, or all

    def to_bytes(self) -> bytes:
        self.place()
        return self.archive.to_bytes()

    def place(self) -> None:
        """Gives the archive this manifest, and a header that fits."""
        manifest = self._manifest() if self.manifest is None else self.manifest
        size = HEAD.unpack_from(manifest)[0] if len(manifest) >= HEAD.size else len(manifest)
        self.archive.stored_manifest = manifest
        self.archive.header["flags"] = self.archive.header.get("flags", 0) | FLAG
        self.archive.header["manifest_sha256"] = self.head_sha256 or sha256(manifest[:size])

    def _manifest(self) -> bytes:
        head = {"method": "none", "tool": "hostile", "created_ns": MTIME} | self.archive.head | self.facts
        facts = json.dumps(head).encode() if self.facts_text is None else self.facts_text
        digests = self.chunks
        if digests is None:
            chunks = self.archive.chunks
            digests = b"".join(
                bytes.fromhex(chunk.digest) if chunk.digest else sha256(chunk.stored) for chunk in chunks
            )
        parts = [page.record_and_frame() for page in self.pages]
        rest = facts + digests + b"".join(record for record, _ in parts) + self.head_end
        sizes = HEAD.pack(
            HEAD.size + len(rest) if self.head_size is None else self.head_size,
            len(facts) if self.facts_size is None else self.facts_size,
            len(self.pages) if self.num_pages is None else self.num_pages,
        )
        return sizes + rest + b"".join(frame for _, frame in parts) + self.end


def in_columns(archive: Archive, page_entries: int = 1 << 13) -> Columns:
    """The manifest of an archive in pages of so many entries. The entries' fields are of the right type, if not of the right value."""
    pieces: dict[tuple[Any, ...], int] = {}
    entries = archive.entries
    pages = [_page(entries[at : at + page_entries], pieces) for at in range(0, len(entries), page_entries)]
    return Columns(archive, pages)


def _page(entries: Sequence[dict[str, Any]], pieces: dict[tuple[Any, ...], int]) -> Page:
    columns = dict.fromkeys(NAMES, b"")
    if any("changed" in entry for entry in entries):
        columns["changed"] = b""
    if any("owner" in entry for entry in entries):
        columns["uid"] = columns["gid"] = b""
    first_piece = len(pieces)
    before, mtime = b"", 0
    place = 0, 0  # chunk, and end of the new piece before
    for entry in entries:
        path = name_of(entry, "path")
        shared = next((at for at, (a, b) in enumerate(zip(path, before, strict=False)) if a != b), min(len(path), len(before)))  # fmt: skip
        before = path
        columns["prefix"] += number(shared)
        columns["suffix"] += path[shared:] + b"\0"
        columns["type"] += bytes([KINDS.index(entry["type"])])
        if entry["type"] != "hardlink":
            columns["mode"] += number(entry["mode"])
            columns["mtime"] += difference(entry["mtime_ns"] - mtime)
            mtime = entry["mtime_ns"]
            if "uid" in columns:
                uid, gid = entry.get("owner", (-1, -1))
                columns["uid"] += number(uid + 1)
                columns["gid"] += number(gid + 1)
        if entry["type"] in ("symlink", "hardlink"):
            columns["target"] += name_of(entry, "target") + b"\0"
        if entry["type"] == "file":
            if "changed" in columns:
                columns["changed"] += bytes([entry.get("changed", False)])
            place = _add_file(columns, entry, pieces, place)
    return Page(columns, len(entries), len(pieces) - first_piece, name_of(entries[0], "path"))


def _add_file(
    columns: dict[str, bytes], entry: dict[str, Any], pieces: dict[tuple[Any, ...], int], place: tuple[int, int]
) -> tuple[int, int]:
    digests = entry.get("blake3") or entry.get("sha256") or []
    columns["size"] += number(entry["size"])
    columns["extents"] += number(len(entry["extents"]))
    end = 0
    for (file_offset, chunk, chunk_offset, length), digest in zip(entry["extents"], digests, strict=True):
        columns["gap"] += number(file_offset - end)
        end = file_offset + length
        key = chunk, chunk_offset, length, digest
        if key in pieces:
            columns["piece"] += number(len(pieces) - pieces[key])
            continue
        pieces[key] = len(pieces)
        columns["piece"] += number(0)
        columns["chunk"] += difference(chunk - place[0])
        columns["at"] += difference(chunk_offset - (place[1] if chunk == place[0] else 0))
        columns["rest"] += number(entry["size"] - end)
        columns["digest"] += bytes.fromhex(digest)
        place = chunk, chunk_offset + length
    return place


def name_of(entry: dict[str, Any], key: str) -> bytes:
    if key in entry:
        return str(entry[key]).encode("utf-8", "surrogateescape")
    return base64.b64decode(entry[f"{key}_b64"])
