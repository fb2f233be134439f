"""Checks the arguments of a Python caller: the API takes the same values as the command line.

Every function takes the name of an argument, for messages, and its value; returns the value as a job takes values; and
raises UsageError, with a message of one line, for any other value.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from dumont_gpu.errors import UsageError
from dumont_gpu.sizes import one_line, parse_duration, parse_rate, parse_size
from dumont_gpu.tree.globs import pattern_lines

StrPath: TypeAlias = str | os.PathLike[str]
Size: TypeAlias = int | str  # bytes, or as `64MiB`
Rate: TypeAlias = int | str  # bytes per second, or as `1Gbit`, or `local`
Duration: TypeAlias = float | str  # seconds, or as `5m`
OneOrMore: TypeAlias = StrPath | Iterable[StrPath]
T = TypeVar("T")
MAX_JOBS: Final = 1024
MAX_CONNECTIONS: Final = 64
_MAX_SIZE: Final = (1 << 63) - 1
_MAX_DEVICE: Final = 1 << 16
_MAX_SECONDS: Final = 1 << 32


def path(name: str, value: object, what: str = "a path") -> str:
    """Returns a path or an address."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if not isinstance(value, str):
        raise _wrong(name, value, what)
    if not value or "\0" in value:
        raise UsageError(f"{name}: {'empty' if not value else 'it holds a NUL byte'}")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise UsageError(f"{name}: {value!r} cannot be a name of this file system") from None
    return value


def paths(name: str, value: object, what: str = "a path") -> tuple[str, ...]:
    """Returns paths as a tuple; a string is a single path. Messages call a path `what`."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return (path(name, value, what),)
    if not isinstance(value, Iterable):
        raise _wrong(name, value, f"{what}, or several")
    return tuple(path(name, item, what) for item in value)


def patterns(name: str, value: object) -> tuple[str, ...]:
    """Returns patterns as a tuple; a string is a single pattern."""
    return paths(name, value, "a pattern")


def pattern_files(name: str, files: object) -> list[str]:
    """Returns the patterns in files of patterns; a string names a single file."""
    return [line for file in paths(name, files) for line in pattern_file(file)]


def pattern_file(file: str) -> list[str]:
    """Returns the patterns in a file of patterns."""
    try:
        return pattern_lines(Path(file).read_bytes())
    except OSError as error:
        raise UsageError(one_line(f"{file}: {error.strerror or error}")) from None
    except UsageError as error:
        raise UsageError(one_line(f"{file}: {error}")) from None


def size(name: str, value: object) -> int:
    """Returns bytes."""
    if isinstance(value, str):
        return parse_size(value)
    return whole(name, value, _MAX_SIZE)


def rate(name: str, value: object) -> int:
    """Returns bytes per second; LOCAL for `local`."""
    if isinstance(value, str):
        return parse_rate(value)
    return whole(name, value, _MAX_SIZE, lowest=1)


def duration(name: str, value: object) -> float:
    """Returns seconds."""
    if isinstance(value, str):
        return parse_duration(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _MAX_SECONDS:
        raise _wrong(name, value, f"seconds, from 0 to {_MAX_SECONDS}")
    return float(value)


def whole(name: str, value: object, highest: int, lowest: int = 0) -> int:
    """Returns a whole number from `lowest` to `highest`."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise _wrong(name, value, f"a whole number from {lowest} to {highest}")
    return int(value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def choice(name: str, value: object, choices: Collection[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _wrong(name, value, f"one of {', '.join(choices)}")
    return value


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a string")
    return value


def device(value: object) -> str:
    """Returns the name of a device; a number is a CUDA device's."""
    return str(whole("device", value, _MAX_DEVICE)) if isinstance(value, int) else text("device", value)


def callback(name: str, value: T) -> T:
    if value is not None and not callable(value):
        raise _wrong(name, value, "a function")
    return value


def _wrong(name: str, value: object, wanted: str) -> UsageError:
    plain = isinstance(value, (str, bytes, float)) or (isinstance(value, int) and value.bit_length() < 64)
    shown = repr(value)[:80] if plain or value is None else f"a value of type {type(value).__name__}"
    return UsageError(f"{name} must be {wanted}, not {shown}")
