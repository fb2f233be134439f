"""Describes the CUDA device, its software and the code under test; a fact that cannot be found out is "unknown"."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dumont_gpu.bench.report.machine import OTHER_PACKAGE, commit, describe, now, same_python

PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "nvidia-libnvcomp-cu13", "nvidia-libnvcomp-cu12", "nvidia-nvcomp-cu13",
            "nvidia-nvcomp-cu12")  # fmt: skip
UNKNOWN = "unknown"
PATIENCE = 10  # seconds


def describe_gpu_machine(number: int, checkout: Path) -> dict[str, str]:
    """Returns the facts that a reader needs to judge figures from this machine and device."""
    try:
        found = describe(checkout=checkout)
    except Exception:  # the installation failed, which the report will say
        found = {"date": now(), "commit": _or_unknown(lambda: commit(checkout))}
    return {
        "date": found.pop("date"),
        "commit": found.pop("commit"),
        "sources": _or_unknown(lambda: _sources(checkout)),
        "device": _or_unknown(lambda: _device(number)),
        "driver": _driver(number),
        "CUDA": _or_unknown(_cuda),
        "device packages": ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name))) or "none",
        "nvcc": _nvcc(),
        **found,
    }


def device_name(number: int = 0) -> str:
    """Returns the name as the driver gives it."""

    def by_cupy() -> str:
        import cupy

        name: bytes = cupy.cuda.runtime.getDeviceProperties(number)["name"]
        return name.decode()

    name = _or_unknown(by_cupy)
    return name if not name.startswith(UNKNOWN) else _query("name", number)


def _device(number: int) -> str:
    import cupy

    device = cupy.cuda.runtime.getDeviceProperties(number)
    memory, cache = device["totalGlobalMem"] / (1 << 30), device["l2CacheSize"] / (1 << 20)
    return (
        f"{device['name'].decode()}, sm_{device['major']}{device['minor']}, {device['multiProcessorCount']} SMs, "
        f"{memory:.0f} GiB, {cache:.0f} MiB of L2"
    )


def _cuda() -> str:
    import cupy

    nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")

    versions = {"driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion()}
    shown = [f"{name} {version // 1000}.{version % 1000 // 10}" for name, version in versions.items()]
    return ", ".join([*shown, "NVRTC {}.{}".format(*nvrtc.getVersion())])


def _driver(number: int) -> str:
    link = "/".join(_query(f"pcie.link.{what}.max", number) for what in ("gen", "width"))
    return f"{_query('driver_version', number)}, PCIe generation/lanes {link}"


def _query(field: str, number: int) -> str:
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    name = visible[number] if number < len(visible) else str(number)
    command = ["nvidia-smi", f"--id={name}", f"--query-gpu={field}", "--format=csv,noheader"]
    return next(iter(_output(command).splitlines()), UNKNOWN)


def _nvcc() -> str:
    if not shutil.which("nvcc"):
        return "none"
    found = re.search(r"V(\d+\.\d+\.\d+)", _output(["nvcc", "--version"]))
    return found[1] if found else UNKNOWN


def _output(command: list[str]) -> str:
    """The output of a program; empty if the program is not there, fails, or does not come back."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _sources(checkout: Path) -> str:
    """Whether the installed Python and CUDA sources are the checkout's; the compiled library cannot be compared."""
    from dumont_gpu.backends.kernel_sources import KernelSources

    sources = KernelSources.find()
    installed, here = _kernels(sources.cuda, sources.shared), _kernels(checkout / "kernels")
    if not same_python(checkout) or any(here.get(name) != content for name, content in installed.items()):
        return OTHER_PACKAGE
    digest = hashlib.sha256(b"".join(installed[name] for name in sorted(installed)))
    return f"those of this checkout, kernels {digest.hexdigest()[:12]}"


def _kernels(*folders: Path) -> dict[str, bytes]:
    """Name and content of every CUDA source and header below `folders`, at any depth."""
    files = (file for folder in folders for pattern in ("*.cu", "*.h") for file in folder.rglob(pattern))
    return {file.name: file.read_bytes() for file in files}


def _or_unknown(find: Callable[[], Any]) -> str:
    try:
        return str(find())
    except Exception as error:  # a machine where nothing works gets a report, too
        return f"{UNKNOWN} ({type(error).__name__})" if not isinstance(error, ImportError) else UNKNOWN
