"""The tensors that a safetensors header lists: JSON, its size in 8 bytes before it."""

from __future__ import annotations

import json
import operator
from typing import Final

from dumont_gpu.native import Dtype
from dumont_gpu.plan.tensors.cursor import Cursor
from dumont_gpu.plan.tensors.tensor import Tensor, UnsoundError

DTYPES: Final = {
    "F32": Dtype.FP32,
    "F16": Dtype.FP16,
    "BF16": Dtype.BF16,
    "F8_E4M3": Dtype.FP8_E4M3,
    "F8_E5M2": Dtype.FP8_E5M2,
}
_MAX_HEADER: Final = 100_000_000  # bytes; the limit of the safetensors library


def tensors(cursor: Cursor) -> list[Tensor]:
    """Returns the tensors that the header lists. Raises as `header_and_tensors` does."""
    return header_and_tensors(cursor)[1]


def header_and_tensors(cursor: Cursor) -> tuple[int, list[Tensor]]:
    """Returns where the header ends, and the tensors that it lists, in the order of their offsets.

    Raises:
        UnsoundError: the file is not sound, or becomes shorter.
        OSError: the file cannot be read.
    """
    header_size = cursor.number(8)
    if header_size > _MAX_HEADER:
        raise UnsoundError("a header of more than 100 MB")
    header = cursor.read(header_size)
    start = cursor.at
    try:
        listed = [
            Tensor(start + begin, start + end, DTYPES.get(str(tensor["dtype"])))
            for name, tensor in json.loads(header).items()
            if name != "__metadata__"
            for begin, end in [map(operator.index, tensor["data_offsets"])]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsoundError("a header that lists no tensors") from error
    listed.sort(key=lambda tensor: (tensor.start, tensor.end))
    return start, listed
