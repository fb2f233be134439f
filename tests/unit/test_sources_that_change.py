"""Files that change, end early or cannot be mapped while they are packed; and sources of which nothing is left."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.hostile import command, float_bytes, restored, tree
from support.snapshots import once_planned

from dumont_gpu.format.entries import MAX_MTIME, MIN_MTIME, FileEntry
from dumont_gpu.jobs import pack as packing
from dumont_gpu.jobs import pack_stages, source_reader
from dumont_gpu.jobs.options import PackOptions, VerifyOptions
from dumont_gpu.jobs.pack import PackResult, pack, plan_pack
from dumont_gpu.jobs.verify import verify
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import open_source

CHUNK = 64 * KiB
NOISE = float_bytes(75_000)  # 150,000 bytes: two full chunks and a partial chunk


def options(**others: Any) -> PackOptions:
    return PackOptions(chunk_size=CHUNK, jobs=1, **others)


def entries(snapshot: Path) -> dict[str, FileEntry]:
    opened = open_source(str(snapshot))
    try:
        return {entry.path: entry for entry in read_snapshot(opened).manifest.entries}
    finally:
        opened.close()


def before_read(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Calls `act` before the `number`th part of a large file is read."""
    read_at, calls = source_reader.read_at, iter(range(1_000_000))

    def reading(*arguments: Any) -> int:
        if next(calls) == number:
            act()
        return read_at(*arguments)

    monkeypatch.setattr(source_reader, "read_at", reading)
    monkeypatch.setattr(pack_stages, "_READERS", 1)


def came_back(source: Path, snapshot: Path) -> dict[str, tuple[str, bytes]]:
    verify(str(snapshot), VerifyOptions(content=True, jobs=1))
    restored(snapshot.read_bytes(), source.parent / "target", verify=True)
    return tree(source.parent / "target")


def shorter(path: str, size: int, scanned: int) -> tuple[str, str]:
    return path, f"became shorter while it was packed: its first {size} of {scanned} bytes are stored"


def listed(result: PackResult) -> list[tuple[str, str]]:
    return [(problem.path, problem.reason) for problem in result.problems]


# --- files that end early ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2", "none"])
@pytest.mark.parametrize(
    ("scanned", "left"),
    [
        *((1500, left) for left in (0, 1, 1499)),
        *((CHUNK, left) for left in (0, 1000, CHUNK - 1)),
        *((len(NOISE), left) for left in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 100_000, len(NOISE) - 1)),
    ],
)
def test_a_file_that_is_truncated_is_stored_up_to_where_it_ends(
    scanned: int, left: int, method: str, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_bytes(NOISE[:scanned])
    (source / "other").write_bytes(b"untouched" * 100)
    once_planned(monkeypatch, lambda: os.truncate(source / "log", left))
    result = pack([str(source)], str(snapshot), options(method=method, paranoid=True))
    assert listed(result) == [shorter("log", left, scanned)]
    assert result.original_size == left + 900
    assert came_back(source, snapshot) == {"log": ("file", NOISE[:left]), "other": ("file", b"untouched" * 100)}
    found = entries(snapshot)
    assert found["log"].changed
    assert not found["other"].changed


def test_a_log_that_is_rotated_while_it_is_read_keeps_what_was_read(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`copytruncate` cuts the log to nothing, and the logging program goes on writing at the start."""
    (source / "log").write_bytes(NOISE)
    before_read(monkeypatch, 2, lambda: (source / "log").write_bytes(b"a new log\n"))
    result = pack([str(source)], str(snapshot), options())
    assert listed(result) == [shorter("log", 2 * CHUNK, len(NOISE))]
    assert came_back(source, snapshot) == {"log": ("file", NOISE[: 2 * CHUNK])}


def test_what_was_read_behind_an_end_that_was_found_later_is_not_kept(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_bytes(NOISE)
    chunks = packing.Plan.chunks
    monkeypatch.setattr(packing.Plan, "chunks", lambda plan: renumbered(list(chunks(plan))[::-1]))
    before_read(monkeypatch, 2, lambda: os.truncate(source / "log", 100))
    result = pack([str(source)], str(snapshot), options())
    assert listed(result) == [shorter("log", 100, len(NOISE))]
    assert came_back(source, snapshot) == {"log": ("file", NOISE[:100])}


def renumbered(chunks: Sequence[Any]) -> Iterator[Any]:
    for number, chunk in enumerate(chunks):
        chunk.number = number
        yield chunk


def test_hard_links_to_a_file_that_is_truncated_lead_to_what_there_is(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "a").write_bytes(NOISE)
    os.link(source / "a", source / "b")
    once_planned(monkeypatch, lambda: os.truncate(source / "a", 70_000))
    result = pack([str(source)], str(snapshot), options())
    assert listed(result) == [shorter("a", 70_000, len(NOISE))]
    assert came_back(source, snapshot) == {"a": ("file", NOISE[:70_000]), "b": ("file", NOISE[:70_000])}


def sparse(path: Path, pieces: dict[int, bytes], size: int) -> bool:
    """Makes a file with holes; returns whether this file system keeps them."""
    with path.open("wb") as file:
        for offset, piece in pieces.items():
            file.seek(offset)
            file.write(piece)
        file.truncate(size)
    return path.stat().st_blocks * 512 < size


@pytest.mark.parametrize("left", [0, 1000, 1 * MiB, 3 * MiB, 5 * MiB, 5 * MiB + 10])
def test_a_file_with_holes_that_is_truncated_ends_where_it_ends(
    left: int, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = {0: NOISE, 5 * MiB: NOISE[:CHUNK]}
    if not sparse(source / "disk", pieces, 8 * MiB):
        pytest.skip("this file system has no holes")
    expected = (source / "disk").read_bytes()[:left]
    once_planned(monkeypatch, lambda: os.truncate(source / "disk", left))
    result = pack([str(source)], str(snapshot), options())
    assert came_back(source, snapshot) == {"disk": ("file", expected)}
    assert listed(result) == [shorter("disk", left, 8 * MiB)]


def test_a_file_of_one_hole_that_is_truncated_is_no_zeros(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sparse(source / "disk", {}, 8 * MiB):
        pytest.skip("this file system has no holes")
    scanned = packing.scan

    def shrinking(*arguments: Any, **named: Any) -> Any:
        found = scanned(*arguments, **named)
        os.truncate(source / "disk", 5)
        return found

    monkeypatch.setattr(packing, "scan", shrinking)
    result = pack([str(source)], str(snapshot), options())
    assert came_back(source, snapshot) == {"disk": ("file", bytes(5))}
    assert listed(result) == [shorter("disk", 5, 8 * MiB)]


def test_a_file_that_grows_is_stored_as_long_as_it_was(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_bytes(NOISE)
    before_read(monkeypatch, 2, lambda: (source / "log").write_bytes(NOISE + b"more"))
    result = pack([str(source)], str(snapshot), options())
    assert listed(result) == [("log", "changed while it was packed")]
    assert entries(snapshot)["log"].changed
    assert came_back(source, snapshot) == {"log": ("file", NOISE)}


# --- files that share extents of a lost file --------------------------------------------------------------------------


def truncated(path: Path) -> None:
    os.truncate(path, 10)


def gone(path: Path) -> None:
    path.unlink()


def rewritten(path: Path) -> None:
    path.write_bytes(bytes(len(NOISE)))


@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2"])  # equal extents, and equal files
@pytest.mark.parametrize("change", [truncated, gone, rewritten])
def test_copies_of_a_file_that_changes_are_packed_as_they_are(
    change: Callable[[Path], None], method: str, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (source / name).write_bytes(NOISE)
    once_planned(monkeypatch, lambda: change(source / "a"))
    result = pack([str(source)], str(snapshot), options(method=method))
    assert [problem.path for problem in result.problems] == ["a"]
    found = came_back(source, snapshot)
    assert found["b"] == found["c"] == ("file", NOISE)
    assert (
        found.get("a", ("file", b""))
        in {
            truncated: (("file", NOISE[:10]),),
            gone: (("file", b""),),
            rewritten: (("file", bytes(len(NOISE))),),
        }[change]
    )
    assert entries(snapshot)["b"].extents == entries(snapshot)["c"].extents
    assert {path: entry.changed for path, entry in entries(snapshot).items() if path != "a"} == {"b": False, "c": False}


@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2"])
def test_copies_that_are_lost_with_what_they_copy_are_listed(
    method: str, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (source / name).write_bytes(NOISE)
    once_planned(monkeypatch, lambda: [(source / name).unlink() for name in "abc"] and None)
    result = pack([str(source)], str(snapshot), options(method=method))
    assert [problem.path for problem in result.problems] == ["a", "b", "c"]
    assert came_back(source, snapshot) == {}


# --- holes that a file system does not tell of ------------------------------------------------------------------------


def failing_lseek(monkeypatch: pytest.MonkeyPatch, code: int, whence: int) -> None:
    lseek = os.lseek

    def failing(fd: int, offset: int, how: int) -> int:
        if how == whence and offset > 0:
            raise OSError(code, os.strerror(code))
        return lseek(fd, offset, how)

    monkeypatch.setattr(os, "lseek", failing)


@pytest.fixture
def holes(source: Path) -> bytes:
    if not sparse(source / "disk", {0: NOISE, 5 * MiB: NOISE[:CHUNK]}, 8 * MiB):
        pytest.skip("this file system has no holes")
    return (source / "disk").read_bytes()


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_word_of_holes_all_is_data(
    code: int, whence: int, holes: bytes, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_lseek(monkeypatch, code, whence)
    assert pack([str(source)], str(snapshot), options()).problems == ()
    assert came_back(source, snapshot) == {"disk": ("file", holes)}


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
@pytest.mark.parametrize("code", [errno.EIO, errno.EOVERFLOW, errno.EBADF])
def test_a_file_whose_holes_cannot_be_read_is_listed(
    code: int, whence: int, holes: bytes, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_lseek(monkeypatch, code, whence)
    result = pack([str(source)], str(snapshot), options())
    assert listed(result) == [("disk", os.strerror(code))]
    assert came_back(source, snapshot) == {}


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("time", "stored"), [(MAX_MTIME + 10**9, MAX_MTIME), (MIN_MTIME - 10**9, MIN_MTIME)])
def test_a_time_that_the_format_cannot_hold_is_listed(time: int, stored: int, source: Path, snapshot: Path) -> None:
    (source / "file").write_bytes(b"x")
    os.utime(source / "file", ns=(time, time))
    if (source / "file").stat().st_mtime_ns != time:
        pytest.skip("this file system cannot hold such a time either")
    result = pack([str(source)], str(snapshot))
    assert listed(result) == [
        ("file", "its time is not between 1677-09-21 and 2262-04-11: the nearest of these is stored")
    ]
    assert entries(snapshot)["file"].mtime_ns == stored


# --- nothing is left --------------------------------------------------------------------------------------------------


def test_an_empty_source_is_said(source: Path, snapshot: Path) -> None:
    ran = command("pack", source, "-o", snapshot)
    assert ran.code == 3
    assert ran.error == "dumont-gpu: .: nothing was left to pack: the source is empty"
    assert listed(pack([str(source)], str(snapshot))) == [(".", "nothing was left to pack: the source is empty")]
    assert len(plan_pack([str(source)]).problems) == 1


def test_a_pack_that_leaves_everything_out_is_said(source: Path, snapshot: Path) -> None:
    for name in ("a.pyc", "b.pyc"):
        (source / name).write_bytes(b"x")
    os.mkfifo(source / "fifo")
    ran = command("pack", source, "-o", snapshot, "--exclude", "*.pyc")
    assert ran.code == 3
    assert ran.error == (
        "dumont-gpu: .: nothing was left to pack: 2 entries left out by patterns, 1 socket, fifo or device"
    )


def test_a_snapshot_without_bytes_says_so(source: Path, snapshot: Path) -> None:
    (source / "empty").write_bytes(b"")
    (source / "link").symlink_to("empty")
    ran = command("pack", source, "-o", snapshot)
    assert (ran.code, ran.err) == (0, "")
    assert "it holds no bytes: only directories, links and empty files" in ran.out
    (source / "one").write_bytes(b"1")
    assert "no bytes" not in command("pack", source, "-o", snapshot).out


# --- snapshots among the files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hybrid_v2", "none"])
def test_a_snapshot_among_the_files_is_named_with_its_size(method: str, source: Path, tmp_path: Path) -> None:
    (source / "data").write_bytes(os.urandom(100_000))
    pack([str(source)], str(source / "yesterday"))  # known by its first bytes, whatever its name
    (source / "copy").write_bytes((source / "yesterday").read_bytes())
    (source / "DUMONT02").write_bytes(b"no snapshot: DUMONT02" + os.urandom(100_000))
    size = (source / "yesterday").stat().st_size
    result = pack([str(source)], str(tmp_path / "today.dumont"), PackOptions(method=method))
    assert [(entry.path, entry.size) for entry in result.snapshots] == [("copy", size), ("yesterday", size)]
    (source / "copy").unlink()
    for more in ([], ["-n"]):
        ran = command("pack", source, "-o", tmp_path / "today.dumont", *more)
        assert ran.code == 0
        assert ran.out.count("yesterday") == 1
        assert "1 packed file is a snapshot itself (--exclude leaves it out): yesterday (1" in ran.out
    summary = json.loads(command("pack", source, "-o", tmp_path / "today.dumont", "--json").out.splitlines()[-1])
    assert summary["snapshots"] == [{"path": "yesterday", "size": size}]
