"""The tests start the program under test, also if its commands are not beside the interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import program
from support.commands import cli

from dumont_gpu import __version__


@pytest.mark.parametrize("there", [True, False])
def test_commands_are_the_same_wherever_they_come_from(
    there: bool, monkeypatch: pytest.MonkeyPatch, source: Path, snapshot: Path
) -> None:
    if not there:
        exists = Path.exists
        commands = [Path(sys.executable).parent / name for name in program.ENTRIES]
        monkeypatch.setattr(Path, "exists", lambda path: path not in commands and exists(path))
    found = program.program()
    assert there == (Path(found).parent == Path(sys.executable).parent)
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == f"dumont-gpu {__version__}\n"
    (source / "file").write_text("content")
    assert cli(source, "-o", snapshot, program="dumont-pack").returncode == 0
    assert "sha256:" in cli(snapshot, "--info", program="dumont-restore").stdout
    assert cli("info", "/nowhere").returncode == 10
