"""Progress by bytes: of a link, of the disk, and what a terminal of any width shows of it."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import random
import struct
import termios
import threading
from pathlib import Path

import pytest
from support.servers import FaultServer, Moto, Request, WaitingTime, flipped, truncated
from support.snapshots import assert_same_tree, pack_tree

from dumont_gpu.cli.progress_line import bar_line, log_line
from dumont_gpu.cli.render import Bar, Lines
from dumont_gpu.jobs.options import PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.progress import Meter, Notice, Progress
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.storage import NetworkOptions, open_source
from dumont_gpu.storage.base import Watched

OVER_A_LINK = Progress("restore", 248_000_000, 703_000_000, 3, 11, 130.0, 131_800_000, 373_000_000)
EVENTS = [
    OVER_A_LINK,
    Progress("restore", 0, 703_000_000, 0, 11, 0.0, 0, 373_000_000),
    Progress("pack", 448_000_000, 703_000_000, 3, 11, 3.0, 500_000_000, 703_000_000, 12_300_000),
    Progress("pack", 448_000_000, 703_000_000, 3, 11, 3.0, 500_000_000, 703_000_000),
    Progress("verify", 1 << 41, 1 << 42, 3, 11, 1_300_000.0),
    Progress("check", 0, 0, 0, 0, 0.0),
]


@pytest.fixture
def every_event(monkeypatch: pytest.MonkeyPatch) -> list[Progress]:
    """Lets a meter report whatever it counts; a test passes `append` of this list as a job's callback."""
    monkeypatch.setattr("dumont_gpu.progress._INTERVAL", -1.0)
    return []


@pytest.fixture
def packed(source: Path, snapshot: Path) -> Path:
    """A snapshot of 3 MB whose bytes do not shrink, in chunks of 1 MiB."""
    (source / "weights").write_bytes(random.Random(1).randbytes(3_000_000))
    (source / "small").write_bytes(b"small")
    pack_tree(source, snapshot, chunk_size=MiB)
    return snapshot


def served(server: FaultServer, snapshot: Path) -> str:
    server.data = snapshot.read_bytes()
    return server.url


# --- bytes as they come -----------------------------------------------------------------------------------------------


def test_a_source_over_a_slow_link_tells_of_bytes_at_least_twice_a_second(fault_server: FaultServer) -> None:
    """At 1 MB/s, by a clock that only waiting moves."""
    fault_server.data = random.Random(1).randbytes(3_000_000)
    time = WaitingTime()
    options = NetworkOptions(connections=1, limit_rate=1_000_000, clock=time, wait=time.wait)
    source = open_source(fault_server.url, options)
    assert isinstance(source, Watched)
    came: list[tuple[float, int]] = []
    source.watch(lambda count: came.append((time.now, count)))
    source.read_into(0, memoryview(bytearray(3_000_000)))
    source.close()
    assert sum(count for _, count in came) == 3_000_000
    times = [when for when, _ in came]
    assert times[-1] - times[0] == pytest.approx(3, abs=0.1)
    assert max(after - before for before, after in itertools.pairwise(times)) < 0.5


def test_a_restore_reports_pieces_of_chunks(
    every_event: list[Progress], packed: Path, fault_server: FaultServer, target: Path, source: Path
) -> None:
    options = RestoreOptions(network=NetworkOptions(limit_rate=1_000_000_000))  # received in pieces of 16 KiB
    restore(served(fault_server, packed), str(target), options, every_event.append)
    assert_same_tree(source, target)
    read = [event.read_bytes for event in every_event]
    assert read == sorted(read)
    assert max(after - before for before, after in itertools.pairwise(read)) <= 16 * KiB
    last = every_event[-1]
    assert (last.read_bytes, last.done_bytes, last.part) == (last.to_read_bytes, last.total_bytes, 1.0)
    assert len({(event.total_bytes, event.to_read_bytes) for event in every_event}) == 1


@pytest.mark.parametrize("fault", [truncated(100_000), flipped(2_000_000)])
def test_bytes_that_come_twice_do_not_pass_the_total(
    fault: object, every_event: list[Progress], packed: Path, fault_server: FaultServer, target: Path
) -> None:
    location = served(fault_server, packed)
    sent: list[int] = []

    def once(request: Request) -> object:
        if request.end - request.start > MiB // 2 and not sent:
            sent.append(request.number)
            return fault
        return None

    fault_server.script = once
    restore(location, str(target), None, every_event.append)
    assert sent
    assert all(event.read_bytes <= event.to_read_bytes and event.part <= 1 for event in every_event)
    assert every_event[-1].read_bytes == every_event[-1].to_read_bytes


def test_a_part_of_a_snapshot_counts_what_it_needs(
    every_event: list[Progress], packed: Path, fault_server: FaultServer, target: Path
) -> None:
    restore(served(fault_server, packed), str(target), RestoreOptions(include=["small"]), every_event.append)
    last = every_event[-1]
    assert last.part == 1.0
    assert last.to_read_bytes < 2 * MiB


def test_a_large_table_of_contents_is_shown_as_it_comes(
    every_event: list[Progress], packed: Path, fault_server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumont_gpu.jobs.restore._LARGE_MANIFEST", 1)
    restore(served(fault_server, packed), str(target), None, every_event.append)
    contents = [event for event in every_event if event.phase == "contents"]
    assert contents[-1].read_bytes == contents[-1].to_read_bytes > 0
    assert log_line(contents[-1]).startswith("contents: 100 %, 0.0/0.0 MiB came, ")
    assert every_event.index(contents[-1]) == len(contents) - 1


def test_a_local_restore_has_one_direction(every_event: list[Progress], packed: Path, target: Path) -> None:
    restore(str(packed), str(target), None, every_event.append)
    assert {event.to_read_bytes for event in every_event} == {0}
    assert (every_event[-1].part, every_event[-1].done_bytes) == (1.0, every_event[-1].total_bytes)


def test_files_within_a_chunk_count_when_they_are_written(
    every_event: list[Progress], source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumont_gpu.jobs.restore_stages._PART", 1)  # small files that are written together
    for number in range(10):
        (source / str(number)).write_bytes(random.Random(number).randbytes(200_000))
    pack_tree(source, snapshot)
    restore(str(snapshot), str(target), None, every_event.append)
    assert {event.total_chunks for event in every_event} == {1}
    assert len({event.done_bytes for event in every_event}) >= 10


def test_a_verification_over_a_link_counts_bytes_that_come(
    every_event: list[Progress], packed: Path, fault_server: FaultServer
) -> None:
    verify(served(fault_server, packed), VerifyOptions(content=True), every_event.append)
    last = every_event[-1]
    assert (last.read_bytes, last.done_bytes) == (last.to_read_bytes, last.total_bytes)
    assert last.to_read_bytes > 2_900_000


def test_a_pack_counts_files_as_they_are_read(every_event: list[Progress], source: Path, snapshot: Path) -> None:
    for number in range(5):
        (source / str(number)).write_bytes(random.Random(number).randbytes(2_000_000))
    pack([str(source)], str(snapshot), None, every_event.append)
    assert len({event.read_bytes for event in every_event}) >= 6
    assert every_event[-1].part == 1.0


def test_the_total_of_a_pack_does_not_fall(every_event: list[Progress], source: Path, snapshot: Path) -> None:
    content = random.Random(1).randbytes(2_000_000)
    for name in ("one", "the same", "again"):
        (source / name).write_bytes(content)
    pack([str(source)], str(snapshot), PackOptions(chunk_size=MiB), every_event.append)
    totals = [event.total_bytes for event in every_event]
    assert totals == sorted(totals)
    assert every_event[-1].part == 1.0


def test_a_publish_tells_of_bytes_that_are_sent(every_event: list[Progress], source: Path, s3: Moto) -> None:
    (source / "weights").write_bytes(random.Random(1).randbytes(3_000_000))
    pack([str(source)], "s3://bucket/progress.dumont", None, every_event.append)
    sent = [event.sent_bytes for event in every_event]
    assert sent == sorted(sent)
    assert 2_900_000 < sent[-1] < 3_100_000
    assert max(after - before for before, after in itertools.pairwise(sent)) <= 128 * KiB


# --- the meter --------------------------------------------------------------------------------------------------------


def test_a_meter_reports_every_tenth_of_a_second_while_bytes_move() -> None:
    time, heard = WaitingTime(), list[Progress]()
    meter = Meter(heard.append, "restore", 10 * MiB, 1, 5 * MiB, clock=time)
    for _ in range(80):  # 1 MB/s, in pieces as a link brings them
        time.now += 0.0625
        meter.come(64 * KiB)
    seconds = [event.seconds for event in heard]
    assert max(after - before for before, after in itertools.pairwise(seconds)) <= 0.125 + 1e-6
    assert len(heard) >= 2 * 5
    assert heard[-1].read_rate == pytest.approx(MiB, rel=0.02)


def test_a_total_that_turns_out_smaller_counts_as_done() -> None:
    heard: list[Progress] = []
    meter = Meter(heard.append, "pack", 671, 2, 671)
    meter.come(300)
    meter.add(300)
    meter.expect(527, 2, 527)
    meter.come(227)
    meter.add(227)
    assert {(event.total_bytes, event.to_read_bytes) for event in heard} == {(671, 671)}
    assert (heard[-1].done_bytes, heard[-1].read_bytes, heard[-1].part) == (671, 671, 1.0)


def test_the_slower_direction_says_how_long_it_takes() -> None:
    assert Progress("restore", 50, 100, 0, 1, 10.0, 20, 100).eta == 40.0
    assert Progress("restore", 0, 100, 0, 1, 10.0, 20, 100).eta == 40.0
    assert Progress("restore", 0, 100, 0, 1, 10.0, 0, 100).eta is None


# --- one line ---------------------------------------------------------------------------------------------------------


def test_lines_of_100_40_and_20_columns() -> None:
    moved = "125.7/355.7 MiB came, 236.5/670.4 MiB written, 1.0 MiB/s, 3:59 left"
    assert bar_line(OVER_A_LINK, 100) == f"restore [=====           ]  35% {moved}"
    assert bar_line(OVER_A_LINK, 40) == "restore  35% 125.7/355.7 MiB 1.0 MiB/s"
    assert bar_line(OVER_A_LINK, 20) == "restore  35% 3:59"
    assert log_line(OVER_A_LINK) == f"restore: 35 %, {moved}"


@pytest.mark.parametrize("event", EVENTS)
def test_no_terminal_wraps_the_line(event: Progress) -> None:
    for width in range(2, 200):
        line = bar_line(event, width)
        assert 0 < len(line) < width
        assert line.isascii()
        assert "KiB" not in line
        assert "GiB" not in line


def test_a_bar_fits_its_terminal_and_leaves_nothing_behind() -> None:
    controller, terminal = pty.openpty()
    stderr = os.dup(2)
    try:
        os.dup2(terminal, 2)
        for columns in (100, 40, 20):
            fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            with open(2, "w", closefd=False, buffering=1) as stream, pytest.MonkeyPatch.context() as patch:
                patch.setattr("sys.stderr", stream)
                with Bar() as bar:
                    bar(OVER_A_LINK)
            expected = f"begins ...\r\x1b[K{bar_line(OVER_A_LINK, columns)}\r\x1b[K"
            shown = ""
            while len(shown) < len(expected):  # a terminal may give a part
                shown += os.read(controller, 4096).decode()
            assert shown == expected
    finally:
        os.dup2(stderr, 2)
        for number in (stderr, controller, terminal):
            os.close(number)


def test_news_stands_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        bar(OVER_A_LINK)
        bar.notice(Notice("http://host/x", "no answer for 40 s"))
    line = bar_line(OVER_A_LINK, 80)
    assert capsys.readouterr().err == (
        f"begins ...\r\x1b[K{line}\r\x1b[Khttp://host/x: no answer for 40 s\n\r\x1b[K{line}\r\x1b[K"
    )


def test_a_log_has_the_same_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumont_gpu.cli.render._LINE_INTERVAL", 0.0)
    Lines()(OVER_A_LINK)
    assert capsys.readouterr().err == f"{log_line(OVER_A_LINK)}\n"


def test_threads_share_a_meter() -> None:
    heard: list[Progress] = []
    meter = Meter(heard.append, "restore", 4000, 4, 4000)

    def work() -> None:
        for _ in range(100):
            meter.come(10)
            meter.move(10)
        meter.add(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard[-1].part == 1.0
