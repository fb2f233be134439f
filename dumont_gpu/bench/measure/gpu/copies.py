"""Measures copies around a CUDA device: in, out, both at once and within; and the pinning of host memory.

python -m dumont_gpu.bench.measure.gpu.copies OUTPUT.json [--short | --quick] [--device N]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dumont_gpu.bench.measure.clock import seconds_of
from dumont_gpu.bench.measure.gpu.session import DeviceBench, Extent, run_step
from dumont_gpu.bench.measure.gpu.timer import device_seconds
from dumont_gpu.bench.measure.memory import touched
from dumont_gpu.sizes import MiB

EXTENTS = {  # a chunk is one copy
    "full": Extent(256 * MiB, 10, (), ()),
    "short": Extent(256 * MiB, 3, (), ()),
    "quick": Extent(16 * MiB, 3, (), ()),
}
IN_A_ROW = 4


class Bench(DeviceBench):
    def __init__(self, number: int, extent: Extent, output: Path) -> None:
        super().__init__(number, extent, output, ("copies",))
        self.other: Any = self.device.new_stream()
        self.source, self.target = touched(extent.chunk), touched(extent.chunk)

    def run(self) -> dict[str, Any]:
        there, elsewhere = self.device.allocate(self.extent.chunk), self.device.allocate(self.extent.chunk)
        try:
            self.guarded("copies, pageable", self.pageable, there)
            self.guarded("copies within the device", self.within, there, elsewhere)
            self.guarded("copies, pinned", self.pinned, there, elsewhere)
        finally:
            for address in (there, elsewhere):
                self.device.free(address)
        return self.results

    def pageable(self, there: int) -> None:
        def timed(copy: Callable[[], object]) -> float:
            def run() -> None:
                copy()
                self.stream.synchronize()

            return seconds_of(run)

        for name, copy in (
            ("copy in, pageable", lambda: self.stream.copy_in(there, self.source)),
            ("copy out, pageable", lambda: self.stream.copy_out(self.target, there)),
        ):
            self.add(name, 1, [timed(copy) for _ in range(self.extent.repeats + 1)][1:])

    def within(self, there: int, elsewhere: int) -> None:
        size = self.extent.chunk
        self.add("clear", 1, self.by_events(lambda: self.stream.clear(elsewhere, size)))
        between = self.by_events(lambda: _within(self.stream, elsewhere, there, size))
        self.add("copy within the device, read and written", 2, between)

    def pinned(self, there: int, elsewhere: int) -> None:
        pinned = []
        try:
            pinning = []
            for memory in (self.source, self.target):
                pinning.append(seconds_of(lambda memory=memory: self.device.pin(memory)))  # type: ignore[misc]
                pinned.append(memory)
            self.add("pin host memory", 1, pinning)
            self.add("copy in, pinned", 1, self.by_events(lambda: self.stream.copy_in(there, self.source)))
            self.add("copy out, pinned", 1, self.by_events(lambda: self.stream.copy_out(self.target, there)))

            def both() -> None:
                for _ in range(IN_A_ROW):
                    self.stream.copy_in(there, self.source)
                    self.other.copy_out(self.target, elsewhere)
                self.stream.synchronize()
                self.other.synchronize()

            seconds = [seconds_of(both) for _ in range(self.extent.repeats + 1)][1:]
            self.add("copies in and out at once, pinned, both counted", 2 * IN_A_ROW, seconds)
        finally:
            for memory in pinned:
                self.device.unpin(memory)

    def add(self, name: str, times: int, seconds: list[float]) -> None:
        """Notes the seconds of a run that moved `times` the size of a copy."""
        self.results["copies"].append({"name": name, "size": times * self.extent.chunk, "seconds": seconds})

    def by_events(self, run: Callable[[], object]) -> list[float]:
        return device_seconds(self.stream.cupy_stream, [run], self.extent.repeats, IN_A_ROW)


def _within(stream: Any, to: int, source: int, size: int) -> None:
    import cupy

    cupy.cuda.runtime.memcpyAsync(to, source, size, cupy.cuda.runtime.memcpyDeviceToDevice, stream.cupy_stream.ptr)


if __name__ == "__main__":
    sys.exit(run_step(Bench, EXTENTS, "Measure copies to, from and within a CUDA device."))
