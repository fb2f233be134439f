"""`diff` of two snapshots, and of a snapshot and a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile import Archive, clear_error, command, sha256
from support.program import program
from support.snapshots import pack_tree, restore_tree

from dumont_gpu.cli.report.diff import summary
from dumont_gpu.errors import SnapshotNotFoundError, UsageError
from dumont_gpu.jobs.diff import DiffResult, diff
from dumont_gpu.jobs.options import DiffOptions
from dumont_gpu.tree.problems import Problem

ODD = os.fsdecode(b"not utf-8 \x80")


@pytest.fixture
def tree(source: Path) -> Path:
    for name in ("readme", "a b/c:d", f"a b/{ODD}", "src/main.py", "src-old/x"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name, errors="surrogateescape")
    (source / "large").write_bytes(os.urandom(300_000))
    with (source / "holes").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"data" * 3000)
    (source / "link").symlink_to("readme")
    os.link(source / "readme", source / "src/same")
    (source / "empty").mkdir()
    return source


@pytest.fixture
def packed(tree: Path, snapshot: Path) -> Path:
    pack_tree(tree, snapshot, chunk_size=1 << 16)
    return snapshot


def changes(result: DiffResult) -> list[str]:
    return [f"{change.kind} {change.path} {change.why}".strip() for change in result.changes]


def same_time(path: Path, content: bytes) -> None:
    """Writes other content, with the time of before."""
    time = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(time, time))


def edit(tree: Path) -> None:
    (tree / "a b/c:d").write_bytes(b"longer than before")
    (tree / f"a b/{ODD}").unlink()
    (tree / "link").unlink()
    (tree / "link").symlink_to("src")
    (tree / "empty").rmdir()
    (tree / "empty").write_bytes(b"")
    (tree / "new").mkdir()
    (tree / "new/x").write_bytes(b"x")
    same_time(tree / "src-old/x", b"SRC-OLD/x"[: len("src-old/x")])


EDITS = ["M a b/c:d size", f"- a b/{ODD}", "M empty type", "M link target", "+ new", "+ new/x"]
SAME = 9  # entries that `edit` leaves as they are, with the file of the same size and time


def test_a_snapshot_and_its_tree_are_equal(packed: Path, tree: Path) -> None:
    for a, b in ((packed, tree), (tree, packed), (packed, packed)):
        for content in (False, True):
            result = diff(str(a), str(b), DiffOptions(content=content))
            assert (changes(result), result.same, result.problems, result.equal) == ([], 13, [], True)


def test_a_snapshot_and_a_folder_that_was_edited(packed: Path, tree: Path) -> None:
    edit(tree)
    assert changes(diff(str(packed), str(tree))) == EDITS
    with_content = diff(str(packed), str(tree), DiffOptions(content=True))
    assert changes(with_content) == [*EDITS, "M src-old/x content"]
    turned = {"+": "-", "-": "+", "M": "M"}
    backwards = diff(str(tree), str(packed))
    assert changes(backwards) == [turned[line[0]] + line[1:] for line in EDITS]
    assert backwards.same == SAME


def test_two_snapshots_are_compared_by_digests(packed: Path, tree: Path, tmp_path: Path) -> None:
    edit(tree)
    (tree / "src/main.py").touch()  # the same bytes at another time
    pack_tree(tree, tmp_path / "later.dumont", chunk_size=1 << 16)
    assert changes(diff(str(packed), str(tmp_path / "later.dumont"))) == [*EDITS, "M src-old/x content"]


@pytest.mark.parametrize("options", [{"chunk_size": 1 << 17}, {"digest": "sha256"}])
def test_where_no_digest_tells_time_or_content_does(
    options: dict[str, Any], packed: Path, tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.dumont"
    (tree / "large").touch()
    pack_tree(tree, other, **options)
    assert changes(diff(str(packed), str(other))) == ["M large time"]
    assert diff(str(packed), str(other), DiffOptions(content=True)).equal
    same_time(tree / "large", bytes(300_000))
    pack_tree(tree, other, **options)
    assert changes(diff(str(packed), str(other), DiffOptions(content=True))) == ["M large content"]


def test_a_touched_file_counts_until_its_content_is_read(packed: Path, tree: Path) -> None:
    (tree / "readme").touch()
    assert changes(diff(str(packed), str(tree))) == ["M readme time", "M src/same time"]
    assert diff(str(packed), str(tree), DiffOptions(content=True)).equal


@pytest.mark.parametrize(
    "change",
    [
        lambda path: same_time(path, path.read_bytes()[:-1] + b"!"),
        lambda path: same_time(path, path.read_bytes()[: 1 << 18] + b"!" + path.read_bytes()[(1 << 18) + 1 :]),
        lambda path: same_time(path, b"!" + path.read_bytes()[1:]),
    ],
)
def test_bytes_in_place_of_holes_are_content(change: Callable[[Path], None], packed: Path, tree: Path) -> None:
    change(tree / "holes")
    assert changes(diff(str(packed), str(tree))) == []
    assert changes(diff(str(packed), str(tree), DiffOptions(content=True))) == ["M holes content"]


def test_a_hard_link_counts_as_its_file(packed: Path, tree: Path, tmp_path: Path) -> None:
    """A copy in place of the link is the same: whoever copied the tree may have lost its links."""
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    assert (tmp_path / "copy/src/same").stat().st_nlink == 1
    assert diff(str(packed), str(tmp_path / "copy"), DiffOptions(content=True)).equal
    assert diff(str(packed), str(tmp_path / "copy")).equal


def test_parts_are_compared(packed: Path, tree: Path) -> None:
    assert diff(f"{packed}:src", str(tree / "src")).equal
    assert changes(diff(f"{packed}:src", f"{packed}:src-old")) == ["- main.py", "- same", "+ x"]


def test_the_snapshot_in_the_folder_does_not_count(tree: Path) -> None:
    pack_tree(tree, tree / "x.dumont")
    assert diff(str(tree / "x.dumont"), str(tree)).equal
    assert diff(f"{tree / 'x.dumont'}:src", str(tree / "src")).equal


def test_what_cannot_be_compared_is_refused(packed: Path, tree: Path) -> None:
    assert "are folders: name a snapshot" in clear_error(lambda: diff(str(tree), str(tree / "src")), UsageError)
    clear_error(lambda: diff(str(packed), str(packed) + ".none"), SnapshotNotFoundError)


def test_the_command_line(packed: Path, tree: Path) -> None:
    ran = command("diff", packed, tree)
    assert (ran.code, ran.out, ran.err) == (
        0, "no difference: 13 entries (8 files by size and time alone: --content reads them)\n", "",
    )  # fmt: skip
    assert command("diff", packed, tree, "--content").out == "no difference: 13 entries\n"
    edit(tree)
    (tree / "line\nfeed").write_bytes(b"")
    ran = command("diff", packed, tree)
    assert ran.out.splitlines() == [
        "M a b/c:d", "- a b/not utf-8 \\x80", "M empty", "+ line\\nfeed", "M link", "+ new", "+ new/x",
        "3 added, 1 removed, 3 modified, 9 the same (6 files by size and time alone: --content reads them)",
    ]  # fmt: skip
    assert (ran.code, ran.err) == (1, "")
    ran = command("diff", packed, tree, "-q")
    assert (ran.code, ran.out, ran.err) == (1, "", "")
    ran = command("diff", packed, tree, "--json")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert lines[0] == {"type": "change", "change": "M", "entry_type": "file", "why": "size", "path": "a b/c:d"}
    assert "path_b64" in lines[1] and "path" not in lines[1]
    assert {**lines[-1]} == {
        "type": "summary", "equal": False, "added": 3, "removed": 1, "modified": 3, "same": 9, "by_time": 6,
        "problems": [],
    }  # fmt: skip
    assert command("diff", packed, tree / "none").code == 10


def test_digests_that_agree_are_not_believed_where_content_is_read(tmp_path: Path) -> None:
    places = []
    for name, content in (("a", b"a" * 5000), ("b", b"b" * 5000)):
        archive = Archive()
        archive.file("x", content)
        archive.entries[0]["sha256"] = [sha256(b"a" * 5000).hex()]
        places.append(archive.write(tmp_path / name))
    assert diff(*map(str, places)).equal
    for sides in (places, places[::-1]):
        ran = command("diff", *sides, "--content")
        assert (ran.code, ran.out) == (4, "")
        assert f"{places[1]}: chunk 0: x: its content does not match its digest" in ran.error


def test_files_of_snapshots_without_common_digests_are_counted(packed: Path, tree: Path, tmp_path: Path) -> None:
    pack_tree(tree, tmp_path / "other.dumont", chunk_size=1 << 16, digest="sha256")
    for b, by_time in ((packed, 0), (tmp_path / "other.dumont", 8)):
        assert diff(str(packed), str(b)).by_time == by_time
        assert diff(str(packed), str(b), DiffOptions(content=True)).by_time == 0


def test_with_problems_nobody_says_that_there_is_no_difference() -> None:
    result = DiffResult(same=1, problems=[Problem("x", "Permission denied")])
    assert summary(result).lines == ["no difference found: 1 entry"]


def test_an_error_does_not_end_as_a_difference_does(packed: Path, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert command("diff", packed, tmp_path / "loop").code == 3
    error = json.loads(command("diff", packed, tmp_path / "loop", "--json").error)
    assert (error["type"], error["code"]) == ("error", 3)
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            assert subprocess.run([program(), "diff", packed, tree], stdout=full, timeout=60).returncode == 3


def test_a_file_that_is_called_as_standard_input_is_no_snapshot(packed: Path, tree: Path) -> None:
    (tree / "-").write_bytes(b"")
    with packed.open("rb") as snapshot:
        ran = subprocess.run([program(), "diff", "-", "."], stdin=snapshot, capture_output=True, cwd=tree, timeout=60)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (1, b"+ -")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_a_problem(packed: Path, tree: Path) -> None:
    (tree / "large").chmod(0)
    (tree / "src").chmod(0)
    try:
        ran = command("diff", packed, tree, "--content")
        assert ran.code == 3
        assert "large: Permission denied" in ran.err and "src: Permission denied" in ran.err
        assert "src/" not in ran.out
        assert "no difference:" not in ran.out
    finally:
        (tree / "src").chmod(0o755)


def test_an_older_manifest(target: Path, tmp_path: Path) -> None:
    archive = Archive()
    archive.directory("d")
    archive.file("d/x", b"content")
    archive.hardlink("d/y", "d/x")
    path = archive.write(tmp_path / "x.dumont")
    restore_tree(path, target)
    assert diff(str(path), str(target)).equal
    (target / "d/y").unlink()
    assert changes(diff(str(path), str(target))) == ["- d/y"]
