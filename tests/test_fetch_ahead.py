"""A restore that needs every chunk fetches the first ones while the manifest is read; any other waits for the manifest."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_same_tree
from hostile import Archive, small_archive, tree, written

from dumont_gpu.errors import DamagedError, NetworkError
from dumont_gpu.format import HEADER_SIZE
from dumont_gpu.pack import PackOptions, pack
from dumont_gpu.restore import RestoreOptions, restore
from dumont_gpu.snapshot import read_snapshot
from dumont_gpu.storage import MemorySource

PATIENCE = 30.0  # seconds until a test gives up; none waits so long unless it fails


class WatchedSource(MemorySource):
    """Lets the manifest be read only after a chunk (`chunk_first`), and counts the chunks that are asked for before it."""

    def __init__(
        self, data: bytes, *, chunk_first: bool = False, lost_chunks: bool = False, damaged_manifest: bool = False
    ) -> None:
        super().__init__(data)
        header = read_snapshot(MemorySource(data)).header
        self._manifest, self._chunks = header.manifest_offset, HEADER_SIZE + header.index_size
        self._chunk_first, self._lost, self._damaged = chunk_first, lost_chunks, damaged_manifest
        self._chunk_came = threading.Event()
        self.manifest_came = False
        self.chunks_before = 0

    def read_into(self, offset: int, out: memoryview) -> None:
        if self._chunks <= offset < self._manifest:
            self.chunks_before += not self.manifest_came
            self._chunk_came.set()
            if self._lost:
                raise NetworkError("the link gave up")
        super().read_into(offset, out)
        if offset == self._manifest:
            if self._chunk_first:
                assert self._chunk_came.wait(PATIENCE)
            self.manifest_came = True
            out[-1] ^= self._damaged


def packed(source: Path, snapshot: Path) -> bytes:
    (source / "d").mkdir()
    for number in range(20):
        (source / "d" / f"{number}").write_bytes(os.urandom(30_000))
    pack([str(source)], str(snapshot), PackOptions(chunk_size=64 << 10))
    return snapshot.read_bytes()


def test_chunks_come_before_the_manifest(source: Path, snapshot: Path, target: Path) -> None:
    restore(WatchedSource(packed(source, snapshot), chunk_first=True), str(target))
    assert_same_tree(source, target)


def test_an_empty_target_is_as_good_as_none(source: Path, snapshot: Path, target: Path) -> None:
    target.mkdir()
    restore(WatchedSource(packed(source, snapshot), chunk_first=True), str(target))
    assert_same_tree(source, target)


@pytest.mark.parametrize("options", [{"include": ["d/1"]}, {"exclude": ["d/1"]}, {"overwrite": "if-changed"}])
def test_nothing_comes_ahead_that_may_not_be_needed(
    options: dict[str, Any], source: Path, snapshot: Path, target: Path
) -> None:
    watched = WatchedSource(packed(source, snapshot))
    target.mkdir()
    if "overwrite" in options:
        (target / "there").write_bytes(b"")
    restore(watched, str(target), RestoreOptions(**options))
    assert watched.chunks_before == 0


def test_a_chunk_that_no_file_needs_is_dropped(target: Path) -> None:
    archive = small_archive()
    restore(MemorySource(archive.to_bytes()), str(target.parent / "expected"))
    for _ in range(10):
        archive.chunk(b"nobody's")
    restore(WatchedSource(archive.to_bytes(), chunk_first=True), str(target))
    assert tree(target) == tree(target.parent / "expected")


def test_a_damaged_manifest_ends_what_was_begun(target: Path) -> None:
    with pytest.raises(DamagedError, match="the manifest does not match"):
        restore(WatchedSource(small_archive().to_bytes(), chunk_first=True, damaged_manifest=True), str(target))
    assert not written(target)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dumont-")]


def test_a_chunk_that_does_not_come_is_the_error_that_is_reported(target: Path) -> None:
    with pytest.raises(NetworkError, match="the link gave up"):
        restore(WatchedSource(small_archive().to_bytes(), chunk_first=True, lost_chunks=True), str(target))
    assert not written(target).keys() - {"d"}


def test_a_snapshot_without_chunks(target: Path) -> None:
    archive = Archive()
    archive.directory("d")
    restore(MemorySource(archive.to_bytes()), str(target))
    assert (target / "d").is_dir()
