"""How an option of a job is declared: its default, its words, and how a value is written and checked.

A dataclass declares an option with its field (`dumont_gpu/jobs/options.py`). The command line takes its parameters from
these declarations (`dumont_gpu/cli/options.py`), the Python API its checks (`checked`), and both build the dataclass
with `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final, NamedTuple, TypeVar

from dumont_gpu.jobs import arguments as take
from dumont_gpu.sizes import parse_duration, parse_rate, parse_size, write_duration, write_rate, write_size

T = TypeVar("T")


class Kind(NamedTuple):
    """The values that an option takes."""

    check: Callable[[str, object], Any]  # option's name, a Python caller's value -> the job's value
    type: Any = str  # of a value on the command line
    parse: Callable[[Any], Any] = lambda given: given  # the command line's value -> the job's value
    write: Callable[[Any], Any] = lambda value: value  # the other way, to show a default
    metavar: str = ""
    highest: int = 0  # of a whole number
    lowest: int = 0


FLAG: Final = Kind(take.flag, bool)
TEXT: Final = Kind(take.text)
DEVICE: Final = Kind(lambda _, value: take.device(value), metavar="auto|cpu|N")
SIZE: Final = Kind(take.size, str, parse_size, write_size, "SIZE")
RATE: Final = Kind(take.rate, str, parse_rate, write_rate, "RATE|local")
DURATION: Final = Kind(take.duration, str, parse_duration, write_duration, "TIME")
PATTERNS: Final = Kind(take.patterns, list[str], tuple, lambda _: None, "GLOB")


def whole(highest: int, metavar: str = "", lowest: int = 0) -> Kind:
    """Whole numbers from `lowest` to `highest`."""

    def check(name: str, value: object) -> int:
        return take.whole(name, value, highest, lowest)

    return Kind(check, int, metavar=metavar, highest=highest, lowest=lowest)


def choice(*choices: str, default: str) -> Kind:
    """Words from a list; the job checks a word of the command line, and lists the choices in its message."""
    allowed = dict.fromkeys((*choices, default))
    return Kind(lambda name, value: take.choice(name, value, tuple(allowed)), metavar="|".join(choices))


class Option(NamedTuple):
    """The declaration of an option; its field has the name and the type."""

    kind: Kind
    default: Any
    help: str  # of the command line; the Python API's docstrings begin with the same words
    metavar: str
    envvar: str | None
    flags: tuple[str, ...]  # as the command line writes them; none: `--name`
    negative: bool  # the flag switches off
    shown: str | None  # the default on the command line; None: as the kind writes the default
    files: str  # the help of the option `--NAME-from`, which reads more values from files; empty: there is none


class Group(NamedTuple):
    """Some options of another dataclass, which make one field; `cls.made` returns the field's value."""

    cls: Any
    names: tuple[str, ...]


def option(
    default: Any,
    kind: Kind,
    help: str,  # noqa: A002
    *,
    metavar: str = "",
    envvar: str | None = None,
    flags: tuple[str, ...] = (),
    negative: bool = False,
    shown: str | None = None,
    files: str = "",
) -> Any:
    """Declares a field of a dataclass as an option; see `Option`."""
    declared = Option(kind, default, help, metavar or kind.metavar, envvar, flags, negative, shown, files)
    return field(default=default, metadata={"option": declared})


def group(cls: Any, *names: str) -> Any:
    """Declares a field of a dataclass as made of some options of `cls`; see `Group`."""
    return field(default_factory=lambda: cls().made(), metadata={"group": Group(cls, names)})


def declared(cls: Any) -> Iterator[tuple[str, Option]]:
    """Yields the names and options of a dataclass: its own before inherited options."""
    inherited = getattr(cls.__base__, "__dataclass_fields__", {})
    for name, declaration in cls.__dataclass_fields__.items():
        if name in inherited:
            continue
        if "option" in declaration.metadata:
            yield name, declaration.metadata["option"]
        elif "group" in declaration.metadata:
            of = declaration.metadata["group"]
            options = dict(declared(of.cls))
            yield from ((name, options[name]) for name in of.names)
    if inherited:
        yield from declared(cls.__base__)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Returns a dataclass of these values; options without a value keep their defaults."""
    made: dict[str, Any] = {}
    for name, declaration in cls.__dataclass_fields__.items():  # type: ignore[attr-defined]
        if "group" in declaration.metadata:
            of = declaration.metadata["group"]
            made[name] = build(of.cls, {name: values[name] for name in of.names if name in values}).made()
        elif name in values:
            made[name] = values[name]
    return cls(**made)


def checked(cls: type[T], **values: object) -> T:
    """Returns a dataclass of the values that a Python caller passes for its options.

    Raises:
        UsageError: an option does not take its value.
        TypeError: the dataclass has no such option.
    """
    result: dict[str, Any] = {}
    for name, declaration in declared(cls):
        if name in values:
            result[name] = _checked(declaration, name, values.pop(name))
        if declaration.files and f"{name}_from" in values:
            lines = take.pattern_files(f"{name}_from", values.pop(f"{name}_from"))
            result[name] = (*result.get(name, declaration.default), *lines)
    if values:
        raise TypeError(f"{cls.__name__} has no option {', '.join(values)}")
    return build(cls, result)


def _checked(declaration: Option, name: str, value: object) -> Any:
    return None if value is None and declaration.default is None else declaration.kind.check(name, value)
