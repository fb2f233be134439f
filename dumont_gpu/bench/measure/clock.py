"""Fair turns: the seconds of a run, and an order that rotates so that noise hits every contender alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def rotated(everyone: Sequence[T], turn: int) -> Sequence[T]:
    """Returns `everyone`, beginning with number `turn`."""
    first = turn % len(everyone) if everyone else 0
    return (*everyone[first:], *everyone[:first])
