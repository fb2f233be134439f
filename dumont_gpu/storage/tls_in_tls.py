"""TLS to a server inside the TLS to a proxy: `ssl` wraps no connection twice."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
_RECEIVED: Final = 64 * 1024  # bytes at a time


class TlsInTls:
    """As much of a socket as http.client needs, over an encrypted socket.

    Raises:
        ssl.SSLCertVerificationError: the certificate does not hold.
        OSError: the connection broke.
    """

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        self._outer, self._files, self._closed = outer, 0, False
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname=host)
        self._carried(self._tls.do_handshake)

    def recv_into(self, out: memoryview) -> int:
        try:
            return int(self._carried(lambda: self._tls.read(len(out), out)))
        except ssl.SSLEOFError:
            return 0  # as SSLSocket does: the HTTP layer knows how many bytes it expects

    def sendall(self, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        while len(rest):
            rest = rest[self._carried(lambda rest=rest: self._tls.write(rest)) :]  # type: ignore[misc]

    def settimeout(self, seconds: float | None) -> None:
        self._outer.settimeout(seconds)

    def makefile(self, mode: str) -> io.BufferedReader:
        self._files += 1
        return io.BufferedReader(socket.SocketIO(self, "r"))  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends the connection once every file of `makefile` is closed."""
        self._closed = True
        if not self._files:
            self._outer.close()

    def _decref_socketios(self) -> None:  # SocketIO calls this when it is closed
        self._files -= 1
        if self._closed:
            self.close()

    def _carried(self, step: Callable[[], T]) -> T:
        """Does a step of the inner protocol, and carries the bytes that the step sends and receives."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._send()
                received = self._outer.recv(_RECEIVED)
                if received:
                    self._coming.write(received)
                else:
                    self._coming.write_eof()
                continue
            self._send()
            return done

    def _send(self) -> None:
        if going := self._going.read():
            self._outer.sendall(going)
