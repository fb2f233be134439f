"""Part of a tensor: which bytes it takes, and what of them an index means."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

from dumont_gpu.errors import UsageError
from dumont_gpu.format.paths import shown
from dumont_gpu.tensors.record import TensorRecord


def narrowed(record: TensorRecord, index: Any) -> tuple[TensorRecord, tuple[Any, ...]]:
    """Returns the part of a tensor that an index needs, and the index that is left to apply to that part.

    Whole numbers, and one slice behind them, take only their rows of the file; what follows is cut out of these rows
    in memory.

    Raises:
        UsageError: an index of more dimensions than the tensor has, or a number outside its dimension.
    """
    rest = list(index) if isinstance(index, tuple) else [index]
    if sum(each is not None and each is not Ellipsis for each in rest) > len(record.shape):
        raise UsageError(f"{shown(record.name)}: has {len(record.shape)} dimensions")
    while rest and record.shape:
        first = rest[0]
        if isinstance(first, slice):
            _check_slice(record, first)
            return _rows(record, first), (_stepped(record.shape[0], first), *rest[1:])
        if not _is_number(first):
            break
        record = _row(record, operator.index(first))
        del rest[0]
    return record, tuple(rest)


def _check_slice(record: TensorRecord, rows: slice) -> None:
    try:
        rows.indices(record.shape[0])
    except (TypeError, ValueError) as error:
        raise UsageError(f"{shown(record.name)}: {error}") from None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or getattr(value, "shape", None):
        return False
    try:
        operator.index(value)
    except TypeError:  # no number, or a bool of NumPy
        return False
    return True


def _row(record: TensorRecord, number: int) -> TensorRecord:
    length = record.shape[0]
    if not -length <= number < length:
        raise UsageError(f"{shown(record.name)}: there is no row {number} of {length}")
    start = record.start + number % length * _stride(record) * record.item_size
    strides = None if record.strides is None else record.strides[1:]
    return replace(record, start=start, shape=record.shape[1:], strides=strides)


def _rows(record: TensorRecord, rows: slice) -> TensorRecord:
    chosen = range(*rows.indices(record.shape[0]))
    first, end = (min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1) if chosen else (0, 0)
    start = record.start + first * _stride(record) * record.item_size
    return replace(record, start=start, shape=(end - first, *record.shape[1:]))


def _stepped(length: int, rows: slice) -> slice:
    """Returns what is left of a slice once only its rows are there, from the first to the last."""
    chosen = range(*rows.indices(length))
    return slice(None, None, chosen.step if chosen else 1)


def _stride(record: TensorRecord) -> int:
    """Returns how many elements lie between two rows."""
    if record.strides is not None:
        return record.strides[0]
    stride = 1
    for length in record.shape[1:]:
        stride *= length
    return stride
