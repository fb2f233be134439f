"""Finds the tensors of a file in the file's own table of contents; nothing is unpickled or executed.

A file's bytes may be anything. Each parser is bounded in time and memory, raises UnsoundError for a file that is not
what its first bytes say, and may be wrong: a wrong answer costs size, never correctness.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from dumont_gpu.plan.tensors import gguf, npy, onnx, safetensors, zip_members
from dumont_gpu.plan.tensors.cursor import Cursor
from dumont_gpu.plan.tensors.tensor import MAX_TENSORS, SHORTEST, Tensor, UnsoundError

# First bytes, where in the file they are, and the parser. A file without any of them has no tensors that we know of.
_PARSERS: Final[Sequence[tuple[bytes, int, Callable[[Cursor], list[Tensor]]]]] = (
    (b"{", 8, safetensors.tensors),
    (b"PK\x03\x04", 0, zip_members.tensors),
    (npy.MAGIC, 0, npy.tensors),
    (gguf.MAGIC, 0, gguf.tensors),
    (onnx.FIRST_TAG, 0, onnx.tensors),
)
_MAGIC_SIZE: Final = max(at + len(magic) for magic, at, _ in _PARSERS)


def find_tensors(fd: int, size: int) -> list[Tensor]:
    """Returns the tensors of a file of `size` bytes, ascending and disjoint; an empty list if none are known.

    Tensors below SHORTEST bytes are left out. If there are more than MAX_TENSORS, so are the shorter ones of them.

    Raises:
        OSError: the file cannot be read.
    """
    head = os.pread(fd, _MAGIC_SIZE, 0)
    for magic, at, tensors in _PARSERS:
        if head.startswith(magic, at):
            try:
                return _sound(tensors(Cursor(fd, size)), size)
            except UnsoundError:
                continue
    return []


def _sound(tensors: list[Tensor], size: int) -> list[Tensor]:
    """Returns the tensors worth a border of their own, in file order.

    Raises:
        UnsoundError: a tensor is outside the file or within another tensor.
    """
    shortest = SHORTEST
    tensors = [tensor for tensor in tensors if tensor.end - tensor.start >= shortest]
    while len(tensors) > MAX_TENSORS:
        shortest *= 2
        tensors = [tensor for tensor in tensors if tensor.end - tensor.start >= shortest]
    tensors.sort(key=lambda tensor: tensor.start)
    if tensors and (tensors[0].start < 0 or tensors[-1].end > size):
        raise UnsoundError("a tensor is outside its file")
    if any(before.end > after.start for before, after in pairwise(tensors)):
        raise UnsoundError("tensors overlap")
    return tensors
