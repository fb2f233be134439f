"""A publish to S3 that ended early: which parts stay, for whom, and how the same job goes on with them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import PROGRAM, cli
from support.places import s3_requests
from support.servers import (
    Fault,
    FaultServer,
    Moto,
    Rclone,
    Request,
    S3Server,
    at_once,
    s3_environment,
    status,
    truncated,
)
from support.snapshots import pack_tree
from test_publish import PART, taken_away

from dumont_gpu.buffers import Buffer, BufferPool, ClosedError, Window, with_buffers
from dumont_gpu.errors import DumontError, GaveUpError, NetworkError, UsageError, left_behind
from dumont_gpu.jobs.options import PackOptions, VerifyOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.pack_stages import PackStages
from dumont_gpu.jobs.verify import verify
from dumont_gpu.pipeline import Pipeline, in_turn
from dumont_gpu.progress import Notice
from dumont_gpu.sizes import MiB
from dumont_gpu.storage import open_sink, open_source
from dumont_gpu.storage.retry import TransientError
from dumont_gpu.storage.s3_requests import Part, S3Requests, Upload
from dumont_gpu.storage.upload_state import hold

PARTS = 5  # of the workspace, plus the part that begins with the header


@pytest.fixture
def workspace(source: Path) -> Path:
    """An incompressible and a compressible file."""
    (source / "weights").write_bytes(random.Random(3).randbytes(PARTS * PART + 1_000_000))
    (source / "text").write_text("some words\n" * 1000)
    return source


@pytest.fixture
def s3(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    moto.use(monkeypatch)
    return moto


@pytest.fixture
def location(request: pytest.FixtureRequest) -> str:
    """An object of this test's own."""
    return f"s3://bucket/again/{re.sub('[^a-z0-9]', '-', request.node.name)}"


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of the parts that arrived."""
    numbers: list[int] = []
    send = S3Requests.put

    def recording(self: S3Requests, upload_id: str, number: int, *rest: Any) -> Part:
        part = send(self, upload_id, number, *rest)
        numbers.append(number)
        return part

    monkeypatch.setattr(S3Requests, "put", recording)
    yield numbers


class Uploads:
    """The uploads at a server that are neither completed nor aborted."""

    def __init__(self, location: str) -> None:
        self.requests = s3_requests(location)

    def __call__(self) -> list[str]:
        return [upload.id for upload in self.requests.uploads()]


def stop_at(number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets part `number` fail after all earlier parts arrived; returns a function that ends the failures."""
    send, before, over = S3Requests.put, threading.Semaphore(0), threading.Event()

    def failing(self: S3Requests, upload_id: str, part: int, *rest: Any) -> Part:
        if part == number:
            for _ in range(number - 2):  # part 1 comes last
                assert before.acquire(timeout=30)
            over.set()
            raise error
        if part > number:
            assert over.wait(30)
            raise error
        sent = send(self, upload_id, part, *rest)
        before.release()
        return sent

    monkeypatch.setattr(S3Requests, "put", failing)
    return lambda: monkeypatch.setattr(S3Requests, "put", send)


def publish(workspace: Path, location: str, said: list[Notice] | None = None, **options: Any) -> None:
    notice = (said if said is not None else []).append
    pack([str(workspace)], location, PackOptions(network=at_once(notice=notice, **options)))


def stopped(workspace: Path, location: str, error: BaseException, at: int, patch: pytest.MonkeyPatch) -> BaseException:
    """Publishes until part number `at` fails; returns the error raised."""
    mend = stop_at(at, error, patch)
    with pytest.raises(DumontError if isinstance(error, MemoryError) else type(error)) as caught:
        publish(workspace, location)
    mend()
    return caught.value


# --- going on ---------------------------------------------------------------------------------------------------------


def test_the_same_job_goes_on_after_the_network_gave_up(
    workspace: Path,
    location: str,
    server: S3Server,
    state: Path,
    put: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)
    left = left_behind(error)
    assert left is not None
    assert left.goes_on
    assert left.facts["size"] == 2 * PART
    assert (left.facts["bucket"], left.facts["key"]) == ("bucket", location.removeprefix("s3://bucket/"))
    assert str(left.facts["upload_id"]) in left.text
    assert put == [2, 3] or put == [3, 2]
    put.clear()
    said: list[Notice] = []
    publish(workspace, location, said)
    assert sorted(put) == [1, 4, 5, 6]
    assert [event.text.partition(":")[0] for event in said[:1]] == ["goes on with an upload that was not finished"]
    assert said[-1].facts["reused"] == 2 * PART
    assert verify_there(location, server, put).num_files == 2
    assert Uploads(location)() == []
    assert not list(state.iterdir())


def verify_there(location: str, server: S3Server, put: list[int]) -> Any:
    """rclone sends no ranges: its file is read."""
    bucket = getattr(server, "bucket", None)
    return verify(
        str(bucket / location.removeprefix("s3://bucket/")) if bucket else location, VerifyOptions(content=True)
    )


KILLED_AT_PART = """
import os, signal, sys
from dumont_gpu.storage.s3_requests import S3Requests
from dumont_gpu.cli.main import app
from dumont_gpu.cli.endings import run
send, number = S3Requests.put, int(sys.argv.pop(1))
def put(self, upload_id, part, *rest):
    sent = send(self, upload_id, part, *rest)
    if part == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return sent
S3Requests.put = put
run(app)
"""


KILLED_AT_BEGIN = """
import os, signal
from dumont_gpu.storage.s3_requests import S3Requests
from dumont_gpu.cli.main import app
from dumont_gpu.cli.endings import run
begin = S3Requests.begin
def killed(self):
    begin(self)
    os.kill(os.getpid(), signal.SIGKILL)
S3Requests.begin = killed
run(app)
"""


@pytest.mark.parametrize("part", [2, 4, 6, 1])
def test_a_killed_publish_goes_on(
    part: int, workspace: Path, location: str, server: S3Server, state: Path, put: list[int]
) -> None:
    command = [sys.executable, "-c", KILLED_AT_PART, str(part), "pack", str(workspace), "-o", location]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert len(list(state.iterdir())) == 1
    if part == 1 and isinstance(server, Rclone):  # rclone replaces no part, so header and manifest cannot be sent
        with pytest.raises(DumontError, match="the same command begins anew"):
            publish(workspace, location)
        assert Uploads(location)() == []
    publish(workspace, location)
    assert part not in put or part in (1, 6)  # header and manifest hold the time
    assert verify_there(location, server, put).num_files == 2
    assert Uploads(location)() == []


def test_an_upload_that_began_and_was_not_remembered_is_used(
    workspace: Path, location: str, server: S3Server, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes after the server's answer, and before the upload's id is recorded."""
    ran = subprocess.run([sys.executable, "-c", KILLED_AT_BEGIN, "pack", str(workspace), "-o", location], timeout=60)
    assert ran.returncode == -signal.SIGKILL
    left = Uploads(location)()
    assert len(left) == 1
    assert len(list(state.iterdir())) == 1
    said: list[Notice] = []
    publish(workspace, location, said)
    assert said == []
    assert Uploads(location)() == []
    assert not list(state.iterdir())


@pytest.mark.parametrize(("seconds", "used"), [(-30, False), (0, True), (5, True), (600, False)])
def test_an_empty_upload_that_began_at_another_time_is_left_alone(
    seconds: int, used: bool, workspace: Path, location: str, s3: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seconds` after the record says that an upload is about to begin."""
    requests, intended = Uploads(location).requests, 1_800_000_000.0
    other = requests.begin()
    held = hold(place_of(location))
    assert held is not None
    held.intend(place_of(location), intended)
    held.close()
    said: list[Notice] = []
    with monkeypatch.context() as patch:
        patch.setattr(S3Requests, "uploads", lambda self: [Upload(other, intended + seconds)])
        patch.setattr(S3Requests, "server_time", property(lambda self: intended + 700, lambda self, now: None), False)
        publish(workspace, location, said)
    assert [event.text.partition(":")[0] for event in said] == (
        [] if used else ["another upload of this object is not finished, and left alone"]
    )
    assert Uploads(location)() == ([] if used else [other])


def test_parts_that_differ_are_sent_again(
    workspace: Path, location: str, s3: Moto, put: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(workspace, location, GaveUpError("gone"), 5, monkeypatch)
    content = bytearray((workspace / "weights").read_bytes())
    content[PART + PART // 2] ^= 1  # in part 2
    (workspace / "weights").write_bytes(content)
    put.clear()
    publish(workspace, location)
    assert sorted(put) in ([1, 2, 5, 6], [1, 3, 5, 6])
    assert verify(location, VerifyOptions(content=True)).num_files == 2


def test_a_server_whose_etags_are_no_digests_gets_all_parts_again(
    workspace: Path, location: str, s3: Moto, put: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)
    parts = S3Requests.parts

    def opaque(self: S3Requests, upload_id: str) -> dict[int, Part]:
        found = parts(self, upload_id)
        return {number: Part(number, part.size, f'"{"0" * 32}"') for number, part in found.items()}

    monkeypatch.setattr(S3Requests, "parts", opaque)
    put.clear()
    publish(workspace, location)
    assert sorted(put) == [1, 2, 3, 4, 5, 6]
    assert verify(location, VerifyOptions(content=True)).num_files == 2


def test_an_upload_that_somebody_ended_is_begun_anew(
    workspace: Path, location: str, server: S3Server, put: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)
    uploads = Uploads(location)
    assert uploads.requests.abort(uploads()[0])
    assert uploads() == []
    put.clear()
    publish(workspace, location)
    assert sorted(put) == [1, 2, 3, 4, 5, 6]
    assert verify_there(location, server, put).num_files == 2


def test_the_same_tree_gives_the_same_parts_whatever_the_threads_do(
    source: Path, snapshot: Path, location: str, s3: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of every two chunks is encoded before the first. Six are under way, so three of four threads wait."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (source / "weights").write_bytes(random.Random(5).randbytes(10 * MiB))
    pack_tree(source, snapshot, jobs=1, chunk_size=MiB)
    encode, done = PackStages._encode, [threading.Event() for _ in range(11)]

    def late(self: Any, item: Any) -> Any:
        turn = item[0].planned.turn
        if turn % 2 == 0 and turn < 9:
            assert done[turn + 1].wait(30)
        result = encode(self, item)
        done[turn].set()
        return result

    monkeypatch.setattr(PackStages, "_encode", late)
    published = pack([str(source)], location, PackOptions(jobs=4, chunk_size=MiB, network=at_once()))
    assert published.num_chunks == 10
    assert s3.ask("GET", location.removeprefix("s3:/")) == snapshot.read_bytes()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_items_that_wait_for_their_turn_leave_a_buffer_to_the_first(size: int) -> None:
    """The first item comes late from the first stage; without a window, later items would take all buffers before."""
    window, first, second = Window(size), BufferPool(size, 4096), BufferPool(size, 4096)
    pipeline = Pipeline(first, second, window)
    passed = [threading.Event() for _ in range(20)]
    written: list[int] = []

    def admitted() -> Iterator[int]:
        for number in range(20):
            window.enter()
            yield number

    def read(item: tuple[int, Buffer]) -> tuple[int, Buffer]:
        if item[0] == 0:
            passed[size].wait(0.3)  # in vain: the window admits fewer items
        return item

    def encode(item: tuple[tuple[int, Buffer], Buffer]) -> tuple[int, Buffer]:
        (number, buffer), spare = item
        buffer.release()
        passed[number].set()
        return number, spare

    def write(item: tuple[int, Buffer]) -> None:
        written.append(item[0])
        item[1].release()
        window.leave()

    done = pipeline.stage("read", read, with_buffers(admitted(), first), threads=2)
    encoded = pipeline.stage("encode", encode, with_buffers(done, second), threads=2)
    pipeline.stage("write", write, in_turn(encoded, lambda item: item[0]))
    guard = threading.Timer(30, lambda: [pool.close() for pool in (first, second, window)])  # to fail, not to hang
    guard.start()
    pipeline.run()
    guard.cancel()
    assert written == list(range(20))


def test_a_closed_window_wakes_who_waits_at_it() -> None:
    window = Window(0)
    closing = threading.Timer(0.01, window.close)
    closing.start()
    with pytest.raises(ClosedError):
        window.enter()
    closing.join()


# --- owners of uploads ------------------------------------------------------------------------------------------------


def place_of(location: str) -> str:
    return f"{os.environ['AWS_ENDPOINT_URL']}/{location.removeprefix('s3://')}"


def test_an_upload_that_another_process_is_at_is_left_alone(
    workspace: Path, location: str, s3: Moto, put: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)
    other = hold(place_of(location))
    assert other is not None
    assert other.upload_id
    put.clear()
    said: list[Notice] = []
    publish(workspace, location, said)
    assert sorted(put) == [1, 2, 3, 4, 5, 6]
    assert [event.text for event in said] == [
        f"another upload of this object is not finished, and left alone: upload id {other.upload_id}"
    ]
    assert Uploads(location)() == [other.upload_id]
    stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)  # nobody would find the upload again: aborted
    assert Uploads(location)() == [other.upload_id]
    other.close()
    publish(workspace, location)
    assert Uploads(location)() == []


@pytest.mark.parametrize(("hours", "goes_on"), [(0, False), (23, False), (25, True)])
def test_an_upload_of_nobody_is_taken_over_after_a_day_without_a_part(
    hours: int,
    goes_on: bool,
    workspace: Path,
    location: str,
    s3: Moto,
    state: Path,
    put: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the server's clock: another machine began the upload, or the record is lost."""
    stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)
    for record in state.iterdir():
        record.unlink()
    note = S3Requests._note_time

    def later(self: S3Requests, response: Any) -> None:
        note(self, response)
        self.server_time += hours * 3600

    monkeypatch.setattr(S3Requests, "_note_time", later)
    put.clear()
    said: list[Notice] = []
    publish(workspace, location, said)
    assert (sorted(put) == [1, 4, 5, 6]) is goes_on
    assert ("left alone" in said[0].text) is not goes_on
    assert verify(location, VerifyOptions(content=True)).num_files == 2
    assert (Uploads(location)() == []) is goes_on


def test_who_may_not_list_uploads_may_publish(
    workspace: Path, location: str, s3: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: S3Requests) -> None:
        raise NetworkError("the server answers 403")

    monkeypatch.setattr(S3Requests, "uploads", denied)
    publish(workspace, location)
    assert verify(location).num_files == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"upload_id": 5}', b'{"intended": "x"}', b'{"upload_id": "a b\\n"}', b"\xff" * 99]
)
def test_a_record_that_makes_no_sense_is_none(
    content: bytes, workspace: Path, location: str, s3: Moto, state: Path
) -> None:
    held = hold(place_of(location))
    assert held is not None
    held.close()
    next(iter(state.iterdir())).write_bytes(content)
    publish(workspace, location)
    assert verify(location).num_files == 2
    assert not list(state.iterdir())


def test_without_a_place_for_records_nothing_is_kept(
    workspace: Path, location: str, s3: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    error = stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)
    assert left_behind(error) is None
    assert Uploads(location)() == []
    publish(workspace, location)
    assert verify(location).num_files == 2


# --- uploads that are kept or aborted ---------------------------------------------------------------------------------


class Signal(BaseException):
    """Raised by a signal."""


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (GaveUpError("gone"), True),
        (Signal(), True),
        (MemoryError(), True),
        (NetworkError("the server answers 403"), False),
        (DumontError("this is a defect"), False),
    ],
)
def test_what_is_kept_depends_on_whether_the_same_job_may_end_well(
    error: BaseException, kept: bool, workspace: Path, location: str, s3: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = stopped(workspace, location, error, 4, monkeypatch)
    assert (len(Uploads(location)()) == 1) is kept
    assert (left_behind(caught) is not None) is kept


def test_a_signal_before_the_first_part_leaves_nothing(
    workspace: Path, location: str, server: S3Server, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = stopped(workspace, location, Signal(), 2, monkeypatch)
    assert left_behind(caught) is None
    assert Uploads(location)() == []
    assert not list(state.iterdir())


def test_discard_keeps_nothing_now_or_from_before(
    workspace: Path, location: str, s3: Moto, put: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(workspace, location, GaveUpError("gone"), 4, monkeypatch)
    put.clear()
    said: list[Notice] = []
    mend = stop_at(5, Signal(), monkeypatch)
    with pytest.raises(Signal) as caught:
        publish(workspace, location, said, discard=True)
    mend()
    assert "was taken away: upload id" in said[0].text
    assert left_behind(caught.value) is None
    assert Uploads(location)() == []


@pytest.fixture
def strange(fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> FaultServer:
    """A server that tests script."""
    pytest.importorskip("obstore")
    for name, value in s3_environment(fault_server.server_address[1]).items():
        monkeypatch.setenv(name, value)
    return fault_server


def begun(request: Request) -> Fault:
    return status(200, b"<UploadId>a+b</UploadId>") if "uploads=" in request.path else status(404)


def test_an_abort_is_tried_again_and_confirmed(workspace: Path, strange: FaultServer, state: Path) -> None:
    deletes = 0

    def script(request: Request) -> Fault:
        nonlocal deletes
        if request.method == "PUT":
            return status(403)
        if request.method == "DELETE":
            deletes += 1
            return (status(500), truncated(0), status(204), status(204))[deletes - 1]
        if request.method == "GET" and "uploadId=" in request.path:
            return status(200 if deletes < 4 else 404)  # a part arrived after the first abort
        return begun(request)

    strange.script = script
    with pytest.raises(DumontError, match="403") as caught:
        publish(workspace, "s3://bucket/x")
    assert left_behind(caught.value) is None
    assert deletes == 4
    assert "uploadId=a%2Bb" in strange.requests[-1].path
    assert not list(state.iterdir())


def test_an_upload_that_cannot_be_taken_away_is_named_and_remembered(
    workspace: Path, strange: FaultServer, state: Path
) -> None:
    def script(request: Request) -> Fault:
        if request.method in ("PUT", "DELETE"):
            return status(403 if request.method == "PUT" else 500)
        return begun(request)

    strange.script = script
    with pytest.raises(DumontError) as caught:
        publish(workspace, "s3://bucket/dir/x")
    left = left_behind(caught.value)
    assert left is not None
    assert left.facts == {"bucket": "bucket", "key": "dir/x", "upload_id": "a+b"}
    assert "bucket bucket, key dir/x, upload id a+b" in left.text
    assert not left.goes_on
    assert len(list(state.iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [(), ("--json",), ("--discard",)])
def test_a_signal_keeps_the_parts_and_says_so(
    options: tuple[str, ...], number: int, workspace: Path, strange: FaultServer
) -> None:
    """Two parts arrive, and the four threads wait with other parts."""
    (workspace / "more").write_bytes(random.Random(4).randbytes(2 * PART))
    arrived, asked, listed = 0, threading.Semaphore(0), b""

    def silent(answer: Any) -> None:
        asked.release()
        strange.released.wait(50)
        answer.drop()

    def script(request: Request) -> Fault:
        nonlocal arrived
        if request.method == "PUT":
            arrived += 1
            return status(200, ETag='"part"') if arrived <= 2 else silent
        if request.method == "GET" and "uploadId=" in request.path:
            return status(200, listed) if listed else status(404)
        return begun(request) if request.method == "POST" else taken_away(request)

    strange.script = script
    command = [PROGRAM, "pack", str(workspace), "-o", "s3://bucket/x", "--progress", "none", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            assert asked.acquire(timeout=30)
        process.send_signal(number)
        assert process.wait(40) == 128 + number
        assert process.stderr is not None
        said = process.stderr.read()
    assert len(said.splitlines()) == 1
    again = f"pack {workspace} -o s3://bucket/x --progress none"
    if options == ("--json",):
        record = json.loads(said)
        assert record["left"] == {
            "message": "16.0 MiB are kept at the server, to go on from: bucket bucket, key x, upload id a+b",
            "bucket": "bucket", "key": "x", "upload_id": "a+b", "size": 2 * PART, "goes_on": True,
        }  # fmt: skip
        assert record["command"].endswith(f"{again} --json")
    elif options:
        assert said == "dumont-gpu: stopped\n"
        assert [request.method for request in strange.requests[-2:]] == ["DELETE", "GET"]
    else:
        assert said.startswith("dumont-gpu: stopped; 16.0 MiB are kept at the server, to go on from: bucket bucket, ")
        assert said.endswith(f"{again}\n")
        assert all(request.method != "DELETE" for request in strange.requests)


def test_a_completion_whose_answer_was_lost_is_no_failure(
    workspace: Path, location: str, server: S3Server, put: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, lost = S3Requests._attempt, []

    def losing(self: S3Requests, method: str, query: str, *rest: Any) -> Any:
        answer = attempt(self, method, query, *rest)  # type: ignore[arg-type]
        if method == "POST" and query != "uploads=" and not lost:
            lost.append(answer)
            raise TransientError("the connection broke")
        return answer

    monkeypatch.setattr(S3Requests, "_attempt", losing)
    if hasattr(server, "bucket"):
        pytest.skip("this server sends no ranges, by which the object would be known")
    publish(workspace, location)
    assert lost
    assert verify_there(location, server, put).num_files == 2


def test_a_completion_that_failed_for_now_is_tried_again(workspace: Path, strange: FaultServer) -> None:
    completions = 0

    def script(request: Request) -> Fault:
        nonlocal completions
        if request.method == "PUT":
            return status(200, ETag='"part"')
        if request.method == "POST" and "uploads=" not in request.path:
            completions += 1
            return status(200, b"<Error><Code>InternalError</Code></Error>" if completions == 1 else b"<Done/>")
        return begun(request)

    strange.script = script
    publish(workspace, "s3://bucket/x")
    assert completions == 2


# --- keys that nobody reads alike -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("/key", "an empty name between slashes"),
        ("a//b", "an empty name between slashes"),
        ("./key", "a name that is . or .."),
        ("a/../b", "a name that is . or .."),
        ("..", "a name that is . or .."),
        ("a\nb", "a control character"),
        ("a\x7fb", "a control character"),
        ("a\x85b", "a control character"),
        ("a\udcffb", "bytes that are no UTF-8"),
        ("", "name a bucket and an object"),
        ("dir/", "name a bucket and an object"),
    ],
)
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_key_that_cannot_be_said_exactly_is_refused(scheme: str, key: str, said: str) -> None:
    for attempt in (open_source, open_sink) if scheme == "s3" else (open_source,):
        with pytest.raises(UsageError, match=re.escape(said)) as caught:
            attempt(f"{scheme}://bucket/{key}")
        assert str(caught.value).isprintable()


def test_such_a_key_replaces_nothing(workspace: Path, location: str, s3: Moto) -> None:
    before = pack([str(workspace)], location, PackOptions(network=at_once())).snapshot_id
    doubled = location.replace("/again/", "//again/")
    for command in (("pack", workspace, "-o", doubled), ("info", doubled), ("restore", doubled, workspace / "new")):
        ran = cli(*command)
        assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
        assert "an empty name between slashes" in ran.stderr
    assert verify(location).snapshot_id == before


@pytest.mark.parametrize("key", ["a b+c", "ü/ü", "a%20b", "a.b/..c/d..", "~x/(1)", "a&b=c?d#e", "a'b\"c<d>"])
def test_keys_that_look_strange_are_what_they_are(key: str, source: Path, server: S3Server) -> None:
    (source / "file").write_text("content")
    pack([str(source)], f"s3://bucket/strange/{key}", PackOptions(network=at_once()))
    bucket = getattr(server, "bucket", None)
    if bucket is not None:
        assert (bucket / "strange" / key).is_file()
    else:
        assert verify(f"s3://bucket/strange/{key}").num_files == 1
