"""The tensors that a GGUF file of version 2 or 3 lists, after its key-value pairs.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from typing import Final

from dumont_gpu.native import Dtype
from dumont_gpu.plan.tensors.cursor import Cursor
from dumont_gpu.plan.tensors.tensor import Tensor, UnsoundError
from dumont_gpu.sizes import MiB

MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)  # a big-endian file has another number here: its tensors are sampled
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by type
_UINT32, _STRING, _ARRAY = 4, 8, 9
_ALIGNMENT_KEY: Final = b"general.alignment"
_DEFAULT_ALIGNMENT: Final = 32
_FLOATS: Final = {0: Dtype.FP32, 1: Dtype.FP16, 30: Dtype.BF16}  # ggml's element types; all others are quantised blocks
_MAX_HEADER: Final = 32 * MiB  # a vocabulary of 256,000 tokens with merges takes 15 MB
_MAX_DIMENSIONS: Final = 4
_MAX_NAME: Final = 64 * 1024
_MAX_LISTED: Final = 100_000  # tensors, and pairs


def tensors(cursor: Cursor) -> list[Tensor]:
    """Returns the listed tensors. A float tensor ends with its last element, any other where the next tensor begins.

    Raises:
        UnsoundError: the file is not sound, or becomes shorter.
        OSError: the file cannot be read.
    """
    cursor.move_to(len(MAGIC))
    if cursor.number(4) not in _VERSIONS:
        raise UnsoundError("an unknown version of GGUF")
    tensor_count, pair_count = cursor.number(8), cursor.number(8)
    if max(tensor_count, pair_count) > _MAX_LISTED:
        raise UnsoundError("too many tensors or keys")
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(pair_count):
        key, kind = _string(cursor), cursor.number(4)
        if key == _ALIGNMENT_KEY and kind == _UINT32:
            alignment = cursor.number(4)
        else:
            _skip_value(cursor, kind)
    listed = sorted(_tensor(cursor) for _ in range(tensor_count))
    if not alignment:
        raise UnsoundError("an alignment of zero")
    start = -(-cursor.at // alignment) * alignment
    ends = [offset for offset, _, _ in listed[1:]] + [cursor.size - start]
    found = []
    for (offset, size, dtype), end in zip(listed, ends, strict=True):
        found.append(Tensor(start + offset, start + (end if size is None else offset + size), dtype))
    return found


def _tensor(cursor: Cursor) -> tuple[int, int | None, Dtype | None]:
    """Returns offset, size and element type of the next listed tensor; a size only for floats."""
    _string(cursor)
    dimensions = cursor.number(4)
    if dimensions > _MAX_DIMENSIONS:
        raise UnsoundError("a tensor of more than four dimensions")
    count = 1
    for _ in range(dimensions):
        count *= cursor.number(8)
    dtype = _FLOATS.get(cursor.number(4))
    offset = cursor.number(8)
    return offset, None if dtype is None else count * dtype.size, dtype


def _string(cursor: Cursor) -> bytes:
    size = cursor.number(8)
    if size > _MAX_NAME or cursor.at > _MAX_HEADER:
        raise UnsoundError("a name that does not end")
    return cursor.read(size)


def _skip_value(cursor: Cursor, kind: int) -> None:
    count = 1
    if kind == _ARRAY:
        kind, count = cursor.number(4), cursor.number(8)
    if kind == _STRING:
        cursor.skip_strings(count, _MAX_HEADER)
    elif kind in _SIZES:
        cursor.move_to(cursor.at + count * _SIZES[kind])
    else:
        raise UnsoundError("an unknown type of value, or an array of arrays")
