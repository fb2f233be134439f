"""What loading into a device's memory is compared with: copies of raw bytes from pinned memory, and from a file."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from dumont_gpu.backends.device import Device
from dumont_gpu.bench.measure.gpu.load_check import has_torch
from dumont_gpu.bench.measure.memory import touched
from dumont_gpu.disk.direct_io import read_at
from dumont_gpu.sizes import MiB

MOST_PINNED: Final = 512 * MiB  # that is copied from, again and again: more than caches hold; 4 GiB take seconds to pin
READ_PIECE: Final = 16 * MiB  # two of them for each thread


class PlainCopy:
    """Raw bytes that already are in pinned memory -> device memory that already is allocated: nobody could be quicker.

    Args:
        there: address of device memory.
        size: raw bytes.
        piece: bytes of a copy.
    """

    def __init__(self, device: Device, there: int, size: int, piece: int) -> None:
        self._there, self._size, self._piece, self._stream = there, size, piece, device.new_stream()
        self._source = touched(max(piece, min(size, MOST_PINNED) // piece * piece))
        device.pin(self._source)
        self._device = device

    def close(self) -> None:
        self._device.unpin(self._source)

    def run(self) -> None:
        for at in range(0, self._size, self._piece):
            begin = at % len(self._source)
            size = min(self._piece, self._size - at)
            self._stream.copy_in(self._there + at, self._source[begin : begin + size])
        self._stream.synchronize()


class FileCopy:
    """Raw bytes of a file -> pinned buffers, two for each thread -> device memory that already is allocated.

    Args:
        there: address of device memory.
        path: of the file.
        skip: bytes of the file before the raw bytes.
        size: raw bytes.
        threads: that read.
    """

    def __init__(self, device: Device, there: int, path: Path, skip: int, size: int, threads: int) -> None:
        self._there, self._skip, self._size, self._threads = there, skip, size, threads
        with ExitStack() as held:
            self._descriptor = os.open(path, os.O_RDONLY)
            held.callback(os.close, self._descriptor)
            self._buffers = [[(device.new_stream(), touched(READ_PIECE)) for _ in range(2)] for _ in range(threads)]
            for _, memory in (buffer for pair in self._buffers for buffer in pair):
                device.pin(memory)
                held.callback(device.unpin, memory)
            self._pool = held.enter_context(ThreadPoolExecutor(threads))
            self._held = held.pop_all()

    def close(self) -> None:
        self._held.close()

    def run(self) -> None:
        list(self._pool.map(self._copy, range(self._threads)))

    def _copy(self, thread: int) -> None:
        pair = self._buffers[thread]
        for number, at in enumerate(range(thread * READ_PIECE, self._size, self._threads * READ_PIECE)):
            stream, memory = pair[number % 2]
            stream.synchronize()  # the copy before the last, out of the same buffer
            part = memory[: min(READ_PIECE, self._size - at)]
            read_at(self._descriptor, self._skip + at, part)
            stream.copy_in(self._there + at, part)
        for stream, _ in pair:
            stream.synchronize()


def safetensors_load(path: Path, number: int) -> Callable[[], Any] | None:
    """Returns what loads a file by safetensors' `load_file`, to the end; None where that or PyTorch is missing."""
    if not (has_torch() and find_spec("safetensors")):
        return None
    torch: Any = importlib.import_module("torch")
    safetensors: Any = importlib.import_module("safetensors.torch")

    def load() -> Any:
        tensors = safetensors.load_file(str(path), device=f"cuda:{number}")
        torch.cuda.synchronize(number)
        return tensors

    return load
