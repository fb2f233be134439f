"""Measures what moves bytes around a CUDA device: copies in, out, both at once and within, and pinning memory.

python bench/gpu_copies.py OUTPUT.json [--quick] [--device N]
"""

from __future__ import annotations

import argparse
import json
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_timer import device_seconds

from dumont_gpu.backends import open_device

MiB = 1 << 20
SIZE, QUICK_SIZE = 256 * MiB, 16 * MiB
REPEATS = 10


def touched(size: int) -> memoryview:
    """Host memory whose pages are there."""
    memory = memoryview(mmap.mmap(-1, size))
    for page in range(0, size, mmap.PAGESIZE):
        memory[page] = 1 + page % 251
    return memory


def measure(number: int, quick: bool) -> dict[str, Any]:
    size = QUICK_SIZE if quick else SIZE
    device: Any = open_device(number)
    one, two = device.new_stream(), device.new_stream()
    source, target, pageable = touched(size), touched(size), touched(size)
    rows: list[dict[str, Any]] = []

    def add(name: str, bytes_moved: int, seconds: list[float]) -> None:
        rows.append({"name": name, "size": bytes_moved, "seconds": seconds})

    def by_events(run: Callable[[], object]) -> list[float]:
        return device_seconds(one.cupy_stream, [run], REPEATS, 4)

    pinning = [_wall(lambda: device.pin(source))]
    for _ in range(2):
        device.unpin(source)
        pinning.append(_wall(lambda: device.pin(source)))
    add("pin host memory", size, pinning)
    device.pin(target)
    there, elsewhere = device.allocate(size), device.allocate(size)
    try:
        add("copy in, pinned", size, by_events(lambda: one.copy_in(there, source)))
        add("copy out, pinned", size, by_events(lambda: one.copy_out(target, there)))
        add(
            "copy within the device, read and written",
            2 * size,
            by_events(lambda: _within(one, elsewhere, there, size)),
        )
        add("clear", size, by_events(lambda: one.clear(elsewhere, size)))

        def both() -> None:
            for _ in range(4):
                one.copy_in(there, source)
                two.copy_out(target, elsewhere)
            one.synchronize()
            two.synchronize()

        add("copies in and out at once, pinned, both counted", 8 * size, [_wall(both) for _ in range(REPEATS)][1:])

        def unpinned(run: Callable[[], object]) -> Callable[[], None]:
            def timed() -> None:
                run()
                one.synchronize()

            return timed

        for name, copy in (
            ("copy in, pageable", lambda: one.copy_in(there, pageable)),
            ("copy out, pageable", lambda: one.copy_out(pageable, there)),
        ):
            add(name, size, [_wall(unpinned(copy)) for _ in range(REPEATS)][1:])
    finally:
        for memory in (source, target):
            device.unpin(memory)
        for address in (there, elsewhere):
            device.free(address)
    return {"repeats": REPEATS, "copies": rows}


def _within(stream: Any, to: int, source: int, size: int) -> None:
    import cupy

    cupy.cuda.runtime.memcpyAsync(to, source, size, cupy.cuda.runtime.memcpyDeviceToDevice, stream.cupy_stream.ptr)


def _wall(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure copies to, from and within a CUDA device.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", type=int, default=0)
    options = parser.parse_args()
    options.output.write_text(json.dumps(measure(options.device, options.quick), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
