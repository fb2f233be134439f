"""The command line that was given, as it can be given to a shell once more."""

from __future__ import annotations

import os.path
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SECRET: Final = re.compile(r"(https?://)(?:[^/?#@]*@)?([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)


def again(arguments: Sequence[str]) -> str:
    """Returns the command of `arguments`, as `sys.argv` has them, quoted for a shell.

    Passwords in addresses and their queries, which may be signatures, are left out: such a command is complete only
    in the shell's own history.
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
