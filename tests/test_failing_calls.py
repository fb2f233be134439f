"""System calls that fail where the program only looks: what it says is what is wrong, and nothing is left behind.

Found by tests/campaigns/syscalls.py, each with its smallest case.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dumont_gpu import outputs
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.pack import PackOptions, pack
from dumont_gpu.restore import restore
from dumont_gpu.storage import LocalSink
from dumont_gpu.verify import verify


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
    """`os.makedirs` asks `os.path.isdir`, for which what fails is no directory."""
    pack([str(source)], str(snapshot))
    target.mkdir()
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    restore(str(snapshot), str(target))
    (target / "file").touch()
    with pytest.raises(UsageError, match="exists and is not a directory"):
        restore(str(snapshot), str(target / "file"))
