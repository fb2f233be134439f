"""The commands `restore` and dumont-restore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from dumont_gpu.cli.options import Output, Snap, parameter_names, with_notices
from dumont_gpu.errors import UsageError
from dumont_gpu.jobs.options import RestoreOptions

_TARGET = typer.Argument(metavar="TARGET", help="The directory to restore into.")


def restore(snapshot: Snap, target: Annotated[str, _TARGET], options: RestoreOptions, output: Output) -> None:
    """Restore a snapshot, or a part of it, into a directory.

    After an interruption, the same command goes on from what is there.

    With - as SNAP the snapshot comes from standard input. It waits on the disk of TARGET until its end has come and was
    checked, and takes its own size there meanwhile; nothing is restored from a part of it.

    \b
    dumont-gpu restore workspace.dumont /workspace
    ssh host cat workspace.dumont | dumont-gpu restore - /workspace
    dumont-gpu restore https://host/workspace.dumont /workspace --limit-rate 50MiB
    dumont-gpu restore workspace.dumont /workspace --include 'runs/*/config.json' --overwrite if-changed
    """
    from dumont_gpu.cli.again import goes_on
    from dumont_gpu.cli.outcome import end, show
    from dumont_gpu.cli.report.restore import restore_plan, restored
    from dumont_gpu.jobs.restore import plan_restore
    from dumont_gpu.jobs.restore import restore as run_restore

    renderer = output.renderer()
    options = with_notices(options, renderer)
    if output.dry_run:
        show(restore_plan(plan_restore(snapshot, options, target), verbose=output.verbose), output)
        return
    with goes_on(), renderer:
        result = run_restore(snapshot, target, options, renderer)
    end(restored(result, options, verbose=output.verbose), result.problems, output)


def dumont_restore(
    context: typer.Context,
    snapshot: Snap,
    options: RestoreOptions,
    output: Output,
    target: Annotated[str | None, _TARGET] = None,
    info_only: Annotated[bool, typer.Option("--info", help="Print what the snapshot holds, and stop.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the entries, and stop.")] = False,
) -> None:
    """Restore a snapshot (the same as `dumont-gpu restore`), or look into it with --info or --list.

    \b
    dumont-restore workspace.dumont --info
    dumont-restore workspace.dumont /workspace --verify
    """
    from dumont_gpu.cli.inspect import info, list_entries

    if info_only or list_only:
        _refuse_more_than(info, context)
        if info_only and list_only:
            raise UsageError("choose one of --info and --list")
        (info if info_only else list_entries)(snapshot, options=options, output=output)
    elif target is None:
        raise UsageError("name the directory to restore into, or ask for --info or --list")
    else:
        restore(snapshot, target, options, output)


def _refuse_more_than(command: Callable[..., None], context: typer.Context) -> None:
    """Refuses parameters of dumont-restore that `command` does not take: nothing of a command line is dropped."""
    taken = parameter_names(command) | {"info_only", "list_only"}
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in taken and source and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} means nothing with --info or --list")
