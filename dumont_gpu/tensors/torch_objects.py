"""What PyTorch's pickles may name: tensors, their storages and types; and the plain data around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dumont_gpu.tensors import plain_objects
from dumont_gpu.tensors.dtypes import BY_TORCH_NAME, ELEMENT_TYPES
from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.pickle_state import Builder, Interpreter
from dumont_gpu.tensors.record import TorchDtype
from dumont_gpu.tensors.shapes import checked_shape, checked_strides, is_count


@dataclass(frozen=True, slots=True)
class StorageType:
    """A class of storages; `dtype` is a key of ELEMENT_TYPES, "" of storages that are bytes without a type."""

    dtype: str


@dataclass(frozen=True, slots=True)
class TensorType:
    """A class of tensors: `torch.Tensor`, `torch.nn.Parameter`."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes outside the pickle.

    Args:
        key: names the member that has them.
        dtype: as of StorageType.
        size: bytes.
    """

    key: str
    dtype: str
    size: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: a view of a storage. Everything is checked but whether the zip has the storage.

    Args:
        storage: where the elements are.
        dtype: a key of ELEMENT_TYPES; or the name within `torch` of a type that is not known here.
        item_size: bytes of an element; 0 of a type that is not known here.
        shape: elements along each dimension.
        strides: as of TensorRecord.
        start: offset of the first element in the storage, in bytes.
    """

    storage: Storage
    dtype: str
    item_size: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    start: int


def storage_of(reference: object) -> Storage:
    """Returns the storage that a persistent id refers to: ("storage", type, key, device, elements).

    Raises:
        MalformedError: it is no such id.
    """
    if type(reference) is not tuple or len(reference) != 5 or reference[0] != "storage":
        raise MalformedError("a pickle with a reference that is to no storage")
    _, kind, key, _, count = reference
    if type(kind) is not StorageType or type(key) is not str or not is_count(count):
        raise MalformedError("a pickle with a reference that is to no storage")
    return Storage(key, kind.dtype, count * (ELEMENT_TYPES[kind.dtype].size if kind.dtype else 1))


# --- tensors ----------------------------------------------------------------------------------------------------------


def _view(storage: object, dtype: str, offset: object, shape: object, strides: object) -> View:
    """Returns a view whose elements all lie within its storage; offset and strides are in elements."""
    if not isinstance(storage, Storage) or not is_count(offset):
        raise MalformedError("a pickle with a tensor without a storage")
    item_size = ELEMENT_TYPES[dtype].size if dtype in ELEMENT_TYPES else 0
    lengths = checked_shape(shape, item_size)
    steps = checked_strides(strides, lengths)
    start = offset * item_size if math.prod(lengths) else 0
    view = View(storage, dtype, item_size, lengths, steps, start)
    if math.prod(lengths) and start + _span(lengths, strides, item_size) > storage.size:
        raise MalformedError("a tensor that reaches out of its storage")
    return view


def _span(shape: tuple[int, ...], strides: object, item_size: int) -> int:
    assert isinstance(strides, (list, tuple))
    steps = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    return (1 + int(steps)) * item_size


def _tensor(machine: Interpreter, storage: object, offset: object, shape: object, strides: object) -> View:
    if not isinstance(storage, Storage) or not storage.dtype:
        raise MalformedError("a pickle with a tensor without an element type")
    return _view(storage, storage.dtype, offset, shape, strides)


def _tensor_v2(
    machine: Interpreter,
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    requires_grad: object,
    hooks: object,
    metadata: object = None,
) -> View:
    _check_metadata(machine, metadata)
    return _tensor(machine, storage, offset, shape, strides)


def _tensor_v3(
    machine: Interpreter,
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
) -> View:
    _check_metadata(machine, metadata)
    if not isinstance(dtype, TorchDtype):
        raise MalformedError("a pickle with a tensor without an element type")
    return _view(storage, BY_TORCH_NAME.get(dtype.name, dtype.name), offset, shape, strides)


def _check_metadata(machine: Interpreter, metadata: object) -> None:
    """Refuses bits that change what a tensor's bytes mean: it is the negative or the conjugate of them."""
    if isinstance(metadata, dict):
        machine.spend(len(metadata))
    if metadata is not None and (not isinstance(metadata, dict) or any(metadata.values())):
        raise RefusedError("holds a tensor that is the negative or the conjugate of its bytes; save a clone of it")


def _parameter(
    machine: Interpreter, tensor: object, requires_grad: object, hooks: object, state: object = None
) -> View:
    if not isinstance(tensor, View):
        raise MalformedError("a pickle with a parameter that is no tensor")
    return tensor


def _with_attributes(machine: Interpreter, rebuild: object, kind: object, arguments: object, state: object) -> View:
    """A tensor with attributes in Python, which are left out."""
    if type(rebuild) is not Builder or type(kind) is not TensorType or type(arguments) is not tuple:
        raise MalformedError("a pickle with a tensor that is made by something else")
    view = rebuild.build(machine, *arguments) if rebuild in _REBUILDERS else None
    if not isinstance(view, View):
        raise MalformedError("a pickle with a tensor that is made by something else")
    return view


_REBUILDERS: Final = (
    Builder("torch._utils._rebuild_tensor", _tensor),
    Builder("torch._utils._rebuild_tensor_v2", _tensor_v2),
    Builder("torch._utils._rebuild_tensor_v3", _tensor_v3),
    Builder("torch._utils._rebuild_parameter", _parameter),
    Builder("torch._utils._rebuild_parameter_with_state", _parameter),
)


_STORAGE_TYPES: Final = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128", "UntypedStorage": "",
}  # fmt: skip
# Types of PyTorch that are not in ELEMENT_TYPES: as data they are fine, and tensors of them are listed.
_OTHER_TYPES: Final = (
    "complex32", "float4_e2m1fn_x2", "qint8", "quint8", "qint32", "quint4x2", "quint2x4",
    "bits1x8", "bits2x4", "bits4x2", "bits8", "bits16",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
)  # fmt: skip

NAMES: Final[Mapping[str, object]] = {
    **{builder.name: builder for builder in _REBUILDERS},
    "torch._tensor._rebuild_from_type_v2": Builder("torch._tensor._rebuild_from_type_v2", _with_attributes),
    "torch.Tensor": TensorType(),
    "torch._tensor.Tensor": TensorType(),
    "torch.nn.parameter.Parameter": TensorType(),
    **plain_objects.NAMES,
    **{f"torch.{name}": StorageType(dtype) for name, dtype in _STORAGE_TYPES.items()},
    "torch.storage.UntypedStorage": StorageType(""),
    **{f"torch.{name}": TorchDtype(name) for name in (*BY_TORCH_NAME, *_OTHER_TYPES)},
}
