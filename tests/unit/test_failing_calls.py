"""System calls that fail where the program only looks: the message names the failure, and no file is left behind.

Found by tests/safety/campaigns/syscalls.py, each with its smallest case.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from dumont_gpu.disk import outputs
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.jobs import resume
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.storage import LocalSink, LocalSource, upload_state
from dumont_gpu.tree.target import links as link_writing
from dumont_gpu.tree.target.leftovers import Kind, Leftover, fingerprint_of


def broken(*arguments: Any, **named: Any) -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# --- the output -------------------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_read_is_not_called_something_else(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack([str(source)], str(snapshot))
    before = snapshot.read_bytes()
    monkeypatch.setattr(outputs, "read_head", broken)
    with pytest.raises(DumontError, match=r"is there already, and cannot be read \(Input/output error\)") as caught:
        pack([str(source)], str(snapshot))
    assert not isinstance(caught.value, UsageError)
    assert snapshot.read_bytes() == before
    pack([str(source)], str(snapshot), PackOptions(force=True))


def test_an_unfinished_snapshot_goes_where_open_files_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = LocalSink(str(tmp_path / "x.dumont"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", broken)
        sink.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("last", ["close", "fsync"])
def test_a_snapshot_that_stands_is_said_to_though_its_last_sync_fails(
    last: str, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, rename = getattr(os, last), Path.rename

    def failing(fd: int) -> None:
        call(fd)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def renaming(path: Path, to: Path) -> None:
        rename(path, to)
        monkeypatch.setattr(os, last, failing)

    monkeypatch.setattr(Path, "rename", renaming)
    with pytest.raises(DumontError, match="was written, but may not outlive a power loss: .* No space left") as caught:
        pack([str(source)], str(snapshot))
    monkeypatch.undo()
    assert caught.value.exit_code == 1
    verify(str(snapshot))
    assert {path.name for path in snapshot.parent.iterdir()} == {"source", snapshot.name}


# --- the target -------------------------------------------------------------------------------------------------------


def test_a_target_that_could_not_be_looked_at_is_not_said_to_be_no_directory(
    source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.makedirs` asks `os.path.isdir`, which returns False if the call fails."""
    pack([str(source)], str(snapshot))
    target.mkdir()
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    restore(str(snapshot), str(target))
    (target / "file").touch()
    with pytest.raises(UsageError, match="exists and is not a directory"):
        restore(str(snapshot), str(target / "file"))


def test_a_snapshot_that_was_read_is_read_though_closing_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    source = LocalSource(str(tmp_path / "file"))
    closes = Closes(monkeypatch, failing=True)
    source.close()
    assert closes.again == 0


# --- descriptors ------------------------------------------------------------------------------------------------------
# A descriptor is never closed twice: a second close may hit another thread's file of the same number.


class Closes:
    """Replaces `os.close`; raises after closing, if `failing`; counts second closes of a descriptor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, failing: bool) -> None:
        self.again = 0
        self._close, self._failing = os.close, failing
        monkeypatch.setattr(os, "close", self)

    def __call__(self, fd: int) -> None:
        try:
            self._close(fd)
        except OSError:
            self.again += 1
            raise
        if self._failing:
            broken()


def test_a_file_of_a_former_run_is_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file after it cannot be opened."""
    (tmp_path / "file").write_bytes(b"x")
    leftover = Leftover(Kind.OTHER, "file", ())
    extent = Extent(0, 0, 0, 1, b"")
    batch = [resume._Claim(FileEntry(name, EntryType.FILE, 0o644, 0, size=1), leftover, extent, set()) for name in "ab"]
    opened = iter([os.open(tmp_path / "file", os.O_RDONLY)])
    leftovers = SimpleNamespace(open=lambda *_: next(opened, None) or broken())
    closes = Closes(monkeypatch, failing=False)
    with pytest.raises(OSError, match="Input/output error"):
        resume._check(batch, cast(Any, leftovers), cast(Any, bytes), memoryview(bytearray(1)))
    assert closes.again == 0


def test_a_copy_of_a_hard_link_is_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy cannot be opened again to set its time once more."""
    (tmp_path / "file").write_bytes(b"x")
    folder = os.open(tmp_path, os.O_RDONLY)
    links = object.__new__(link_writing.LinkWriter)
    links._target = cast(Any, SimpleNamespace(traits=SimpleNamespace(only_closed=True)))
    links._metadata = cast(Any, SimpleNamespace(set_like=lambda *_: None))
    opening = os.open
    monkeypatch.setattr(os, "open", lambda name, flags, *rest, **named: (
        broken() if name == "new" and not flags & os.O_CREAT else opening(name, flags, *rest, **named)
    ))  # fmt: skip
    closes = Closes(monkeypatch, failing=False)
    with pytest.raises(OSError, match="Input/output error"):
        links._copy(folder, "file", fingerprint_of((tmp_path / "file").stat()), folder, "new", "new")
    os.close(folder)
    assert closes.again == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_record_of_an_upload_is_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state = upload_state.hold("s3://bucket/key")
    assert state is not None
    closes = Closes(monkeypatch, failing=True)
    with pytest.raises(OSError, match="Input/output error"):
        state.close()
    state.close()
    assert closes.again == 0
