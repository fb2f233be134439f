"""Examines this machine for `doctor`: processor, limits, packages, driver, devices, kernels."""

from __future__ import annotations

import ctypes
import importlib.metadata
import mmap
import os
import platform
import time
from typing import Final

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
from dumont_gpu.cli.report.words import local_time
from dumont_gpu.errors import DeviceError
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.jobs.resources import ChunkRoom, default_threads
from dumont_gpu.limits import core_limits, memory_limits, open_files
from dumont_gpu.mounting import DEVICE, missing_for_mount
from dumont_gpu.sizes import format_size

_TIMEX: Final = 512  # bytes; more than struct timex has
_TIME_ERROR: Final = 5  # of adjtimex: the clock is not synchronised


def examine() -> list[Finding]:
    """Returns all findings, from the processor to the kernels."""
    devices = [find_driver(), *find_devices(), find_cupy(), find_nvcomp(), _kernels()]
    return [_cpu(), *_limits(), _clock(), _lz4(), *_extras(), *devices]


def _cpu() -> Finding:
    return Finding("CPU", True, f"{platform.machine()}, {os.cpu_count()} cores, {native.cpu_path()} kernels")


def _limits() -> list[Finding]:
    """Returns the limits of a job, each with its source, and the threads and memory that a job takes by default."""
    memory = [
        Finding("Memory", True, f"{format_size(limit.value)}, {format_size(limit.left)} left: {limit.source}")
        for limit in memory_limits()
    ]
    cores = [Finding("Cores", True, f"{limit.value:.4g}: {limit.source}") for limit in core_limits()]
    files = open_files()
    jobs = default_threads()
    buffers = format_size(ChunkRoom.of_machine(0, DEFAULT_CHUNK_SIZE).size(jobs))
    return [
        *memory,
        *cores,
        Finding("Open files", True, f"{files.value:.0f}: {files.source}"),
        Finding("A job takes", True, f"--jobs {jobs}, {buffers} for chunk buffers, if not told otherwise"),
    ]


def _clock() -> Finding:
    """Shows the time, and whether somebody keeps it: servers refuse signatures of another time."""
    now = local_time(time.time_ns())
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX))  # all zeros: reads, and sets nothing
    kept = state != _TIME_ERROR
    return Finding("Clock", kept, now if kept else f"{now}, not synchronised: s3:// bears 15 minutes")


def _extras() -> list[Finding]:
    """Returns the optional parts that are not about devices."""
    return [
        _extra("s3", ("obstore", "botocore"), "s3://, gs:// and az://"),
        _extra("fs", ("fsspec",), "dumont:// in pandas and others"),
        _mount(),
    ]


def _mount() -> Finding:
    missing = missing_for_mount()
    return Finding("Extra mount", not missing, missing or f"mfusepy {importlib.metadata.version('mfusepy')}, {DEVICE}")


def _extra(name: str, packages: tuple[str, ...], purpose: str) -> Finding:
    try:
        versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    except importlib.metadata.PackageNotFoundError as error:
        return Finding(f"Extra {name}", False, f'no {error.name}, for {purpose}: pip install "dumont-gpu[{name}]"')
    return Finding(f"Extra {name}", True, ", ".join(versions))


def _lz4() -> Finding:
    return Finding("lz4", True, f"lz4 {importlib.metadata.version('lz4')}")


def _kernels() -> Finding:
    """Compiles the CUDA kernels for device 0, or says why they cannot be compiled."""
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
    return Finding(
        "CUDA kernels", True, f"ready in {time.monotonic() - started:.1f} s, {free} free on the device{pinning}"
    )


def _pinning(device: Device) -> str:
    """Tries to pin the memory of a chunk; returns a clause for the finding if that fails."""
    memory, pinning = memoryview(mmap.mmap(-1, DEFAULT_CHUNK_SIZE)), Pinning(device)
    pinning.pin(memory)
    pinning.close()
    return f", without pinned host memory ({pinning.refusal}): copies are slower" if pinning.refusal else ""
