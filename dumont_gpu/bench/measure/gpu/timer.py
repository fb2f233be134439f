"""Times work on a device between two events, while its queue is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

WARM_UP = 0.1  # seconds: an idle device starts at a fraction of its clock


def device_seconds(stream: Any, runs: Sequence[Callable[[], object]], repeats: int, inner: int) -> list[float]:
    """Returns the seconds of one run, by the device's clock, once for each repeat.

    Args:
        stream: a CuPy stream, which `runs` put their work into.
        runs: taken in turn, so that a run does not find its data in a cache.
        inner: runs between two events; several runs hide the time that the host takes to launch one.
    """
    import cupy

    end_of_warm_up = time.perf_counter() + WARM_UP
    while time.perf_counter() < end_of_warm_up:
        for run in runs:
            run()
        stream.synchronize()
    pairs, number = [], 0
    for _ in range(repeats):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        for _ in range(inner):
            runs[number % len(runs)]()
            number += 1
        end.record(stream)
        pairs.append((start, end))
        end.synchronize()
    return [cupy.cuda.get_elapsed_time(start, end) / 1e3 / inner for start, end in pairs]


@contextmanager
def side_by_side(stream: Any, others: Sequence[Any]) -> Iterator[None]:
    """Work put into the CuPy streams `others` begins after the work in `stream`, which then waits for them."""
    import cupy

    begin = cupy.cuda.Event(disable_timing=True)
    begin.record(stream)
    for other in others:
        other.wait_event(begin)
    yield
    for other in others:
        end = cupy.cuda.Event(disable_timing=True)
        end.record(other)
        stream.wait_event(end)
