"""The rules that every shape and all strides satisfy, whatever file they come from."""

from __future__ import annotations

import math
from typing import Final, TypeGuard

from dumont_gpu.tensors.faults import MalformedError

_MAX_DIMENSIONS: Final = 64  # of NumPy 2 and of PyTorch
_TOO_LARGE: Final = 1 << 63  # sizes and offsets are signed 64-bit numbers for every framework


def is_count(value: object) -> TypeGuard[int]:
    """Tells whether a value is a number of elements or bytes: an int, no bool, from 0 to 2^63 - 1."""
    return type(value) is int and 0 <= value < _TOO_LARGE


def checked_shape(values: object, item_size: int) -> tuple[int, ...]:
    """Returns a list or tuple of lengths as a shape, of elements of `item_size` bytes.

    Raises:
        MalformedError: it is no list of lengths, or more than 64 dimensions or 2^63 bytes. A length of 0 does not
            excuse the others: NumPy multiplies them all.
    """
    if not isinstance(values, (list, tuple)):
        raise MalformedError("a shape that is no list of lengths")
    if len(values) > _MAX_DIMENSIONS:  # before they are looked at: one list may be the shape of many tensors
        raise MalformedError(f"a shape of more than {_MAX_DIMENSIONS} dimensions")
    if not all(map(is_count, values)):
        raise MalformedError("a shape that is no list of lengths")
    if math.prod(length for length in values if length) * max(item_size, 1) >= _TOO_LARGE:
        raise MalformedError("a shape of 2^63 bytes or more")
    return tuple(values)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the strides of a shape, in elements, without gaps and with the last dimension the fastest."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def checked_strides(values: object, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Returns the strides of a shape, in elements; None if its elements are row-major without gaps.

    Raises:
        MalformedError: it is no list of one stride per dimension, or a stride is negative.
    """
    if not isinstance(values, (list, tuple)) or len(values) != len(shape) or not all(map(is_count, values)):
        raise MalformedError("strides that do not fit their shape")
    if 0 in shape:
        return None
    regular = all(
        length == 1 or stride == expected
        for length, stride, expected in zip(shape, values, row_major(shape), strict=True)
    )
    return None if regular else tuple(values)
