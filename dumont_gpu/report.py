"""Results as text for people, and as JSON for programs: both from one record."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dumont_gpu.codecs import CODECS
from dumont_gpu.findings import NO_BYTES, finding_data, finding_lines, links_out_lines, no_bytes
from dumont_gpu.globs import matcher
from dumont_gpu.links import links_out
from dumont_gpu.manifest import EntryType, FileEntry
from dumont_gpu.paths import printable
from dumont_gpu.sizes import format_size, one_line
from dumont_gpu.snapshot import Snapshot, read_snapshot
from dumont_gpu.storage import NetworkOptions, open_source

if TYPE_CHECKING:  # one command needs one of them, and each costs milliseconds
    from dumont_gpu.pack import PackOptions, PackPlan, PackResult
    from dumont_gpu.problems import Problem
    from dumont_gpu.restore import RestoreOptions, RestorePlan, RestoreResult
    from dumont_gpu.verify import VerifyResult

_CODEC_NAMES = {codec.id: codec.name for codec in CODECS}
_TYPE_LETTERS = {EntryType.FILE: "-", EntryType.DIR: "d", EntryType.SYMLINK: "l", EntryType.HARDLINK: "h"}


@dataclass(frozen=True, slots=True)
class Report:
    """One result: `data` for programs, `lines` for people."""

    data: Mapping[str, Any]
    lines: Sequence[str]


def show(report: Report, *, as_json: bool, quiet: bool = False) -> None:
    """Prints a report on stdout."""
    if as_json:
        print(json.dumps({"type": "summary", **report.data}))
    elif not quiet:
        for line in report.lines:
            print(one_line(line))


def problems(found: Sequence[Problem], limit: int | None) -> None:
    """Prints on stderr what could not be packed as it was."""
    for problem in found[:limit]:
        print(f"dumont-gpu: {printable(problem.path)}: {problem.reason}", file=sys.stderr)
    if limit is not None and len(found) > limit:
        print(f"dumont-gpu: and {len(found) - limit} more (-v shows all)", file=sys.stderr)


@contextlib.contextmanager
def opened(location: str, expect: str | None = None, network: NetworkOptions | None = None) -> Iterator[Snapshot]:
    """A verified snapshot, closed afterwards."""
    source = open_source(location, network)
    try:
        yield read_snapshot(source, expect)
    finally:
        source.close()


def packed(result: PackResult, options: PackOptions, *, verbose: bool) -> Report:
    data = (
        _fields(result)
        | finding_data(result)
        | {
            "ratio": result.ratio,
            "exclude": list(options.exclude),
            "problems": [{"path": printable(problem.path), "reason": problem.reason} for problem in result.problems],
        }
    )
    lines = [
        f"packed {result.num_files:,} entries, {format_size(result.original_size)} into "
        f"{format_size(result.compressed_size)} ({result.ratio:.2f}x) in {result.seconds:.1f} s on {result.device}: "
        f"{result.snapshot_path}",
        *_codec_lines(result.codec_bytes),
    ]
    if result.shared_bytes:
        lines.append(f"  {format_size(result.shared_bytes)} of equal files stored once")
    lines += _left_out(result.excluded, options.exclude, result.special)
    lines += finding_lines(result, followed=options.follow_outside)
    lines += [f"  {note}" for note in result.notes]
    if result.problems:
        lines.append(f"  {len(result.problems)} entries could not be packed as they were: see the messages")
    if verbose:
        lines.append(_stage_line(result.stage_seconds))
    lines.append(f"  {result.snapshot_id}")
    return Report(data, lines)


def pack_plan(plan: PackPlan, options: PackOptions) -> Report:
    data = (
        _fields(plan)
        | finding_data(plan)
        | {"problems": [{"path": printable(problem.path), "reason": problem.reason} for problem in plan.problems]}
    )
    lines = [f"would pack {plan.num_files:,} entries, {format_size(plan.original_size)} in {plan.num_chunks} chunks"]
    lines += [f"  {name:8} {format_size(size)}" for name, size in sorted(plan.codec_bytes.items())]
    if plan.shared_bytes:
        lines.append(f"  {format_size(plan.shared_bytes)} of equal files stored once")
    lines += _left_out(plan.excluded, (), plan.special)
    lines += finding_lines(plan, followed=options.follow_outside)
    lines += [f"  {printable(problem.path)}: {problem.reason}" for problem in plan.problems]
    return Report(data, lines)


def restored(result: RestoreResult, options: RestoreOptions, *, verbose: bool) -> Report:
    data = _fields(result) | {
        "include": list(options.include),
        "exclude": list(options.exclude),
        "changed_files": [printable(path) for path in result.changed_files],
    }
    checked = "content verified" if result.verified else "stored bytes verified"
    lines = [
        f"restored {result.num_files:,} entries, {format_size(result.original_size)} from "
        f"{format_size(result.compressed_size)} in {result.seconds:.1f} s on {result.device}, {checked}: "
        f"{result.target_path}"
    ]
    if result.resumed:
        lines.append(
            f"  went on with an interrupted restore: {result.resumed_chunks} of {result.num_chunks} chunks were there, "
            f"{format_size(result.fetched_size)} fetched"
        )
    if result.kept:
        lines.append(f"  {result.kept:,} entries of the target kept")
    lines += [f"  {printable(path)}: changed while it was packed" for path in result.changed_files]
    if options.exclude:
        lines.append(f"  excluded: {' '.join(options.exclude)}")
    if verbose:
        lines.append(_stage_line(result.stage_seconds))
        lines.append(f"  {result.snapshot_id}")
    return Report(data, lines)


def restore_plan(plan: RestorePlan) -> Report:
    data = {
        "num_files": len(plan.entries),
        "original_size": plan.original_size,
        "compressed_size": plan.compressed_size,
        "num_chunks": plan.num_chunks,
    }
    lines = [
        *(printable(entry.path) for entry in plan.entries),
        f"would restore {len(plan.entries):,} entries, {format_size(plan.original_size)} from "
        f"{format_size(plan.compressed_size)} in {plan.num_chunks} chunks",
    ]
    return Report(data, lines)


def verified(result: VerifyResult) -> Report:
    content = (
        "" if result.content_size is None else f", {format_size(result.content_size)} of content decoded and checked"
    )
    lines = [
        f"ok: {result.snapshot_path}: {format_size(result.stored_size)} in {result.num_chunks} chunks match their "
        f"digests{content} ({result.num_files:,} entries, {result.seconds:.1f} s)",
        f"  {result.snapshot_id}",
    ]
    return Report(_fields(result), lines)


def info(snapshot: Snapshot) -> Report:
    header, manifest = snapshot.header, snapshot.manifest
    codecs: dict[str, tuple[int, int]] = {}
    for chunk in snapshot.chunks:
        name = _CODEC_NAMES[chunk.compressor_id]
        original, stored = codecs.get(name, (0, 0))
        codecs[name] = (original + chunk.size_original, stored + chunk.size_compressed)
    counts: dict[str, int] = defaultdict(int)
    for entry in manifest.entries:
        counts[entry.type.value] += 1
    leading_out = links_out(manifest.entries)
    size = snapshot.source.size
    created = _stamp(manifest.created_ns)
    ratio = header.total_size_original / size if size else 1.0
    data = {
        "snapshot_path": snapshot.source.location,
        "snapshot_id": snapshot.id,
        "original_size": header.total_size_original,
        "compressed_size": size,
        "ratio": ratio,
        "num_chunks": header.num_chunks,
        "chunk_size": header.chunk_size,
        "digest": header.digest,
        "entries": dict(counts),
        "links_out": len(leading_out),
        "codec_bytes": codecs,
        "method": manifest.method,
        "tool": manifest.tool,
        "created_ns": manifest.created_ns,
    }
    entries = ", ".join(f"{count:,} {name}{'s' * (count != 1)}" for name, count in sorted(counts.items()))
    lines = [
        f"{snapshot.source.location}: {format_size(header.total_size_original)} in {format_size(size)} ({ratio:.2f}x)",
        f"  {entries or 'no entries'}",
        *([NO_BYTES] if no_bytes(manifest.entries) else []),
        *(links_out_lines(leading_out, followed=False) if leading_out else []),
        f"  {header.num_chunks} chunks of up to {format_size(header.chunk_size)}, covered by {header.digest}",
        *_codec_lines(codecs),
        f"  packed {created} by {printable(manifest.tool)}, method {printable(manifest.method)}",
        f"  {snapshot.id}",
    ]
    return Report(data, lines)


def listing(snapshot: Snapshot, glob: str | None, *, long: bool, as_json: bool) -> Iterator[str]:
    """Yields one line per entry."""
    matches = matcher([glob] if glob else ["**"])
    leading_out = {entry.path for entry in links_out(snapshot.manifest.entries)} if long or as_json else set()
    for entry in snapshot.manifest.entries:
        if not matches(entry.path):
            continue
        if as_json:
            yield json.dumps({"type": "entry", **_entry_data(snapshot, entry, leading_out)})
        elif long:
            yield _long_line(snapshot, entry) + " (leads out)" * (entry.path in leading_out)
        else:
            yield printable(entry.path)


def _entry_data(snapshot: Snapshot, entry: FileEntry, leading_out: Container[str]) -> dict[str, Any]:
    data: dict[str, Any] = {"path": printable(entry.path), "entry_type": entry.type.value}
    if entry.type is not EntryType.HARDLINK:
        data |= {"mode": f"{entry.mode:04o}", "mtime_ns": entry.mtime_ns}
    if entry.target:
        data["target"] = printable(entry.target)
    if entry.type is EntryType.SYMLINK:
        data["leads_out"] = entry.path in leading_out
    if entry.type is EntryType.FILE:
        data |= {"size": entry.size, "codecs": _codecs(snapshot, entry), "ratio": _ratio(snapshot, entry)}
        data[snapshot.header.digest] = [extent.digest.hex() for extent in entry.extents]
    return data


def _long_line(snapshot: Snapshot, entry: FileEntry) -> str:
    is_file = entry.type is EntryType.FILE
    ratio = f"{_ratio(snapshot, entry):.2f}x" if entry.extents else ""
    stamp = "" if entry.type is EntryType.HARDLINK else _stamp(entry.mtime_ns)
    digest = (
        entry.extents[0].digest.hex()[:12] if len(entry.extents) == 1 else f"{len(entry.extents)} extents" * is_file
    )
    arrow = f" -> {printable(entry.target)}" if entry.target else ""
    return (
        f"{_TYPE_LETTERS[entry.type]}{entry.mode:04o} {entry.size if is_file else '':>14} "
        f"{'+'.join(_codecs(snapshot, entry)):10} {ratio:>7} {stamp:16} {digest:12} {printable(entry.path)}{arrow}"
    )


def _stamp(time_ns: int) -> str:
    try:
        return datetime.fromtimestamp(time_ns // 10**9, timezone.utc).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "out of range"


def _codecs(snapshot: Snapshot, entry: FileEntry) -> list[str]:
    return sorted({_CODEC_NAMES[snapshot.chunks[extent.chunk].compressor_id] for extent in entry.extents})


def _ratio(snapshot: Snapshot, entry: FileEntry) -> float:
    """Of the chunks that hold the file, weighted by its bytes in each."""
    stored = 0.0
    for extent in entry.extents:
        chunk = snapshot.chunks[extent.chunk]
        stored += extent.length * chunk.size_compressed / chunk.size_original
    return entry.size / stored if stored else 1.0


def _codec_lines(codecs: Mapping[str, tuple[int, int]]) -> list[str]:
    return [
        f"  {name:8} {format_size(original):>10} into {format_size(stored):>10} ({original / stored:.2f}x)"
        for name, (original, stored) in sorted(codecs.items())
    ]


def _left_out(excluded: int, patterns: Sequence[str], special: int) -> list[str]:
    lines = []
    if excluded or patterns:
        lines.append(f"  {excluded} entries left out by --exclude {' '.join(patterns)}".rstrip())
    if special:
        lines.append(f"  {special} sockets, fifos or devices not packed")
    return lines


def _stage_line(seconds: Mapping[str, float]) -> str:
    return "  busy: " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
