"""Reads split into ranges that several connections fetch at once, each into its part of the caller's memory."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from dumont_gpu.errors import NetworkError
from dumont_gpu.sizes import MiB
from dumont_gpu.storage.pace import MEASURE_SECONDS, Clock, ConnectionCount

RANGE_SIZE: Final = 8 * MiB  # at least, and less than twice that: long enough for a connection to reach its rate
_SIGNAL_POLL: Final = 0.2  # seconds; a signal that another thread receives does not wake the main thread


class Connection(Protocol):
    """What a thread fetches with, one range after the other."""

    def shut(self) -> None:
        """Wakes the thread up, from another one."""

    def close(self) -> None: ...


class CancelledError(Exception):
    """Another range of the same read failed, or nobody wants it any more."""


class Read:
    """One call of `read_into`: done when all its ranges are."""

    def __init__(self, ranges: int) -> None:
        self.left = ranges
        self.error: BaseException | None = None
        self.cancelled = threading.Event()


class Range:
    """Some bytes to fetch, and where they go."""

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


class Fetcher:
    """The threads of one source. Ranges are begun in the order of the reads, so that the first read ends first.

    Args:
        connect: makes a thread's connection.
        fetch: fills one range over it; must end soon once `range.read.cancelled` is set and the connection shut.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        fetch: Callable[[Connection, Range], None],
        count: ConnectionCount,
        clock: Clock,
    ) -> None:
        self._connect, self._fetch, self._count, self._clock = connect, fetch, count, clock
        self._changed = threading.Condition()
        self._waiting: deque[Range] = deque()
        self._active: dict[Range, Connection] = {}
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._measured_from, self._received = clock(), 0

    def read(self, start: int, out: memoryview) -> None:
        """Fills `out` with the bytes at `start`.

        Raises:
            the first error of any of its ranges; nothing writes to `out` any more then.
        """
        number = max(1, len(out) // RANGE_SIZE)
        edges = [len(out) * index // number for index in range(number + 1)]
        read = Read(number)
        with self._changed:
            if self._stopped:
                raise NetworkError("the read was cancelled")
            self._waiting.extend(Range(read, start + begin, out[begin:end]) for begin, end in itertools.pairwise(edges))
            try:
                self._start_threads()
                self._changed.notify_all()
                while read.left:
                    self._changed.wait(_SIGNAL_POLL)
            except BaseException as error:  # a signal, or no thread at all
                self._cancel(read, error)
                while read.left:
                    self._changed.wait(_SIGNAL_POLL)
        if read.error is not None:
            raise read.error

    def refused(self) -> None:
        """The server wants fewer connections."""
        with self._changed:
            self._count.refused()

    def stop(self) -> None:
        """Makes every read fail that is running or to come."""
        with self._changed:
            self._stopped = True
            reads = {item.read for item in (*self._waiting, *self._active)}
            for read in reads:
                self._cancel(read, NetworkError("the read was cancelled"))
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads and waits for them."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _start_threads(self) -> None:
        wanted = min(self._count.current, len(self._waiting) + len(self._active))
        while len(self._threads) < wanted:
            thread = threading.Thread(target=self._work, name=f"dumont-fetch-{len(self._threads)}")
            try:
                thread.start()
            except RuntimeError:  # the machine allows no more: those that run fetch everything
                if not self._threads:
                    raise
                return
            self._threads.append(thread)

    def _work(self) -> None:
        connection = self._connect()
        try:
            while (item := self._next(connection)) is not None:
                error: BaseException | None = None
                try:
                    self._fetch(connection, item)
                except BaseException as raised:
                    error = raised
                    connection.close()
                self._finish(item, error)
        finally:
            connection.close()

    def _next(self, connection: Connection) -> Range | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or (self._waiting and len(self._active) < self._count.current))
            if self._stopped and not self._waiting:
                return None
            item = self._waiting.popleft()
            self._active[item] = connection
            return item

    def _finish(self, item: Range, error: BaseException | None) -> None:
        with self._changed:
            del self._active[item]
            if error is not None:
                self._cancel(item.read, error)
            self._measure(len(item.out))
            item.read.left -= 1
            self._start_threads()
            self._changed.notify_all()

    def _cancel(self, read: Read, error: BaseException) -> None:
        if read.error is None:
            read.error = error
        read.cancelled.set()
        waiting = [item for item in self._waiting if item.read is read]
        for item in waiting:
            self._waiting.remove(item)
        read.left -= len(waiting)
        for item, connection in self._active.items():
            if item.read is read:
                with contextlib.suppress(OSError):
                    connection.shut()

    def _measure(self, received: int) -> None:
        """Lets the count of connections learn, as far as all of them were busy."""
        now = self._clock()
        self._received += received
        if not self._waiting:
            self._measured_from, self._received = now, 0
        elif now - self._measured_from >= MEASURE_SECONDS:
            self._count.measured(self._received / (now - self._measured_from))
            self._measured_from, self._received = now, 0
