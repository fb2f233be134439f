"""Opens connections: TCP, through a proxy if there is one, with TLS for https. Errors name the end that failed."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dumont_gpu.errors import DumontError
from dumont_gpu.shortages import is_shortage
from dumont_gpu.storage.addresses import Address
from dumont_gpu.storage.proxies import Proxy, ProxyFailedError, ProxyRefusedError, proxy_for
from dumont_gpu.storage.retry import TransientError
from dumont_gpu.storage.tls import AUTHORITIES, TlsContext
from dumont_gpu.storage.tls_in_tls import TlsInTls

_SERVER: Final = "the server"
_UNKNOWN_ISSUER: Final = frozenset(
    {18, 19, 20, 21}
)  # OpenSSL's X509_V_ERR_*: signed by itself, or by nobody known here


@dataclass(frozen=True, slots=True)
class Wire:
    """An open connection."""

    stream: socket.socket | TlsInTls  # for requests and answers
    lowest: socket.socket  # `stream`, or the socket below it: this socket is shut to end the connection
    proxy: Proxy | None  # that takes requests for the whole address; None also behind a tunnel


def connect(address: Address, timeout: float, tls: TlsContext) -> Wire:
    """Opens a connection to the server, or the proxy, that takes the requests for an address.

    Args:
        timeout: seconds for each step.

    Raises:
        TransientError: trying again may help; `ProxyFailedError` where that is about the proxy.
        DumontError: trying again does not help.
    """
    proxy = proxy_for(address)
    first = proxy.address if proxy else address
    # First of all: certificates that cannot be read must not look like a failure of the server.
    context = tls() if "https" in (first.scheme, address.scheme) else None
    with contextlib.ExitStack() as opened:
        with transient("cannot be reached", proxy):
            lowest = opened.enter_context(socket.create_connection((first.host, first.port), timeout))
            lowest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None and proxy is not None and first.scheme == "https":
            with transient("cannot be reached by https", proxy):
                lowest = opened.enter_context(context.wrap_socket(lowest, server_hostname=first.host))
        stream: socket.socket | TlsInTls = lowest
        if proxy is not None and address.scheme == "https":
            with transient("broke the connection", proxy):
                _tunnel(lowest, address, proxy)
            proxy = None
        if context is not None and address.scheme == "https":
            with transient("cannot be reached by https"):
                if isinstance(lowest, ssl.SSLSocket):
                    stream = TlsInTls(lowest, context, address.host)
                else:
                    stream = lowest = opened.enter_context(context.wrap_socket(lowest, server_hostname=address.host))
        opened.pop_all()
        return Wire(stream, lowest, proxy)


def _tunnel(connection: socket.socket, address: Address, proxy: Proxy) -> None:
    """Asks a proxy for a tunnel to a server: RFC 9110, section 9.3.6."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    head = [f"CONNECT {host}:{address.port} HTTP/1.1", f"Host: {host}:{address.port}"]
    head += [f"{name}: {value}" for name, value in proxy.headers.items()]
    connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
    response = http.client.HTTPResponse(connection, method="CONNECT")
    try:
        response.begin()
        if response.status // 100 != 2:
            raise proxy.refusal(response.status, response.reason)
    finally:
        response.close()


@contextlib.contextmanager
def transient(otherwise: str = "the connection broke", proxy: Proxy | None = None) -> Iterator[None]:
    """Turns errors of the connection into TransientError; a certificate that does not hold is final.

    Args:
        otherwise: the message for an error that has no words of its own here.
        proxy: the other end of the connection, if it is not the server.
    """
    blamed = f"{proxy.shown} " if proxy else ""
    failed, who = (ProxyFailedError, proxy.shown) if proxy else (TransientError, _SERVER)
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        untrusted = f": {AUTHORITIES}" if error.verify_code in _UNKNOWN_ISSUER else ""
        refused = ProxyRefusedError if proxy else DumontError
        raise refused(f"the certificate of {who} does not hold: {error.verify_message}{untrusted}") from None
    except TimeoutError:
        raise failed(f"{who} has gone silent", timed_out=True) from None
    except http.client.RemoteDisconnected:
        raise failed(f"{who} closed the connection") from None
    except socket.gaierror as error:
        unknown = error.errno == socket.EAI_NONAME
        raise failed(f"{blamed}{otherwise}: {error.strerror}", unknown_host=unknown) from None
    except OSError as error:
        if is_shortage(
            error.errno
        ):  # of descriptors, here: fewer connections help, as if the server had asked for fewer
            raise TransientError(f"{otherwise}: {error.strerror}", busy=True) from None
        reason = (
            getattr(error, "reason", None) or error.strerror or type(error).__name__
        )  # errors of ssl have a `reason`
        raise failed(f"{blamed}{otherwise}: {reason}") from None
    except (http.client.HTTPException, ValueError) as error:
        raise failed(f"the answer of {who} is no http ({type(error).__name__})") from None
