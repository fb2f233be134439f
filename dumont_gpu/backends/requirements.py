"""What a CUDA backend needs of this machine, looked for without loading any of it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

_CUPY: Final = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
NVCOMP: Final = ("nvidia-libnvcomp-cu13", "nvidia-libnvcomp-cu12")
_EXTRA: Final = 'pip install "dumont-gpu[cuda13]" (or [cuda12], whichever the driver is for)'


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    found: bool
    detail: str


def find_driver() -> Finding:
    cuda = _cuda()
    if cuda is None:
        return Finding("NVIDIA driver", False, "no NVIDIA driver (libcuda.so.1) on this machine")
    status = cuda.cuInit(0)
    if status:
        return Finding("NVIDIA driver", False, f"the NVIDIA driver does not start (cuInit returned {status})")
    version = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    return Finding("NVIDIA driver", True, f"CUDA {version.value // 1000}.{version.value % 1000 // 10}")


def find_devices() -> list[Finding]:
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


def find_cupy() -> Finding:
    return _package("CuPy", _CUPY)


def find_nvcomp() -> Finding:
    return _package("nvCOMP", NVCOMP)


def missing_for_cuda(device: int, *, needs_lz4: bool = True) -> str:
    """Says what keeps CUDA device number `device` from being used; empty if nothing is known to."""
    driver = find_driver()
    if not driver.found:
        return driver.detail
    devices = find_devices()
    if device >= len(devices):
        return f"this machine has {len(devices)} CUDA device(s)"
    for package in (find_cupy(), find_nvcomp()) if needs_lz4 else (find_cupy(),):
        if not package.found:
            return f"{package.what} is {package.detail}"
    return ""


def _package(what: str, names: tuple[str, ...]) -> Finding:
    import importlib.metadata  # 6 ms, for machines with a driver only

    for name in names:
        try:
            return Finding(what, True, f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(what, False, f"not installed: {_EXTRA}")


def _cuda() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
