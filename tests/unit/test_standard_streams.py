"""A snapshot through a pipe: whole or not at all, whoever is killed, closed, full or a terminal."""

from __future__ import annotations

import json
import os
import pty
import random
import resource
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import PROGRAM, cli
from support.hostile import Archive, read_alone, small_archive
from support.independent_reader import Unsupported
from support.independent_reader import read as read_independently
from support.snapshots import GOLDEN, assert_same_tree
from support.streams import BLOCK, HEADER, NAMES, as_stream, block

from dumont_gpu.errors import DamagedError, DumontError, NoSpaceError, UnsupportedError
from dumont_gpu.format.header import Header
from dumont_gpu.jobs.options import PackOptions, VerifyOptions
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.snapshot.writer import SnapshotWriter
from dumont_gpu.storage import MemorySource
from dumont_gpu.storage.standard_input import SpooledSource
from dumont_gpu.storage.standard_output import PipeSink

KIB = 1 << 10
CUT_SHORT = "the stream has no end"


def fill(folder: Path, size: int) -> Path:
    """Makes a tree of `size` bytes that do not shrink, half of them in one file."""
    rng = random.Random(size)
    (folder / "d").mkdir()
    if size:
        (folder / "d" / "noise").write_bytes(rng.randbytes(size // 2))
        (folder / "more").write_bytes(rng.randbytes(size - size // 2))
        (folder / "link").symlink_to("more")
        (folder / "hard").hardlink_to(folder / "more")
    return folder


def packed(source: Path, *options: str) -> bytes:
    done = subprocess.run([PROGRAM, "pack", source, "-o", "-", *options], capture_output=True, check=True, timeout=60)
    assert done.stderr.startswith(b"packed")
    return done.stdout


def fed(data: bytes, *arguments: str | Path) -> tuple[int, str]:
    """Runs a command with `data` on its standard input; returns its exit code and what it says on stderr."""
    done = subprocess.run([PROGRAM, *arguments], input=data, capture_output=True, timeout=60)
    return done.returncode, done.stderr.decode()


# --- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 64 * KIB, 300_000])
@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2", "none"])
def test_a_tree_goes_through_a_pipe(size: int, method: str, source: Path, target: Path) -> None:
    fill(source, size)
    command = [PROGRAM, "pack", source, "-o", "-", "--chunk-size", "64KiB", "--method", method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender:
        receiver = subprocess.run(
            [PROGRAM, "restore", "-", target], stdin=sender.stdout, capture_output=True, timeout=60
        )
        assert (sender.wait(60), receiver.returncode) == (0, 0)
    assert_same_tree(source, target)
    assert {path.name for path in target.parent.iterdir()} == {source.name, target.name}


@pytest.mark.parametrize("size", [0, 300_000])
def test_a_stream_kept_in_a_file_is_a_snapshot(size: int, source: Path, snapshot: Path, target: Path) -> None:
    fill(source, size)
    snapshot.write_bytes(packed(source, "--chunk-size", "64KiB"))
    for command in (["info"], ["ls", "-l"], ["verify", "--content"]):
        assert cli(command[0], snapshot, *command[1:]).returncode == 0
    assert cli("restore", snapshot, target).returncode == 0
    assert_same_tree(source, target)
    assert read_alone("restore", snapshot.read_bytes(), target.parent / "alone").code == 0
    assert_same_tree(source, target.parent / "alone")
    assert read_independently(snapshot.read_bytes()).keys() == {
        os.fspath(path.relative_to(source)) for path in source.rglob("*")
    }


@pytest.mark.parametrize("command", ["info", "ls", "verify"])
def test_any_snapshot_is_read_from_standard_input(command: str) -> None:
    for name in ("columns", "stream"):
        data = (GOLDEN / f"{name}.dumont").read_bytes()
        with_name = cli(command, GOLDEN / f"{name}.dumont")
        done = subprocess.run([PROGRAM, command, "-"], input=data, capture_output=True, check=True, timeout=60)
        lines = done.stdout.decode().splitlines()
        assert lines[-1] == with_name.stdout.splitlines()[-1]


def test_the_id_is_that_of_the_last_block(source: Path, target: Path) -> None:
    data = packed(fill(source, 5000))
    name = f"sha256:{data[-BLOCK:][480:512].hex()}"
    assert fed(data, "restore", "-", target, "--expect", name)[0] == 0
    other = f"sha256:{data[480:512].hex()}"
    code, says = fed(data, "restore", "-", target.parent / "other", "--expect", other)
    assert code == 4
    assert "another snapshot" in says


def test_results_go_to_stderr(source: Path) -> None:
    fill(source, 5000)
    done = subprocess.run([PROGRAM, "pack", source, "-o", "-", "--json"], capture_output=True, timeout=60)
    summary = json.loads(done.stderr.splitlines()[-1])
    assert summary["type"] == "summary"
    assert summary["snapshot_path"] == "standard output"
    assert summary["compressed_size"] == len(done.stdout)
    assert Header.parse(done.stdout[-BLOCK:], len(done.stdout)).snapshot_id == summary["snapshot_id"]


def test_standard_output_may_be_a_file_in_what_is_packed(source: Path, target: Path) -> None:
    fill(source, 300_000)
    with (source / "out.dumont").open("wb") as file:
        subprocess.run([PROGRAM, "pack", source, "-o", "-"], stdout=file, check=True, timeout=60)
    assert cli("restore", source / "out.dumont", target).returncode == 0
    (source / "out.dumont").unlink()
    os.utime(source, ns=(target.stat().st_mtime_ns,) * 2)
    assert_same_tree(source, target)


# --- cut short, and damaged -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stream() -> bytes:
    return as_stream(small_archive().to_bytes())


def test_cut_short_anywhere_it_is_damaged(stream: bytes) -> None:
    verify(MemorySource(stream), VerifyOptions(content=True))
    for size in range(len(stream)):
        with pytest.raises(DamagedError):
            read_snapshot(MemorySource(stream[:size]))


def test_cut_short_nothing_is_restored(stream: bytes, target: Path) -> None:
    for size in (0, 1, 511, 512, BLOCK, 2 * BLOCK, len(stream) - BLOCK, len(stream) - 1):
        code, says = fed(stream[:size], "restore", "-", target)
        assert code == 4
        assert says.startswith("dumont-gpu: standard input: ")
        assert says.count("\n") == 1
        assert not target.exists()
        assert read_alone("restore", stream[:size], target).code == 4
        assert not target.exists()


def test_a_changed_bit_anywhere_is_noticed(stream: bytes) -> None:
    header = Header.parse(stream[-BLOCK:], len(stream))
    dense = {*range(512), *range(header.index_offset, header.index_offset + header.index_size)}
    dense |= set(range(len(stream) - BLOCK, len(stream) - BLOCK + 512))
    for at in sorted(dense | set(range(0, len(stream), 97))):
        damaged = bytearray(stream)
        damaged[at] ^= 1 << at % 8
        with pytest.raises((DamagedError, UnsupportedError)):
            verify(MemorySource(bytes(damaged)), VerifyOptions(jobs=1, device="cpu"))


def test_the_end_of_a_stream_in_a_chunk_is_not_the_end(stream: bytes, target: Path) -> None:
    """A chunk may hold a whole stream, at a multiple of 4096; cut behind it, the file has another size than it says."""
    outer = Archive()
    outer.file("inner.dumont", stream)
    outer.file("more", bytes(range(256)) * 40)
    data = as_stream(outer.to_bytes())
    end = data.index(stream) + len(stream)
    assert end % BLOCK == 0
    with pytest.raises(DamagedError):
        read_snapshot(MemorySource(data[:end]))
    assert read_alone("restore", data[:end], target).code == 4
    with pytest.raises(ValueError, match="damaged"):
        read_independently(data[:end])


def test_three_readers_agree_on_bent_streams(target: Path) -> None:
    """Fields of either block bent and signed, the layout moved, bytes changed or cut: all find it sound, or none does."""
    rng = random.Random(18)
    data = small_archive().to_bytes()
    sound = 0
    for _ in range(300):
        bent: list[dict[str, object]] = [{}, {}]
        for _ in range(rng.randrange(3)):
            name = rng.choice([name for name in NAMES if name not in ("magic", "reserved")])
            value: object = rng.randbytes(32)
            if not name.endswith("sha256"):
                value = rng.choice((0, 1, 4, 7, 512, 4096, 8192, rng.randrange(1 << 16), (1 << 32) - 1))
            bent[rng.randrange(2)][name] = value
        stream = bytearray(as_stream(data, *bent, gap=rng.choice((b"", b"", bytes(rng.randrange(9000))))))
        for _ in range(rng.choice((0, 0, 1))):
            stream[rng.randrange(len(stream))] ^= 1 << rng.randrange(8)
        stream = stream[: len(stream) - rng.choice((0, 0, 0, 1, BLOCK, rng.randrange(len(stream))))]
        verdicts = []
        for check in (
            lambda data=stream: verify(MemorySource(data), VerifyOptions(content=True, jobs=1, device="cpu")),
            lambda data=stream: read_independently(bytes(data)),
        ):
            try:
                check()
                verdicts.append(True)
            except (DamagedError, UnsupportedError, ValueError, Unsupported):
                verdicts.append(False)
        assert {*verdicts, read_alone("verify", bytes(stream), target).code == 0} == {verdicts[0]}, bent
        sound += verdicts[0]
    assert 10 < sound < 270


def test_a_file_made_of_last_blocks_does_not_end_a_stream(source: Path, target: Path) -> None:
    """Each of them is right for the place where it lies in the stream, and has a tree of its own; the nonce is missing."""
    small = as_stream(Archive().to_bytes())  # a manifest without entries, and the last block
    tail = small[BLOCK:-BLOCK]

    def planted(at: int) -> bytes:
        last = dict(zip(NAMES, HEADER.unpack(small[-BLOCK:][: HEADER.size]), strict=True))
        shared = {"chunk_size": PackOptions().chunk_size, "flags": 4}
        return tail + block(last | shared | {"manifest_offset": at})

    size = len(planted(0))
    assert size % BLOCK == 0
    (source / "planted").write_bytes(b"".join(planted(at) for at in range(BLOCK, BLOCK + 20 * size, size)))
    data = packed(source, "--method", "none", "--digest", "sha256")
    for end in range(BLOCK + size, BLOCK + 21 * size, size):
        assert fed(data[:end], "restore", "-", target)[0] == 4
        with pytest.raises(DamagedError, match="another stream"):
            read_snapshot(MemorySource(data[:end]))
        without_nonce = data[:512] + data[:end][-BLOCK:][512:544] + data[544:end]
        assert read_snapshot(MemorySource(without_nonce)).header.num_files == 0, "only the nonce tells them apart"
        assert read_alone("restore", data[:end], target).code == 4
        assert not target.exists()


@pytest.mark.parametrize("ending", [b"DUMONT03", b"DUMONT02"])
def test_what_looks_like_another_version_at_the_cut_is_damage(ending: bytes, stream: bytes) -> None:
    body = ending + bytes(BLOCK - 8)
    with pytest.raises(DamagedError, match=CUT_SHORT):
        read_snapshot(MemorySource(stream[:BLOCK] + body))


def test_what_is_no_snapshot_is_refused_before_it_has_come() -> None:
    """The sender still has its end open: a reader that waited for it would wait for ever."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"#!/bin/sh\n" + bytes(512))
        with pytest.raises(DamagedError, match="not a .dumont file"):
            SpooledSource(reader, "standard input")
    finally:
        os.close(reader)
        os.close(writer)


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_pack_that_is_killed_leaves_nothing_whole(number: int, share: float, source: Path, target: Path) -> None:
    """The pipe holds at most a mebibyte of the five: the pack waits there when the signal comes."""
    fill(source, 5 << 20)
    command = [PROGRAM, "pack", source, "-o", "-", "--chunk-size", "256KiB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        data = sender.stdout.read(1 + int(share * (4 << 20)))
        sender.send_signal(number)
        data += sender.stdout.read()
        assert sender.wait(60) == (-9 if number == signal.SIGKILL else 128 + number)
    code, _ = fed(data, "restore", "-", target)
    assert code == 4
    assert not target.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_restore_that_is_killed_while_it_waits_leaves_nothing(
    number: int, share: float, source: Path, tmp_path: Path
) -> None:
    data = packed(fill(source, 3 << 20))
    room = tmp_path / "room"
    room.mkdir()
    with subprocess.Popen([PROGRAM, "restore", "-", room / "t"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdin is not None
        run.stdin.write(data[: 4096 + int(share * (len(data) - BLOCK))])
        run.stdin.flush()
        run.send_signal(number)
        run.wait(60)
        assert run.returncode in (-number, 128 + number)
    assert list(room.iterdir()) == []


def test_a_reader_that_leaves_ends_a_pack_with_a_line(source: Path) -> None:
    fill(source, 5 << 20)
    with subprocess.Popen([PROGRAM, "pack", source, "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.read(100)
        run.stdout.close()
        assert run.wait(60) == 1
        says = run.stderr.read().decode()
    assert says.startswith("dumont-gpu: standard output: was closed before the end")
    assert says.count("\n") == 1


# --- terminals, closed streams, full disks ----------------------------------------------------------------------------


def on_terminal(stream: str, *arguments: str | Path) -> tuple[int, str]:
    master, slave = pty.openpty()
    try:
        streams: dict[str, int] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | {stream: slave}
        done = subprocess.run([PROGRAM, *arguments], stderr=subprocess.PIPE, timeout=60, **streams)  # type: ignore[call-overload]
    finally:
        os.close(master)
        os.close(slave)
    return done.returncode, done.stderr.decode()


def test_a_terminal_is_refused(source: Path, target: Path) -> None:
    for stream, arguments in (("stdout", ("pack", source, "-o", "-")), ("stdin", ("restore", "-", target))):
        code, says = on_terminal(stream, *arguments)
        assert code == 2
        assert "is a terminal" in says
        assert says.count("\n") == 1


def test_a_closed_standard_output_is_no_success(source: Path) -> None:
    line = '"$1" pack "$2" -o - >&-'
    done = subprocess.run(["sh", "-c", line, "sh", PROGRAM, source], stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert b"standard output is closed" in done.stderr


@pytest.mark.parametrize("command", ["pack {} -o -", "export {}/x.dumont --tar", "export {}/x.dumont --zip"])
def test_nothing_is_appended_to_a_file(command: str, source: Path, tmp_path: Path) -> None:
    fill(source, 5000)
    assert cli("pack", source, "-o", source / "x.dumont").returncode == 0
    place = tmp_path / "out"
    for content, code in ((b"precious", 2), (b"", 0)):
        place.write_bytes(content)
        with place.open("ab") as file:
            line = [PROGRAM, *command.format(source).split()]
            done = subprocess.run(line, stdout=file, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == code
        assert (place.read_bytes() == content) == (code == 2)
        assert code == 0 or done.stderr.startswith(b"dumont-gpu: standard output is a file that is not empty")


def test_a_full_disk_under_standard_output(source: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([PROGRAM, "pack", source, "-o", "-"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == NoSpaceError.exit_code
    assert done.stderr.startswith(b"dumont-gpu: standard output: no room")


def test_no_room_to_wait_in(source: Path, target: Path) -> None:
    data = packed(fill(source, 3 << 20))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    command = [PROGRAM, "restore", "-", target]
    done = subprocess.run(command, input=data, stderr=subprocess.PIPE, preexec_fn=limit, timeout=60)
    assert done.returncode == NoSpaceError.exit_code
    assert b"standard input: no room for the snapshot" in done.stderr
    assert not target.exists()


def test_a_reader_beside_a_stream_makes_no_sense(source: Path) -> None:
    done = cli("pack", source, "-o", "-", "--with-reader")
    assert (done.returncode, done.stdout) == (2, "")


# --- the sink ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Callable[[], tuple[int, PipeSink]]:
    def made() -> tuple[int, PipeSink]:
        reader, writer = os.pipe()
        sink = PipeSink(writer)
        os.close(writer)
        return reader, sink

    return made


def test_gaps_are_zeros_and_nothing_is_written_twice(pipe: Callable[[], tuple[int, PipeSink]]) -> None:
    reader, sink = pipe()
    sink.write_at(0, memoryview(b"ab"))
    sink.write_at(5, memoryview(b"c"))
    with pytest.raises(ValueError, match="byte 4 of a stream"):
        sink.write_at(4, memoryview(b"d"))
    sink.commit(8)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"ab\0\0\0c\0\0"


def test_a_cancelled_write_ends_though_nobody_reads(pipe: Callable[[], tuple[int, PipeSink]]) -> None:
    reader, sink = pipe()
    ended: list[BaseException] = []

    def write() -> None:
        try:
            sink.write_at(0, memoryview(bytes(8 << 20)))
        except DumontError as error:
            ended.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    os.read(reader, 1)  # the write has begun
    sink.cancel()
    thread.join(60)
    assert len(ended) == 1
    os.close(reader)


def test_the_first_block_leaves_before_any_chunk(pipe: Callable[[], tuple[int, PipeSink]]) -> None:
    """A reader then knows at once whether it can read what comes."""
    reader, sink = pipe()
    writer = SnapshotWriter(sink, 1 << 22, "blake3", PackOptions().chunk_size, columns=True)
    assert os.read(reader, 1 << 20)[8:16] == bytes.fromhex("0200000007000000")
    assert writer.codec_bytes == {}
    os.close(reader)
    sink.abort()
