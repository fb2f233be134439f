"""Runs a module of the GPU check on the emulated device, with small inputs, as if it were started by `python -m`.

    python tests/support/on_double.py dumont_gpu.bench.measure.gpu.kernels OUTPUT.json --short

What only CuPy can do fails, and is a problem in the step's results. Whole jobs for the device run on the CPU. Loads
into device memory run as they are, with a stand-in for CuPy's arrays; PyTorch has none, and is left out.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dumont_gpu.backends as backends
from dumont_gpu.bench.measure import processes
from dumont_gpu.bench.measure.gpu import job_session, load_check, load_peers, sanitize, session, smoke, timer, variants
from dumont_gpu.loading import on_device
from support.cupy_double import cupy_on, loading_device
from support.emulated_device import EmulatedDevice

MiB = 1 << 20
SMALL = {  # constants of modules, and what they are here
    "SIZE": MiB,  # of smoke
    "DAMAGES": 1,
    "LARGEST": 100_000,
    "PIECE": MiB,
    "READ_PIECE": 256 << 10,  # of load_peers
    "LARGE_TENSOR": 384 << 10,  # and so on of load_check
    "CHECK_CHUNK": 256 << 10,
    "PREFETCH_LIMIT": 256 << 10,
    "SIZES": dict.fromkeys(job_session.SIZES, 2 * MiB),
    "REPEATS": dict.fromkeys(job_session.REPEATS, 1),
    "SETTLE": dict.fromkeys(job_session.SETTLE, 0.0),
}


def double() -> Any:
    device: Any = EmulatedDevice()
    new_stream = device.new_stream

    def stream_for_cupy() -> Any:
        stream: Any = new_stream()
        stream.cupy_stream = SimpleNamespace(ptr=0, synchronize=lambda: None)
        return stream

    device.capability = "9.0"
    device.new_stream = stream_for_cupy
    return device


def by_the_clock(stream: object, runs: Sequence[Callable[[], object]], repeats: int, inner: int) -> list[float]:
    seconds = []
    for number in range(repeats):
        start = time.perf_counter()
        runs[number % len(runs)]()
        seconds.append(time.perf_counter() - start)
    return seconds


def compiled(device: Any, stream: Any, values: dict[str, int]) -> Any:
    """The kernel as written in place of every variant."""
    return lambda grid, block, shared, arguments: stream.launch("zipnn_decode", grid, block, shared, arguments)


def dumont(*arguments: str, folder: Path) -> Any:
    on_cpu = ("cpu" if word == "0" else word for word in arguments)
    return _dumont(*on_cpu, folder=folder) | {"device": "cuda:0" if "0" in arguments else "cpu"}


_dumont = processes.dumont


def main(name: str, arguments: list[str]) -> int:
    device = double()
    module: Any = importlib.import_module(name)
    replaced = {
        "open_device": lambda number, **needs: device,
        "device_seconds": by_the_clock,
        "side_by_side": lambda stream, others: nullcontext(),
        "compiled": compiled,
        "dumont": dumont,
        **SMALL,
    }
    if name.endswith((".smoke", ".loads")):
        device_of_loads = loading_device()
        on_device.open_device = lambda number, **needs: device_of_loads  # type: ignore[assignment]
        sys.modules["cupy"] = cupy_on(device_of_loads)
    for each in (backends, job_session, load_check, load_peers, sanitize, session, smoke, timer, variants, module):
        for attribute, value in replaced.items():
            if hasattr(each, attribute):
                setattr(each, attribute, value)
    sys.argv = [name, *arguments]
    if not hasattr(module, "EXTENTS"):
        return int(module.main())
    small = replace(module.EXTENTS["quick"], chunk=MiB, repeats=1, batches=module.EXTENTS["quick"].batches and (1, 2))
    return session.run_step(module.Bench, dict.fromkeys(module.EXTENTS, small), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
