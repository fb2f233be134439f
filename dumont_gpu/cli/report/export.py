"""The report on an export."""

from __future__ import annotations

from dumont_gpu.cli.outcome import Report
from dumont_gpu.cli.report.words import count_entries, fields_of, problem_data, problem_line, unmatched_warning
from dumont_gpu.jobs.export import ExportResult
from dumont_gpu.sizes import format_size


def exported(result: ExportResult, *, verbose: bool) -> Report:
    data = fields_of(result) | {"problems": problem_data(result.problems)}
    lines = [
        f"exported {count_entries(result.num_files)}, {format_size(result.original_size)} into "
        f"{format_size(result.archive_size)} in {result.seconds:.1f} s: {result.archive_path}"
    ]
    if result.problems:
        lines.append(problem_line("exported", result.problems))
    return Report(data, lines, unmatched_warning(result.unmatched, verbose=verbose))
