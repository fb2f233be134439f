"""The outcome of a command: its result as text for people and as JSON for programs, its problems, its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import typer

from dumont_gpu.cli import endings
from dumont_gpu.cli.options import Output
from dumont_gpu.errors import DumontError
from dumont_gpu.format import names
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import one_line
from dumont_gpu.tree.problems import Problem

if TYPE_CHECKING:
    from dumont_gpu.errors import LostFile

EXIT_PROBLEMS: Final = 3  # some entries could not be packed, or restored, as they were
_MAX_LISTED: Final = 20  # problems shown without -v
# The keys of names and patterns, which JSON holds exactly: in Base64, under the key with `_b64`, if not in UTF-8.
_NAMING: Final = frozenset(
    (
        "path",
        "target",
        "snapshot_path",
        "archive_path",
        "inside",
        "target_path",
        "changed_files",
        "include",
        "exclude",
        "newer",
        "unmatched",
    )
)


@dataclass(frozen=True, slots=True)
class Report:
    """A result: `data` for programs, `lines` for people."""

    data: Mapping[str, Any]
    lines: Sequence[str]
    warning: str = ""  # for people, on stderr


def keep_stdout_for_bytes() -> None:
    """Makes everything that is printed from now on go to stderr, results too: a file's bytes alone go to stdout.

    Raises:
        DumontError: stdout is closed.
    """
    check_stdout()
    sys.stdout = sys.stderr


def check_stdout() -> None:
    """Raises DumontError if stdout was closed when the program began."""
    if endings.was_closed(1):
        raise DumontError("standard output is closed: nothing can be written there")


def show(report: Report, output: Output) -> None:
    """Prints a report on stdout."""
    if output.as_json:
        print(json.dumps({"type": "summary", **_exact(report.data)}))
    elif not output.quiet:
        for line in report.lines:
            print(one_line(line))
        if report.warning:
            print(f"dumont-gpu: {one_line(report.warning)}", file=sys.stderr)


def end(report: Report, problems: Sequence[Problem], output: Output, code: int = EXIT_PROBLEMS) -> None:
    """Prints a report, and on stderr the entries with problems; problems have an exit code of their own."""
    show(report, output)
    name_problems(problems, output)
    if problems:
        raise typer.Exit(code)


def name_problems(problems: Sequence[Problem], output: Output) -> None:
    """Prints on stderr the entries with problems, the first of them or all."""
    listed = problems if output.verbose or output.as_json else problems[:_MAX_LISTED]
    for problem in listed:
        print(f"dumont-gpu: {printable(problem.path)}: {problem.reason}", file=sys.stderr)
    if len(listed) < len(problems):
        print(f"dumont-gpu: and {len(problems) - len(listed)} more (-v shows all)", file=sys.stderr)


def name_lost(lost: Sequence[LostFile], output: Output) -> None:
    """Names all files that a verification found lost: with -v on stderr, in JSON on stdout; the error names a few."""
    if output.as_json:
        for file in lost:
            print(json.dumps({"type": "lost", **names.to_json("path", file.path), "chunk": file.chunk}))
    elif output.verbose:
        name_problems([Problem(file.path, f"lost: chunk {file.chunk} is damaged") for file in lost], output)


def _exact(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record whose names are exact in JSON; see `_NAMING`."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key in _NAMING and isinstance(value, str):
            result |= names.to_json(key, value)
        elif key in _NAMING:
            result[key] = []
            for name in value:
                for field, text in names.to_json(key, name).items():
                    result.setdefault(field, []).append(text)
        elif isinstance(value, list):
            result[key] = [_exact(item) if isinstance(item, dict) else item for item in value]
        else:
            result[key] = value
    return result
