"""The parameters of commands: the options of a dataclass become parameters that typer understands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args, get_type_hints

import typer

from dumont_gpu.cli import endings
from dumont_gpu.cli.completion import paths_inside, words_of
from dumont_gpu.errors import UsageError
from dumont_gpu.jobs.arguments import pattern_file
from dumont_gpu.jobs.parameters import FLAG, Option, build, choice, declared, option
from dumont_gpu.storage import READ_FROM

if TYPE_CHECKING:
    from dumont_gpu.cli.render import Renderer
    from dumont_gpu.jobs.options import DiffOptions, PackOptions, ReadOptions

T = TypeVar("T", bound="PackOptions | ReadOptions | DiffOptions")
PROGRESS_CHOICES: Final = ("auto", "bar", "lines", "none")

Snap = Annotated[str, typer.Argument(metavar="SNAP", help=f"The snapshot: {READ_FROM}.")]
Part = Annotated[
    str,
    typer.Argument(metavar="SNAP", help=f"The snapshot: {READ_FROM}. SNAP:PATH: that directory or file in it alone."),
]


_OTHERS: Final = "What"  # the panel of --help for options that this table does not name
_PANELS: Final = {
    "Where": ("overwrite", "force", "with_reader", "sync"),
    "Checks": ("verify", "content", "expect", "paranoid"),
    "Speed": ("device", "gpu_memory", "jobs", "memory"),
    "Network": ("connections", "limit_rate", "patience", "discard"),
    "Output": ("dry_run", "as_json", "progress", "quiet", "verbose", "debug"),
}
_ORDER: Final = (_OTHERS, *_PANELS)
_PANEL_OF: Final = {name: panel for panel, names in _PANELS.items() for name in names}


class Only:
    """Says, within Annotated, which options of a dataclass a command takes; the others keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, slots=True)
class Output:
    """How a command prints."""

    dry_run: bool = option(False, FLAG, "Say what would be done, and do nothing.", flags=("-n", "--dry-run"))
    as_json: bool = option(False, FLAG, "Print JSON Lines.", flags=("--json",))
    progress: str = option("auto", choice(*PROGRESS_CHOICES, default="auto"), "How to show progress.")
    quiet: bool = option(False, FLAG, "Print errors only.", flags=("-q", "--quiet"))
    verbose: bool = option(False, FLAG, "Print everything there is to say.", flags=("-v", "--verbose"))

    def renderer(self) -> Renderer:
        """Returns the renderer of a job's progress."""
        from dumont_gpu.cli.render import make_renderer

        if self.progress not in PROGRESS_CHOICES:
            raise UsageError(f"--progress {self.progress}: choose one of {', '.join(PROGRESS_CHOICES)}")
        return make_renderer("none" if self.quiet else self.progress, as_json=self.as_json)


@dataclass(frozen=True, slots=True)
class Debugging:
    """Every command takes this, and no command needs to read it."""

    debug: bool = option(False, FLAG, "Show the traceback of an error.")


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command whose parameters typer understands.

    A parameter of `command` that is a dataclass of options becomes a parameter for each option; `command` gets the
    dataclass. Every command takes --debug.
    """
    own, groups = _parameters(command)
    debugging = _Group(Debugging)

    def run(**given: Any) -> None:
        endings.asked(as_json=given.get("as_json", False), debug=debugging.taken_from(given).debug)
        made = {name: group.taken_from(given) for name, group in groups.items()}
        command(**given, **made)

    optional = [parameter for group in (*groups.values(), debugging) for parameter in group.parameters()]
    parameters = [*own, *sorted(optional, key=lambda parameter: _ORDER.index(_PANEL_OF.get(parameter.name, _OTHERS)))]
    run.__doc__ = command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def with_notices(options: T, renderer: Renderer) -> T:
    """Returns the options of a job that tells `renderer` when the network is silent, and when it goes on."""
    return replace(options, network=replace(options.network, notice=renderer.notice))


def parameter_names(command: Callable[..., None]) -> set[str]:
    """Returns the names of the parameters that typer sees of a command."""
    return {*inspect.signature(with_options(command)).parameters}


def _parameters(command: Callable[..., None]) -> tuple[list[inspect.Parameter], dict[str, _Group]]:
    """Returns the parameters of a command that typer understands, and those that are dataclasses of options."""
    hints = get_type_hints(command, include_extras=True)
    own: list[inspect.Parameter] = []
    groups: dict[str, _Group] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        cls, *marks = get_args(hints[name]) or (hints[name],)
        if hasattr(cls, "__dataclass_fields__"):
            groups[name] = _Group(cls, *(mark.names for mark in marks))
        else:
            own.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name]))
    return own, groups


class _Group:
    """The options of a dataclass, all or some, as parameters of a command."""

    def __init__(self, cls: type, names: tuple[str, ...] | None = None) -> None:
        self._cls = cls
        options = dict(declared(cls))
        self._options = options if names is None else {name: options[name] for name in names}

    def parameters(self) -> Iterator[inspect.Parameter]:
        for name, declaration in self._options.items():
            yield _parameter(name, declaration)
            if declaration.files:
                more = typer.Option(
                    metavar="FILE", help=declaration.files, rich_help_panel=_PANEL_OF.get(name, _OTHERS)
                )
                yield _keyword(f"{name}_from", Annotated[list[str] | None, more], None)

    def taken_from(self, given: dict[str, Any]) -> Any:
        """Takes the options out of `given`, the values of a command line; returns the dataclass."""
        values = {}
        for name, declaration in self._options.items():
            text = given.pop(name)
            if text != _default(declaration):
                values[name] = not text if declaration.negative else declaration.kind.parse(text)
            if declaration.files:
                lines = [line for file in given.pop(f"{name}_from") or () for line in pattern_file(file)]
                values[name] = (*values.get(name, declaration.default), *lines)
        return build(self._cls, values)


def _parameter(name: str, declaration: Option) -> inspect.Parameter:
    kind, default = declaration.kind, _default(declaration)
    flags = declaration.flags or (f"--{name.replace('_', '-')}",)
    limits: dict[str, Any] = {"min": kind.lowest, "max": kind.highest} if kind.highest else {}
    complete = paths_inside if name == "include" else words_of(declaration.metavar)
    shown = typer.Option(
        *flags,
        metavar=declaration.metavar or None,
        envvar=declaration.envvar,
        help=declaration.help,
        autocompletion=complete,
        rich_help_panel=_PANEL_OF.get(name, _OTHERS),
        **limits,
    )
    return _keyword(name, Annotated[kind.type if default is not None else kind.type | None, shown], default)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _default(declaration: Option) -> Any:
    """Returns the default of an option as the command line takes values."""
    if declaration.shown is not None:
        return declaration.shown
    if declaration.negative:
        return not declaration.default
    return None if declaration.default is None else declaration.kind.write(declaration.default)
