"""The output never replaces a source, nor any other file that is no snapshot."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile import command, killed, restored, tree

from dumont_gpu.bench.publish import check_picture
from dumont_gpu.disk.outputs import UNFINISHED, unfinished_name
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import PackResult, pack, plan_pack
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import LocalSink, open_source
from dumont_gpu.tree.target.journal import Journal
from dumont_gpu.tree.target.temporary import temporary_name
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

PRECIOUS = b"precious"


@pytest.fixture
def filled(source: Path) -> Path:
    (source / "notes.txt").write_bytes(PRECIOUS)
    (source / "d").mkdir()
    (source / "d" / "large").write_bytes(bytes(range(250)) * 1000)
    return source


def paths(snapshot: Path) -> list[str]:
    opened = open_source(str(snapshot))
    try:
        return [entry.path for entry in read_snapshot(opened).manifest.entries]
    finally:
        opened.close()


def refused(said: str, *arguments: str | Path, code: int = 2, **settings: Any) -> None:
    """Checks that a command and its dry run end with a single line and the code, and change nothing."""
    for more in ([], ["-n"]):
        ran = command("pack", *arguments, *more, **settings)
        assert (ran.code, ran.out) == (code, "")
        assert said in ran.error


# --- files that stand at the output -----------------------------------------------------------------------------------


def test_a_file_that_is_no_snapshot_is_not_replaced(filled: Path, tmp_path: Path) -> None:
    there = tmp_path / "thesis.txt"
    there.write_bytes(PRECIOUS)
    before = tree(tmp_path)
    refused("is no snapshot", filled, "-o", there)
    assert tree(tmp_path) == before


def test_a_file_that_is_no_snapshot_is_replaced_by_force(filled: Path, tmp_path: Path) -> None:
    there = tmp_path / "thesis.txt"
    there.write_bytes(PRECIOUS)
    assert command("pack", filled, "-o", there, "--force").code == 0
    assert paths(there) == ["d", "d/large", "notes.txt"]


def test_a_snapshot_is_replaced_whatever_its_version(filled: Path, snapshot: Path) -> None:
    for content in (b"DUMONT01 of an older version", b"DUMONT77", b""):  # nothing is lost with an empty file: mktemp
        snapshot.write_bytes(content)
        pack([str(filled)], str(snapshot))
        assert paths(snapshot) == ["d", "d/large", "notes.txt"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_source_is_never_replaced(force: list[str], filled: Path, tmp_path: Path) -> None:
    source = filled / "notes.txt"
    os.link(source, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "folder").symlink_to(filled)
    before = tree(tmp_path)
    for output in (source, tmp_path / "hard", tmp_path / "soft", tmp_path / "folder" / "notes.txt"):
        refused("is what is to be packed", source, "-o", output, *force)
        refused("is what is to be packed", tmp_path / "soft", "-o", output, *force)
    assert tree(tmp_path) == before


def test_a_snapshot_that_is_the_source_is_not_replaced_either(filled: Path, snapshot: Path) -> None:
    pack([str(filled)], str(snapshot))
    before = snapshot.read_bytes()
    refused("is what is to be packed", snapshot, "-o", snapshot)
    assert snapshot.read_bytes() == before


def test_an_open_file_is_no_other_name_for_an_output(filled: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(PRECIOUS)
    with precious.open("rb") as file:
        output = f"/proc/self/fd/{file.fileno()}"
        refused("is not streamed", filled, "-o", output, "--force", pass_fds=[file.fileno()])
    assert precious.read_bytes() == PRECIOUS


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_file_of_a_source_is_never_replaced(force: list[str], filled: Path, tmp_path: Path) -> None:
    before = tree(filled)
    said = "would be replaced" if force else "is no snapshot"
    refused(said, filled, "-o", filled / "notes.txt", *force)
    (tmp_path / "link").symlink_to(filled / "notes.txt")
    refused(said, filled, "-o", tmp_path / "link", *force)
    assert tree(filled) == before


def test_a_hard_link_of_what_is_replaced_is_packed(filled: Path, tmp_path: Path) -> None:
    """Replacing a hard link takes nothing from the other, so the other is packed."""
    os.link(filled / "notes.txt", tmp_path / "other name")
    pack([str(filled)], str(tmp_path / "other name"), PackOptions(force=True))
    assert paths(tmp_path / "other name") == ["d", "d/large", "notes.txt"]
    assert (filled / "notes.txt").read_bytes() == PRECIOUS
    pack([str(filled)], str(filled / "out.dumont"))
    os.link(filled / "out.dumont", filled / "yesterday")
    pack([str(filled)], str(filled / "out.dumont"))
    assert paths(filled / "out.dumont") == ["d", "d/large", "notes.txt", "yesterday"]


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, device, listening], ids=["pipe", "device", "socket"])
@pytest.mark.parametrize("link", [False, True])
def test_only_files_are_replaced(make: Callable[[Path], None], link: bool, filled: Path) -> None:
    short = Path(os.path.relpath(filled.parent))  # a socket's path has at most 107 bytes
    make(short / "node")
    output = filled.parent / "node"
    if link:
        output = filled.parent / "link"
        output.symlink_to("node")
    refused("a snapshot is a file", filled, "-o", output, "--force")
    assert not (filled.parent / "node").is_file()
    assert sorted(path.name for path in filled.parent.iterdir()) == ["link"] * link + ["node", "source"]


@pytest.mark.parametrize("output", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_snapshot_is_streamed_to_no_other_name_of_an_open_file(output: str, filled: Path, tmp_path: Path) -> None:
    refused("is not streamed", filled, "-o", output, "--force", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_dev_null_stays_what_it_is(filled: Path) -> None:
    refused("is a device", filled, "-o", "/dev/null", "--force")


def test_a_symlink_at_the_output_is_followed(filled: Path, tmp_path: Path) -> None:
    real = tmp_path / "disk"
    real.mkdir()
    (tmp_path / "x.dumont").symlink_to("disk/x.dumont")
    for _ in range(2):  # the symlink leads to nothing, then to a snapshot
        pack([str(filled)], str(tmp_path / "x.dumont"))
        assert (tmp_path / "x.dumont").is_symlink()
        assert not (real / "x.dumont").is_symlink()
        assert paths(real / "x.dumont") == ["d", "d/large", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "source", "x.dumont"]


def test_what_a_symlink_at_the_output_leads_to_is_not_replaced(filled: Path, snapshot: Path) -> None:
    precious = snapshot.with_name("precious")
    precious.write_bytes(PRECIOUS)
    snapshot.symlink_to(precious)
    refused("is no snapshot", filled, "-o", snapshot)
    assert precious.read_bytes() == PRECIOUS
    assert snapshot.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_link_of_another_user_in_a_folder_for_all_is_not_followed(filled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "x.dumont").symlink_to(tmp_path / "elsewhere")
    os.lchown(folder / "x.dumont", 12345, 12345)
    refused("of another user", filled, "-o", folder / "x.dumont")
    assert not (tmp_path / "elsewhere").exists()


def test_an_output_in_no_folder_is_refused(filled: Path, tmp_path: Path) -> None:
    refused("there is no folder", filled, "-o", tmp_path / "missing" / "x.dumont")
    refused("there is no folder", filled, "-o", filled / "notes.txt" / "x.dumont")
    refused("there is no folder", filled, "-o", f"{tmp_path}/backups/")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_in_a_folder_of_others_is_refused(filled: Path) -> None:
    refused("cannot be written", filled, "-o", "/x.dumont", code=1)


def test_a_dry_run_does_not_count_the_snapshot_that_it_would_replace(filled: Path) -> None:
    output = filled / "out.dumont"
    pack([str(filled)], str(output))
    assert plan_pack([str(filled)], output=str(output)).num_files == 3
    assert "would pack 3 entries" in command("pack", filled, "-o", output, "-n").out


def test_what_comes_to_the_output_meanwhile_is_not_replaced(filled: Path, snapshot: Path) -> None:
    sink = LocalSink(str(snapshot))
    sink.write_at(0, memoryview(b"DUMONT02"))
    snapshot.write_bytes(PRECIOUS)
    with pytest.raises(DumontError, match="meanwhile|while the snapshot was made"):
        sink.commit(8)
    sink.abort()
    assert tree(snapshot.parent) == {"snapshot.dumont": ("file", PRECIOUS), "source": ("dir", b""), **tree_of(filled)}


def tree_of(source: Path) -> dict[str, tuple[str, bytes]]:
    return {f"source/{name}": value for name, value in tree(source).items()}


def test_a_picture_of_a_benchmark_replaces_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><title>drawn in a week</title></svg>')
    (tmp_path / "ours.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><title>dumont-gpu 0.1.0 on</title>')
    os.mkfifo(tmp_path / "fifo.svg")
    for name in ("mine.svg", "fifo.svg"):
        with pytest.raises(UsageError, match=name):
            check_picture(str(tmp_path / name))
    check_picture(str(tmp_path / "ours.svg"))
    check_picture(str(tmp_path / "new.html"))


# --- after the rename -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"DUMONT02", b"something else " * 100])
def test_a_snapshot_that_reads_back_as_something_else_is_an_error(
    content: bytes, filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def copying(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        renamed.write_bytes(content)
        return renamed

    monkeypatch.setattr(Path, "rename", copying)
    with pytest.raises(DumontError, match="when read back") as caught:
        pack([str(filled)], str(snapshot))
    assert caught.value.exit_code == 1


# --- our own unfinished files -----------------------------------------------------------------------------------------


def leave_unfinished(source: Path, output: Path) -> Path:
    """Kills a pack before its end; returns the file that it left."""

    def work(die: Callable[[], None]) -> None:
        os.fsync = lambda fd: die()  # type: ignore[assignment]
        pack([str(source)], str(output))

    assert killed(work)
    return output.with_name(unfinished_name(output.name))


def test_an_unfinished_snapshot_is_left_out_and_said(filled: Path, snapshot: Path) -> None:
    partial = leave_unfinished(filled, filled / "w.dumont")
    assert partial.stat().st_size > 0
    result = pack([str(filled)], str(snapshot))
    assert paths(snapshot) == ["d", "d/large", "notes.txt"]
    assert [(entry.path, entry.size) for entry in result.unfinished] == [(partial.name, partial.stat().st_size)]
    assert result.problems == ()
    assert f"1 unfinished file of dumont-gpu left out: {partial.name}" in command("pack", filled, "-o", snapshot).out
    assert partial.exists()


def test_one_that_is_being_written_is_left_out_too(filled: Path, snapshot: Path) -> None:
    sink = LocalSink(str(filled / "w.dumont"))
    assert len(pack([str(filled)], str(snapshot)).unfinished) == 1
    sink.abort()
    assert paths(snapshot) == ["d", "d/large", "notes.txt"]


def test_the_room_of_a_dead_pack_is_given_back_at_its_output(filled: Path, snapshot: Path) -> None:
    partial = leave_unfinished(filled, snapshot)
    assert partial.read_bytes().startswith((UNFINISHED, b"DUMONT02"))
    assert pack([str(filled)], str(snapshot)).unfinished == ()
    assert not partial.exists()


def test_a_file_that_only_has_the_name_of_ours_is_packed_and_stays(filled: Path, snapshot: Path) -> None:
    for content in (PRECIOUS, bytes(5000)):
        (filled / ".w.dumont.partial").write_bytes(content)
        (filled / ".dumont-0123456789abcdef.partial").write_bytes(content)
        (filled / ".dumont-restore").write_bytes(content)
        result = pack([str(filled)], str(snapshot))
        assert (result.unfinished, result.problems) == ((), ())
        restored(snapshot.read_bytes(), filled.parent / "target", overwrite="always")
        assert tree(filled.parent / "target") == tree(filled)
        ran = command("pack", filled, "-o", filled / "w.dumont")
        assert ran.code == 1
        assert "is in the way" in ran.error
        assert (filled / ".w.dumont.partial").read_bytes() == content


def test_what_a_restore_has_not_finished_is_said(filled: Path, snapshot: Path) -> None:
    leftover = filled / temporary_name("notes.txt")
    journal, begun = filled / "d" / ".dumont-restore", filled / "d" / "begun"
    for path, content in (
        (leftover, b"half"),
        (journal, Journal("sha256:" + "0" * 64, "all").to_bytes()),
        (begun, b"0000"),
    ):
        path.write_bytes(content)
        path.chmod(UNFINISHED_MODE)
    result = pack([str(filled)], str(snapshot))
    assert {entry.path for entry in result.unfinished} == {leftover.name, "d/.dumont-restore"}
    assert paths(snapshot) == ["d", "d/begun", "d/large", "notes.txt"]
    assert {problem.path: problem.reason for problem in result.problems} == {
        "d": "a restore into it has not ended: what it has not written yet is not packed",
        "d/begun": "is what a restore has begun and not finished",
    }


# --- locks ------------------------------------------------------------------------------------------------------------


def flock_that_says(code: int) -> Callable[[int, int], None]:
    def flock(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    return flock


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_pack_goes_on_and_says_so_once(
    code: int, filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_unfinished(filled, snapshot)
    monkeypatch.setattr(fcntl, "flock", flock_that_says(code))
    result: PackResult = pack([str(filled)], str(snapshot))
    assert result.problems == ()
    assert len(result.notes) == 1
    assert "no locks" in result.notes[0]
    assert paths(snapshot) == ["d", "d/large", "notes.txt"]
    assert sorted(path.name for path in snapshot.parent.iterdir()) == ["snapshot.dumont", "source"]


def test_without_locks_two_packs_at_once_lose_no_snapshot(
    filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack([str(filled)], str(snapshot))
    before = snapshot.read_bytes()
    monkeypatch.setattr(fcntl, "flock", flock_that_says(errno.ENOLCK))
    first = LocalSink(str(snapshot))
    second = LocalSink(str(snapshot))  # takes the first sink's file for a dead process's
    with pytest.raises(DumontError, match="took"):
        first.commit(0)
    first.abort()
    assert snapshot.read_bytes() == before
    second.write_at(0, memoryview(b"DUMONT02"))
    second.commit(8)


FAILING = """
import errno, fcntl, os
{patch}
from dumont_gpu.__main__ import main
main()
"""
FAILING_CALLS = {
    "flock": "def flock(*a): raise OSError(errno.EIO, 'flock failed')\nfcntl.flock = flock",
    "fstat": """
partial = os.open
fds = []
def opening(path, *a, **n):
    fd = partial(path, *a, **n)
    if 'partial' in str(path): fds.append(fd)
    return fd
os.open = opening
fstat = os.fstat
def failing(fd):
    if fd in fds:
        raise OSError(errno.EIO, 'fstat failed')
    return fstat(fd)
os.fstat = failing
""",
}


@pytest.mark.parametrize("call", FAILING_CALLS)
def test_an_error_before_the_first_byte_leaves_nothing_behind(call: str, filled: Path, snapshot: Path) -> None:
    program = FAILING.format(patch=FAILING_CALLS[call])
    done = subprocess.run(
        [sys.executable, "-c", program, "pack", filled, "-o", snapshot], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"dumont-gpu: {snapshot}: cannot be written: {call} failed\n"
    assert [path.name for path in snapshot.parent.iterdir()] == ["source"]
