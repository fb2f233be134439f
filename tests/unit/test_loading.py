"""Tensors out of a snapshot are what the libraries that know their files give back: whatever the type, place and method."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hostile import clear_error
from support.servers import FaultServer
from support.tensors import (
    PLACES,
    counted_reads,
    floats,
    model,
    packed,
    placed,
    rng,
    safetensors_bytes,
    words,
)

import dumont_gpu
from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES

SAFETENSORS = [name for name in ELEMENT_TYPES if name != "C128"]
SHAPES: list[tuple[int, ...]] = [(), (0,), (7,), (3, 0, 2), (2, 3, 4), (1000, 33)]


def every_tensor() -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    return {f"{dtype}.{shape}": (dtype, words(dtype, shape)) for dtype in SAFETENSORS for shape in SHAPES}


def numpy_type(dtype: str) -> np.dtype[Any]:
    known = ELEMENT_TYPES[dtype]
    if known.numpy is not None:
        return np.dtype(known.numpy)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return np.dtype(getattr(ml_dtypes, str(known.ml_dtypes)))


def assert_same(expected: dict[str, np.ndarray[Any, Any]], actual: dict[str, Any]) -> None:
    assert list(expected) == list(actual)
    for name, array in expected.items():
        assert (array.dtype, array.shape) == (actual[name].dtype, actual[name].shape), name
        assert array.tobytes() == actual[name].tobytes(), name


# --- safetensors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_every_type_and_shape_of_safetensors(
    place: str, source: Path, snapshot: Path, request: pytest.FixtureRequest
) -> None:
    tensors = every_tensor()
    (source / "m.safetensors").write_bytes(safetensors_bytes(tensors, format="pt"))
    packed(source, snapshot)
    with placed(place, snapshot, request) as location, dumont_gpu.open(location, "m.safetensors") as files:
        assert files.metadata() == {"format": "pt"}
        for name, (dtype, array) in tensors.items():
            assert files.get_tensor_meta(name) == (dtype, array.shape)
            assert files.get_slice(name).get_shape() == list(array.shape)
            assert files.get_slice(name).get_dtype() == dtype
        assert_same(
            {name: array.view(numpy_type(dtype)) for name, (dtype, array) in tensors.items()}, files.get_tensors()
        )


def test_what_the_safetensors_library_reads(source: Path, snapshot: Path) -> None:
    library = pytest.importorskip("safetensors")
    content = safetensors_bytes(every_tensor())
    (source / "m.safetensors").write_bytes(content)
    loaded = dumont_gpu.load(packed(source, snapshot), "m.safetensors")
    for name, said in library.deserialize(content):
        assert (bytes(said["data"]), tuple(said["shape"])) == (loaded[name].tobytes(), loaded[name].shape)


def test_without_ml_dtypes_the_raw_words(source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    tensors = {dtype: (dtype, words(dtype, (40,))) for dtype in SAFETENSORS if ELEMENT_TYPES[dtype].numpy is None}
    (source / "m.safetensors").write_bytes(safetensors_bytes(tensors))
    assert_same(
        {name: array for name, (_, array) in tensors.items()},
        dumont_gpu.load(packed(source, snapshot), "m.safetensors"),
    )


@pytest.mark.parametrize("place", PLACES)
def test_arrays_of_jax(place: str, source: Path, snapshot: Path, request: pytest.FixtureRequest) -> None:
    jax = pytest.importorskip("jax")
    tensors = every_tensor()
    (source / "m.safetensors").write_bytes(safetensors_bytes(tensors))
    packed(source, snapshot)
    jax.config.update("jax_enable_x64", True)
    try:
        with placed(place, snapshot, request) as location:
            loaded = dumont_gpu.load(location, "m.safetensors", framework="jax")
    finally:
        jax.config.update("jax_enable_x64", False)
    assert all(isinstance(array, jax.Array) for array in loaded.values())
    expected = {name: array.view(numpy_type(dtype)) for name, (dtype, array) in tensors.items()}
    assert_same(expected, {name: np.asarray(array) for name, array in loaded.items()})


def test_jax_says_that_it_has_no_wide_types(source: Path, snapshot: Path) -> None:
    pytest.importorskip("jax")
    (source / "m.safetensors").write_bytes(safetensors_bytes({"\x1bw": ("I64", words("I64", (3,)))}))
    location = packed(source, snapshot)
    message = clear_error(
        lambda: dumont_gpu.load(location, "m.safetensors", framework="jax"), dumont_gpu.errors.UnsupportedError
    )
    assert "jax_enable_x64" in message


# --- NumPy's files ----------------------------------------------------------------------------------------------------

PLAIN = ["f8", "f4", "f2", "c8", "c16", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
OTHER = [">f4", ">i8", "U5", ">U3", "U0", "S7", "M8[ns]", "m8[25s]", "V3", "f16"]
FIELDS = [("a", "<f4"), ("b", "<i2", (2, 3)), ("c", [("d", "S3"), ("e", ">u8")])]


def numpy_arrays() -> dict[str, np.ndarray[Any, Any]]:
    arrays = {}
    for kind in [*PLAIN, *OTHER]:
        for shape in SHAPES[:5]:
            dtype = np.dtype(kind)
            count = int(np.prod(shape)) * dtype.itemsize
            bits = rng().integers(0, 2 if kind == "?" else 120, count, np.uint8)
            flat = np.frombuffer(bits.tobytes(), dtype) if dtype.itemsize else np.zeros(int(np.prod(shape)), dtype)
            if dtype.kind == "U" and dtype.itemsize:
                flat = np.full(int(np.prod(shape)), "ä\N{SNOWMAN}x", dtype)
            arrays[f"{kind.strip('<>?|')}{kind[0] == '>'}{kind == '?'} {shape}".replace("/", "")] = flat.reshape(shape)
    arrays["fields"] = np.zeros(5, np.dtype(FIELDS))
    arrays["fields"]["a"] = floats(5)
    arrays["fortran"] = np.asfortranarray(floats(40, 30))
    arrays["fortran 3"] = np.asfortranarray(floats(4, 3, 5))
    return arrays


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_npz(save: Any, place: str, source: Path, snapshot: Path, request: pytest.FixtureRequest) -> None:
    arrays = numpy_arrays()
    save(source / "a.npz", **arrays)
    packed(source, snapshot)
    with placed(place, snapshot, request) as location:
        assert_same(arrays, dumont_gpu.load(location, "a.npz"))


def test_an_npy_file_is_one_array(source: Path, snapshot: Path) -> None:
    arrays = numpy_arrays()
    for name, array in arrays.items():
        np.save(source / f"{name}.npy", array)
    location = packed(source, snapshot)
    for name, array in arrays.items():
        assert_same({"data": array}, dumont_gpu.load(location, f"{name}.npy"))


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [MiB, 64 * MiB])
@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2", "lz4", "none", "zstd"])
@pytest.mark.parametrize("verify", [False, True])
def test_tensors_across_chunks_and_chunks_across_tensors(
    method: str, chunk_size: int, verify: bool, source: Path, snapshot: Path
) -> None:
    arrays = {"large": floats(1100, 1000), "odd": floats(77_777, seed=3), "text": np.zeros((300, 1000), np.float32)}
    arrays |= {f"small.{number}": floats(number, 13, seed=number) for number in range(60)}
    model(source / "m.safetensors", **arrays)
    location = packed(source, snapshot, method=method, chunk_size=chunk_size)
    assert_same(arrays, dumont_gpu.load(location, "m.safetensors", verify=verify))
    with dumont_gpu.open(location, "m.safetensors", jobs=1, verify=verify) as files:
        for name in rng().permutation(list(arrays)):
            assert_same({name: arrays[name]}, {name: files.get_tensor(name)})
        with files.prefetch() as ready:
            found = {name: ready.take(name) for name in ready.names()}
        assert_same(arrays, {name: found[name] for name in arrays})


def test_holes_are_zeros(source: Path, snapshot: Path) -> None:
    array = np.zeros(3 << 20, np.float32)
    content = safetensors_bytes({"w": ("F32", array), "tail": ("F32", floats(5000))})
    with (source / "m.safetensors").open("wb") as file:
        file.write(content[:4096])
        file.seek(len(content) - 20_000)
        file.write(content[-20_000:])
        file.seek(5 << 20)
        file.write(floats(2000).tobytes())
    data = (source / "m.safetensors").read_bytes()
    start = len(content) - array.nbytes - 20_000
    expected = np.frombuffer(data[start : start + array.nbytes], np.float32)
    assert expected.any()
    location = packed(source, snapshot)
    dirty = np.full_like(array, 9), np.full(5000, 9, np.float32)
    dumont_gpu.load_into({"w": dirty[0], "tail": dirty[1]}, location, "m.safetensors")
    with dumont_gpu.open(location, "m.safetensors") as files, files.prefetch(["w"]) as ready:
        for found in (files.get_tensor("w"), files.get_slice("w")[:], dirty[0], ready.take("w")):
            assert np.array_equal(expected, found)
    assert np.array_equal(floats(5000), dirty[1])


def test_files_with_equal_bytes_share_their_chunks(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = floats(900, 1000)
    model(source / "a.safetensors", **{"a.first": floats(70_000, seed=2), "a.w": shared})
    model(source / "b.safetensors", **{"b.w": shared, "b.again": shared, "b.last": floats(80_000, seed=4)})
    location = packed(source, snapshot)
    with counted_reads(monkeypatch) as reads:
        loaded = dumont_gpu.load(location, ["a.safetensors", "b.safetensors"])
    assert all(np.array_equal(shared, loaded[name]) for name in ("a.w", "b.w", "b.again"))
    assert np.array_equal(floats(80_000, seed=4), loaded["b.last"])
    assert sum(size for _, size in reads) < shared.nbytes * 2
    loaded["b.w"][:] = 0
    assert np.array_equal(shared, loaded["a.w"])


def test_an_empty_tensor_fetches_nothing(source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(source / "m.safetensors", a=floats(300_000), none=floats(0, 5), b=floats(300_000, seed=3))
    with dumont_gpu.open(packed(source, snapshot), "m.safetensors") as files, counted_reads(monkeypatch) as reads:
        assert files.get_tensor("none").shape == (0, 5)
        assert files.get_slice("a")[7:7].shape == (0,)
    assert reads == []


def test_tensors_of_one_chunk_are_fetched_once(source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {f"w{number}": floats(2000, seed=number) for number in range(20)}
    model(source / "m.safetensors", **arrays)
    with dumont_gpu.open(packed(source, snapshot), "m.safetensors") as files, counted_reads(monkeypatch) as reads:
        for name in arrays:
            files.get_tensor(name)
    assert len(reads) <= 1


# --- paths ------------------------------------------------------------------------------------------------------------


def test_shards_by_pattern(source: Path, snapshot: Path) -> None:
    shards = [{f"layer.{number}.w": floats(500, seed=number)} for number in range(4)]
    for number, shard in enumerate(shards):
        model(source / f"models/x/model-{number}.safetensors", **shard)
    model(source / "models/x/deeper/other.safetensors", other=floats(3))
    (source / "models/x/config.json").write_text("{}")
    location = packed(source, snapshot)
    expected = {name: array for shard in shards for name, array in shard.items()}
    assert_same(expected, dumont_gpu.load(location, "models/x/*.safetensors"))
    assert_same(expected, dumont_gpu.load(f"{location}:models", "x/*.safetensors"))
    assert_same(
        expected, dumont_gpu.load(f"{location}:models/x", [Path(f"model-{number}.safetensors") for number in range(4)])
    )
    assert "holds no file" in clear_error(
        lambda: dumont_gpu.load(location, "models/*.safetensors"), SnapshotNotFoundError
    )


def test_a_file_whose_name_looks_like_a_pattern(source: Path, snapshot: Path) -> None:
    model(source / "a[1]*.safetensors", w=floats(5))
    assert_same({"w": floats(5)}, dumont_gpu.load(packed(source, snapshot), "a[1]*.safetensors"))


def test_the_layout_of_the_hugging_face_cache(source: Path, snapshot: Path) -> None:
    model(source / "hub/models--x/blobs/abc", w=floats(100))
    for revision in ("one", "two"):
        (source / "hub/models--x/snapshots" / revision).mkdir(parents=True)
        (source / "hub/models--x/snapshots" / revision / "model.safetensors").symlink_to("../../blobs/abc")
    (source / "hub/latest").symlink_to("models--x/snapshots/two")
    location = packed(source, snapshot)
    for path in (
        "hub/models--x/snapshots/one/model.safetensors",
        "hub/latest/model.safetensors",
        "hub/*/*/*/*.safetensors",
    ):
        assert_same({"w": floats(100)}, dumont_gpu.load(location, path))
    assert_same({"w": floats(100)}, dumont_gpu.load(f"{location}:hub/models--x", "snapshots/one/model.safetensors"))


def test_hard_links(source: Path, snapshot: Path) -> None:
    (source / "d").mkdir()
    os.link(model(source / "m.safetensors", w=floats(100)), source / "d/link.safetensors")
    location = packed(source, snapshot)
    assert_same({"w": floats(100)}, dumont_gpu.load(location, "d/link.safetensors"))
    assert_same({"w": floats(100)}, dumont_gpu.load(f"{location}:d", "link.safetensors"))
    assert_same({"w": floats(100)}, dumont_gpu.load(location, ["m.safetensors", "d/link.safetensors"]))


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("none", SnapshotNotFoundError, "holds no none"),
        ("d", UsageError, "is a directory"),
        ("", UsageError, "empty"),
        ([], UsageError, "name a file"),
        ("d/../m.safetensors", UsageError, "no .."),
        ("out", UsageError, "leads out"),
        ("root", UsageError, "leads out"),
        ("circle", UsageError, "circle"),
        ("dangling", SnapshotNotFoundError, "holds no d/none"),
        ("todir", UsageError, "is a directory"),
        ("notes.txt", DumontError, "notes.txt"),
        ("m.safetensors/x", SnapshotNotFoundError, "holds no"),
        (["m.safetensors", "same.safetensors"], UsageError, "w: is in m.safetensors and in same.safetensors"),
    ],
)
def test_paths_that_lead_to_no_tensors(
    path: Any, error: type[DumontError], says: str, source: Path, snapshot: Path
) -> None:
    model(source / "m.safetensors", w=floats(100))
    model(source / "same.safetensors", w=floats(90))
    (source / "d").mkdir()
    (source / "notes.txt").write_text("words")
    for name, target in {"out": "../x", "root": "/m", "circle": "circle", "dangling": "d/none", "todir": "d"}.items():
        (source / name).symlink_to(target)
    location = packed(source, snapshot, follow_outside=False)
    with pytest.raises(error) as caught:
        dumont_gpu.load(location, path)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_nothing_is_a_tensor_that_has_another_name(source: Path, snapshot: Path) -> None:
    model(source / "m.safetensors", w=floats(100))
    with dumont_gpu.open(packed(source, snapshot), "m.safetensors") as files:
        for attempt in (
            lambda: files.get_tensor("x\x1b"),
            lambda: files.get_slice("x\x1b"),
            lambda: files.get_tensor_meta("x\x1b"),
            lambda: files.prefetch(["x\x1b"]),
        ):
            assert "m.safetensors" in clear_error(attempt, UsageError)
        assert ("w" in files, "x" in files, len(files), files.keys()) == (True, False, 1, ["w"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"framework": "tf"}, "framework must be"),
        ({"framework": ["np"]}, "framework"),
        ({"device": "cuda:0"}, "device"),
        ({"device": 0}, "device"),
        ({"device": "gpu"}, "device"),
        ({"jobs": -1}, "jobs"),
        ({"memory": "many"}, "many"),
        ({"verify": "yes"}, "verify"),
        ({"memory": 100_000}, "needs --memory of at least"),
    ],
)
def test_arguments_that_make_no_sense(options: Any, says: str, source: Path, snapshot: Path) -> None:
    model(source / "m.safetensors", w=floats(500_000))
    location = packed(source, snapshot)
    with pytest.raises(DumontError, match=says):
        dumont_gpu.load(location, "m.safetensors", **options)


# --- files as bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_files_at_any_offset(place: str, source: Path, snapshot: Path, request: pytest.FixtureRequest) -> None:
    content = floats(900_000).tobytes() + b"\0" * 300_000
    (source / "large").write_bytes(content)
    (source / "empty").write_bytes(b"")
    (source / "link").symlink_to("large")
    packed(source, snapshot)
    with placed(place, snapshot, request) as location, dumont_gpu.open_files(location) as files:
        with files.open_file("link") as file:
            for start in rng().integers(0, len(content) + 10, 30).tolist():
                file.seek(start)
                assert file.read(70_000) == content[start : start + 70_000]
            assert (file.seek(-5, 2), file.read(), file.read(3)) == (len(content) - 5, content[-5:], b"")
            assert file.seek(0) == 0
            assert file.read() == content
        with pytest.raises(ValueError, match="closed"):
            file.read(1)
        assert files.open_file("empty").read() == b""
        assert dumont_gpu.read(location, "large", max_size=len(content)) == content
        held = files.open_file("large")
    with pytest.raises(DumontError, match="closed"):
        held.read(1)


def test_a_small_memory_is_enough(source: Path, snapshot: Path) -> None:
    arrays = {f"w{number}": floats(200_000, seed=number) for number in range(12)}
    model(source / "m.safetensors", **arrays)
    location = packed(source, snapshot)
    assert_same(arrays, dumont_gpu.load(location, "m.safetensors", memory=2 * MiB + 64 * KiB, jobs=8))


def test_what_nobody_closes_is_closed_with_its_last_user(
    source: Path, snapshot: Path, fault_server: FaultServer
) -> None:
    (source / "noise").write_bytes(rng().bytes(3 * MiB))
    fault_server.data = Path(packed(source, snapshot)).read_bytes()
    gc.collect()  # what other tests have left
    before = set(threading.enumerate())
    files = dumont_gpu.open_files(fault_server.url)
    content = files.open_file("noise").read()
    own = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("dumont")]
    del files
    gc.collect()
    assert (content == (source / "noise").read_bytes(), own != []) == (True, True)
    assert [thread for thread in own if thread.is_alive()] == []


@pytest.mark.parametrize("small", [True, False])
def test_a_loader_goes_on_after_signals_at_any_point(small: bool, source: Path, snapshot: Path) -> None:
    """A second signal may have left closed pools: what is loaded next is right all the same."""
    arrays = {f"w{number}": floats(300_000, seed=number) for number in range(6)}
    model(source / "m.safetensors", **arrays)
    with dumont_gpu.open(packed(source, snapshot, chunk_size=1 * MiB), "m.safetensors", jobs=2) as files:
        for pool in (files.loader._encoded, files.loader._raw):
            pool.close()
            found = files.get_slice("w3")[:10] if small else files.get_tensors()["w3"]
            assert np.array_equal(arrays["w3"][: len(found)], found)
