# ruff: noqa: F401, F811 - a fixture of another file
"""A publish to S3 may replace a snapshot, or an object without value: the rule of outputs, at a key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import cli
from support.servers import Fault, FaultServer, Moto, Request, S3Server, at_once, s3_environment, status, whole_file
from test_publish import sent, taken_away

from dumont_gpu.errors import DumontError, GaveUpError, NetworkError, SnapshotNotFoundError, UsageError
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import PackResult, pack, plan_pack
from dumont_gpu.progress import Notice
from dumont_gpu.sizes import MiB
from dumont_gpu.storage import open_sink
from dumont_gpu.storage.http_range import RangeConnection
from dumont_gpu.storage.object_store import ObjectSigner
from dumont_gpu.storage.retry import Attempts, RetryPolicy, TransientError
from dumont_gpu.storage.s3_requests import Part, S3Requests
from dumont_gpu.storage.tls import tls_context

IN_THE_WAY = "is there already, and is no snapshot: name another file, or say --force"
XML = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>" + b"x" * 1000  # an object that looks like an error
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

Put = Callable[[str, bytes], None]


@pytest.fixture
def filled(source: Path) -> Path:
    (source / "file").write_text("content")
    return source


@pytest.fixture
def put(server: S3Server) -> Put:
    """Puts an object into the bucket, as another tool would."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    there = server.environment()
    client = boto3.client(
        "s3",
        endpoint_url=there["AWS_ENDPOINT_URL"],
        aws_access_key_id=there["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=there["AWS_SECRET_ACCESS_KEY"],
        region_name=there["AWS_REGION"],
    )
    return lambda location, content: client.put_object(
        Bucket="bucket", Key=location.removeprefix("s3://bucket/"), Body=content
    )


@pytest.fixture
def location(request: pytest.FixtureRequest) -> str:
    """An object of this test's own."""
    return f"s3://bucket/place/{request.node.name.translate(str.maketrans('[]', '--'))}"


def publish(source: Path, location: str, **options: Any) -> PackResult:
    return pack([str(source)], location, PackOptions(network=at_once(), **options))


@pytest.mark.parametrize(
    "content", [b"precious", b"x" * 100_000, XML, b"DUMONT"], ids=["small", "large", "xml", "near"]
)
def test_an_object_that_is_no_snapshot_is_not_replaced(
    content: bytes,
    filled: Path,
    location: str,
    server: S3Server,
    put: Put,
    sent: list[tuple[str, str]],
) -> None:
    put(location, content)
    with pytest.raises(UsageError) as caught:
        publish(filled, location)
    assert str(caught.value) == f"{location}: {IN_THE_WAY}"
    assert sent == [("GET", "")]
    sent.clear()
    with pytest.raises(UsageError, match=IN_THE_WAY):
        plan_pack([str(filled)], PackOptions(network=at_once()), location)
    assert sent == [("GET", "")]
    publish(filled, location, force=True)
    publish(filled, location)  # now a snapshot is there


def test_an_empty_object_and_a_snapshot_are_replaced(filled: Path, location: str, server: S3Server, put: Put) -> None:
    put(location, b"")
    first = publish(filled, location)
    (filled / "more").write_text("more")
    second = publish(filled, location)
    assert (first.num_files, second.num_files) == (1, 2)
    assert first.notes == second.notes == ()


def test_what_is_at_a_key_costs_one_request(
    filled: Path,
    location: str,
    moto: Moto,
    sent: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moto.use(monkeypatch)
    for options, asked in (({}, 1), ({}, 1), ({"force": True}, 0)):
        sent.clear()
        publish(filled, location, **options)
        assert sent.count(("GET", "")) == asked
        assert sent[:asked] == [("GET", "")] * asked
    sent.clear()
    plan_pack([str(filled)], PackOptions(network=at_once()), location)
    assert sent == [("GET", "")]


@pytest.mark.parametrize("dry", [(), ("-n",)], ids=["pack", "plan"])
def test_the_command_refuses_in_one_line(
    dry: tuple[str, ...], filled: Path, location: str, server: S3Server, put: Put
) -> None:
    put(location, b"precious")
    ran = cli("pack", filled, "-o", location, *dry)
    assert (ran.returncode, ran.stderr) == (2, f"dumont-gpu: {location}: {IN_THE_WAY}\n")
    assert cli("pack", filled, "-o", location, "--force", *dry).returncode == 0


@pytest.mark.parametrize("dry", [False, True], ids=["pack", "plan"])
def test_a_bucket_that_is_not_there_is_said_before_anything_is_packed(
    dry: bool, filled: Path, server: S3Server
) -> None:
    with pytest.raises(SnapshotNotFoundError, match="s3://nosuch/x: no such bucket"):
        if dry:
            plan_pack([str(filled)], PackOptions(network=at_once()), "s3://nosuch/x")
        else:
            publish(filled, "s3://nosuch/x")


# --- answers that servers give, scripted ------------------------------------------------------------------------------


@pytest.fixture
def strange(fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> FaultServer:
    """A server that tests script; objects hold `data`."""
    pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
    for name, value in s3_environment(fault_server.server_address[1]).items():
        monkeypatch.setenv(name, value)
    return fault_server


def at_the_key(request: Request) -> bool:
    return request.method == "GET" and request.path.partition("?")[0] == "/bucket/x" and "uploadId" not in request.path


def answering(fault: Fault) -> Callable[[Request], Fault]:
    """Answers requests for the object at the key with `fault`; uploads work."""

    def script(request: Request) -> Fault:
        if at_the_key(request):
            return fault
        if request.method == "PUT":
            return status(200, ETag='"part"')
        if request.method == "POST":
            return status(200, b"<UploadId>a</UploadId>" if "uploads=" in request.path else b"<Done/>")
        return taken_away(request)

    return script


def test_whoever_may_write_and_not_read_is_told_so_once(filled: Path, strange: FaultServer) -> None:
    strange.script = answering(status(403, DENIED))
    result = publish(filled, "s3://bucket/x")
    assert len(result.notes) == 1
    assert "what is at the key is replaced, whatever it is, as it could not be looked at" in result.notes[0]
    assert "403" in result.notes[0]
    said: list[Notice] = []
    plan_pack([str(filled)], PackOptions(network=at_once(notice=said.append)), "s3://bucket/x")
    assert [notice.text for notice in said] == list(result.notes)
    ran = cli("pack", filled, "-o", "s3://bucket/x", "--json", "--progress", "none")
    assert json.loads(ran.stdout.splitlines()[-1])["notes"] == list(result.notes)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidObjectState"])
def test_another_403_is_an_error(code: str, filled: Path, strange: FaultServer) -> None:
    strange.script = answering(status(403, f"<Error><Code>{code}</Code></Error>".encode()))
    with pytest.raises(DumontError, match=code):
        publish(filled, "s3://bucket/x")
    assert {request.method for request in strange.requests} == {"GET"}


def test_a_server_that_does_not_answer_for_now_is_asked_again(filled: Path, strange: FaultServer) -> None:
    strange.data = b"precious"
    strange.script = lambda request: status(503) if request.number < 2 else whole_file
    with pytest.raises(UsageError, match="is no snapshot"):
        publish(filled, "s3://bucket/x")
    assert len(strange.requests) == 3


def test_a_server_that_never_answers_is_a_matter_of_the_network(filled: Path, strange: FaultServer) -> None:
    strange.script = lambda request: status(503)
    options = PackOptions(network=at_once(retry=RetryPolicy(patience=0)))
    for attempt in (
        lambda: pack([str(filled)], "s3://bucket/x", options),
        lambda: plan_pack([str(filled)], options, "s3://bucket/x"),
        lambda: open_sink("s3://bucket/x", options.network),
    ):
        with pytest.raises(NetworkError, match="^s3://bucket/x: the server answers 503") as caught:
            attempt()
        assert not isinstance(caught.value, GaveUpError) or caught.value.exit_code == 5


def test_only_the_beginning_of_a_large_object_is_read(filled: Path, strange: FaultServer) -> None:
    """The server knows no ranges, and never ends its answer."""

    def endless(answer: Any) -> None:
        answer.head(200, Content_Length=str(1 << 40))
        answer.wfile.write(b"precious" * 1000)
        answer.wfile.flush()
        strange.released.wait(30)
        answer.drop()

    strange.script = answering(endless)
    with pytest.raises(UsageError, match="is no snapshot"):
        publish(filled, "s3://bucket/x")


# --- timeouts ---------------------------------------------------------------------------------------------------------


def silent(answer: Any) -> None:
    answer.server.released.wait(30)
    answer.drop()


def test_a_kept_connection_that_has_gone_silent_is_waited_for_once(filled: Path, strange: FaultServer) -> None:
    """The previous request proved that the connection works: a new connection at once would double the wait."""

    def script(request: Request) -> Fault:
        return silent if request.method == "POST" else answering(status(404))(request)

    strange.script = script
    with pytest.raises(NetworkError, match="the server has gone silent"):
        open_sink("s3://bucket/x", at_once(read_timeout=0.3, retry=RetryPolicy(patience=0)))
    assert [request.method for request in strange.requests] == ["GET", "GET", "POST"]


@pytest.mark.parametrize(
    ("size", "patience", "timeout"), [(0, 300.0, 10.0), (3200 * MiB, 300.0, 110.0), (3200 * MiB, 60.0, 70.0)]
)
def test_a_completion_may_take_as_long_as_copying_the_parts(
    size: int, patience: float, timeout: float, strange: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait in vain counts as silence, from beginning to end."""
    waited: list[float] = []
    after = Attempts.after

    def silent(self: S3Requests, method: str, query: str, content: Any, connection: RangeConnection) -> Any:
        waited.append(connection.read_timeout)
        raise TransientError("the server has gone silent", timed_out=True)

    def once(self: Attempts, error: TransientError, received: int = 0) -> float:
        after(self, error, received)
        raise NetworkError(f"silent for {patience - self._patience.left_after(error):.0f} s")

    options = at_once(retry=RetryPolicy(patience=patience))
    known = options.patience("s3://bucket/x")
    known.heard()
    options.clock.now += 50  # type: ignore[attr-defined]
    requests = S3Requests(ObjectSigner("s3://bucket/x"), options, known, tls_context(), threading.Event())
    monkeypatch.setattr(S3Requests, "_attempt", silent)
    monkeypatch.setattr(Attempts, "after", once)
    with pytest.raises(NetworkError, match=f"silent for {min(50, timeout):.0f} s"):
        requests.complete("a", {1: Part(1, size, '"etag"')}, memoryview(b""))
    assert waited == [timeout]
