"""One suite for every kind of source: reading a snapshot behaves the same at every location."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import SOURCES, Put, Where
from support.snapshots import GOLDEN, assert_same_tree, pack_tree

from dumont_gpu.errors import DamagedError, SnapshotNotFoundError
from dumont_gpu.jobs.options import RestoreOptions, VerifyOptions
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource, Source, open_source

SIZE = 2_700_001  # two ranges, none of them a round number
CONTENT = os.urandom(SIZE)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the real size, so that tests are quick."""
    monkeypatch.setattr("dumont_gpu.storage.reads.RANGE_SIZE", 1 << 20)


@pytest.fixture(params=SOURCES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    with SOURCES[request.param].place(Where(request, tmp_path, monkeypatch)) as put:
        yield put


@pytest.fixture
def source(place: Put) -> Iterator[Source]:
    opened = open_source(place(CONTENT))
    yield opened
    opened.close()


def read(source: Source, offset: int, size: int) -> bytes:
    out = bytearray(size)
    source.read_into(offset, memoryview(out))
    return bytes(out)


def test_every_byte_is_read_from_where_it_lies(source: Source) -> None:
    assert source.size == SIZE
    assert read(source, 0, SIZE) == CONTENT
    for offset, size in [
        (0, 1),
        (0, 512),
        (512, 100_000),
        (16_383, 2),
        (16_384, 1),
        (234_567, 1_876_543),
        (SIZE - 1, 1),
    ]:
        assert read(source, offset, size) == CONTENT[offset : offset + size]


def test_nothing_is_read_where_nothing_is_asked_for(source: Source) -> None:
    assert read(source, 0, 0) == read(source, SIZE, 0) == b""


@pytest.mark.parametrize(("offset", "size"), [(SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (1 << 40, 1)])
def test_reading_past_the_end_is_damage(source: Source, offset: int, size: int) -> None:
    with pytest.raises(DamagedError):
        read(source, offset, size)
    assert read(source, SIZE - 10, 10) == CONTENT[-10:]


def test_many_threads_read_at_once(source: Source) -> None:
    found: dict[int, bytes] = {}

    def work(number: int) -> None:
        found[number] = read(source, number * 100_000, 1_200_000)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: CONTENT[number * 100_000 :][:1_200_000] for number in range(12)}


def test_an_empty_object_has_no_bytes(place: Put) -> None:
    opened = open_source(place(b""))
    assert opened.size == 0
    with pytest.raises(DamagedError):
        read(opened, 0, 1)
    opened.close()


def test_nothing_there_is_not_found(request: pytest.FixtureRequest, place: Put) -> None:
    location = place(CONTENT[:10])
    if request.node.callspec.params["place"] == "chunked":
        pytest.skip("this server has one object at every address")
    with pytest.raises(SnapshotNotFoundError) as caught:
        open_source(location.replace(".dumont", ".nothing"))
    assert ".nothing" in str(caught.value)


def test_closing_leaves_no_thread(place: Put) -> None:
    opened = open_source(place(CONTENT))
    read(opened, 0, SIZE)
    opened.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("dumont")]


def test_a_snapshot_is_restored_and_verified(place: Put, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "weights").write_bytes(CONTENT)
    (tree / "text").write_text("some words\n" * 100_000)
    pack_tree(tree, tmp_path / "s.dumont", chunk_size=1 << 20)
    location = place((tmp_path / "s.dumont").read_bytes())
    result = restore(location, str(tmp_path / "target"), RestoreOptions(sync=False, verify=True))
    assert_same_tree(tree, tmp_path / "target")
    assert result.snapshot_path == location
    assert verify(location, VerifyOptions(content=True)).num_chunks == result.num_chunks


def test_memory_is_a_source_too() -> None:
    data = (GOLDEN / "example.dumont").read_bytes()
    assert read_snapshot(MemorySource(data)).header.num_chunks
