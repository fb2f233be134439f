"""The same restore again: nothing to do if every entry is there, and a refusal that says what would happen if not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile import clear_error, command, restored, small_archive
from support.snapshots import pack_tree, restore_tree

from dumont_gpu.errors import UsageError

NAMES = [b"plain", b"with space", b"with:colon", b"not utf-8 \xff", b"line\nfeed"]


@pytest.fixture
def packed(source: Path, snapshot: Path) -> Path:
    (source / "folder").mkdir()
    for name in NAMES:
        (Path(os.fsdecode(os.fsencode(source) + b"/folder/" + name))).write_bytes(name)
    (source / "empty").mkdir()
    (source / "link").symlink_to("folder")
    os.link(source / "folder/plain", source / "hard")
    pack_tree(source, snapshot)
    return snapshot


def states(tree: Path) -> dict[str, tuple[int, ...]]:
    """Returns what a write would change of every entry."""
    paths = [tree, *tree.rglob("*")]
    found = {str(path): path.lstat() for path in paths}
    return {path: (s.st_ino, s.st_mode, s.st_mtime_ns, s.st_ctime_ns, s.st_nlink) for path, s in found.items()}


def test_the_same_restore_again_writes_nothing(packed: Path, target: Path) -> None:
    restore_tree(packed, target)
    before = states(target)
    again = restore_tree(packed, target)
    assert (again.already_there, again.num_files, again.fetched_size, again.resumed) == (True, 0, 0, False)
    assert again.kept == len(NAMES) + 2
    assert states(target) == before


def test_the_command_line_says_so_and_ends_with_success(packed: Path, target: Path) -> None:
    assert command("restore", packed, target).code == 0
    before = states(target)
    ran = command("restore", packed, target)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("already there: nothing to do (7 entries besides directories)")
    ran = command("restore", packed, target, "--json")
    summary = json.loads(ran.out.splitlines()[-1])
    assert (ran.code, summary["type"], summary["already_there"]) == (0, "summary", True)
    ran = command("restore", packed, target, "-n")
    assert (ran.code, ran.out[:14]) == (0, "already there:")
    assert json.loads(command("restore", packed, target, "-n", "--json").out)["already_there"]
    assert states(target) == before


def test_what_lies_beside_does_not_matter(packed: Path, target: Path) -> None:
    """A start-up script restores at every boot into a tree where somebody works."""
    restore_tree(packed, target)
    (target / "folder" / "new").write_bytes(b"mine")
    assert restore_tree(packed, target).already_there
    assert (target / "folder" / "new").read_bytes() == b"mine"


def _replace(path: Path, content: bytes) -> None:
    """Writes other content with the size and time of a file's own."""
    time = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(time, time))


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: (t / "folder/with space").write_bytes(b"longer than it was"), "write over 1 file or link (folder/with space)"),
        (lambda t: os.utime(t / "folder/with:colon", ns=(0, 0)), "write over 1 file or link (folder/with:colon)"),
        (lambda t: (t / "folder/with space").unlink(), "add 1 entry (folder/with space)"),
        (lambda t: (t / "empty").rmdir(), "add 1 entry (empty)"),
        (lambda t: ((t / "link").unlink(), (t / "link").symlink_to("else")), "write over 1 file or link (link)"),
        (lambda t: ((t / "hard").unlink(), (t / "hard").write_bytes(b"plain")), "write over 1 file or link (hard)"),
        (lambda t: _as_directory(t / "hard"), "stop at 1 entry of another type (hard)"),
        (lambda t: ((t / "empty").rmdir(), (t / "empty").symlink_to("folder")), "stop at 1 entry of another type (empty)"),
    ],
)  # fmt: skip
def test_any_difference_is_refused_and_named(
    change: Callable[[Path], Any], says: str, packed: Path, target: Path
) -> None:
    restore_tree(packed, target)
    change(target)
    before = states(target)
    message = clear_error(lambda: restore_tree(packed, target), UsageError)
    assert "is not empty: --overwrite always would " in message
    assert f"{says} and keep 8 that are the same;" in message or f"keep 8 that are the same and {says}" in message
    assert states(target) == before


def test_a_foreign_directory_is_refused_with_counts_and_the_first_names(packed: Path, target: Path) -> None:
    target.mkdir()
    (target / "mine").write_bytes(b"mine")
    message = clear_error(lambda: restore_tree(packed, target), UsageError)
    assert "would add 9 entries (empty, folder, folder/line\\nfeed, …); choose another" in message
    assert os.listdir(target) == ["mine"]


def test_a_symlink_in_place_of_a_directory_is_not_followed(packed: Path, target: Path, tmp_path: Path) -> None:
    restore_tree(packed, target)
    (target / "folder").rename(tmp_path / "elsewhere")
    (target / "folder").symlink_to(tmp_path / "elsewhere")
    assert "stop at" in clear_error(lambda: restore_tree(packed, target), UsageError)


def test_content_counts_where_it_is_verified(packed: Path, target: Path) -> None:
    restore_tree(packed, target)
    assert restore_tree(packed, target, verify=True).verified
    _replace(target / "folder/with space", b"WITH SPACE")
    assert restore_tree(packed, target).already_there  # by size and time
    message = clear_error(lambda: restore_tree(packed, target, verify=True), UsageError)
    assert "write over 1 file or link (folder/with space)" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["folder/plain", "folder", "link"])
def test_owners_count_where_they_are_restored(name: str, packed: Path, source: Path, target: Path) -> None:
    pack_tree(source, packed, owner=True)
    restore_tree(packed, target, owner=True)
    assert restore_tree(packed, target, owner=True).already_there
    os.chown(target / name, 1234, -1, follow_symlinks=False)
    assert restore_tree(packed, target).already_there
    assert "is not empty" in clear_error(lambda: restore_tree(packed, target, owner=True), UsageError)


def test_modes_do_not_count(packed: Path, target: Path) -> None:
    restore_tree(packed, target)
    (target / "folder/plain").chmod(0o755)
    assert restore_tree(packed, target).already_there


def test_a_file_that_a_restore_has_only_begun_is_not_there(packed: Path, target: Path) -> None:
    restore_tree(packed, target)
    (target / "folder/with space").chmod(0o1600)
    assert "write over 1" in clear_error(lambda: restore_tree(packed, target), UsageError)


def test_a_part_is_compared_with_that_part(packed: Path, target: Path) -> None:
    restore_tree(packed, target, include=("/folder",))
    assert restore_tree(packed, target, include=("/folder",)).already_there
    assert "add 3 entries" in clear_error(lambda: restore_tree(packed, target), UsageError)


def test_directories_without_rights_are_left_as_they_are(packed: Path, target: Path) -> None:
    """Nothing may change, not even the mode of a directory that cannot be searched: not as root, it counts as different."""
    restore_tree(packed, target)
    (target / "folder").chmod(0)
    try:
        if os.geteuid():
            assert "stop at" in clear_error(lambda: restore_tree(packed, target), UsageError)
        else:
            assert restore_tree(packed, target).already_there
        assert (target / "folder").stat().st_mode & 0o7777 == 0
    finally:
        (target / "folder").chmod(0o755)


def test_an_older_archive_is_compared_too(target: Path) -> None:
    restored(small_archive(), target)
    assert restored(small_archive(), target).already_there
