"""The command `cat`."""

from __future__ import annotations

from typing import Annotated

import typer

from dumont_gpu.cli.options import Only, Output, Part, with_notices
from dumont_gpu.jobs.options import ReadOptions


def cat(
    snapshot: Part,
    options: Annotated[ReadOptions, Only("expect", "connections", "limit_rate", "patience")],
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH...", help="Files in the snapshot.")] = None,
) -> None:
    """Print files of a snapshot: their bytes, verified before they are written.

    Only the chunks that hold the files are read. Every PATH is looked up before the first byte is written; after an
    error in the middle, what was written before it is right.

    \b
    dumont-gpu cat workspace.dumont runs/1/config.json
    dumont-gpu cat https://host/workspace.dumont:logs day1.txt day2.txt | grep loss
    dumont-gpu cat workspace.dumont:models/model.safetensors > model.safetensors
    """
    from dumont_gpu.cli import endings
    from dumont_gpu.cli.outcome import check_stdout
    from dumont_gpu.jobs.read_file import read_files

    check_stdout()
    options = with_notices(options, Output(progress="lines").renderer())
    for piece in read_files(snapshot, paths or (), options):
        if not endings.write_bytes(piece):
            break
