"""Checkpoints that `torch.save` writes, and what a table must say of them; torch is imported where it is needed."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

from dumont_gpu.tensors.record import SINGLE, TensorRef, TorchDevice, TorchDtype

Tensors = dict[str, dict[str, Any]]  # by name: dtype within torch, shape, hex of the elements in row-major order


def element_types() -> object:
    import torch

    words = torch.arange(1, 97, dtype=torch.uint8)
    kinds = "float64 float32 float16 bfloat16 complex64 complex128 int64 int32 int16 int8 uint64 uint32 uint16 uint8"
    fp8 = "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
    tensors = {kind: words.view(getattr(torch, kind)).reshape(2, -1).clone() for kind in f"{kinds} {fp8}".split()}
    return tensors | {"bool": torch.tensor([[True, False, True]])}


def views() -> object:
    import torch

    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tied = torch.arange(6, dtype=torch.int16)
    return {
        "whole": base,
        "transposed": base.transpose(0, 2),
        "permuted": base.permute(1, 2, 0),
        "slice": base[1:, 1:3],
        "steps": base[:, ::2, ::3],
        "row": base[2, 1],
        "expanded": torch.tensor([[1.5], [2.5]]).expand(2, 4),
        "scalar": torch.tensor(3.25),
        "scalar view": base[1, 2, 3],
        "empty": torch.empty(0, 3),
        "empty view": base[3:, 1:],
        "empty typed": torch.empty(2, 0, dtype=torch.bfloat16),
        "tied": tied,
        "tied again": tied,
        "tied part": tied[2:5],
        "single": base[:1, :1],
        "fp8 view": torch.arange(12, dtype=torch.uint8).view(torch.float8_e4m3fn).reshape(3, 4).t(),
    }


def training() -> object:
    import torch

    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 5])
    for _ in range(2):
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        schedule.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rng": torch.get_rng_state()[:32].clone(),
        "epoch": 2,
    }


def parameters() -> object:
    import torch

    noted = torch.arange(3.0)
    noted.note = "an attribute"  # type: ignore[attr-defined]
    noted_parameter = torch.nn.Parameter(torch.arange(2.0))
    noted_parameter.note = ["another"]  # type: ignore[attr-defined]
    frozen = torch.nn.Parameter(torch.arange(4), requires_grad=False)
    return [torch.nn.Parameter(torch.ones(2, 2)), frozen, noted, noted_parameter, torch.nn.Buffer(torch.zeros(2))]


def plain_data() -> object:
    import torch

    shared = [torch.arange(3), "in two places"]
    return {
        "text": "Größe\n",
        "empty": [(), [], {}, set(), "", b""],
        "numbers": [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, -(2**200), 0.5, float("inf"), 1 + 2j],
        "flags": (True, False, None),
        "bytes": [b"\0\xff", bytearray(b"\x80abc")],
        "sets": [{1, 2}, frozenset({"a"})],
        "types": [torch.float32, torch.bfloat16, torch.complex32, torch.int4],
        "device": [torch.device("cpu"), torch.device("cuda", 1)],
        "size": torch.Size([2, 3]),
        7: {None: 1, True: 2, (1, "a"): 3, 0.5: torch.ones(1)},
        "shared": [shared, shared],
        "tuples": (torch.zeros(1), (torch.ones(1, dtype=torch.bool),), (1, 2, 3, 4)),
    }


def bare() -> object:
    import torch

    return torch.arange(5, dtype=torch.int32)


CHECKPOINTS: Final[dict[str, Callable[[], object]]] = {
    function.__name__.replace("_", "-"): function
    for function in (element_types, views, training, parameters, plain_data, bare)
}


def saved(root: object, **options: Any) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save(root, out, **options)
    return out.getvalue()


def loaded(data: bytes, *, weights_only: bool) -> object:
    """Returns what torch reads; by its own restricted reader if `weights_only`, which knows protocol 2 alone."""
    import torch

    return torch.load(io.BytesIO(data), weights_only=weights_only)


def expected(root: object, name: str = "") -> tuple[Tensors, object]:
    """Returns the tensors of what torch has loaded, and its structure."""
    import torch

    if isinstance(root, torch.Tensor):
        raw = root.detach().contiguous().reshape(-1).view(torch.uint8)
        described = {
            "dtype": str(root.dtype).removeprefix("torch."),
            "shape": list(root.shape),
            "hex": bytes(raw.tolist()).hex(),
        }
        return {name or SINGLE: described}, TensorRef(name or SINGLE)
    if isinstance(root, torch.dtype):
        return {}, TorchDtype(str(root).removeprefix("torch."))
    if isinstance(root, torch.device):
        return {}, TorchDevice(str(root))
    tensors: Tensors = {}
    if isinstance(root, dict):
        items: dict[Any, object] = {}
        for key, value in root.items():
            found, items[key] = expected(value, f"{name}.{key}" if name else f"{key}")
            tensors |= found
        return tensors, items
    if isinstance(root, (list, tuple)):
        children = []
        for index, value in enumerate(root):
            found, child = expected(value, f"{name}.{index}" if name else f"{index}")
            tensors |= found
            children.append(child)
        return tensors, children if isinstance(root, list) else tuple(children)
    return {}, root


def as_json(value: object) -> object:
    """Returns a structure in a form that JSON can hold, and that keeps its types."""
    if isinstance(value, dict):
        return {"dict": [[as_json(key), as_json(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [as_json(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {type(value).__name__: sorted(value)}
    if isinstance(value, (bytes, bytearray)):
        return {type(value).__name__: value.hex()}
    if value is None or isinstance(value, (bool, str)):
        return value
    return {type(value).__name__: repr(value)}  # numbers, and what stands for something of torch
