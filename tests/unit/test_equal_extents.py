"""Equal tensors and equal files are stored once, whatever holds them, and whatever happens to files meanwhile."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.containers import CONTAINERS, npy, safetensors
from support.hostile import float_bytes
from support.snapshots import assert_same_tree, files_of, once_planned, pack_tree, restore_tree

from dumont_gpu.codecs import CODECS, Codec
from dumont_gpu.jobs import pack as packing
from dumont_gpu.jobs import pack_stages, source_reader
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack, plan_pack
from dumont_gpu.plan.cutter import Cutter
from dumont_gpu.plan.regions import Region
from dumont_gpu.sizes import KiB, MiB

rng = random.Random(12)
# Odd sizes, so that chunks have gaps; one tensor is longer than a chunk of 256 KiB.
SIZES = (70_000, 100_004, 600_000, 80_000, 131_072, 90_012)
TENSORS = {f"layer.{number}": float_bytes(size // 4 * 2)[:size] for number, size in enumerate(SIZES)}
for number, name in enumerate(TENSORS):
    TENSORS[name] = struct.pack("<I", number) + rng.randbytes(60) + TENSORS[name][64:]
BIASES = {f"{name}.bias": rng.randbytes(400) for name in TENSORS}
ALL = {name: data for pair in zip(TENSORS.items(), BIASES.items(), strict=True) for name, data in pair}
WEIGHT = sum(SIZES)
CHUNK = 256 * KiB


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs as S3 is packed."""
    stages = packing.PackStages
    monkeypatch.setattr(packing, "PackStages", lambda *given, **named: stages(*given, **{**named, "in_order": True}))


def came_back(source: Path, snapshot: Path, target: Path) -> None:
    restore_tree(snapshot, target, verify=True)
    assert_same_tree(source, target)


def fill(source: Path) -> None:
    """The same weights in every container, in another order in each."""
    order = list(ALL.items())
    for name, make in CONTAINERS.items():
        (source / f"weights.{name}").write_bytes(make(dict(order)))
        rng.shuffle(order)


@pytest.mark.parametrize("jobs", [1, 4])
def test_equal_tensors_in_other_containers_are_stored_once(
    jobs: int, source: Path, snapshot: Path, target: Path
) -> None:
    fill(source)
    result = pack_tree(source, snapshot, chunk_size=CHUNK, jobs=jobs, paranoid=True)
    assert result.shared_bytes == (len(CONTAINERS) - 1) * WEIGHT
    stored = sum(raw for raw, _ in result.codec_bytes.values())
    assert stored == result.original_size - result.shared_bytes
    came_back(source, snapshot, target)


def test_a_tensor_at_another_offset_has_the_same_extents(source: Path, snapshot: Path) -> None:
    (source / "before").write_bytes(safetensors(TENSORS))
    (source / "more-at-the-front").write_bytes(safetensors({"new": rng.randbytes(77_777), **TENSORS}))
    (source / "one-less").write_bytes(safetensors({name: TENSORS[name] for name in list(TENSORS)[1:]}))
    (source / "array.npy").write_bytes(npy(TENSORS["layer.2"]))
    pack_tree(source, snapshot, chunk_size=CHUNK)
    found = files_of(snapshot)
    extents = {path: {extent.digest: extent.length for extent in entry.extents} for path, entry in found.items()}
    for name, shared in (("more-at-the-front", SIZES), ("one-less", SIZES[1:]), ("array.npy", SIZES[2:3])):
        common = extents["before"].keys() & extents[name].keys()
        assert sum(extents["before"][digest] for digest in common) == sum(shared)


def shifted(floats: bytes) -> bytes:
    """fp32 that the probe takes for elements that begin three bytes later."""
    return b"".join(floats[at : at + 2] + bytes([rng.randrange(256), 0x3F]) for at in range(0, len(floats), 2))


TENSORS_THAT_DECEIVE = {
    "repeated rows": float_bytes(MiB) + rng.randbytes(256) * 2 * KiB,  # plain codecs shrink these best
    "zeros": float_bytes(MiB) + bytes(512 * KiB),
    "another phase": shifted(float_bytes(256 * KiB)),
}


@pytest.mark.parametrize("kind", TENSORS_THAT_DECEIVE)
def test_a_tensor_without_a_named_type_stays_whole_whatever_it_looks_like(
    kind: str, source: Path, snapshot: Path
) -> None:
    tensor = TENSORS_THAT_DECEIVE[kind]
    for name in ("safetensors", "pt", "npz"):
        (source / name).write_bytes(CONTAINERS[name]({"embeddings": tensor}))
    assert pack_tree(source, snapshot).shared_bytes == 2 * len(tensor)


@pytest.mark.parametrize("size", [16 * KiB, 50_000, 300_000, 700_001])
def test_equal_files_are_stored_once(size: int, source: Path, snapshot: Path, target: Path) -> None:
    data = rng.randbytes(size)
    for name in ("a.bin", "b.bin", "c.bin"):
        (source / name).write_bytes(data)
    (source / "almost.bin").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = pack_tree(source, snapshot, chunk_size=CHUNK)
    whole_chunks = size // CHUNK * CHUNK
    assert result.shared_bytes == 2 * size + whole_chunks  # of the file that differs in its last byte, too
    assert [entry.extents for path, entry in files_of(snapshot).items() if path != "almost.bin"] == (
        [files_of(snapshot)["a.bin"].extents] * 3
    )
    came_back(source, snapshot, target)


def test_equal_parts_of_one_file_are_stored_once(source: Path, snapshot: Path, target: Path) -> None:
    tied = TENSORS["layer.2"]
    (source / "tied").write_bytes(safetensors({"embeddings": tied, "between": rng.randbytes(100_000), "head": tied}))
    assert pack_tree(source, snapshot, chunk_size=CHUNK).shared_bytes == len(tied)
    came_back(source, snapshot, target)


def test_a_plan_foretells_the_bytes_that_are_stored_once(source: Path, snapshot: Path) -> None:
    fill(source)
    (source / "copy").write_bytes((source / "weights.pt").read_bytes())
    (source / "text").write_text("".join(f"line {number}\n" for number in range(20_000)))
    options = PackOptions(chunk_size=CHUNK)
    plan, result = plan_pack([str(source)], options), pack([str(source)], str(snapshot), options)
    assert plan.shared_bytes == result.shared_bytes
    assert plan.num_chunks == result.num_chunks
    assert sum(plan.codec_bytes.values()) == sum(raw for raw, _ in result.codec_bytes.values())


@pytest.mark.usefixtures("in_order")
def test_in_order_the_same_tree_gives_the_same_snapshot(
    source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    fill(source)
    for number in range(40):
        (source / f"{number}.txt").write_bytes(rng.randbytes(30_000) if number % 3 else b"again" * 6_000)
    snapshots = set()
    for jobs in (1, 2, 4, 8):
        pack_tree(source, snapshot, chunk_size=CHUNK, jobs=jobs, force=True)
        snapshots.add(snapshot.read_bytes())
    assert len(snapshots) == 1
    came_back(source, snapshot, target)


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("broken", [0, 1, 3, 7])
def test_threads_that_wait_for_their_turn_end_with_the_thread_that_fails(
    broken: int, source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source)
    settle, later = pack_stages.SharedExtents.settle, threading.Event()

    def failing(shared: Any, chunk: Any, *given: Any, **named: Any) -> Any:
        if chunk.turn == broken:
            assert later.wait(30)
            raise RuntimeError("broken")
        if chunk.turn > broken:
            later.set()
        return settle(shared, chunk, *given, **named)

    monkeypatch.setattr(pack_stages.SharedExtents, "settle", failing)
    with pytest.raises(RuntimeError, match="broken"):
        pack_tree(source, snapshot, chunk_size=64 * KiB, jobs=4)
    assert not snapshot.exists()


# --- files that change ------------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    os.truncate(path, 300_000)


def gone(path: Path) -> None:
    path.unlink()


def rewritten(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(rng.randbytes(size))


@pytest.mark.parametrize("change", [truncated, gone, rewritten])
@pytest.mark.parametrize("changed", ["a", "b", "c"])
@pytest.mark.parametrize("order", ["as they come", "in order"])
def test_a_file_that_changes_changes_no_other(
    change: Callable[[Path], None],
    changed: str,
    order: str,
    source: Path,
    snapshot: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if order == "in order":
        request.getfixturevalue("in_order")
    for name, make in zip("abc", CONTAINERS.values(), strict=False):
        (source / name).write_bytes(make(ALL))
    once_planned(monkeypatch, lambda: change(source / changed))
    result = pack_tree(source, snapshot, chunk_size=CHUNK, jobs=2)
    assert [problem.path for problem in result.problems] == [changed]
    restore_tree(snapshot, target, verify=True)
    for name in "abc":
        assert (target / name).exists() == (source / name).exists()
        if (source / name).exists():
            assert (target / name).read_bytes() == (source / name).read_bytes()
    assert {path for path, entry in files_of(snapshot).items() if entry.changed} == {changed} - (
        {changed} if change is gone else set()
    )


@pytest.mark.parametrize("number", range(8))
def test_a_file_rewritten_between_two_reads_leaves_every_byte_covered_by_its_digest(
    number: int, source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (source / name).write_bytes(safetensors(ALL))
    read_at, calls = source_reader.read_at, iter(range(1_000_000))

    def reading(*given: Any) -> int:
        if next(calls) == number:
            rewritten(source / "a")
        return read_at(*given)

    monkeypatch.setattr(source_reader, "read_at", reading)
    result = pack_tree(source, snapshot, chunk_size=CHUNK, jobs=1)
    assert [problem.path for problem in result.problems] == ["a"]
    restore_tree(snapshot, target, verify=True)
    for name in "bc":
        assert (target / name).read_bytes() == (source / name).read_bytes()


def test_a_file_that_grows_shares_what_it_had(
    source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = safetensors(ALL)
    for name in "ab":
        (source / name).write_bytes(whole)
    once_planned(monkeypatch, lambda: (source / "a").write_bytes(whole + b"more"))
    result = pack_tree(source, snapshot, chunk_size=CHUNK)
    assert [(problem.path, problem.reason) for problem in result.problems] == [("a", "changed while it was packed")]
    assert result.shared_bytes == WEIGHT
    restore_tree(snapshot, target, verify=True)
    assert {(target / name).read_bytes() for name in "ab"} == {whole}


# --- chunks -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 300), st.sampled_from(CODECS)), max_size=60))
def test_regions_stay_whole_and_chunks_are_more_than_half_full(sizes: list[tuple[int, Codec]]) -> None:
    chunk_size, at = 100, 0
    cutter = Cutter(chunk_size, defaultdict(int), first=0, whole=True)
    cut = []
    for size, codec in sizes:
        cut += cutter.add(0, [Region(at, at + size, codec)])
        at += size
    rest = list(cutter.flush())
    assert all(chunk_size < 2 * chunk.size <= 2 * chunk_size for chunk in cut)
    assert len(rest) <= len({codec for _, codec in sizes})
    chunks = sorted([*cut, *rest], key=lambda chunk: chunk.number)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    lengths = sorted(extent.length for chunk in chunks for extent in chunk.extents)
    pieces = [min(chunk_size, size - start) for size, _ in sizes for start in range(0, size, chunk_size)]
    assert lengths == sorted(pieces)


@pytest.mark.parametrize("chunk_size", [4 * KiB, 64 * KiB, 96 * KiB, MiB])
def test_chunks_of_every_size_fit_their_bound(chunk_size: int, source: Path, snapshot: Path, target: Path) -> None:
    fill(source)
    for number in range(30):
        (source / f"{number}.py").write_bytes(rng.randbytes(rng.randrange(1, 60_000)))
    result = pack_tree(source, snapshot, chunk_size=chunk_size)
    plan_bound = 2 * result.original_size // chunk_size + 200
    assert result.num_chunks <= plan_bound
    came_back(source, snapshot, target)


def test_a_sparse_checkpoint_keeps_its_holes(source: Path, snapshot: Path, target: Path) -> None:
    whole = safetensors({"a": rng.randbytes(100_000), "b": bytes(4 * MiB), "c": rng.randbytes(100_000)})
    start = len(whole) - 100_000 - 4 * MiB
    with (source / "sparse").open("wb") as file:
        file.write(whole[: start + 50_000])
        file.seek(start + 4 * MiB - 50_000)
        file.write(whole[start + 4 * MiB - 50_000 :])
    (source / "dense").write_bytes(whole)
    pack_tree(source, snapshot)
    came_back(source, snapshot, target)
    assert (target / "sparse").stat().st_blocks < (target / "dense").stat().st_blocks


def test_too_many_chunks_for_borders_are_cut_without_them(source: Path, snapshot: Path, target: Path) -> None:
    (source / "a").write_bytes(safetensors(ALL))
    with (source / "disk").open("wb") as file:
        file.truncate(3 * 4 * KiB << 20)  # 12 GiB: more than half of the chunks of 4 KiB that a snapshot may have
    result = pack_tree(source, snapshot, chunk_size=4 * KiB)
    assert result.problems == ()
    assert result.shared_bytes == 0
    restore_tree(snapshot, target, include=("a",))
    assert (target / "a").read_bytes() == (source / "a").read_bytes()
