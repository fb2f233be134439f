"""Declared sizes take no memory: only bytes that are in the snapshot do."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from support.hostile import LZ4, Archive, Chunk, clear_error, header_checksum, sha256

from dumont_gpu.errors import DamagedError
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
MOST = 200 * MiB  # of a command that starts Python, typer and lz4, and takes its buffers: 50 to 90


def frame_that_declares(size: int, block: bytes = b"") -> bytes:
    """An LZ4 frame of a single raw block, if any, whose header declares `size` bytes."""
    fields = b"\x68\x40" + size.to_bytes(8, "little")
    head = b"\x04\x22\x4d\x18" + fields + bytes([header_checksum(fields)])
    return head + (len(block) | 1 << 31).to_bytes(4, "little") + block + bytes(4)


# The process's own peak, as the system counts: wait4 would include the parent's memory before the fork.
MEASURED = """
import os, sys
from dumont_gpu.__main__ import main

def end(code, end_at_once=os._exit):
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(code, peak, file=sys.stderr, flush=True)
    end_at_once(code)

os._exit = end
main()
"""


def peak_of_command(*arguments: str | Path) -> tuple[int, int]:
    """The exit code of a command, and the bytes of memory that its process took at most."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], cwd="/", capture_output=True, text=True)
    code, kibibytes = done.stderr.splitlines()[-1].split()
    return int(code), int(kibibytes) * KiB


@pytest.mark.parametrize("command", ["info", "ls", "verify", "restore"])
def test_manifest_that_declares_a_gibibyte_and_holds_50_bytes_takes_no_gibibyte(command: str, tmp_path: Path) -> None:
    stored = frame_that_declares(GiB, b"x" * 50)
    archive = Archive(stored_manifest=stored, header={"num_files": 64})  # so many may have 1 GiB
    snapshot = archive.write(tmp_path / "x.dumont")
    target = [tmp_path / "target"] if command == "restore" else []
    code, peak = peak_of_command(command, snapshot, *target)
    assert code == 4
    assert peak < MOST
    assert not (tmp_path / "target").exists()


def test_manifest_memory_is_that_of_what_was_decoded() -> None:
    """4 MiB could hold 1 GiB; here they end after the first block."""
    data = Archive(
        stored_manifest=frame_that_declares(GiB, bytes(64 * KiB))[:-4] + b"\xff" * (4 * MiB), header={"num_files": 64}
    )
    source = MemorySource(data.to_bytes())
    tracemalloc.start()
    try:
        clear_error(lambda: read_snapshot(source), DamagedError)
        assert tracemalloc.get_traced_memory()[1] < 32 * MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("arguments", [["verify", "--content"], ["restore"]])
def test_chunk_that_declares_a_gibibyte_takes_no_gibibyte(arguments: list[str], tmp_path: Path) -> None:
    archive = Archive([], [Chunk(frame_that_declares(GiB, b"x" * 50), GiB, LZ4)], header={"chunk_size": GiB})
    archive.file("f", size=GiB, extents=[[0, 0, 0, GiB]], sha256=[sha256(b"").hex()])
    snapshot = archive.write(tmp_path / "x.dumont")
    command, *options = arguments
    target = [tmp_path / "target"] if command == "restore" else []
    code, peak = peak_of_command(command, snapshot, *target, *options, "--memory", "4GiB", "--device", "cpu")
    assert code == 4
    assert peak < MOST


def test_index_is_checked_before_its_entries_are_kept() -> None:
    """A sparse file has an index of zeros for nothing."""
    count = 400_000
    index = bytes(25 * count)
    offset = -(-(512 + len(index)) // 4096) * 4096
    stored = frame_that_declares(10, b"x" * 10)
    archive = Archive(
        stored_manifest=stored, header={"num_chunks": count, "manifest_offset": offset, "index_sha256": sha256(index)}
    )
    data = archive.to_bytes()
    source = MemorySource(data[:512] + index + bytes(offset - 512 - len(index)) + stored)
    tracemalloc.start()
    try:
        assert "chunk 0" in clear_error(lambda: read_snapshot(source), DamagedError)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(index)
    finally:
        tracemalloc.stop()
