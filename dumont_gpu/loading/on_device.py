"""Opens tensors of a snapshot on a CUDA device."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dumont_gpu.backends import open_device
from dumont_gpu.backends.device import DeviceRegion
from dumont_gpu.errors import UsageError
from dumont_gpu.loading.chunk_loader import ChunkLoader
from dumont_gpu.loading.device_loader import DeviceLoader
from dumont_gpu.loading.device_memory import CupyMemory, TorchMemory
from dumont_gpu.loading.frameworks import Framework, Torch
from dumont_gpu.loading.opened import OpenedSnapshot
from dumont_gpu.loading.tensor_files import TensorFiles
from dumont_gpu.loading.tensor_load import Memory, TensorLoads


def device_number(framework: str, device: object) -> int | None:
    """Returns the number of the CUDA device that a caller names; None for the host.

    Raises:
        UsageError: `device` names none, or the framework has no arrays there.
    """
    default = "cuda" if framework == "cupy" else "cpu"
    name = default if device is None else str(device)  # of a torch.device, "cuda:0"
    name = "0" if name == "cuda" else name.removeprefix("cuda:")
    if name == "cpu":
        if framework == "cupy":
            raise UsageError("CuPy's arrays are on a device: name one, as device=0")
        return None
    if not re.fullmatch("[0-9]{1,5}", name):
        raise UsageError(f"device must be cpu, or the number of a CUDA device, not {str(device)[:40]!r}")
    if framework in ("np", "numpy"):
        raise UsageError("NumPy's arrays are on the host: framework pt, cupy or jax has arrays on a device")
    return int(name)


def open_on_device(
    opened: OpenedSnapshot,
    paths: Sequence[str],
    framework: Framework,
    number: int,
    reader: ChunkLoader,
    *,
    verify: bool,
) -> TensorFiles:
    """Returns the tensors of files, to be loaded to CUDA device `number`.

    Args:
        reader: loads the files' tables.

    Raises:
        DeviceError: the device cannot be used.
        DumontError: as `TensorFiles`.
    """
    device = open_device(number, needs_lz4=False)
    opened.at_close(device.close)
    device.load_kernels()  # before tensors take the device's memory

    # Weakly: what is closed with the snapshot must not keep it alive, where nobody closes it.
    weak = weakref.WeakMethod(opened.reading)

    def reading() -> AbstractContextManager[None]:
        method = weak()
        return nullcontext() if method is None else method()

    def loader() -> DeviceLoader:
        return DeviceLoader(opened.snapshot, opened.options, device, verify=verify, reading=reading)

    own = loader()
    opened.at_close(own.close)
    loads: TensorLoads[DeviceRegion, Any] = TensorLoads(own, device_memory(framework, number), framework)
    return TensorFiles(opened, paths, loads, loader, reader)


def device_memory(framework: Framework, number: int) -> Memory[DeviceRegion, Any]:
    """Returns the memory that a framework makes arrays of. JAX takes CuPy's."""
    if isinstance(framework, Torch):
        return TorchMemory(framework.torch, number)
    import cupy

    return CupyMemory(cupy, number)
