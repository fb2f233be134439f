"""One ranged request at a time over one kept-alive connection, every rule about the answer checked.

RFC 9110, sections 13 (conditional requests), 14 (ranges) and 15 (status codes).
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dumont_gpu import __version__
from dumont_gpu.errors import DumontError, NetworkError, SnapshotNotFoundError, UnsupportedError
from dumont_gpu.format import KiB
from dumont_gpu.shortages import is_shortage
from dumont_gpu.storage.addresses import Address, parse_address, redirected
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.retry import BUSY_STATUSES, RETRIED_STATUSES, TransientError, parse_retry_after

USER_AGENT: Final = f"dumont-gpu/{__version__}"
MAX_REDIRECTS: Final = 8
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_EXPIRED: Final = re.compile(rb"expired|not valid in the specified time frame", re.IGNORECASE)
_SEND: Final = 128 * KiB
_ERROR_BODY: Final = 4096  # bytes of an error's text that are looked at
TlsContext = Callable[[], ssl.SSLContext]
_CHANGED: Final = "the snapshot changed on the server while it was read: start again"


def tls_context() -> TlsContext:
    """What the connections to one server share: certificates are always checked, and loading the roots takes 20 ms."""
    return functools.cache(ssl.create_default_context)


@dataclass(frozen=True, slots=True)
class Revision:
    """Which bytes a server speaks of: as long as that stays, so do the bytes."""

    size: int
    etag: str
    modified: str

    @property
    def identity(self) -> str:
        return f"{self.etag or self.modified} {self.size}"

    @property
    def conditions(self) -> dict[str, str]:
        """The headers by which the server itself refuses once the object has changed."""
        if self.etag and not self.etag.startswith("W/"):  # a weak one never matches: RFC 9110, section 13.1.1
            return {"If-Match": self.etag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}


class ChangedError(DumontError):
    """The object behind an address is not the one that the first answer was about."""


class Body:
    """The bytes of one range; `revision` is what the server says about the whole object."""

    def __init__(self, response: http.client.HTTPResponse, start: int, end: int, revision: Revision) -> None:
        self._response = response
        self.start, self.end, self.revision = start, end, revision
        # One recv at most, straight into the caller's memory. A body in pieces needs the slower way.
        self._receive = response.readinto if response.chunked else response.fp.readinto1

    def readinto(self, out: memoryview) -> int:
        """Fills some of `out`, which must not reach beyond the range.

        Raises:
            TransientError: the connection broke, stalled or ended.
        """
        with _transient():
            count: int = self._receive(out)
        if not count:
            raise TransientError("the connection ended early")
        return count

    def finish(self) -> None:
        """Makes the connection ready for the next request; all bytes were read."""
        if self._response.chunked:
            with _transient():
                self._response.read(1)  # the mark at the end
        self._response.close()


class RangeConnection:
    """A connection that is opened when needed, and kept as long as requests go to one server."""

    def __init__(self, options: NetworkOptions, tls: TlsContext) -> None:
        self._options, self._tls = options, tls
        self._connection: http.client.HTTPConnection | None = None
        self._origin: tuple[str, str, int] | None = None
        self._socket: socket.socket | None = None  # http.client forgets it when the server announces the end
        self._shut = False
        self.answered = False  # ever, whatever the status
        self._proxy: Address | None = None  # the one that requests are sent to; a tunnel is none

    def get(self, address: Address, start: int, end: int, revision: Revision | None) -> Body | Address:
        """Asks for the bytes from `start` to before `end`; with no `revision` yet, for as many of them as there are.

        Returns:
            The body, or the address of another server to ask.

        Raises:
            TransientError: trying again may help.
            SnapshotNotFoundError, UnsupportedError, ChangedError, NetworkError: it does not.
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
        except TransientError:
            if not kept or self._shut:
                raise
        # The server may have closed a kept connection just then: that is no failure yet.
        self.close()
        return self._exchange(method, address, headers, content)

    def shut(self) -> None:
        """Makes whoever uses the connection, in another thread, fail soon; it works again after `close`."""
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
            headers = headers | _proxy_headers(self._proxy)
        if content is not None:
            headers = headers | {"Content-Length": str(len(content))}
        target = address.absolute if self._proxy else address.target
        with _transient():
            try:
                self._connection.request(method, target, body=_pieces(content), headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                if not content:
                    raise  # and else: a server that refuses need not read all of it; its reason may be there
            response = self._connection.getresponse()
        self.answered = True
        return response

    def _connect(self, address: Address) -> None:
        proxy = _proxy(address)
        first = proxy or address
        timeout = self._options.connect_timeout
        if address.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                first.host, first.port, timeout=timeout, context=self._tls()
            )
        else:
            connection = http.client.HTTPConnection(first.host, first.port, timeout=timeout)
        if proxy is not None and address.scheme == "https":
            connection.set_tunnel(address.host, address.port, _proxy_headers(proxy))
            proxy = None
        self._connection, self._origin, self._proxy = connection, address.origin, proxy
        with _transient("cannot be reached"):
            connection.connect()
        connection.sock.settimeout(self._options.read_timeout)
        self._socket = connection.sock

    def _checked(
        self, response: http.client.HTTPResponse, address: Address, start: int, end: int, revision: Revision | None
    ) -> Body | Address:
        status = response.status
        if status in _REDIRECTS and not _region(response):
            self.close()
            return redirected(address, response.getheader("Location"))
        if status == 206:
            return _ranged(response, start, end, revision)
        if revision is None and (status == 416 or (status == 200 and response.getheader("Content-Length") == "0")):
            return Body(response, 0, 0, _revision(response, 0))  # only of nothing there is no first byte
        if status in (200, 412, 416) and revision is not None:
            raise ChangedError(_CHANGED)
        if status == 200:
            raise UnsupportedError("the server sends whole files only: download the snapshot, and restore from there")
        raise failure(response)


def received(response: http.client.HTTPResponse, limit: int) -> bytes:
    """Returns the body of an answer, cut at `limit` bytes.

    Raises:
        TransientError: the connection broke or stalled.
    """
    with _transient():
        return response.read(limit)


def failure(response: http.client.HTTPResponse) -> Exception:
    """Returns what an answer that is no success means: an error to raise."""
    status, reason = response.status, f"the server answers {response.status} {response.reason[:60]}".rstrip()
    if status in RETRIED_STATUSES:
        return TransientError(reason, parse_retry_after(response.getheader("Retry-After")), status in BUSY_STATUSES)
    if status in (404, 410):
        return SnapshotNotFoundError("no such snapshot")
    if region := _region(response):
        return NetworkError(f"the bucket is in the region {region[:40]}: set AWS_REGION")
    if status in (400, 401, 403):
        with contextlib.suppress(TransientError):
            if _EXPIRED.search(received(response, _ERROR_BODY)):
                return NetworkError(f"the signed address or its credentials have expired: get new ones ({status})")
        return NetworkError(f"{reason}: check the address and the credentials")
    return NetworkError(reason)


def _pieces(content: memoryview | bytes | None) -> Iterator[memoryview] | None:
    """What is sent at once: the timeout of a socket is for each, and a slow link takes longer for a whole part."""
    if content is None:
        return None
    view = memoryview(content)
    return (view[start : start + _SEND] for start in range(0, len(view), _SEND))


def _ranged(response: http.client.HTTPResponse, start: int, end: int, revision: Revision | None) -> Body:
    """Checks that an answer is about the right bytes of the right object."""
    text = response.getheader("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None or found[1] is None:
        raise NetworkError("the server does not say which bytes it sends")
    if found[3] == "*":
        raise UnsupportedError("the server does not say how large the snapshot is: download it, and restore from there")
    first, after, size = int(found[1]), int(found[2]) + 1, int(found[3])
    received = _revision(response, size)
    if revision is None:
        end = min(end, size)
    elif size != revision.size or received.identity != revision.identity:
        raise ChangedError(_CHANGED)
    if (first, after) != (start, end):
        raise NetworkError(f"the server sends bytes {first} to {after - 1} instead of {start} to {end - 1}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise NetworkError("the server sends the snapshot in another encoding")
    if not response.chunked and response.getheader("Content-Length") not in (None, str(end - start)):
        raise NetworkError("the server contradicts itself about how many bytes it sends")
    return Body(response, start, end, received)


def _region(response: http.client.HTTPResponse) -> str:
    """Where a bucket of S3 is, if that is what is wrong: such an answer is no redirect that could be followed."""
    return response.getheader("x-amz-bucket-region", "") if response.status in (301, 400) else ""


def _revision(response: http.client.HTTPResponse, size: int) -> Revision:
    return Revision(size, response.getheader("ETag", ""), response.getheader("Last-Modified", ""))


def _proxy(address: Address) -> Address | None:
    """The proxy that https_proxy, http_proxy and no_proxy name for an address."""
    proxy = urllib.request.getproxies().get(address.scheme)
    if not proxy or urllib.request.proxy_bypass(address.host):
        return None
    found = parse_address(proxy if "://" in proxy else f"http://{proxy}")
    if found.scheme != "http":
        raise UnsupportedError("a proxy that is itself reached by https is not supported")
    return found


def _proxy_headers(proxy: Address) -> dict[str, str]:
    return {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}


@contextlib.contextmanager
def _transient(otherwise: str = "the connection broke") -> Iterator[None]:
    """Turns what goes wrong on the wire into TransientError; a certificate that does not hold stays final."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise NetworkError(f"the server's certificate does not hold: {error.verify_message}") from None
    except TimeoutError:
        raise TransientError("the server has gone silent", timed_out=True) from None
    except http.client.RemoteDisconnected:
        raise TransientError("the server closed the connection") from None
    except socket.gaierror as error:
        unknown = error.errno == socket.EAI_NONAME
        raise TransientError(f"{otherwise}: {error.strerror}", unknown_host=unknown) from None
    except OSError as error:
        short = is_shortage(error.errno)  # of descriptors: fewer connections are what helps, as if the server said so
        raise TransientError(f"{otherwise}: {error.strerror or type(error).__name__}", busy=short) from None
    except (http.client.HTTPException, ValueError) as error:
        raise TransientError(f"the server's answer is no http ({type(error).__name__})") from None
