"""The command `diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from dumont_gpu.cli.options import Only, Output, with_notices
from dumont_gpu.jobs.options import DiffOptions

_DIFFERENT = 1  # the exit code, as of diff(1)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A snapshot, SNAP:PATH of a part of one, or a folder.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with; one of them is a snapshot.")],
    options: DiffOptions,
    output: Annotated[Output, Only("as_json", "quiet", "verbose")],
) -> None:
    """Compare two snapshots, or a snapshot and a folder: what was added, removed, modified.

    A line for each difference, by path: + only in B, - only in A, M in both but not the same. Types, sizes and what
    links lead to are compared, and the content of files: by the digests of two snapshots, as far as both have cut a
    file alike, or else by the time; with --content by reading all of it. Modes, owners, and times of folders are not.

    Ends with 0 if nothing differs, with 1 if something does, with 3 if something could not be read.

    \b
    dumont-gpu diff monday.dumont tuesday.dumont
    dumont-gpu diff workspace.dumont /workspace --content
    dumont-gpu diff workspace.dumont:src ./src
    """
    from dumont_gpu.cli import endings
    from dumont_gpu.cli.outcome import EXIT_PROBLEMS, end
    from dumont_gpu.cli.report.diff import change_lines, summary
    from dumont_gpu.jobs.diff import diff as run_diff

    endings.replace_code(_DIFFERENT, EXIT_PROBLEMS)
    result = run_diff(a, b, with_notices(options, output.renderer()))
    if not output.quiet:
        for line in change_lines(result, as_json=output.as_json):
            print(line)
    end(summary(result), result.problems, output)
    if result.changes:
        raise typer.Exit(_DIFFERENT)
