"""Tensors are loaded into a caller's arrays without a second copy, or refused before anything is touched."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hostile import clear_error
from support.tensors import floats, model, packed, safetensors_bytes, words

import dumont_gpu
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.sizes import MiB

W = floats(60, 50)


@pytest.fixture
def location(source: Path, snapshot: Path) -> str:
    model(source / "m.safetensors", w=W, v=floats(7))
    return packed(source, snapshot)


def test_the_targets_memory_is_filled(location: str) -> None:
    targets = {"w": np.zeros_like(W), "v": np.zeros(7, np.float32)}
    before = {name: target.ctypes.data for name, target in targets.items()}
    assert dumont_gpu.load_into(targets, location, "m.safetensors") == ([], [])
    assert np.array_equal(W, targets["w"])
    assert np.array_equal(floats(7), targets["v"])
    assert before == {name: target.ctypes.data for name, target in targets.items()}


def test_no_second_copy_is_made(source: Path, snapshot: Path) -> None:
    arrays = {f"w{number}": floats(1 << 20, seed=number) for number in range(12)}
    model(source / "m.safetensors", **arrays)
    location = packed(source, snapshot)
    targets = {name: np.zeros_like(array) for name, array in arrays.items()}
    dumont_gpu.load_into({"w0": targets["w0"]}, location, "m.safetensors", strict=False)  # imports
    tracemalloc.start()
    try:
        dumont_gpu.load_into(targets, location, "m.safetensors", jobs=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(np.array_equal(arrays[name], target) for name, target in targets.items())
    assert peak < 2 * MiB


@pytest.mark.parametrize(
    "layout",
    [
        lambda shape: np.zeros(shape, np.float32, order="F"),
        lambda shape: np.zeros((2 * shape[0], 3 * shape[1]), np.float32)[::2, ::3],
        lambda shape: np.zeros(shape, np.float32)[::-1, ::-1],
        lambda shape: np.zeros(shape, np.float32).view(np.ma.MaskedArray),
        lambda shape: np.zeros(shape, np.float32).view(np.recarray),
    ],
)
def test_targets_of_every_layout(layout: Any, location: str) -> None:
    target = layout(W.shape)
    dumont_gpu.load_into({"w": target}, location, "m.safetensors", strict=False)
    assert np.array_equal(W, np.asarray(target))


def test_memory_that_is_a_file(location: str, tmp_path: Path) -> None:
    target = np.memmap(tmp_path / "x", np.float32, "w+", shape=W.shape)
    dumont_gpu.load_into({"w": target}, location, "m.safetensors", strict=False)
    assert (tmp_path / "x").read_bytes() == W.tobytes()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (np.zeros((60, 51), np.float32), r"has shape \(60, 50\), and the target \(60, 51\)"),
        (np.zeros((50, 60), np.float32).T[:1], "shape"),
        (np.zeros(3000, np.float32), "shape"),
        (np.zeros((60, 50)), "element type F32, and the target <f8"),
        (np.zeros((60, 50), ">f4"), "element type F32, and the target >f4"),
        (np.zeros((60, 50), np.uint32), "element type"),
        (np.broadcast_to(np.zeros(50, np.float32), (60, 50)), "read-only"),
        (np.frombuffer(bytes(12_000), np.float32).reshape(60, 50), "read-only"),
        (bytearray(12_000), "cannot be loaded into a bytearray"),
        (None, "cannot be loaded into a NoneType"),
    ],
)
@pytest.mark.parametrize("name", ["first", "last"])
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    name: str, target: Any, says: str, location: str
) -> None:
    sound = np.zeros(7, np.float32)
    targets = {"v": sound, "w": target} if name == "last" else {"w": target, "v": sound}
    with pytest.raises(DumontError, match=says):
        dumont_gpu.load_into(targets, location, "m.safetensors")
    assert not sound.any()


def test_strict_lists_the_names_of_one_side(location: str) -> None:
    sound = np.zeros(7, np.float32)
    targets = {"v": sound, **{f"x\x1b{number}": np.zeros(1) for number in range(7)}}
    message = clear_error(lambda: dumont_gpu.load_into(targets, location, "m.safetensors"), UsageError)
    assert "no tensor for " in message
    assert " and 2 more; no target for w" in message
    assert not sound.any()
    left = dumont_gpu.load_into(targets, location, "m.safetensors", strict=False)
    assert (left.missing, left.unexpected) == ([name for name in targets if name != "v"], ["w"])
    assert np.array_equal(floats(7), sound)
    assert dumont_gpu.load_into({}, location, "m.safetensors", strict=False).unexpected == ["w", "v"]


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_raw_words_are_targets_of_types_that_numpy_lacks(dtype: str, source: Path, snapshot: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from dumont_gpu.tensors.dtypes import ELEMENT_TYPES

    array = words(dtype, (30, 20))
    (source / "m.safetensors").write_bytes(safetensors_bytes({"w": (dtype, array)}))
    location = packed(source, snapshot)
    typed = np.dtype(getattr(ml_dtypes, str(ELEMENT_TYPES[dtype].ml_dtypes)))
    for kind in (array.dtype, typed):
        for target in (np.zeros((30, 20), kind), np.zeros((20, 30), kind).T, np.zeros((60, 40), kind)[::2, ::2]):
            dumont_gpu.load_into({"w": target}, location, "m.safetensors")
            assert target.tobytes() == array.tobytes()
    wrong = np.zeros((30, 20), np.float16 if array.itemsize == 2 else np.int8)
    assert "element type" in clear_error(
        lambda: dumont_gpu.load_into({"w": wrong}, location, "m.safetensors"), UsageError
    )


@pytest.mark.parametrize("dtype", [">f4", ">i8", "U5", "M8[ns]", "f16", [("a", "<f4"), ("b", "<i2", (2,))]])
def test_types_that_only_numpy_has(dtype: Any, source: Path, snapshot: Path) -> None:
    array = np.zeros(6, dtype)
    array.view(np.uint8)[:] = 65 if dtype != "U5" else 0
    np.save(source / "a.npy", array)
    location = packed(source, snapshot)
    for target in (np.zeros(6, dtype), np.zeros(12, dtype)[::2]):
        dumont_gpu.load_into({"data": target}, location, "a.npy")
        assert target.tobytes() == array.tobytes()
    if dtype == ">f4":
        clear_error(lambda: dumont_gpu.load_into({"data": np.zeros(6, "<f4")}, location, "a.npy"), UsageError)


def test_empty_and_tied_targets(source: Path, snapshot: Path) -> None:
    model(source / "m.safetensors", none=floats(0, 5), a=W, b=W, scalar=np.array(2.5, np.float32))
    shared = np.zeros_like(W)
    targets = {"none": np.zeros((0, 5), np.float32), "a": shared, "b": shared, "scalar": np.zeros((), np.float32)}
    dumont_gpu.load_into(targets, packed(source, snapshot), "m.safetensors")
    assert np.array_equal(W, shared)
    assert targets["scalar"] == 2.5


def test_arrays_of_jax_are_no_targets(location: str) -> None:
    jax = pytest.importorskip("jax")
    target = jax.numpy.zeros(W.shape)
    message = clear_error(
        lambda: dumont_gpu.load_into({"w": target}, location, "m.safetensors", strict=False),
        dumont_gpu.errors.UnsupportedError,
    )
    assert "cannot be loaded into" in message


def test_tied_targets_need_one_tensor(source: Path, snapshot: Path) -> None:
    """As Hugging Face saves models: of weights that are one memory, the file has one name."""
    weight = floats(50, 4)
    model(source / "m.safetensors", embed=weight, head=floats(4))
    location = packed(source, snapshot)
    shared = np.zeros_like(weight)
    targets = {"embed": shared, "lm_head": shared[:], "head": np.zeros(4, np.float32)}
    assert dumont_gpu.load_into(targets, location, "m.safetensors") == ([], [])
    assert np.array_equal(weight, targets["lm_head"])
    for other in (shared.T, shared[1:], np.zeros_like(weight), np.zeros((0, 4), np.float32)):
        with pytest.raises(UsageError, match="no tensor for lm_head"):
            dumont_gpu.load_into({**targets, "lm_head": other}, location, "m.safetensors")
