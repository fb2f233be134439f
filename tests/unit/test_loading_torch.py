"""Tensors of PyTorch out of a snapshot are what `torch.load` and safetensors give; checkpoints come back whole."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hostile import clear_error
from support.tensors import PLACES, packed, placed, safetensors_bytes, words

import dumont_gpu
from dumont_gpu.errors import DamagedError, DumontError, UnsupportedError
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES
from dumont_gpu.tensors.record import TorchDevice, TorchDtype

torch = pytest.importorskip("torch")

SHAPES: list[tuple[int, ...]] = [(), (0,), (7,), (3, 0, 2), (2, 3, 4), (300, 33)]


def tensor_of(dtype: str, shape: tuple[int, ...]) -> Any:
    array = words(dtype, shape)
    kind = getattr(torch, ELEMENT_TYPES[dtype].torch)
    if not array.size:
        return torch.zeros(shape, dtype=kind)
    return torch.from_numpy(array.reshape(-1).view(np.uint8).copy()).view(kind).view(shape)


def every_tensor() -> dict[str, Any]:
    return {f"{dtype}.{shape}": tensor_of(dtype, shape) for dtype in ELEMENT_TYPES for shape in SHAPES}


def bits(tensor: Any) -> bytes:
    row = torch.empty(tensor.numel(), dtype=tensor.dtype)
    row.copy_(tensor.detach().reshape(-1))
    return bytes(row.view(torch.uint8).numpy().tobytes())


def assert_same(expected: Any, actual: Any, at: str = "") -> None:
    """Compares nested containers; tensors by type, shape and bits."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(actual, torch.Tensor), at
        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape), at
        assert bits(expected) == bits(actual), at
    elif isinstance(expected, dict):
        assert list(expected) == list(actual), at
        for key in expected:
            assert_same(expected[key], actual[key], f"{at}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert (type(expected) is tuple, len(expected)) == (type(actual) is tuple, len(actual)), at
        for number, value in enumerate(expected):
            assert_same(value, actual[number], f"{at}.{number}")
    else:
        assert expected == actual, at
        assert type(expected) is type(actual), at


def views() -> dict[str, Any]:
    """Tensors that do not fill their storage in its order, or share it."""
    base = torch.randn(40, 30, generator=torch.Generator().manual_seed(1))
    big = torch.randn(1100, 1000, generator=torch.Generator().manual_seed(2))
    return {
        "base": base,
        "transposed": base.T,
        "sliced": base[3:20:2, 1::3],
        "column": base[:, 5],
        "last": base[39, 29],
        "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        "expanded": torch.arange(3.0).view(3, 1).expand(3, 5),
        "scalar expanded": torch.tensor(2.5).expand(4, 4),
        "narrow": base.narrow(0, 10, 5),
        "strided": base.as_strided((5, 4), (2, 3), 7),
        "big transposed": big.T,
        "big rows": big[500:510],
        "empty view": base[5:5],
        "channels last": torch.arange(120.0).reshape(1, 2, 5, 12).contiguous(memory_format=torch.channels_last),
    }


def checkpoint() -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.ReLU(), torch.nn.Linear(40, 30))
    model[2].bias = torch.nn.Parameter(torch.zeros(30))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(3, 30)).sum().backward()
    optimizer.step()
    state = model.state_dict()
    return {
        "model": state,
        "ema": collections.OrderedDict((name, value * 0.5) for name, value in state.items()),
        "tied": [state["0.weight"], state["0.weight"].T, (state["0.weight"],)],
        "optimizer": optimizer.state_dict(),
        "step": 17,
        "lr": 1e-3,
        "name": "run \N{SNOWMAN}",
        "flags": {"fused": False, "none": None, 3: "three", (1, 2): "pair"},
        "set": {1, 2},
        "rng": torch.get_rng_state(),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "shape": torch.Size([3, 4]),
        "betas": (0.9, 0.95),
        "raw": b"\0\xff",
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["types", "views"])
def test_tensors_of_a_checkpoint(
    kind: str, place: str, source: Path, snapshot: Path, request: pytest.FixtureRequest
) -> None:
    tensors = every_tensor() if kind == "types" else views()
    torch.save(tensors, source / "m.pt")
    expected = torch.load(source / "m.pt", weights_only=True)
    packed(source, snapshot)
    with placed(place, snapshot, request) as location, dumont_gpu.open(location, "m.pt", framework="pt") as files:
        assert_same(expected, files.get_tensors())
        for name in list(expected)[::7]:
            assert_same(expected[name], files.get_tensor(name))
        with files.prefetch() as ready:
            taken = {name: ready.take(name) for name in ready.names()}
        assert_same(expected, {name: taken[name] for name in expected})


@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2", "lz4", "none", "zstd"])
def test_a_checkpoint_comes_back_whole(method: str, source: Path, snapshot: Path) -> None:
    torch.save(checkpoint(), source / "last.pt")
    expected = torch.load(source / "last.pt", weights_only=True)
    location = packed(source, snapshot, method=method)
    found = dumont_gpu.load_checkpoint(location, "last.pt", framework="pt")
    assert_same({**expected, "shape": None}, {**found, "shape": None})
    assert tuple(found["shape"]) == (3, 4)
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.ReLU(), torch.nn.Linear(40, 30))
    model.load_state_dict(found["model"])
    torch.optim.AdamW(model.parameters()).load_state_dict(found["optimizer"])
    assert found["tied"][0].data_ptr() == found["tied"][1].data_ptr() == found["model"]["0.weight"].data_ptr()


def test_a_checkpoint_as_arrays_of_numpy(source: Path, snapshot: Path) -> None:
    saved = {"w": torch.arange(6.0).view(2, 3).T, "half": [torch.ones(3, dtype=torch.bfloat16)]}
    torch.save({**saved, "dtype": torch.bfloat16, "device": torch.device("cuda", 1)}, source / "x.pt")
    found = dumont_gpu.load_checkpoint(packed(source, snapshot), "x.pt")
    assert np.array_equal(saved["w"].numpy(), found["w"])
    assert found["half"][0].astype(np.float32).tolist() == [1.0, 1.0, 1.0]
    assert (found["dtype"], found["device"]) == (TorchDtype("bfloat16"), TorchDevice("cuda:1"))


@pytest.mark.parametrize("root", ["tensor", "list", "parameter", "module's dict"])
def test_what_a_checkpoint_may_be_as_a_whole(root: str, source: Path, snapshot: Path) -> None:
    tensor = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    saved = {
        "tensor": tensor,
        "list": [tensor, [tensor + 1]],
        "parameter": torch.nn.Parameter(tensor),
        "module's dict": torch.nn.Linear(3, 4).state_dict(),
    }[root]
    torch.save(saved, source / "x.pt")
    expected = torch.load(source / "x.pt", weights_only=True)
    assert_same(expected, dumont_gpu.load_checkpoint(packed(source, snapshot), "x.pt", framework="pt"))


@pytest.mark.parametrize("place", PLACES)
def test_safetensors_as_the_library_loads_them(
    place: str, source: Path, snapshot: Path, request: pytest.FixtureRequest
) -> None:
    library = pytest.importorskip("safetensors.torch")
    tensors = {
        name: (name.split(".")[0], words(name.split(".")[0], tuple(tensor.shape)))
        for name, tensor in every_tensor().items()
    }
    (source / "m.safetensors").write_bytes(
        safetensors_bytes({name: found for name, found in tensors.items() if found[0] != "C128"})
    )
    expected = library.load_file(source / "m.safetensors")
    packed(source, snapshot)
    with placed(place, snapshot, request) as location:
        found = dumont_gpu.load(location, "m.safetensors", framework="pt")
    assert_same({name: expected[name] for name in found}, found)
    assert len(expected) == len(found)


def test_slices_of_views(source: Path, snapshot: Path) -> None:
    torch.save(views(), source / "m.pt")
    expected = torch.load(source / "m.pt", weights_only=True)
    with dumont_gpu.open(packed(source, snapshot), "m.pt", framework="pt") as files:
        for name, tensor in expected.items():
            for index in ([], [slice(1, 3)], [0], [-1, 0], [..., 0], [None, slice(None, None, 2)], [slice(5, 5)]):
                if len([each for each in index if each is not None and each is not ...]) > tensor.dim():
                    continue
                if tensor.dim() and not tensor.shape[0] and 0 in index:
                    continue
                found = files.get_slice(name)[tuple(index)]
                assert_same(tensor[tuple(index)].clone(), found, f"{name} {index}")


def test_a_negative_step_is_refused_as_pytorch_does(source: Path, snapshot: Path) -> None:
    torch.save({"w": torch.arange(5.0)}, source / "x.pt")
    with dumont_gpu.open(packed(source, snapshot), "x.pt", framework="pt") as files:
        assert "w: " in clear_error(lambda: files.get_slice("w")[::-1], dumont_gpu.errors.UsageError)


def test_loaded_tensors_are_the_callers_own(source: Path, snapshot: Path) -> None:
    torch.save({"w": torch.zeros(40, 30)}, source / "x.pt")
    with dumont_gpu.open(packed(source, snapshot), "x.pt", framework="pt") as files:
        first = files.get_tensor("w")
        first += 1
        part = files.get_slice("w")[3:5, ::2]
        part += 1
        assert not files.get_tensor("w").any()
        assert part.untyped_storage().nbytes() == part.numel() * 4
    assert first.all()
    torch.save(first, source / "again.pt")  # a tensor like any other


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path), "TorchScript"),
        (
            lambda path: torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False),
            "before version 1.6",
        ),
        (lambda path: torch.save({"model": torch.nn.Linear(2, 2)}, path), ""),
        (lambda path: torch.save({"call": print, "w": torch.ones(2)}, path), ""),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_holds_more_than_data_is_refused(saved: Any, says: str, source: Path, snapshot: Path) -> None:
    saved(source / "x.pt")
    location = packed(source, snapshot)
    with pytest.raises(UnsupportedError) as caught:
        dumont_gpu.load(location, "x.pt")
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_type_that_pytorch_lacks_is_named(source: Path, snapshot: Path) -> None:
    np.savez(source / "a.npz", **{"big\x1b": np.arange(3, dtype=">f4"), "w": np.arange(3.0)})
    with dumont_gpu.open(packed(source, snapshot), "a.npz", framework="pt") as files:
        message = clear_error(lambda: files.get_tensor("big\x1b"), UnsupportedError)
        assert "PyTorch has no element type" in message
        assert files.get_tensor("w").tolist() == [0.0, 1.0, 2.0]


def test_a_zip_whose_members_lie_elsewhere(source: Path, snapshot: Path) -> None:
    """Packed again by another program: without PyTorch's padding, perhaps deflated."""
    import zipfile

    torch.save(views(), source / "m.pt")
    expected = torch.load(source / "m.pt", weights_only=True)
    with zipfile.ZipFile(source / "m.pt") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    for name, method in (("stored.pt", zipfile.ZIP_STORED), ("deflated.pt", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(source / name, "w", method) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
    location = packed(source, snapshot)
    for name in ("stored.pt", "deflated.pt"):
        found = dumont_gpu.load(location, name, framework="pt")
        assert_same(expected, found)
        targets = {key: torch.zeros_like(tensor.contiguous()) for key, tensor in expected.items()}
        dumont_gpu.load_into(targets, location, name)
        assert_same(expected, targets)


# --- into a caller's tensors ------------------------------------------------------------------------------------------


def test_a_model_is_filled(source: Path, snapshot: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.BatchNorm1d(400), torch.nn.Linear(400, 30))
    torch.save(model.state_dict(), source / "m.pt")
    location = packed(source, snapshot)
    other = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.BatchNorm1d(400), torch.nn.Linear(400, 30))
    places = {name: tensor.data_ptr() for name, tensor in other.state_dict().items()}
    assert dumont_gpu.load_into(other.state_dict(), location, "m.pt") == ([], [])
    assert_same(model.state_dict(), other.state_dict())
    assert places == {name: tensor.data_ptr() for name, tensor in other.state_dict().items()}
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    left = dumont_gpu.load_into(dict(other.named_parameters()), location, "m.pt", strict=False)
    assert left.missing == []
    assert set(left.unexpected) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert_same(dict(model.state_dict()), dict(other.state_dict()))
    assert all(parameter.requires_grad for parameter in other.parameters())


@pytest.mark.parametrize("framework", ["np", "pt"])
@pytest.mark.parametrize("kind", ["types", "views"])
def test_every_tensor_into_targets_of_every_layout(kind: str, framework: str, source: Path, snapshot: Path) -> None:
    torch.save(every_tensor() if kind == "types" else views(), source / "m.pt")
    expected = torch.load(source / "m.pt", weights_only=True)
    location = packed(source, snapshot)
    rows = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in expected.items()}
    gaps = {
        name: torch.zeros(tuple(2 * length for length in tensor.shape), dtype=tensor.dtype)[
            tuple([slice(None, None, 2)] * tensor.dim())
        ]
        for name, tensor in expected.items()
    }
    for targets in (rows, gaps):
        dumont_gpu.load_into(targets, location, "m.pt", framework=framework)
        assert_same(expected, targets)


def test_conjugates_and_leaves_as_targets(source: Path, snapshot: Path) -> None:
    saved = {"c": torch.tensor([1 + 2j, 3 - 1j]), "w": torch.arange(6.0).view(2, 3)}
    torch.save(saved, source / "m.pt")
    targets = {"c": torch.zeros(2, dtype=torch.complex64).conj(), "w": torch.zeros(3, 2, requires_grad=True)}
    leaf = torch.zeros(3, 2)
    targets["w"] = torch.nn.Parameter(leaf.T)
    dumont_gpu.load_into(targets, packed(source, snapshot), "m.pt")
    assert torch.equal(saved["c"], targets["c"].resolve_conj())
    assert torch.equal(saved["w"], targets["w"].detach())


def test_a_target_of_one_element_with_any_stride(source: Path, snapshot: Path) -> None:
    torch.save({"w": torch.tensor([2.5])}, source / "m.pt")
    target = torch.zeros(4, 30)[1:2, 3]
    dumont_gpu.load_into({"w": target}, packed(source, snapshot), "m.pt")
    assert target.tolist() == [2.5]


def test_tied_targets(source: Path, snapshot: Path) -> None:
    weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(4))
    torch.save({"embed": weight, "head": weight}, source / "both.pt")
    torch.save({"embed": weight}, source / "one.pt")
    location = packed(source, snapshot)
    for path in ("both.pt", "one.pt"):
        shared = torch.zeros(30, 20)
        left = dumont_gpu.load_into({"embed": shared, "head": shared}, location, path)
        assert (left.missing, left.unexpected) == ([], [])
        assert torch.equal(weight, shared)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (lambda: torch.zeros(3, 2), "shape"),
        (lambda: torch.zeros(2, 3, dtype=torch.float64), "element type F32, and the target F64"),
        (lambda: torch.zeros(2, 3, device="meta"), "meta"),
        (lambda: [[0.0] * 3] * 2, "cannot be loaded into a list"),
        (lambda: np.zeros((2, 3), np.float64), "element type"),
    ],
)
def test_targets_that_do_not_fit_are_refused_before_anything_is_loaded(
    target: Any, says: str, source: Path, snapshot: Path
) -> None:
    torch.save({"a": torch.ones(4), "w": torch.ones(2, 3)}, source / "m.pt")
    first = torch.zeros(4)
    location = packed(source, snapshot)
    with pytest.raises(DumontError, match=says):
        dumont_gpu.load_into({"a": first, "w": target()}, location, "m.pt")
    assert not first.any()


def test_a_damaged_checkpoint_is_no_checkpoint(source: Path, snapshot: Path) -> None:
    torch.save({"w": torch.randn(600, 1000)}, source / "m.pt")
    location = packed(source, snapshot, method="none")
    data = bytearray(snapshot.read_bytes())
    data[2 << 20] ^= 1
    snapshot.write_bytes(data)
    assert "chunk " in clear_error(lambda: dumont_gpu.load_checkpoint(location, "m.pt"), DamagedError)
