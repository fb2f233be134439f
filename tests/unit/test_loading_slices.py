"""Part of a tensor is what NumPy cuts out of the whole; only the chunks that hold its rows are fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.hostile import clear_error
from support.tensors import counted_reads, floats, model, packed

import dumont_gpu
from dumont_gpu.errors import UsageError
from dumont_gpu.loading.tensor_files import TensorFiles
from dumont_gpu.sizes import MiB

SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (9,), (4, 0, 3), (5, 4), (3, 1, 6), (2, 3, 4, 5)]
ROWS = 4000  # of 1,000 numbers: 16 MB


def array_of(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("slices")
    (folder / "source").mkdir()
    arrays = {str(shape): array_of(shape) for shape in SHAPES}
    np.savez(folder / "source/a.npz", **{f"F{name}": np.array(array, order="F") for name, array in arrays.items()})
    np.savez_compressed(folder / "source/z.npz", **{f"Z{name}": array for name, array in arrays.items()})
    model(folder / "source/m.safetensors", **arrays)
    with dumont_gpu.open(packed(folder / "source", folder / "x.dumont"), ["m.safetensors", "a.npz", "z.npz"]) as opened:
        yield opened


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_index_means_what_it_means_to_numpy(data: st.DataObject, files: TensorFiles) -> None:
    shape = data.draw(st.sampled_from(SHAPES))
    kind = data.draw(st.sampled_from(["", "F", "Z"]))
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    expected = array_of(shape)[index]
    found = files.get_slice(f"{kind}{shape}")[index]
    assert (expected.dtype, expected.shape) == (found.dtype, found.shape)
    assert np.array_equal(expected, found)
    with files.prefetch({f"{kind}{shape}": (None,) if index is None else index}) as ready:
        assert np.array_equal(expected, ready.take(f"{kind}{shape}"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.none() | st.integers(-12, 12),
    stop=st.none() | st.integers(-12, 12),
    step=st.integers(-11, 11).filter(bool),
    kind=st.sampled_from(["", "F"]),
)
def test_every_slice_of_rows(start: int | None, stop: int | None, step: int, kind: str, files: TensorFiles) -> None:
    for shape in ((9,), (5, 4)):
        expected = array_of(shape)[start:stop:step]
        assert np.array_equal(expected, files.get_slice(f"{kind}{shape}")[start:stop:step])


@pytest.mark.parametrize(
    "index",
    [
        np.int64(2),
        np.array([0, 2]),
        [True, False, True, False, True],
        True,
        np.True_,
        (slice(None), [0, 1]),
        np.array(3),
    ],
)
def test_other_indices_of_numpy_work_as_well(index: Any, files: TensorFiles) -> None:
    assert np.array_equal(array_of((5, 4))[index], files.get_slice("(5, 4)")[index])


@pytest.mark.parametrize(
    "index",
    [
        5,
        -6,
        (0, 4),
        (0, 0, 0),
        (slice(None), 4),
        (..., ...),
        "x",
        1.5,
        (0, "x"),
        slice(0, 2, 0),
        slice("a"),
        (1, slice(0, 1, 0)),
    ],
)
def test_an_index_that_the_tensor_does_not_have(index: Any, files: TensorFiles) -> None:
    clear_error(lambda: files.get_slice("(5, 4)")[index], UsageError)
    clear_error(lambda: files.prefetch({"(5, 4)": index}).take("(5, 4)"), UsageError)


@pytest.fixture
def large(source: Path, snapshot: Path) -> str:
    model(source / "m.safetensors", before=floats(300_000), w=floats(ROWS, 1000, seed=2), after=floats(300_000))
    return packed(source, snapshot, method="none")


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(0, 1), 1),
        (slice(1000, 1010), 10),
        (1000, 1),
        (-1, 1),
        ((1000, slice(5, 7)), 1),
        ((1000, 5), 1),
        ((slice(1000, 1010), slice(None, None, 3)), 10),
        (slice(1010, 999, -2), 11),
        (slice(-3, None), 3),
        (slice(7, 7), 0),
        (slice(0, 600), 600),
        (slice(None), ROWS),
    ],
)
def test_only_the_chunks_of_the_rows_are_fetched(
    index: Any, rows: int, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dumont_gpu.open(large, "m.safetensors", jobs=2) as opened, counted_reads(monkeypatch) as reads:
        assert np.array_equal(floats(ROWS, 1000, seed=2)[index], opened.get_slice("w")[index])
    fetched = sum(size for _, size in reads)
    assert fetched <= rows * 4000 + (2 * MiB if rows else 0)
    assert len(reads) == len(set(reads))
