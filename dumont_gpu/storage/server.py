"""A server for one snapshot: ranges, If-Match and HEAD, for a local network or a test. No encryption, no passwords."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote, unquote, urlsplit

from dumont_gpu import __version__
from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UsageError

DEFAULT_PORT: Final = 8700
_IDLE: Final = 60.0  # seconds after which a connection that neither asks nor takes anything is closed
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


class SnapshotServer(ThreadingHTTPServer):
    """Serves the file at `path` under its own name until `close`; each request reads the file as it is then.

    Raises:
        SnapshotNotFoundError: nothing is there.
        UsageError: `path` is no regular file.
        DumontError: the file cannot be read, or the address cannot be listened on.
    """

    daemon_threads = False
    request_queue_size = 128  # connections that wait to be accepted: a restore opens up to 64 at once

    def __init__(
        self, path: str, host: str = "127.0.0.1", port: int = DEFAULT_PORT, answers: type[Answers] | None = None
    ) -> None:
        self.file = Path(path)
        os.close(open_snapshot(self.file))
        self.target = "/" + quote(self.file.name)
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), answers or Answers)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such port"
            raise DumontError(f"{host}:{port}: cannot be listened on: {reason}") from None

    @property
    def url(self) -> str:
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{self.target}"

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a client that goes away."""

    def close(self) -> None:
        """Stops `serve_forever` and ends every connection."""
        self.shutdown()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


def open_snapshot(path: Path) -> int:
    """Returns a descriptor of the snapshot. Raises as SnapshotServer does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise SnapshotNotFoundError(f"{path}: no such snapshot") from None
    except OSError as error:
        raise DumontError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{path}: not a regular file")
    return fd


@dataclass(frozen=True, slots=True)
class Selected:
    """The bytes that a Range header asks for."""

    status: int  # 200, 206 or 416
    start: int
    end: int


def select(header: str | None, size: int) -> Selected:
    """Reads a Range header for an object of `size` bytes; by HTTP, anything but a single range means all bytes."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return Selected(200, 0, size)
    if not found[1]:  # a number of last bytes
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return Selected(200, 0, size)
    return Selected(206, start, end) if start < end else Selected(416, 0, 0)


class Answers(BaseHTTPRequestHandler):
    """Answers the requests of a connection."""

    server: SnapshotServer
    protocol_version = "HTTP/1.1"
    server_version = f"dumont-gpu/{__version__}"
    sys_version = ""
    timeout = _IDLE
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.server.opened(self.request)
        super().setup()

    def do_GET(self) -> None:
        if unquote(urlsplit(self.path).path) != unquote(self.server.target):
            self._answer(404, {})
            return
        try:
            fd = open_snapshot(self.server.file)
        except DumontError:
            self._answer(404, {})
            return
        with os.fdopen(fd, "rb", buffering=0) as file:
            self._answer_with(file)

    do_HEAD = do_GET  # noqa: N815

    def _answer_with(self, file: Any) -> None:
        status = os.fstat(file.fileno())
        etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
        about = {
            "ETag": etag,
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted.strip() != "*" and etag not in [tag.strip() for tag in wanted.split(",")]:
            self._answer(412, about)
            return
        selected = select(self.headers.get("Range"), status.st_size)
        if selected.status == 416:
            self._answer(416, about | {"Content-Range": f"bytes */{status.st_size}"})
            return
        if selected.status == 206:
            about["Content-Range"] = f"bytes {selected.start}-{selected.end - 1}/{status.st_size}"
        self._answer(selected.status, about, selected.end - selected.start)
        if self.command == "GET" and selected.end > selected.start:
            sent = self.send_content(file, selected.start, selected.end - selected.start)
            self.close_connection |= sent < selected.end - selected.start

    def send_content(self, file: BinaryIO, start: int, size: int) -> int:
        """Sends `size` bytes of the file; returns how many of them it had."""
        sent: int = self.connection.sendfile(file, start, size)
        return sent

    def _answer(self, status: int, headers: dict[str, str], length: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, http.server calls it so
        """Says nothing: the client says what goes wrong."""
