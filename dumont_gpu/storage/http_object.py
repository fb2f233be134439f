"""One object behind http(s) addresses: where its requests go, and how long their failures are borne."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dumont_gpu.errors import DumontError
from dumont_gpu.sizes import KiB
from dumont_gpu.storage.addresses import Address
from dumont_gpu.storage.answers import ExpiredError
from dumont_gpu.storage.http_range import MAX_REDIRECTS, Body, RangeConnection, Revision
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.proxies import naming
from dumont_gpu.storage.reads import CancelledError
from dumont_gpu.storage.retry import Attempts, TransientError
from dumont_gpu.storage.tls import tls_context

_HEAD: Final = 16 * KiB  # header and index of 600 chunks: came with the first answer, need no second request


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The server's first answer about an object."""

    revision: Revision
    head: bytes  # of the object
    latency: float  # seconds that the answer took


class HttpObject:
    """An object, and the patience that all requests about it share.

    Args:
        location: the address as messages show it, without secrets.
        locate: returns the address to ask, and is called for each request: signed addresses expire.
        options: how the network may be used.
        renew: looks for new keys once a server calls those expired that `locate` signs with; returns whether there are.
    """

    def __init__(
        self, location: str, locate: Callable[[], Address], options: NetworkOptions, renew: Callable[[], bool]
    ) -> None:
        self.location, self._locate, self._options, self._renew = location, locate, options, renew
        self._patience = options.patience(location)
        self._tls = tls_context(location)
        self._elsewhere: Address | None = None  # where redirects led to

    def connect(self) -> RangeConnection:
        return RangeConnection(self._options, self._tls)

    def heard(self) -> None:
        """Bytes came: that ends a silence."""
        self._patience.heard()

    def first_answer(self) -> FirstAnswer:
        """Finds out which bytes there are, and gets the first of them."""
        connection = self.connect()
        attempts = self.attempts(connection)
        never = threading.Event()
        try:
            with naming(self.location):
                while True:
                    try:
                        return self._ask_head(connection)
                    except TransientError as error:
                        self._patience.contacted |= connection.answered
                        self.wait_or_give_up(attempts, error, 0, never)
        finally:
            connection.close()

    def open(self, connection: RangeConnection, start: int, end: int, revision: Revision | None) -> Body:
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

    def attempts(self, connection: RangeConnection) -> Attempts:
        """Returns the attempts of one request, or one range, over a connection."""
        return self._patience.attempts(connection.read_timeout)

    def wait_or_give_up(self, attempts: Attempts, error: TransientError, received: int, over: threading.Event) -> None:
        """Waits until the next attempt is due.

        Args:
            attempts: of the same request or range.
            error: the failure of the last attempt.
            received: bytes that this attempt brought.
            over: set once nobody wants the bytes any more.

        Raises:
            CancelledError: `over` is set.
            GaveUpError, NetworkError: patience has run out.
        """
        self._options.wait(over, attempts.after(error, received))
        if over.is_set():
            raise CancelledError

    def _ask_head(self, connection: RangeConnection) -> FirstAnswer:
        asked = self._options.clock()
        body = self.open(connection, 0, _HEAD, None)
        latency = self._options.clock() - asked
        head = bytearray(body.end)
        done = 0
        while done < len(head):
            done += body.readinto(memoryview(head)[done:])
        self._patience.heard()
        return FirstAnswer(body.revision, bytes(head), latency)
