"""Describes the CUDA device, its software and the code under test; says what it cannot find out instead of failing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from machine import REPOSITORY, commit, describe

PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "nvidia-libnvcomp-cu13", "nvidia-libnvcomp-cu12")
UNKNOWN = "unknown"
PATIENCE = 10  # seconds


def describe_gpu_machine(number: int = 0) -> dict[str, str]:
    """Returns what a reader needs to judge figures from this machine and device."""
    try:
        found = describe()
    except Exception:  # the installation failed, and that is what the report is about
        found = {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "commit": _or_unknown(commit)}
    return {
        "date": found.pop("date"),
        "commit": found.pop("commit"),
        "sources": _or_unknown(_sources),
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


def slug(name: str) -> str:
    """Returns a device's name for use in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


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
    from cupy_backends.cuda.libs import nvrtc

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
    """What a program says; nothing if it is not there, fails, or does not come back."""
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


def _sources() -> str:
    """Whether the installed Python and CUDA sources are this checkout's; of the compiled library nothing tells."""
    import dumont_gpu
    from dumont_gpu.backends.kernel_sources import KernelSources

    python = [Path(folder) for folder in dumont_gpu.__path__]
    same = _digest(python, "*.py") == _digest([REPOSITORY / "dumont_gpu"], "*.py")
    kernels = KernelSources.find()
    installed, ours = [kernels.cuda, kernels.shared], [REPOSITORY / "kernels/cuda", REPOSITORY / "kernels/shared"]
    same_kernels = all(_digest(installed, pattern) == _digest(ours, pattern) for pattern in ("*.cu", "*.h"))
    if same and same_kernels:
        return f"those of this checkout, kernels {_digest(installed, '*.cu')[:12]}"
    return "THE INSTALLED PACKAGE IS NOT THIS CHECKOUT"


def _digest(folders: list[Path], pattern: str) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob(pattern)):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _or_unknown(find: Callable[[], Any]) -> str:
    try:
        return str(find())
    except Exception as error:  # the report must come out of a machine where nothing works, too
        return f"{UNKNOWN} ({type(error).__name__})" if not isinstance(error, ImportError) else UNKNOWN
