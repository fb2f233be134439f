"""Kills, full disks, read errors, files that change: nothing wrong is reported as right, and the next run goes on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hostile import (
    LZ4,
    Archive,
    Ran,
    clear_error,
    command,
    float_bytes,
    killed,
    restored,
    sha256,
    small_archive,
    tree,
    written,
)
from support.target_rows import directories_one_by_one

from dumont_gpu.errors import DamagedError, DumontError, NoSpaceError, UsageError
from dumont_gpu.jobs import pack as packing
from dumont_gpu.jobs.options import PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.pack import PackResult, pack
from dumont_gpu.jobs.pack_stages import PackStages
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import LocalSink, MemorySource, open_source

LARGE = float_bytes(50_000)
CHUNK = 64 << 10
PREVIOUS = b"DUMONT02, what was there before"


def fill(source: Path) -> None:
    """Files small and large, two of them equal, and links."""
    (source / "d").mkdir()
    (source / "d" / "large").write_bytes(LARGE)
    (source / "copy").write_bytes(LARGE)
    (source / "small").write_bytes(b"small")
    os.link(source / "small", source / "zz-hard")
    (source / "sym").symlink_to("d/large")


@pytest.fixture
def filled(source: Path) -> Path:
    fill(source)
    return source


def pack_it(source: Path, snapshot: Path) -> PackResult:
    return pack([str(source)], str(snapshot), PackOptions(chunk_size=CHUNK, jobs=1))


def sound(snapshot: Path) -> bool:
    verify(str(snapshot), VerifyOptions(content=True, jobs=1))
    return True


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int, act: Callable[[], Any], matches: str = "") -> None:
    """Calls `act` instead of the `number`th call of os.`name` (and before the later ones, if it raises)."""
    original = getattr(os, name)
    calls = [0]

    def call(*arguments: Any, **named: Any) -> Any:
        if not matches or matches in str(arguments[0]):
            calls[0] += 1
            if calls[0] >= number:
                act()
        return original(*arguments, **named)

    monkeypatch.setattr(os, name, call)


def raiser(code: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


# --- killed -----------------------------------------------------------------------------------------------------------

SYSTEM_CALLS = (
    "open",
    "pwrite",
    "ftruncate",
    "fsync",
    "rename",
    "mkdir",
    "symlink",
    "link",
    "fchmod",
    "utime",
    "unlink",
)


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

    for name in SYSTEM_CALLS:
        setattr(os, name, hook(getattr(os, name)))


def test_kill_at_any_moment_of_a_pack_leaves_the_previous_snapshot(filled: Path, snapshot: Path) -> None:
    small = filled.parent / "other"
    small.mkdir()
    (small / "file").write_bytes(b"what was there before")
    pack_it(small, snapshot)
    before, number, kills = snapshot.read_bytes(), 0, 0
    while True:
        number += 1

        def work(die: Callable[[], None], number: int = number) -> None:
            die_at(number, die)
            pack_it(filled, snapshot)

        if not killed(work):
            break
        kills += 1
        if snapshot.read_bytes() != before:  # past the renaming
            assert sound(snapshot)
            pack_it(small, snapshot)
            before = snapshot.read_bytes()
    assert kills > 8
    assert sound(snapshot)
    assert [path.name for path in snapshot.parent.iterdir() if "partial" in path.name] == []


def test_pack_after_a_kill_reuses_what_was_left(filled: Path, snapshot: Path) -> None:
    def work(die: Callable[[], None]) -> None:
        os.fsync = lambda fd: die()  # type: ignore[assignment]
        pack_it(filled, snapshot)

    for _ in range(3):
        assert killed(work)
        assert not snapshot.exists()
        assert len([path for path in snapshot.parent.iterdir() if "partial" in path.name]) == 1
    pack_it(filled, snapshot)
    assert sound(snapshot)
    assert sorted(path.name for path in snapshot.parent.iterdir()) == ["snapshot.dumont", "source"]


@pytest.mark.parametrize("overwrite", ["always", "if-changed"])
def test_kill_at_any_moment_of_a_restore_and_the_next_run_goes_on(overwrite: str, tmp_path: Path) -> None:
    data = small_archive().to_bytes()
    restored(data, tmp_path / "good")
    expected, number, kills = tree(tmp_path / "good"), 0, 0
    while True:
        number += 1
        target = tmp_path / f"{number}"

        def work(die: Callable[[], None], number: int = number, target: Path = target) -> None:
            die_at(number, die)
            restored(data, target)

        if not killed(work):
            assert tree(target) == expected
            break
        kills += 1
        restored(data, target, overwrite=overwrite)
        assert tree(target) == expected
    assert kills > 15


@pytest.mark.parametrize("overwrite", ["always", "if-changed"])
def test_kill_while_files_are_replaced_leaves_old_or_new_ones(overwrite: str, tmp_path: Path) -> None:
    data = small_archive().to_bytes()
    restored(data, tmp_path / "good")
    expected, number, kills = tree(tmp_path / "good"), 0, 0
    old = {"d/raw": b"old", "d/text": b"older", "floats": b"oldest", "high": b"of old", "sparse": b"", "hard": b"-"}
    while True:
        number += 1
        target = tmp_path / f"{number}"
        (target / "d").mkdir(parents=True)
        for name, content in old.items():
            (target / name).write_bytes(content)

        def work(die: Callable[[], None], number: int = number, target: Path = target) -> None:
            die_at(number, die)
            restored(data, target, overwrite=overwrite)

        if not killed(work):
            break
        kills += 1
        found = tree(target)
        for name, content in old.items():
            assert found[name][1] in (content, expected[name][1])
        restored(data, target, overwrite=overwrite)
        assert tree(target) == expected
    assert kills > 20


def test_run_after_a_kill_removes_what_the_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "f").write_bytes(b"old")
    archive = Archive()
    archive.file("f", b"content")

    def work(die: Callable[[], None]) -> None:
        os.fchmod = lambda fd, mode: die()  # type: ignore[assignment]
        restored(archive, target, overwrite="always")

    assert killed(work)
    assert (target / "f").read_bytes() == b"old"
    restored(archive, target, overwrite="always")
    assert os.listdir(target) == ["f"]


def patched_command(patch: str, *arguments: str | Path) -> Ran:
    """Runs the command line after some code that changes how the process behaves."""
    program = f"import os, signal, sys\n{patch}\nfrom dumont_gpu.__main__ import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, timeout=60, cwd="/", text=True
    )
    return Ran(done.returncode, done.stdout, done.stderr)


STOP = """
pwrite = os.pwrite
def stopping(*arguments):
    os.kill(os.getpid(), signal.{name})
    return pwrite(*arguments)
os.pwrite = stopping
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)])
def test_signal_during_a_pack_leaves_the_previous_snapshot(name: str, code: int, filled: Path, snapshot: Path) -> None:
    snapshot.write_bytes(PREVIOUS)
    ran = patched_command(STOP.format(name=name), "pack", filled, "-o", snapshot)
    assert ran.code == code
    assert snapshot.read_bytes() == PREVIOUS
    if code > 0:
        assert "stopped" in ran.error
        assert sorted(path.name for path in snapshot.parent.iterdir()) == ["snapshot.dumont", "source"]
    assert command("pack", filled, "-o", snapshot).code == 0
    assert sound(snapshot)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)])
def test_signal_during_a_restore_is_no_success_and_the_next_run_goes_on(name: str, code: int, tmp_path: Path) -> None:
    snapshot, target = small_archive().write(tmp_path / "x.dumont"), tmp_path / "target"
    ran = patched_command(STOP.format(name=name), "restore", snapshot, target)
    assert (ran.code, ran.out) == (code, "")
    again = command("restore", snapshot, target)
    assert (again.code, again.err) == (0, "")
    assert "went on" in again.out
    restored(small_archive(), tmp_path / "good")
    assert tree(target) == tree(tmp_path / "good")


# --- the disk of the target -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["pwrite", "open", "mkdir", "ftruncate", "symlink", "link", "fchmod", "utime"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_failing_write_ends_a_restore_with_one_clear_line(
    code: int, call: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if call == "mkdir":
            directories_one_by_one(patch)
        fail_at(patch, call, 2 if call in ("open", "mkdir") else 1, raiser(code))  # the first makes the target
        full = code in (errno.ENOSPC, errno.EDQUOT)
        message = clear_error(lambda: restored(small_archive(), target), NoSpaceError if full else DumontError)
        assert str(target) in message
        assert full or os.strerror(code) in message
    restored(small_archive(), target, overwrite="always")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_the_target_itself_is_no_space(code: int, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, "mkdir", 1, raiser(code))
    clear_error(lambda: restored(small_archive(), target), NoSpaceError)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_failing_write_while_replacing_keeps_the_old_file(
    code: int, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.mkdir()
    (target / "f").write_bytes(b"old")
    archive = Archive()
    archive.file("f", b"content")
    with monkeypatch.context() as patch:
        fail_at(patch, "pwrite", 1, raiser(code))
        with pytest.raises(DumontError):
            restored(archive, target, overwrite="always")
    assert written(target) == {"f": ("file", b"old")}
    restored(archive, target, overwrite="always")
    assert tree(target) == {"f": ("file", b"content")}


def test_failing_sync_is_no_success(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumont_gpu.tree.target.writer._sync_file_system", lambda fd: raiser(errno.EIO)())
    clear_error(lambda: restored(small_archive(), target, sync=True), DumontError)


def test_file_system_made_read_only_is_one_clear_error(tmp_path: Path) -> None:
    snapshot = small_archive().write(tmp_path / "x.dumont")
    ran = on_tmpfs(tmp_path, "1m,ro", "restore", snapshot, tmp_path / "disk" / "target")
    assert (ran.code, ran.out) == (1, "")
    assert "Read-only" in ran.error


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    archive = Archive()
    for number in range(300):
        archive.file(f"{number}", b"x" * 4096)
    archive.entries.sort(key=lambda entry: str(entry["path"]))
    snapshot = archive.write(tmp_path / "x.dumont")
    ran = on_tmpfs(tmp_path, "1m", "restore", snapshot, tmp_path / "disk" / "target")
    assert (ran.code, ran.out) == (6, "")
    assert "missing" in ran.error
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(os.urandom(2 << 20))
    ran = on_tmpfs(tmp_path, "1m", "pack", tmp_path / "source", "-o", tmp_path / "disk" / "x.dumont")
    assert (ran.code, ran.out) == (6, "")
    assert ran.error


def test_file_system_out_of_inodes_is_one_clear_error(tmp_path: Path) -> None:
    archive = Archive()
    for number in range(100, 200):
        archive.file(f"{number}")
    snapshot = archive.write(tmp_path / "x.dumont")
    ran = on_tmpfs(tmp_path, "1m,nr_inodes=50", "restore", snapshot, tmp_path / "disk" / "target")
    assert (ran.code, ran.out) == (6, "")
    assert ran.error


def on_tmpfs(tmp_path: Path, options: str, *arguments: str | Path) -> Ran:
    """Runs a command with a small file system at tmp_path/disk; skips where this is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o "size=$0" none "$1" || exit 99; shift; exec "$@"'
    line = ["unshare", "-m", "sh", "-c", script, options, disk, sys.executable, "-m", "dumont_gpu", *arguments]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    done = subprocess.run(line, capture_output=True, timeout=60, cwd="/", text=True)
    if done.returncode in (99, 1) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"cannot mount: {done.stderr}")
    return Ran(done.returncode, done.stdout, done.stderr)


# --- the disk of the output -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["pwrite", "fsync", "ftruncate"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_failing_write_ends_a_pack_and_keeps_the_previous_snapshot(
    code: int, call: str, filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.write_bytes(PREVIOUS)
    with monkeypatch.context() as patch:
        fail_at(patch, call, 1, raiser(code))
        full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        message = clear_error(lambda: pack_it(filled, snapshot), NoSpaceError if full else DumontError)
    assert str(snapshot) in message
    assert snapshot.read_bytes() == PREVIOUS
    assert sorted(path.name for path in snapshot.parent.iterdir()) == ["snapshot.dumont", "source"]
    pack_it(filled, snapshot)


@pytest.mark.parametrize("where", ["missing/x.dumont", "file/x.dumont", "directory", "x" * 256])
def test_output_that_cannot_be_written_is_one_clear_error(where: str, filled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    before = tree(tmp_path)
    ran = command("pack", filled, "-o", tmp_path / where)
    assert ran.code in (1, 2)
    assert ran.error
    assert tree(tmp_path) == before


def test_symlink_at_the_place_of_the_partial_file_is_not_followed(filled: Path, snapshot: Path) -> None:
    precious = snapshot.with_name("precious")
    precious.write_bytes(b"do not touch")
    snapshot.with_name(".snapshot.dumont.partial").symlink_to(precious)
    clear_error(lambda: pack_it(filled, snapshot), DumontError)
    assert precious.read_bytes() == b"do not touch"


def test_hard_link_at_the_place_of_the_partial_file_is_not_written_through(filled: Path, snapshot: Path) -> None:
    precious = snapshot.with_name("precious")
    precious.write_bytes(b"do not touch")
    os.link(precious, snapshot.with_name(".snapshot.dumont.partial"))
    try:
        pack_it(filled, snapshot)
    except DumontError as error:
        assert str(error).isprintable()
    assert precious.read_bytes() == b"do not touch"


def test_fifo_at_the_place_of_the_partial_file_is_one_clear_error(filled: Path, snapshot: Path) -> None:
    os.mkfifo(snapshot.with_name(".snapshot.dumont.partial"))
    clear_error(lambda: pack_it(filled, snapshot), DumontError)


# --- two at once ------------------------------------------------------------------------------------------------------


def test_second_pack_to_the_same_output_is_refused_and_disturbs_nothing(filled: Path, snapshot: Path) -> None:
    first = LocalSink(str(snapshot))
    first.write_at(0, memoryview(b"in progress"))
    ran = command("pack", filled, "-o", snapshot)
    assert ran.code == 1
    assert "another" in ran.error
    first.commit(11)
    assert snapshot.read_bytes() == b"in progress"


def between_open_and_lock(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Calls `act` once, after the next sink has opened its partial file and before it locks the file."""
    original, waiting = fcntl.flock, [act]

    def flock(fd: int, operation: int) -> None:
        if waiting:
            waiting.pop()()
        original(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_pack_that_starts_while_another_ends_does_not_destroy_its_snapshot(
    filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LocalSink(str(snapshot))
    first.write_at(0, memoryview(b"complete"))
    between_open_and_lock(monkeypatch, lambda: first.commit(8))
    second = LocalSink(str(snapshot))
    second.abort()
    assert snapshot.read_bytes() == b"complete"


def test_pack_that_starts_while_another_gives_up_works(
    filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LocalSink(str(snapshot))
    between_open_and_lock(monkeypatch, first.abort)
    pack_it(filled, snapshot)
    assert sound(snapshot)


def test_output_inside_its_own_source_is_left_out(filled: Path) -> None:
    result = pack_it(filled, filled / "out.dumont")
    opened = open_source(str(filled / "out.dumont"))
    paths = [entry.path for entry in read_snapshot(opened).manifest.entries]
    opened.close()
    assert not [path for path in paths if "out.dumont" in path]
    assert result.problems == ()


def test_previous_output_inside_its_own_source_is_left_out(filled: Path) -> None:
    sizes = [pack_it(filled, filled / "out.dumont").original_size for _ in range(3)]
    assert sizes == [sizes[0]] * 3


# --- reading the snapshot ---------------------------------------------------------------------------------------------


class FailingSource(MemorySource):
    """Serves the first `reads` requests, then fails as a broken disk does."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data, "broken.dumont")
        self._left = reads

    def read_into(self, offset: int, out: memoryview) -> None:
        if not self._left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._left -= 1
        super().read_into(offset, out)


@pytest.mark.parametrize("reads", range(5))
def test_read_error_of_the_snapshot_ends_a_restore(reads: int, target: Path) -> None:
    source = FailingSource(small_archive().to_bytes(), reads)
    message = clear_error(lambda: restore(source, str(target), RestoreOptions(sync=False)), DumontError)
    assert os.strerror(errno.EIO) in message


@pytest.mark.parametrize("reads", range(5))
@pytest.mark.parametrize("job", ["restore", "verify"])
def test_read_error_of_the_snapshot_names_the_snapshot(job: str, reads: int, target: Path) -> None:
    source = FailingSource(small_archive().to_bytes(), reads)

    def attempt() -> object:
        if job == "verify":
            return verify(source)
        return restore(source, str(target), RestoreOptions(sync=False))

    assert "broken.dumont" in clear_error(attempt, DumontError)


def test_snapshot_that_shrinks_while_it_is_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = small_archive().write(tmp_path / "x.dumont")
    reads = iter(range(100))
    original = os.preadv

    def preadv(*arguments: Any) -> int:
        if next(reads) == 3:
            os.truncate(snapshot, 5000)
        return original(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    clear_error(lambda: restore(str(snapshot), str(tmp_path / "target"), RestoreOptions(sync=False)), DamagedError)


def test_snapshot_rewritten_while_it_is_read_is_never_restored_wrong(tmp_path: Path) -> None:
    """Bytes are checked where they are then used: changing the file in between does not help."""

    class Rewritten(MemorySource):
        def check(self) -> None:
            self._data = memoryview(bytes(len(self._data)))

        def read_into(self, offset: int, out: memoryview) -> None:
            super().read_into(offset, out)
            if offset and offset % 4096 == 0 and len(out) == 4000:
                self.check()

    archive = Archive()
    archive.file("a", bytes(range(200)) * 20)
    source = Rewritten(archive.to_bytes())
    restore(source, str(tmp_path / "target"), RestoreOptions(sync=False))
    assert (tmp_path / "target" / "a").read_bytes() == bytes(range(200)) * 20


def test_snapshot_that_is_a_fifo_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    original = os.open

    def checking(path: str, flags: int, *rest: Any, **named: Any) -> int:
        assert flags & os.O_NONBLOCK
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", checking)
    clear_error(lambda: open_source(str(tmp_path / "fifo")), UsageError)


@pytest.mark.parametrize("where", ["missing", "missing/x", "directory", "file/x"])
def test_snapshot_that_is_not_there_has_its_exit_code(where: str, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"")
    ran = command("restore", tmp_path / where, tmp_path / "target")
    assert ran.code == (2 if where == "directory" else 10)
    assert str(tmp_path / where) in ran.error
    assert not (tmp_path / "target").exists()


# --- files that change while they are packed --------------------------------------------------------------------------


def vanish(path: Path) -> None:
    path.unlink()


def shrink(path: Path) -> None:
    os.truncate(path, 3)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    size, mtime = path.stat().st_size, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(b"x" * size)
    os.utime(path, ns=(mtime + 1, mtime + 1))


def become(kind: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "symlink":
            path.symlink_to(path.parent.parent / "secret")
        elif kind == "directory":
            path.mkdir()
        else:
            path.write_bytes(b"another file")

    act.__name__ = kind
    return act


LOST = (vanish, become("fifo"), become("symlink"), become("directory"))
CHANGES = (*LOST, shrink, empty, grow, rewrite, become("file"))


@pytest.mark.parametrize("moment", ["scanned", "planned"])
@pytest.mark.parametrize("name", ["small", "large", "copy"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_file_that_changes_during_a_pack_is_listed_and_nothing_wrong_is_packed(
    change: Callable[[Path], None],
    name: str,
    moment: str,
    source: Path,
    snapshot: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (source.parent / "secret").write_bytes(LARGE)
    contents = {"large": LARGE, "copy": LARGE, "small": b"small" * 10, "untouched": b"as it was" * 100}
    for file, content in contents.items():
        (source / file).write_bytes(content)
    chunks = packing.Plan.chunks

    def changing(plan: packing.Plan) -> Iterator[Any]:
        planned = None if moment == "scanned" else list(chunks(plan))
        change(source / name)
        yield from chunks(plan) if planned is None else planned

    monkeypatch.setattr(packing.Plan, "chunks", changing)
    result = pack_it(source, snapshot)
    monkeypatch.undo()
    assert sound(snapshot)
    restored(snapshot.read_bytes(), source.parent / "target")
    found = tree(source.parent / "target")
    listed = {problem.path for problem in result.problems}
    for file, content in contents.items():
        if file not in listed:
            assert found[file] == ("file", content)
    assert listed <= {name, "copy", "large"} if name != "small" else listed == {"small"}
    assert found["untouched"] == ("file", contents["untouched"])
    if name != "large" or moment == "scanned":  # else only its copy is read
        assert change not in LOST or name not in found
        assert name in listed


FAIL_READS = """
from dumont_gpu import native
read_files = native.read_files
def failing(directory, files, out):
    results = read_files(directory, files, out)
    return [5 if file.name == "large" else result for file, result in zip(files, results)]
native.read_files = failing
"""


def test_file_that_cannot_be_read_ends_with_exit_code_3_and_a_list(source: Path, snapshot: Path) -> None:
    (source / "large").write_bytes(LARGE)
    (source / "small").write_bytes(b"small")
    os.link(source / "large", source / "zz-hard")
    ran = patched_command(FAIL_READS, "pack", source, "-o", snapshot)
    assert ran.code == 3
    assert "large: Input/output error" in ran.err
    assert "zz-hard" in ran.err
    assert "Traceback" not in ran.err
    assert command("ls", snapshot).out == "small\n"
    ran = patched_command(FAIL_READS, "pack", source, "-o", snapshot, "--json")
    assert ran.code == 3
    summary = json.loads(ran.out.splitlines()[-1])
    assert [problem["path"] for problem in summary["problems"]] == ["large", "zz-hard"]


def test_directory_that_cannot_be_read_is_listed(filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if path == "d":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opening)
    result = pack_it(filled, snapshot)
    assert [(problem.path, problem.reason) for problem in result.problems] == [("d", "Permission denied")]
    monkeypatch.undo()
    assert sound(snapshot)


def test_directory_swapped_for_a_symlink_during_a_pack_is_not_followed(
    filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = filled.parent / "secret"
    secret.mkdir()
    (secret / "large").write_bytes(b"secret " * 20_000)
    original = PackStages.run

    def swapping(*arguments: Any) -> Any:
        (filled / "d").rename(filled / "e")
        (filled / "d").symlink_to(secret)
        return original(*arguments)

    monkeypatch.setattr("dumont_gpu.tree.handles._MAX_OPEN", 0)
    monkeypatch.setattr(PackStages, "run", swapping)
    pack_it(filled, snapshot)
    restored(snapshot.read_bytes(), filled.parent / "target")
    assert b"secret" not in b"".join(content for _, content in tree(filled.parent / "target").values())


def test_changed_files_are_told_to_whoever_restores(
    filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PackStages.run

    def changing(*arguments: Any) -> Any:
        grow(filled / "small")
        return original(*arguments)

    monkeypatch.setattr(PackStages, "run", changing)
    assert [problem.path for problem in pack_it(filled, snapshot).problems] == ["small"]
    ran = command("restore", snapshot, filled.parent / "target")
    assert ran.code == 0
    assert "small: changed while it was packed" in ran.out


def test_damaged_chunk_leaves_no_file_that_looks_complete(target: Path) -> None:
    """The time of a file is set last: `if-changed` does not take a half-written file for complete."""
    archive = Archive()
    chunks = [archive.chunk(bytes([number]) * 5000, LZ4) for number in range(3)]
    archive.file("f", size=15_000, extents=[[5000 * at, chunk, 0, 5000] for at, chunk in enumerate(chunks)],
                 sha256=[sha256(bytes([at]) * 5000).hex() for at in range(3)])  # fmt: skip
    good = archive.to_bytes()
    data = bytearray(good)
    data[4096 * 3] ^= 1
    clear_error(lambda: restored(bytes(data), target), DamagedError)
    result = restored(good, target, overwrite="if-changed")
    assert result.kept == 0
    assert (target / "f").read_bytes() == b"".join(bytes([number]) * 5000 for number in range(3))
