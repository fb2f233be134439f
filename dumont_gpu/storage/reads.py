"""A read, and the ranges that it is split into: each is fetched on its own, into its part of the caller's memory."""

from __future__ import annotations

import itertools
import threading
from typing import Final

from dumont_gpu.sizes import MiB

RANGE_SIZE: Final = 8 * MiB  # at least, and less than twice that: long enough for a connection to reach its rate


class CancelledError(Exception):
    """Another range of the same read failed, or nobody wants the read any more."""


class Read:
    """The bytes from `start` on that fill `out`: done when all ranges are."""

    def __init__(self, start: int, out: memoryview) -> None:
        number = max(1, len(out) // RANGE_SIZE)
        edges = [len(out) * index // number for index in range(number + 1)]
        self.ranges = [Range(self, start + begin, out[begin:end]) for begin, end in itertools.pairwise(edges)]
        self.left = number  # ranges
        self.error: BaseException | None = None
        self.cancelled = threading.Event()


class Range:
    """Some bytes to fetch, and the memory that they go to."""

    def __init__(self, read: Read, start: int, out: memoryview) -> None:
        self.read, self.start, self.out = read, start, out
        self.done = 0  # bytes

    @property
    def next(self) -> int:
        return self.start + self.done

    @property
    def end(self) -> int:
        return self.start + len(self.out)

    @property
    def rest(self) -> memoryview:
        return self.out[self.done :]
