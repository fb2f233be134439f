"""A session on a CUDA device: benchmarks of device memory share its sizes, and lose only the figures that fail."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dumont_gpu.backends import open_device
from dumont_gpu.backends.requirements import NVCOMP
from dumont_gpu.bench.corpora.weights import weights
from dumont_gpu.bench.measure.gpu.results import StepResults, say
from dumont_gpu.errors import DeviceError, DumontError
from dumont_gpu.native import Dtype

RUNS_BETWEEN_EVENTS = 16  # chunks, at least
MEMORY_SHARE = 0.8  # of the free memory
ELEMENTS = {Dtype.BF16: "half", Dtype.FP16: "half", Dtype.FP32: "fp32", Dtype.FP8_E4M3: "fp8"}  # as nvCOMP has them


@dataclass(frozen=True, slots=True)
class Extent:
    """The amount of work of a run."""

    chunk: int  # original bytes
    repeats: int
    batches: tuple[int, ...]  # chunks
    nvcomp_blocks: tuple[int, ...]  # bytes
    block_log2s: tuple[int, ...] = (17,)  # of ZipNN; 17: as the package writes, and the largest of the format
    every_type: bool = False  # otherwise bf16, which targets are about
    every_peer: bool = False  # otherwise nvCOMP is measured on bf16 only
    unchecked: bool = False  # whether decoders of nvCOMP's that check nothing are measured, too


class DeviceBench(StepResults):
    """A run on one device; each row of its results has a `kind`, a `batch` and whether it is `verified`."""

    def __init__(self, number: int, extent: Extent, output: Path, parts: tuple[str, ...]) -> None:
        super().__init__(output, parts, {"chunk": extent.chunk, "repeats": extent.repeats})
        self.extent, self._parts = extent, parts
        self.device: Any = open_device(number)
        self.stream: Any = self.device.new_stream()

    def finish(self) -> int:
        """Adds wrong outputs to the problems; returns the exit code."""
        self.results["problems"] += self._unverified()
        self.save()
        return 1 if self.results["problems"] else 0

    def weights(self) -> Iterator[tuple[str, Dtype, memoryview]]:
        """The kinds of weights to measure; bf16, which targets are about, comes first, should time run out."""
        for kind in sorted(weights(self.extent.chunk), key=lambda kind: kind[1] is not Dtype.BF16):
            if self.extent.every_type or kind[1] is Dtype.BF16:
                say(kind[0])
                yield kind

    def batches(self, each: int) -> list[int]:
        """The batch sizes that fit, if a chunk takes `each` bytes of device memory."""
        room = int(self.device.free_memory() * MEMORY_SHARE) // each
        found = [count for count in self.extent.batches if count <= room]
        if not found:
            raise DeviceError("not even one chunk fits in the device's free memory")
        return found

    def inner(self, count: int) -> int:
        """How many runs of `count` chunks lie between two events."""
        return max(1, RUNS_BETWEEN_EVENTS // count)

    def _unverified(self) -> Iterator[str]:
        for part in self._parts:
            for row in self.results[part]:
                if not row.get("verified", True):
                    yield f"{part}, {row['kind']}, batch {row['batch']}: the output is wrong"


def add_extent(parser: argparse.ArgumentParser) -> None:
    """Options that set `extent` to "full", "short" or "quick"."""
    extents = parser.add_mutually_exclusive_group()
    extents.add_argument("--short", dest="extent", action="store_const", const="short", help="what targets are about")
    extents.add_argument("--quick", dest="extent", action="store_const", const="quick", help="show that it works")
    parser.set_defaults(extent="full")


def run_step(bench: Callable[[int, Extent, Path], Any], extents: dict[str, Extent], description: str) -> int:
    """The command line of a benchmark, whose `run` measures everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", type=int, default=0)
    add_extent(parser)
    options = parser.parse_args()
    try:
        started = bench(options.device, extents[options.extent], options.output)
    except DumontError as error:
        say(str(error))
        return 1
    started.run()
    return int(started.finish())


def nvcomp_version() -> str:
    """Raises importlib.metadata.PackageNotFoundError where nvCOMP is not installed."""
    for name in NVCOMP[:-1]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return importlib.metadata.version(NVCOMP[-1])
