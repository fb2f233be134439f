"""The reports on a restore, and on the plan of a restore (-n)."""

from __future__ import annotations

from collections.abc import Sequence

from dumont_gpu.cli.outcome import Report
from dumont_gpu.cli.report.words import (
    MAX_NAMED,
    count_chunks,
    count_entries,
    count_kinds,
    fields_of,
    lost_data,
    problem_data,
    problem_line,
    stage_line,
    unmatched_warning,
)
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.restore import RestoreResult
from dumont_gpu.jobs.restore_plan import RestorePlan
from dumont_gpu.sizes import counted, format_size


def restored(result: RestoreResult, options: RestoreOptions, *, verbose: bool) -> Report:
    data = fields_of(result) | {
        "include": list(options.include),
        "exclude": list(options.exclude),
        "problems": problem_data(result.problems),
        "lost": lost_data(result.lost),
    }
    if result.already_there:
        verified = ", content verified" if result.verified else ""
        lines = [
            f"already there: nothing to do ({count_entries(result.kept)} besides directories{verified}): "
            f"{result.target_path}"
        ]
        return Report(data, lines, unmatched_warning(result.unmatched, verbose=verbose))
    lines = [
        f"restored {count_kinds(result.entries)}, {format_size(result.original_size)} from "
        f"{format_size(result.compressed_size)} in {result.seconds:.1f} s on {result.device}, {_checked(result)}: "
        f"{result.target_path}"
    ]
    if result.resumed:
        lines.append(
            f"  went on with an interrupted restore: {result.resumed_chunks} of {count_chunks(result.num_chunks)} "
            f"were there, {format_size(result.fetched_size)} fetched"
        )
    lines += _newer_lines(result.newer, options, verbose=verbose)
    if result.kept:
        lines.append(f"  {count_entries(result.kept)} of the target kept{_unchecked(result, options)}")
    if result.altered:
        lines.append(f"  {counted(result.altered, 'file')} of the right size and time had other content: restored anew")
    if result.copied_links:
        lines.append(
            f"  {counted(result.copied_links, 'hard link')} restored as separate files: the target has no hard links"
        )
    if result.ignored:
        lines.append(f"  this file system does not keep {' and '.join(result.ignored)}")
    if len(result.problems) > len(result.lost):
        lines.append(problem_line("restored", result.problems))
    if result.lost:
        lines.append(
            f"  {counted(len(result.lost), 'file')} lost to damaged chunks: the target stays marked as unfinished, "
            "and with a sound copy of this snapshot the same command brings the rest"
        )
    lines += [f"  {printable(path)}: changed while it was packed" for path in result.changed_files]
    if result.left_out:
        lines.append(f"  {_left_out(result.left_out, options)}")
    if options.exclude:
        lines.append(f"  excluded: {' '.join(options.exclude)}")
    if verbose:
        lines.append(stage_line(result.stage_seconds))
        lines.append(f"  {result.snapshot_id}")
    return Report(data, lines, unmatched_warning(result.unmatched, verbose=verbose))


def _checked(result: RestoreResult) -> str:
    if result.verified:
        return "content verified"
    if result.verified_size:
        return f"content of {format_size(result.verified_size)} verified"
    return "stored bytes verified"


def _left_out(count: int, options: RestoreOptions) -> str:
    what = counted(count, "file or link", "files and links")
    return f"{what} left out: --strip {options.strip} leaves nothing of the path"


def _unchecked(result: RestoreResult, options: RestoreOptions) -> str:
    return ", not verified" if options.verify and not result.verified else ""


def _newer_lines(newer: Sequence[str], options: RestoreOptions, *, verbose: bool, would: str = "") -> list[str]:
    """Names the files that were newer than the snapshot's; who says `always` has decided about them."""
    if not newer or options.overwrite != "if-changed":
        return []
    what = counted(len(newer), "file")
    were = "was" if len(newer) == 1 else "were"
    lines = [f"  {what} of the target {were} newer than the snapshot's, and {would or were} written over:"]
    named = newer if verbose else newer[:MAX_NAMED]
    lines += [f"    {printable(path)}" for path in named]
    if len(named) < len(newer):
        lines.append(f"    and {len(newer) - len(named):,} more (-v shows all)")
    return lines


def restore_plan(plan: RestorePlan, options: RestoreOptions, *, verbose: bool) -> Report:
    data = {
        "num_files": len(plan.entries),
        "original_size": plan.original_size,
        "compressed_size": plan.compressed_size,
        "num_chunks": plan.num_chunks,
        "unmatched": plan.unmatched,
        "resumed": plan.resumed,
        "new": len(plan.new),
        "replaced": len(plan.replaced),
        "newer": list(plan.newer),
        "kept": plan.kept,
        "already_there": plan.already_there,
        "fetched_size": plan.fetched_size,
    }
    if plan.already_there:
        line = f"already there: nothing to do ({count_entries(plan.kept)} besides directories)"
        return Report(data, [line], unmatched_warning(plan.unmatched))
    limit = None if verbose else MAX_NAMED
    lines = [
        f"would restore {count_kinds(plan.counts)}, {format_size(plan.original_size)} from "
        f"{format_size(plan.compressed_size)} in {count_chunks(plan.num_chunks)}"
    ]
    if plan.resumed:
        lines.append(f"  and go on with an interrupted restore: {format_size(plan.fetched_size)} to be fetched")
    for state, paths in (("written over", plan.replaced), ("new", plan.new)):
        if paths:
            lines.append(f"  {counted(len(paths), 'file or link', 'files and links')} {state}:")
            lines += [f"    {printable(path)}" for path in paths[:limit]]
            if limit is not None and len(paths) > limit:
                lines.append(f"    and {len(paths) - limit:,} more (-v shows all)")
    lines += _newer_lines(plan.newer, options, verbose=verbose, would="would be")
    if plan.kept:
        lines.append(f"  {count_entries(plan.kept)} of the target kept")
    return Report(data, lines, unmatched_warning(plan.unmatched))
