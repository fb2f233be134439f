"""The reports on a pack, and on the plan of a pack (-n)."""

from __future__ import annotations

from collections.abc import Sequence

from dumont_gpu.cli.outcome import Report
from dumont_gpu.cli.report.findings import finding_data, finding_lines
from dumont_gpu.cli.report.words import (
    codec_lines,
    count_chunks,
    count_entries,
    fields_of,
    problem_data,
    problem_line,
    stage_line,
    unmatched_warning,
)
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import PackPlan, PackResult
from dumont_gpu.sizes import counted, format_size


def packed(result: PackResult, options: PackOptions, *, verbose: bool) -> Report:
    data = (
        fields_of(result)
        | finding_data(result)
        | {
            "ratio": result.ratio,
            "exclude": list(options.exclude),
            "problems": problem_data(result.problems),
        }
    )
    lines = [
        f"packed {count_entries(result.num_files)}, {format_size(result.original_size)} into "
        f"{format_size(result.compressed_size)} ({result.ratio:.2f}x) in {result.seconds:.1f} s on {result.device}: "
        f"{result.snapshot_path}",
        *codec_lines(result.codec_bytes),
    ]
    if result.shared_bytes:
        lines.append(f"  {format_size(result.shared_bytes)} of equal files and tensors stored once")
    lines += _left_out(result, options.exclude)
    lines += finding_lines(result, followed=options.follow_outside)
    lines += [f"  {note}" for note in result.notes]
    if result.problems:
        lines.append(problem_line("packed", result.problems))
    if verbose:
        lines.append(stage_line(result.stage_seconds))
    lines.append(f"  {result.snapshot_id}")
    return Report(data, lines, unmatched_warning(result.unmatched, verbose=verbose))


def pack_plan(plan: PackPlan, options: PackOptions) -> Report:
    data = fields_of(plan) | finding_data(plan) | {"problems": problem_data(plan.problems)}
    lines = [
        f"would pack {count_entries(plan.num_files)}, {format_size(plan.original_size)} in "
        f"{count_chunks(plan.num_chunks)}"
    ]
    lines += [f"  {name:8} {format_size(size)}" for name, size in sorted(plan.codec_bytes.items())]
    if plan.shared_bytes:
        lines.append(f"  {format_size(plan.shared_bytes)} of equal files and tensors stored once")
    lines += _left_out(plan, options.exclude)
    lines += finding_lines(plan, followed=options.follow_outside)
    lines += [f"  {printable(problem.path)}: {problem.reason}" for problem in plan.problems]
    return Report(data, lines, unmatched_warning(plan.unmatched))


def _left_out(result: PackResult | PackPlan, patterns: Sequence[str]) -> list[str]:
    lines = []
    special = result.special
    if result.excluded or patterns:
        more = "more than " if result.excluded_more else ""
        lines.append(f"  {more}{count_entries(result.excluded)} left out by --exclude {' '.join(patterns)}".rstrip())
    if special:
        lines.append(f"  {counted(special, 'socket, fifo or device', 'sockets, fifos or devices')} not packed")
    return lines
