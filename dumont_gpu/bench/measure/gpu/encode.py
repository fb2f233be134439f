"""Measures encoding on a CUDA device, with everything already in its memory: our kernels, nvCOMP's ANS and LZ4.

    python -m dumont_gpu.bench.measure.gpu.encode OUTPUT.json [--short | --quick] [--device N]

A chunk takes three launches; a batch of chunks is encoded in one stream, or in several side by side, as a job does.
Outputs are compared with the CPU encoder's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dumont_gpu import native
from dumont_gpu.bench.measure.gpu.frames import text
from dumont_gpu.bench.measure.gpu.nvcomp import NvcompError
from dumont_gpu.bench.measure.gpu.peers import measure_encoders
from dumont_gpu.bench.measure.gpu.resident_encode import ResidentTexts, ResidentWeights
from dumont_gpu.bench.measure.gpu.session import DeviceBench, Extent, run_step
from dumont_gpu.bench.measure.gpu.timer import device_seconds, side_by_side
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.codecs import Lz4
from dumont_gpu.codecs.zipnn import BLOCK_LOG2
from dumont_gpu.format.digests import digest_function
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB

Json = dict[str, Any]
EXTENTS = {
    "full": Extent(64 * MiB, 20, (1, 4, 16), (64 * KiB, 256 * KiB), every_type=True),
    "short": Extent(64 * MiB, 2, (1, 4, 16), (64 * KiB,)),
    "quick": Extent(8 * MiB, 3, (1, 4), (64 * KiB,)),
}
STREAMS = 4  # side by side, as the backend has slots
LZ4_SIZES = 1.05  # of the CPU's: beyond, something is wrong


class Bench(DeviceBench):
    def __init__(self, number: int, extent: Extent, output: Path) -> None:
        super().__init__(number, extent, output, ("zipnn", "nvcomp", "lz4"))
        self.streams = [self.device.new_stream() for _ in range(STREAMS)]

    def run(self) -> Json:
        for kind, dtype, data in self.weights():
            self.guarded(kind, self.zipnn, kind, dtype, data)
            if kind in ("bf16", "fp32", "fp16", "fp8 e4m3"):
                self.guarded(f"nvCOMP, {kind}", measure_encoders, self, kind, dtype, data)
        for kind, noise in (("text", 0.0), ("text, a quarter noise", 0.25)):
            self.guarded(f"LZ4, {kind}", self.lz4, kind, text(self.extent.chunk, noise))
        return self.results

    # --- ZipNN --------------------------------------------------------------------------------------------------------

    def zipnn(self, kind: str, dtype: Dtype, data: memoryview) -> None:
        out = anonymous(2 * len(data))
        expected = out[: native.zipnn_encode(data, out, dtype, BLOCK_LOG2)]
        stored, digest = len(expected) / len(data), digest_function("blake3")(expected)
        batches = self.batches(ResidentWeights.memory(len(data), dtype))
        chunks = ResidentWeights(self.device, self.stream, data, dtype, batches[-1])
        try:
            for count in batches:
                for streams in (1, STREAMS) if count > 1 else (1,):
                    parts = ("all", *chunks.PARTS) if count == batches[-1] else ("all",)
                    self._zipnn_batch(chunks, {"kind": kind, "stored": stored}, count, streams, parts, digest)
        finally:
            self.stream.synchronize()
            chunks.close()

    def _zipnn_batch(
        self, chunks: ResidentWeights, known: Json, count: int, streams: int, parts: tuple[str, ...], expected: bytes
    ) -> None:
        """Times a batch, and the parts of it alone; its first and last chunk must have the digest `expected`."""

        def runs(part: str) -> list[Callable[[], None]]:
            return [self._batch(chunks, part, turn * count, count, streams) for turn in range(chunks.count // count)]

        whole = runs("all")
        looked_at = {0, count - 1}
        for number in looked_at:
            chunks.clear(self.stream, number)
        for run in whole:  # all of them: a part needs the output of the parts before it
            run()
        self.stream.synchronize()
        digest = digest_function("blake3")
        verified = all(digest(chunks.encoded(self.stream, number)) == expected for number in looked_at)
        for part in parts:
            seconds = device_seconds(self.stream.cupy_stream, runs(part), self.extent.repeats, self.inner(count))
            self.results["zipnn"].append(
                {
                    **known, "part": part, "streams": streams, "batch": count, "size": len(chunks.data) * count,
                    "seconds": seconds, "verified": verified,
                }
            )  # fmt: skip

    def _batch(
        self, chunks: ResidentWeights | ResidentTexts, part: str, first: int, count: int, streams: int
    ) -> Callable[[], None]:
        """Returns a run that encodes chunks `first` to `first + count`, or does a part of that work."""
        if streams == 1:

            def in_turn() -> None:
                for number in range(first, first + count):
                    chunks.run(self.stream, number, part)

            return in_turn

        def spread() -> None:
            with side_by_side(self.stream.cupy_stream, [stream.cupy_stream for stream in self.streams]):
                for number in range(first, first + count):
                    chunks.run(self.streams[number % streams], number, part)

        return spread

    # --- LZ4 ----------------------------------------------------------------------------------------------------------

    def lz4(self, kind: str, content: memoryview) -> None:
        if not self.device.has_lz4:
            raise NvcompError("there is no nvCOMP that dumont-gpu can use")
        out = anonymous(2 * len(content))
        on_cpu = Lz4().encode(content, out)
        count = self.batches(ResidentTexts.memory(self.device, len(content)))[-1]
        chunks = ResidentTexts(self.device, self.stream, content, count)
        try:
            self._batch(chunks, "all", 0, count, STREAMS)()
            self.stream.synchronize()
            frame = chunks.encoded(self.stream, count - 1)
            verified = _decodes_to(frame, content)
            for part, streams in (("all", 1), ("all", STREAMS), ("nvcomp", 1), ("frame", 1)):
                run = self._batch(chunks, part, 0, count, streams)
                self.results["lz4"].append(
                    {
                        "kind": kind, "part": part, "streams": streams, "batch": count, "size": count * len(content),
                        "stored": len(frame) / len(content), "stored_by_cpu": on_cpu / len(content),
                        "seconds": device_seconds(self.stream.cupy_stream, [run], self.extent.repeats, 1),
                        "verified": verified,
                    }
                )  # fmt: skip
            if len(frame) > LZ4_SIZES * on_cpu:
                raise NvcompError(f"a frame of {len(frame)} bytes, where the CPU makes {on_cpu}")
        finally:
            self.stream.synchronize()
            chunks.close()


def _decodes_to(frame: memoryview, content: memoryview) -> bool:
    out = anonymous(len(content))
    Lz4().decode(frame, out)
    digest = digest_function("blake3")
    return digest(out) == digest(content)


if __name__ == "__main__":
    sys.exit(run_step(Bench, EXTENTS, "Measure encoding on a CUDA device."))
