"""The user's command line, quoted so that a shell can run it again."""

from __future__ import annotations

import contextlib
import os.path
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dumont_gpu.cli.endings import Stopped
from dumont_gpu.errors import DumontError, GaveUpError, left_behind

_SECRET: Final = re.compile(r"(https?://)(?:[^/?#@]*@)?([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)


@contextlib.contextmanager
def goes_on() -> Iterator[None]:
    """Adds the command line to an error after which the same command goes on.

    These are errors of a network that was there before, and errors that leave something behind to go on from.
    """
    try:
        yield
    except (DumontError, Stopped) as error:
        left = left_behind(error)
        if isinstance(error, GaveUpError) or (left is not None and left.goes_on):
            error.command = again(sys.argv)  # type: ignore[union-attr]
        raise


def again(arguments: Sequence[str]) -> str:
    """Returns the command of `arguments`, as `sys.argv` has them, quoted for a shell.

    Passwords in addresses, and queries, which may be signatures, are left out: the shell's history alone has the
    complete command.
    """
    return shlex.join([*_program(arguments[0]), *map(_without_secrets, arguments[1:])])


def _program(path: str) -> list[str]:
    name = Path(path).name
    if name == "__main__.py":
        return ["python", "-m", "dumont_gpu"]
    found = shutil.which(name)
    return [name] if found is not None and os.path.realpath(found) == os.path.realpath(path) else [path]


def _without_secrets(argument: str) -> str:
    found = _SECRET.fullmatch(argument)
    return argument if found is None else f"{found[1]}{found[2]}{'?…' if found[3] else ''}"
