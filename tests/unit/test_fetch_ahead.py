"""A restore that needs every chunk fetches the first chunks while it parses the manifest; any other restore does not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile import Archive, small_archive, tree, written
from support.snapshots import assert_same_tree

from dumont_gpu.errors import DamagedError, NetworkError
from dumont_gpu.format.header import HEADER_SIZE, Header
from dumont_gpu.jobs.options import PackOptions, RestoreOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.snapshot.reader import Snapshot, SnapshotIndex, open_snapshot
from dumont_gpu.storage import MemorySource

PATIENCE = 30.0  # seconds until a test gives up; only a failing test waits that long


class WatchedSource(MemorySource):
    """Records when chunks are read: before the manifest is known, while it is parsed, or later."""

    def __init__(self, data: bytes, *, lost_chunks: bool = False, damaged_manifest: bool = False) -> None:
        super().__init__(data)
        header = Header.parse(data[:HEADER_SIZE], len(data))
        self._manifest, self._chunks = header.manifest_offset, HEADER_SIZE + header.index_size
        self._lost, self._damaged = lost_chunks, damaged_manifest
        self.chunk_came = threading.Event()
        self.moments: list[str] = []  # of chunks
        self.moment = "before"

    def read_into(self, offset: int, out: memoryview) -> None:
        if self._chunks <= offset < self._manifest:
            self.moments.append(self.moment)
            self.chunk_came.set()
            if self._lost:
                raise NetworkError("the link gave up")
        super().read_into(offset, out)
        if offset == self._manifest:
            self.moment = "while"
            out[-1] ^= self._damaged


@pytest.fixture
def chunk_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing the manifest ends only after a chunk was asked for."""
    hook(monkeypatch, lambda source: source.chunk_came.wait(PATIENCE))


def hook(monkeypatch: pytest.MonkeyPatch, wait: Callable[[WatchedSource], object]) -> None:
    def parse(index: SnapshotIndex, stored: bytes) -> Snapshot:
        source = index.source
        assert isinstance(source, WatchedSource)
        wait(source)
        snapshot = open_snapshot(index, stored)
        source.moment = "after"
        return snapshot

    monkeypatch.setattr("dumont_gpu.jobs.restore.open_snapshot", parse)


def packed(source: Path, snapshot: Path) -> bytes:
    (source / "d").mkdir()
    for number in range(20):
        (source / "d" / f"{number}").write_bytes(os.urandom(30_000))
    pack([str(source)], str(snapshot), PackOptions(chunk_size=64 << 10))
    return snapshot.read_bytes()


@pytest.mark.usefixtures("chunk_first")
@pytest.mark.parametrize("there", [False, True])
def test_chunks_come_while_the_manifest_is_parsed(there: bool, source: Path, snapshot: Path, target: Path) -> None:
    if there:
        target.mkdir()  # an empty target is as good as none
    watched = WatchedSource(packed(source, snapshot))
    restore(watched, str(target))
    assert_same_tree(source, target)
    assert "while" in watched.moments
    assert "before" not in watched.moments


@pytest.mark.parametrize("options", [{"include": ["d/1"]}, {"exclude": ["d/1"]}, {"overwrite": "if-changed"}])
def test_nothing_comes_ahead_that_may_not_be_needed(
    options: dict[str, Any], source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(monkeypatch, lambda source: None)
    watched = WatchedSource(packed(source, snapshot))
    target.mkdir()
    if "overwrite" in options:
        (target / "there").write_bytes(b"")
    restore(watched, str(target), RestoreOptions(**options))
    assert set(watched.moments) == {"after"}


@pytest.mark.usefixtures("chunk_first")
def test_a_chunk_that_no_file_needs_is_dropped(target: Path) -> None:
    archive = small_archive()
    restore(WatchedSource(archive.to_bytes()), str(target.parent / "expected"))
    for _ in range(10):
        archive.chunk(b"nobody's")
    restore(WatchedSource(archive.to_bytes()), str(target))
    assert tree(target) == tree(target.parent / "expected")


def test_a_damaged_manifest_ends_it_before_any_chunk(target: Path) -> None:
    watched = WatchedSource(small_archive().to_bytes(), damaged_manifest=True)
    with pytest.raises(DamagedError, match="the manifest does not match"):
        restore(watched, str(target))
    assert not watched.moments
    assert not written(target)


@pytest.mark.usefixtures("chunk_first")
def test_a_manifest_that_breaks_a_rule_ends_what_was_begun(target: Path) -> None:
    archive = small_archive()
    archive.entries[0]["path"] = "../outside"
    data = archive.to_bytes()
    with pytest.raises(DamagedError):
        restore(WatchedSource(data), str(target))
    assert not written(target)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dumont-")]


@pytest.mark.usefixtures("chunk_first")
def test_a_chunk_that_does_not_come_is_the_error_that_is_reported(target: Path) -> None:
    with pytest.raises(NetworkError, match="the link gave up"):
        restore(WatchedSource(small_archive().to_bytes(), lost_chunks=True), str(target))
    assert not written(target).keys() - {"d"}


def test_a_snapshot_without_chunks(target: Path) -> None:
    archive = Archive()
    archive.directory("d")
    restore(MemorySource(archive.to_bytes()), str(target))
    assert (target / "d").is_dir()
