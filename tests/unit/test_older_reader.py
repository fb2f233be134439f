"""Readers from before the manifest in columns say that it is not supported, and what they say is what was released."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from support.snapshots import GOLDEN, ROOT

BEFORE = "59300ea"  # the commit before the flag
MESSAGE = "the snapshot needs features this version does not have (flags 0x00000003)"

# Runs that commit's program: an editable installation would put today's package first.
PROGRAM = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
sys.path.insert(0, sys.argv.pop(1))
from dumont_gpu.__main__ import main
main()
"""


class NotSupported(Exception):  # noqa: N818 - an ending, not a fault
    """The old program ends with exit code 8."""


def header_checks_of_before(data: bytes) -> None:
    """What `Header.parse` of that commit checks up to the flags, kept as it was."""
    magic, required_flags, flag_blake3, digest_at = b"DUMONT02", 0xFFFF, 0x0001, 480
    assert data.startswith(magic)
    assert hashlib.sha256(data[:digest_at]).digest() == data[digest_at:512]
    version, flags = struct.unpack_from("<II", data, 8)
    assert version == 2
    if flags & required_flags & ~flag_blake3:
        raise NotSupported(f"the snapshot needs features this version does not have (flags {flags:#010x})")


def test_the_checks_of_the_reader_before_say_not_supported() -> None:
    with pytest.raises(NotSupported) as caught:
        header_checks_of_before((GOLDEN / "columns.dumont").read_bytes())
    assert str(caught.value) == MESSAGE
    for name in ("example", "blake3", "zstd"):
        header_checks_of_before((GOLDEN / f"{name}.dumont").read_bytes())


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it was, from the history; without its kernels, which a header does not need."""
    git = shutil.which("git") or "false"
    packed = subprocess.run([git, "archive", BEFORE, "dumont_gpu"], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"no commit {BEFORE} here: not a clone with its history")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("command", ["info", "ls", "verify", "restore"])
def test_the_program_before_ends_with_exit_code_8(command: str, before: Path, tmp_path: Path) -> None:
    target = [str(tmp_path / "target")] if command == "restore" else []
    line = [sys.executable, "-c", PROGRAM, str(before), command, str(GOLDEN / "columns.dumont"), *target]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr == f"dumont-gpu: {MESSAGE}\n"
    assert not (tmp_path / "target").exists()


def test_the_program_before_reads_what_it_knows(before: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-c", PROGRAM, str(before), "ls", str(GOLDEN / "example.dumont")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "hello.py\nlink\n")
