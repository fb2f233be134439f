"""A restore over existing files: which files are kept, checked, written over or left behind, and the report of `-n`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile import Archive, clear_error, command, killed, restored, sha256, small_archive, tree

from dumont_gpu.errors import DumontError, NoSpaceError, UsageError
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.restore import plan_restore
from dumont_gpu.jobs.restore_plan import RestorePlan
from dumont_gpu.storage import MemorySource
from dumont_gpu.tree.target.journal import NAMES
from dumont_gpu.tree.target.target import Target

CALLS = ("open", "pwrite", "ftruncate", "fsync", "rename", "mkdir", "symlink", "link", "fchmod", "utime", "unlink")


def die_at(number: int, die: Callable[[], None]) -> None:
    """Lets the `number`th call that changes a file system kill this process."""
    calls = [0]

    def hook(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                die()
            return original(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, hook(getattr(os, name)))


def own_files(target: Path) -> list[str]:
    return [path.name for path in target.rglob("*") if path.name.startswith(".dumont")]


# --- nothing of its own is left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", ["always", "if-changed"])
@pytest.mark.parametrize("other_command", [False, True])
def test_a_finished_restore_leaves_nothing_of_a_killed_one_over_an_equal_tree(
    other_command: bool, overwrite: str, tmp_path: Path
) -> None:
    """The killed run left temporary files beside files that are complete, or gone, when the next run begins."""
    data = small_archive().to_bytes()
    restored(data, tmp_path / "whole")
    expected, number, kills = tree(tmp_path / "whole"), 0, 0
    options: dict[str, Any] = {"overwrite": "always", "preserve_special": True} if other_command else {}
    while True:
        number += 1
        target = tmp_path / f"{number}"
        shutil.copytree(tmp_path / "whole", target, symlinks=True)
        for name in ("d/raw", "floats", "hard"):
            os.utime(target / name, ns=(0, 0))

        def work(die: Callable[[], None], number: int = number, target: Path = target) -> None:
            die_at(number, die)
            restored(data, target, overwrite=overwrite)

        if not killed(work):
            break
        kills += 1
        if number % 2 and (target / "high").exists():  # the next run then creates the file under its own name
            (target / "high").unlink()
        restored(data, target, **({"overwrite": overwrite} | options))
        assert tree(target) == expected
        assert own_files(target) == []
    assert kills > 20


def test_a_link_that_was_killed_before_it_was_renamed_is_taken_away(tmp_path: Path) -> None:
    target = tmp_path / "target"
    restored(small_archive(), target)
    (target / "sym").unlink()
    (target / "sym").symlink_to("elsewhere")

    def work(die: Callable[[], None]) -> None:
        rename = os.rename
        os.rename = lambda old, new, **fds: die() if new in ("sym", "hard") else rename(old, new, **fds)  # type: ignore[assignment]
        restored(small_archive(), target, overwrite="always")

    assert killed(work)
    assert [name for name in own_files(target) if name != NAMES[0]]
    for name in ("sym", "hard"):
        (target / name).unlink()
    restored(small_archive(), target, overwrite="always")
    assert own_files(target) == []


def test_a_failed_beginning_leaves_no_journal(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    message = clear_error(lambda: restored(small_archive(), target), NoSpaceError)
    assert message == f"{target}: the disk is full"
    assert os.listdir(target) == []


# --- kept files are checked -------------------------------------------------------------------------------------------


def tamper(path: Path, content: bytes) -> None:
    """Other bytes, of the same number and with the same time."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def test_a_kept_file_with_other_content_is_restored_anew_by_verify(tmp_path: Path) -> None:
    snapshot, target = small_archive().write(tmp_path / "x.dumont"), tmp_path / "target"
    restored(small_archive(), target)
    before = tree(target)
    tamper(target / "d" / "raw", b"As it is")
    tamper(target / "d" / "text", b"x" * 600)  # `hard` is a hard link to this file
    ran = command("restore", snapshot, target, "--overwrite", "if-changed", "--no-sync")
    assert "stored bytes verified" in ran.out
    assert tree(target) != before
    ran = command("restore", snapshot, target, "--overwrite", "if-changed", "--no-sync", "--verify", "--json")
    assert ran.code == 0
    summary = json.loads(ran.out.splitlines()[-1])
    assert (summary["altered"], summary["verified"]) == (2, True)
    assert (
        summary["verified_size"]
        == sum(len(content) for name, (kind, content) in before.items() if kind == "file") - 600
    )
    assert tree(target) == before
    assert (target / "hard").stat().st_ino == (target / "d" / "text").stat().st_ino
    again = command("restore", snapshot, target, "--overwrite", "if-changed", "--no-sync", "--verify")
    assert "content verified" in again.out
    assert "other content" not in again.out


@pytest.mark.parametrize("at", [0, 4999, 5005, 9999])
def test_a_hole_of_a_kept_file_that_was_filled_is_found_by_verify(at: int, target: Path) -> None:
    restored(small_archive(), target)
    content = bytearray((target / "sparse").read_bytes())
    content[at] = 1
    tamper(target / "sparse", bytes(content))
    result = restored(small_archive(), target, overwrite="if-changed", verify=True)
    assert (result.altered, result.verified) == (1, True)
    assert (target / "sparse").read_bytes().strip(b"\0") == b"it is"


def test_a_tampered_file_is_found_by_the_run_that_goes_on_too(target: Path) -> None:
    restored(small_archive(), target)
    os.utime(target / "high", ns=(0, 0))

    def work(die: Callable[[], None]) -> None:
        os.pwrite = lambda *_: die()  # type: ignore[assignment]
        restored(small_archive(), target, overwrite="if-changed")

    assert killed(work)
    tamper(target / "d" / "raw", b"As it is")
    result = restored(small_archive(), target, overwrite="if-changed", verify=True)
    assert (result.resumed, result.altered) == (True, 1)
    assert (target / "d" / "raw").read_bytes() == b"as it is"


def test_what_overwrite_never_keeps_is_not_called_verified(tmp_path: Path) -> None:
    snapshot, target = small_archive().write(tmp_path / "x.dumont"), tmp_path / "target"
    (target / "d").mkdir(parents=True)
    (target / "d" / "raw").write_bytes(b"my own")
    ran = command("restore", snapshot, target, "--overwrite", "never", "--no-sync", "--verify")
    assert ran.code == 0
    assert "content verified" not in ran.out
    assert "verified" in ran.out.splitlines()[0]
    assert "1 entry of the target kept, not verified" in ran.out
    assert (target / "d" / "raw").read_bytes() == b"my own"


# --- the report of a dry run ------------------------------------------------------------------------------------------


def plan(archive: Archive, target: Path, **options: Any) -> RestorePlan:
    root = target.parent if target.parent.exists() else target.parent.parent
    before = everything(root)
    try:
        return plan_restore(MemorySource(archive.to_bytes()), RestoreOptions(**options), str(target))
    finally:
        assert everything(root) == before  # a dry run writes nothing


def everything(path: Path) -> list[tuple[str, os.stat_result]]:
    found = [path, *sorted(path.rglob("*"))]
    return [(str(entry), os.stat_result(entry.lstat()[:7] + (0, *entry.lstat()[8:]))) for entry in found]


def test_dry_run_says_what_would_be_written_kept_and_written_over(target: Path) -> None:
    files = ["d/raw", "d/text", "floats", "hard", "high", "sparse", "sym"]
    for place in (target, target / "there"):
        found = plan(small_archive(), place)
        assert (list(found.new), found.replaced, found.kept, len(found.entries)) == (files, (), 0, 8)
    (target / "d").mkdir(parents=True)
    found = plan(small_archive(), target.parent / "empty")
    assert found.original_size == restored(small_archive(), target.parent / "empty").original_size
    (target / "d" / "raw").write_bytes(b"my own")
    (target / "mine").write_bytes(b"mine")
    found = plan(small_archive(), target, overwrite="always")
    assert (list(found.new), found.replaced, found.kept) == (files[1:], ("d/raw",), 0)
    found = plan(small_archive(), target, overwrite="never")
    assert (list(found.new), found.replaced, found.kept) == (files[1:], (), 1)
    restored(small_archive(), target, overwrite="always")
    found = plan(small_archive(), target, overwrite="if-changed")
    assert (found.new, found.replaced, found.kept, found.fetched_size) == ((), (), 7, 0)
    tamper(target / "d" / "raw", b"As it is")
    assert plan(small_archive(), target, overwrite="if-changed", verify=True).replaced == ("d/raw",)


def test_dry_run_says_what_an_interrupted_restore_lacks(target: Path) -> None:
    def work(die: Callable[[], None]) -> None:
        os.pwrite = lambda *_: die()  # type: ignore[assignment]
        restored(small_archive(), target, owner=True)

    assert killed(work)
    found = plan(small_archive(), target, owner=True)
    assert found.resumed
    assert 0 < found.fetched_size <= found.compressed_size
    assert "other options" in clear_error(lambda: plan(small_archive(), target), UsageError)
    assert not plan(small_archive(), target, overwrite="always").resumed


@pytest.mark.parametrize("kind", ["not empty", "a file", "below a file", "a dangling symlink", "wrong kind"])
def test_dry_run_refuses_what_the_restore_refuses(kind: str, target: Path) -> None:
    options: dict[str, Any] = {}
    place = target
    if kind == "not empty":
        target.mkdir()
        (target / "mine").write_bytes(b"mine")
    elif kind == "a dangling symlink":
        target.symlink_to("nowhere")
    elif kind == "wrong kind":
        (target / "floats").mkdir(parents=True)
        options["overwrite"] = "always"
    else:
        target.write_bytes(b"mine")
        place = target / "below" if kind == "below a file" else target
    messages = set()
    for attempt in (plan, restored):
        with pytest.raises(DumontError) as caught:
            attempt(small_archive(), place, **options)
        messages.add((type(caught.value), str(caught.value)))
    assert len(messages) == 1


def test_dry_run_refuses_where_there_is_no_room(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target.mkdir()

    def full(*_: object) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 10, 0, 0, 9, 9, 9, 0, 255))

    monkeypatch.setattr(Target, "statvfs", full)
    monkeypatch.setattr(os, "statvfs", full)
    for place in (target, target / "new"):
        assert "missing" in clear_error(lambda: plan(small_archive(), place), NoSpaceError)  # noqa: B023


def test_dry_run_on_the_command_line(tmp_path: Path) -> None:
    archive = Archive()
    for number in range(100, 140):
        archive.file(f"{number}", b"content")
    snapshot, target = archive.write(tmp_path / "x.dumont"), tmp_path / "target"
    target.mkdir()
    (target / "105").write_bytes(b"mine")
    ran = command("restore", snapshot, target, "-n")
    assert (ran.code, ran.out) == (2, "")
    assert "is not empty" in ran.error
    ran = command("restore", snapshot, target, "-n", "--overwrite", "always")
    assert "1 file or link written over:\n    105\n" in ran.out
    assert "39 files and links new:\n    100\n" in ran.out
    assert "and 19 more" in ran.out
    assert "139" not in ran.out
    assert "139" in command("restore", snapshot, target, "-n", "-v", "--overwrite", "always").out
    ran = command("restore", snapshot, target, "-n", "--json", "--overwrite", "never")
    summary = json.loads(ran.out)
    assert (summary["new"], summary["replaced"], summary["kept"], summary["num_files"]) == (39, 0, 1, 39)
    assert os.listdir(target) == ["105"]


# --- a volume that is empty -------------------------------------------------------------------------------------------


def test_lost_and_found_does_not_count_as_not_empty(target: Path) -> None:
    archive = small_archive()
    archive.directory("lost+found")
    archive.file("lost+found/#1", b"found")
    archive.entries.sort(key=lambda entry: str(entry["path"]))
    (target / "lost+found").mkdir(parents=True)
    assert plan(archive, target).new
    restored(archive, target)
    assert (target / "lost+found" / "#1").read_bytes() == b"found"
    assert len(tree(target)) == 10


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_lost_and_found_that_is_no_directory_counts(kind: str, target: Path) -> None:
    target.mkdir()
    if kind == "file":
        (target / "lost+found").write_bytes(b"mine")
    else:
        (target / "lost+found").symlink_to("/")
    assert "is not empty" in clear_error(lambda: restored(small_archive(), target), UsageError)


def test_large_kept_files_are_checked_extent_by_extent(target: Path) -> None:
    archive = Archive()
    pieces = [bytes([number]) * 3000 for number in range(4)]
    extents = [[3000 * at, archive.chunk(piece), 0, 3000] for at, piece in enumerate(pieces)]
    archive.file("f", size=12_000, extents=extents, sha256=[sha256(piece).hex() for piece in pieces])
    restored(archive, target)
    content = bytearray((target / "f").read_bytes())
    content[7000] ^= 1
    tamper(target / "f", bytes(content))
    result = restored(archive, target, overwrite="if-changed", verify=True)
    assert (result.altered, result.kept, result.verified_size) == (1, 0, 12_000)
    assert (target / "f").read_bytes() == b"".join(pieces)
