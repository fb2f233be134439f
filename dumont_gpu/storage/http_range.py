"""One ranged request at a time over one kept-alive connection, every rule about the answer checked.

RFC 9110, sections 13 (conditional requests), 14 (ranges) and 15 (status codes).
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dumont_gpu import __version__
from dumont_gpu.errors import DumontError, UnsupportedError
from dumont_gpu.sizes import KiB
from dumont_gpu.storage import answers
from dumont_gpu.storage.addresses import Address, redirected
from dumont_gpu.storage.answers import Answer
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.proxies import Proxy
from dumont_gpu.storage.retry import TransientError
from dumont_gpu.storage.tls import TlsContext
from dumont_gpu.storage.wire import connect, transient

USER_AGENT: Final = f"dumont-gpu/{__version__}"
MAX_REDIRECTS: Final = 8
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_SEND: Final = 128 * KiB
_CHANGED: Final = "the snapshot changed on the server while it was read: start again"


@dataclass(frozen=True, slots=True)
class Revision:
    """A version of the object: as long as the revision stays, so do the bytes."""

    size: int
    etag: str
    modified: str

    @property
    def identity(self) -> str:
        return f"{self.etag or self.modified} {self.size}"

    @property
    def conditions(self) -> dict[str, str]:
        """The headers by which the server itself refuses once the object has changed."""
        if self.etag and not self.etag.startswith("W/"):  # a weak ETag never matches: RFC 9110, section 13.1.1
            return {"If-Match": self.etag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}


class ChangedError(DumontError):
    """The object behind an address is not the object of the first answer."""


class Body:
    """The bytes of one range; `revision` is about the whole object."""

    def __init__(self, response: http.client.HTTPResponse, start: int, end: int, revision: Revision) -> None:
        self._response = response
        self.start, self.end, self.revision = start, end, revision
        # One recv at most, straight into the caller's memory. A chunked body needs the slower way.
        self._receive = response.readinto if response.chunked else response.fp.readinto1

    def readinto(self, out: memoryview) -> int:
        """Fills some of `out`, which must not reach beyond the range.

        Raises:
            TransientError: the connection broke, stalled or ended.
        """
        with transient():
            count: int = self._receive(out)
        if not count:
            raise TransientError("the connection ended early")
        return count

    def finish(self) -> None:
        """Makes the connection ready for the next request; all bytes were read."""
        if self._response.chunked:
            with transient():
                self._response.read(1)  # the mark at the end
        self._response.close()


class RangeConnection:
    """A connection that opens at the first request, and stays open as long as requests go to one server."""

    def __init__(self, options: NetworkOptions, tls: TlsContext) -> None:
        self._options, self._tls = options, tls
        self._connection: http.client.HTTPConnection | None = None
        self._origin: tuple[str, str, int] | None = None
        self._socket: socket.socket | None = None  # http.client forgets the socket when the server announces the end
        self._shut = False
        self.answered = False  # ever, whatever the status
        self._proxy: Proxy | None = None  # that requests are sent to; None also behind a tunnel
        self.sent: Callable[[int], None] = lambda count: None  # called with the size of each piece of content

    @property
    def read_timeout(self) -> float:
        """Seconds without any byte after which an attempt fails."""
        return self._options.read_timeout

    def get(self, address: Address, start: int, end: int, revision: Revision | None) -> Body | Address:
        """Asks for the bytes from `start` to before `end`; without a `revision`, for as many as there are.

        Returns:
            The body, or the address of another server to ask.

        Raises:
            TransientError: trying again may help.
            SnapshotNotFoundError, UnsupportedError, ChangedError, DumontError: trying again does not help.
        """
        headers = {"Range": f"bytes={start}-{end - 1}"} | (revision.conditions if revision else {})
        response = self.request("GET", address, headers)
        try:
            return self._checked(response, address, start, end, revision)
        except BaseException:
            self.close()
            raise

    def request(
        self, method: str, address: Address, headers: dict[str, str], content: memoryview | bytes | None = None
    ) -> http.client.HTTPResponse:
        """Sends a request and returns the answer, whatever its status.

        Raises:
            TransientError: there is no answer.
        """
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"} | headers
        if address.authorization:
            headers["Authorization"] = address.authorization
        kept = self._connection is not None and self._origin == address.origin
        try:
            return self._exchange(method, address, headers, content)
        except TransientError as error:
            if not kept or self._shut or error.timed_out:
                raise
        # The server may have closed a kept connection just then: that is no failure yet.
        self.close()
        return self._exchange(method, address, headers, content)

    def shut(self) -> None:
        """Makes another thread that uses the connection fail soon; the connection works again after `close`."""
        self._shut = True
        opened = self._socket
        if opened is not None:
            with contextlib.suppress(OSError):
                # Past SSLSocket.shutdown, which would let the other thread go on reading without decrypting.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def close(self) -> None:
        self._shut = False
        if self._connection is not None:
            self._connection.close()
            self._connection = self._socket = None

    def _exchange(
        self, method: str, address: Address, headers: dict[str, str], content: memoryview | bytes | None
    ) -> http.client.HTTPResponse:
        if self._shut:
            raise TransientError("the connection was shut")
        if self._connection is None or self._connection.sock is None or self._origin != address.origin:
            self.close()
            self._connect(address)
        assert self._connection is not None
        if self._proxy is not None:
            headers = headers | self._proxy.headers
        if content is not None:
            headers = headers | {"Content-Length": str(len(content))}
        target = address.absolute if self._proxy else address.target
        with transient():
            try:
                self._connection.request(method, target, body=self._pieces(content), headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                if not content:
                    raise  # with content: a server that refuses need not read all of it, and may have answered already
            response = self._connection.getresponse()
        if self._proxy is not None and response.status == 407:
            raise self._proxy.refusal(response.status, response.reason)
        self.answered = True
        return response

    def _pieces(self, content: memoryview | bytes | None) -> Iterator[memoryview] | None:
        """Cuts content: a socket's timeout is for one piece, and a slow link takes longer for a whole part."""
        if content is None:
            return None

        def pieces(view: memoryview) -> Iterator[memoryview]:
            for start in range(0, len(view), _SEND):
                piece = view[start : start + _SEND]
                yield piece
                self.sent(len(piece))

        return pieces(memoryview(content))

    def _connect(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(address.host, address.port)
        self._connection.auto_open = 0  # http.client itself would connect past proxy and TLS
        self._connection.default_port = (
            address.default_port
        )  # a Host header leaves this port out, as the signature expects
        self._origin = address.origin
        wire = connect(address, self._options.connect_timeout, self._tls)
        wire.lowest.settimeout(self._options.read_timeout)
        self._connection.sock, self._socket, self._proxy = wire.stream, wire.lowest, wire.proxy

    def _checked(
        self, response: http.client.HTTPResponse, address: Address, start: int, end: int, revision: Revision | None
    ) -> Body | Address:
        status = response.status
        location = response.getheader("Location")
        if status in _REDIRECTS and location and not response.getheader("x-amz-bucket-region"):
            self.close()
            return redirected(address, location)
        if status == 206:
            return _ranged(response, start, end, revision)
        if revision is None and (status == 416 or (status == 200 and response.getheader("Content-Length") == "0")):
            return Body(response, 0, 0, _revision(response, 0))  # only an empty object has no first byte
        if status in (412, 416) and revision is not None:
            raise ChangedError(_CHANGED)
        if status == 200:
            answer = _answer(response)
            raise answers.whole_file(answer) if revision is None or answers.document(answer) else ChangedError(_CHANGED)
        raise failure(response)


def received(response: http.client.HTTPResponse, limit: int) -> bytes:
    """Returns the body of an answer, cut at `limit` bytes.

    Raises:
        TransientError: the connection broke or stalled.
    """
    with transient():
        return response.read(limit)


def failure(response: http.client.HTTPResponse, body: bytes | None = None, what: str = "") -> Exception:
    """Returns the error to raise for an answer that is no success.

    Args:
        body: of the answer, if it has been received.
        what: stands in the message for a status that says success.
    """
    return answers.failure(_answer(response, body), what=what)


def _answer(response: http.client.HTTPResponse, body: bytes | None = None) -> Answer:
    """An answer with the beginning of its body, as much of it as arrives."""
    if body is None:
        body = b""
        with contextlib.suppress(TransientError):
            body = received(response, answers.MOST_READ)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, response.reason, headers, body)


def _ranged(response: http.client.HTTPResponse, start: int, end: int, revision: Revision | None) -> Body:
    """Checks that an answer is about the right bytes of the right object."""
    text = response.getheader("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None or found[1] is None:
        raise DumontError("the server does not say which bytes it sends")
    if found[3] == "*":
        raise UnsupportedError("the server does not say how large the snapshot is: download it, and restore from there")
    first, after, size = int(found[1]), int(found[2]) + 1, int(found[3])
    received = _revision(response, size)
    if revision is None:
        end = min(end, size)
    elif size != revision.size or received.identity != revision.identity:
        raise ChangedError(_CHANGED)
    if (first, after) != (start, end):
        raise DumontError(f"the server sends bytes {first} to {after - 1} instead of {start} to {end - 1}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise DumontError("the server sends the snapshot in another encoding")
    if not response.chunked and response.getheader("Content-Length") not in (None, str(end - start)):
        raise DumontError("the server contradicts itself about how many bytes it sends")
    return Body(response, start, end, received)


def _revision(response: http.client.HTTPResponse, size: int) -> Revision:
    return Revision(size, response.getheader("ETag", ""), response.getheader("Last-Modified", ""))
