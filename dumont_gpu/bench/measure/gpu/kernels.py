"""Measures decoding on a CUDA device, with everything already in its memory: our kernels, nvCOMP's ANS and LZ4.

    python -m dumont_gpu.bench.measure.gpu.kernels OUTPUT.json [--short | --quick] [--device N]

Every output is checked. The launches of a batch size take other chunks in turn, so that no cache helps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dumont_gpu import native
from dumont_gpu.backends.kernels import KERNELS, launch
from dumont_gpu.backends.launches import ROOM_AFTER
from dumont_gpu.bench.measure.gpu.frames import ResidentFrames, text
from dumont_gpu.bench.measure.gpu.nvcomp import NvcompError
from dumont_gpu.bench.measure.gpu.peers import measure_decoders
from dumont_gpu.bench.measure.gpu.resident_decode import Batch, ResidentStreams, resident
from dumont_gpu.bench.measure.gpu.session import (
    RUNS_BETWEEN_EVENTS,
    DeviceBench,
    Extent,
    run_step,
)
from dumont_gpu.bench.measure.gpu.timer import device_seconds
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.format.digests import digest_function
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB

EXTENTS = {
    "full": Extent(64 * MiB, 20, (1, 4, 16, 64), (64 * KiB, 128 * KiB, 256 * KiB), (15, 16, 17), True, True),
    "short": Extent(64 * MiB, 2, (1, 4, 16, 64), (64 * KiB,)),
    "quick": Extent(8 * MiB, 3, (1, 4), (64 * KiB,)),
}
FRAMES = 16  # of LZ4, at most


class Bench(DeviceBench):
    def __init__(self, number: int, extent: Extent, output: Path) -> None:
        super().__init__(number, extent, output, ("occupancy", "zipnn", "nvcomp", "lz4"))

    def run(self) -> dict[str, Any]:
        self.guarded("occupancy", self.occupancy)
        for kind, dtype, data in self.weights():
            for block_log2 in self.extent.block_log2s:
                self.guarded(f"{kind}, 2^{block_log2}", self.zipnn, kind, dtype, data, block_log2)
            if dtype is Dtype.BF16:
                self.guarded(f"{kind}, most shared memory", self.most_shared_memory, kind, dtype, data)
            self.guarded(f"nvCOMP, {kind}", measure_decoders, self, kind, dtype, data)
        for kind, noise in (("text", 0.0), ("text, a quarter noise", 0.25)):
            self.guarded(f"LZ4, {kind}", self.lz4, kind, text(self.extent.chunk, noise))
        return self.results

    def occupancy(self) -> None:
        """Registers and memory of each kernel as compiled, and how many CTAs of each launched shape fit an SM."""
        from cupy.cuda import driver

        for shape in (launch(name, 0, planes=2) for name in KERNELS):  # planes: as bf16 has
            kernel = self.device.kernel(shape.kernel)
            per_sm = driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, shape.block, shape.shared)
            self.results["occupancy"].append(
                {
                    "kernel": shape.kernel, "threads": shape.block, "dynamic_shared": shape.shared,
                    "static_shared": kernel.shared_size_bytes, "registers": kernel.num_regs,
                    "local": kernel.local_size_bytes, "ctas_per_sm": per_sm,
                }
            )  # fmt: skip

    def zipnn(self, kind: str, dtype: Dtype, data: memoryview, block_log2: int) -> None:
        encoded = anonymous(2 * len(data))
        encoded = encoded[: native.zipnn_encode(data, encoded, dtype, block_log2)]
        out = anonymous(len(data))
        native.zipnn_decode(encoded, out)
        expected = digest_function("blake3")(out)  # of the bytes that the CPU decodes
        batches = self.batches(len(data) + len(encoded) + 2 * ROOM_AFTER)
        with resident(self.device, self.stream, encoded, len(data), batches[-1]) as chunks:
            for count in batches:
                row = {"kind": kind, "block_log2": block_log2, "batch": count, "size": len(data) * count,
                       "stored": len(encoded) / len(data)}  # fmt: skip
                self._zipnn_batch(chunks, row, count, expected)

    def _zipnn_batch(self, chunks: ResidentStreams, row: dict[str, Any], count: int, expected: bytes) -> None:
        turns = min(chunks.count // count, RUNS_BETWEEN_EVENTS)
        batches = [chunks.batch(turn * count, count) for turn in range(turns)]

        def decoder(batch: Batch) -> Callable[[], None]:
            return lambda: chunks.decode(batch)

        row["seconds"] = device_seconds(
            self.stream.cupy_stream, [decoder(batch) for batch in batches], self.extent.repeats, self.inner(count)
        )
        row["verified"] = all(chunks.check(batch, expected) for batch in (batches[0], batches[-1]))
        row["launches"] = [f"{launch.kernel}<{launch.grid}, {launch.block}>" for launch in batches[0].launches]
        self.results["zipnn"].append(row)

    def most_shared_memory(self, kind: str, dtype: Dtype, data: memoryview) -> None:
        """Decodes with the most shared memory that an SM can set aside: does the driver choose well by itself?"""
        kernel = self.device.kernel("zipnn_decode")
        before = kernel.preferred_shared_memory_carveout
        kernel.preferred_shared_memory_carveout = 100  # percent
        try:
            self.zipnn(f"{kind}, most shared memory", dtype, data, self.extent.block_log2s[-1])
        finally:
            kernel.preferred_shared_memory_carveout = before

    def lz4(self, kind: str, content: memoryview) -> None:
        if not self.device.has_lz4:
            raise NvcompError("there is no nvCOMP that dumont-gpu can use")
        count = min(FRAMES, self.batches(3 * len(content))[-1])
        frames = ResidentFrames(self.device, self.stream, content, count)
        try:
            ours = self._time(frames.decode_all)
            alone = self._time(frames.decode_compressed)
            row = {"kind": kind, "batch": count, "size": count * len(content), "stored": frames.stored,
                   "seconds": ours, "alone_size": frames.compressed_bytes, "alone_seconds": alone,
                   "verified": frames.check(content)}  # fmt: skip
            self.results["lz4"].append(row)
        finally:
            frames.close()

    def _time(self, run: Callable[[], object]) -> list[float]:
        return device_seconds(self.stream.cupy_stream, [run], self.extent.repeats, 2)


if __name__ == "__main__":
    sys.exit(run_step(Bench, EXTENTS, "Measure decoding on a CUDA device."))
