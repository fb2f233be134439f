"""Targets that cannot hold every entry: a refused entry is a problem, and all other entries are restored.

File systems are played by failing calls, so that this runs anywhere; the calls are those that NTFS, exFAT, FAT and s3fs
were seen to refuse.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hostile import Archive, clear_error, command, killed, restored, sha256, small_archive, tree
from support.target_rows import directories_one_by_one, files_fail

from dumont_gpu import native
from dumont_gpu.errors import DumontError, NoSpaceError
from dumont_gpu.format.names import to_utf8
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.restore import RestoreResult, restore
from dumont_gpu.storage import MemorySource
from dumont_gpu.tree.target import target as target_module
from dumont_gpu.tree.target.directories import DirectoryWriter
from dumont_gpu.tree.target.journal import NAMES
from dumont_gpu.tree.target.temporary import temporary_name
from dumont_gpu.tree.target.traits import Traits
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

OTHER_USER = 65_534


def reasons(result: RestoreResult) -> dict[str, str]:
    return {problem.path: problem.reason for problem in result.problems}


def refuse(
    monkeypatch: pytest.MonkeyPatch, call: str, code: int, applies: Callable[..., bool] = lambda *_, **__: True
) -> None:
    """Lets os.`call` fail with `code` where `applies` says so of its arguments."""
    original = getattr(os, call)

    def refusing(*arguments: Any, **named: Any) -> Any:
        if applies(*arguments, **named):
            raise OSError(code, os.strerror(code))
        return original(*arguments, **named)

    monkeypatch.setattr(os, call, refusing)


def refuse_names(monkeypatch: pytest.MonkeyPatch, code: int, bad: str) -> None:
    """Makes the file system refuse every name that contains `bad`, in Python's calls and in the kernels'."""

    def is_bad(name: Any, *_: Any, **__: Any) -> bool:
        return isinstance(name, str) and bad in name

    for call in ("open", "mkdir", "symlink", "stat", "link"):
        at = 1 if call in ("symlink", "link") else 0

        def applies(*arguments: Any, at: int = at, **named: Any) -> bool:
            return named.get("dir_fd", named.get("dst_dir_fd")) is not None and is_bad(arguments[at])

        refuse(monkeypatch, call, code, applies)
    files_fail(monkeypatch, lambda path: code if bad in path.rpartition("/")[2] else None)
    directories_one_by_one(monkeypatch)


# --- names ------------------------------------------------------------------------------------------------------------


def several_names() -> Archive:
    """A file, a large file, an empty file, a symlink and a directory with "bad" names; the same with good names."""
    archive = Archive()
    for name in ("bad", "good"):
        archive.directory(f"{name}-d")
        archive.directory(f"{name}-d/e")
        archive.file(f"{name}-d/e/f", b"inner")
        archive.file(f"{name}-empty")
        archive.file(f"{name}-f", b"content")
        one, two = archive.chunk(b"one" * 1000), archive.chunk(b"two" * 1000)
        archive.file(f"{name}-large", size=6000, extents=[[0, one, 0, 3000], [3000, two, 0, 3000]],
                     sha256=[sha256(b"one" * 1000).hex(), sha256(b"two" * 1000).hex()])  # fmt: skip
        archive.symlink(f"{name}-sym", "x")
    return archive


@pytest.mark.parametrize("code", [errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.EOPNOTSUPP, errno.EPERM])
def test_a_name_that_the_file_system_refuses_is_that_entrys_problem(
    code: int, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored(several_names(), target.with_name("whole"))
    expected = {path: value for path, value in tree(target.with_name("whole")).items() if "bad" not in path}
    refuse_names(monkeypatch, code, "bad")
    result = restored(several_names(), target)
    monkeypatch.undo()
    assert tree(target) == expected
    assert list(reasons(result)) == ["bad-d", "bad-d/e", "bad-d/e/f", "bad-empty", "bad-f", "bad-large", "bad-sym"]
    assert all(os.strerror(code) in reason for reason in reasons(result).values())
    assert (result.num_files, result.original_size) == (len(expected), len(b"inner" + b"content") + 6000)


def test_a_name_of_which_the_file_system_says_that_nothing_is_there(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exFAT, of a name with a colon."""
    refuse_names(monkeypatch, errno.ENOENT, "bad")
    result = restored(several_names(), target)
    assert len(result.problems) == 7
    assert set(reasons(result).values()) == {"this file system cannot have such a name"}


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOSPC, errno.EDQUOT])
def test_what_the_file_system_itself_fails_at_ends_the_restore(
    code: int, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_names(monkeypatch, code, "bad-f")
    clear_error(lambda: restored(several_names(), target), (DumontError, NoSpaceError)[code in (28, errno.EDQUOT)])
    assert (target / NAMES[0]).exists()


def test_a_restore_with_problems_ends_with_exit_code_3_and_a_list(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("f", b"content")
    archive.symlink("x", "y" * 5000)
    snapshot = archive.write(tmp_path / "x.dumont")
    ran = command("restore", snapshot, tmp_path / "target", "--no-sync")
    assert ran.code == 3
    assert ran.error == "dumont-gpu: x: File name too long"
    assert "1 entry could not be restored as it was" in ran.out
    assert tree(tmp_path / "target") == {"f": ("file", b"content")}
    ran = command("restore", snapshot, tmp_path / "target", "--no-sync", "--overwrite", "always", "--json")
    assert ran.code == 3
    assert json.loads(ran.out.splitlines()[-1])["problems"] == [{"path": "x", "reason": "File name too long"}]


def test_a_hard_link_takes_the_place_of_a_file_whose_name_is_refused(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive()
    archive.file("bad", b"content" * 100)
    archive.hardlink("bad-too", "bad")
    archive.hardlink("good", "bad")
    archive.hardlink("good-too", "bad")
    refuse_names(monkeypatch, errno.EILSEQ, "bad")
    result = restored(archive, target)
    assert list(reasons(result)) == ["bad", "bad-too"]
    assert tree(target) == dict.fromkeys(("good", "good-too"), ("file", b"content" * 100))
    assert (target / "good").stat().st_nlink == 2


def test_a_file_larger_than_the_file_system_can_hold_leaves_nothing(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "ftruncate", errno.EFBIG, lambda fd, size: size == 6000)
    result = restored(several_names(), target)
    assert reasons(result) == dict.fromkeys(("bad-large", "good-large"), "File too large")
    assert not [name for name in os.listdir(target) if "large" in name or "dumont" in name]


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS])
@pytest.mark.parametrize("overwrite", ["refuse", "always"])
def test_a_hard_link_becomes_a_copy_where_there_are_none(
    overwrite: str, code: int, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if overwrite == "always":
        restored(small_archive(), target)
    refuse(monkeypatch, "link", code)
    result = restored(small_archive(), target, overwrite=overwrite)
    assert (result.problems, result.copied_links) == ((), 1)
    assert (target / "hard").read_bytes() == (target / "d" / "text").read_bytes() == b"again and " * 60
    one, other = (target / "hard").stat(), (target / "d" / "text").stat()
    assert one.st_ino != other.st_ino
    assert (one.st_mode, one.st_mtime_ns) == (other.st_mode, other.st_mtime_ns)
    assert not [path for path in target.rglob("*") if "dumont" in path.name]


def test_a_copy_of_a_sparse_file_keeps_its_holes(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()
    archive.file("a", size=50 << 20, extents=[[20 << 20, archive.chunk(b"data" * 1024), 0, 4096]],
                 sha256=[sha256(b"data" * 1024).hex()])  # fmt: skip
    archive.hardlink("b", "a")
    refuse(monkeypatch, "link", errno.EPERM)
    restored(archive, target)
    assert (target / "b").read_bytes() == (target / "a").read_bytes()
    assert (target / "b").stat().st_blocks <= (target / "a").stat().st_blocks + 8


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_symlink_that_cannot_be_is_listed(code: int, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "symlink", code)
    result = restored(small_archive(), target)
    assert reasons(result) == {"sym": f"there can be no symlink here: {os.strerror(code)}"}
    assert not os.path.lexists(target / "sym")


# --- files that are in the target already -----------------------------------------------------------------------------


def test_a_file_that_must_not_be_replaced_is_listed_and_stays(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chattr +i`, under --overwrite always."""
    (target / "d").mkdir(parents=True)
    (target / "d" / "raw").write_bytes(b"immutable")
    refuse(monkeypatch, "rename", errno.EPERM, lambda old, new, **_: new == "raw")
    result = restored(small_archive(), target, overwrite="always")
    assert reasons(result) == {"d/raw": "Operation not permitted"}
    assert (target / "d" / "raw").read_bytes() == b"immutable"
    assert not [path for path in target.rglob("*") if "dumont" in path.name]
    assert len(tree(target)) == 8


@pytest.mark.parametrize("overwrite", ["always", "if-changed"])
def test_a_file_of_somebody_else_under_a_temporary_name_is_not_deleted(overwrite: str, target: Path) -> None:
    (target / "d").mkdir(parents=True)
    (target / "d" / "raw").write_bytes(b"old")
    mine = target / "d" / temporary_name("raw")
    mine.write_bytes(b"my own")
    result = restored(small_archive(), target, overwrite=overwrite)
    assert list(reasons(result)) == ["d/raw"]
    assert mine.name in reasons(result)["d/raw"]
    assert mine.read_bytes() == b"my own"
    assert (target / "d" / "raw").read_bytes() == b"old"


# --- two names for the same file --------------------------------------------------------------------------------------


def folded(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Lets a file system ignore case and normalise Unicode: a name leads to the file of a similar name."""
    originals = {name: getattr(os, name) for name in ("open", "mkdir", "stat", "symlink", "unlink", "rename", "link")}
    listdir = os.listdir

    def look(name: str) -> str:
        return unicodedata.normalize("NFC", to_utf8(name)).casefold()

    def real(name: Any, fd: int | None) -> Any:
        if fd is None or not isinstance(name, str) or name == ".":
            return name
        return next((other for other in listdir(fd) if look(other) == look(name)), name)

    def one(call: str) -> Callable[..., Any]:
        def act(path: Any, *rest: Any, **named: Any) -> Any:
            return originals[call](real(path, named.get("dir_fd")), *rest, **named)

        return act

    def two(call: str) -> Callable[..., Any]:
        def act(old: Any, new: Any, **named: Any) -> Any:
            old = real(old, named.get("src_dir_fd"))
            return originals[call](old, real(new, named.get("dst_dir_fd", named.get("dir_fd"))), **named)

        return act

    for name in ("open", "mkdir", "stat", "unlink"):
        monkeypatch.setattr(os, name, one(name))
    for name in ("symlink", "rename", "link"):
        monkeypatch.setattr(os, name, two(name))

    def is_taken(path: str) -> int | None:
        folder, _, name = path.rpartition("/")
        others = listdir(root / folder)
        return errno.EEXIST if any(look(other) == look(name) for other in others) else None

    files_fail(monkeypatch, is_taken)
    directories_one_by_one(monkeypatch)


def twins() -> Archive:
    archive = Archive()
    archive.directory("Dir")
    archive.file("Dir/one", b"in Dir")
    archive.file("README", b"the first")
    archive.symlink("Sym", "first")
    archive.directory("dir")
    archive.file("dir/two", b"in dir")
    archive.file("readme", b"2nd")
    archive.symlink("sym", "second")
    archive.file("\u00e9", b"composed")
    archive.file("e\u0301", b"decomposed")
    archive.entries.sort(key=lambda entry: str(entry["path"]).encode())
    return archive


@pytest.mark.parametrize("overwrite", ["refuse", "always", "if-changed", "never"])
def test_two_names_that_are_one_here_do_not_overwrite_each_other(
    overwrite: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded(monkeypatch, target)
    monkeypatch.setattr("dumont_gpu.jobs.restore_stages.writer_count", lambda threads: 1)
    first = restored(twins(), target, overwrite=overwrite)
    assert len(first.problems) == 5
    assert all("takes its name for that of" in reason for reason in reasons(first).values())
    lost = set(reasons(first))
    assert {path.casefold() for path in lost} >= {"dir", "dir/two", "readme", "sym"}
    found = tree(target)
    assert len(found) == 5
    whole = {
        "README": b"the first",
        "readme": b"2nd",
        "\u00e9": b"composed",
        "e\u0301": b"decomposed",
        "Dir/one": b"in Dir",
    }
    for path, (kind, content) in found.items():
        assert path not in lost
        assert kind != "file" or content == whole[to_utf8(path)]
    if overwrite == "always":
        again = restored(twins(), target, overwrite=overwrite)
        assert (tree(target), reasons(again)) == (found, reasons(first))


# --- modes and times that a mount ignores -----------------------------------------------------------------------------


def without_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount as NTFS's by default: every file has the same mode."""
    original_open, original_mkdir = os.open, os.mkdir

    def opening(path: Any, flags: int, mode: int = 0o777, **named: Any) -> int:
        return original_open(path, flags, 0o777 if flags & os.O_CREAT else mode, **named)

    def making(path: Any, mode: int = 0o777, **named: Any) -> None:
        original_mkdir(path, 0o777, **named)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "mkdir", making)
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: None)
    monkeypatch.setattr(native, "finish_directories", lambda *_: iter(()))
    directories_one_by_one(monkeypatch)


def test_modes_that_a_mount_ignores_are_said_once(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_modes(monkeypatch)
    before = os.umask(0)
    try:
        result = restored(small_archive(), target)
    finally:
        os.umask(before)
    assert (result.ignored, result.problems) == (("modes",), ())
    monkeypatch.undo()
    restored(small_archive(), tmp_path / "good")
    assert tree(target) == tree(tmp_path / "good")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_times_that_a_mount_refuses_are_said_once(code: int, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "utime", code)
    result = restored(several_names(), target)
    assert (result.ignored, result.problems) == (("times",), ())


def test_a_mode_that_one_entry_cannot_have_is_its_problem(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "fchmod", errno.EPERM, lambda fd, mode: os.fstat(fd).st_size == 6000)
    result = restored(several_names(), target)
    assert result.ignored == ()
    assert reasons(result) == dict.fromkeys(
        ("bad-large", "good-large"), "its mode cannot be set: Operation not permitted"
    )


def test_a_killed_restore_goes_on_where_no_mode_can_mark_what_it_wrote(tmp_path: Path) -> None:
    archive = small_archive()
    data = archive.to_bytes()
    restored(data, tmp_path / "good")
    expected, number = tree(tmp_path / "good"), 0

    def run(target: Path, die: Callable[[], None] | None, number: int) -> RestoreResult:
        with pytest.MonkeyPatch.context() as patch:
            os.umask(0)
            without_modes(patch)
            if die is not None:
                die_at(patch, number, die)
            return restore(MemorySource(data), str(target), RestoreOptions(sync=False, jobs=1))

    def die_at(patch: pytest.MonkeyPatch, number: int, die: Callable[[], None]) -> None:
        calls = [0]
        for name in ("open", "pwrite", "ftruncate", "rename", "mkdir", "symlink", "link", "utime", "unlink"):
            original = getattr(os, name)

            def call(*arguments: Any, original: Any = original, **named: Any) -> Any:
                calls[0] += 1
                if calls[0] == number:
                    die()
                return original(*arguments, **named)

            patch.setattr(os, name, call)

    before = os.umask(0)
    resumed = 0
    try:
        while True:
            number += 1
            target = tmp_path / f"{number}"
            if not killed(lambda die, target=target, number=number: run(target, die, number)):  # type: ignore[misc]
                break
            if not (target / "sym").exists() or (target / NAMES[0]).exists():
                resumed += run(target, None, 0).resumed
            assert tree(target) == expected
    finally:
        os.umask(before)
    assert resumed > 15


def test_an_entry_with_a_name_of_our_own_is_refused_where_names_are_the_only_mark(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive()
    archive.file(NAMES[0], b"bait")
    archive.file(temporary_name("f"), b"bait, too")
    archive.file("f", b"content")
    archive.entries.sort(key=lambda entry: str(entry["path"]))
    without_modes(monkeypatch)
    before = os.umask(0)
    try:
        result = restored(archive, target)
    finally:
        os.umask(before)
    assert sorted(reasons(result)) == sorted([NAMES[0], temporary_name("f")])
    assert tree(target) == {"f": ("file", b"content")}


def test_a_mount_that_forgets_what_is_set_on_an_open_file_gets_it_once_more(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s3fs."""
    monkeypatch.setattr(target_module, "traits_of", lambda fd, folder, name: Traits(only_closed=True))
    refuse(monkeypatch, "link", errno.EOPNOTSUPP)
    fresh: set[int] = set()
    opening, utime, fchmod, close = os.open, os.utime, os.fchmod, os.close

    def open_file(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        fd = opening(path, flags, *rest, **named)
        if flags & os.O_CREAT:
            fresh.add(fd)
        return fd

    def close_file(fd: int) -> None:
        fresh.discard(fd)
        close(fd)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "close", close_file)
    monkeypatch.setattr(os, "utime", lambda fd, *a, **k: None if fd in fresh else utime(fd, *a, **k))
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: None if fd in fresh else fchmod(fd, mode))
    restored(small_archive(), target)
    monkeypatch.undo()
    restored(small_archive(), target.with_name("good"))
    for name in ("d/raw", "d/text", "hard", "sparse"):
        found, good = (target / name).stat(), (target.with_name("good") / name).stat()
        assert (found.st_mode, found.st_mtime_ns) == (good.st_mode, good.st_mtime_ns)


# --- as another user --------------------------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that any user reaches and may write to."""
    path = Path(tempfile.mkdtemp(prefix="dumont-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def as_a_user(work: Callable[[], Any]) -> Any:
    """Calls `work` without root's rights, in another process if need be; returns its result, or its exception."""
    if os.geteuid():
        return work()
    with tempfile.TemporaryDirectory(prefix="dumont-test-") as warm:
        restored(small_archive(), Path(warm) / "target", owner=True)  # loads late imports, which root alone may reach
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(OTHER_USER)
            os.setuid(OTHER_USER)
            result: Any = work()
        except BaseException as error:
            result = error
        os.write(writing, pickle.dumps(result))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    result = pickle.loads(data)
    if isinstance(result, BaseException):
        raise result
    return result


def read_only_tree() -> Archive:
    archive = Archive(head={"root": {"mode": 0o555, "mtime_ns": 0}})
    archive.directory("none")["mode"] = 0
    archive.file("none/y", b"y")
    archive.directory("ro")["mode"] = 0o555
    archive.directory("ro/sub")["mode"] = 0o555
    archive.symlink("ro/sub/sym", "x")
    archive.file("ro/x", b"content")
    archive.hardlink("ro/z", "ro/x")
    return archive


def modes(root: Path) -> dict[str, int]:
    """The modes of the directories that another user can read, too."""
    return {name: stat.S_IMODE((root / name).stat().st_mode) for name in (".", "none", "ro", "ro/sub")}


MODES = {".": 0o555, "none": 0, "ro": 0o555, "ro/sub": 0o555}


@pytest.mark.parametrize("overwrite", ["always", "if-changed", "never"])
@pytest.mark.parametrize("missing", [False, True])
def test_read_only_directories_are_filled_again_the_first_time(missing: bool, overwrite: str, place: Path) -> None:
    target = place / "r"

    def work() -> list[Any]:
        restored(read_only_tree(), target)
        if missing:
            (target / "ro").chmod(0o755)
            (target / "ro" / "x").unlink()
            (target / "ro").chmod(0o555)
        result = restored(read_only_tree(), target, overwrite=overwrite)
        return [result.problems, (target / "ro" / "x").read_bytes(), modes(target)]

    assert as_a_user(work) == [(), b"content", MODES]


def test_read_only_directories_are_read_only_again_after_a_failure(place: Path) -> None:
    target = place / "r"

    def work() -> list[Any]:
        restored(read_only_tree(), target)
        with pytest.MonkeyPatch.context() as patch:
            refuse(patch, "rename", errno.EIO, lambda old, new, **_: new == "x")
            message = clear_error(lambda: restored(read_only_tree(), target, overwrite="always"), DumontError)
        after = modes(target)
        restored(read_only_tree(), target, overwrite="always")
        return [message.endswith("the same command goes on"), after, modes(target)]

    assert as_a_user(work) == [True, MODES, MODES]


def test_owners_that_this_user_cannot_give_are_listed(place: Path) -> None:
    archive = Archive(head={"root": {"mode": 0o755, "mtime_ns": 0, "owner": [1, 1]}})
    archive.directory("d", owner=[1, 2])
    archive.file("d/f", b"#!/bin/sh", owner=[3, 4])["mode"] = 0o4755
    archive.symlink("s", "x", owner=[5, 6])

    def work() -> list[Any]:
        result = restored(archive, place / "r", owner=True, preserve_special=True)
        return [reasons(result), stat.S_IMODE((place / "r" / "d" / "f").stat().st_mode), sorted(tree(place / "r"))]

    found, mode, names = as_a_user(work)
    assert found == {
        path: f"cannot be given to its owner {owner}: Operation not permitted"
        for path, owner in ((".", "1:1"), ("d", "1:2"), ("d/f", "3:4"), ("s", "5:6"))
    }
    assert mode == 0o755  # this user must not become the owner of another's setuid program
    assert names == ["d", "d/f", "s"]


def test_a_directory_of_somebody_else_is_one_clear_line(place: Path) -> None:
    if os.geteuid():
        pytest.skip("needs a directory of another user")
    (place / "other").mkdir(mode=0o755)
    for name in ("other", "other/new"):
        for overwrite in ("refuse", "always"):
            with pytest.raises(DumontError) as caught:
                as_a_user(lambda: restored(small_archive(), place / name, overwrite=overwrite))  # noqa: B023
            assert str(caught.value) == f"{place / name}: Permission denied"
    assert os.listdir(place / "other") == []


# --- a target that is read-only ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", ["refuse", "always"])
def test_a_read_only_file_system_is_called_that_and_nothing_more(
    overwrite: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.mkdir()
    original = os.fstatvfs

    def read_only(fd: int) -> Any:
        values = list(original(fd))
        values[8] |= os.ST_RDONLY  # f_flag
        values[4] = 0  # f_bavail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "fstatvfs", read_only)
    refuse(monkeypatch, "open", errno.EROFS, lambda path, flags, *_, **__: bool(flags & os.O_CREAT))
    message = clear_error(lambda: restored(small_archive(), target, overwrite=overwrite), DumontError)
    assert message == f"{target}: Read-only file system"


# --- the last steps ---------------------------------------------------------------------------------------------------


LAST_STEPS = ("fchmod", "utime", "unlink", "fsync", "close")


@pytest.mark.parametrize("call", LAST_STEPS)
def test_a_failure_in_the_last_steps_says_what_is_missing_or_the_same_command_goes_on(
    call: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = small_archive()
    archive.head["root"] = {"mode": 0o755, "mtime_ns": 10**18}
    last = counted(archive, target.with_name("count"), call)
    monkeypatch.setattr("dumont_gpu.tree.target.writer._sync_file_system", lambda fd: None)
    for number in range(1, 1 + last):
        place = target / f"{number}"
        with monkeypatch.context() as patch:
            fail_from(patch, call, number)
            try:
                restored(archive, place, sync=True)
                continue  # a failure there is no part of the job
            except DumontError as error:
                message = str(error)
        if "same command goes on" in message:
            assert restored(archive, place).problems == ()
        elif "every entry is restored" in message:
            assert not (place / NAMES[0]).exists()
        else:
            assert written_nothing(place)
            continue
        assert len(tree(place)) == 8


def written_nothing(place: Path) -> bool:
    return not place.exists() or not os.listdir(place)


def counted(archive: Archive, place: Path, call: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        original, calls = getattr(os, call), [0]

        def count(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            return original(*arguments, **named)

        patch.setattr(os, call, count)
        patch.setattr("dumont_gpu.tree.target.writer._sync_file_system", lambda fd: None)
        restored(archive, place, sync=True)
    return calls[0]


def fail_from(patch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Lets the `number`th call of os.`call` fail, once; os.close still closes the file."""
    original, calls = getattr(os, call), [0]

    def failing(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            if call == "close":
                original(*arguments)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(*arguments, **named)

    patch.setattr(os, call, failing)


def test_the_mode_of_the_target_is_set_before_the_journal_goes(target: Path) -> None:
    """So that a kill in the very last steps leaves nothing but its time behind."""
    archive = small_archive()
    archive.head["root"] = {"mode": 0o750, "mtime_ns": 10**18}

    def work(die: Callable[[], None]) -> None:
        remove = DirectoryWriter.finish_target

        def finish(self: DirectoryWriter, *arguments: Any, **options: Any) -> None:
            utime = os.utime
            self._target.remove_journal = lambda: (
                type(self._target).remove_journal(self._target),
                setattr(os, "utime", lambda *a, **k: die()),
            )  # type: ignore[method-assign,func-returns-value,assignment]
            remove(self, *arguments, **options)
            os.utime = utime

        DirectoryWriter.finish_target = finish  # type: ignore[method-assign]
        restored(archive, target)

    assert killed(work)
    assert NAMES[0] not in os.listdir(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o750
    assert len(tree(target)) == 8


def test_unfinished_mode_is_never_left_on_a_finished_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "fchown", errno.EPERM)
    archive = Archive()
    archive.file("f", b"content", owner=[1, 2])
    assert len(restored(archive, target, owner=True).problems) == 1
    assert stat.S_IMODE((target / "f").stat().st_mode) not in (UNFINISHED_MODE, 0o600)
