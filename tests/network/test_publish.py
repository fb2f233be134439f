"""Publishing to S3: whole or not at all, the part with the header last, and read back."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import PROGRAM, cli
from support.servers import Fault, FaultServer, Moto, Rclone, Request, at_once, s3_environment, status
from support.snapshots import assert_same_tree, pack_tree

from dumont_gpu.errors import DumontError, NetworkError, SnapshotNotFoundError, UnsupportedError, UsageError
from dumont_gpu.jobs.options import PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.reader import reader_source
from dumont_gpu.sizes import GiB, MiB
from dumont_gpu.storage import open_sink, open_source
from dumont_gpu.storage.http_range import RangeConnection
from dumont_gpu.storage.retry import TransientError
from dumont_gpu.storage.s3_parts import PartSize, SentParts

AT_ONCE = at_once()
PART = 8 * MiB


@pytest.fixture
def workspace(source: Path) -> Path:
    """Incompressible bytes for a little over three parts, and a compressible file."""
    (source / "weights").write_bytes(os.urandom(3 * PART + 12345))
    (source / "text").write_text("some words\n" * 1000)
    return source


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Method and query, without the signature, of every request, in the order in which they were answered."""
    found: list[tuple[str, str]] = []
    request = RangeConnection.request

    def recording(self: RangeConnection, method: str, address: Any, *rest: Any) -> http.client.HTTPResponse:
        answer = request(self, method, address, *rest)
        found.append((method, re.sub(r"uploadId=[^&]*", "uploadId", re.sub(r"&x-path.*|^X-Amz-.*", "", address.query))))
        return answer

    monkeypatch.setattr(RangeConnection, "request", recording)
    yield found


def test_a_published_snapshot_is_what_a_local_one_is(
    workspace: Path, snapshot: Path, target: Path, s3: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    location = "s3://bucket/dir/work space ü.dumont"
    published = pack([str(workspace)], location, PackOptions(jobs=1))
    local = pack_tree(workspace, snapshot, jobs=1)
    assert (published.snapshot_id, published.compressed_size) == (local.snapshot_id, local.compressed_size)
    assert s3.ask("GET", "/bucket/dir/work%20space%20%C3%BC.dumont") == snapshot.read_bytes()
    assert verify(location, VerifyOptions(content=True)).snapshot_id == local.snapshot_id
    restore(location, str(target), RestoreOptions(sync=False))
    assert_same_tree(workspace, target)
    assert b"<Upload>" not in s3.uploads


def test_the_part_with_the_header_goes_last(workspace: Path, s3: Moto, sent: list[tuple[str, str]]) -> None:
    pack([str(workspace)], "s3://bucket/order.dumont")
    assert [method for method, _ in sent[:2]] == ["GET", "GET"]  # the object, and its unfinished uploads
    assert sent[2] == ("POST", "uploads=")
    assert sorted(sent[3:-2]) == [("PUT", f"partNumber={number}&uploadId") for number in (2, 3, 4)]
    assert sent[-2:] == [("PUT", "partNumber=1&uploadId"), ("POST", "uploadId")]


def test_a_small_snapshot_is_one_part(source: Path, s3: Moto, sent: list[tuple[str, str]]) -> None:
    (source / "file").write_text("content")
    pack([str(source)], "s3://bucket/small.dumont")
    assert [query for method, query in sent if method != "GET"] == ["uploads=", "partNumber=1&uploadId", "uploadId"]
    assert verify("s3://bucket/small.dumont").num_files == 1


def test_a_failed_pack_leaves_the_old_snapshot_and_no_parts(
    workspace: Path, source: Path, s3: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = "s3://bucket/kept.dumont"
    before = pack([str(source)], location).snapshot_id
    (source / "new").write_bytes(b"new")
    put = SentParts.put

    def failing(self: SentParts, number: int, *rest: Any) -> None:
        if number == 3:
            raise NetworkError("the network is gone")
        put(self, number, *rest)

    monkeypatch.setattr(SentParts, "put", failing)
    with pytest.raises(NetworkError, match=f"{location}: the network is gone"):
        pack([str(source)], location)
    assert b"<Upload>" not in s3.uploads
    assert verify(location).snapshot_id == before


def test_a_signal_ends_an_upload_that_waits(
    workspace: Path, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server accepts no part; the command is stopped, and does not wait for the server."""
    pytest.importorskip("obstore")
    (workspace / "more").write_bytes(os.urandom(8 * PART))  # more bytes than the pack holds in memory
    asked = threading.Semaphore(0)

    def silent(answer: Any) -> None:
        asked.release()
        fault_server.released.wait(50)
        answer.drop()

    def script(request: Request) -> Fault:
        if request.method == "PUT":
            return silent
        return status(200, b"<UploadId>1</UploadId>") if request.method == "POST" else taken_away(request)

    fault_server.script = script
    command = [PROGRAM, "pack", str(workspace), "-o", "s3://bucket/x"]
    environment = {**os.environ, **s3_environment(fault_server.server_address[1])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for _ in range(4):
            assert asked.acquire(timeout=30)
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 130
        assert process.stderr and process.stderr.read() == "dumont-gpu: stopped\n"
    assert [request.method for request in fault_server.requests[-2:]] == ["DELETE", "GET"]


def taken_away(request: Request) -> Fault:
    """The answer of a server that deletes uploads at once."""
    return status(204 if request.method == "DELETE" else 404)


def test_a_part_that_fails_is_sent_again(workspace: Path, s3: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([TransientError("the connection broke"), TransientError("busy", busy=True)])
    request = RangeConnection.request

    def flaky(self: RangeConnection, method: str, *rest: Any) -> http.client.HTTPResponse:
        if method == "PUT" and (failure := next(failures, None)):
            raise failure
        return request(self, method, *rest)

    monkeypatch.setattr(RangeConnection, "request", flaky)
    pack([str(workspace)], "s3://bucket/again.dumont")
    assert verify("s3://bucket/again.dumont", VerifyOptions(content=True)).num_files == 2


def test_a_snapshot_that_is_replaced_while_it_is_read_is_noticed(workspace: Path, source: Path, s3: Moto) -> None:
    location = "s3://bucket/replaced.dumont"
    pack([str(source)], location)
    opened = open_source(location, AT_ONCE)
    (source / "new").write_bytes(b"new")
    pack([str(source)], location)
    with pytest.raises(DumontError, match="changed on the server"):
        opened.read_into(1 * MiB, memoryview(bytearray(1000)))
    opened.close()


@pytest.mark.parametrize("first", [0, 100, PART - 1, PART, PART + 1, 2 * PART + 5])
def test_what_lies_before_the_first_write_may_come_at_the_end(first: int, s3: Moto) -> None:
    body, head = os.urandom(PART + 100), os.urandom(first)
    sink = open_sink("s3://bucket/sink", AT_ONCE, force=True)
    assert sink.parts is not None
    sink.parts.fit(len(head) + len(body) + 50)
    sink.write_at(first, memoryview(body[: PART - 7]))
    sink.write_at(first + PART - 7 + 30, memoryview(body[PART - 7 :]))  # a gap of 30
    sink.write_at(0, memoryview(head))
    sink.commit(first + len(body) + 50)
    sink.abort()
    expected = head + body[: PART - 7] + bytes(30) + body[PART - 7 :] + bytes(20)
    assert s3.ask("GET", "/bucket/sink") == expected


def test_parts_grow_with_the_snapshot() -> None:
    for size, part in [(1, 8 * MiB), (70 * GiB, 8 * MiB), (5 << 40, 583 * MiB)]:
        parts = PartSize()
        parts.fit(size)
        assert parts.bytes == part
        assert size / part < 10_000


# --- a server that checks signatures ----------------------------------------------------------------------------------


def test_signatures_hold(
    workspace: Path, rclone: Rclone, monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, str]]
) -> None:
    rclone.use(monkeypatch)
    result = pack([str(workspace)], "s3://bucket/dir/x y+.dumont")
    assert ("PUT", "partNumber=4&uploadId") in sent
    assert verify(str(rclone.bucket / "dir/x y+.dumont")).snapshot_id == result.snapshot_id
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(DumontError, match="403"):
        pack([str(workspace)], "s3://bucket/dir/y.dumont")


def test_a_server_without_ranges_is_named(rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> None:
    rclone.use(monkeypatch)
    (rclone.bucket / "x").write_bytes(b"DUMONT02" + bytes(100_000))
    with pytest.raises(UnsupportedError, match="s3://bucket/x: the server sends whole files only"):
        open_source("s3://bucket/x")


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://bucket/dir/", "gs://bucket"]
)
def test_a_location_without_an_object_is_refused(location: str) -> None:
    pytest.importorskip("obstore")
    for attempt in (open_source, open_sink) if location.startswith("s3") else (open_source,):
        with pytest.raises(UsageError, match="name a bucket and an object"):
            attempt(location)


def test_what_is_not_there_is_not_found(source: Path, s3: Moto) -> None:
    for location in ("s3://bucket/nothing", "s3://nothing/x"):
        with pytest.raises(SnapshotNotFoundError, match=f"{location}: no such"):
            open_source(location)
    with pytest.raises(SnapshotNotFoundError, match="no such bucket"):
        pack([str(source)], "s3://nothing/x")


def test_other_settings_of_the_environment_are_obeyed_or_refused(
    source: Path, s3: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    pack([str(source)], "s3://bucket/settings.dumont")
    assert verify("s3://bucket/settings.dumont").num_files == 0
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
    with pytest.raises(UnsupportedError, match="AWS_SERVER_SIDE_ENCRYPTION"):
        pack([str(source)], "s3://bucket/settings.dumont")


def test_public_buckets_need_no_credentials(source: Path, s3: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    pack([str(source)], "s3://bucket/public.dumont")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert verify("s3://bucket/public.dumont").num_files == 0


def test_missing_credentials_are_named(s3: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DumontError, match="no credentials for S3: .*missing: AWS_SECRET_ACCESS_KEY") as caught:
        open_source("s3://bucket/x")
    assert "\n" not in str(caught.value)


def test_without_the_extra_one_line_says_what_to_install(source: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/obstore.py").write_text("raise ImportError")
    for command in (["info", "gs://bucket/x"], ["pack", source, "-o", "s3://bucket/x"]):
        ran = cli(*command, PYTHONPATH=str(tmp_path / "hidden"))
        assert (ran.returncode, len(ran.stderr.splitlines())) == (8, 1)
        assert 'pip install "dumont-gpu[s3]"' in ran.stderr


@pytest.mark.parametrize(
    ("begun", "completed", "said"),
    [
        (
            b"<UploadId>1</UploadId>",
            b"<Error>\n<Code>InvalidPart</Code></Error>",
            "does not complete the upload .InvalidPart",
        ),
        (b"what?", b"", "does not begin an upload"),
    ],
)
def test_a_server_that_does_not_do_it_is_an_error(
    begun: bytes,
    completed: bytes,
    said: str,
    source: Path,
    fault_server: FaultServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A completion that fails may do so under status 200."""
    pytest.importorskip("obstore")
    for name, value in s3_environment(fault_server.server_address[1]).items():
        monkeypatch.setenv(name, value)

    def script(request: Request) -> Fault:
        if request.method == "POST":
            return status(200, begun if "uploads=" in request.path else completed)
        return status(200, ETag="part") if request.method == "PUT" else taken_away(request)

    fault_server.script = script
    with pytest.raises(DumontError, match=f"s3://bucket/x: .*{said}"):
        pack([str(source)], "s3://bucket/x")
    methods = [request.method for request in fault_server.requests]
    assert methods[-2:] == (["DELETE", "GET"] if completed else ["GET", "POST"])


def test_the_reader_is_published_beside_the_snapshot(workspace: Path, s3: Moto) -> None:
    options, beside = PackOptions(with_reader=True, exclude=("weights",)), "/bucket/dir/dumont_reader.py"
    for _ in range(2):  # a reader that is there is replaced
        pack([str(workspace)], "s3://bucket/dir/x.dumont", options)
        assert s3.ask("GET", beside) == reader_source()
    connection = http.client.HTTPConnection("127.0.0.1", s3.port, timeout=10)
    connection.request("PUT", beside, b"mine")
    connection.getresponse().read()
    connection.close()
    with pytest.raises(UsageError, match=r"dumont_reader\.py: is there already, and is no reader"):
        pack([str(workspace)], "s3://bucket/dir/y.dumont", options)
    assert open_source("s3://bucket/dir/dumont_reader.py", options.network).size == len(b"mine")
    with pytest.raises(SnapshotNotFoundError):
        open_source("s3://bucket/dir/y.dumont", options.network)
