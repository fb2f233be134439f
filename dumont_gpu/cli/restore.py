"""The commands `restore` and dumont-restore."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dumont_gpu.cli.options import Output, Part, parameter_names, with_notices
from dumont_gpu.cli.outcome import EXIT_PROBLEMS
from dumont_gpu.errors import DamagedError, UsageError
from dumont_gpu.jobs.options import RestoreOptions

if TYPE_CHECKING:
    from dumont_gpu.jobs.restore import RestoreResult

_Target = Annotated[str | None, typer.Argument(metavar="TARGET", help="The directory to restore into.")]
_Places = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=PATH",
        help="Restore what is NAME in the snapshot into PATH; may be repeated. TARGET then gets the rest.",
    ),
]


def restore(
    snapshot: Part, options: RestoreOptions, output: Output, target: _Target = None, places: _Places = None
) -> None:
    """Restore a snapshot, or a part of it, into a directory.

    SNAP:src puts what is in src into TARGET; a file comes under its own name. After an interruption, the same command
    goes on from what is there; if every entry is there already, it says so, and writes nothing.

    With - as SNAP the snapshot comes from standard input. It waits on the disk of TARGET until its end has come and was
    checked, and takes its own size there meanwhile; nothing is restored from a part of it.

    \b
    Examples:
    dumont-gpu restore workspace.dumont /workspace
    dumont-gpu restore workspace.dumont:src /workspace/src
    ssh host cat workspace.dumont | dumont-gpu restore - /workspace
    dumont-gpu restore https://host/workspace.dumont /workspace --limit-rate 50MiB
    dumont-gpu restore workspace.dumont /workspace --include 'runs/*/config.json' --overwrite if-changed
    dumont-gpu restore all.dumont --map workspace=/workspace --map huggingface=~/.cache/huggingface
    """
    from dumont_gpu.cli.again import goes_on
    from dumont_gpu.cli.outcome import end, show
    from dumont_gpu.cli.report.restore import restore_plan, restored
    from dumont_gpu.jobs.restore import plan_restore
    from dumont_gpu.jobs.restore import restore as run_restore

    renderer = output.renderer()
    options = with_notices(options, renderer)
    if places:
        _restore_parts(snapshot, target, places, options, output)
        return
    if target is None:
        raise UsageError("name the directory to restore into")
    if output.dry_run:
        show(restore_plan(plan_restore(snapshot, options, target), options, verbose=output.verbose), output)
        return
    with goes_on(), renderer:
        result = run_restore(snapshot, target, options, renderer)
    end(restored(result, options, verbose=output.verbose), result.problems, output, _code(result))


def _restore_parts(
    snapshot: str, target: str | None, places: Sequence[str], options: RestoreOptions, output: Output
) -> None:
    """Restores the parts that --map names, and the rest into `target`; reports each of them."""
    from dumont_gpu.cli.again import goes_on
    from dumont_gpu.cli.outcome import end, show
    from dumont_gpu.cli.report.restore import restore_plan, restored
    from dumont_gpu.jobs.restore import plan_restore
    from dumont_gpu.jobs.restore import restore as run_restore
    from dumont_gpu.jobs.restore_map import parse_map, parts_of
    from dumont_gpu.snapshot.inside import whole_snapshot
    from dumont_gpu.snapshot.reader import opened_source

    problems = 0
    with goes_on(), opened_source(whole_snapshot(snapshot), options.network) as source:
        for inside, place, part in list(parts_of(source, parse_map(places), target, options)):
            if output.dry_run:
                plan = plan_restore(source, part, place, inside=inside)
                show(restore_plan(plan, part, verbose=output.verbose), output)
                continue
            with output.renderer() as renderer:
                result = run_restore(source, place, part, renderer, inside=inside)
            try:
                report = restored(result, part, verbose=output.verbose)
                end(report, result.problems, output, _code(result))
            except typer.Exit as ended:  # the other parts are restored all the same
                problems = max(problems, ended.exit_code)
    if problems:
        raise typer.Exit(problems)


def _code(result: RestoreResult) -> int:
    """Returns the exit code of a restore with problems: lost files are damage."""
    return DamagedError.exit_code if result.lost else EXIT_PROBLEMS


def dumont_restore(
    context: typer.Context,
    snapshot: Part,
    options: RestoreOptions,
    output: Output,
    target: _Target = None,
    places: _Places = None,
    info_only: Annotated[bool, typer.Option("--info", help="Print what the snapshot holds, and stop.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the entries, and stop.")] = False,
) -> None:
    """Restore a snapshot (the same as `dumont-gpu restore`), or look into it with --info or --list.

    \b
    Examples:
    dumont-restore workspace.dumont --info
    dumont-restore workspace.dumont /workspace --verify
    """
    from dumont_gpu.cli.inspect import info, list_entries

    if info_only or list_only:
        _refuse_more_than(info, context)
        if info_only and list_only:
            raise UsageError("choose one of --info and --list")
        (info if info_only else list_entries)(snapshot, options=options, output=output)
    elif target is None and not places:
        raise UsageError("name the directory to restore into, or ask for --info or --list")
    else:
        restore(snapshot, options, output, target, places)


def _refuse_more_than(command: Callable[..., None], context: typer.Context) -> None:
    """Refuses parameters of dumont-restore that `command` does not take: nothing of a command line is dropped."""
    taken = parameter_names(command) | {"info_only", "list_only"}
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in taken and source and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} means nothing with --info or --list")
