"""The command `mount`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dumont_gpu.cli.options import Only, Output, Part, with_notices
from dumont_gpu.jobs.options import ReadOptions


def mount(
    snapshot: Part,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="An empty directory, where the files will appear.")],
    options: Annotated[ReadOptions, Only("expect", "memory", "connections", "limit_rate", "patience")],
) -> None:
    """Mount a snapshot read-only: its files are there at once, and read as they are used.

    Runs until Ctrl-C, or until DIR is unmounted. Every byte is checked before a program gets it: where the snapshot is
    damaged, reading fails, and a line here says why.

    \b
    Examples:
    dumont-gpu mount workspace.dumont /mnt/workspace
    dumont-gpu mount https://host/workspace.dumont:models /mnt/models
    fusermount3 -u /mnt/workspace
    """
    from dumont_gpu.loading.files import SnapshotFiles
    from dumont_gpu.mounting import Mount, check_mountable

    def tell(line: str) -> None:
        print(f"dumont-gpu: {line}", file=sys.stderr)

    check_mountable(folder)  # before a server is asked
    options = with_notices(options, Output(progress="lines").renderer())
    with SnapshotFiles(snapshot, options) as files, Mount(files, folder, tell) as mounted:
        print(f"mounted at {mounted.folder}", flush=True)
        mounted.wait()
