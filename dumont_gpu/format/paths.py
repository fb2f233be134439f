"""Which paths a snapshot may hold, and how messages show them."""

from __future__ import annotations

import os
import re
from typing import Final

from dumont_gpu.errors import DamagedError
from dumont_gpu.sizes import KiB, escaped

MAX_NAME: Final = 255  # bytes in one path component: the limit of Linux file systems
MAX_PATH: Final = 32 * KiB  # bytes; directory handles reach trees deeper than PATH_MAX
_SHOWN: Final = 200  # characters of a hostile value that a message repeats
_COMPONENT: Final = rb"(?!\.{1,2}(?:/|\Z))[^/\0]{1,255}"
_PLAIN_PATH: Final = re.compile(_COMPONENT + rb"(?:/" + _COMPONENT + rb")*")


def check_path(path: bytes) -> None:
    """Raises DamagedError unless `path` is a plain relative path: safe to create below a target directory."""
    if _PLAIN_PATH.fullmatch(path) and len(path) <= MAX_PATH:
        return
    name = shown(os.fsdecode(path))
    if not path:
        raise DamagedError("an entry without a path")
    if len(path) > MAX_PATH:
        raise DamagedError(f"a path of {len(path)} bytes: {name}")
    if path.startswith(b"/"):
        raise DamagedError(f"an absolute path: {name}")
    if b"\0" in path:
        raise DamagedError(f"a path with a NUL byte: {name}")
    for component in path.split(b"/"):
        if component in (b"", b".", b".."):
            raise DamagedError(f"a path with an empty, '.' or '..' component: {name}")
        if len(component) > MAX_NAME:
            raise DamagedError(f"a name of {len(component)} bytes: {name}")


def printable(path: str) -> str:
    """Returns `path` for a terminal: control characters and undecodable bytes are escaped."""
    if path.isprintable() and "\\" not in path:
        return path
    return "".join(char if char.isprintable() and char != "\\" else escaped(char) for char in path)


def shown(value: object) -> str:
    """Returns a hostile value as a message may repeat it: printable, and cut to a few words."""
    text = printable(str(value)[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
