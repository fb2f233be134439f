"""The threads that fetch the ranges of all reads of one object, over several connections at once."""

from __future__ import annotations

import contextlib
import threading
from collections import deque

from dumont_gpu.errors import NetworkError
from dumont_gpu.pipeline import wait_until
from dumont_gpu.storage.http_fetch import RangeFetcher
from dumont_gpu.storage.http_range import RangeConnection
from dumont_gpu.storage.pace import MEASURE_SECONDS, Clock, ConnectionCount
from dumont_gpu.storage.reads import Range, Read


class HttpReader:
    """Fetches ranges in the order of the reads, so that the first read ends first.

    No `Pipeline`: threads are added while they work, as long as more connections pay; and an error ends only the read
    that it belongs to, so that a caller may go on with other reads.

    Args:
        fetcher: makes the connections, and fills ranges over them.
        count: how many connections to use.
    """

    def __init__(self, fetcher: RangeFetcher, count: ConnectionCount, clock: Clock) -> None:
        self._fetcher, self._count, self._clock = fetcher, count, clock
        self._changed = threading.Condition()
        self._waiting: deque[Range] = deque()
        self._active: dict[Range, RangeConnection] = {}
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._measured_from, self._received = clock(), 0

    def read(self, start: int, out: memoryview) -> None:
        """Fills `out` with the bytes at `start`.

        Raises:
            the first error of any of the ranges; nothing writes to `out` any more then.
        """
        read = Read(start, out)
        with self._changed:
            if self._stopped:
                raise NetworkError("reading was cancelled before: open it again")
            self._waiting.extend(read.ranges)
            try:
                self._start_threads()
                self._changed.notify_all()
                wait_until(self._changed, lambda: not read.left)
            except BaseException as error:  # a signal, or no thread at all
                self._cancel(read, error)
                wait_until(self._changed, lambda: not read.left)
        if read.error is not None:
            raise read.error

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
            # A program that never closes a source must end all the same.
            thread = threading.Thread(target=self._work, name=f"dumont-fetch-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the machine allows no more: those that run fetch everything
                if not self._threads:
                    raise
                return
            self._threads.append(thread)

    def _work(self) -> None:
        connection = self._fetcher.connect()
        try:
            while self._fetch_next(connection):
                pass
        finally:
            connection.close()

    def _fetch_next(self, connection: RangeConnection) -> bool:
        """Fetches the next range; returns whether there was one.

        In a frame of its own: while the thread waits, it keeps no error, and nothing that its traceback refers to.
        """
        item = self._next(connection)
        if item is None:
            return False
        error: BaseException | None = None
        try:
            self._fetcher.fetch(connection, item)
        except BaseException as raised:
            error = raised
            connection.close()
        self._finish(item, error)
        return True

    def _next(self, connection: RangeConnection) -> Range | None:
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
