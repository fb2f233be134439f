"""Text of reports and messages: counts in words, and names printed alike everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import command

from dumont_gpu import DumontError, SnapshotService
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import counted, one_line


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1234, "1,234 entries")]
)
def test_one_is_no_plural(count: int, said: str) -> None:
    assert counted(count, "entry", "entries") == said
    assert counted(count, "chunk") == said.replace("entry", "chunk").replace("entries", "chunks")


def test_reports_of_one_entry_are_english(source: Path, snapshot: Path, target: Path) -> None:
    (source / "file").write_bytes(b"x")
    os.mkfifo(source / "fifo")
    packed = command("pack", source, "-o", snapshot)
    assert packed.out.startswith("packed 1 entry, ")
    assert "  1 socket, fifo or device not packed\n" in packed.out
    assert "  1 chunk of up to 64.0 MiB" in command("info", snapshot).out
    assert command("verify", snapshot).out.count(" in 1 chunk match their digests (1 entry, ") == 1
    assert command("restore", "-n", snapshot, target).out.startswith("would restore 1 file, 1 B from 1 B in 1 chunk\n")
    assert command("restore", snapshot, target).out.startswith("restored 1 file, ")
    assert "  1 entry of the target kept\n" in command("restore", snapshot, target, "--overwrite", "never").out


def test_a_byte_that_is_no_utf8_is_shown_as_that_byte_everywhere(source: Path, tmp_path: Path) -> None:
    """Also where a message repeats an argument of the command line."""
    name = os.fsdecode(b"caf\xe9")
    assert one_line(name) == printable(name) == "caf\\xe9"
    ran = command("info", os.fsencode(tmp_path) + b"/caf\xe9", LC_ALL="C.UTF-8")
    assert (ran.code, ran.err) == (10, f"dumont-gpu: {tmp_path}/caf\\xe9: no such snapshot\n")


def test_a_wrong_pattern_is_called_a_pattern(source: Path, snapshot: Path) -> None:
    with pytest.raises(DumontError, match=r"^exclude must be a pattern, or several, not 5$"):
        SnapshotService().create_snapshot(source, snapshot, exclude=5)  # type: ignore[arg-type]
