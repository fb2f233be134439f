"""Where codecs run, and the choice of place."""

from __future__ import annotations

from dumont_gpu.backends.base import Backend
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.errors import DeviceError, UsageError


def select_backend(device: str) -> Backend:
    """Returns the backend for `device`: "auto", "cpu", or the number of a CUDA device ("0", "cuda:0").

    Raises:
        UsageError: none of these.
        DeviceError: a CUDA device that cannot be used. Only "auto" falls back to the CPU.
    """
    if device in ("auto", "cpu"):
        return CpuBackend()
    number = device.removeprefix("cuda:")
    if not number.isdigit():
        raise UsageError(f"unknown device {device!r}: auto, cpu, or the number of a CUDA device")
    from dumont_gpu.doctor import missing_for_cuda

    missing = missing_for_cuda(int(number))
    raise DeviceError(f"CUDA device {number} cannot be used: {missing}; --device auto goes on without one")


__all__ = ["Backend", "CpuBackend", "select_backend"]
