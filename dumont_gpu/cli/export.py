"""The command `export`."""

from __future__ import annotations

from typing import Annotated

import typer

from dumont_gpu.cli.options import Only, Output, Snap, with_notices
from dumont_gpu.errors import UsageError
from dumont_gpu.jobs.options import ExportOptions
from dumont_gpu.storage import STANDARD_STREAM


def export(
    snapshot: Snap,
    options: Annotated[ExportOptions, Only("include", "exclude", "expect", "connections", "limit_rate", "patience")],
    output: Annotated[Output, Only("as_json", "progress", "quiet", "verbose")],
    archive: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The archive to write; -: standard output.")
    ] = STANDARD_STREAM,
    tar: Annotated[bool, typer.Option("--tar", help="Write a tar: pax, as every tar reads.")] = False,
    as_zip: Annotated[bool, typer.Option("--zip", help="Write a zip: zip64 where it must be, deflated.")] = False,
) -> None:
    """Turn a snapshot, or what --include chooses of it, into a tar or a zip.

    Files come in the order in which the snapshot has them; in a tar, directories come last. Every byte is checked
    before it is written. An archive at FILE appears when it is complete, and no file there is replaced. Holes
    become zeros. A zip has neither hard links, which become files, nor owners, nor times finer than a second.

    \b
    dumont-gpu export workspace.dumont --tar | tar -x -C /workspace
    dumont-gpu export workspace.dumont --zip -o models.zip --include /models
    """
    from dumont_gpu.cli.outcome import end, keep_stdout_for_bytes
    from dumont_gpu.cli.report.export import exported
    from dumont_gpu.jobs.export import export as run_export

    if tar == as_zip:
        raise UsageError("choose one of --tar and --zip")
    if archive == STANDARD_STREAM:
        keep_stdout_for_bytes()
    renderer = output.renderer()
    with renderer:
        result = run_export(snapshot, archive, "tar" if tar else "zip", with_notices(options, renderer), renderer)
    end(exported(result, verbose=output.verbose), result.problems, output)
