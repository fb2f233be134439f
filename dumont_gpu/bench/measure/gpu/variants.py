"""Times variants of the decode kernel, compiled with other constants, on weights in device memory.

    python -m dumont_gpu.bench.measure.gpu.variants OUTPUT.json [--short | --quick] [--device N]

The kernel as written comes first and last: what lies between its two figures is noise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dumont_gpu import native
from dumont_gpu.backends.launches import ROOM_AFTER
from dumont_gpu.bench.measure.gpu.resident_decode import Batch, ResidentStreams, resident
from dumont_gpu.bench.measure.gpu.session import DeviceBench, Extent, run_step
from dumont_gpu.bench.measure.gpu.smoke import content_for
from dumont_gpu.bench.measure.gpu.timer import device_seconds
from dumont_gpu.bench.measure.gpu.variant_table import AS_WRITTEN, KERNEL, MEMORY, SOURCE, VARIANTS, compiler_options
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.codecs import ZipNN
from dumont_gpu.codecs.zipnn import BLOCK_LOG2
from dumont_gpu.format.digests import digest_function
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import MiB

EXTENTS = {  # chunks as jobs have them in each: small ones would choose another variant
    "full": Extent(64 * MiB, 10, (1, 16), (), every_type=True),
    "short": Extent(64 * MiB, 3, (1, 16), ()),
    "quick": Extent(64 * MiB, 3, (1, 16), ()),
}
TYPES = (Dtype.BF16, Dtype.FP16)  # of codes that synchronise soon, and late
EVERY_TYPE = (*TYPES, Dtype.FP32, Dtype.FP8_E4M3)


Launcher = Callable[[int, int, int, Sequence[int]], None]  # of a kernel: grid, block, shared memory, arguments


class ChosenStream:
    """A stream that launches the chosen variant in place of the package's kernel."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._launch: Launcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def choose(self, launch: Launcher) -> None:
        self._launch = launch

    def launch(self, kernel: str, grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
        if kernel == KERNEL:
            self._launch(grid, block, shared, arguments)
        else:
            self._stream.launch(kernel, grid, block, shared, arguments)


def compiled(device: Any, stream: Any, values: dict[str, int]) -> Launcher:
    """Compiles the kernel with these constants; returns what launches it."""
    kernel = device.compile(SOURCE, [KERNEL], *compiler_options(values))[KERNEL]

    def launch(grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
        memory = values.get(MEMORY, shared)
        kernel((grid,), (block,), tuple(arguments), shared_mem=memory, stream=stream.cupy_stream)

    return launch


class Bench(DeviceBench):
    def __init__(self, number: int, extent: Extent, output: Path) -> None:
        super().__init__(number, extent, output, ("variants",))
        self.results["capability"] = self.device.capability

    def run(self) -> dict[str, Any]:
        variants: dict[str, Launcher] = {}
        for name, values in VARIANTS.items():
            self.guarded(f"compiling: {name}", self._compile, variants, name, values)
        for dtype in EVERY_TYPE if self.extent.every_type else TYPES:
            self.guarded(dtype.name.lower(), self._weights, dtype, variants)
        return self.results

    def _compile(self, variants: dict[str, Launcher], name: str, values: dict[str, int]) -> None:
        variants[name] = compiled(self.device, self.stream, values)

    def _weights(self, dtype: Dtype, variants: dict[str, Launcher]) -> None:
        data = content_for(ZipNN(dtype), self.extent.chunk)
        encoded = anonymous(2 * len(data))
        encoded = encoded[: native.zipnn_encode(data, encoded, dtype, BLOCK_LOG2)]
        expected, stream = digest_function("blake3")(data), ChosenStream(self.stream)
        counts = self.batches(len(data) + len(encoded) + 2 * ROOM_AFTER)
        with resident(self.device, stream, encoded, len(data), counts[-1]) as chunks:
            batches = [chunks.batch(0, count) for count in counts]
            for name in [*variants, *([AS_WRITTEN] if AS_WRITTEN in variants else [])]:
                stream.choose(variants[name])
                for batch in batches:
                    row = {"variant": name, "kind": dtype.name.lower()}
                    self.guarded(f"{name}, {row['kind']}, {batch.count}", self._time, chunks, batch, expected, row)

    def _time(self, chunks: ResidentStreams, batch: Batch, expected: bytes, row: dict[str, Any]) -> None:
        seconds = device_seconds(
            self.stream.cupy_stream, [lambda: chunks.decode(batch)], self.extent.repeats, self.inner(batch.count)
        )
        facts = {"batch": batch.count, "size": batch.count * chunks.size, "seconds": seconds}
        self.results["variants"].append({**row, **facts, "verified": chunks.check(batch, expected)})


if __name__ == "__main__":
    sys.exit(run_step(Bench, EXTENTS, "Time variants of the decode kernel on a CUDA device."))
