"""How long a transfer bears silence: measured in seconds, whatever the number of its connections."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import cli
from support.servers import Fault, FaultServer, Moto, Request, WaitingTime, at_once, free_port, status, truncated
from support.snapshots import assert_same_tree, pack_tree

from dumont_gpu.cli.again import again
from dumont_gpu.cli.render import Bar, JsonLines, Lines, make_renderer
from dumont_gpu.errors import DumontError, GaveUpError, NetworkError, SnapshotNotFoundError, UsageError
from dumont_gpu.jobs.options import PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.progress import Notice
from dumont_gpu.sizes import KiB, parse_duration
from dumont_gpu.storage import NetworkOptions, open_source
from dumont_gpu.storage.http_range import RangeConnection
from dumont_gpu.storage.retry import Attempts, Patience, RetryPolicy, TransientError

GONE = TransientError("the server has gone silent")
CONTENT = random.Random(1).randbytes(3_000_000)


def highest(low: float, high: float) -> float:
    return high


@pytest.fixture
def time() -> WaitingTime:
    return WaitingTime()


@pytest.fixture
def said() -> list[Notice]:
    return []


@pytest.fixture
def patience(time: WaitingTime, said: list[Notice]) -> Patience:
    found = Patience(RetryPolicy(), "http://host/x", time, said.append)
    found.heard()
    return found


def fail(time: WaitingTime, attempts: Attempts, error: TransientError = GONE) -> None:
    """One failed attempt, and the wait before the next attempt."""
    time.now += attempts.after(error)


# --- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 4, 16, 64])
def test_patience_lasts_as_long_whatever_the_number_of_connections(
    connections: int, time: WaitingTime, patience: Patience
) -> None:
    """Simulated: each connection tries again when its delay is over, until one connection gives up."""
    began = time.now
    waiting = [(began, number, patience.attempts()) for number in range(connections)]
    with pytest.raises(GaveUpError, match="gave up after 300 s without an answer"):
        while True:
            waiting.sort(key=lambda item: item[:2])
            due, number, attempts = waiting.pop(0)
            time.now = due
            waiting.append((due + attempts.after(GONE), number, attempts))
    assert time.now - began == pytest.approx(300)


def test_anything_that_comes_renews_the_patience_of_all(time: WaitingTime, patience: Patience) -> None:
    first, second = patience.attempts(), patience.attempts()
    for _ in range(5):
        began = time.now
        while time.now - began < 290:
            fail(time, first)
            fail(time, second)
        patience.heard()
    with pytest.raises(GaveUpError):
        while True:
            fail(time, first)


def test_no_failure_is_no_silence(time: WaitingTime, patience: Patience) -> None:
    """A slow part of an upload does not count as silence."""
    time.now += 10_000
    assert patience.attempts().after(GONE) < 10


def test_a_host_that_never_answered_gets_half_a_minute(time: WaitingTime) -> None:
    patience = Patience(RetryPolicy(), "http://host/x", time)
    attempts, began = patience.attempts(), time.now
    with pytest.raises(NetworkError, match="gave up after 30 s without an answer: check the address") as caught:
        while True:
            fail(time, attempts)
    assert not isinstance(caught.value, GaveUpError)
    assert time.now - began == pytest.approx(30)


def test_an_unknown_host_is_final_until_it_was_known(time: WaitingTime) -> None:
    patience = Patience(RetryPolicy(), "http://host/x", time)
    unknown = TransientError("cannot be reached: Name or service not known", unknown_host=True)
    with pytest.raises(NetworkError, match="check the address"):
        patience.attempts().after(unknown)
    patience = Patience(RetryPolicy(), "http://host/x", time)
    patience.heard()
    assert patience.attempts().after(unknown) > 0


@pytest.mark.parametrize(("code", "final"), [(socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)])
def test_which_errors_of_a_resolver_are_final(code: int, final: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(host: str, *rest: Any, **options: Any) -> list[Any]:
        asked.append(host)
        raise socket.gaierror(code, "no")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(NetworkError, match="cannot be reached: no"):
        open_source("http://host.example/x", at_once())
    assert (len(asked) == 1) is final


def test_delays_are_drawn_between_the_first_and_three_times_the_last(patience: Patience) -> None:
    drawn = []

    def chance(low: float, high: float) -> float:
        drawn.append((low, high))
        return low + 1

    attempts = Attempts(patience, chance)
    for _ in range(3):
        attempts.after(GONE)
    assert drawn == [(0.2, pytest.approx(0.6)), (0.2, pytest.approx(3.6)), (0.2, pytest.approx(3.6))]


def test_delays_grow_to_ten_seconds_and_begin_anew_with_bytes_that_are_worth_it(patience: Patience) -> None:
    attempts = Attempts(patience, highest)
    delays = [attempts.after(GONE, received) for received in (0, 0, 0, 0, 0, 64 * KiB, 1)]
    assert delays == pytest.approx([0.6, 1.8, 5.4, 10, 10, 0.6, 1.8])


def test_retry_after_is_obeyed_within_patience(time: WaitingTime, patience: Patience) -> None:
    attempts = patience.attempts()
    assert attempts.after(TransientError("busy", retry_after=200)) == 200
    time.now += 200
    with pytest.raises(GaveUpError, match="asks to wait 101 s"):
        attempts.after(TransientError("busy", retry_after=101))
    assert attempts.after(TransientError("busy", retry_after=99)) == 99


def test_silence_is_said_every_ten_seconds_and_so_is_its_end(
    time: WaitingTime, patience: Patience, said: list[Notice]
) -> None:
    connections = [Attempts(patience, lambda low, high: 0.5) for _ in range(4)]
    for _ in range(80):  # 40 s
        for attempts in connections:
            attempts.after(GONE)
        time.now += 0.5
    patience.heard()
    patience.heard()
    assert [str(event) for event in said] == [
        *(
            f"http://host/x: no answer for {seconds} s (the server has gone silent), still trying"
            for seconds in (3, 13, 23, 33)
        ),
        "http://host/x: goes on after 40 s",
    ]


def test_silence_began_before_a_timeout(time: WaitingTime, patience: Patience, said: list[Notice]) -> None:
    """A wait in vain counts from the last bytes received, but not longer than the timeout of one attempt."""
    time.now += 12
    patience.attempts(15).after(TransientError("silent", timed_out=True))
    assert said[-1].facts["silent_for"] == 12
    patience.heard()
    time.now += 1000
    patience.attempts(15).after(TransientError("silent", timed_out=True))
    assert said[-1].facts["silent_for"] == 15


def test_a_short_silence_is_not_worth_a_word(time: WaitingTime, patience: Patience, said: list[Notice]) -> None:
    attempts = patience.attempts()
    attempts.after(GONE)
    time.now += 2
    attempts.after(GONE)
    patience.heard()
    assert said == []


# --- servers that go away ---------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(source: Path, snapshot: Path, fault_server: FaultServer) -> Path:
    """A tree whose snapshot the server has."""
    (source / "weights").write_bytes(CONTENT)
    (source / "text").write_text("some words\n" * 1000)
    pack_tree(source, snapshot, chunk_size=256 * KiB)
    fault_server.data = snapshot.read_bytes()
    return source


def away(time: WaitingTime, seconds: float, fault: Fault) -> Callable[[Request], Fault | None]:
    """The fault, from the fourth request on, for `seconds`."""
    ends: list[float] = []

    def script(request: Request) -> Fault | None:
        if request.number >= 3 and not ends:
            ends.append(time.now + seconds)
        return fault if ends and time.now < ends[0] else None

    return script


Job = Callable[[str, Path, NetworkOptions], object]


def _restore(url: str, target: Path, network: NetworkOptions) -> None:
    restore(url, str(target), RestoreOptions(sync=False, network=network))


def _verify(url: str, target: Path, network: NetworkOptions) -> None:
    verify(url, VerifyOptions(content=True, network=network))


@pytest.mark.parametrize("job", [_restore, _verify])
@pytest.mark.parametrize("seconds", [4, 30, 120, 290])
@pytest.mark.parametrize("fault", [truncated(0), status(503), status(502)], ids=["gone", "busy", "502"])
def test_a_server_that_comes_back_within_patience_does_not_matter(
    fault: Fault,
    seconds: float,
    job: Job,
    workspace: Path,
    target: Path,
    time: WaitingTime,
    fault_server: FaultServer,
) -> None:
    fault_server.script = away(time, seconds, fault)
    began = time.now
    job(fault_server.url, target, at_once(clock=time, wait=time.wait, connections=1))
    assert seconds <= time.now - began < seconds + 10
    if target.exists():
        assert_same_tree(workspace, target)


@pytest.mark.parametrize("job", [_restore, _verify])
def test_a_server_that_stays_away_is_given_up_after_five_minutes(
    job: Job, workspace: Path, target: Path, time: WaitingTime, fault_server: FaultServer
) -> None:
    fault_server.script = away(time, 10_000, truncated(0))
    began = time.now
    with pytest.raises(GaveUpError, match="gave up after 300 s"):
        job(fault_server.url, target, at_once(clock=time, wait=time.wait, connections=1))
    assert time.now - began == pytest.approx(300, abs=10)


def test_what_waiting_cannot_cure_ends_at_once(
    workspace: Path, target: Path, time: WaitingTime, fault_server: FaultServer
) -> None:
    for code, error in ((404, SnapshotNotFoundError), (403, DumontError), (501, DumontError)):
        fault_server.script = lambda request, code=code: status(code)  # type: ignore[misc]
        with pytest.raises(error):
            _restore(fault_server.url, target, at_once(clock=time, wait=time.wait))
    assert time.now == WaitingTime().now


@pytest.mark.parametrize("seconds", [4, 30, 120, 290])
def test_a_publish_bears_a_server_that_comes_back(
    seconds: float, source: Path, time: WaitingTime, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    (source / "weights").write_bytes(random.Random(2).randbytes(20_000_000))
    request, ends, lock = RangeConnection.request, [], threading.Lock()

    def gone(self: RangeConnection, method: str, *rest: Any) -> Any:
        with lock:
            if method == "PUT" and not ends:
                ends.append(time.now + seconds)
        if ends and time.now < ends[0]:
            raise GONE
        return request(self, method, *rest)

    monkeypatch.setattr(RangeConnection, "request", gone)
    pack([str(source)], "s3://bucket/patient", PackOptions(network=at_once(clock=time, wait=time.wait)))
    assert ends
    assert time.now >= ends[0]
    assert verify("s3://bucket/patient", VerifyOptions(content=True)).num_files == 1


def test_a_part_is_sent_in_pieces_that_each_have_the_timeout(
    fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's timeout covers all bytes of one send call: 8 MiB in 15 s would need 4.5 Mbit/s per connection."""
    sent: list[int] = []
    send = socket.socket.sendall

    def recording(self: socket.socket, data: Any, *rest: Any) -> None:
        sent.append(len(data))
        send(self, data, *rest)

    monkeypatch.setattr(socket.socket, "sendall", recording)
    fault_server.script = lambda request: status(200)
    connection = RangeConnection(at_once(), None)  # type: ignore[arg-type]
    from dumont_gpu.storage.addresses import parse_address

    assert connection.request("PUT", parse_address(fault_server.url), {}, memoryview(CONTENT)).status == 200
    connection.close()
    assert sum(sent) > len(CONTENT)
    assert max(sent) <= 128 * KiB
    assert fault_server.requests[0].headers["Content-Length"] == str(len(CONTENT))
    assert fault_server.requests[0].headers["Transfer-Encoding"] is None


# --- messages to the user ---------------------------------------------------------------------------------------------


def test_a_restore_that_gave_up_names_the_command_that_goes_on(
    workspace: Path, tmp_path: Path, fault_server: FaultServer
) -> None:
    fault_server.script = lambda request: status(503) if request.number > 3 else None
    target = tmp_path / "a target"
    url = fault_server.url.replace("//", "//me:secret@") + "?signature=secret"
    ran = cli("restore", url, target, "--patience", "0", "--include", "**/it's*", "--include", "*")
    assert ran.returncode == 5
    assert len(ran.stderr.splitlines()) == 1
    assert "gave up after 0 s" in ran.stderr
    assert ran.stderr.endswith(" --patience 0 --include '**/it'\"'\"'s*' --include '*'\n")
    assert f"restore '{fault_server.url}?…' '{target}'" in ran.stderr
    assert "secret" not in ran.stderr
    fault_server.requests.clear()
    chosen = ("--include", "**/it's*", "--include", "*")
    ran = cli("restore", fault_server.url, target, "--patience", "0", "--json", *chosen)
    assert json.loads(ran.stderr.splitlines()[-1])["command"].endswith("--include '*'")
    fault_server.script = lambda request: None
    assert cli("restore", fault_server.url, target, *chosen).returncode == 0
    assert_same_tree(workspace, target)


def test_a_command_that_only_looks_names_no_command(workspace: Path, fault_server: FaultServer) -> None:
    fault_server.script = lambda request: status(503)
    for command in ("info", "ls", "verify"):
        ran = cli(command, fault_server.url, "--patience", "0")
        assert (ran.returncode, len(ran.stderr.splitlines())) == (5, 1)
        assert "go on" not in ran.stderr


def test_the_command_is_what_a_shell_takes() -> None:
    line = again(["/nowhere/dumont-gpu", "pack", "a b", "-o", "s3://bucket/it's"])
    assert subprocess.run(["sh", "-c", f"printf '%s|' {line}"], capture_output=True, text=True, check=True).stdout == (
        "/nowhere/dumont-gpu|pack|a b|-o|s3://bucket/it's|"
    )
    assert again(["x/__main__.py", "ls"]) == "python -m dumont_gpu ls"
    assert again(["/bin/sh", "ls"]) == "sh ls"


EVENT = Notice("http://host/x", "no answer for 40 s (\x1b[1m), still trying", {"silent_for": 40.0, "reason": "why"})


def test_lines_and_bars_say_it_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().notice(EVENT)
    with Bar() as bar:
        bar.notice(EVENT)
    printed = capsys.readouterr()
    assert printed.err.count("http://host/x: no answer for 40 s (\\x1b[1m), still trying\n") == 2
    assert printed.out == ""


def test_json_says_it_as_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines().notice(EVENT)
    record = json.loads(capsys.readouterr().out)
    assert (record["type"], record["phase"], record["location"]) == ("status", "network", "http://host/x")
    assert (record["silent_for"], record["reason"]) == (40.0, "why")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    make_renderer("none", as_json=False).notice(EVENT)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("0", 0), (" 2 M ", 120), ("1d", 86400)]
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "5x", "1e9", "nan", "inf", "٣", "9" * 400])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        parse_duration(text)


def test_every_command_that_reads_takes_patience(snapshot: Path, source: Path, tmp_path: Path) -> None:
    (source / "file").write_text("content")
    pack_tree(source, snapshot)
    for command in (
        ["pack", source, "-o", tmp_path / "x"], ["restore", snapshot, tmp_path / "t"],
        ["verify", snapshot], ["info", snapshot], ["ls", snapshot],
    ):  # fmt: skip
        assert cli(*command, "--patience", "never").returncode == 2
        assert cli(*command, "--patience", "2m").returncode == 0


def test_patience_is_what_was_asked_for(time: WaitingTime) -> None:
    """For an unreachable server, patience can only shorten the 30 s of a first contact."""
    url, network = f"http://127.0.0.1:{free_port()}/x", at_once(clock=time, wait=time.wait)
    for asked, seconds in ((7.0, 7), (3000.0, 30)):
        with pytest.raises(NetworkError, match=f"cannot be reached: .*; gave up after {seconds} s"):
            open_source(url, replace(network, retry=RetryPolicy(patience=asked)))
