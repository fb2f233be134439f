"""Decides which chunks the device gets and which the processor, by what both took so far. No thread, no clock."""

from __future__ import annotations

import enum
import heapq
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from dumont_gpu.backends.forecast import Forecast

_ANOTHER_LOOK: Final = 64  # chunks that go by before a device that lost against the processor is measured again
_MEMORY: Final = 0.8  # a measurement's weight in the average falls by this factor with each later measurement


class Place(enum.Enum):
    CPU = enum.auto()
    DEVICE = enum.auto()


@dataclass(slots=True, eq=False)
class Ticket:
    """A chunk that is to be encoded or decoded."""

    kind: str  # codec and direction: chunks of one kind take equally long for each byte
    size: int  # raw bytes
    fit: bool  # the device could work on the chunk
    place: Place | None = None  # None: the chunk waits
    began: float = 0.0
    depth: int = 0  # chunks on the device while this one was there
    failed: bool = False  # to be set by whoever works on the chunk


class _Average:
    """Seconds for each byte; recent and large chunks count more."""

    def __init__(self) -> None:
        self._seconds = self._size = 0.0

    def add(self, seconds: float, size: int) -> None:
        self._seconds = _MEMORY * self._seconds + seconds
        self._size = _MEMORY * self._size + size

    @property
    def value(self) -> float | None:
        return self._seconds / self._size if self._size else None


class Dispatch:
    """Sends each chunk where it is expected to be finished first, given what is under way there.

    So the device gets a chunk only if the processor would not have finished it sooner: a slow device gets next to
    nothing, and no last chunk waits for it. And where the device is about to finish all that is left, the processor
    begins no chunk that would take longer. The caller holds a lock, and passes the time in.

    Args:
        cores: how many chunks the processor works on side by side, once there is a device beside it.
    """

    def __init__(self, cores: int) -> None:
        self._cores, self._slots = cores, 0
        self._on_cpu: defaultdict[str, _Average] = defaultdict(_Average)  # by kind
        self._on_device: dict[str, defaultdict[int, _Average]] = {}  # by kind that is trusted, and depth
        self._running: list[Ticket] = []
        self._waiting: list[Ticket] = []
        self._passed_by = 0  # chunks that the processor got since the device got one
        self.forecast = Forecast(cores)

    # --- which kinds of chunks the device gets ------------------------------------------------------------------------

    def trust(self, kind: str, size: int, seconds: float) -> bool:
        """Lets the device have chunks of a kind: one of `size` bytes took so long there, and was right.

        Returns False for a device so slow that it would never finish a chunk first.
        """
        cpu = self._on_cpu[kind].value
        if cpu is not None and seconds > 2 * cpu * size:  # even behind a chunk that has just begun
            return False
        averages: defaultdict[int, _Average] = defaultdict(_Average)
        averages[1].add(seconds, size)
        self._on_device[kind] = averages
        return True

    def attach(self, slots: int) -> None:
        """From now on, `slots` chunks may be on the device at once."""
        self._slots = slots

    def drop(self) -> None:
        """From now on, no chunk goes to the device."""
        self._on_device.clear()

    # --- one chunk after the other ------------------------------------------------------------------------------------

    def arrive(self, kind: str, size: int, *, fit: bool, now: float) -> Ticket:
        ticket = Ticket(kind, size, fit)
        self._waiting.append(ticket)
        if fit:
            self.forecast.begin(size, now)
        return ticket

    def start(self, ticket: Ticket, now: float) -> Place | None:
        """Returns where a chunk that has arrived goes now; None: ask again when another chunk has begun or ended."""
        place = self._choose(ticket, now)
        if place is not None:
            self._waiting.remove(ticket)
            self._running.append(ticket)
            ticket.place, ticket.began = place, now
            ticket.depth = self._depth()
            self._passed_by = 0 if place is Place.DEVICE else self._passed_by + 1
        return place

    def end(self, ticket: Ticket, now: float) -> None:
        """Takes a chunk off its place; a chunk that failed is no measurement, and is not done."""
        depth = max(ticket.depth, self._depth())
        self._running.remove(ticket)
        if ticket.fit:
            self.forecast.end(ticket.size, failed=ticket.failed)
        if ticket.failed:
            return
        seconds = now - ticket.began
        if ticket.place is Place.CPU:
            self._on_cpu[ticket.kind].add(seconds, ticket.size)
        elif ticket.kind in self._on_device:
            self._on_device[ticket.kind][depth].add(seconds, ticket.size)

    def _choose(self, ticket: Ticket, now: float) -> Place | None:
        if not self._slots:
            return Place.CPU
        at_once, finish = self._cpu_finish(ticket, now)
        if ticket.fit and ticket.kind in self._on_device:
            depth = self._depth()
            if depth < self._slots:
                seconds = self._device_seconds(ticket, depth + 1)
                if now + seconds <= finish or self._worth_another_look(seconds, now):
                    return Place.DEVICE
            elif finish > now + self._seconds_to_drain(ticket):
                return None  # for the next slot
        return Place.CPU if at_once else None

    def _depth(self) -> int:
        return sum(ticket.place is Place.DEVICE for ticket in self._running)

    def _cpu_finish(self, ticket: Ticket, now: float) -> tuple[bool, float]:
        """Whether a core is free for a waiting chunk, and when the processor would have finished it."""
        busy = [other for other in self._running if other.place is Place.CPU]
        ahead = self._waiting[: self._waiting.index(ticket)]
        if len(busy) + len(ahead) < self._cores:
            return True, now + self._cpu_seconds(ticket)
        ends = [max(now, other.began + self._cpu_seconds(other)) for other in busy]
        ends += [now] * (self._cores - len(ends))
        heapq.heapify(ends)
        for other in ahead:
            heapq.heapreplace(ends, ends[0] + self._cpu_seconds(other))
        return False, ends[0] + self._cpu_seconds(ticket)

    def _cpu_seconds(self, ticket: Ticket) -> float:
        return (self._on_cpu[ticket.kind].value or 0.0) * ticket.size

    def _device_seconds(self, ticket: Ticket, depth: int) -> float:
        """How long a chunk takes on a device that has `depth` chunks, with this one."""
        averages = self._on_device[ticket.kind]
        known = [(number, average.value) for number, average in averages.items() if average.value is not None]
        # Never measured: as if chunks took turns. That more of them overlap is found out when the processor is busy.
        guess = min(value * max(1.0, depth / number) for number, value in known)
        exact = averages[depth].value if depth in averages else None
        return (guess if exact is None else exact) * ticket.size

    def _worth_another_look(self, seconds: float, now: float) -> bool:
        """Whether a device that was slow may have a chunk all the same: only while nobody is going to wait for it."""
        return self._passed_by >= _ANOTHER_LOOK and 2 * seconds < self.forecast.seconds_left(now)

    def _seconds_to_drain(self, ticket: Ticket) -> float:
        """How long the device needs for all that no core has begun."""
        waiting = sum(other.size for other in self._waiting if other.fit)
        running = sum(other.size for other in self._running if other.place is Place.DEVICE)
        left = self.forecast.not_begun + waiting + running
        return self._device_seconds(ticket, self._slots) / ticket.size / self._slots * left
