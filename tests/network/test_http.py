"""Faults of servers, and their consequences: never wrong bytes, never a hang, one clear error."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import PROGRAM, cli
from support.servers import (
    Fault,
    FaultServer,
    Nginx,
    Request,
    at_once,
    flipped,
    free_port,
    nonsense,
    other_range,
    redirect,
    replaced_head,
    reset,
    stalled,
    status,
    tls_files,
    truncated,
    whole_file,
)
from support.snapshots import assert_same_tree, pack_tree

from dumont_gpu.errors import (
    DamagedError,
    DumontError,
    GaveUpError,
    NetworkError,
    SnapshotNotFoundError,
    UnsupportedError,
)
from dumont_gpu.format.header import MAGIC
from dumont_gpu.jobs.options import RestoreOptions, VerifyOptions
from dumont_gpu.jobs.restore import plan_restore, restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import NetworkOptions, Source, open_source
from dumont_gpu.storage.answers import DeniedError, ExpiredError
from dumont_gpu.storage.http_range import ChangedError
from dumont_gpu.storage.proxies import ProxyRefusedError
from dumont_gpu.storage.retry import RetryPolicy

UNIT = 128 * KiB
CONTENT = random.Random(1).randbytes(20 * UNIT + 7)  # two ranges
AT_ONCE = at_once()


def opened(server: FaultServer, options: NetworkOptions = AT_ONCE) -> Source:
    return open_source(server.url, options)


def read(source: Source, offset: int = 20_000, end: int = len(CONTENT)) -> bool:
    """Reads a part and compares the bytes with CONTENT."""
    out = bytearray(end - offset)
    source.read_into(offset, memoryview(out))
    return out == CONTENT[offset:end]


def first(count: int, fault: Fault) -> Callable[[Request], Fault | None]:
    """The fault for the first `count` requests after request 0, which opens the source."""
    return lambda request: fault if 1 <= request.number <= count else None


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the real size, so that tests are quick."""
    monkeypatch.setattr("dumont_gpu.storage.reads.RANGE_SIZE", 8 * UNIT)


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    fault_server.data = CONTENT
    return fault_server


# --- faults that another attempt mends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        truncated(0),
        truncated(70_000),
        reset(0),
        reset(70_000),
        nonsense,
        status(500),
        status(503),
        status(429),
        status(408),
    ],
    ids=["truncated", "truncated later", "reset", "reset later", "no http", "500", "503", "429", "408"],
)
def test_what_may_pass_is_tried_again(fault: Fault, server: FaultServer) -> None:
    server.script = first(3, fault)
    source = opened(server)
    assert read(source)
    source.close()


def test_the_first_request_is_tried_again_too(server: FaultServer) -> None:
    server.script = lambda request: truncated(100) if request.number < 2 else None
    source = opened(server)
    assert read(source)
    source.close()


def test_an_attempt_begins_where_the_one_before_ended(server: FaultServer) -> None:
    server.script = first(4, truncated(100_000))
    source = opened(server, replace(AT_ONCE, connections=1))
    assert read(source, 20_000, 1_900_000)
    source.close()
    assert server.ranges[1:] == [(20_000 + 100_000 * attempt, 1_900_000) for attempt in range(5)]


def test_a_stalled_connection_is_replaced(server: FaultServer) -> None:
    server.script = first(2, stalled(70_000))
    source = opened(server, replace(AT_ONCE, read_timeout=0.5))
    assert read(source)
    source.close()


def test_a_slow_connection_is_replaced(server: FaultServer) -> None:
    """The test's clock jumps while the server sends the second of two pieces."""
    looked, moved = threading.Semaphore(0), threading.Event()

    def clock() -> float:
        looked.release()
        return 20.0 if moved.is_set() else 0.0

    def slow(answer: object) -> None:
        while looked.acquire(blocking=False):
            pass
        answer.range_head()  # type: ignore[attr-defined]
        answer.wfile.write(answer.part[:100_000])  # type: ignore[attr-defined]
        assert looked.acquire(timeout=20)  # the client has received something
        moved.set()
        answer.wfile.write(answer.part[100_000:100_001])  # type: ignore[attr-defined]
        server.released.wait(20)
        answer.drop()  # type: ignore[attr-defined]

    server.script = first(1, slow)  # type: ignore[arg-type]
    source = opened(server, replace(AT_ONCE, connections=1, clock=clock))
    assert read(source, 20_000, 1_900_000)
    source.close()
    assert server.ranges[1] == (20_000, 1_900_000)
    assert 20_000 < server.ranges[2][0] <= 120_001
    assert len(server.ranges) == 3


def test_retry_after_is_obeyed(server: FaultServer) -> None:
    waited: list[float] = []
    server.script = first(1, status(503, Retry_After="17"))
    source = opened(server, replace(AT_ONCE, wait=lambda event, seconds: waited.append(seconds)))
    assert read(source, 20_000, 30_000)
    assert waited == [17]
    source.close()


def test_a_server_that_asks_for_hours_is_given_up(server: FaultServer) -> None:
    server.script = lambda request: status(429, Retry_After="7200")
    with pytest.raises(NetworkError, match="asks to wait 7200 s"):
        opened(server)
    assert len(server.requests) == 1


def test_the_rate_limit_is_kept(server: FaultServer) -> None:
    """Judged by the seconds of waiting: in total, the time of the bytes at that rate."""
    waited: list[float] = []
    options = replace(
        AT_ONCE, limit_rate=16 * UNIT, clock=lambda: 0.0, wait=lambda event, seconds: waited.append(seconds)
    )
    source = opened(server, options)
    assert read(source, 20_000, 20_000 + 4 * UNIT)
    source.close()
    assert max(waited) == pytest.approx(4 / 16, abs=0.001)


# --- faults that end the read -----------------------------------------------------------------------------------------

FINAL: list[tuple[str, Fault, type[DumontError], str]] = [
    ("200 for a range", whole_file, ChangedError, "changed"),
    ("another range", other_range, DumontError, "instead of"),
    (
        "a part of the range",
        replaced_head(Content_Range=f"bytes 20000-20001/{len(CONTENT)}"),
        DumontError,
        "instead of",
    ),
    ("another size", replaced_head(Content_Range="bytes 0-1/2"), ChangedError, "changed"),
    ("no Content-Range", replaced_head(Content_Range="none"), DumontError, "which bytes"),
    ("a size of *", replaced_head(Content_Range="bytes 20000-20001/*"), UnsupportedError, "how large"),
    ("another length", replaced_head(Content_Length="5"), DumontError, "contradicts"),
    ("another encoding", replaced_head(Content_Encoding="gzip"), DumontError, "encoding"),
    ("another ETag", replaced_head(ETag='"two"'), ChangedError, "changed"),
    ("412", status(412), ChangedError, "changed"),
    ("416", status(416), ChangedError, "changed"),
    ("404", status(404), SnapshotNotFoundError, "no such snapshot"),
    ("403", status(403), DeniedError, "403"),
    ("403 expired", status(403, b"<Message>Request has expired</Message>"), ExpiredError, "expired"),
    ("401", status(401), DumontError, "credentials"),
    ("redirect to file", redirect("file:///etc/passwd"), DumontError, "no http address"),
    ("endless redirects", redirect("/again"), DumontError, "without end"),
    ("redirect to nowhere", status(302), DumontError, "without saying where"),
    ("another region", status(301, x_amz_bucket_region="eu-west-1"), DumontError, "set AWS_REGION"),
    ("501", status(501), DumontError, "501"),
    ("always 503", status(503), GaveUpError, "gave up after 300 s"),
    ("always truncated", truncated(0), GaveUpError, "gave up after 300 s"),
    ("always no http", nonsense, GaveUpError, "gave up after 300 s"),
]


@pytest.mark.parametrize(("name", "fault", "error", "said"), FINAL, ids=[row[0] for row in FINAL])
def test_what_stays_wrong_is_one_clear_error(
    name: str, fault: Fault, error: type[DumontError], said: str, server: FaultServer
) -> None:
    server.script = first(10**9, fault)
    source = opened(server)
    with pytest.raises(error, match=said) as caught:
        read(source)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{server.url}: ")
    assert str(caught.value).isprintable()
    source.close()


def test_an_error_in_one_range_ends_its_siblings_and_spares_other_reads(server: FaultServer) -> None:
    """The second half of the file fails while the first stalls: the read must not wait for the first."""
    server.script = lambda request: (
        None if request.start < UNIT and request.end < 10 * UNIT
        else status(404) if request.start > 5 * UNIT
        else stalled(1000)
    )  # fmt: skip
    source = opened(server, replace(AT_ONCE, read_timeout=60))
    with pytest.raises(SnapshotNotFoundError):
        read(source, 2 * UNIT)
    assert read(source, 20_000, UNIT)
    source.close()


def test_cancelling_wakes_up_a_read(server: FaultServer) -> None:
    server.script = first(10**9, stalled(0))
    source = opened(server, replace(AT_ONCE, read_timeout=60))
    failed: list[BaseException] = []

    def work() -> None:
        try:
            read(source)
        except NetworkError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while len(server.requests) < 2:
        thread.join(0.01)
    source.cancel()
    thread.join(30)
    assert failed
    with pytest.raises(NetworkError):
        read(source)
    source.close()


def test_no_server_is_an_error_after_few_attempts() -> None:
    with pytest.raises(NetworkError, match="cannot be reached"):
        open_source(f"http://127.0.0.1:{free_port()}/x", AT_ONCE)


def test_a_server_that_never_sends_ranges_is_not_supported(server: FaultServer) -> None:
    server.data = MAGIC + CONTENT
    server.script = lambda request: whole_file
    with pytest.raises(UnsupportedError, match="whole files only"):
        opened(server)


def test_an_object_that_is_replaced_meanwhile_is_noticed_by_if_match(server: FaultServer) -> None:
    source = opened(server)
    assert read(source, 20_000, 30_000)
    server.etag = '"two"'
    with pytest.raises(ChangedError):
        read(source, 20_000, 30_000)
    source.close()
    assert [request.headers.get("If-Match") for request in server.requests] == [None, '"one"', '"one"']


def test_a_weak_etag_is_compared_and_not_sent(server: FaultServer) -> None:
    server.etag = 'W/"one"'
    source = opened(server)
    assert read(source, 20_000, 30_000)
    assert server.requests[-1].headers.get("If-Match") is None
    server.etag = 'W/"two"'
    with pytest.raises(ChangedError):
        read(source, 20_000, 30_000)
    source.close()


# --- redirects and secrets --------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> FaultServer:  # type: ignore[misc]
    found = FaultServer(CONTENT)
    yield found
    found.close()


def test_a_redirect_is_followed_once_and_remembered(server: FaultServer, other: FaultServer) -> None:
    server.script = lambda request: redirect(f"{other.url}?signature=1")
    source = opened(server)
    assert read(source)
    assert len(server.requests) == 1
    assert source.location == server.url
    source.close()


def test_where_a_redirect_led_to_may_expire(server: FaultServer, other: FaultServer) -> None:
    signatures = itertools.count()
    server.script = lambda request: redirect(f"{other.url}?signature={next(signatures)}")
    other.script = lambda request: status(403) if request.path.endswith("=0") and request.number else None
    source = opened(server)
    assert read(source)
    source.close()


def test_credentials_go_to_their_own_server_only(server: FaultServer, other: FaultServer) -> None:
    server.script = lambda request: redirect("/here") if request.path == "/x.dumont" else redirect(other.url)
    source = open_source(server.url.replace("//", "//me:secret@"), AT_ONCE)
    assert read(source, 20_000, 30_000)
    assert {request.headers.get("Authorization") for request in server.requests} == {"Basic bWU6c2VjcmV0"}
    assert {request.headers.get("Authorization") for request in other.requests} == {None}
    assert "secret" not in source.location
    source.close()


def test_no_message_holds_a_secret(server: FaultServer, tmp_path: Path) -> None:
    server.data = b"no snapshot"
    impatient = at_once(retry=RetryPolicy(patience=1))
    url = server.url.replace("//", "//me:secret@") + "?X-Amz-Signature=secret"
    for fault in (None, *(row[1] for row in FINAL)):
        server.script = lambda request, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(DumontError) as caught:
            restore(url, str(tmp_path / "t"), RestoreOptions(network=impatient))
        assert "secret" not in str(caught.value)
        assert "x.dumont" in str(caught.value)
    server.script = lambda request: None
    for as_json in ((), ("--json",), ("--debug",)):
        ran = cli("info", url, *as_json)
        assert ran.returncode == 4
        assert "secret" not in ran.stdout + ran.stderr


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tls_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = FaultServer(CONTENT, context)
    try:
        with pytest.raises(DumontError, match="certificate.*SSL_CERT_FILE"):
            opened(server)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        source = opened(server)
        assert read(source)
        source.close()
        server.script = lambda request: redirect(server.url.replace("https:", "http:"))
        with pytest.raises(DumontError, match="from https to http"):
            opened(server)
    finally:
        server.close()


def test_a_proxy_is_asked_for_the_whole_address(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:secret@{server.authority}")
    monkeypatch.setenv("no_proxy", "inside.example")
    source = open_source("http://outside.example/x?y", AT_ONCE)
    assert read(source, 20_000, 30_000)
    assert {request.path for request in server.requests} == {"http://outside.example/x?y"}
    assert {request.headers.get("Proxy-Authorization") for request in server.requests} == {"Basic bWU6c2VjcmV0"}
    source.close()
    with pytest.raises(NetworkError, match="cannot be reached"):
        open_source("http://inside.example/x", AT_ONCE)


def test_a_proxy_is_asked_for_a_tunnel_to_https(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", server.authority)
    server.script = lambda request: status(407)
    with pytest.raises(ProxyRefusedError):
        open_source("https://outside.example/x", AT_ONCE)
    assert {(request.method, request.path) for request in server.requests} == {("CONNECT", "outside.example:443")}


# --- whole jobs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(source: Path, snapshot: Path, server: FaultServer) -> Path:
    """A tree whose snapshot the fault server has: ten chunks of a UNIT, and a chunk of small files."""
    (source / "weights").write_bytes(CONTENT[: 10 * UNIT])
    (source / "code").mkdir()
    for number in range(20):
        (source / f"code/{number}.py").write_text(f"print({number})\n" * 100)
    pack_tree(source, snapshot, chunk_size=UNIT, method="none")
    server.data = snapshot.read_bytes()
    return source


def test_info_and_a_partial_restore_fetch_what_they_need(
    workspace: Path, snapshot: Path, target: Path, server: FaultServer
) -> None:
    def fetched(work: Callable[[], object]) -> int:
        server.requests.clear()
        work()
        return sum(end - start for start, end in server.ranges)

    with open(snapshot, "rb") as file:
        assert file.read(8) == b"DUMONT02"
    manifest = read_snapshot(open_source(str(snapshot))).header.manifest_size
    head = 16 << 10
    assert fetched(lambda: cli("info", server.url)) == head + manifest
    assert fetched(lambda: cli("ls", server.url, "-l")) == head + manifest
    plan = plan_restore(str(snapshot), RestoreOptions(include=["code/7.py"]))
    assert plan.num_chunks == 1
    chosen = RestoreOptions(include=["code/7.py"], sync=False)
    assert fetched(lambda: restore(server.url, str(target), chosen)) == head + manifest + plan.compressed_size
    assert (target / "code/7.py").read_bytes() == (workspace / "code/7.py").read_bytes()
    assert fetched(lambda: verify(server.url)) <= len(server.data) + head


def test_a_chunk_damaged_on_its_way_is_fetched_again_and_only_it(
    workspace: Path, target: Path, server: FaultServer
) -> None:
    damaged: list[Request] = []

    def script(request: Request) -> Fault | None:
        if request.start > 5 * UNIT and request.end - request.start > 100_000 and not damaged:
            damaged.append(request)
            return flipped(70_000)
        return None

    server.script = script
    restore(server.url, str(target), RestoreOptions(sync=False, network=AT_ONCE))
    assert_same_tree(workspace, target)
    twice = [made for made in set(server.ranges) if server.ranges.count(made) > 1]
    assert twice == [(damaged[0].start, damaged[0].end)]

    damaged.clear()
    assert verify(server.url, VerifyOptions(content=True, network=AT_ONCE)).num_chunks
    assert damaged


def test_a_chunk_that_stays_damaged_is_reported(workspace: Path, target: Path, server: FaultServer) -> None:
    server.script = lambda request: flipped(0) if 5 * UNIT < request.start < 6 * UNIT else None
    with pytest.raises(DamagedError, match=f"{server.url}: chunk .* do not match their digest"):
        restore(server.url, str(target), RestoreOptions(sync=False, network=AT_ONCE))
    with pytest.raises(DamagedError, match="1 of .* chunks damaged"):
        verify(server.url, VerifyOptions(network=AT_ONCE))


@pytest.mark.parametrize(("name", "fault", "error", "said"), FINAL, ids=[row[0] for row in FINAL])
def test_a_failing_server_leaves_nothing_wrong_in_the_target(
    name: str,
    fault: Fault,
    error: type[DumontError],
    said: str,
    workspace: Path,
    target: Path,
    server: FaultServer,
) -> None:
    """The fault begins at the sixth request, when some chunks are restored already."""
    server.script = lambda request: fault if request.number > 5 else None
    with pytest.raises(DumontError) as caught:
        restore(server.url, str(target), RestoreOptions(sync=False, network=AT_ONCE))
    assert caught.value.exit_code in (1, 5, 8, 10)
    assert len(str(caught.value).splitlines()) == 1
    assert server.url in str(caught.value)
    server.script = lambda request: None
    restore(server.url, str(target), RestoreOptions(sync=False, network=AT_ONCE, overwrite="always"))
    assert_same_tree(workspace, target)


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (None, 0, ""),
        (whole_file, 8, "whole files only"),
        (status(404), 10, "no such snapshot"),
        (status(403, b"Request has expired"), 1, "expired"),
        (redirect("file:///etc/passwd"), 1, "no http address"),
        (redirect("/"), 1, "without end"),
        (status(503), 5, "gave up"),
        (status(429, Retry_After="99999"), 5, "asks to wait"),
        (flipped(100), 4, "header"),
    ],
)
def test_the_command_line_says_so_in_one_line(
    fault: Fault | None, code: int, said: str, workspace: Path, target: Path, server: FaultServer
) -> None:
    server.script = lambda request: fault
    options = ("--connections", "4", "--limit-rate", "1GiB", "--patience", "0")
    ran = cli("restore", f"{server.url}?signature=secret", target, *options)
    assert ran.returncode == code
    assert said in ran.stderr
    assert "secret" not in ran.stderr + ran.stdout
    assert len(ran.stderr.splitlines()) == (code != 0)
    assert code == 0 or not target.exists()


def test_a_signal_ends_a_restore_that_waits(workspace: Path, target: Path, server: FaultServer) -> None:
    asked = threading.Semaphore(0)

    def silent(answer: object) -> None:
        asked.release()
        stalled(0)(answer)  # type: ignore[arg-type]

    server.script = lambda request: silent if request.number > 5 else None  # type: ignore[return-value]
    command = [PROGRAM, "restore", server.url, str(target)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert asked.acquire(timeout=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 143
        assert process.stderr and process.stderr.read() == "dumont-gpu: stopped\n"


def test_json_errors_carry_the_code(server: FaultServer) -> None:
    server.script = lambda request: status(404)
    assert json.loads(cli("info", server.url, "--json").stderr)["code"] == 10


# --- a real server ----------------------------------------------------------------------------------------------------


def test_a_server_that_is_restarted_in_the_middle_does_not_matter(nginx: Nginx) -> None:
    (nginx.root / "slow/restarted").write_bytes(CONTENT)
    stopped, started = threading.Event(), threading.Lock()

    def wait(event: threading.Event, seconds: float) -> None:
        """Starts the stopped server: a range is about to be tried again."""
        with started:
            if stopped.is_set():
                stopped.clear()
                nginx.unlimited()
                nginx.start()

    source = open_source(f"http://127.0.0.1:{nginx.port}/slow/restarted", replace(AT_ONCE, wait=wait))
    out = bytearray(len(CONTENT))
    reading = threading.Thread(target=source.read_into, args=(0, memoryview(out)))
    reading.start()
    while not any(out[10 * UNIT + 1000 :][:50_000]):  # the second of two ranges has begun
        reading.join(0.01)
    with started:
        stopped.set()
        nginx.stop()
    reading.join(50)
    source.close()
    assert out == CONTENT
    assert not stopped.is_set()


def test_a_file_that_is_replaced_on_a_real_server_is_noticed(nginx: Nginx) -> None:
    path = nginx.root / "replaced"
    path.write_bytes(CONTENT)
    source = open_source(f"http://127.0.0.1:{nginx.port}/replaced", AT_ONCE)
    assert read(source)
    (nginx.root / "new").write_bytes(CONTENT[::-1])
    os.utime(nginx.root / "new", (1, 1))  # nginx makes its ETag of the size and the second
    (nginx.root / "new").rename(path)
    with pytest.raises(ChangedError):
        read(source)
    source.close()
