"""The manifest of a snapshot: which entries it holds and where their bytes are. JSON to records and back, no I/O.

FORMAT.md, section 6, is the specification. Paths are `str` as from `os.fsdecode` (names.py says why).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.format import names
from dumont_gpu.format.digests import DIGEST_SIZE
from dumont_gpu.format.entries import MAX_EXTENTS, MAX_FILE_SIZE, MAX_MTIME, MIN_MTIME, EntryType, Extent, FileEntry
from dumont_gpu.format.header import ChunkEntry, Header
from dumont_gpu.format.paths import shown
from dumont_gpu.format.tree_rules import TreeRules
from dumont_gpu.sizes import GiB, MiB

MAX_ENTRIES: Final = 1 << 24
_MAX_MANIFEST: Final = 1 * GiB
_MAX_LINE: Final = 16 * MiB
_OPEN: Final = b'"entries":['  # ends the first line; then an entry a line, so that readers and `grep` go line by line
_CLOSE: Final = b"]}"
_NO_OWNER: Final = (1 << 32) - 1  # what chown takes for "leave it as it is"
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


_ENTRY_TYPES: Final = {kind.value: kind for kind in EntryType}


@dataclass(frozen=True, slots=True)
class Manifest:
    method: str
    tool: str
    created_ns: int
    chunk_digests: tuple[bytes, ...]  # of every chunk's stored bytes
    digest: str  # which digest these are; the header has a flag for it
    entries: tuple[FileEntry, ...]  # by path, byte order
    root: FileEntry | None = None  # mode, time and owner of the packed directory itself

    def to_json(self) -> bytearray:
        """Returns the manifest as FORMAT.md lays it out.

        Raises:
            DumontError: it would break a limit, so that no reader would accept it.
        """
        head: dict[str, Any] = {"method": self.method, "tool": self.tool, "created_ns": self.created_ns}
        if self.root is not None:
            head["root"] = _metadata_to_json(self.root)
        head["chunks"] = [digest.hex() for digest in self.chunk_digests]
        if len(self.entries) > MAX_ENTRIES:
            raise DumontError(f"{len(self.entries)} entries; a snapshot may have {MAX_ENTRIES}")
        data = bytearray(_ENCODER.encode(head)[:-1].encode() + b"," + _OPEN)
        separator = b"\n"
        for entry in self.entries:
            data += separator + _entry_line(entry, self.digest).encode()
            separator = b",\n"
        data += b"\n" + _CLOSE + b"\n"
        return data


def manifest_limit(header: Header) -> int:
    """Returns how many bytes of JSON a manifest may have: checked before it is decompressed.

    Raises:
        DamagedError: more entries than any tree this format is for.
    """
    if header.num_files > MAX_ENTRIES:
        raise DamagedError(f"the snapshot declares {header.num_files} entries; the limit is {MAX_ENTRIES}")
    return min(_MAX_MANIFEST, _head_limit(header) + _MAX_LINE * (header.num_files + 1))


def parse_manifest(data: bytes | bytearray, header: Header, chunks: Sequence[ChunkEntry]) -> Manifest:
    """Reads a manifest's JSON and checks it against FORMAT.md, the header and the chunk index.

    Raises:
        DamagedError: malformed JSON or a broken rule; the message names the entry.
    """
    lines = _lines(data, _head_limit(header))
    more = True  # whether the line before announced another entry
    first = next(lines, b"")
    if not first.endswith(_OPEN):
        raise DamagedError("malformed manifest: its first line does not open the entries")
    head = _as_object(_parse_json(first + _CLOSE))
    entries: list[FileEntry] = []
    tree = TreeRules(chunks)
    for line in lines:
        if line == _CLOSE:
            break
        if not more:
            raise DamagedError("malformed manifest: a comma is missing between entries")
        more = line.endswith(b",")
        if len(entries) == header.num_files:
            raise DamagedError(f"the manifest has more entries than the {header.num_files} of the header")
        entry = _entry_from_json(_parse_json(line.removesuffix(b",")), header.digest)
        tree.check(entry)
        entries.append(entry)
    else:
        raise DamagedError("malformed manifest: it breaks off")
    if entries and more:
        raise DamagedError("malformed manifest: a comma after the last entry")
    if next(lines, None) is not None:
        raise DamagedError("malformed manifest: something follows it")
    if len(entries) != header.num_files:
        raise DamagedError(f"the manifest has {len(entries)} entries, the header says {header.num_files}")
    if sum(entry.size for entry in entries) != header.total_size_original:
        raise DamagedError("the sizes of the files do not add up to the size in the header")
    return Manifest(
        method=_typed(head, "method", str),
        tool=_typed(head, "tool", str),
        created_ns=_number(head, "created_ns", MAX_MTIME, MIN_MTIME),
        chunk_digests=_chunk_digests(head, chunks),
        entries=tuple(entries),
        digest=header.digest,
        root=_root_from_json(_as_object(head["root"])) if "root" in head else None,
    )


# --- entries as JSON ----------------------------------------------------------------------------------------------


def _metadata_to_json(entry: FileEntry) -> dict[str, Any]:
    data: dict[str, Any] = {"mode": entry.mode, "mtime_ns": entry.mtime_ns}
    if entry.owner is not None:
        data["owner"] = list(entry.owner)
    return data


def _entry_line(entry: FileEntry, digest: str) -> str:
    line = _ENCODER.encode(_entry_to_json(entry, digest))
    if len(line) > _MAX_LINE or len(entry.extents) > MAX_EXTENTS:
        raise DumontError(
            f"{shown(entry.path)}: {len(entry.extents)} extents are more than a snapshot can hold: "
            "choose a larger --chunk-size"
        )
    return line


def _entry_to_json(entry: FileEntry, digest: str) -> dict[str, Any]:
    data: dict[str, Any] = {**names.to_json("path", entry.path), "type": entry.type.value}
    if entry.type is EntryType.HARDLINK:
        return data | names.to_json("target", entry.target)
    data |= _metadata_to_json(entry)
    if entry.type is EntryType.SYMLINK:
        return data | names.to_json("target", entry.target)
    if entry.type is EntryType.FILE:
        data["size"] = entry.size
        data["extents"] = [[e.file_offset, e.chunk, e.chunk_offset, e.length] for e in entry.extents]
        data[digest] = [e.digest.hex() for e in entry.extents]
        if entry.changed:
            data["changed"] = True
    return data


def _entry_from_json(raw: Any, digest: str) -> FileEntry:
    data = _as_object(raw)
    path = _text_from_json(data, "path")
    kind = _ENTRY_TYPES.get(_typed(data, "type", str))
    if kind is None:
        raise DamagedError(f"{shown(path)}: unknown entry type")
    try:
        if kind is EntryType.HARDLINK:
            return FileEntry(path, kind, target=_text_from_json(data, "target"))
        return FileEntry(
            path=path,
            type=kind,
            mode=_number(data, "mode", 0o7777),
            mtime_ns=_number(data, "mtime_ns", MAX_MTIME, MIN_MTIME),
            size=_number(data, "size", MAX_FILE_SIZE) if kind is EntryType.FILE else 0,
            extents=_extents_from_json(data, digest) if kind is EntryType.FILE else (),
            target=_text_from_json(data, "target") if kind is EntryType.SYMLINK else "",
            owner=_owner_from_json(data["owner"]) if "owner" in data else None,
            changed=kind is EntryType.FILE and "changed" in data and _typed(data, "changed", bool),
        )
    except DamagedError as error:
        raise DamagedError(f"{shown(path)}: {error}") from None


def _root_from_json(data: dict[str, Any]) -> FileEntry:
    return FileEntry(
        path="root",
        type=EntryType.DIR,
        mode=_number(data, "mode", 0o7777),
        mtime_ns=_number(data, "mtime_ns", MAX_MTIME, MIN_MTIME),
        owner=_owner_from_json(data["owner"]) if "owner" in data else None,
    )


def _extents_from_json(data: dict[str, Any], digest: str) -> tuple[Extent, ...]:
    rows, digests = _typed(data, "extents", list), _typed(data, digest, list)
    if len(rows) > MAX_EXTENTS:
        raise DamagedError(f"{len(rows)} extents; the limit is {MAX_EXTENTS}")
    if len(rows) != len(digests):
        raise DamagedError(f"{len(rows)} extents but {len(digests)} digests")
    extents = []
    for row, text in zip(rows, digests, strict=True):
        if type(row) is not list or len(row) != 4:
            raise DamagedError("an extent is not four whole numbers")
        file_offset, chunk, chunk_offset, length = row
        if not type(file_offset) is type(chunk) is type(chunk_offset) is type(length) is int:
            raise DamagedError("an extent is not four whole numbers")
        extents.append(Extent(file_offset, chunk, chunk_offset, length, _digest(text)))
    return tuple(extents)


def _owner_from_json(owner: Any) -> tuple[int, int]:
    if (
        isinstance(owner, list)
        and len(owner) == 2
        and all(type(part) is int and 0 <= part < _NO_OWNER for part in owner)
    ):
        return owner[0], owner[1]
    raise DamagedError("an owner that is not [uid, gid]")


def _text_from_json(data: dict[str, Any], key: str) -> str:
    try:
        return names.from_json(data, key)
    except ValueError:
        raise DamagedError(f"an entry whose {key} is missing, doubled or malformed") from None


def _digest(text: Any) -> bytes:
    if not isinstance(text, str) or len(text) != 2 * DIGEST_SIZE:
        raise DamagedError("a digest that is not 64 hexadecimal digits")
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if digest.hex() != text:  # fromhex skips white space, and takes capitals
        raise DamagedError("a digest that is not 64 hexadecimal digits in lower case")
    return digest


def _chunk_digests(head: dict[str, Any], chunks: Sequence[ChunkEntry]) -> tuple[bytes, ...]:
    digests = tuple(_digest(text) for text in _typed(head, "chunks", list))
    if len(digests) != len(chunks):
        raise DamagedError(f"{len(digests)} chunk digests for {len(chunks)} chunks")
    for number, (digest, chunk) in enumerate(zip(digests, chunks, strict=True)):
        if digest[: len(chunk.checksum)] != chunk.checksum:
            raise DamagedError(f"chunk {number}: index and manifest give different digests")
    return digests


def _as_object(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise DamagedError("the manifest has something else where an object belongs")
    return raw


def _typed(data: dict[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if type(value) is not kind:
        raise DamagedError(f"{key!r} is missing or of the wrong type")
    return value


def _number(data: dict[str, Any], key: str, highest: int, lowest: int = 0) -> int:
    value: int = _typed(data, key, int)
    if not lowest <= value <= highest:
        raise DamagedError(f"{key!r} is outside {lowest} to {highest}")
    return value


# --- rules --------------------------------------------------------------------------------------------------------


def _head_limit(header: Header) -> int:
    return 1 * MiB + 80 * header.num_chunks  # a digest per chunk, and a little more


def _lines(data: bytes | bytearray, first_limit: int) -> Iterator[bytes]:
    """Yields the manifest's lines; a long one is refused unread, so that hostile JSON cannot grow in memory."""
    start = 0
    limit = first_limit
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            raise DamagedError("malformed manifest: its last line does not end")
        if end - start > limit:
            raise DamagedError(f"malformed manifest: a line of {end - start} bytes; the limit is {limit}")
        yield bytes(data[start:end])
        start = end + 1
        limit = _MAX_LINE


def _parse_json(line: bytes) -> Any:
    try:
        text = line.decode()
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass
    raise DamagedError(f"malformed manifest: {shown(os.fsdecode(line[:80]))}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values for one key would let two readers see two trees."""
    data = dict(pairs)
    if len(data) != len(pairs):
        raise DamagedError("malformed manifest: two values for one key")
    return data


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_json)
