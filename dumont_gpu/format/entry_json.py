"""Tree entries as JSON: records to lines of a manifest and back. FORMAT.md, section 6.1, is the specification."""

from __future__ import annotations

import json
from typing import Any, Final

from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.format import names
from dumont_gpu.format.entries import MAX_EXTENTS, MAX_FILE_SIZE, MAX_MTIME, MIN_MTIME, EntryType, Extent, FileEntry
from dumont_gpu.format.paths import shown
from dumont_gpu.format.strict_json import as_object, digest_from_json, typed, whole_number
from dumont_gpu.sizes import MiB

MAX_LINE: Final = 16 * MiB  # bytes of a tree entry
ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_NO_OWNER: Final = (1 << 32) - 1  # chown takes this id for "leave the owner as it is"
_ENTRY_TYPES: Final = {kind.value: kind for kind in EntryType}


def metadata_to_json(entry: FileEntry) -> dict[str, Any]:
    data: dict[str, Any] = {"mode": entry.mode, "mtime_ns": entry.mtime_ns}
    if entry.owner is not None:
        data["owner"] = list(entry.owner)
    return data


def entry_line(entry: FileEntry, digest: str) -> str:
    line = ENCODER.encode(_entry_to_json(entry, digest))
    if len(line) > MAX_LINE or len(entry.extents) > MAX_EXTENTS:
        raise DumontError(
            f"{shown(entry.path)}: {len(entry.extents)} extents are more than a snapshot can hold: "
            "choose a larger --chunk-size"
        )
    return line


def _entry_to_json(entry: FileEntry, digest: str) -> dict[str, Any]:
    data: dict[str, Any] = {**names.to_json("path", entry.path), "type": entry.type.value}
    if entry.type is EntryType.HARDLINK:
        return data | names.to_json("target", entry.target)
    data |= metadata_to_json(entry)
    if entry.type is EntryType.SYMLINK:
        return data | names.to_json("target", entry.target)
    if entry.type is EntryType.FILE:
        data["size"] = entry.size
        data["extents"] = [[e.file_offset, e.chunk, e.chunk_offset, e.length] for e in entry.extents]
        data[digest] = [e.digest.hex() for e in entry.extents]
        if entry.changed:
            data["changed"] = True
    return data


def entry_from_json(raw: Any, digest: str) -> FileEntry:
    data = as_object(raw)
    path = _text_from_json(data, "path")
    kind = _ENTRY_TYPES.get(typed(data, "type", str))
    if kind is None:
        raise DamagedError(f"{shown(path)}: unknown entry type")
    try:
        if kind is EntryType.HARDLINK:
            return FileEntry(path, kind, target=_text_from_json(data, "target"))
        return FileEntry(
            path=path,
            type=kind,
            mode=whole_number(data, "mode", 0o7777),
            mtime_ns=whole_number(data, "mtime_ns", MAX_MTIME, MIN_MTIME),
            size=whole_number(data, "size", MAX_FILE_SIZE) if kind is EntryType.FILE else 0,
            extents=_extents_from_json(data, digest) if kind is EntryType.FILE else (),
            target=_text_from_json(data, "target") if kind is EntryType.SYMLINK else "",
            owner=_owner_from_json(data["owner"]) if "owner" in data else None,
            changed=kind is EntryType.FILE and "changed" in data and typed(data, "changed", bool),
        )
    except DamagedError as error:
        raise DamagedError(f"{shown(path)}: {error}") from None


def root_from_json(data: dict[str, Any]) -> FileEntry:
    return FileEntry(
        path="root",
        type=EntryType.DIR,
        mode=whole_number(data, "mode", 0o7777),
        mtime_ns=whole_number(data, "mtime_ns", MAX_MTIME, MIN_MTIME),
        owner=_owner_from_json(data["owner"]) if "owner" in data else None,
    )


def _extents_from_json(data: dict[str, Any], digest: str) -> tuple[Extent, ...]:
    rows, digests = typed(data, "extents", list), typed(data, digest, list)
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
        extents.append(Extent(file_offset, chunk, chunk_offset, length, digest_from_json(text)))
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
