"""The pace of a transfer: which connection is slow, how many connections pay, how many bytes a second are allowed."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from dumont_gpu.sizes import MiB

Clock = Callable[[], float]

SLOW_RATE: Final = 1 * MiB  # bytes per second
SLOW_SECONDS: Final = 15.0  # that a connection may be so slow
FAR_BELOW: Final = 8  # times slower than the median of its peers: no fair share of a link, but a bad path or server
SETTLING_SECONDS: Final = 3.0  # seconds in which a new connection finds its rate
_MARK_INTERVAL: Final = 1.0  # seconds
_PEERS: Final = 16  # rates of finished ranges that are remembered, to compare the last connections with

FIRST_CONNECTIONS: Final = 16
NEAR_CONNECTIONS: Final = 4  # at first, where an answer takes no time: they fill the link, and ranges end in order
NEAR_SECONDS: Final = 0.005
MOST_CONNECTIONS: Final = 64
_STEP: Final = 8
_GAIN: Final = 1.1  # a step that gains less than 10 % is taken back
MEASURE_SECONDS: Final = 2.0


class Speedometer:
    """The rate of one connection over the last seconds, not over its life: a connection that stops is noticed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._received = 0
        self._marks = deque([(clock(), 0)], maxlen=int(SLOW_SECONDS / _MARK_INTERVAL) + 1)

    def add(self, count: int) -> bool:
        """Counts received bytes; returns whether it is time to look at the rate again."""
        self._received += count
        now = self._clock()
        due = now - self._marks[-1][0] >= _MARK_INTERVAL
        if due:
            self._marks.append((now, self._received))
        return due

    def measure(self) -> tuple[float, float]:
        """Returns bytes per second, and the seconds over which they were measured: about 15 at most."""
        since, before = self._marks[0]
        seconds = self._clock() - since
        return ((self._received - before) / seconds if seconds > 0 else 0.0), seconds


def is_slow(rate: float, seconds: float, peers: Sequence[float], floor: float = SLOW_RATE) -> bool:
    """Whether a connection should be dropped and its remainder fetched over another.

    A connection far below its peers should, soon. A connection below `floor` for 15 s should, unless its peers are as
    slow: then the link is slow, and a new connection only costs time.

    Args:
        rate: bytes per second of the connection, measured over `seconds`.
        seconds: for which the rate was measured.
        peers: the rates of the other connections, and of those that just finished.
        floor: bytes per second that any connection should reach.
    """
    median = statistics.median(peers) if peers else None
    if median is not None and seconds >= SETTLING_SECONDS and rate < median / FAR_BELOW:
        return True
    return seconds >= SLOW_SECONDS and rate < floor and (median is None or rate < median / 2)


class Speeds:
    """The rates of all connections of one source, by which a slow connection is known.

    Args:
        floor: bytes per second that any connection should reach.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._lock = threading.Lock()
        self._running: set[Speedometer] = set()
        self._finished: deque[float] = deque(maxlen=_PEERS)

    @contextlib.contextmanager
    def including(self, speed: Speedometer) -> Iterator[None]:
        """Compares the others with this connection, too, until the block ends."""
        with self._lock:
            self._running.add(speed)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(speed)

    def is_slow(self, speed: Speedometer) -> bool:
        """Whether a connection is slow beside the others, those that have just finished too."""
        rate, seconds = speed.measure()
        with self._lock:
            others = [other.measure() for other in self._running if other is not speed]
            peers = [*self._finished, *(rate for rate, seconds in others if seconds >= SETTLING_SECONDS)]
        return is_slow(rate, seconds, peers, self._floor)

    def remember(self, speed: Speedometer) -> None:
        """Keeps the rate of a connection that has finished its range."""
        with self._lock:
            self._finished.append(speed.measure()[0])


class ConnectionCount:
    """How many connections to use: more as long as more bring more bytes, fewer when the server says so.

    Args:
        latency: seconds until the server's first answer.
        fixed: exactly this many, or fewer if the server says so; 0: as many as pay.
    """

    def __init__(self, clock: Clock, latency: float, fixed: int = 0) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last_refusal = clock() - MEASURE_SECONDS
        self._most = fixed or MOST_CONNECTIONS
        self.current = fixed or (NEAR_CONNECTIONS if latency < NEAR_SECONDS else FIRST_CONNECTIONS)
        self._best = 0.0
        self._growing = not fixed

    def measured(self, rate: float) -> None:
        """Takes note of the bytes per second of all connections together, while all of them were busy."""
        with self._lock:
            if not self._growing:
                return
            if rate >= self._best * _GAIN:
                self._best = rate
                self.current = min(self._most, self.current + _STEP)
            else:
                self.current = max(1, self.current - _STEP)
                self._growing = False

    def refused(self) -> None:
        """The server is too busy for so many connections. A refusal that all of them hear at once counts once."""
        with self._lock:
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
        """Returns the seconds that the caller, who has just received `count` bytes, must wait before the next bytes."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now) + count / self._rate
            return self._due - now
