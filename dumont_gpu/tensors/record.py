"""A tensor's place in a file: name, element type, shape and bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dumont_gpu.errors import UnsupportedError
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """Where a tensor lies in its file.

    Args:
        name: unique within the file; names of nested containers are joined by dots.
        dtype: a key of ELEMENT_TYPES; or NumPy's description of another type, such as ">f4", for NumPy alone.
        item_size: bytes of an element.
        shape: elements along each dimension; () for a scalar.
        start: offset in the file of the first element's first byte.
        strides: elements between neighbours along each dimension, none negative; None: row-major without gaps.
        member: the member of a zip that must be inflated to reach the bytes, where `start` counts from; "": none.
    """

    name: str
    dtype: str
    item_size: int
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...] | None = None
    member: str = ""

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return self.count * self.item_size

    @property
    def span(self) -> int:
        """Bytes of the file from the first element to the end of the last."""
        if self.strides is None or not self.count:
            return self.size
        steps = zip(self.shape, self.strides, strict=True)
        return (1 + sum((length - 1) * stride for length, stride in steps)) * self.item_size


@dataclass(frozen=True, slots=True)
class TensorRef:
    """Stands for a tensor in the structure of a checkpoint."""

    name: str


@dataclass(frozen=True, slots=True)
class TensorTable:
    """The tensors of a file.

    Args:
        records: in the order of the file's own table.
        metadata: what the file says besides; of safetensors `__metadata__`.
        structure: a checkpoint's own containers, with a TensorRef in the place of each tensor; None: the file is a
            plain list of tensors.
    """

    records: Sequence[TensorRecord]
    metadata: Mapping[str, str] = field(default_factory=dict)
    structure: object = None


def item_size(dtype: str) -> int:
    """Returns the bytes of an element of a type of ELEMENT_TYPES.

    Raises:
        UnsupportedError: the type is not among them.
    """
    if dtype not in ELEMENT_TYPES:
        raise UnsupportedError(f"tensors of element type {dtype[:40]!r} are not known: read the file's bytes instead")
    return ELEMENT_TYPES[dtype].size
