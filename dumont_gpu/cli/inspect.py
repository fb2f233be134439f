"""The commands that read a snapshot and restore nothing: `info`, `ls`, `verify`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from dumont_gpu.cli.completion import paths_inside
from dumont_gpu.cli.options import Only, Output, Part, Snap, with_notices
from dumont_gpu.jobs.options import ReadOptions, VerifyOptions

if TYPE_CHECKING:
    from dumont_gpu.snapshot.reader import Snapshot

_Looking: TypeAlias = Annotated[ReadOptions, Only("expect", "patience")]
_Printing: TypeAlias = Annotated[Output, Only("as_json")]


def info(snapshot: Snap, options: _Looking, output: _Printing) -> None:
    """Print what a snapshot holds: totals, codecs, its id.

    \b
    Examples:
    dumont-gpu info workspace.dumont
    """
    from dumont_gpu.cli.outcome import show
    from dumont_gpu.cli.report import snapshot as report
    from dumont_gpu.jobs.info import snapshot_info
    from dumont_gpu.snapshot.inside import whole_snapshot

    with _opened(whole_snapshot(snapshot), options, output) as opened:
        show(report.info(snapshot_info(opened)), output)


def list_entries(
    snapshot: Part,
    options: _Looking,
    output: _Printing,
    glob: Annotated[
        str | None,
        typer.Argument(metavar="GLOB", help="List only the entries that match.", autocompletion=paths_inside),
    ] = None,
    long: Annotated[
        bool, typer.Option("-l", "--long", help="Mode, size, codec, ratio and local time; a total at the end.")
    ] = False,
    digest: Annotated[
        bool, typer.Option("--digest", help="With -l: the digests that the snapshot has of each file's content.")
    ] = False,
) -> None:
    """List the entries of a snapshot.

    SNAP:models lists what is in models, with the paths from there on.

    \b
    Examples:
    dumont-gpu ls workspace.dumont 'models/**' -l
    dumont-gpu ls workspace.dumont:models
    dumont-gpu ls workspace.dumont model.safetensors --digest
    """
    from dumont_gpu.cli.report.listing import listing

    with _opened(snapshot, options, output) as opened:
        for line in listing(opened, glob, long=long or digest, digests=digest, as_json=output.as_json):
            print(line)


def verify(
    snapshot: Snap,
    options: VerifyOptions,
    output: Annotated[Output, Only("as_json", "progress", "quiet", "verbose")],
) -> None:
    """Check every byte of a snapshot against its digests.

    Damage does not end it: all chunks are checked. The error names files that damaged chunks hold, -v all of them;
    restore --keep-going brings the others back.

    \b
    Examples:
    dumont-gpu verify workspace.dumont --content
    """
    from dumont_gpu.cli.outcome import name_lost, show
    from dumont_gpu.cli.report.snapshot import verified
    from dumont_gpu.errors import DamagedError
    from dumont_gpu.jobs.verify import verify as run_verify

    renderer = output.renderer()
    try:
        with renderer:
            result = run_verify(snapshot, with_notices(options, renderer), renderer)
    except DamagedError as error:
        name_lost(error.lost, output)
        raise
    show(verified(result), output)


@contextlib.contextmanager
def _opened(location: str, options: ReadOptions, output: Output) -> Iterator[Snapshot]:
    """Opens a snapshot, checks its table of contents, and closes the snapshot afterwards."""
    from dumont_gpu.cli.render import make_renderer
    from dumont_gpu.snapshot.inside import opened_snapshot

    options = with_notices(options, make_renderer("lines", as_json=output.as_json))
    with opened_snapshot(location, options.network, options.expect) as snapshot:
        yield snapshot
