"""The command `pack`, which is dumont-pack, too."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from dumont_gpu.cli.options import Output, with_notices
from dumont_gpu.errors import UsageError
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.storage import STANDARD_STREAM, WRITTEN_TO


def pack(
    snapshot: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help=f"The snapshot to write: {WRITTEN_TO}.")
    ],
    options: PackOptions,
    output: Output,
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE...", help="Directories or files to pack.", show_default=False)
    ] = None,
    from_tar: Annotated[
        str | None,
        typer.Option("--from-tar", metavar="FILE", help="Pack the entries of a tar instead; -: standard input."),
    ] = None,
) -> None:
    """Pack directories into one snapshot.

    One SOURCE: its content is the root of the snapshot. Several: each SOURCE stands under its own name. A link that is
    named as SOURCE is followed. A snapshot at OUT is replaced, once the new one is complete; any other file is not.

    With -o - the snapshot goes to standard output as it is made, and everything else to standard error. Whoever reads
    it (dumont-gpu restore - TARGET, or cat) believes nothing before its end has come.

    A publish to s3:// that a signal, a kill or the network stops keeps its parts at the server, where they cost money:
    the same command goes on from them, --discard deletes them, and so may a lifecycle rule of the bucket.
    XDG_STATE_HOME/dumont-gpu remembers which publish may go on. After any other error nothing is kept.

    --from-tar unpacks a tar (plain, gzip, bzip2 or xz) into a temporary folder, in TMPDIR, and packs that. An entry
    that leads out of the tar, or a tar without its end, is refused.

    \b
    Examples:
    dumont-gpu pack /workspace -o workspace.dumont
    dumont-gpu pack /workspace ~/.cache/huggingface -o all.dumont --exclude '*.tmp'
    dumont-gpu pack /workspace -o s3://bucket/workspace.dumont
    dumont-gpu pack /workspace -o - | ssh host dumont-gpu restore - /workspace
    ssh host tar -c workspace | dumont-gpu pack --from-tar - -o workspace.dumont
    """
    from dumont_gpu.cli.again import goes_on
    from dumont_gpu.cli.outcome import end, keep_stdout_for_bytes, show
    from dumont_gpu.cli.report.pack import pack_plan, packed
    from dumont_gpu.jobs.pack import pack as run_pack
    from dumont_gpu.jobs.pack import plan_pack

    if snapshot == STANDARD_STREAM:
        keep_stdout_for_bytes()
    renderer = output.renderer()
    options = with_notices(options, renderer)
    with contextlib.ExitStack() as stack:
        if from_tar is None:
            packed_from = sources or []
        elif sources:
            raise UsageError("--from-tar packs a tar, and nothing beside it")
        else:
            from dumont_gpu.jobs.tar_source import unpacked_tar

            packed_from = [stack.enter_context(unpacked_tar(from_tar, owner=options.owner))]
        if output.dry_run:
            show(pack_plan(plan_pack(packed_from, options, snapshot), options), output)
            return
        with goes_on(), renderer:
            result = run_pack(packed_from, snapshot, options, renderer)
    end(packed(result, options, verbose=output.verbose), result.problems, output)
