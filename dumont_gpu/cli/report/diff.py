"""The report on a comparison: a line for each difference, and their counts."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dumont_gpu.cli.outcome import Report
from dumont_gpu.cli.report.words import count_entries, problem_data
from dumont_gpu.format import names
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.diff import DiffResult
from dumont_gpu.sizes import counted


def change_lines(result: DiffResult, *, as_json: bool) -> Iterator[str]:
    """Yields a line for each difference."""
    for change in result.changes:
        if as_json:
            data = {"type": "change", "change": change.kind, "entry_type": change.type.value, "why": change.why}
            yield json.dumps(data | names.to_json("path", change.path))
        else:
            yield f"{change.kind} {printable(change.path)}"


def summary(result: DiffResult) -> Report:
    added, removed, modified = result.count("+"), result.count("-"), result.count("M")
    data = {
        "equal": result.equal,
        "added": added,
        "removed": removed,
        "modified": modified,
        "same": result.same,
        "by_time": result.by_time,
        "problems": problem_data(result.problems),
    }
    if result.changes:
        line = f"{added:,} added, {removed:,} removed, {modified:,} modified, {result.same:,} the same"
    else:
        line = f"no difference{' found' * bool(result.problems)}: {count_entries(result.same)}"
    if result.by_time:
        line += f" ({counted(result.by_time, 'file', 'files')} by size and time alone: --content reads them)"
    return Report(data, [line])
