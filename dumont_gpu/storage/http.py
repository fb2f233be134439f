"""Snapshots on http(s) servers: read in parallel, every answer checked, every failure tried again if that makes sense.

A read goes down one way, each module calling the next:

    HttpSource        here          the source that the rest of the package sees
    HttpReader        http_reader   threads, and the ranges that wait for them
    RangeFetcher      http_fetch    one range: retries, slow connections
    HttpObject        http_object   which address to ask: signatures, redirects
    RangeConnection   http_range    one request over one connection

The rules that need no connection are in `addresses`, `answers`, `retry` and `pace`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from dumont_gpu.errors import DamagedError
from dumont_gpu.forks import tell_in_children
from dumont_gpu.sizes import MiB
from dumont_gpu.storage.addresses import Address, parse_address
from dumont_gpu.storage.base import Source
from dumont_gpu.storage.http_fetch import RangeFetcher
from dumont_gpu.storage.http_object import HttpObject
from dumont_gpu.storage.http_reader import HttpReader
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.pace import ConnectionCount
from dumont_gpu.storage.proxies import naming


def open_source(location: str, options: NetworkOptions) -> Source:
    """Opens a snapshot at an http(s) address, which may hold a user's name and password, or a signature."""
    address = parse_address(location)
    return HttpSource(address.shown, lambda: address, options)


class HttpSource:
    """A snapshot behind http(s) addresses; takes the arguments of `HttpObject`.

    A child that was forked reads on, over connections of its own.
    """

    remote = True

    def __init__(
        self,
        location: str,
        locate: Callable[[], Address],
        options: NetworkOptions,
        renew: Callable[[], bool] = lambda: False,
    ) -> None:
        self.location, self._options = location, options
        self._object: Callable[[], HttpObject] = lambda: HttpObject(location, locate, options, renew)
        source = self._object()
        self._first = source.first_answer()
        self.size, self._head = self._first.revision.size, self._first.head
        self._begin(source)
        self._starting = threading.Lock()
        tell_in_children(self)

    def _begin(self, source: HttpObject) -> None:
        """Makes what holds the threads and connections of this process."""
        self._inherited = False
        count = _connection_count(self._options, self._first.latency)
        self._fetcher = RangeFetcher(source, self._first.revision, count, self._options)
        self._reader = HttpReader(self._fetcher, count, self._options.clock)

    def read_into(self, offset: int, out: memoryview) -> None:
        end = offset + len(out)
        if end > self.size:
            raise DamagedError(f"ends at byte {self.size}, {end} were expected")
        if end <= len(self._head):
            out[:] = self._head[offset:end]
            self._fetcher.came(len(out))
        elif len(out):
            with self._starting:
                if self._inherited:
                    self._begin(self._object())
            with naming(self.location):
                self._reader.read(offset, out)

    def watch(self, moved: Callable[[int], None]) -> None:
        self._fetcher.came = moved

    def cancel(self) -> None:
        self._reader.stop()

    def close(self) -> None:
        if not self._inherited:
            self._reader.close()

    def forked(self) -> None:
        self._starting, self._inherited = threading.Lock(), True


def _connection_count(options: NetworkOptions, latency: float) -> ConnectionCount:
    """One connection per MiB/s is enough where the rate is limited."""
    fixed = options.connections
    if options.limit_rate and not fixed:
        fixed = min(16, max(1, options.limit_rate // MiB))
    return ConnectionCount(options.clock, latency, fixed)
