"""What this machine can do for dumont-gpu, and what is missing for more."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass
from typing import Final

from dumont_gpu import native

_CUPY: Final = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
_NVCOMP: Final = ("nvidia-nvcomp-cu13", "nvidia-nvcomp-cu12")
NO_CUDA_BACKEND: Final = "this version of dumont-gpu has no CUDA backend yet"


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    found: bool
    detail: str


def examine() -> list[Finding]:
    """Looks at processor, memory, driver, devices and packages."""
    return [_cpu(), _memory(), _package("lz4", ("lz4",)), _package("S3", ("obstore",)), _driver(), *_devices(),
            _package("CuPy", _CUPY), _package("nvCOMP", _NVCOMP),
            Finding("CUDA backend", False, NO_CUDA_BACKEND)]  # fmt: skip


def missing_for_cuda(device: int) -> str:
    """Says what keeps CUDA device number `device` from being used."""
    driver = _driver()
    if not driver.found:
        return driver.detail
    devices = _devices()
    if device >= len(devices):
        return f"this machine has {len(devices)} CUDA device(s)"
    return NO_CUDA_BACKEND


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0))
    return Finding("CPU", True, f"{platform.machine()}, {cores} cores, {native.cpu_path()} kernels")


def _memory() -> Finding:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Finding("Memory", True, f"{pages * size / (1 << 30):.1f} GiB")


def _package(what: str, names: tuple[str, ...]) -> Finding:
    for name in names:
        try:
            return Finding(what, True, f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(what, False, f"not installed ({' or '.join(names)})")


def _driver() -> Finding:
    cuda = _cuda()
    if cuda is None:
        return Finding("NVIDIA driver", False, "no NVIDIA driver (libcuda.so.1) on this machine")
    status = cuda.cuInit(0)
    if status:
        return Finding("NVIDIA driver", False, f"the NVIDIA driver does not start (cuInit returned {status})")
    version = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    return Finding("NVIDIA driver", True, f"CUDA {version.value // 1000}.{version.value % 1000 // 10}")


def _devices() -> list[Finding]:
    cuda = _cuda()
    count = ctypes.c_int()
    if cuda is None or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    devices = []
    for number in range(count.value):
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, len(name), number)
        devices.append(Finding(f"CUDA device {number}", True, name.value.decode(errors="replace")))
    return devices


def _cuda() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
