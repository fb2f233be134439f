"""Nothing is written outside the target, whatever stands in the target before the restore or appears during it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile import LZ4, Archive, clear_error, restored, sha256, tree
from support.target_rows import directories_one_by_one

import dumont_gpu
from dumont_gpu.errors import DamagedError, DumontError, UsageError
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.tree import handles
from dumont_gpu.tree.target.directories import DirectoryWriter
from dumont_gpu.tree.target.files import FileWriter
from dumont_gpu.tree.target.links import LinkWriter
from dumont_gpu.tree.target.metadata import Metadata
from dumont_gpu.tree.target.writer import TreeWriter

POLICIES = ("always", "if-changed", "never")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the target that must not change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "precious").write_bytes(b"do not touch")
    return path


def untouched(outside: Path) -> bool:
    return tree(outside) == {"precious": ("file", b"do not touch")}


def nested() -> Archive:
    """Directories two deep, with a file, a link of each kind and a file of two extents in the innermost."""
    archive = Archive()
    archive.directory("a")
    archive.directory("a/b")
    archive.file("a/b/f", b"content" * 100, LZ4)
    archive.hardlink("a/b/hard", "a/b/f")
    one, two = archive.chunk(b"one"), archive.chunk(b"two")
    archive.file("a/b/in-two", size=6, extents=[[0, one, 0, 3], [3, two, 0, 3]],
                 sha256=[sha256(b"one").hex(), sha256(b"two").hex()])  # fmt: skip
    archive.symlink("a/b/sym", "f")
    return archive


# --- files that are in the target already -----------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", POLICIES)
@pytest.mark.parametrize("where", ["a", "a/b"])
def test_existing_symlink_where_a_directory_belongs_is_not_followed(
    where: str, overwrite: str, target: Path, outside: Path
) -> None:
    (target / where).parent.mkdir(parents=True)
    (target / where).symlink_to(outside)
    message = clear_error(lambda: restored(nested(), target, overwrite=overwrite), DumontError)
    assert str(target / where) in message
    assert untouched(outside)
    assert (target / where).is_symlink()


@pytest.mark.parametrize("overwrite", POLICIES)
@pytest.mark.parametrize("name", ["f", "hard", "sym", "in-two"])
@pytest.mark.parametrize("leads_to", ["precious", "missing", "."])
def test_existing_symlink_where_an_entry_belongs_is_not_followed(
    leads_to: str, name: str, overwrite: str, target: Path, outside: Path
) -> None:
    place = target / "a" / "b" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / leads_to)
    restored(nested(), target, overwrite=overwrite)
    assert untouched(outside)
    if overwrite == "never":
        assert place.readlink() == outside / leads_to
    elif name == "sym":
        assert str(place.readlink()) == "f"
    else:
        assert not place.is_symlink()


@pytest.mark.parametrize("overwrite", ["always", "if-changed"])
def test_existing_hard_link_to_the_outside_is_replaced_not_written_through(
    overwrite: str, target: Path, outside: Path
) -> None:
    (target / "a" / "b").mkdir(parents=True)
    for name in ("f", "hard", "in-two", "sym"):
        os.link(outside / "precious", target / "a" / "b" / name)
    restored(nested(), target, overwrite=overwrite)
    assert untouched(outside)
    assert (outside / "precious").stat().st_nlink == 1
    assert (target / "a" / "b" / "f").read_bytes() == b"content" * 100


def test_hard_link_is_made_only_to_a_file_this_restore_wrote(target: Path) -> None:
    (target / "a" / "b").mkdir(parents=True)
    mine = target / "a" / "b" / "f"
    mine.write_bytes(b"my own")
    restored(nested(), target, overwrite="never")
    assert mine.read_bytes() == b"my own"
    assert mine.stat().st_nlink == 1
    assert (target / "a" / "b" / "hard").read_bytes() == b"content" * 100


@pytest.mark.parametrize("overwrite", POLICIES)
def test_existing_fifo_does_not_block(overwrite: str, target: Path) -> None:
    (target / "a" / "b").mkdir(parents=True)
    for name in ("f", "in-two", "hard", "sym"):
        os.mkfifo(target / "a" / "b" / name)
    restored(nested(), target, overwrite=overwrite)
    assert stat.S_ISFIFO((target / "a" / "b" / "f").lstat().st_mode) == (overwrite == "never")


@pytest.mark.parametrize("overwrite", POLICIES)
def test_existing_file_where_a_directory_belongs_is_not_replaced(overwrite: str, target: Path) -> None:
    target.mkdir()
    (target / "a").write_bytes(b"my own")
    clear_error(lambda: restored(nested(), target, overwrite=overwrite), DumontError)
    assert tree(target) == {"a": ("file", b"my own")}


@pytest.mark.parametrize("overwrite", POLICIES)
@pytest.mark.parametrize("name", ["f", "hard", "sym", "in-two"])
def test_existing_directory_where_an_entry_belongs_is_not_replaced(name: str, overwrite: str, target: Path) -> None:
    (target / "a" / "b" / name).mkdir(parents=True)
    before = tree(target)
    clear_error(lambda: restored(nested(), target, overwrite=overwrite), DumontError)
    assert tree(target) == before


def test_target_that_is_not_empty_is_refused_unless_told_what_to_do(target: Path) -> None:
    target.mkdir()
    (target / "mine").write_bytes(b"my own")
    clear_error(lambda: restored(nested(), target), UsageError)
    assert tree(target) == {"mine": ("file", b"my own")}


def test_target_that_is_a_file_or_a_dangling_symlink_is_refused(target: Path, outside: Path) -> None:
    clear_error(lambda: restored(nested(), outside / "precious"), UsageError)
    target.symlink_to(outside / "missing")
    clear_error(lambda: restored(nested(), target), UsageError)
    assert untouched(outside)


def test_nothing_that_was_in_the_target_is_deleted(target: Path) -> None:
    (target / "a" / "b").mkdir(parents=True)
    (target / "a" / "b" / "mine").write_bytes(b"my own")
    (target / "a" / "b" / ".dumont-mine.partial").write_bytes(b"looks like ours")
    restored(nested(), target, overwrite="always")
    assert (target / "a" / "b" / "mine").read_bytes() == b"my own"
    assert (target / "a" / "b" / ".dumont-mine.partial").read_bytes() == b"looks like ours"


# --- links of the archive ---------------------------------------------------------------------------------------------


def test_symlinks_that_point_outside_are_created_and_never_followed(target: Path, outside: Path) -> None:
    archive = Archive()
    for name, leads_to in (
        ("absolute", str(outside / "precious")),
        ("climbing", "../outside/new"),
        ("dir", str(outside)),
    ):
        archive.symlink(name, leads_to)
    restored(archive, target)
    restored(archive, target, overwrite="always")
    assert (target / "dir").readlink() == outside
    assert untouched(outside)


@pytest.mark.parametrize(
    "leads_to", ["d/..", "missing", "dir", "sym", "../outside/precious", "/etc/passwd", "hard", "zz"]
)
def test_hard_link_to_anything_but_an_earlier_file_is_refused(leads_to: str, tmp_path: Path, outside: Path) -> None:
    archive = Archive()
    archive.directory("dir")
    archive.symlink("gym", "../outside/precious")
    archive.hardlink("hard", leads_to)
    archive.file("zz", b"later")
    clear_error(lambda: restored(archive, tmp_path / "target"), DamagedError)
    assert untouched(outside)
    archive.entries[2] = {"path": "hard", "type": "hardlink", "target": "gym"}
    clear_error(lambda: restored(archive, tmp_path / "target"), DamagedError)


def test_hard_link_to_a_hard_link_is_refused(target: Path) -> None:
    archive = Archive()
    archive.file("a", b"content")
    archive.hardlink("b", "a")
    archive.hardlink("c", "b")
    clear_error(lambda: restored(archive, target), DamagedError)


def test_symlinks_are_created_after_every_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for name in ("pwrite", "mkdir", "symlink", "link"):
        record(monkeypatch, name, lambda *arguments, name=name, **_: order.append(name))
    archive = nested()
    archive.directory("z")
    archive.file("z/last", b"content")
    restored(archive, target)
    assert order.index("symlink") > max(at for at, name in enumerate(order) if name in ("pwrite", "mkdir"))
    assert order[-2:] == ["symlink", "link"]


def record(monkeypatch: pytest.MonkeyPatch, name: str, hook: Callable[..., Any]) -> None:
    """Calls `hook` with the arguments of every call of os.`name`, before it."""
    original = getattr(os, name)

    def call(*arguments: Any, **named: Any) -> Any:
        hook(*arguments, **named)
        return original(*arguments, **named)

    monkeypatch.setattr(os, name, call)


# --- how places are reached -------------------------------------------------------------------------------------------


def test_every_component_is_opened_from_its_parent_without_following(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int, int | None]] = []

    def note(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        opened.append((os.fspath(path), flags, dir_fd))

    record(monkeypatch, "open", note)
    monkeypatch.setattr(handles, "_MAX_OPEN", 0)
    restored(nested(), target)
    restored(nested(), target, overwrite="always")
    below = [(path, flags) for path, flags, dir_fd in opened if dir_fd is not None]
    assert {path for path, _, dir_fd in opened if dir_fd is None} == {str(target)}
    assert {path for path, _ in below} >= {"a", "b", "f", "in-two"}
    assert all("/" not in path for path, _ in below)
    assert all(flags & os.O_NOFOLLOW for _, flags in below)
    assert all(flags & os.O_EXCL for _, flags in below if flags & os.O_CREAT)
    assert all(flags & os.O_DIRECTORY for path, flags in below if path in ("a", "b"))


def test_neither_tarfile_nor_shutil_writes_a_tree() -> None:
    """tarfile parses the headers of a tar that is packed, and no more: what it extracts may go anywhere."""
    package = Path(dumont_gpu.__file__).parent
    # The benchmark makes and removes trees of its own; the layers (test_imports.py) keep it out of every job.
    modules = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] != "bench"]
    # shutil.which only looks; everything else of shutil follows symlinks.
    used = [line for path in modules for line in path.read_text(encoding="utf-8").splitlines()]
    used = [line for line in used if line != "import shutil" and "shutil.which" not in line]
    assert not [line for line in used if ".extract(" in line or ".extractall(" in line or "shutil" in line]


# --- directories swapped during the restore ---------------------------------------------------------------------------


def swap(path: Path, outside: Path) -> None:
    """Does an attacker's work in the target: replaces a directory by a symlink."""
    path.rename(path.with_name("swapped-away"))
    path.symlink_to(outside)


# The steps of a restore between which an attacker may act: class and method.
STEPS: dict[str, tuple[type, str]] = {
    "make directory": (DirectoryWriter, "make"),
    "write": (FileWriter, "write"),
    "write small": (FileWriter, "write_small"),
    "complete": (FileWriter, "_complete"),
    "set metadata": (Metadata, "set"),
    "finish": (TreeWriter, "finish"),
    "make symlink": (LinkWriter, "make_symlink"),
    "make hard link": (LinkWriter, "make_hard_link"),
    "finish directories": (DirectoryWriter, "finish"),
    "finish directory": (DirectoryWriter, "_finish_directory"),
}


def before_call(monkeypatch: pytest.MonkeyPatch, step: str, number: int, act: Callable[[], None]) -> list[int]:
    """Calls `act` just before the `number`th step; the list holds the number of steps so far."""
    owner, name = STEPS[step]
    original = getattr(owner, name)
    calls = [0]

    def call(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            act()
        return original(self, *arguments)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("most_open", [0, 128], ids=["every handle opened anew", "handles kept"])
@pytest.mark.parametrize("where", ["a", "a/b"])
@pytest.mark.parametrize(
    ("method", "number"),
    [("make directory", 2), ("write", 1), ("write", 2), ("write small", 1), ("complete", 1), ("set metadata", 1), ("finish", 1)]
    + [("make symlink", 1), ("make hard link", 1), ("finish directories", 1), ("finish directory", 1)],
)  # fmt: skip
def test_symlink_swapped_for_directory_does_not_escape(
    method: str, number: int, where: str, most_open: int, target: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "a/b" and method == "make directory":
        pytest.skip("it is not there yet")
    monkeypatch.setattr(handles, "_MAX_OPEN", most_open)
    monkeypatch.setattr("dumont_gpu.jobs.restore_stages.writer_count", lambda threads: 1)
    if method == "make directory":
        directories_one_by_one(monkeypatch)
    before = outside.stat()
    calls = before_call(monkeypatch, method, number, lambda: swap(target / where, outside))
    try:
        restored(nested(), target, owner=method == "finish directory")  # which only --owner needs
    except DumontError as error:
        assert str(error).isprintable()
    assert calls[0] >= number
    assert untouched(outside)
    after = outside.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert (outside / "precious").stat().st_nlink == 1


def test_target_swapped_for_a_symlink_does_not_escape(
    target: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_call(monkeypatch, "write", 1, lambda: swap(target, outside))
    restored(nested(), target)
    assert untouched(outside)


def put(kind: str, path: Path, outside: Path) -> None:
    """Puts something else at `path`."""
    if kind == "symlink":
        path.symlink_to(outside / "precious")
    elif kind == "hard link":
        os.link(outside / "precious", path)
    elif kind == "other file":
        path.write_bytes(b"someone else's")
    elif kind == "fifo":
        os.mkfifo(path)
        os.open(path, os.O_RDWR)  # so that nobody waits for a reader
    elif kind == "directory":
        path.mkdir()


def replace(kind: str, path: Path, outside: Path) -> None:
    """Puts something else where a file is, while its inode still exists."""
    path.rename(path.with_name("swapped-away"))
    put(kind, path, outside)


def replace_with_same_inode(kind: str, path: Path, outside: Path) -> None:
    """Puts something else where a file was: file systems give inode numbers away again at once."""
    number = path.stat().st_ino
    path.unlink()
    put(kind, path, outside)
    if path.lstat().st_ino != number:
        pytest.skip("this file system does not use an inode number again")


SWAPS = [(replace, kind) for kind in ("symlink", "hard link", "other file", "fifo", "directory", "nothing")]


@pytest.mark.parametrize(
    ("change", "kind"),
    SWAPS + [(replace_with_same_inode, kind) for kind in ("symlink", "other file", "fifo")],
)
def test_swapped_leader_of_a_hard_link_is_not_linked_to(
    change: Callable[[str, Path, Path], None], kind: str, target: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_call(monkeypatch, "make hard link", 1, lambda: change(kind, target / "a" / "b" / "f", outside))
    clear_error(lambda: restored(nested(), target), DumontError)
    assert not os.path.lexists(target / "a" / "b" / "hard")
    assert (outside / "precious").stat().st_nlink == (2 if kind == "hard link" else 1)


@pytest.mark.parametrize(("change", "kind"), [*SWAPS, (replace_with_same_inode, "other file")])
def test_file_swapped_between_its_extents_is_an_error(
    change: Callable[[str, Path, Path], None], kind: str, target: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumont_gpu.jobs.restore_stages.writer_count", lambda threads: 1)
    before_call(monkeypatch, "write", 2, lambda: change(kind, target / "a" / "b" / "in-two", outside))
    clear_error(lambda: restored(nested(), target), DumontError)
    assert untouched(outside)


def test_file_swapped_for_a_fifo_does_not_block(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = target / "a" / "b" / "in-two"
    flags: list[int] = []

    def act() -> None:
        file.unlink()
        os.mkfifo(file)
        os.open(file, os.O_RDWR)  # or this test would block, too

    monkeypatch.setattr("dumont_gpu.jobs.restore_stages.writer_count", lambda threads: 1)
    before_call(monkeypatch, "write", 3, act)
    record(monkeypatch, "open", lambda path, flag, *_, **__: flags.append(flag) if path == "in-two" else None)
    clear_error(lambda: restored(nested(), target), DumontError)
    assert flags[-1] & os.O_NONBLOCK


def test_entry_that_appears_meanwhile_is_not_written_through(
    target: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symlink planted under a file's name, between the check for an empty target and the file's creation."""
    for overwrite in ("refuse", *POLICIES):
        with monkeypatch.context() as patch:
            place = target / overwrite / "a" / "b" / "f"
            before_call(patch, "write small", 1, lambda place=place: place.symlink_to(outside / "precious"))  # type: ignore[misc]
            try:
                restored(nested(), target / overwrite, overwrite=overwrite)
            except DumontError as error:
                assert str(error).isprintable()
        assert untouched(outside)


def test_files_and_directories_are_private_until_they_are_complete(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    original = FileWriter._complete

    def complete(self: FileWriter, fd: int, parent: int, name: str, entry: FileEntry, state: Any) -> None:
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode) | stat.S_IMODE(os.fstat(parent).st_mode))
        original(self, fd, parent, name, entry, state)

    monkeypatch.setattr(FileWriter, "_complete", complete)
    restored(nested(), target)
    assert modes
    assert not any(mode & 0o077 for mode in modes)
