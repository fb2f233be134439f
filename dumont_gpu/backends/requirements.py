"""The requirements of a CUDA backend on this machine. Loads none of them but nvCOMP's library, and no driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dumont_gpu.backends.driver import LIBRARY, ask_driver, driver_is_there

_CUPY: Final = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
NVCOMP: Final = ("nvidia-libnvcomp-cu13", "nvidia-libnvcomp-cu12")  # they unpack to one folder: never both
NVCOMP_BINDING: Final = ("nvidia-nvcomp-cu13", "nvidia-nvcomp-cu12")  # brings the library
_EXTRA: Final = 'pip install "dumont-gpu[cuda13]" (or [cuda12], whichever the driver is for)'


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    found: bool
    detail: str


def find_driver() -> Finding:
    driver = ask_driver()
    if not driver.there:
        return Finding("NVIDIA driver", False, f"no NVIDIA driver ({LIBRARY}) on this machine")
    if driver.failure:
        return Finding("NVIDIA driver", False, driver.failure)
    return Finding("NVIDIA driver", True, f"CUDA {driver.version // 1000}.{driver.version % 1000 // 10}")


def find_devices() -> list[Finding]:
    return [Finding(f"CUDA device {number}", True, name) for number, name in enumerate(ask_driver().devices)]


def find_cupy() -> Finding:
    return _package("CuPy", _CUPY)


def find_nvcomp() -> Finding:
    """Finds the library and its Python binding, and says why the library cannot be used, if so."""
    library = _package("nvCOMP", NVCOMP)
    if not library.found:
        return library
    from dumont_gpu.backends.nvcomp import nvcomp_refusal

    if refusal := nvcomp_refusal():
        return Finding("nvCOMP", False, f"unusable, {library.detail}: {refusal}")
    binding = _package("nvCOMP", NVCOMP_BINDING)
    detail = f"{library.detail}, {binding.detail if binding.found else 'no Python binding'}"
    if all(_version(name) for name in NVCOMP):
        detail += f"; {' and '.join(NVCOMP)} overwrite each other: keep one"
    return Finding("nvCOMP", True, detail)


def missing_for_cuda(device: int, *, needs_lz4: bool = True) -> str:
    """Names a missing part of this machine for CUDA device number `device`; empty if all are there, working or not."""
    return missing_packages(needs_lz4=needs_lz4) or missing_device(device)


def missing_packages(*, needs_lz4: bool = True) -> str:
    """Says which package is not installed; does not wake the driver."""
    if not driver_is_there():
        return find_driver().detail
    for package in (find_cupy(), find_nvcomp()) if needs_lz4 else (find_cupy(),):
        if not package.found:
            return f"{package.what} is {package.detail}"
    return ""


def missing_device(device: int) -> str:
    """Says if the driver works but has no device of this number."""
    driver = ask_driver()
    if not driver.failure and device >= len(driver.devices):
        return f"this machine has {len(driver.devices)} CUDA device(s)"
    return ""


def _package(what: str, names: tuple[str, ...]) -> Finding:
    for name in names:
        if version := _version(name):
            return Finding(what, True, f"{name} {version}")
    return Finding(what, False, f"not installed: {_EXTRA}")


def _version(package: str) -> str:
    """Empty if the package is not installed."""
    import importlib.metadata  # takes 6 ms, which only machines with a driver pay

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
