"""The kernels that make many directories and files of a target in one call."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumont_gpu import native
from dumont_gpu.columns.placement import Placement
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

CONTENT = b"0123456789"
DEEP = "/".join("abcdefghijkl")  # deeper than the kernel keeps directories open


def directory(path: str, mode: int = 0o755, mtime_ns: int = 5) -> FileEntry:
    return FileEntry(path, EntryType.DIR, mode, mtime_ns)


def file(path: str, begin: int = 0, size: int = 4, mode: int = 0o644, mtime_ns: int = 5) -> FileEntry:
    extents = (Extent(0, 0, begin, size, bytes(32)),) if size else ()
    return FileEntry(path, EntryType.FILE, mode, mtime_ns, size, extents)


def sorted_table(*entries: FileEntry) -> EntryTable:
    table = EntryTable(entries)
    table.sort()
    return table


def create(root: int, table: EntryTable, content: bytes = CONTENT, mask: int = 0o777) -> dict[str, int]:
    """Creates the small files of a table; returns path -> errno of those that failed."""
    placement = Placement(table, 1)
    failed = {}
    for small in (placement.small(None), placement.small(0)):
        for index, number in native.create_files(root, table.columns, small.rows, memoryview(content), mask):
            failed[small[index][0].path] = number
    return failed


def make(root: int, table: EntryTable) -> dict[str, int]:
    return {table.path(row): number for row, number in native.make_directories(root, table.columns)}


def finish(root: int, table: EntryTable, mask: int = 0o777) -> dict[str, int]:
    return {table.path(row): number for row, number in native.finish_directories(root, table.columns, mask)}


@pytest.fixture
def root(target: Path) -> Iterator[int]:
    """A descriptor of the empty target; no other descriptor is open after the test that was not open before."""
    target.mkdir()
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    before = sorted(os.listdir("/proc/self/fd"))
    yield fd
    assert before == sorted(os.listdir("/proc/self/fd"))
    os.close(fd)


def test_a_deep_tree_is_made_level_by_level(root: int, target: Path) -> None:
    levels = [DEEP[: 2 * depth + 1] for depth in range(12)]
    others = [f"{levels[3]}/z", f"{levels[9]}/z", f"{levels[10]}/z", "a-", "b", "b/c"]
    folders = [*levels, *others]
    table = sorted_table(
        *(directory(path, mtime_ns=10**9 + number) for number, path in enumerate(folders)),
        *(file(f"{path}/1", begin=2) for path in folders),
        *(file(f"{path}/0", size=0) for path in folders),
        file("top", begin=6),
    )
    assert make(root, table) == {}
    assert all(stat.S_IMODE((target / path).stat().st_mode) == 0o700 for path in folders)
    assert create(root, table) == {}
    assert finish(root, table) == {}
    assert (target / "top").read_bytes() == b"6789"
    for number, path in enumerate(folders):
        assert ((target / path / "1").read_bytes(), (target / path / "0").read_bytes()) == (b"2345", b"")
        status = (target / path).stat()
        assert (0o755, 10**9 + number) == (stat.S_IMODE(status.st_mode), status.st_mtime_ns)


def test_modes_and_times_are_set(root: int, target: Path) -> None:
    table = sorted_table(
        directory("d", 0o2750, -1),
        directory("d/locked", 0o500, -(10**18)),
        file("d/f", mode=0o6711, mtime_ns=-(10**9) - 1),
        file("d/locked/g", mode=0),
    )
    assert (make(root, table), create(root, table), finish(root, table)) == ({}, {}, {})
    found = {path: (target / path).lstat() for path in ("d", "d/f", "d/locked", "d/locked/g")}
    assert [stat.S_IMODE(status.st_mode) for status in found.values()] == [0o750, 0o711, 0o500, 0]
    assert [status.st_mtime_ns for status in found.values()] == [-1, -(10**9) - 1, -(10**18), 5]
    assert finish(root, table, mask=0o7777) == {}
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o2750
    (target / "d" / "locked").chmod(0o700)


def test_a_failure_concerns_one_entry(root: int, target: Path) -> None:
    (target / "d").mkdir(mode=0o700)
    (target / "d" / "taken").write_bytes(b"mine")
    (target / "d" / "link").symlink_to("taken")
    (target / "file").write_bytes(b"")
    long = "n" * 256
    table = sorted_table(
        directory("d"), directory("d/e"), directory("file"), directory("file/below"), directory("gone/below"),
        file("d/a"), file("d/link"), file("d/taken"), file("d/z"), file(f"d/{long}"), file(f"{long}/f"),
        file("file/f"), file("gone/f"), file("last"),
    )  # fmt: skip
    assert make(root, table) == {
        "d": errno.EEXIST, "file": errno.EEXIST, "file/below": errno.ENOTDIR, "gone/below": errno.ENOENT,
    }  # fmt: skip
    assert {
        "d/link": errno.EEXIST, "d/taken": errno.EEXIST, f"d/{long}": errno.ENAMETOOLONG,
        f"{long}/f": errno.ENAMETOOLONG, "file/f": errno.ENOTDIR, "gone/f": errno.ENOENT,
    } == create(root, table)  # fmt: skip
    assert finish(root, table) == {"file": errno.ENOTDIR, "file/below": errno.ENOTDIR, "gone/below": errno.ENOENT}
    assert (target / "d" / "taken").read_bytes() == b"mine"
    assert {"d", "file", "last", "a", "e", "link", "taken", "z"} == {path.name for path in target.rglob("*")}


def test_no_symlink_is_followed(root: int, target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (target / "d").symlink_to(outside)
    before = outside.stat(), (outside / "below").stat()
    table = sorted_table(directory("d"), directory("d/below"), directory("d/new"), file("d/below/f"), file("d/f"))
    assert make(root, table) == {"d": errno.EEXIST, "d/below": errno.ENOTDIR, "d/new": errno.ENOTDIR}
    assert create(root, table) == {"d/below/f": errno.ENOTDIR, "d/f": errno.ENOTDIR}
    assert finish(root, table) == {"d": errno.ENOTDIR, "d/below": errno.ENOTDIR, "d/new": errno.ENOTDIR}
    assert os.listdir(outside) == ["below"]
    after = outside.stat(), (outside / "below").stat()
    assert [(s.st_mode, s.st_mtime_ns) for s in before] == [(s.st_mode, s.st_mtime_ns) for s in after]


def test_a_file_that_leaves_its_chunk_is_not_made(root: int, target: Path) -> None:
    table = sorted_table(file("a", begin=7), file("b", begin=11), file("c", begin=6))
    assert create(root, table) == {"a": errno.EINVAL, "b": errno.EINVAL}
    assert os.listdir(target) == ["c"]


def test_a_file_that_cannot_be_completed_is_removed(root: int, target: Path) -> None:
    """A limit of a process stands for a disk that is full."""
    import resource
    import signal

    table = sorted_table(file("a", size=4), file("b", size=9), file("c", size=3))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        failed = create(root, table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert failed == {"b": errno.EFBIG}
    assert sorted(os.listdir(target)) == ["a", "c"]


def test_the_mark_of_unfinished_files_is_the_one_that_python_knows() -> None:
    source = Path(__file__).parents[2] / "kernels" / "cpu" / "target_rows.cpp"
    assert f"kUnfinishedMode = 0{UNFINISHED_MODE:o};" in source.read_text(encoding="utf-8")
