"""The journal of a restore: its form, and which file in a directory is taken for the journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumont_gpu.errors import DumontError
from dumont_gpu.tree.target.journal import NAMES, Journal, begin_journal, find_journal
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

JOURNAL = Journal("sha256:" + "ab" * 32, "selection", "never", frozenset({0, 7, 8, 1000}))


@pytest.fixture
def root(target: Path) -> Iterator[int]:
    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    yield fd
    os.close(fd)


def write(target: Path, data: bytes, name: str = NAMES[0], mode: int = UNFINISHED_MODE) -> Path:
    path = target / name
    path.write_bytes(data)
    path.chmod(mode)
    return path


def found_in(root: int) -> Journal | None:
    file = find_journal(root, ())
    if file is None:
        return None
    file.close()
    return file.journal


@pytest.mark.parametrize("kept", [(), (0,), (7,), (8,), (0, 3, 1 << 20)])
def test_journal_is_read_as_it_was_written(kept: tuple[int, ...]) -> None:
    journal = Journal("sha256:x", "y", "if-changed", frozenset(kept))
    assert Journal.parse(journal.to_bytes()) == journal


def test_no_beginning_of_a_journal_is_believed() -> None:
    data = JOURNAL.to_bytes()
    assert [size for size in range(len(data)) if Journal.parse(data[:size])] == []


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b"{}\n", b"[]\n", b"null\n", b"1\n", b'"x"\n', b"[" * 100_000 + b"\n", b"\xff\n", b'{"kept": ""}\n']
    + [b'{"snapshot": "", "selection": "", "overwrite": "", "kept": "%s"}\n' % bits for bits in (b"?", b"AAA", b"\\u00ff")]
    + [b'{"snapshot": 1, "selection": "", "overwrite": "", "kept": ""}\n']
    + [b'{"snapshot": "", "selection": "", "overwrite": "", "kept": "", "more": ""}\n'],
)  # fmt: skip
def test_malformed_journal_is_none(body: bytes) -> None:
    assert Journal.parse(b"dumont-gpu restore 1\n" + body) is None


@pytest.mark.parametrize("magic", [b"", b"dumont-gpu restore 2\n", b"dumont-gpu pack 1\n"])
def test_another_magic_is_no_journal(magic: bytes) -> None:
    assert Journal.parse(magic + JOURNAL.to_bytes().partition(b"\n")[2]) is None


def test_journal_is_found_until_it_is_removed(root: int, target: Path) -> None:
    file = begin_journal(root, (), JOURNAL, durable=True)
    file.close()
    assert found_in(root) == JOURNAL
    file.remove(root)
    assert found_in(root) is None
    assert os.listdir(target) == []


def test_torn_journal_is_removed(root: int, target: Path) -> None:
    data = JOURNAL.to_bytes()
    for size in range(len(data)):
        path = write(target, data[:size])
        assert found_in(root) is None
        assert not path.exists()


def test_file_of_somebody_else_is_no_journal_and_stays(root: int, target: Path) -> None:
    data = JOURNAL.to_bytes()
    write(target, b"somebody else's")
    write(target, data, NAMES[1], mode=0o600)
    os.link(write(target, data, NAMES[2]), target / "another-name")
    (target / NAMES[3]).symlink_to("another-name")
    (target / NAMES[4]).mkdir()
    os.mkfifo(target / NAMES[5], UNFINISHED_MODE)
    before = sorted(os.listdir(target))
    assert found_in(root) is None
    assert sorted(os.listdir(target)) == before
    file = begin_journal(root, {NAMES[6]}, JOURNAL, durable=False)
    file.close()
    assert file.name == NAMES[7]
    assert found_in(root) == JOURNAL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_no_journal(root: int, target: Path) -> None:
    os.chown(write(target, JOURNAL.to_bytes()), 12345, 12345)
    (target / NAMES[0]).chmod(UNFINISHED_MODE)
    assert found_in(root) is None
    assert (target / NAMES[0]).exists()


def test_second_process_is_refused(root: int, target: Path) -> None:
    file = begin_journal(root, (), JOURNAL, durable=False)
    with pytest.raises(DumontError, match="another"):
        find_journal(root, ())
    file.close()
    assert found_in(root) == JOURNAL


def test_no_free_name_is_one_clear_error(root: int, target: Path) -> None:
    for name in NAMES:
        (target / name).mkdir()
    with pytest.raises(DumontError, match="taken"):
        begin_journal(root, (), JOURNAL, durable=False)
