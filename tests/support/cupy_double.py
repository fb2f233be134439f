"""Stands in for the part of CuPy that tensors are loaded with: its arrays are NumPy's, in an emulated device's memory."""

from __future__ import annotations

import ctypes
import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from support.emulated_device import EmulatedDevice


class ArrayOnDevice(np.ndarray):  # type: ignore[type-arg]
    """A NumPy array with what CuPy's have in other ways. Views of it keep the device memory."""

    device = SimpleNamespace(id=0)
    data = property(lambda array: SimpleNamespace(ptr=array.ctypes.data))  # type: ignore[assignment]

    def get(self) -> Any:
        return np.array(self)


def loading_device() -> EmulatedDevice:
    """Returns a device for `dumont_gpu.open`, which closes it though arrays are still there: closing does nothing."""
    device = EmulatedDevice()
    device.close = lambda: None  # type: ignore[method-assign]
    return device


class OutOfMemoryError(Exception):
    pass


def cupy_on(device: EmulatedDevice) -> Any:
    """Returns a module `cupy` whose arrays are on `device`. Like CuPy's, its pool keeps memory that arrays had."""
    kept: list[int] = []  # arrays may end in the midst of anything, even where the device's lock is held

    def free_all_blocks() -> None:
        while kept:
            device.free(kept.pop())

    def empty(size: int, dtype: Any) -> Any:
        free_all_blocks()
        address = device.allocate(-(-max(1, size) // 4096) * 4096)
        block = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(block, kept.append, address)
        return np.ctypeslib.as_array(block).view(ArrayOnDevice)

    def zeros(size: int, dtype: Any) -> Any:
        array = empty(size, dtype)
        array[:] = 0
        return array

    def frombuffer(content: Any, dtype: Any) -> Any:
        array = empty(len(content), dtype)
        array[:] = np.frombuffer(content, dtype)
        return array

    runtime = SimpleNamespace(deviceSynchronize=lambda: None)
    cuda = SimpleNamespace(
        Device=lambda number: nullcontext(),
        runtime=runtime,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )
    return SimpleNamespace(
        uint8=np.uint8, ndarray=ArrayOnDevice, lib=np.lib, empty=empty, zeros=zeros, frombuffer=frombuffer, cuda=cuda,
        get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=free_all_blocks),
    )  # fmt: skip
