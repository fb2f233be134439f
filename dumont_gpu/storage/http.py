"""Snapshots on http(s) servers: read in parallel, every answer checked, every failure retried as far as it makes sense.

The rules that need no connection are in `addresses`, `retry` and `pace`; one request is `http_range`; threads are
`parallel`. This module only joins them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.storage.addresses import Address, parse_address
from dumont_gpu.storage.answers import ExpiredError
from dumont_gpu.storage.http_range import MAX_REDIRECTS, Body, RangeConnection, Revision
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.pace import SETTLING_SECONDS, SLOW_RATE, ConnectionCount, RateLimit, Speedometer, is_slow
from dumont_gpu.storage.parallel import CancelledError, Connection, Fetcher, Range
from dumont_gpu.storage.proxies import naming
from dumont_gpu.storage.retry import Attempts, TransientError
from dumont_gpu.storage.tls import tls_context

_HEAD: Final = 16 * KiB  # header and index of 600 chunks: came with the first answer, need no second request
_PEERS: Final = 16  # rates of finished ranges that are remembered, to compare the last ones with
_COMPARED: Final = 4 * MiB  # shorter ranges say little about a connection
_LIMITED_RECEIVE: Final = 16 * KiB  # bytes between two waits under --limit-rate


def open_http(location: str, options: NetworkOptions) -> HttpSource:
    """Opens a snapshot at an http(s) address, which may hold a user's name and password, or a signature."""
    address = parse_address(location)
    return HttpSource(address.shown, lambda: address, options)


class HttpSource:
    """A snapshot behind http(s) addresses.

    Args:
        location: what people call it, without secrets.
        locate: returns the address to ask, and is asked for each request: addresses that are signed expire.
        options: how the network may be used.
        renew: looks for new keys once a server calls those expired that `locate` signs with; says whether there are.
    """

    remote = True

    def __init__(
        self,
        location: str,
        locate: Callable[[], Address],
        options: NetworkOptions,
        renew: Callable[[], bool] = lambda: False,
    ) -> None:
        self.location, self._locate, self._options, self._renew = location, locate, options, renew
        self._patience = options.patience(location)
        self._tls = tls_context(location)
        self._elsewhere: Address | None = None  # where redirects led to
        self._limit = RateLimit(self._options.limit_rate, self._options.clock)
        self._floor = 0.0 if self._options.limit_rate else SLOW_RATE
        self._lock = threading.Lock()
        self._speeds: dict[Range, Speedometer] = {}
        self._finished_rates: deque[float] = deque(maxlen=_PEERS)
        self._latency = 0.0  # seconds until the first answer
        self._revision, self._head = self._first_answer()
        self.size, self.identity = self._revision.size, self._revision.identity
        self._fetcher = Fetcher(self._connect, self._fetch, self._connection_count(), self._options.clock)

    def read_into(self, offset: int, out: memoryview) -> None:
        end = offset + len(out)
        if end > self.size:
            raise DamagedError(f"ends at byte {self.size}, {end} were expected")
        if end <= len(self._head):
            out[:] = self._head[offset:end]
        elif len(out):
            with naming(self.location):
                self._fetcher.read(offset, out)

    def cancel(self) -> None:
        self._fetcher.stop()

    def close(self) -> None:
        self._fetcher.close()

    # --- the first request ----------------------------------------------------------------------------------------

    def _first_answer(self) -> tuple[Revision, bytes]:
        """Finds out what there is, and gets its first bytes."""
        connection = self._connect()
        attempts = self._patience.attempts(connection.read_timeout)
        never = threading.Event()
        try:
            with naming(self.location):
                while True:
                    try:
                        return self._ask_head(connection)
                    except TransientError as error:
                        self._patience.contacted |= connection.answered
                        self._wait_or_give_up(attempts, error, 0, never)
        finally:
            connection.close()

    def _ask_head(self, connection: RangeConnection) -> tuple[Revision, bytes]:
        asked = self._options.clock()
        body = self._open(connection, 0, _HEAD, None)
        self._latency = self._options.clock() - asked
        head = bytearray(body.end)
        done = 0
        while done < len(head):
            done += body.readinto(memoryview(head)[done:])
        self._patience.heard()
        return body.revision, bytes(head)

    # --- one range ------------------------------------------------------------------------------------------------

    def _connect(self) -> RangeConnection:
        return RangeConnection(self._options, self._tls)

    def _fetch(self, connection: Connection, item: Range) -> None:
        """Fills a range, over as many connections as it takes, each from the byte where the one before ended."""
        assert isinstance(connection, RangeConnection)
        attempts = self._patience.attempts(connection.read_timeout)
        while item.done < len(item.out):
            before = item.done
            try:
                self._receive(connection, item)
            except TransientError as error:
                connection.close()
                if item.read.cancelled.is_set():
                    raise CancelledError from None
                if error.busy:
                    self._fetcher.refused()
                self._wait_or_give_up(attempts, error, item.done - before, item.read.cancelled)

    def _receive(self, connection: RangeConnection, item: Range) -> None:
        """Receives until the range is full or its connection turns out to be slow."""
        speed = Speedometer(self._options.clock)  # from the request on: what waits in buffers would look too fast
        body = self._open(connection, item.next, item.end, self._revision)
        with self._lock:
            self._speeds[item] = speed
        try:
            while item.done < len(item.out):
                if item.read.cancelled.is_set():
                    raise CancelledError
                count = body.readinto(item.rest[:_LIMITED_RECEIVE] if self._options.limit_rate else item.rest)
                item.done += count
                self._patience.heard()
                if delay := self._limit.delay_after(count):
                    self._options.wait(item.read.cancelled, delay)
                if speed.add(count) and self._is_slow(item, speed):
                    raise TransientError("the connection is slow")
            body.finish()
            if len(item.out) >= _COMPARED:
                with self._lock:
                    self._finished_rates.append(speed.measure()[0])
        finally:
            with self._lock:
                del self._speeds[item]

    def _is_slow(self, item: Range, speed: Speedometer) -> bool:
        rate, seconds = speed.measure()
        with self._lock:
            others = [other.measure() for key, other in self._speeds.items() if key is not item]
            peers = [*self._finished_rates, *(rate for rate, seconds in others if seconds >= SETTLING_SECONDS)]
        return is_slow(rate, seconds, peers, self._floor)

    def _open(self, connection: RangeConnection, start: int, end: int, revision: Revision | None) -> Body:
        """Asks for a range, going where redirects lead to."""
        elsewhere = self._elsewhere
        address = elsewhere or self._patience.once_known(self._locate)
        try:
            found = connection.get(address, start, end, revision)
        except (DumontError, TransientError) as error:
            # Where a redirect led to may have expired or gone: the next attempt asks the first server again.
            self._elsewhere = None
            renewed = isinstance(error, ExpiredError) and self._renew()
            if renewed or (elsewhere is not None and isinstance(error, DumontError)):
                raise TransientError(str(error)) from None
            raise
        for _ in range(MAX_REDIRECTS + 1):
            if isinstance(found, Body):
                return found
            address = found
            found = connection.get(address, start, end, revision)
            self._elsewhere = address if isinstance(found, Body) else None
        raise DumontError("redirects without end")

    def _wait_or_give_up(self, attempts: Attempts, error: TransientError, received: int, over: threading.Event) -> None:
        self._options.wait(over, attempts.after(error, received))
        if over.is_set():
            raise CancelledError

    def _connection_count(self) -> ConnectionCount:
        """One connection per MiB/s is enough where the rate is limited."""
        fixed = self._options.connections
        if self._options.limit_rate and not fixed:
            fixed = min(16, max(1, self._options.limit_rate // MiB))
        return ConnectionCount(self._options.clock, self._latency, fixed)
