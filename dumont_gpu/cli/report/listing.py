"""The entries of a snapshot, a line each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, Final

from dumont_gpu.cli.report.words import CODEC_NAMES, count_kinds, local_time
from dumont_gpu.columns.views import paths_of
from dumont_gpu.format import names
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import format_size
from dumont_gpu.snapshot.reader import Snapshot
from dumont_gpu.tree.links_out import links_out
from dumont_gpu.tree.selection import matching

_TYPE_LETTERS: Final = {EntryType.FILE: "-", EntryType.DIR: "d", EntryType.SYMLINK: "l", EntryType.HARDLINK: "h"}
_CHANGED_LEGEND: Final = "! changed while it was packed: its bytes may be of two moments"


def listing(snapshot: Snapshot, glob: str | None, *, long: bool, as_json: bool, digests: bool = False) -> Iterator[str]:
    """Yields a line for each entry (or many lines at once); if `long`, a total, and a legend if a line needs it.

    Raises:
        UsageError: nothing matches `glob`.
    """
    every = snapshot.manifest.entries
    entries = every if glob is None else matching(every, glob)
    if not long and not as_json:
        paths = paths_of(every) if glob is None else ([entry.path] for entry in entries)
        yield from map(_short_lines, paths)
        return
    leading_out = {entry.path for entry in links_out(every)}
    if as_json:
        for entry in entries:
            yield json.dumps({"type": "entry", **_entry_data(snapshot, entry, leading_out)})
    else:
        yield from _long_lines(snapshot, entries, leading_out, digests=digests)


def _short_lines(paths: Sequence[str]) -> str:
    together = "".join(paths)
    if together.isprintable() and "\\" not in together:  # nearly always: a million calls would take half a second
        return "\n".join(paths)
    return "\n".join(map(printable, paths))


def _long_lines(
    snapshot: Snapshot, entries: Iterable[FileEntry], leading_out: Container[str], *, digests: bool
) -> Iterator[str]:
    changed = False
    counts: Counter[str] = Counter()
    size, stored = 0, 0.0
    for entry in entries:
        changed = changed or entry.changed
        counts[entry.type.value] += 1
        size += entry.size
        stored += _stored(snapshot, entry)
        yield _long_line(snapshot, entry, digests=digests) + " (leads out)" * (entry.path in leading_out)
    ratio = f" from {format_size(stored)} ({size / stored:.2f}x)" if stored else ""
    yield f"total: {count_kinds(counts)}, {format_size(size)}{ratio}"
    if changed:
        yield _CHANGED_LEGEND


def _entry_data(snapshot: Snapshot, entry: FileEntry, leading_out: Container[str]) -> dict[str, Any]:
    data: dict[str, Any] = {**names.to_json("path", entry.path), "entry_type": entry.type.value}
    if entry.type is not EntryType.HARDLINK:
        data |= {"mode": f"{entry.mode:04o}", "mtime_ns": entry.mtime_ns}
    if entry.target:
        data |= names.to_json("target", entry.target)
    if entry.type is EntryType.SYMLINK:
        data["leads_out"] = entry.path in leading_out
    if entry.type is EntryType.FILE:
        data |= {
            "size": entry.size,
            "changed": entry.changed,
            "codecs": _codecs(snapshot, entry),
            "ratio": _ratio(snapshot, entry),
        }
        data[snapshot.header.digest] = [extent.digest.hex() for extent in entry.extents]
    return data


def _long_line(snapshot: Snapshot, entry: FileEntry, *, digests: bool) -> str:
    is_file = entry.type is EntryType.FILE
    ratio = f"{_ratio(snapshot, entry):.2f}x" if entry.extents else ""
    stamp = "" if entry.type is EntryType.HARDLINK else local_time(entry.mtime_ns)
    digest = "+".join(extent.digest.hex() for extent in entry.extents) if digests else ""
    arrow = f" -> {printable(entry.target)}" if entry.target else ""
    mark = "!" if entry.changed else " "
    return (
        f"{_TYPE_LETTERS[entry.type]}{entry.mode:04o}{mark} {entry.size if is_file else '':>14} "
        f"{'+'.join(_codecs(snapshot, entry)):10} {ratio:>7} {stamp:22} "
        f"{digest:{64 * digests}}{' ' * digests}{printable(entry.path)}{arrow}"
    )


def _codecs(snapshot: Snapshot, entry: FileEntry) -> list[str]:
    return sorted({CODEC_NAMES[snapshot.chunks[extent.chunk].compressor_id] for extent in entry.extents})


def _ratio(snapshot: Snapshot, entry: FileEntry) -> float:
    stored = _stored(snapshot, entry)
    return entry.size / stored if stored else 1.0


def _stored(snapshot: Snapshot, entry: FileEntry) -> float:
    """Returns a file's part, by raw bytes, of the encoded bytes of the chunks that hold it."""
    stored = 0.0
    for extent in entry.extents:
        chunk = snapshot.chunks[extent.chunk]
        stored += extent.length * chunk.size_compressed / chunk.size_original
    return stored
