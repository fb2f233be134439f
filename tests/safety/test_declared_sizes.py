"""Declared sizes take no memory: only bytes that are in the snapshot do."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.column_manifest import Columns, in_columns, number
from support.hostile import LZ4, Archive, Chunk, clear_error, header_checksum, sha256, zstd_frame

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


# --- manifests in columns ---------------------------------------------------------------------------------------------


def one_entry() -> Columns:
    archive = Archive(header={"num_files": 1 << 24})
    archive.directory("d")
    return in_columns(archive)


def small_page_that_declares(**bends: Any) -> bytes:
    built = one_entry()
    page = built.pages[0]
    page.columns |= bends.pop("columns", {})
    vars(page).update(bends)
    built.archive.header["num_files"] = page.num_entries
    return built.to_bytes()


def head_that_declares(**fields: int) -> bytes:
    built = one_entry()
    vars(built).update(fields)
    return built.to_bytes()


DECLARED = {
    "a page of 16 MiB": small_page_that_declares(page_size=16 * MiB),
    "the most entries": small_page_that_declares(num_entries=1 << 24),
    "the most pieces": small_page_that_declares(num_pieces=(1 << 32) - 1),
    "files of the most extents": small_page_that_declares(columns={"extents": number(100_000) * 300}),
    "paths that begin as others do not": small_page_that_declares(
        num_entries=4000, columns={"prefix": number(32 * KiB - 2) * 4000, "suffix": b"d\0" * 4000}
    ),
    "a large head": head_that_declares(head_size=(1 << 32) - 1),
    "large facts": head_that_declares(facts_size=(1 << 32) - 1),
    "the most pages": head_that_declares(num_pages=1 << 20),
}


@pytest.mark.parametrize("declared", DECLARED)
def test_what_a_small_manifest_in_columns_declares_takes_no_memory(declared: str) -> None:
    source = MemorySource(DECLARED[declared])
    tracemalloc.start()
    try:
        clear_error(lambda: read_snapshot(source), DamagedError)
        assert tracemalloc.get_traced_memory()[1] < 17 * MiB
    finally:
        tracemalloc.stop()


def test_pages_that_declare_a_gibibyte_are_read_one_at_a_time() -> None:
    archive = Archive()
    for name in range(64):
        archive.directory(f"{name:02}")
    built = in_columns(archive, 1)
    for page in built.pages:
        page.columns["pad"] = b""
        page.columns["pad"] = bytes(16 * MiB - len(page.page()))
        page.frame, page.page_size = zstd_frame(page.page()), 16 * MiB
        page.columns.pop("pad")
    source = MemorySource(built.to_bytes())
    tracemalloc.start()
    try:
        assert len(read_snapshot(source).manifest.entries) == 64
        assert tracemalloc.get_traced_memory()[1] < 40 * MiB
    finally:
        tracemalloc.stop()
    built.pages[-1].page_size = 16 * MiB + 1
    clear_error(lambda: read_snapshot(MemorySource(built.to_bytes())), DamagedError)
