"""The command `doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from dumont_gpu.cli.options import Only, Output


def doctor(
    output: Annotated[Output, Only("as_json")],
    disk: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Also measure the disk of DIR: writes 256 MiB there, and takes them away."),
    ] = None,
) -> None:
    """Say what this machine can do, and what is missing for more.

    \b
    Examples:
    dumont-gpu doctor
    dumont-gpu doctor --disk /workspace
    """
    from dumont_gpu.cli.disk_speed import measure_disk
    from dumont_gpu.cli.examination import examine

    findings = [*examine(), *([measure_disk(disk)] if disk is not None else [])]
    for finding in findings:
        if output.as_json:
            print(json.dumps({"type": "finding", **asdict(finding)}))
        else:
            print(f"{'ok' if finding.found else '--':3} {finding.what:15} {finding.detail}")
