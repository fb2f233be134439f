"""Proxies and certificates: which variable counts, which addresses take a proxy, and who is blamed."""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import cli
from support.servers import FaultServer, at_once, free_port, s3_environment, status, tls_files

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.storage import open_sink, open_source
from dumont_gpu.storage.addresses import parse_address
from dumont_gpu.storage.http import HttpSource
from dumont_gpu.storage.proxies import (
    ProxyNeverThereError,
    ProxyRefusedError,
    ProxySettingError,
    bypassed,
    proxy_for,
)

CONTENT = random.Random(3).randbytes(300_000)
AT_ONCE = at_once()

# --- which proxy ------------------------------------------------------------------------------------------------------

P, Q = "http://p.example:3128", "http://q.example:8080"

CHOSEN: list[tuple[dict[str, str], str, str]] = [
    ({}, "https://host/", ""),
    ({"https_proxy": P}, "https://host/", P),
    ({"https_proxy": P}, "http://host/", ""),
    ({"http_proxy": P}, "http://host/", P),
    ({"HTTP_PROXY": P}, "http://host/", P),
    ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, "http://host/", ""),
    ({"HTTPS_PROXY": P}, "https://host/", P),
    ({"https_proxy": P, "HTTPS_PROXY": Q}, "https://host/", P),
    ({"https_proxy": "", "HTTPS_PROXY": Q}, "https://host/", ""),
    ({"all_proxy": P}, "https://host/", P),
    ({"ALL_PROXY": P}, "http://host/", P),
    ({"all_proxy": P, "https_proxy": Q}, "https://host/", Q),
    ({"all_proxy": P, "https_proxy": ""}, "https://host/", P),
    ({"https_proxy": "p.example:3128"}, "https://host/", P),
    ({"https_proxy": "HTTP://p.example:3128/"}, "https://host/", P),
    ({"https_proxy": "https://p.example"}, "https://host/", "https://p.example"),
    ({"https_proxy": P, "no_proxy": "host"}, "https://host/", ""),
    ({"https_proxy": P, "NO_PROXY": "host"}, "https://host/", ""),
    ({"https_proxy": P, "no_proxy": "", "NO_PROXY": "host"}, "https://host/", P),
    ({"all_proxy": P, "no_proxy": "*"}, "https://host/", ""),
]


@pytest.mark.parametrize(("variables", "url", "expected"), CHOSEN)
def test_the_variables_name_the_proxy(variables: dict[str, str], url: str, expected: str) -> None:
    found = proxy_for(parse_address(url), variables)
    assert (f"{found.address.scheme}://{found.address.authority}" if found else "") == expected


BYPASSED: list[tuple[str, str, bool]] = [  # no_proxy, address, whether the address is reached directly
    ("", "http://example.com", False),
    ("*", "http://example.com", True),
    ("other, *", "http://example.com", True),
    ("example.com", "http://example.com", True),
    ("example.com", "http://www.example.com", True),
    ("example.com", "http://nonexample.com", False),
    ("example.com", "http://example.com.org", False),
    ("EXAMPLE.com.", "http://Example.COM", True),
    ("example.com", "http://example.com./x", True),
    (".example.com", "http://www.example.com", True),
    (".example.com", "http://example.com", True),
    (".example.com", "http://nonexample.com", False),
    ("*.example.com", "http://www.example.com", True),
    ("*.example.com", "http://nonexample.com", False),
    ("a.example,example.com", "http://example.com", True),
    ("a.example example.com", "http://example.com", True),
    ("a.example , ,example.com,", "http://example.com", True),
    ("localhost", "http://localhost:8080", True),
    ("localhost", "http://127.0.0.1", False),
    # ports
    ("example.com:8443", "https://example.com:8443", True),
    ("example.com:8443", "https://www.example.com:8443", True),
    ("example.com:8443", "https://example.com", False),
    ("example.com:443", "https://example.com", True),
    ("example.com:80", "http://example.com", True),
    ("127.0.0.1:8080", "http://127.0.0.1:8080", True),
    ("127.0.0.1:8080", "http://127.0.0.1:8081", False),
    # addresses and networks
    ("10.1.2.3", "http://10.1.2.3", True),
    ("10.1.2.3", "http://10.1.2.30", False),
    ("2.3", "http://10.1.2.3", False),
    (".3", "http://10.1.2.3", False),
    ("10.0.0.0/8", "http://10.255.2.3", True),
    ("10.9.9.9/8", "http://10.1.2.3", True),
    ("10.0.0.0/8", "http://11.1.2.3", False),
    ("10.0.0.0/8", "http://10.example", False),
    ("192.168.0.0/16,10.0.0.0/8", "https://10.1.2.3:9000", True),
    ("10.0.0.0/99", "http://10.1.2.3", False),
    ("10.0.0.0/", "http://10.1.2.3", False),
    ("0.0.0.0/0", "http://10.1.2.3", True),
    ("0.0.0.0/0", "http://example.com", False),
    ("::1", "http://[::1]:8080", True),
    ("[::1]", "http://[::1]:8080", True),
    ("[::1]:8080", "http://[::1]:8080", True),
    ("[::1]:8080", "http://[::1]:8081", False),
    ("fd00::/8", "http://[fd12::1]", True),
    ("[fd00::]/8", "http://[fd12::1]", True),
    ("fd00::/8", "http://[fe80::1]", False),
    ("0:0:0:0:0:0:0:1", "http://[::1]", True),
    ("::ffff:10.0.0.0/104", "http://10.1.2.3", False),
    ("10.0.0.0/8", "http://[::ffff:10.1.2.3]", True),
    ("[", "http://[::1]", False),
    (":", "http://example.com", False),
    (".", "http://example.com", False),
]


@pytest.mark.parametrize(("rules", "url", "expected"), BYPASSED)
def test_no_proxy_names_what_is_reached_directly(rules: str, url: str, expected: bool) -> None:
    address = parse_address(url)
    assert bypassed(address.host, address.port, rules) is expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://me:secret@p.example:1080", "all_proxy names a socks5:// proxy, which is not supported"),
        ("socks5h://p.example", "all_proxy names a socks5h:// proxy"),
        ("SOCKS4://p.example", "all_proxy names a socks4:// proxy"),
        ("ftp://me:secret@p.example", "all_proxy names a ftp:// proxy"),
        ("http://", "all_proxy holds no address of a proxy"),
        ("me:secret@:3128", "all_proxy holds no address of a proxy"),
        ("http://p.example:secret", "all_proxy holds no address of a proxy"),
    ],
)
def test_what_is_no_usable_proxy_is_refused_by_the_name_of_its_variable(value: str, said: str) -> None:
    with pytest.raises(ProxySettingError, match=re.escape(said)) as caught:
        proxy_for(parse_address("https://host/"), {"all_proxy": value})
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2


# --- whom the message blames ------------------------------------------------------------------------------------------

SNAPSHOT = "http://snapshots.example/x.dumont"


def test_a_socks_proxy_is_one_line_about_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:1")
    ran = cli("info", SNAPSHOT)
    assert ran.returncode == 2
    assert ran.stderr.startswith("dumont-gpu: ALL_PROXY names a socks5:// proxy")
    assert "secret" not in ran.stderr and "snapshots.example" not in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_dead_proxy_is_named_and_the_snapshot_is_not(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("all_proxy", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(ProxyNeverThereError) as caught:
        open_source(SNAPSHOT.replace("http:", f"{scheme}:"), AT_ONCE)
    said = str(caught.value)
    assert said.startswith(f"the proxy http://127.0.0.1:{port} (from all_proxy) cannot be reached: Connection refused")
    assert "secret" not in said and "snapshots.example" not in said
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("login", "said"), [("", "wants a name"), ("me:secret@", "does not accept the name")])
def test_a_proxy_that_wants_a_password_says_so(
    scheme: str, login: str, said: str, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://{login}{fault_server.authority}")
    fault_server.script = lambda request: status(407, Proxy_Authenticate="Basic")
    with pytest.raises(ProxyRefusedError) as caught:
        open_source(SNAPSHOT.replace("http:", f"{scheme}:"), AT_ONCE)
    assert re.match(
        rf"the proxy http://{fault_server.authority} \(from {scheme}_proxy\) answers 407 .*{said}", str(caught.value)
    )
    assert "secret" not in str(caught.value) and "snapshots.example" not in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("code", "error"), [(403, ProxyRefusedError), (502, ProxyNeverThereError)])
def test_a_proxy_that_opens_no_tunnel_is_named(
    code: int, error: type[DumontError], fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", fault_server.authority)
    fault_server.script = lambda request: status(code)
    with pytest.raises(error, match=f"^the proxy http://{fault_server.authority} .from https_proxy. answers {code}"):
        open_source("https://snapshots.example/x", AT_ONCE)


# --- tunnels, and private certificates --------------------------------------------------------------------------------


class Tunnels:
    """A proxy that opens tunnels, over TLS if the proxy has a certificate."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.authority = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[str] = []
        self._tls = tls
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.heads.append(head.decode())
            host, port = head.split()[1].decode().rsplit(":", 1)
            server = socket.create_connection((host, int(port)))
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            while True:
                pending = isinstance(client, ssl.SSLSocket) and client.pending()
                for ready in [client] if pending else select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        raise OSError
                    (server if ready is client else client).sendall(data)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """The certificate's file, and a server's TLS context with the certificate."""
    path, key = tls_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return path, context


@pytest.fixture
def secure(certificate: tuple[Path, ssl.SSLContext]) -> Iterator[FaultServer]:
    """An https server with a certificate that nobody vouches for."""
    server = FaultServer(CONTENT, certificate[1])
    yield server
    server.close()


def whole(source: HttpSource) -> bytes:
    out = bytearray(source.size)
    source.read_into(0, memoryview(out))
    source.close()
    return bytes(out)


@pytest.mark.parametrize("over", ["http", "https"])
def test_https_goes_through_a_tunnel(
    over: str, certificate: tuple[Path, ssl.SSLContext], secure: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Tunnels(certificate[1] if over == "https" else None)
    monkeypatch.setenv("https_proxy", f"{over}://me:secret@{proxy.authority}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert whole(open_source(secure.url, AT_ONCE)) == CONTENT
    assert proxy.heads and all(head.startswith(f"CONNECT {secure.authority} HTTP/1.1\r\n") for head in proxy.heads)
    assert all("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in head for head in proxy.heads)
    assert not any(request.headers.get("Proxy-Authorization") for request in secure.requests)
    assert {request.headers.get("Host") for request in secure.requests} == {secure.authority}
    proxy.close()


def test_http_goes_through_an_https_proxy(
    certificate: tuple[Path, ssl.SSLContext], secure: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", secure.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert whole(open_source(SNAPSHOT, AT_ONCE)) == CONTENT
    assert {request.path for request in secure.requests} == {SNAPSHOT}


def test_the_certificate_of_a_proxy_is_checked_and_the_proxy_named(
    secure: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", f"https://{secure.authority}")
    for url in (SNAPSHOT, SNAPSHOT.replace("http:", "https:")):
        with pytest.raises(ProxyRefusedError, match="^the certificate of the proxy https://.* does not hold"):
            open_source(url, AT_ONCE)


def directory_of(certificate: Path, folder: Path) -> Path:
    """A certificate directory in the layout of `openssl rehash`."""
    name = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", certificate], check=True, capture_output=True, text=True
    ).stdout.strip()
    folder.mkdir()
    shutil.copy(certificate, folder / f"{name}.0")
    return folder


def strangers(folder: Path) -> Path:
    folder.mkdir()
    return tls_files(folder)[0]


TRUSTED: list[tuple[str, Callable[[Path, Path], dict[str, Path]], bool]] = [
    ("nothing", lambda own, other: {}, False),
    ("REQUESTS_CA_BUNDLE", lambda own, other: {"REQUESTS_CA_BUNDLE": own}, True),
    ("a directory", lambda own, other: {"REQUESTS_CA_BUNDLE": directory_of(own, own.parent / "d")}, True),
    ("CURL_CA_BUNDLE", lambda own, other: {"CURL_CA_BUNDLE": own}, True),
    ("SSL_CERT_FILE", lambda own, other: {"SSL_CERT_FILE": own}, True),
    ("SSL_CERT_DIR", lambda own, other: {"SSL_CERT_DIR": directory_of(own, own.parent / "d")}, True),
    ("AWS_CA_BUNDLE is for s3", lambda own, other: {"AWS_CA_BUNDLE": own}, False),
    ("requests before curl", lambda own, other: {"REQUESTS_CA_BUNDLE": own, "CURL_CA_BUNDLE": other}, True),
    ("requests hides curl", lambda own, other: {"REQUESTS_CA_BUNDLE": other, "CURL_CA_BUNDLE": own}, False),
    ("curl before openssl", lambda own, other: {"CURL_CA_BUNDLE": own, "SSL_CERT_FILE": other}, True),
    ("curl hides openssl", lambda own, other: {"CURL_CA_BUNDLE": other, "SSL_CERT_FILE": own}, False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "variables", "trusted"), TRUSTED, ids=[row[0] for row in TRUSTED])
def test_the_first_variable_that_is_set_says_who_vouches(
    name: str,
    variables: Callable[[Path, Path], dict[str, Path]],
    trusted: bool,
    certificate: tuple[Path, ssl.SSLContext],
    secure: FaultServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, path in variables(certificate[0], strangers(tmp_path / "other")).items():
        monkeypatch.setenv(variable, str(path))
    if trusted:
        assert whole(open_source(secure.url, AT_ONCE)) == CONTENT
    else:
        with pytest.raises(DumontError, match="certificate of the server does not hold.*SSL_CERT_FILE"):
            open_source(secure.url, AT_ONCE)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("no certificate"), "the file holds no certificate"),
        (lambda path: path.write_bytes(b""), "the file holds no certificate"),
        (lambda path: path.mkdir(), "the directory holds no certificate"),
    ],
    ids=["missing", "text", "empty", "an empty directory"],
)
def test_a_bundle_that_is_none_is_a_usage_error(
    variable: str, make: Callable[[Path], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "ca")
    monkeypatch.setenv(variable, os.fspath(tmp_path / "ca"))
    with pytest.raises(UsageError) as caught:
        open_source(f"https://127.0.0.1:{free_port()}/x", AT_ONCE)
    assert f"{variable}={tmp_path}/ca: {said}" in str(caught.value)


# --- the same rules for s3:// -----------------------------------------------------------------------------------------


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
    for name, value in s3_environment(1).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("command", ["info", "pack"])
def test_a_dead_proxy_is_named_for_s3_too(
    command: str, keys: None, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(ProxyNeverThereError, match=f"^the proxy http://127.0.0.1:{port} .from http_proxy. cannot be"):
        if command == "info":
            open_source("s3://bucket/x", AT_ONCE)
        else:
            open_sink("s3://bucket/x", AT_ONCE)


def test_s3_has_a_variable_of_its_own_for_certificates(
    keys: None,
    certificate: tuple[Path, ssl.SSLContext],
    secure: FaultServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{secure.authority}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(strangers(tmp_path / "other")))
    with pytest.raises(DumontError, match="certificate of the server does not hold"):
        open_source("s3://bucket/x", AT_ONCE)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    source = open_source("s3://bucket/x", AT_ONCE)
    assert isinstance(source, HttpSource)
    assert whole(source) == CONTENT
