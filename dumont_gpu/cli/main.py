"""The entry points of the command line, and the table of its commands: a command is imported when it runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperGroup

from dumont_gpu import __version__

_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
_NETWORK: Final = (
    "Over the network: https_proxy, http_proxy, all_proxy and no_proxy name proxies; REQUESTS_CA_BUNDLE, "
    "CURL_CA_BUNDLE, SSL_CERT_FILE or SSL_CERT_DIR name certificates, and for s3:// AWS_CA_BUNDLE before them; "
    "AWS_* and ~/.aws (AWS_PROFILE) hold the accounts of S3, as for every S3 tool."
)


class Command(NamedTuple):
    """Where a command is, and what `dumont-gpu --help` says of it without importing it."""

    module: str  # in this folder
    function: str
    summary: str  # the first line of the function's docstring
    takes_patterns: bool = False  # its help ends with the table of patterns
    takes_addresses: bool = False  # its help ends with the settings of the network


COMMANDS: Final = {
    "pack": Command("pack", "pack", "Pack directories into one snapshot.", True, True),
    "restore": Command("restore", "restore", "Restore a snapshot, or a part of it, into a directory.", True, True),
    "export": Command(
        "export", "export", "Turn a snapshot, or what --include chooses of it, into a tar or a zip.", True, True,
    ),
    "info": Command("inspect", "info", "Print what a snapshot holds: totals, codecs, its id."),
    "ls": Command("inspect", "list_entries", "List the entries of a snapshot.", True),
    "cat": Command(
        "cat", "cat", "Print files of a snapshot: their bytes, verified before they are written.", takes_addresses=True
    ),
    "mount": Command(
        "mount", "mount", "Mount a snapshot read-only: its files are there at once, and read as they are used.",
        takes_addresses=True,
    ),
    "diff": Command(
        "diff", "diff", "Compare two snapshots, or a snapshot and a folder: what was added, removed, modified.",
        takes_addresses=True,
    ),
    "verify": Command("inspect", "verify", "Check every byte of a snapshot against its digests."),
    "serve": Command(
        "serve", "serve",
        "Serve a snapshot over http, for another machine or a test. Whoever reaches the address can read it.",
    ),
    "reader": Command(
        "reader", "reader",
        "Write a reader of snapshots that any machine with Python 3.9 runs: one file, nothing to install.",
    ),
    "doctor": Command("doctor", "doctor", "Say what this machine can do, and what is missing for more."),
    "bench": Command(
        "bench", "bench",
        "Measure speed and size on this machine: by type of file, against other archivers, over links.",
    ),
}  # fmt: skip
DUMONT_RESTORE: Final = Command("restore", "dumont_restore", "", True, True)


class _Commands(TyperGroup):
    """Imports only the command that is called: building every command takes a tenth of the time of `info`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _loaded(COMMANDS[name], name) if name in COMMANDS else None, rest


app = typer.Typer(
    name="dumont-gpu",
    cls=_Commands,
    epilog=_NETWORK,
    help="Packs an ML workspace into one verified .dumont file and brings it back fast.",
    context_settings=_SETTINGS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


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


def _named(name: str, summary: str) -> None:
    """Adds a command that --help lists; when the command is called, `_Commands` imports the function that runs."""

    @app.command(name, help=summary)
    def unloaded() -> None:
        raise NotImplementedError


for _name, _command in COMMANDS.items():
    _named(_name, _command.summary)


def pack_app() -> None:
    """Runs the command line of dumont-pack."""
    _alone(COMMANDS["pack"], "dumont-pack")()


def run_dumont_restore() -> None:
    """Runs the command line of dumont-restore."""
    _alone(DUMONT_RESTORE, "dumont-restore")()


def _loaded(command: Command, name: str) -> Any:
    return typer.main.get_command(_alone(command, name, completion=False))


def _alone(command: Command, name: str, *, completion: bool = True) -> typer.Typer:
    """Imports a command; returns an app that has no other."""
    from dumont_gpu.cli.options import with_options

    function: Callable[..., None] = getattr(
        importlib.import_module(f"dumont_gpu.cli.{command.module}"), command.function
    )
    single = typer.Typer(
        name=name, context_settings=_SETTINGS, add_completion=completion, pretty_exceptions_enable=False
    )
    single.command(name, epilog=_epilog(command))(with_options(function))
    return single


def _epilog(command: Command) -> str | None:
    parts = []
    if command.takes_patterns:
        from dumont_gpu.tree.globs import HELP

        lines = "\n".join(f"{glob:16} {meaning}" for glob, meaning in HELP)
        parts.append("\b\n" + lines.replace("[", r"\["))
    if command.takes_addresses:
        parts.append(_NETWORK)
    return "\n\n".join(parts) or None
