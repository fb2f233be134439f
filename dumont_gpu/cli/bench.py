"""The command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dumont_gpu.cli.options import Only, Output
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.jobs.options import RunOptions
from dumont_gpu.sizes import LOCAL, parse_rate, parse_size


def bench(
    running: Annotated[RunOptions, Only("device", "jobs")],
    output: Annotated[Output, Only("as_json", "quiet")],
    path: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Your own folder: pack and restore it with dumont-gpu, tar and what else is installed; draw bars.",
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RATE", help="With --path: a link to reckon with; may be repeated. 100Mbit and 1Gbit if not given."
        ),
    ] = None,
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
        str,
        typer.Option(metavar="PARTS", help="The parts to measure: some of rows,chunks,jobs,links,codecs,profile,load."),
    ] = "rows,chunks,jobs,links",
    size: Annotated[
        str, typer.Option(metavar="SIZE", help="For the part load: bytes of each file of tensors.")
    ] = "256MiB",
    repeats: Annotated[
        int | None, typer.Option(metavar="N", help="Timed runs of each measurement: 5, with --path 3, if not given.")
    ] = None,
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
    dumont-gpu bench --path /workspace --link 100Mbit
    dumont-gpu bench
    dumont-gpu bench --download --plot bench.html
    dumont-gpu bench --corpus /workspace --parts rows,jobs --json
    dumont-gpu bench --parts load --size 1GiB
    """
    from dumont_gpu.bench.command import BenchOptions, run_bench
    from dumont_gpu.bench.own import DEFAULT_RATES, OwnOptions, bench_own
    from dumont_gpu.bench.publish import check_picture, progress, publish, show

    check_picture(plot)
    _check_together(path, corpus, link)
    folder = Path(scratch) if scratch is not None else None
    with progress(quiet=output.quiet) as say:
        if path is not None:
            rates = tuple(map(_rate, link)) if link else DEFAULT_RATES
            record = bench_own(OwnOptions(Path(path), rates, 3 if repeats is None else repeats, folder), say)
        else:
            options = BenchOptions(
                parts=tuple(part.strip() for part in parts.split(",")),
                corpus=Path(corpus) if corpus is not None else None,
                download=download,
                device=running.device,
                jobs=running.jobs,
                repeats=5 if repeats is None else repeats,
                scratch=folder,
                load_size=parse_size(size),
            )
            record = run_bench(options, say)
    if not output.quiet:
        show(record, as_json=output.as_json, as_markdown=markdown)
    publish(record, plot, results)
    if record["failures"]:
        raise DumontError(f"not intact: {'; '.join(record['failures'])}")


def _check_together(path: str | None, corpus: str | None, link: list[str] | None) -> None:
    if path is not None and corpus is not None:
        raise UsageError("choose one of --path, which measures whole jobs, and --corpus, which measures every part")
    if link and path is None:
        raise UsageError("--link goes with --path")


def _rate(text: str) -> int:
    rate = parse_rate(text)
    if rate == LOCAL:
        raise UsageError("--link local: there is a chart without a link anyway")
    return rate
