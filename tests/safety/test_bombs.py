"""Small snapshots that ask for endless memory, disk or time."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.hostile import (
    LZ4,
    ZIPNN,
    ZSTD,
    Archive,
    Chunk,
    clear_error,
    command,
    lz4_frame,
    refused,
    restored,
    sha256,
    tree,
    written,
)

from dumont_gpu.errors import DamagedError, DumontError, NoSpaceError, UsageError
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.restore import plan_restore
from dumont_gpu.sizes import parse_size
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource
from dumont_gpu.tree.target.target import Target

MiB = 1 << 20


def huge_hole(size: int, files: int = 1) -> Archive:
    """Files of `size` bytes that are nothing but holes."""
    archive = Archive()
    for number in range(files):
        archive.file(f"{number:04}", size=size)
    return archive


def shared_chunk(files: int, extents: int, size: int = MiB) -> Archive:
    """Files whose extents all lie in the same chunk of `size` zeros."""
    archive = Archive()
    chunk = archive.chunk(bytes(size), LZ4)
    digest = sha256(bytes(size)).hex()
    for number in range(files):
        archive.file(
            f"{number:06}",
            size=extents * size,
            extents=[[at * size, chunk, 0, size] for at in range(extents)],
            sha256=[digest] * extents,
        )
    return archive


# --- disk -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1 << 63) - 1, 1 << 62, (1 << 44) + 1])
def test_enormous_sparse_file_is_refused(size: int, target: Path) -> None:
    archive = huge_hole(size)
    assert "--max-size" in clear_error(lambda: restored(archive, target), DumontError)
    clear_error(lambda: plan_restore(MemorySource(archive.to_bytes())), DumontError)
    assert not target.exists()


def test_sizes_are_summed_over_all_files(target: Path) -> None:
    assert "--max-size" in clear_error(lambda: restored(huge_hole(1 << 34, 1025), target), DumontError)
    assert not target.exists()


def test_max_size_is_what_the_files_together_may_have(target: Path) -> None:
    archive = huge_hole(500, 2)
    clear_error(lambda: restored(archive, target, max_size=999), DumontError)
    assert not target.exists()
    restored(archive, target, max_size=1000)
    assert len(tree(target)) == 2


def test_max_size_counts_what_is_selected(target: Path) -> None:
    restored(huge_hole(500, 2), target, max_size=500, include=("0001",))
    assert list(tree(target)) == ["0001"]


def test_sparse_file_beyond_the_file_system_is_one_clear_error(target: Path) -> None:
    archive = huge_hole((1 << 63) - 1)
    try:
        restored(archive, target, max_size=1 << 63)
    except DumontError as error:
        assert "0000" in str(error)


def test_one_chunk_shared_by_endless_files_is_compared_with_the_free_space(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(f_frsize=4096, f_bavail=100 * MiB // 4096, f_blocks=1 << 20)
    monkeypatch.setattr(Target, "statvfs", lambda self: free)
    archive = shared_chunk(files=101, extents=1)
    assert len(archive.to_bytes()) < 64 << 10
    message = clear_error(lambda: restored(archive, target), NoSpaceError)
    assert str(target) in message
    assert all(kind == "dir" for kind, _ in tree(target).values())
    restored(shared_chunk(files=100, extents=1), target)


def test_one_chunk_shared_by_endless_extents_is_compared_with_the_free_space(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(f_frsize=4096, f_bavail=100 * MiB // 4096, f_blocks=1 << 20)
    monkeypatch.setattr(Target, "statvfs", lambda self: free)
    clear_error(lambda: restored(shared_chunk(files=2, extents=51), target), NoSpaceError)


def test_one_chunk_shared_by_endless_files_is_limited_by_max_size(target: Path) -> None:
    archive = shared_chunk(files=1000, extents=17)
    clear_error(lambda: restored(archive, target, max_size=1 << 34), DumontError)
    assert not target.exists()


def test_bombs_end_the_command_with_one_line(tmp_path: Path) -> None:
    snapshot, target = huge_hole((1 << 63) - 1).write(tmp_path / "x.dumont"), tmp_path / "target"
    for arguments in ([], ["-n"]):
        ran = command("restore", snapshot, target, *arguments)
        assert (ran.code, ran.out) == (1, "")
        assert "--max-size" in ran.error
    assert not target.exists()
    assert command("ls", "-l", snapshot).code == 0


@pytest.mark.parametrize("size", ["-1", "", "NaN", "inf", "1e9", "0x10", "1 2", "1PiB", "TiB"])
def test_malformed_max_size_is_a_usage_error(size: str) -> None:
    clear_error(lambda: parse_size(size), UsageError)


def test_endless_max_size_is_a_usage_error() -> None:
    clear_error(lambda: parse_size("9" * 400), UsageError)


# --- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10**9, (1 << 24) + 1])
def test_a_billion_entries_are_refused(count: int, target: Path) -> None:
    refused(Archive(header={"num_files": count}), target)


def test_more_entries_than_declared_are_refused_unread(target: Path) -> None:
    archive = Archive(header={"num_files": 1})
    for number in range(1000):
        archive.directory(f"{number:04}")
    archive.entries[2] = {"this": "would be an error, too"}
    assert "more entries" in refused(archive, target)


def test_fewer_entries_than_declared_are_refused(target: Path) -> None:
    refused(Archive(header={"num_files": 1}), target)


def test_endless_extents_of_one_file_are_refused(target: Path) -> None:
    count = 100_001
    archive = Archive()
    chunk = archive.chunk(b"x")
    archive.file("f", size=count, extents=[[at, chunk, 0, 1] for at in range(count)], sha256=["00" * 32] * count)
    refused(archive, target)


# --- memory -----------------------------------------------------------------------------------------------------------


def peak(attempt: object) -> int:
    """Bytes of Python memory that a call takes at most."""
    assert callable(attempt)
    tracemalloc.start()
    try:
        attempt()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_manifest_that_inflates_is_refused_before_it_does(target: Path) -> None:
    """80 KiB that are 18 MiB of spaces: more than a snapshot without entries may have."""
    stored = lz4_frame(b" " * (18 * MiB))
    assert len(stored) < 80 << 10
    data = Archive(stored_manifest=stored).to_bytes()
    assert peak(lambda: clear_error(lambda: read_snapshot(MemorySource(data)), DamagedError)) < MiB
    assert "may have" in refused(data, target)


def endless_frame(declared: int, blocks: int) -> bytes:
    """A frame that declares `declared` bytes and holds `blocks` blocks of 64 KiB."""
    header, body = lz4_frame(bytes(declared))[:15], lz4_frame(bytes(64 << 10))[15:-4]
    return header + body * blocks + bytes(4)


def test_frame_that_holds_more_than_it_declares_is_stopped_early(target: Path) -> None:
    """1 GiB in 4 MiB, where 5 MiB were declared."""
    size = 5 * MiB
    archive = Archive([], [Chunk(endless_frame(size, 1 << 14), size, LZ4)])
    archive.file("f", size=size, extents=[[0, 0, 0, size]], sha256=[bytes(32).hex()])
    data = archive.to_bytes()
    assert peak(lambda: clear_error(lambda: restored(data, target), DamagedError)) < 256 * MiB


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
REPEATED = (2 | (128 << 10) << 3).to_bytes(3, "little") + b"x"  # a block of 128 KiB in four bytes

ZSTD_BOMBS = {
    "1 GiB declared and held": (b"\x80\x58" + struct.pack("<I", 1 << 30), REPEATED * (8 << 10)),
    "1 GiB held": (b"\x80\x58" + struct.pack("<I", MiB), REPEATED * (8 << 10)),
    "1 GiB held, without an end": (b"\x80\x88" + struct.pack("<I", MiB), REPEATED * (8 << 10)),
    "no content size": (b"\x00\x58", REPEATED * (8 << 10)),
    "a window of 2 GiB": (b"\x80\xa8" + struct.pack("<I", MiB), REPEATED * 8),
    "a window of 3.75 TiB": (b"\x80\xff" + struct.pack("<I", MiB), REPEATED * 8),
    "a single segment of 1 GiB": (b"\xa0" + struct.pack("<I", 1 << 30), REPEATED * 8),
    "a single segment of 2^64 - 1": (b"\xe0" + b"\xff" * 8, REPEATED * 8),
}


@pytest.mark.parametrize("bomb", ZSTD_BOMBS)
def test_zstd_frames_take_no_memory_that_they_are_not_owed(bomb: str, target: Path) -> None:
    """In a process of its own, whose largest size the kernel measures: libzstd's memory is not Python's."""
    header, blocks = ZSTD_BOMBS[bomb]
    end = b"" if "without" in bomb else b"\1\0\0"
    data = ZSTD_MAGIC + header + blocks + end
    archive = Archive([], [Chunk(data, MiB, ZSTD)])
    archive.file("f", size=MiB, extents=[[0, 0, 0, MiB]], sha256=[bytes(32).hex()])
    assert peak(lambda: clear_error(lambda: restored(archive, target), DamagedError)) < 64 * MiB
    assert rise_of_decoding(data, MiB) < 16 * MiB


@pytest.mark.parametrize("window", [0x58, 0x88])  # 2 MiB and 128 MiB
def test_a_zstd_frame_is_decoded_without_its_window(window: int) -> None:
    frame = ZSTD_MAGIC + bytes([0x80, window]) + struct.pack("<I", MiB) + REPEATED * 8 + b"\1\0\0"
    assert rise_of_decoding(frame, MiB) < 16 * MiB


RISE = """
import resource, sys
from dumont_gpu.codecs import ZSTD
from dumont_gpu.errors import DamagedError
frame, out = memoryview(sys.stdin.buffer.read()), memoryview(bytearray(int(sys.argv[1])))
small = memoryview(bytes.fromhex("28b52ffd20010900006b"))
def decode(frame, out):
    try:
        ZSTD.decode(frame, out)
    except DamagedError:
        pass
decode(small, memoryview(bytearray(1)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(frame, out)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def rise_of_decoding(frame: bytes, size: int) -> int:
    """How many bytes of memory more than before a process has at most while it decodes `frame`."""
    command = [sys.executable, "-c", RISE, str(size)]
    return int(subprocess.run(command, input=frame, capture_output=True, check=True, timeout=60).stdout)


def test_manifest_that_holds_more_than_it_declares_is_stopped_early(target: Path) -> None:
    data = Archive(stored_manifest=endless_frame(100_000, 1 << 14)).to_bytes()
    assert peak(lambda: refused(data, target)) < 256 * MiB


def test_chunks_take_no_more_memory_than_allowed(target: Path) -> None:
    archive = shared_chunk(files=1, extents=1, size=64 * MiB)
    message = clear_error(lambda: restored(archive, target, memory=100 * MiB), UsageError)
    assert "--memory" in message
    assert not written(target)


@pytest.mark.parametrize("size", [(1 << 30) + 1, 1 << 31, (1 << 32) - 1])
def test_chunk_beyond_the_limit_is_refused(size: int, target: Path) -> None:
    for header in ({}, {"chunk_size": size}):
        archive = Archive([], [Chunk(b"x", size, LZ4)], header=header)
        refused(archive, target)


def test_nested_json_is_refused(target: Path) -> None:
    for opening in (b"[", b'{"a":', b'{"path":"x","type":"dir","extents":['):
        line = opening * (MiB // len(opening))
        manifest = Archive().manifest_json().replace(b"[\n]}", b"[\n" + line + b"\n]}")
        refused(Archive(manifest=manifest, header={"num_files": 1}), target)


# --- time -------------------------------------------------------------------------------------------------------------


def test_chunks_are_not_decoded_beyond_max_size(target: Path) -> None:
    """A file with a byte in every chunk: nothing to restore, and endless decoding."""
    size = 64 * MiB
    stream = zipnn_zeros(size)
    assert len(stream) < 64
    archive = Archive([], [Chunk(stream, size, ZIPNN) for _ in range(3)])
    for number in range(3):
        archive.file(f"{number}", size=1, extents=[[0, number, 0, 1]], sha256=[sha256(b"\0").hex()])
    clear_error(lambda: restored(archive, target, max_size=2 * size), DumontError)


def zipnn_zeros(size: int) -> bytes:
    """A ZipNN stream of `size` zeros in a single block."""
    from test_hostile_streams import zipnn

    return zipnn([[b"\0"], [b"\0"]], size, block_log2=40)


def test_depth_of_a_tree_is_bounded_by_the_length_of_paths(target: Path) -> None:
    archive = Archive()
    path = ""
    for _ in range(400):
        path = f"{path}/d" if path else "d"
        archive.directory(path)
    archive.file(f"{path}/f", b"content")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 200, limit[1]))
    try:
        restored(archive, target)
        restored(archive, target, overwrite="always")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(tree(target)) == 401


def test_planning_takes_no_memory_for_content() -> None:
    data = huge_hole(1 << 43).to_bytes()
    assert peak(lambda: plan_restore(MemorySource(data), RestoreOptions())) < MiB
