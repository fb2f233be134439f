"""Small files that are packed as rows of a table: nothing about them is lost, and equal ones are stored once."""

from __future__ import annotations

import errno
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.snapshots import assert_same_tree, once_planned, pack_tree, restore_tree

from dumont_gpu import native
from dumont_gpu.buffers import ClosedError, Turns
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import DumontError
from dumont_gpu.format.digests import DIGESTS
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.jobs.options import PackOptions, VerifyOptions
from dumont_gpu.jobs.pack import PackResult, pack, plan_pack
from dumont_gpu.jobs.packed_rows import PackedRows
from dumont_gpu.jobs.verify import verify
from dumont_gpu.plan import rows as row_plan
from dumont_gpu.plan.methods import METHODS, writes_columns
from dumont_gpu.plan.rows import row_limits
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage.local import LocalSource
from dumont_gpu.tree.source.scan import scan

METHOD = "hybrid_v3"


def packed(source: Path, snapshot: Path, **options: Any) -> PackResult:
    return pack_tree(source, snapshot, **{"method": METHOD, "jobs": 2, "force": True, **options})


def entries(snapshot: Path) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in read_snapshot(LocalSource(str(snapshot))).manifest.entries}


def comes_back(source: Path, snapshot: Path, target: Path) -> None:
    verify(str(snapshot), VerifyOptions(content=True))
    restore_tree(snapshot, target, verify=True)
    assert_same_tree(source, target)


def fill(folder: Path, contents: dict[str, bytes]) -> None:
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def noise(number: int, size: int = 1000) -> bytes:
    return random.Random(number).randbytes(size)


# --- which files are rows ---------------------------------------------------------------------------------------------


def test_rows_and_objects_together_are_the_tree(source: Path, snapshot: Path, target: Path) -> None:
    limit = row_limits(64 * MiB).size
    fill(source, {"empty": b"", "one": b"1", "deep/er/file": b"x" * 4000, "large": noise(1, 300_000)})
    fill(source, {"just-small": noise(2, limit), "just-large": noise(3, limit + 1)})
    (source / "link").symlink_to("one")
    (source / "nothing").mkdir()
    (source / "strange \n name").write_bytes(b"strange")
    (source / os.fsdecode(b"latin-1-\xe4")).write_bytes(b"not UTF-8")
    (source / "one").chmod(0o751)
    os.utime(source / "one", ns=(0, -123_456_789))
    os.mkfifo(source / "fifo")
    result = packed(source, snapshot)
    time = source.stat().st_mtime_ns
    os.unlink(source / "fifo")
    os.utime(source, ns=(time, time))
    assert (result.problems, result.special) == ((), 1)
    comes_back(source, snapshot, target)


def test_only_plain_small_files_become_rows(source: Path) -> None:
    fill(source, {"plain": b"1", ".hidden": b"2", "large": bytes(6001), ".x.partial": b"3", "y.partial": b"4"})
    fill(source, {"begun": b"5", "output": b"6"})
    (source / "begun").chmod(0o1600)
    with (source / "sparse").open("wb") as file:
        file.truncate(5000)
    status = (source / "output").stat()
    found = scan([str(source)], small=native.RowLimits(6000), leave_out=[(status.st_dev, status.st_ino)])
    found.close()
    assert found.small is not None
    rows = [found.small.table.path(row) for row in range(found.small.count)]
    expected = [".hidden", "plain", "y.partial"]
    assert rows in (expected, sorted([*expected, "sparse"]))  # some file systems have no holes
    assert {file.entry.path for file in found.files} >= {".x.partial", "begun", "large"}
    assert found.size == sum(path.stat().st_size for path in source.iterdir() if path.name != "output")


def test_larger_files_of_text_become_rows_too(source: Path) -> None:
    fill(source, {"a.py": bytes(101), "b.py": bytes(201), "c.py.gz": bytes(101), "py": bytes(101), "d.PY": bytes(101)})
    found = scan([str(source)], small=native.RowLimits(100, 200, (".js", ".py")))
    found.close()
    assert found.small is not None
    assert [found.small.table.path(row) for row in range(found.small.count)] == ["a.py"]
    assert {file.entry.path for file in found.files} == {"b.py", "c.py.gz", "py", "d.PY"}


def test_the_same_tree_gives_the_same_rows_in_the_same_order(source: Path, tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(200)]
    orders = []
    for folder, seed in ((source, 1), (tmp_path / "other", 2)):
        random.Random(seed).shuffle(names)
        fill(folder, {f"{name[0]}/{name}": name.encode() for name in names})
        found = scan([str(folder)], small=native.RowLimits(100))
        found.close()
        assert found.small is not None
        orders.append([found.small.table.path(row) for row in range(200)])
    assert orders[0] == orders[1] == sorted(orders[0])


@pytest.mark.parametrize("method", METHODS)
def test_methods_with_columns_have_rows_and_the_others_keep_their_manifest(
    method: str, source: Path, snapshot: Path, target: Path
) -> None:
    fill(source, {str(number): noise(number) for number in range(20)})
    packed(source, snapshot, method=method)
    header = read_snapshot(LocalSource(str(snapshot))).header
    assert bool(header.flags & 2) == writes_columns(method)
    comes_back(source, snapshot, target)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.sampled_from([0, 1, 15, 160, 511, 512, 513, 4095, 8191, 8193]), min_size=1, max_size=60),
    distinct=st.integers(1, 9),
    chunk_size=st.sampled_from([4 * KiB, 8 * KiB, 64 * KiB, MiB]),
    digest=st.sampled_from(DIGESTS),
    jobs=st.sampled_from([1, 2, 4]),
)
def test_any_sizes_come_back_from_any_chunks(
    sizes: list[int], distinct: int, chunk_size: int, digest: str, jobs: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    contents = [noise(number % distinct, size) for number, size in enumerate(sizes)]
    fill(folder / "source", {f"{number % 7}/{number}": content for number, content in enumerate(contents)})
    result = packed(
        folder / "source", folder / "s.dumont", chunk_size=chunk_size, digest=digest, jobs=jobs, paranoid=True
    )
    assert result.original_size == sum(sizes)
    small = [content for content in contents if len(content) <= row_limits(chunk_size).size]
    stored = sum(raw for raw, _ in result.codec_bytes.values())
    assert stored <= sum(map(len, set(small))) + sum(map(len, contents)) - sum(map(len, small))
    comes_back(folder / "source", folder / "s.dumont", folder / "target")


# --- equal files ------------------------------------------------------------------------------------------------------


def test_equal_files_share_their_bytes_within_a_chunk(source: Path, snapshot: Path, target: Path) -> None:
    fill(source, {"a": noise(1), "b": noise(1), "c/d": noise(1), "other": noise(2), "shorter": noise(1)[:999]})
    result = packed(source, snapshot)
    found = entries(snapshot)
    assert found["a"].extents == found["b"].extents == found["c/d"].extents
    assert result.shared_bytes == 2000
    assert sum(raw for raw, _ in result.codec_bytes.values()) == 2999
    comes_back(source, snapshot, target)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_chunks_without_new_contents_are_not_written(jobs: int, source: Path, snapshot: Path, target: Path) -> None:
    """Chunks 1 to 9 have the contents of chunk 0 again, and what is in chunk 10 is new."""
    fill(source, {f"{number:03d}": noise(number % 8, 500) for number in range(80)})
    fill(source, {"zz-new": noise(99, 500), "zz-large": noise(100, 10_000)})
    result = packed(source, snapshot, chunk_size=4 * KiB, jobs=jobs)
    assert result.shared_bytes == 72 * 500
    assert result.num_chunks == 2 + 3  # 8 contents, the new one, and the large file
    found = entries(snapshot)
    assert {found[f"{number:03d}"].extents for number in range(80)} == {found[f"{n:03d}"].extents for n in range(8)}
    comes_back(source, snapshot, target)


def test_files_that_are_all_equal_take_one_chunk(source: Path, snapshot: Path, target: Path) -> None:
    fill(source, {f"{number:04d}": b"the same in each" for number in range(1000)})
    result = packed(source, snapshot, chunk_size=4 * KiB)
    assert (result.num_chunks, result.shared_bytes) == (1, 999 * 16)
    comes_back(source, snapshot, target)


def test_files_without_bytes_need_no_chunk(source: Path, snapshot: Path, target: Path) -> None:
    fill(source, {f"{number:04d}": b"" for number in range(100)})
    result = packed(source, snapshot)
    assert (result.num_chunks, result.num_files, result.original_size) == (0, 100, 0)
    comes_back(source, snapshot, target)


def test_more_rows_than_a_chunk_takes_are_several_chunks(
    source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_plan, "_MAX_ROWS", 30)
    fill(source, {f"{number % 3}/{number}": noise(number % 70, 200) for number in range(100)})
    result = packed(source, snapshot)
    assert result.shared_bytes == 30 * 200
    assert result.num_chunks == 3
    comes_back(source, snapshot, target)


def test_the_index_of_contents_finds_each_of_very_many(source: Path, snapshot: Path) -> None:
    """It grows several times meanwhile."""
    count = 9000
    for number in range(count):
        (source / f"{number:05d}").write_bytes(b"%d" % (number % 6000))
    result = packed(source, snapshot)
    assert result.shared_bytes == sum(len(b"%d" % number) for number in range(count - 6000))


@pytest.mark.parametrize("digest", DIGESTS)
def test_several_thousand_files_give_the_same_bytes_again(
    digest: str, source: Path, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    fill(source, {f"{number % 40}/{number}": noise(number % 900, number % 300) for number in range(3000)})
    snapshots = [tmp_path / name for name in ("first", "second")]
    for snapshot in snapshots:
        packed(source, snapshot, chunk_size=32 * KiB, jobs=1, digest=digest)
    assert snapshots[0].read_bytes() == snapshots[1].read_bytes()
    found = entries(snapshots[0])
    for jobs in (2, 4):
        packed(source, tmp_path / f"{jobs}", chunk_size=32 * KiB, jobs=jobs, digest=digest)
        assert entries(tmp_path / f"{jobs}") == found
    comes_back(source, tmp_path / "4", target)


# --- files that change ------------------------------------------------------------------------------------------------


def gone(path: Path) -> None:
    path.unlink()


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("b")


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


LOST = {
    gone: os.strerror(errno.ENOENT),
    to_fifo: "is no regular file any more",
    to_link: os.strerror(errno.ELOOP),
    to_directory: "is no regular file any more",
}


@pytest.mark.parametrize("change", LOST)
def test_a_file_that_is_lost_is_listed_and_the_others_are_packed(
    change: Callable[[Path], None], source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {name: noise(number) for number, name in enumerate("abc")}
    fill(source, contents)
    once_planned(monkeypatch, lambda: change(source / "a"))
    result = packed(source, snapshot)
    assert [(problem.path, problem.reason) for problem in result.problems] == [("a", LOST[change])]
    verify(str(snapshot), VerifyOptions(content=True))
    restore_tree(snapshot, target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {name: contents[name] for name in "bc"}


@pytest.mark.parametrize(
    ("content", "reason", "stored"),
    [
        (b"", "became shorter while it was packed: its first 0 of 1000 bytes are stored", b""),
        (b"short", "became shorter while it was packed: its first 5 of 1000 bytes are stored", b"short"),
        (b"o" * 1000, "changed while it was packed", b"o" * 1000),
        (b"g" * 1001, "changed while it was packed", b"g" * 1000),
    ],
)
def test_a_file_that_changes_is_stored_and_marked(
    content: bytes, reason: str, stored: bytes, source: Path, snapshot: Path, target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fill(source, {name: noise(1) for name in "abc"})
    once_planned(monkeypatch, lambda: (source / "b").write_bytes(content))
    result = packed(source, snapshot, paranoid=True)
    assert [(problem.path, problem.reason) for problem in result.problems] == [("b", reason)]
    found = entries(snapshot)
    assert [found[name].changed for name in "abc"] == [False, True, False]
    assert found["a"].extents == found["c"].extents
    verify(str(snapshot), VerifyOptions(content=True))
    restore_tree(snapshot, target, verify=True)
    assert [(target / name).read_bytes() for name in "abc"] == [noise(1), stored, noise(1)]
    assert result.original_size == 2000 + len(stored)


def test_all_files_of_a_directory_that_vanishes_are_listed_but_empty_ones_are_known(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, {"d/a": b"1", "d/b": b"2", "d/empty": b"", "e/other": b"3"})
    once_planned(monkeypatch, lambda: (source / "d").rename(source.parent / "moved"))
    monkeypatch.setattr("dumont_gpu.tree.handles._MAX_OPEN", 0)
    result = packed(source, snapshot)
    assert [problem.path for problem in result.problems] == ["d/a", "d/b"]
    assert list(entries(snapshot)) == ["d", "d/empty", "e", "e/other"]


def test_a_directory_swapped_for_a_symlink_is_not_followed(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, {"d/a": b"mine", "z/b": b"another"})
    fill(source.parent / "secret", {"a": b"SECRET"})

    def swap() -> None:
        (source / "d").rename(source / "moved")
        (source / "d").symlink_to(source.parent / "secret")

    once_planned(monkeypatch, swap)
    monkeypatch.setattr("dumont_gpu.tree.handles._MAX_OPEN", 0)
    assert [problem.path for problem in packed(source, snapshot).problems] == ["d/a"]
    assert b"SECRET" not in snapshot.read_bytes()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_shortage_is_no_problem_of_a_row(
    number: int, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, {"a": b"1"})
    monkeypatch.setattr(native.RowReader, "failures", lambda reader: [(0, number)])
    with pytest.raises(DumontError, match=os.strerror(number)):
        packed(source, snapshot)
    assert not snapshot.exists()


def test_a_reader_that_waits_for_its_turn_ends_with_the_pack(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, {f"{number:03d}": noise(number, 500) for number in range(200)})
    read = PackedRows.read

    def failing(rows: PackedRows, chunk: Any, *given: Any) -> Any:
        if chunk.number == 3:
            raise OSError(errno.EIO, "the disk is gone")
        return read(rows, chunk, *given)

    monkeypatch.setattr(PackedRows, "read", failing)
    with pytest.raises(DumontError, match="the disk is gone"):
        packed(source, snapshot, chunk_size=4 * KiB, jobs=4)
    assert not snapshot.exists()


def test_turns_come_in_order_and_end_when_closed() -> None:
    turns = Turns()
    for number in range(3):
        with turns.take(number):
            pass
    turns.close()
    with pytest.raises(ClosedError), turns.take(4):
        pass


# --- hard links -------------------------------------------------------------------------------------------------------


def test_names_of_one_file_stay_names_of_one_file(source: Path, snapshot: Path, target: Path) -> None:
    fill(source, {"b/first": b"shared", "z": b"alone"})
    os.link(source / "b/first", source / "a-second")
    os.link(source / "b/first", source / "b/.third.partial")  # a name that no row may have
    os.link(source / "z", source.parent / "elsewhere")
    result = packed(source, snapshot)
    found = entries(snapshot)
    assert found["a-second"].type is EntryType.FILE
    assert [found[path].target for path in ("b/.third.partial", "b/first")] == ["a-second", "a-second"]
    assert found["z"].type is EntryType.FILE
    assert result.original_size == 11
    comes_back(source, snapshot, target)


def test_hard_links_that_are_rows_follow_the_first_path(source: Path, snapshot: Path, target: Path) -> None:
    fill(source, {f"{number}/file": noise(number) for number in range(5)})
    for number in range(5):
        os.link(source / f"{number}/file", source / f"{number}/again")
        os.link(source / f"{number}/file", source / f"last-{number}")
    result = packed(source, snapshot, owner=True)
    found = entries(snapshot)
    assert {entry.target for entry in found.values() if entry.type is EntryType.HARDLINK} == {
        f"{number}/again" for number in range(5)
    }
    assert all(entry.owner is None for entry in found.values() if entry.type is EntryType.HARDLINK)
    assert result.original_size == 5000
    comes_back(source, snapshot, target)


def test_hard_links_to_a_row_that_is_lost_are_listed(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, {"a": b"1", "c": b"2"})
    os.link(source / "a", source / "b")
    once_planned(monkeypatch, lambda: (source / "a").unlink())
    result = packed(source, snapshot)
    assert [(problem.path, problem.reason) for problem in result.problems] == [
        ("a", os.strerror(errno.ENOENT)),
        ("b", "is a hard link to a, which could not be packed"),
    ]
    assert list(entries(snapshot)) == ["c"]


def test_hard_links_to_an_excluded_row_are_files(source: Path, snapshot: Path) -> None:
    fill(source, {"a.pyc": b"1"})
    os.link(source / "a.pyc", source / "b")
    os.link(source / "a.pyc", source / "c")
    packed(source, snapshot, exclude=("*.pyc",))
    found = entries(snapshot)
    assert [(path, entry.target) for path, entry in found.items()] == [("b", ""), ("c", "b")]


# --- options ----------------------------------------------------------------------------------------------------------


def test_patterns_leave_rows_out(source: Path, snapshot: Path) -> None:
    fill(source, {"a.py": b"1", "a.pyc": b"2", "d/b.pyc": b"3", "d/c": b"4", "cache/x": b"5", "cache/y": b"6"})
    result = packed(source, snapshot, exclude=("*.pyc", "cache/", "nothing"))
    assert list(entries(snapshot)) == ["a.py", "d", "d/c"]
    assert (result.excluded, result.unmatched, result.original_size) == (5, ("nothing",), 2)


def test_nothing_is_left_where_patterns_leave_out_every_row(source: Path, snapshot: Path) -> None:
    fill(source, {"a.pyc": b"1", "b.pyc": b"2"})
    reasons = [problem.reason for problem in packed(source, snapshot, exclude=("*.pyc",)).problems]
    assert reasons == ["nothing was left to pack: 2 entries left out by patterns"]


def test_rows_have_owners_if_they_are_wanted(source: Path, snapshot: Path) -> None:
    fill(source, {"d/a": b"1", "b": noise(1, 200_000)})
    (source / "link").symlink_to("b")
    packed(source, snapshot, owner=True)
    status = (source / "b").stat()
    assert {entry.owner for entry in entries(snapshot).values()} == {(status.st_uid, status.st_gid)}
    packed(source, snapshot)
    assert {entry.owner for entry in entries(snapshot).values()} == {None}


def test_sources_stand_under_their_names(tmp_path: Path, snapshot: Path, target: Path) -> None:
    fill(tmp_path / "x", {"a": b"1", "d/b": b"2"})
    fill(tmp_path / "y", {"a": b"1"})
    (tmp_path / "single").write_bytes(b"3")
    sources = [str(tmp_path / name) for name in ("x", "y", "single")]
    result = pack(sources, str(snapshot), PackOptions(method=METHOD))
    found = entries(snapshot)
    assert list(found) == ["single", "x", "x/a", "x/d", "x/d/b", "y", "y/a"]
    assert found["x/a"].extents == found["y/a"].extents
    assert result.shared_bytes == 1
    restore_tree(snapshot, target)
    assert_same_tree(tmp_path / "x", target / "x")


def test_followed_links_bring_their_targets(source: Path, snapshot: Path, target: Path) -> None:
    fill(source.parent / "outside", {"a": b"1", "b": b"2"})
    fill(source, {"c": b"3"})
    (source / "link").symlink_to(source.parent / "outside")
    assert packed(source, snapshot, follow_outside=True).problems == ()
    assert list(entries(snapshot)) == ["c", "link", "link/a", "link/b"]


def test_the_forecast_has_the_sizes_of_the_pack(source: Path, snapshot: Path) -> None:
    fill(source, {f"{number}": noise(number) for number in range(50)})
    fill(source, {"large": noise(99, 300_000)})
    planned = plan_pack([str(source)], PackOptions(method=METHOD))
    result = packed(source, snapshot)
    assert (planned.original_size, planned.num_files) == (result.original_size, result.num_files)
    assert sum(planned.codec_bytes.values()) == sum(raw for raw, _ in result.codec_bytes.values())


def test_the_output_and_unfinished_snapshots_are_not_packed(source: Path) -> None:
    fill(source, {"a": b"1", ".s.dumont.x.partial": b"dumont-gpu: an unfinished snapshot\n"})
    snapshot = source / "s.dumont"
    packed(source, snapshot)
    result = packed(source, snapshot)
    assert list(entries(snapshot)) == ["a"]
    assert [entry.path for entry in result.unfinished] == [".s.dumont.x.partial"]


# --- cost -------------------------------------------------------------------------------------------------------------


def test_a_file_takes_few_bytes_of_memory_and_of_manifest(source: Path, snapshot: Path) -> None:
    count = 20_000
    for folder in range(20):
        (source / f"part-{folder:02d}").mkdir()
        for number in range(count // 20):
            (source / f"part-{folder:02d}" / f"sample-{number:05d}.json").write_bytes(b"%d %d" % (folder, number))
    packed(source, snapshot)  # loads what is loaded once
    tracemalloc.start()
    try:
        packed(source, snapshot)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Beside entries: half a chunk's digests and places, and a page of the manifest with its frame.
    assert peak < 250 * count + 6 * MiB
    assert read_snapshot(LocalSource(str(snapshot))).header.manifest_size < 45 * count


def test_sorting_finds_rows_in_byte_order() -> None:
    table = EntryTable(FileEntry(path, EntryType.FILE) for path in ("b", "a/b", "a.txt", "a", "b/c"))
    table.sort()
    assert [entry.path for entry in table] == ["a", "a.txt", "a/b", "b", "b/c"]
