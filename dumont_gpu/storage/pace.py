"""How fast bytes come: which connection is too slow, how many pay, and how many bytes a second are allowed."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from dumont_gpu.sizes import MiB

Clock = Callable[[], float]

SLOW_RATE: Final = 1 * MiB  # bytes per second
SLOW_SECONDS: Final = 15.0  # how long a connection may be that slow
FAR_BELOW: Final = 8  # times slower than its peers' median: no share of one link, but a bad path or server
SETTLING_SECONDS: Final = 3.0  # seconds in which a new connection finds its rate
_MARK_INTERVAL: Final = 1.0

FIRST_CONNECTIONS: Final = 16
NEAR_CONNECTIONS: Final = 4  # to begin with where an answer takes no time: they fill the link, and ranges end in order
NEAR_SECONDS: Final = 0.005
MOST_CONNECTIONS: Final = 64
_STEP: Final = 8
_GAIN: Final = 1.1  # a step that brings less than 10 % more is taken back
MEASURE_SECONDS: Final = 2.0


class Speedometer:
    """The rate of one connection over the last seconds, not over its life: one that stops is noticed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._received = 0
        self._marks = deque([(clock(), 0)], maxlen=int(SLOW_SECONDS / _MARK_INTERVAL) + 1)

    def add(self, count: int) -> bool:
        """Counts what came; returns whether it is time to look at the rate again."""
        self._received += count
        now = self._clock()
        due = now - self._marks[-1][0] >= _MARK_INTERVAL
        if due:
            self._marks.append((now, self._received))
        return due

    def measure(self) -> tuple[float, float]:
        """Returns bytes per second, and the seconds over which that was so: 15 at most, about."""
        since, before = self._marks[0]
        seconds = self._clock() - since
        return ((self._received - before) / seconds if seconds > 0 else 0.0), seconds


def is_slow(rate: float, seconds: float, peers: Sequence[float], floor: float = SLOW_RATE) -> bool:
    """Whether a connection should be dropped and its remainder fetched over another.

    One far below its peers is, soon; one below `floor` for 15 s is, unless its peers are as slow: then it is the link
    that is slow, and a new connection would only cost.

    Args:
        rate: its bytes per second, measured over `seconds`.
        seconds: how long that was.
        peers: the rates of the others, of those that just finished too.
        floor: bytes per second that any connection should reach.
    """
    median = statistics.median(peers) if peers else None
    if median is not None and seconds >= SETTLING_SECONDS and rate < median / FAR_BELOW:
        return True
    return seconds >= SLOW_SECONDS and rate < floor and (median is None or rate < median / 2)


class ConnectionCount:
    """How many connections to use: more as long as more bring more, fewer when the server says so.

    Args:
        latency: seconds until the server's first answer.
        fixed: this many, and never more; 0: as many as pay.
    """

    def __init__(self, clock: Clock, latency: float, fixed: int = 0) -> None:
        self._clock = clock
        self._last_refusal = clock() - MEASURE_SECONDS
        self._most = fixed or MOST_CONNECTIONS
        self.current = fixed or (NEAR_CONNECTIONS if latency < NEAR_SECONDS else FIRST_CONNECTIONS)
        self._best = 0.0
        self._growing = not fixed

    def measured(self, rate: float) -> None:
        """Takes note of what all connections together brought, in bytes per second, while all of them were busy."""
        if not self._growing:
            return
        if rate >= self._best * _GAIN:
            self._best = rate
            self.current = min(self._most, self.current + _STEP)
        else:
            self.current = max(1, self.current - _STEP)
            self._growing = False

    def refused(self) -> None:
        """The server is too busy for so many. What all of them hear at once counts once."""
        now = self._clock()
        if now - self._last_refusal >= MEASURE_SECONDS:
            self._last_refusal = now
            self.current = max(1, self.current // 2)
            self._growing = False


class RateLimit:
    """Bytes per second for all threads together; 0: no limit."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._lock = threading.Lock()
        self._due = 0.0

    def delay_after(self, count: int) -> float:
        """Returns how many seconds the caller, who just received `count` bytes, has to wait before it asks for more."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now) + count / self._rate
            return self._due - now
