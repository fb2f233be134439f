"""Where codecs run: the CPU or a CUDA device."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from dumont_gpu.backends.auto import AutoBackend
from dumont_gpu.backends.base import Backend, DigestCheck
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.device import Device, NoDeviceError
from dumont_gpu.backends.device_codecs import fit_for_devices
from dumont_gpu.backends.driver import ask_driver, begin_asking, wait_for_answer
from dumont_gpu.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from dumont_gpu.backends.cuda import CudaBackend


def select_backend(device: str, threads: int = 1, gpu_memory: int | None = None) -> Backend:
    """Returns the backend for `device`: "auto", "cpu", or the number of a CUDA device ("0", "cuda:0").

    Args:
        device: "auto" opens a device while the job runs, if at all, and goes on without one; a number opens it now.
        threads: threads that work on the CPU.
        gpu_memory: bytes of device memory to take at most; None: half of the free memory.

    Raises:
        UsageError: `device` names no kind of device.
        DeviceError: the CUDA device cannot be used.
    """
    if device == "cpu":
        return CpuBackend()
    if device == "auto":
        return AutoBackend(lambda go_on: _on(open_device(0, needs_lz4=False, go_on=go_on), gpu_memory), threads)
    number = device.removeprefix("cuda:")
    if not re.fullmatch("[0-9]{1,9}", number):
        raise UsageError(f"unknown device {device!r}: auto, cpu, or the number of a CUDA device")
    return _on(open_device(int(number)), gpu_memory)


def _on(device: Device, memory: int | None) -> CudaBackend:
    from dumont_gpu.backends.cuda import CudaBackend  # with its slots and launches: 3 ms, which other jobs need not pay

    return CudaBackend(device, memory)


def open_device(number: int, *, needs_lz4: bool = True, go_on: Callable[[], bool] = lambda: True) -> Device:
    """Opens a CUDA device.

    Args:
        number: of the device.
        needs_lz4: whether nvCOMP must be there, too.
        go_on: asked on the way whether the device is still wanted.

    Raises:
        NoDeviceError: the device is not there, and the message names the missing part; or it is not wanted any more.
        DeviceError: the device cannot be used.
    """
    from dumont_gpu.backends.requirements import missing_device, missing_packages

    sentence = f"CUDA device {number} cannot be used: {{}}; --device auto goes on without one"
    if missing := missing_packages(needs_lz4=needs_lz4):
        raise NoDeviceError(sentence.format(missing))
    begin_asking()  # the driver answers while CuPy is imported
    from dumont_gpu.backends.cupy_device import CupyDevice, import_cupy

    import_cupy()
    wait_for_answer(go_on)
    if not go_on():
        raise NoDeviceError(sentence.format("it is not wanted any more"))
    if missing := missing_device(number):
        raise NoDeviceError(sentence.format(missing))
    if failure := ask_driver().failure:
        raise DeviceError(sentence.format(failure))
    return CupyDevice(number)


__all__ = [
    "AutoBackend",
    "Backend",
    "CpuBackend",
    "Device",
    "DigestCheck",
    "fit_for_devices",
    "open_device",
    "select_backend",
]
