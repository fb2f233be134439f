"""Trees through pack, verify and restore: the restored tree equals the source."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.snapshots import assert_same_tree, pack_tree, restore_tree
from support.trees import TREES, Dir, make

from dumont_gpu.columns.placement import SmallFiles
from dumont_gpu.errors import UsageError
from dumont_gpu.format.digests import DIGESTS
from dumont_gpu.jobs.options import VerifyOptions
from dumont_gpu.jobs.verify import verify
from dumont_gpu.plan.methods import METHODS
from dumont_gpu.sizes import KiB
from dumont_gpu.tree.target.files import FileWriter


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tree=TREES,
    method=st.sampled_from(METHODS),
    digest=st.sampled_from(DIGESTS),
    chunk_size=st.sampled_from([4 * KiB, 64 * KiB, 64 * 1024 * KiB]),
)
def test_any_tree_comes_back(tree: Dir, method: str, digest: str, chunk_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, snapshot, target = (Path(folder) / name for name in ("source", "s.dumont", "target"))
        make(tree, source)
        packed = pack_tree(source, snapshot, method=method, digest=digest, chunk_size=chunk_size)
        assert bool(packed.problems) == (not list(source.iterdir()))
        checked = verify(str(snapshot), VerifyOptions(content=True))
        assert (checked.snapshot_id, checked.stored_size) == (packed.snapshot_id, snapshot.stat().st_size)
        restored = restore_tree(snapshot, target, verify=True)
        assert_same_tree(source, target)
        assert restored.original_size == packed.original_size
        # A second restore over the first changes nothing, whatever the policy.
        for policy in ("always", "if-changed", "never"):
            restore_tree(snapshot, target, overwrite=policy)
            assert_same_tree(source, target)


def test_empty_tree(source: Path, snapshot: Path, target: Path) -> None:
    result = pack_tree(source, snapshot)
    assert (result.num_files, result.num_chunks, result.original_size) == (0, 0, 0)
    restore_tree(snapshot, target)
    assert_same_tree(source, target)


def test_deep_paths_and_long_names(source: Path, snapshot: Path, target: Path) -> None:
    # Deeper than PATH_MAX: only reachable component by component.
    fd = os.open(source, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 255, dir_fd=fd)
        inner = os.open("d" * 255, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    leaf = os.open("f" * 255, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
    os.write(leaf, b"deep")
    os.close(leaf)
    os.close(fd)
    assert pack_tree(source, snapshot).num_files == 31
    assert restore_tree(snapshot, target).num_files == 31
    fd = os.open(target, os.O_RDONLY)
    for _ in range(30):
        inner = os.open("d" * 255, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    leaf = os.open("f" * 255, os.O_RDONLY, dir_fd=fd)
    assert os.read(leaf, 10) == b"deep"
    os.close(leaf)
    os.close(fd)


def test_many_directories_at_once(source: Path, snapshot: Path, target: Path) -> None:
    for number in range(700):  # more than the descriptors that are kept open
        folder = source / f"{number % 7}" / f"{number}"
        folder.mkdir(parents=True)
        (folder / "file").write_text(str(number))
    pack_tree(source, snapshot)
    restore_tree(snapshot, target)
    assert_same_tree(source, target)


def test_holes_stay_holes(source: Path, snapshot: Path, target: Path) -> None:
    with (source / "sparse").open("wb") as file:
        for offset in (0, 10 << 20, 500 << 20):
            file.seek(offset)
            file.write(b"data" * 1000)
        file.truncate(1 << 30)
    pack_tree(source, snapshot)
    assert snapshot.stat().st_size < 100_000
    restore_tree(snapshot, target)
    assert_same_tree(source, target)
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2", "none"])
def test_equal_files_are_stored_once(method: str, source: Path, snapshot: Path, target: Path) -> None:
    data = random.Random(1).randbytes(300_000)
    for name in ("a.bin", "b.bin", "c.bin"):
        (source / name).write_bytes(data)
    (source / "almost.bin").write_bytes(data[:-1] + b"!")
    result = pack_tree(source, snapshot, method=method)
    assert result.shared_bytes == 600_000
    assert 600_000 < snapshot.stat().st_size < 620_000
    restore_tree(snapshot, target, verify=True)
    assert_same_tree(source, target)


def test_file_across_many_chunks(source: Path, snapshot: Path, target: Path) -> None:
    rng = random.Random(5)
    floats = struct.pack("<60000f", *(rng.gauss(0, 1) for _ in range(60_000)))
    (source / "mixed.bin").write_bytes(b"header\n" * 30_000 + floats + b"x" + floats)
    result = pack_tree(source, snapshot, chunk_size=16 * KiB)
    assert result.num_chunks > 30
    restore_tree(snapshot, target, verify=True, memory=40 * KiB, jobs=4)
    assert_same_tree(source, target)


def test_several_sources_stand_under_their_names(tmp_path: Path, snapshot: Path, target: Path) -> None:
    from dumont_gpu.jobs.pack import pack

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "single.txt").write_text("single")
    pack([str(tmp_path / name) for name in ("one", "two", "single.txt")], str(snapshot))
    restore_tree(snapshot, target)
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*")) == [
        "one", "one/file", "single.txt", "two", "two/file",
    ]  # fmt: skip
    assert (target / "two/file").read_text() == "two"


def test_two_sources_of_one_name_are_refused(tmp_path: Path, snapshot: Path) -> None:
    from dumont_gpu.jobs.pack import pack

    for name in ("a/same", "b/same"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UsageError, match="same"):
        pack([str(tmp_path / "a/same"), str(tmp_path / "b/same")], str(snapshot))
    assert not snapshot.exists()


def test_a_single_file_is_a_source(tmp_path: Path, snapshot: Path, target: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    pack_tree(tmp_path / "model.bin", snapshot)
    restore_tree(snapshot, target)
    assert (target / "model.bin").read_bytes() == b"weights"


def test_include_and_exclude_select_a_part(source: Path, snapshot: Path, target: Path) -> None:
    for name in ("runs/a/config.json", "runs/a/model.bin", "runs/b/config.json", "notes.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    pack_tree(source, snapshot)
    result = restore_tree(snapshot, target, include=["runs/*/config.json"], exclude=["b"])
    assert [path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if path.is_file()] == [
        "runs/a/config.json"
    ]
    assert result.num_files == 3
    with pytest.raises(UsageError, match="matches"):
        restore_tree(snapshot, target, include=["nothing"], overwrite="always")


def test_hard_link_whose_file_is_not_selected_becomes_a_file(source: Path, snapshot: Path, target: Path) -> None:
    (source / "a").write_text("shared")
    for name in ("b", "c"):
        (source / name).hardlink_to(source / "a")
    pack_tree(source, snapshot)
    restore_tree(snapshot, target, exclude=["a"])
    assert (target / "b").read_text() == "shared"
    assert (target / "b").samefile(target / "c")


def test_overwrite_policies(source: Path, snapshot: Path, target: Path) -> None:
    for name in ("same", "edited", "missing"):
        (source / name).write_text(f"{name} as packed")
    pack_tree(source, snapshot)
    restore_tree(snapshot, target)
    (target / "edited").write_text("edited since!!")
    (target / "missing").unlink()
    (target / "new").write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        restore_tree(snapshot, target)
    untouched = (target / "same").stat().st_ino

    assert restore_tree(snapshot, target, overwrite="never").kept == 2
    assert (target / "edited").read_text() == "edited since!!"
    assert (target / "missing").read_text() == "missing as packed"

    assert restore_tree(snapshot, target, overwrite="if-changed").kept == 2
    assert (target / "edited").read_text() == "edited as packed"
    assert (target / "same").stat().st_ino == untouched

    assert restore_tree(snapshot, target, overwrite="always").kept == 0
    assert (target / "same").stat().st_ino != untouched
    assert (target / "new").read_text() == "mine"
    assert not [path for path in target.iterdir() if path.name.startswith(".dumont")]


def test_a_file_being_replaced_is_never_truncated(source: Path, snapshot: Path, target: Path) -> None:
    (source / "model").write_bytes(b"new" * 1000)
    pack_tree(source, snapshot)
    target.mkdir()
    (target / "model").write_bytes(b"old")
    with (target / "model").open("rb") as reader:
        restore_tree(snapshot, target, overwrite="always")
        assert reader.read() == b"old"
    assert (target / "model").read_bytes() == b"new" * 1000


def test_packing_leaves_out_its_own_output(source: Path, target: Path) -> None:
    (source / "file").write_text("content")
    for _ in range(2):
        pack_tree(source, source / "inside.dumont")
    restore_tree(source / "inside.dumont", target)
    # Neither the snapshot being written nor the snapshot it replaced is packed.
    assert [path.name for path in target.iterdir()] == ["file"]


def test_many_small_files_of_one_chunk_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumont_gpu.jobs.restore_stages._PART", 3)
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in ("a", "a/b", "c"):
        (source / folder).mkdir(parents=True)
        for number in range(7):
            (source / folder / f"{number}.txt").write_text(f"{folder} {number}" * number)
    parts: list[int] = []
    original = FileWriter.write_small

    def write_small(self: FileWriter, files: SmallFiles, content: memoryview) -> None:
        parts.append(len(files))
        original(self, files, content)

    monkeypatch.setattr(FileWriter, "write_small", write_small)
    pack_tree(source, tmp_path / "x.dumont")
    restore_tree(tmp_path / "x.dumont", target)
    assert_same_tree(source, target)
    assert sorted(parts) == [3] * 7  # six parts of the chunk, and the files without bytes
