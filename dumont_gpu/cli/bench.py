"""The command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dumont_gpu.cli.options import Only, Output
from dumont_gpu.errors import DumontError
from dumont_gpu.jobs.options import RunOptions


def bench(
    running: Annotated[RunOptions, Only("device", "jobs")],
    output: Annotated[Output, Only("as_json", "quiet")],
    corpus: Annotated[
        str | None, typer.Option(metavar="PATH", help="Measure this tree in place of the real files of public wheels.")
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download/--offline", help="Fetch those wheels, once, or (the default) never touch the network."
        ),
    ] = False,
    parts: Annotated[
        str, typer.Option(metavar="PARTS", help="The parts to measure: some of rows,chunks,jobs,links,codecs,profile.")
    ] = "rows,chunks,jobs,links",
    repeats: Annotated[int, typer.Option(metavar="N", help="Timed runs of each measurement.")] = 5,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw a picture: FILE.svg, or FILE.html with the tables too.")
    ] = None,
    results: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keep the results in DIR, as bench-MACHINE.json, .md and .svg.")
    ] = None,
    scratch: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write here, and so measure this disk too (3 GB); in memory if not given."),
    ] = None,
) -> None:
    """Measure speed and size on this machine: by type of file, against other archivers, over links.

    \b
    Examples:
    dumont-gpu bench
    dumont-gpu bench --download --plot bench.html
    dumont-gpu bench --corpus /workspace --parts rows,jobs --json
    """
    from dumont_gpu.bench.command import BenchOptions, run_bench
    from dumont_gpu.bench.publish import check_picture, progress, publish, show

    check_picture(plot)
    options = BenchOptions(
        parts=tuple(part.strip() for part in parts.split(",")),
        corpus=Path(corpus) if corpus is not None else None,
        download=download,
        device=running.device,
        jobs=running.jobs,
        repeats=repeats,
        scratch=Path(scratch) if scratch is not None else None,
    )
    with progress(quiet=output.quiet) as say:
        record = run_bench(options, say)
    if not output.quiet:
        show(record, as_json=output.as_json, as_markdown=markdown)
    publish(record, plot, results)
    if record["failures"]:
        raise DumontError(f"not intact: {'; '.join(record['failures'])}")
