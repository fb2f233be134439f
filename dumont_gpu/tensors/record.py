"""A tensor's place in a file: name, element type, shape and bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dumont_gpu.tensors.dtypes import item_size

__all__ = ["SINGLE", "Member", "TensorRecord", "TensorRef", "TensorTable", "TorchDevice", "TorchDtype", "item_size"]

SINGLE: Final = "data"  # the name of a tensor that is the whole content of its file, which gives it no name


class Member(NamedTuple):
    """A member of a zip file, as the zip's directory describes it.

    Args:
        name: its path within the zip.
        header: offset in the file of its local header, which its bytes follow.
        room: bytes from there to the zip's directory; header and bytes fit in.
        packed: bytes in the file.
        size: bytes after inflating; the same as `packed` if it is stored.
        deflated: whether it must be inflated; otherwise its bytes lie in the file as they are.
        crc: CRC-32 of the `size` bytes; 0 if nobody has computed it.
    """

    name: str
    header: int
    room: int
    packed: int
    size: int
    deflated: bool
    crc: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """Where a tensor lies in its file.

    The bytes of a zip's member begin behind its local header, whose size only the header itself says. A table has
    hundreds of members all over its file, so `read_table` reads none of their headers. Who loads a tensor calls
    `zip_members.locate(file, record)` first: a small read next to the tensor's bytes, which returns the record with
    `start` as an offset in the file and without `member`, unless the member is deflated: then `zip_members.inflate`
    returns the bytes that `start` counts in.

    Args:
        name: unique within the file; names of nested containers are joined by dots. SINGLE where the file has none.
        dtype: a key of ELEMENT_TYPES; or NumPy's description of another type, for NumPy alone (`dtypes.is_numpy`),
            such as ">f4"; or the name of a type that is not known here: such a tensor is listed, and
            `item_size(record.dtype)` says why it cannot be loaded.
        item_size: bytes of an element; 0 for a type that is not known here, and for NumPy's empty strings.
        shape: elements along each dimension; () for a scalar.
        start: offset of the first element's first byte: in the file, or in the bytes of `member`.
        strides: elements between neighbours along each dimension, none negative, 0 where elements repeat; None:
            row-major without gaps. `size` may be far more than `span` then, and more than the file has.
        member: the member of a zip that the bytes are in, where `start` counts from; None: the file itself.
    """

    name: str
    dtype: str
    item_size: int
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...] | None = None
    member: Member | None = None

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
class TorchDtype:
    """Stands for an element type in the structure of a checkpoint; the name is the one within `torch`."""

    name: str


@dataclass(frozen=True, slots=True)
class TorchDevice:
    """Stands for a device in the structure of a checkpoint: "cpu", "cuda:0"."""

    name: str


@dataclass(frozen=True, slots=True)
class TensorTable:
    """The tensors of a file.

    Args:
        records: in the order of the file's own table. Several may have bytes in common.
        metadata: what the file says besides; of safetensors `__metadata__`.
        structure: a checkpoint's own containers, with a TensorRef in the place of each tensor; None: the file is a
            plain list of tensors. It has dicts, lists, tuples, sets, numbers, text, bytes, TorchDtype and TorchDevice.
    """

    records: Sequence[TensorRecord]
    metadata: Mapping[str, str] = field(default_factory=dict)
    structure: object = None
