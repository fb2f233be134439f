"""Runs the installed programs as a shell does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.hostile import Ran
from support.program import program as find_program

PROGRAM = find_program()


def cli(*arguments: str | Path, program: str = "dumont-gpu", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [find_program(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def command(*arguments: str | Path | bytes, program: str = "dumont-gpu", **environment: str) -> Ran:
    """Runs a command line where the test is, with more in its environment."""
    line = [Path(sys.executable).parent / program, *arguments]
    done = subprocess.run(line, capture_output=True, timeout=60, env={**os.environ, **environment})
    return Ran(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))
