"""What this machine can do for dumont-gpu, and what is missing for more."""

from __future__ import annotations

import importlib.metadata
import mmap
import os
import platform
import time

from dumont_gpu import native
from dumont_gpu.backends import Device, open_device
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.requirements import (
    Finding,
    find_cupy,
    find_devices,
    find_driver,
    find_nvcomp,
    missing_for_cuda,
)
from dumont_gpu.errors import DeviceError
from dumont_gpu.format import DEFAULT_CHUNK_SIZE
from dumont_gpu.sizes import format_size


def examine() -> list[Finding]:
    """Looks at processor, memory, packages, driver, devices and kernels."""
    return [_cpu(), _memory(), _lz4(), find_driver(), *find_devices(), find_cupy(), find_nvcomp(), _kernels()]


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0))
    return Finding("CPU", True, f"{platform.machine()}, {cores} cores, {native.cpu_path()} kernels")


def _memory() -> Finding:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Finding("Memory", True, f"{pages * size / (1 << 30):.1f} GiB")


def _lz4() -> Finding:
    return Finding("lz4", True, f"lz4 {importlib.metadata.version('lz4')}")


def _kernels() -> Finding:
    """Compiles the CUDA kernels for device 0, or says why that cannot be tried."""
    missing = missing_for_cuda(0)
    if missing:
        return Finding("CUDA kernels", False, missing)
    started = time.monotonic()
    try:
        device = open_device(0)
        device.load_kernels()
        free = format_size(device.free_memory())
        pinning = _pinning(device)
    except DeviceError as error:
        return Finding("CUDA kernels", False, str(error))
    lz4 = "" if device.has_lz4 else ", without LZ4: nvCOMP does not load"
    return Finding(
        "CUDA kernels", True, f"ready in {time.monotonic() - started:.1f} s, {free} free on the device{lz4}{pinning}"
    )


def _pinning(device: Device) -> str:
    """Tries to pin the memory of one chunk; returns what is to be said if that fails."""
    memory, pinning = memoryview(mmap.mmap(-1, DEFAULT_CHUNK_SIZE)), Pinning(device)
    pinning.pin(memory)
    pinning.close()
    return f", without pinned host memory ({pinning.refusal}): copies are slower" if pinning.refusal else ""
