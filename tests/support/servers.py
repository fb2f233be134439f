"""Servers that the tests start: our own, which misbehaves on request, and real servers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dumont_gpu.storage import NetworkOptions

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CERTIFICATE_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


class WaitingTime:
    """A clock that only waiting moves: minutes of patience take no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> None:
        with self._lock:
            self.now += max(seconds, 0.001)  # less than a float can add would never end


def at_once(**options: Any) -> NetworkOptions:
    """Network options for a test, whose waits follow a clock of its own."""
    time = WaitingTime()
    return NetworkOptions(**{"clock": time, "wait": time.wait, "read_timeout": 10.0, **options})


# --- a server that misbehaves -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request to a fault server."""

    number: int  # 0: the first request
    method: str
    path: str  # as sent: with its query, or absolute when it came through a proxy
    headers: Message
    start: int
    end: int  # after the last byte


Fault = Callable[["_Faulty"], None]


class FaultServer(ThreadingHTTPServer):
    """Serves `data` at every path; `script` may choose a fault for a request.

    >>> server.script = lambda request: truncated(1000) if request.number == 1 else None
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, data: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Faulty)
        self.data, self.etag = data, '"one"'
        self.script: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self.released = threading.Event()  # ends every stall
        self.lock = threading.Lock()
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}/x.dumont"

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """All requests, in order, served or not."""
        return [(request.start, request.end) for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients break connections on purpose here."""

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Faulty(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        size = len(self.server.data)
        end = min(size, int(last) + 1) if last else size
        with self.server.lock:
            request = Request(len(self.server.requests), self.command, self.path, self.headers, int(first), end)
            self.server.requests.append(request)
        self.request_made = request
        (self.server.script(request) or served)(self)

    do_CONNECT = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    @property
    def part(self) -> bytes:
        return self.server.data[self.request_made.start : self.request_made.end]

    def range_head(self, **replaced: str) -> None:
        """Returns the right head of an answer, with some fields replaced."""
        made = self.request_made
        self.head(
            206,
            **{
                "Content_Range": f"bytes {made.start}-{made.end - 1}/{len(self.server.data)}",
                "Content_Length": str(made.end - made.start),
                "ETag": self.server.etag,
                **replaced,
            },
        )

    def drop(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def served(answer: _Faulty) -> None:
    """No fault."""
    wanted = answer.headers.get("If-Match")
    if wanted and wanted != answer.server.etag:
        status(412)(answer)
    else:
        answer.range_head()
        answer.wfile.write(answer.part)


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    def fault(answer: _Faulty) -> None:
        answer.head(code, Content_Length=str(len(body)), **headers)
        answer.wfile.write(body)

    return fault


def redirect(location: str, code: int = 302) -> Fault:
    return status(code, Location=location)


def whole_file(answer: _Faulty) -> None:
    """200 for a range."""
    answer.head(200, Content_Length=str(len(answer.server.data)), ETag=answer.server.etag)
    answer.wfile.write(answer.server.data)


def other_range(answer: _Faulty) -> None:
    """Sends the right number of bytes from the wrong offset, and says so."""
    made, size = answer.request_made, len(answer.server.data)
    answer.range_head(Content_Range=f"bytes {made.start + 1}-{made.end}/{size + 1}".replace(f"/{size + 1}", f"/{size}"))
    answer.wfile.write(answer.server.data[made.start + 1 : made.end] + b"\0")


def replaced_head(**headers: str) -> Fault:
    """The right bytes under a wrong head."""

    def fault(answer: _Faulty) -> None:
        answer.range_head(**headers)
        answer.wfile.write(answer.part)
        answer.drop()

    return fault


def truncated(count: int) -> Fault:
    def fault(answer: _Faulty) -> None:
        answer.range_head()
        answer.wfile.write(answer.part[:count])
        answer.drop()

    return fault


def reset(count: int) -> Fault:
    """Some bytes, then the connection is reset."""

    def fault(answer: _Faulty) -> None:
        answer.range_head()
        answer.wfile.write(answer.part[:count])
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        answer.drop()

    return fault


def stalled(count: int) -> Fault:
    """Some bytes, then nothing more, and the connection stays open."""

    def fault(answer: _Faulty) -> None:
        answer.range_head()
        answer.wfile.write(answer.part[:count])
        answer.wfile.flush()
        answer.server.released.wait(30)
        answer.drop()

    return fault


def flipped(at: int) -> Fault:
    """Sends a wrong byte, `at` bytes into the answer."""

    def fault(answer: _Faulty) -> None:
        part = bytearray(answer.part)
        part[at] ^= 0xFF
        answer.range_head()
        answer.wfile.write(part)

    return fault


def nonsense(answer: _Faulty) -> None:
    """No http at all."""
    answer.wfile.write(b"\x00\x1b[31mno http\r\n\r\n")
    answer.drop()


def chunked(answer: _Faulty) -> None:
    """The right bytes in pieces, without a Content-Length: unusual, and allowed."""
    made = answer.request_made
    answer.head(
        206,
        Content_Range=f"bytes {made.start}-{made.end - 1}/{len(answer.server.data)}",
        Transfer_Encoding="chunked",
        ETag=answer.server.etag,
    )
    for at in range(0, len(answer.part), 50_000):
        piece = answer.part[at : at + 50_000]
        answer.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    answer.wfile.write(b"0\r\n\r\n")


def tls_files(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody vouches for, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("the openssl command is not installed")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


# --- real servers -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Waits until a process takes connections; returns False if it never does."""
    for _ in range(1000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    return False


class Program:
    """A server in a process of its own."""

    def __init__(self, command: list[str | Path], port: int, folder: Path, **environment: str) -> None:
        self._command, self.port, self._log = [str(part) for part in command], port, folder / "log"
        self._environment = {name: value for name, value in os.environ.items() if name.lower() not in PROXY_VARIABLES}
        self._environment |= environment
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        if answers(self.port, self._process):
            return
        self.stop()
        raise RuntimeError(f"{self._command[0]} does not start: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Nginx(Program):
    """Serves `root`; below /slow/ every connection gets 256 KiB/s, until `unlimited`."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("nginx is not installed")
        self.root, self._configuration, self._folder = folder / "root", folder / "nginx.conf", folder
        (self.root / "slow").mkdir(parents=True)
        port = free_port()
        self._write("limit_rate 256k;", port)
        super().__init__([program, "-p", folder, "-c", self._configuration, "-e", folder / "error.log"], port, folder)

    def unlimited(self) -> None:
        """What the next start does."""
        self._write("", self.port)

    def _write(self, limit: str, port: int) -> None:
        user = "user root;" if os.geteuid() == 0 else ""
        self._configuration.write_text(f"""
            {user} daemon off; worker_processes 1; pid {self._folder}/pid;
            events {{ worker_connections 256; }}
            http {{
                access_log off; sendfile on; etag on;
                client_body_temp_path {self._folder}/t; proxy_temp_path {self._folder}/t;
                fastcgi_temp_path {self._folder}/t; uwsgi_temp_path {self._folder}/t; scgi_temp_path {self._folder}/t;
                server {{
                    listen 127.0.0.1:{port}; root {self.root};
                    location /slow/ {{ {limit} }}
                }}
            }}""")


S3_KEY, S3_SECRET = "TESTKEY", "testsecret"


def s3_environment(port: int) -> dict[str, str]:
    """Returns the environment that makes dumont-gpu use a server on this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": S3_KEY,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_REGION": "us-east-1",
    }


class S3Server(Program):
    """A server that speaks S3, with a bucket named `bucket`."""

    def environment(self) -> dict[str, str]:
        return s3_environment(self.port)

    def ask(self, method: str, path: str) -> bytes:
        """Sends a request without a signature."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lets this process, and its children, find the server and its keys."""
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)


class Moto(S3Server):
    """An imitation of S3 for tests: ranges, If-Match and multipart uploads work; signatures are not checked."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
        pytest.importorskip("flask", reason="moto[server] is not installed")
        port = free_port()
        super().__init__([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, folder)
        self.ask("PUT", "/bucket")

    @property
    def uploads(self) -> bytes:
        """The list of multipart uploads that are neither completed nor aborted."""
        return self.ask("GET", "/bucket?uploads")


# Rclone must notice a test's changes in its folder. With 0, it would list every folder without a pause, on all cores.
RCLONE_OPTIONS = ("--dir-cache-time", "1ms")


class Rclone(S3Server):
    """rclone as an S3 server: checks signatures; answers 200 to ranges."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
        port, program = free_port(), rclone_program()
        self.bucket = folder / "root" / "bucket"
        self.bucket.mkdir(parents=True)
        keys = f"{S3_KEY},{S3_SECRET}"
        super().__init__(
            [
                program,
                "serve",
                "s3",
                *RCLONE_OPTIONS,
                "--auth-key",
                keys,
                "--addr",
                f"127.0.0.1:{port}",
                self.bucket.parent,
            ],
            port,
            folder,
        )


class Gcs(Program):
    """An imitation of Google Cloud Storage for tests, with a bucket named `bucket`; signatures are not checked."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
        pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
        port = free_port()
        self._account = folder / "account.json"
        self._account.write_text(json.dumps(service_account(f"http://127.0.0.1:{port}")))
        program = Path(sys.executable).parent / "gcp-storage-emulator"
        options = ["--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=bucket"]
        super().__init__([program, "start", *options], port, folder)

    def environment(self) -> dict[str, str]:
        return {"GOOGLE_SERVICE_ACCOUNT": str(self._account)}

    def put(self, key: str, content: bytes) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("PUT", f"/bucket/{quote(key)}", content)
        assert connection.getresponse().status == 200
        connection.close()
        return f"gs://bucket/{key}"


def service_account(base_url: str) -> dict[str, str]:
    """A service account that may sign, with a key made for this test."""
    if not shutil.which("openssl"):
        pytest.skip("the openssl command is not installed")
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {
        "type": "service_account",
        "client_email": "somebody@example.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": key,
        "gcs_base_url": base_url,
    }


def rclone_program() -> str:
    found = shutil.which("rclone") or shutil.which("rclone", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("rclone is not installed")
    return found


class RcloneHttp(Program):
    """rclone as a plain http server."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.root = folder / "root"
        self.root.mkdir()
        super().__init__(
            [rclone_program(), "serve", "http", *RCLONE_OPTIONS, "--addr", f"127.0.0.1:{port}", self.root],
            port,
            folder,
        )
