"""Fetches one range: tries again after failures, and gives a slow connection up for a new connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.storage.http_object import HttpObject
from dumont_gpu.storage.http_range import RangeConnection, Revision
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.pace import SLOW_RATE, ConnectionCount, RateLimit, Speedometer, Speeds
from dumont_gpu.storage.reads import CancelledError, Range
from dumont_gpu.storage.retry import TransientError

_COMPARED: Final = 4 * MiB  # shorter ranges say little about a connection
_LIMITED_RECEIVE: Final = 16 * KiB  # bytes between two waits under --limit-rate


class RangeFetcher:
    """Fills ranges of one object, for many threads at once.

    Args:
        source: the object.
        revision: which bytes of the object are wanted: those of the first answer.
        count: told when the server wants fewer connections.
        options: how the network may be used.
    """

    def __init__(self, source: HttpObject, revision: Revision, count: ConnectionCount, options: NetworkOptions) -> None:
        self._source, self._revision, self._count, self._options = source, revision, count, options
        self._limit = RateLimit(options.limit_rate, options.clock)
        self._speeds = Speeds(0.0 if options.limit_rate else SLOW_RATE)
        self.came: Callable[[int], None] = lambda count: None  # called with the size of each piece

    def connect(self) -> RangeConnection:
        return self._source.connect()

    def fetch(self, connection: RangeConnection, item: Range) -> None:
        """Fills a range, with as many requests as it takes, each from the byte where the request before ended.

        Ends soon once `item.read.cancelled` is set and the connection is shut.
        """
        attempts = self._source.attempts(connection)
        while item.done < len(item.out):
            before = item.done
            try:
                self._receive(connection, item)
            except TransientError as error:
                connection.close()
                if item.read.cancelled.is_set():
                    raise CancelledError from None
                if error.busy:
                    self._count.refused()
                self._source.wait_or_give_up(attempts, error, item.done - before, item.read.cancelled)

    def _receive(self, connection: RangeConnection, item: Range) -> None:
        """Receives until the range is full or the connection turns out to be slow."""
        speed = Speedometer(self._options.clock)  # from the request on: bytes that wait in buffers would look too fast
        body = self._source.open(connection, item.next, item.end, self._revision)
        with self._speeds.including(speed):
            while item.done < len(item.out):
                if item.read.cancelled.is_set():
                    raise CancelledError
                count = body.readinto(item.rest[:_LIMITED_RECEIVE] if self._options.limit_rate else item.rest)
                item.done += count
                self._source.heard()
                self.came(count)
                if delay := self._limit.delay_after(count):
                    self._options.wait(item.read.cancelled, delay)
                if speed.add(count) and self._speeds.is_slow(speed):
                    raise TransientError("the connection is slow")
            body.finish()
            if len(item.out) >= _COMPARED:
                self._speeds.remember(speed)
