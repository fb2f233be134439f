"""Tensors as the benchmark wrote them: what every load is compared with, and which chunks hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.loading.opened import OpenedSnapshot
from dumont_gpu.loading.wants import Want, cut

Bytes = npt.NDArray[np.uint8]
Original = dict[str, Bytes]  # the bytes of each tensor
HEADER_SIZE = 8  # bytes of the header's size, in front of it


class Written(NamedTuple):
    """A tensor of a safetensors file."""

    start: int  # offset of its first byte in the file
    end: int
    shape: tuple[int, ...]


def read_header(head: bytes, header: bytes) -> dict[str, Written]:
    """Returns the tensors of a safetensors file by name.

    Args:
        head: the size of the header, 8 bytes.
        header: the JSON behind it.
    """
    start = HEADER_SIZE + int.from_bytes(head, "little")
    entries: dict[str, Any] = json.loads(header)
    return {
        name: Written(start + entry["data_offsets"][0], start + entry["data_offsets"][1], tuple(entry["shape"]))
        for name, entry in entries.items()
        if name != "__metadata__"
    }


def written_in(file: Path) -> dict[str, Written]:
    """Returns the tensors of a safetensors file by name."""
    with file.open("rb") as opened:
        head = opened.read(HEADER_SIZE)
        return read_header(head, opened.read(int.from_bytes(head, "little")))


def original_of(file: Path) -> Original:
    """Returns the bytes of a safetensors file's tensors, mapped."""
    content = np.memmap(file, np.uint8, "r")
    return {name: content[tensor.start : tensor.end] for name, tensor in written_in(file).items()}


def least_bytes(snapshot: str, path: str, spans: Iterable[tuple[int, int]]) -> int:
    """Returns how many bytes of a snapshot whoever wants parts of a file must read: their chunks and the tables.

    Args:
        snapshot, path: a local snapshot, and a file in it.
        spans: start and end of each part.
    """
    with OpenedSnapshot(snapshot, ReadOptions()) as opened:
        file = opened.file(path)
        wants: list[Want[memoryview]] = [Want(file, start, end - start) for start, end in spans]
        sizes = [chunk.size_compressed for chunk in opened.snapshot.chunks]
        return opened.snapshot.source.size - sum(sizes) + sum(sizes[chunk.number] for chunk in cut(wants))
