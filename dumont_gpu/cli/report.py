"""Results as text for people, and as JSON for programs: both from one record."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dumont_gpu.cli.findings import NO_BYTES, finding_data, finding_lines, links_out_lines, no_bytes
from dumont_gpu.codecs import CODECS
from dumont_gpu.format import names
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import counted, format_size, one_line
from dumont_gpu.snapshot.reader import Snapshot, read_snapshot
from dumont_gpu.storage import NetworkOptions, open_source
from dumont_gpu.tree.links_out import links_out
from dumont_gpu.tree.selection import select

if TYPE_CHECKING:  # one command needs one of them, and each costs milliseconds
    from dumont_gpu.jobs.options import PackOptions, RestoreOptions
    from dumont_gpu.jobs.pack import PackPlan, PackResult
    from dumont_gpu.jobs.restore import RestoreResult
    from dumont_gpu.jobs.restore_plan import RestorePlan
    from dumont_gpu.jobs.verify import VerifyResult
    from dumont_gpu.tree.problems import Problem

_CODEC_NAMES = {codec.id: codec.name for codec in CODECS}
_TYPE_LETTERS = {EntryType.FILE: "-", EntryType.DIR: "d", EntryType.SYMLINK: "l", EntryType.HARDLINK: "h"}
_MAX_NAMED: Final = 20  # patterns that a warning, or paths that a plan, names without -v
_CHANGED_LEGEND: Final = "! changed while it was packed: its bytes may be of two moments"
# What names files, or patterns of them: JSON holds these exactly, what is not UTF-8 in Base64 under its key and `_b64`.
_NAMING: Final = frozenset(
    ("path", "target", "snapshot_path", "target_path", "changed_files", "include", "exclude", "unmatched")
)


@dataclass(frozen=True, slots=True)
class Report:
    """One result: `data` for programs, `lines` for people."""

    data: Mapping[str, Any]
    lines: Sequence[str]
    warning: str = ""  # for people, on stderr


def show(report: Report, *, as_json: bool, quiet: bool = False) -> None:
    """Prints a report on stdout."""
    if as_json:
        print(json.dumps({"type": "summary", **_exact(report.data)}))
    elif not quiet:
        for line in report.lines:
            print(one_line(line))
        if report.warning:
            print(f"dumont-gpu: {one_line(report.warning)}", file=sys.stderr)


def problems(found: Sequence[Problem], limit: int | None) -> None:
    """Prints on stderr which entries could not be packed, or restored, as they were."""
    for problem in found[:limit]:
        print(f"dumont-gpu: {printable(problem.path)}: {problem.reason}", file=sys.stderr)
    if limit is not None and len(found) > limit:
        print(f"dumont-gpu: and {len(found) - limit} more (-v shows all)", file=sys.stderr)


def _unmatched(patterns: Sequence[str], *, verbose: bool = True) -> str:
    """One line that names the patterns that matched nothing."""
    named = patterns if verbose else patterns[:_MAX_NAMED]
    more = f" and {len(patterns) - len(named)} more (-v shows all)" if len(named) < len(patterns) else ""
    return f"matched nothing: {', '.join(map(printable, named))}{more}" if patterns else ""


def _exact(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record whose names are exact in JSON; see `_NAMING`."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key in _NAMING and isinstance(value, str):
            result |= names.to_json(key, value)
        elif key in _NAMING:
            result[key] = []
            for name in value:
                for field, text in names.to_json(key, name).items():
                    result.setdefault(field, []).append(text)
        elif isinstance(value, list):
            result[key] = [_exact(item) if isinstance(item, dict) else item for item in value]
        else:
            result[key] = value
    return result


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
            "problems": _problem_data(result.problems),
        }
    )
    lines = [
        f"packed {_entries(result.num_files)}, {format_size(result.original_size)} into "
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
        lines.append(_could_not_be("packed", result.problems))
    if verbose:
        lines.append(_stage_line(result.stage_seconds))
    lines.append(f"  {result.snapshot_id}")
    return Report(data, lines, _unmatched(result.unmatched, verbose=verbose))


def pack_plan(plan: PackPlan, options: PackOptions) -> Report:
    data = _fields(plan) | finding_data(plan) | {"problems": _problem_data(plan.problems)}
    lines = [f"would pack {_entries(plan.num_files)}, {format_size(plan.original_size)} in {_chunks(plan.num_chunks)}"]
    lines += [f"  {name:8} {format_size(size)}" for name, size in sorted(plan.codec_bytes.items())]
    if plan.shared_bytes:
        lines.append(f"  {format_size(plan.shared_bytes)} of equal files stored once")
    lines += _left_out(plan.excluded, (), plan.special)
    lines += finding_lines(plan, followed=options.follow_outside)
    lines += [f"  {printable(problem.path)}: {problem.reason}" for problem in plan.problems]
    return Report(data, lines, _unmatched(plan.unmatched))


def restored(result: RestoreResult, options: RestoreOptions, *, verbose: bool) -> Report:
    data = _fields(result) | {
        "include": list(options.include),
        "exclude": list(options.exclude),
        "problems": _problem_data(result.problems),
    }
    lines = [
        f"restored {_entries(result.num_files)}, {format_size(result.original_size)} from "
        f"{format_size(result.compressed_size)} in {result.seconds:.1f} s on {result.device}, {_checked(result)}: "
        f"{result.target_path}"
    ]
    if result.resumed:
        lines.append(
            f"  went on with an interrupted restore: {result.resumed_chunks} of {_chunks(result.num_chunks)} "
            f"were there, {format_size(result.fetched_size)} fetched"
        )
    if result.kept:
        lines.append(f"  {_entries(result.kept)} of the target kept{_unchecked(result, options)}")
    if result.altered:
        lines.append(f"  {counted(result.altered, 'file')} of the right size and time had other content: restored anew")
    if result.copied_links:
        lines.append(
            f"  {counted(result.copied_links, 'hard link')} restored as separate files: the target has no hard links"
        )
    if result.ignored:
        lines.append(f"  this file system does not keep {' and '.join(result.ignored)}")
    if result.problems:
        lines.append(_could_not_be("restored", result.problems))
    lines += [f"  {printable(path)}: changed while it was packed" for path in result.changed_files]
    if options.exclude:
        lines.append(f"  excluded: {' '.join(options.exclude)}")
    if verbose:
        lines.append(_stage_line(result.stage_seconds))
        lines.append(f"  {result.snapshot_id}")
    return Report(data, lines, _unmatched(result.unmatched, verbose=verbose))


def _checked(result: RestoreResult) -> str:
    if result.verified:
        return "content verified"
    if result.verified_size:
        return f"content of {format_size(result.verified_size)} verified"
    return "stored bytes verified"


def _unchecked(result: RestoreResult, options: RestoreOptions) -> str:
    return ", not verified" if options.verify and not result.verified else ""


def restore_plan(plan: RestorePlan, *, verbose: bool) -> Report:
    data = {
        "num_files": len(plan.entries),
        "original_size": plan.original_size,
        "compressed_size": plan.compressed_size,
        "num_chunks": plan.num_chunks,
        "unmatched": plan.unmatched,
        "resumed": plan.resumed,
        "new": len(plan.new),
        "replaced": len(plan.replaced),
        "kept": plan.kept,
        "fetched_size": plan.fetched_size,
    }
    limit = None if verbose else _MAX_NAMED
    lines = [
        f"would restore {_entries(len(plan.entries))}, {format_size(plan.original_size)} from "
        f"{format_size(plan.compressed_size)} in {_chunks(plan.num_chunks)}"
    ]
    if plan.resumed:
        lines.append(f"  and go on with an interrupted restore: {format_size(plan.fetched_size)} to be fetched")
    for what, paths in (("written over", plan.replaced), ("new", plan.new)):
        if paths:
            lines.append(f"  {counted(len(paths), 'file or link', 'files and links')} {what}:")
            lines += [f"    {printable(path)}" for path in paths[:limit]]
            if limit is not None and len(paths) > limit:
                lines.append(f"    and {len(paths) - limit:,} more (-v shows all)")
    if plan.kept:
        lines.append(f"  {_entries(plan.kept)} of the target kept")
    return Report(data, lines, _unmatched(plan.unmatched))


def verified(result: VerifyResult) -> Report:
    content = (
        "" if result.content_size is None else f", {format_size(result.content_size)} of content decoded and checked"
    )
    lines = [
        f"ok: {result.snapshot_path}: {format_size(result.stored_size)} in {_chunks(result.num_chunks)} match "
        f"their digests{content} ({_entries(result.num_files)}, {result.seconds:.1f} s)",
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
    changed = sum(entry.changed for entry in manifest.entries)
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
        "changed": changed,
        "links_out": len(leading_out),
        "codec_bytes": codecs,
        "method": manifest.method,
        "tool": manifest.tool,
        "created_ns": manifest.created_ns,
    }
    entries = ", ".join(counted(count, name) for name, count in sorted(counts.items()))
    lines = [
        f"{snapshot.source.location}: {format_size(header.total_size_original)} in {format_size(size)} ({ratio:.2f}x)",
        f"  {entries or 'no entries'}",
        *([NO_BYTES] if no_bytes(manifest.entries) else []),
        *(links_out_lines(leading_out, followed=False) if leading_out else []),
        f"  {_chunks(header.num_chunks)} of up to {format_size(header.chunk_size)}, covered by {header.digest}",
        *_codec_lines(codecs),
        *([f"  {changed:,} changed while packed: ls -l marks them with !"] if changed else ()),
        f"  packed {created} by {printable(manifest.tool)}, method {printable(manifest.method)}",
        f"  {snapshot.id}",
    ]
    return Report(data, lines)


def listing(snapshot: Snapshot, glob: str | None, *, long: bool, as_json: bool) -> Iterator[str]:
    """Yields one line per entry, and a legend if it is needed.

    Raises:
        UsageError: nothing matches `glob`.
    """
    entries = select(snapshot.manifest.entries, () if glob is None else (glob,)).entries
    leading_out = {entry.path for entry in links_out(snapshot.manifest.entries)} if long or as_json else set()
    for entry in entries:
        if as_json:
            yield json.dumps({"type": "entry", **_entry_data(snapshot, entry, leading_out)})
        elif long:
            yield _long_line(snapshot, entry) + " (leads out)" * (entry.path in leading_out)
        else:
            yield printable(entry.path)
    if long and not as_json and any(entry.changed for entry in entries):
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


def _long_line(snapshot: Snapshot, entry: FileEntry) -> str:
    is_file = entry.type is EntryType.FILE
    ratio = f"{_ratio(snapshot, entry):.2f}x" if entry.extents else ""
    stamp = "" if entry.type is EntryType.HARDLINK else _stamp(entry.mtime_ns)
    digest = (
        entry.extents[0].digest.hex()[:12] if len(entry.extents) == 1 else f"{len(entry.extents)} extents" * is_file
    )
    arrow = f" -> {printable(entry.target)}" if entry.target else ""
    mark = "!" if entry.changed else " "
    return (
        f"{_TYPE_LETTERS[entry.type]}{entry.mode:04o}{mark} {entry.size if is_file else '':>14} "
        f"{'+'.join(_codecs(snapshot, entry)):10} {ratio:>7} {stamp:22} {digest:12} {printable(entry.path)}{arrow}"
    )


def _problem_data(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"path": problem.path, "reason": problem.reason} for problem in problems]


def _stamp(time_ns: int) -> str:
    """Local time and its distance from UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M %z", time.localtime(time_ns // 10**9))
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
        lines.append(f"  {_entries(excluded)} left out by --exclude {' '.join(patterns)}".rstrip())
    if special:
        lines.append(f"  {counted(special, 'socket, fifo or device', 'sockets, fifos or devices')} not packed")
    return lines


def _entries(count: int) -> str:
    return counted(count, "entry", "entries")


def _chunks(count: int) -> str:
    return counted(count, "chunk")


def _could_not_be(done: str, problems: Sequence[Problem]) -> str:
    they = "as it was: see the message" if len(problems) == 1 else "as they were: see the messages"
    return f"  {_entries(len(problems))} could not be {done} {they}"


def _stage_line(seconds: Mapping[str, float]) -> str:
    return "  busy: " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
