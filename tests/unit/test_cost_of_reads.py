"""What reads of a snapshot cost: a few bytes no chunk that nobody asked for, and no memory once they are over."""

from __future__ import annotations

import gc
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import dumont_gpu
from dumont_gpu.buffers import Buffer
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.snapshot.reader import Snapshot

SIZE = 2 * MiB  # of each tensor: a chunk of its own, at least
rng = random.Random(17)


@pytest.fixture
def content() -> bytes:
    header = {
        name: {"dtype": "F32", "shape": [SIZE // 4], "data_offsets": [at * SIZE, (at + 1) * SIZE]}
        for at, name in enumerate(("first", "second"))
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rng.randbytes(2 * SIZE)


@pytest.fixture
def snapshot(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "model.safetensors").write_bytes(content)
    path = str(tmp_path / "model.dumont")
    pack([str(tmp_path / "model.safetensors")], path, PackOptions(device="cpu", chunk_size=MiB))
    return path


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the chunks that were fetched."""
    numbers: list[int] = []
    fetch = Snapshot.read_chunk

    def counting(self: Snapshot, number: int, out: memoryview) -> None:
        numbers.append(number)
        fetch(self, number, out)

    monkeypatch.setattr(Snapshot, "read_chunk", counting)
    return numbers


def test_a_table_of_tensors_costs_its_own_chunk_only(snapshot: str, fetched: list[int]) -> None:
    pytest.importorskip("numpy")
    with dumont_gpu.open(snapshot, "model.safetensors") as tensors:
        assert tensors.keys() == ["first", "second"]
    assert len(set(fetched)) == 1


def test_reads_across_chunks_are_whole(snapshot: str, content: bytes) -> None:
    with dumont_gpu.open_files(snapshot) as files:
        with files.open_file("model.safetensors") as file:
            assert file.read() == content
            for at in (0, 100, len(content) - 70 * KiB):
                file.seek(at)
                assert file.read(300 * KiB) == content[at : at + 300 * KiB]
        with files.open_raw("model.safetensors") as raw:
            raw.seek(len(content) - 100 * KiB)
            assert raw.readall() == content[-100 * KiB :]
            raw.seek(10)
            assert raw.readall() == content[10:]


def test_a_raw_read_that_is_short_goes_on_where_it_ended(snapshot: str, content: bytes) -> None:
    with dumont_gpu.open_files(snapshot) as files, files.open_raw("model.safetensors") as raw:
        pieces = []
        while piece := raw.read(64 * KiB):
            pieces.append(piece)
    assert b"".join(pieces) == content


@pytest.fixture
def without_cycles() -> Iterator[None]:
    """Python does not look for cycles of objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def buffers() -> int:
    return sum(type(each) is Buffer for each in gc.get_objects())


def test_what_is_closed_gives_its_memory_for_chunks_back_at_once(snapshot: str, without_cycles: None) -> None:
    pytest.importorskip("numpy")
    before = buffers()
    dumont_gpu.load(snapshot, "model.safetensors")
    with dumont_gpu.open(snapshot, "model.safetensors") as tensors, tensors.prefetch() as ready:
        ready.take("second")
        assert buffers() > before
    with dumont_gpu.open_files(snapshot) as files:
        files.open_file("model.safetensors").read()
    assert buffers() == before
