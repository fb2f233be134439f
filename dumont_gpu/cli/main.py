"""The command line: options to calls, results to text or JSON."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, cast, get_type_hints

import typer

from dumont_gpu import __version__
from dumont_gpu.cli.endings import Stopped
from dumont_gpu.errors import DumontError, GaveUpError, UsageError, left_behind
from dumont_gpu.format.digests import DEFAULT_DIGEST, DIGESTS
from dumont_gpu.jobs.arguments import MAX_CONNECTIONS, MAX_JOBS, pattern_file
from dumont_gpu.tree.globs import HELP as GLOB_HELP

_EXIT_SOME_UNREADABLE: Final = 3
_MAX_LISTED: Final = 20  # problems shown without -v
_PATIENCE: Final = "5m"

_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
_NETWORK: Final = (
    "Over the network: proxies as https_proxy, http_proxy, all_proxy and no_proxy say; certificates as "
    "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE or SSL_CERT_DIR say, and for s3:// AWS_CA_BUNDLE before them; "
    "accounts of S3 from AWS_* and ~/.aws (AWS_PROFILE), as for every S3 tool."
)
app = typer.Typer(
    name="dumont-gpu",
    epilog=_NETWORK,
    help="Packs an ML workspace into one verified .dumont file and brings it back fast.",
    context_settings=_SETTINGS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
pack_app = typer.Typer(name="dumont-pack", context_settings=_SETTINGS, pretty_exceptions_enable=False)

# --- options that several commands share ------------------------------------------------------------------------------

Snap = Annotated[
    str, typer.Argument(metavar="SNAP", help="The snapshot: a path, or an http(s)://, s3://, gs:// or az:// address.")
]
Device = Annotated[
    str, typer.Option(metavar="auto|cpu|N", envvar="DUMONT_DEVICE", help="Where to encode and decode; N: a GPU.")
]
Jobs = Annotated[
    int,
    typer.Option(min=0, max=MAX_JOBS, envvar="DUMONT_JOBS", help="Threads; 0: one per core, fewer where limits ask."),
]
Memory = Annotated[
    str,
    typer.Option(metavar="SIZE", help="Memory for chunk buffers; 512MiB if not given, less where limits ask for it."),
]
GpuMemory = Annotated[
    str, typer.Option(metavar="SIZE", help="Device memory to take at most; half of what is free if not given.")
]
Connections = Annotated[
    int,
    typer.Option(
        min=0, max=MAX_CONNECTIONS, metavar="N", help="Use N connections; 0: 16 (4 nearby), and more if that helps."
    ),
]
LimitRate = Annotated[
    str, typer.Option("--limit-rate", metavar="SIZE", help="Bytes per second to download, at most; 0: no limit.")
]
Patience = Annotated[
    str, typer.Option(metavar="TIME", help="Keep trying for so long while nothing comes over the network: 90, 90s, 5m.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Leave out what matches; may be repeated."),
]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Restore only what matches; may be repeated."),
]
Expect = Annotated[
    str | None,
    typer.Option(metavar="sha256:…", help="Refuse any other snapshot than the one of this id."),
]
DryRun = Annotated[bool, typer.Option("-n", "--dry-run", help="Say what would be done, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines.")]
ProgressKind = Annotated[str, typer.Option("--progress", metavar="auto|bar|lines|none", help="How to show progress.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print everything there is to say.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


_GLOBS: Final = "\b\n" + "\n".join(f"{glob:16} {meaning}" for glob, meaning in GLOB_HELP).replace("[", r"\[")


# --- commands ---------------------------------------------------------------------------------------------------------


def _version(value: bool) -> None:
    if value:
        print(f"dumont-gpu {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog=f"{_GLOBS}\n\n{_NETWORK}")
@pack_app.command(epilog=f"{_GLOBS}\n\n{_NETWORK}")
def pack(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Directories or files to pack.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="The snapshot to write: a path, or s3://bucket/key.")
    ],
    method: Annotated[
        str, typer.Option(metavar="hybrid_v2|lz4|lz4_hc|none", help="How to choose codecs.")
    ] = "hybrid_v2",
    chunk_size: Annotated[str, typer.Option(metavar="SIZE", help="Original bytes in a chunk, at most.")] = "64MiB",
    exclude: Exclude = None,
    exclude_from: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Read patterns to leave out from FILE, one a line."),
    ] = None,
    digest: Annotated[
        str, typer.Option(metavar="|".join(DIGESTS), help="What covers chunks and files.")
    ] = DEFAULT_DIGEST,
    owner: Annotated[bool, typer.Option("--owner", help="Record user and group ids.")] = False,
    follow_outside: Annotated[
        bool,
        typer.Option("--follow-outside", help="Store what links lead to that is not packed otherwise, not the links."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is at OUT and no snapshot, if no SOURCE holds it.")
    ] = False,
    device: Device = "auto",
    gpu_memory: GpuMemory = "",
    paranoid: Annotated[
        bool, typer.Option("--paranoid", help="Decode every chunk, and compare, before it is written.")
    ] = False,
    jobs: Jobs = 0,
    memory: Memory = "",
    patience: Patience = _PATIENCE,
    discard: Annotated[
        bool,
        typer.Option("--discard", help="Keep nothing at the server of a publish that is stopped, now or before."),
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    progress: ProgressKind = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Pack directories into one snapshot.

    One SOURCE: its content is the root of the snapshot. Several: each stands under its own name. A link that is named
    as SOURCE is followed. A snapshot at OUT is replaced, once the new one is complete; any other file is not.

    A publish to s3:// that is stopped by a signal, a kill or the network keeps its parts at the server, where they
    cost money: the same command goes on from them, --discard takes them away, and so may a rule of the bucket. What
    may go on is remembered in XDG_STATE_HOME/dumont-gpu. After any other error nothing is kept.

    \b
    dumont-gpu pack /workspace -o workspace.dumont
    dumont-gpu pack /workspace ~/.cache/huggingface -o all.dumont --exclude '*.tmp'
    dumont-gpu pack /workspace -o s3://bucket/workspace.dumont
    """
    from dumont_gpu.cli import report
    from dumont_gpu.jobs.options import PackOptions
    from dumont_gpu.jobs.pack import pack as run_pack
    from dumont_gpu.jobs.pack import plan_pack
    from dumont_gpu.sizes import parse_size

    renderer = _renderer(progress, as_json=as_json, quiet=quiet)
    options = PackOptions(
        method=method,
        chunk_size=parse_size(chunk_size),
        exclude=_patterns(exclude, exclude_from),
        digest=digest,
        owner=owner,
        device=device,
        gpu_memory=parse_size(gpu_memory) if gpu_memory else None,
        paranoid=paranoid,
        jobs=jobs,
        memory=parse_size(memory) if memory else 0,
        force=force,
        follow_outside=follow_outside,
        network=_network(patience, renderer, discard=discard),
    )
    if dry_run:
        plan = plan_pack(sources, options, output)
        report.show(report.pack_plan(plan, options), as_json=as_json, quiet=quiet)
        return
    with _goes_on(), renderer:
        result = run_pack(sources, output, options, renderer)
    report.show(report.packed(result, options, verbose=verbose), as_json=as_json, quiet=quiet)
    report.problems(result.problems, None if verbose or as_json else _MAX_LISTED)
    if result.problems:
        raise typer.Exit(_EXIT_SOME_UNREADABLE)


@app.command(epilog=f"{_GLOBS}\n\n{_NETWORK}")
def restore(
    snapshot: Snap,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The directory to restore into.")],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Also check every file's content: of new ones before it is written."),
    ] = False,
    include: Include = None,
    exclude: Exclude = None,
    overwrite: Annotated[
        str,
        typer.Option(metavar="always|if-changed|never", help="What to do with files that are there already."),
    ] = "refuse",
    expect: Expect = None,
    owner: Annotated[bool, typer.Option("--owner", help="Restore user and group ids.")] = False,
    preserve_special: Annotated[
        bool, typer.Option("--preserve-special", help="Restore setuid, setgid and sticky bits.")
    ] = False,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not wait until everything is on disk.")] = False,
    max_size: Annotated[str, typer.Option(metavar="SIZE", help="Refuse to restore more than this.")] = "16TiB",
    device: Device = "auto",
    gpu_memory: GpuMemory = "",
    jobs: Jobs = 0,
    memory: Memory = "",
    connections: Connections = 0,
    limit_rate: LimitRate = "0",
    patience: Patience = _PATIENCE,
    dry_run: DryRun = False,
    as_json: Json = False,
    progress: ProgressKind = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Restore a snapshot, or a part of it, into a directory.

    After an interruption, the same command goes on from what is there.

    \b
    dumont-gpu restore workspace.dumont /workspace
    dumont-gpu restore https://host/workspace.dumont /workspace --limit-rate 50MiB
    dumont-gpu restore workspace.dumont /workspace --include 'runs/*/config.json' --overwrite if-changed
    """
    from dumont_gpu.cli import report
    from dumont_gpu.jobs.options import RestoreOptions
    from dumont_gpu.jobs.restore import plan_restore
    from dumont_gpu.jobs.restore import restore as run_restore
    from dumont_gpu.sizes import parse_size
    from dumont_gpu.tree.target.options import Overwrite

    renderer = _renderer(progress, as_json=as_json, quiet=quiet)
    options = RestoreOptions(
        include=include or (),
        exclude=exclude or (),
        verify=verify,
        expect=expect,
        overwrite=cast(Overwrite, overwrite),
        owner=owner,
        preserve_special=preserve_special,
        sync=not no_sync,
        max_size=parse_size(max_size),
        device=device,
        gpu_memory=parse_size(gpu_memory) if gpu_memory else None,
        jobs=jobs,
        memory=parse_size(memory) if memory else 0,
        network=_network(patience, renderer, connections, limit_rate),
    )
    if dry_run:
        plan = plan_restore(snapshot, options, target)
        report.show(report.restore_plan(plan, verbose=verbose), as_json=as_json, quiet=quiet)
        return
    with _goes_on(), renderer:
        result = run_restore(snapshot, target, options, renderer)
    report.show(report.restored(result, options, verbose=verbose), as_json=as_json, quiet=quiet)
    report.problems(result.problems, None if verbose or as_json else _MAX_LISTED)
    if result.problems:
        raise typer.Exit(_EXIT_SOME_UNREADABLE)


_LOOKING: Final = ("expect", "as_json", "patience", "debug")  # options of restore that --info and --list take, too


def dumont_restore(
    context: typer.Context,
    snapshot: Snap,
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="The directory to restore into."),
    ] = None,
    info_only: Annotated[bool, typer.Option("--info", help="Print what the snapshot holds, and stop.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the entries, and stop.")] = False,
    **options: Any,
) -> None:
    """Restore a snapshot (the same as `dumont-gpu restore`), or look into it with --info or --list.

    \b
    dumont-restore workspace.dumont --info
    dumont-restore workspace.dumont /workspace --verify
    """
    if info_only or list_only:
        for parameter in context.command.params:
            name = parameter.name or ""
            source = context.get_parameter_source(name)
            if name in ("target", *options) and name not in _LOOKING and source and source.name == "COMMANDLINE":
                raise UsageError(f"{parameter.opts[0]} means nothing with --info or --list")
        if info_only and list_only:
            raise UsageError("choose one of --info and --list")
        (info if info_only else list_entries)(snapshot, **{name: options[name] for name in _LOOKING})
    elif target is None:
        raise UsageError("name the directory to restore into, or ask for --info or --list")
    else:
        restore(snapshot, target, **options)


def _with_options_of(other: Callable[..., None], command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` the parameters of `other` that it takes as `**options`: all of them, whatever they become."""
    merged: dict[str, inspect.Parameter] = {}
    for function in (command, other):
        hints = get_type_hints(function, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                merged.setdefault(name, parameter.replace(annotation=hints[name]))
    command.__annotations__ = {name: parameter.annotation for name, parameter in merged.items()}
    command.__signature__ = inspect.Signature(list(merged.values()))  # type: ignore[attr-defined]
    return command


def run_dumont_restore() -> None:
    """Runs the command line of dumont-restore, which is made only here: that takes milliseconds."""
    restore_app = typer.Typer(name="dumont-restore", context_settings=_SETTINGS, pretty_exceptions_enable=False)
    restore_app.command(epilog=f"{_GLOBS}\n\n{_NETWORK}")(_with_options_of(restore, dumont_restore))
    restore_app()


@app.command()
def info(
    snapshot: Snap, expect: Expect = None, as_json: Json = False, patience: Patience = _PATIENCE, debug: Debug = False
) -> None:
    """Print what a snapshot holds: totals, codecs, its id.

    \b
    dumont-gpu info workspace.dumont
    """
    from dumont_gpu.cli import report

    with report.opened(snapshot, expect, _network(patience, _renderer("lines", as_json=as_json))) as opened:
        report.show(report.info(opened), as_json=as_json)


@app.command("ls", epilog=_GLOBS)
def list_entries(
    snapshot: Snap,
    glob: Annotated[
        str | None,
        typer.Argument(metavar="GLOB", help="List only what matches."),
    ] = None,
    long: Annotated[bool, typer.Option("-l", "--long", help="Size, codec, ratio, time and digest.")] = False,
    expect: Expect = None,
    as_json: Json = False,
    patience: Patience = _PATIENCE,
    debug: Debug = False,
) -> None:
    """List the entries of a snapshot.

    \b
    dumont-gpu ls workspace.dumont 'models/**' -l
    """
    from dumont_gpu.cli import report

    with report.opened(snapshot, expect, _network(patience, _renderer("lines", as_json=as_json))) as opened:
        for line in report.listing(opened, glob, long=long, as_json=as_json):
            print(line)


@app.command()
def verify(
    snapshot: Snap,
    content: Annotated[bool, typer.Option("--content", help="Also decode every chunk and check every file.")] = False,
    expect: Expect = None,
    device: Device = "auto",
    gpu_memory: GpuMemory = "",
    jobs: Jobs = 0,
    memory: Memory = "",
    connections: Connections = 0,
    limit_rate: LimitRate = "0",
    patience: Patience = _PATIENCE,
    as_json: Json = False,
    progress: ProgressKind = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check every stored byte of a snapshot against its digests.

    \b
    dumont-gpu verify workspace.dumont --content
    """
    from dumont_gpu.cli import report
    from dumont_gpu.jobs.options import VerifyOptions
    from dumont_gpu.jobs.verify import verify as run_verify
    from dumont_gpu.sizes import parse_size

    renderer = _renderer(progress, as_json=as_json, quiet=quiet)
    options = VerifyOptions(
        content=content,
        expect=expect,
        device=device,
        gpu_memory=parse_size(gpu_memory) if gpu_memory else None,
        jobs=jobs,
        memory=parse_size(memory) if memory else 0,
        network=_network(patience, renderer, connections, limit_rate),
    )
    with renderer:
        result = run_verify(snapshot, options, renderer)
    report.show(report.verified(result), as_json=as_json, quiet=quiet)


@app.command()
def serve(
    snapshot: Annotated[str, typer.Argument(metavar="SNAP", help="The snapshot to serve: a path.")],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0: on every network, for everybody.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8700,
    debug: Debug = False,
) -> None:
    """Serve a snapshot over http, for another machine or a test. Whoever reaches the address can read it.

    \b
    dumont-gpu serve workspace.dumont --host 0.0.0.0
    dumont-gpu restore http://that-machine:8700/workspace.dumont /workspace
    """
    from dumont_gpu.storage.server import SnapshotServer

    server = SnapshotServer(snapshot, host, port)
    print(f"serving {server.url}", flush=True)
    try:
        server.serve_forever()
    finally:
        server.close()


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say what this machine can do, and what is missing for more."""
    from dumont_gpu.cli.doctor import examine

    findings = examine()
    for finding in findings:
        if as_json:
            print(json.dumps({"type": "finding", **asdict(finding)}))
        else:
            print(f"{'ok' if finding.found else '--':3} {finding.what:15} {finding.detail}")


@app.command()
def bench(
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
        str, typer.Option(metavar="PARTS", help="What to measure: some of rows,chunks,jobs,links.")
    ] = "rows,chunks,jobs,links",
    repeats: Annotated[int, typer.Option(metavar="N", help="Timed runs of each.")] = 5,
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
    device: Device = "auto",
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure speed and size on this machine: by type of file, against other archivers, over links.

    \b
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
        device=device,
        jobs=jobs,
        repeats=repeats,
        scratch=Path(scratch) if scratch is not None else None,
    )
    with progress(quiet=quiet) as say:
        record = run_bench(options, say)
    if not quiet:
        show(record, as_json=as_json, as_markdown=markdown)
    publish(record, plot, results)
    if record["failures"]:
        raise DumontError(f"not intact: {'; '.join(record['failures'])}")


def _network(
    patience: str, renderer: Any, connections: int = 0, limit_rate: str = "0", *, discard: bool = False
) -> Any:
    from dumont_gpu.sizes import parse_duration, parse_size
    from dumont_gpu.storage import NetworkOptions
    from dumont_gpu.storage.retry import RetryPolicy

    return NetworkOptions(
        connections=connections,
        limit_rate=parse_size(limit_rate),
        retry=RetryPolicy(patience=parse_duration(patience)),
        discard=discard,
        notice=renderer.notice,
    )


@contextlib.contextmanager
def _goes_on() -> Iterator[None]:
    """Has an error of which the same command goes on say so: the network gave up, or something was kept to go on from.

    It is one line, with the command as it can be given to a shell.
    """
    try:
        yield
    except (DumontError, Stopped) as error:
        left = left_behind(error)
        if isinstance(error, GaveUpError) or (left is not None and left.goes_on):
            from dumont_gpu.cli.again import again

            error.command = again(sys.argv)  # type: ignore[union-attr]
        raise


def _renderer(progress: str, *, as_json: bool, quiet: bool = False) -> Any:
    from dumont_gpu.cli.render import PROGRESS_CHOICES, make_renderer

    if progress not in PROGRESS_CHOICES:
        raise UsageError(f"--progress {progress}: choose one of {', '.join(PROGRESS_CHOICES)}")
    return make_renderer("none" if quiet else progress, as_json=as_json)


def _patterns(patterns: list[str] | None, files: list[str] | None) -> tuple[str, ...]:
    return (*(patterns or ()), *(pattern for file in files or () for pattern in pattern_file(file)))
