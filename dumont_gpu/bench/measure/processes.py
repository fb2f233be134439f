"""Commands as processes: their output, seconds and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dumont_gpu.errors import DumontError


class CommandError(DumontError):
    """A command failed; the message has its exit code and its last line."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended well."""

    output: str  # on stdout
    seconds: float
    user: float  # CPU seconds
    system: float  # CPU seconds in the kernel
    peak_rss: int  # bytes


def execute(words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Finished:
    """Runs a command in `folder`.

    Raises:
        CommandError: the command failed.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output, messages = _text(stdout), _text(stderr)
    if process.returncode:
        last = (messages.strip() or output.strip() or "no message").splitlines()[-1]
        raise CommandError(f"exit code {process.returncode}: {_message(last)}")
    return Finished(output, seconds, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024)


def dumont(*arguments: str, folder: Path) -> dict[str, Any]:
    """Runs a command of dumont-gpu; returns its summary, with the costs of the process.

    Raises:
        CommandError: the command failed.
    """
    try:
        done = execute([sys.executable, "-m", "dumont_gpu", *arguments, "--json"], folder)
    except CommandError as error:
        raise CommandError(f"{arguments[0]}: {error}") from None
    summary: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return {**summary, "wall": done.seconds, "user": done.user, "system": done.system}


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _message(line: str) -> str:
    """The message of an error that a command with --json reports, or the line itself."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, LookupError, TypeError):
        return line
