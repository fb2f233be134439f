"""Memory, threads and descriptors run short: a single line names the remedy, no file is left behind or blamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard
from support.commands import PROGRAM
from support.hostile import Ran, clear_error
from support.snapshots import assert_same_tree, pack_tree, restore_tree

from dumont_gpu import native
from dumont_gpu.codecs import ZSTD, Lz4, ZipNN
from dumont_gpu.errors import DumontError
from dumont_gpu.jobs.options import PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.shortages import explain_shortages, shortage
from dumont_gpu.storage.http_reader import HttpReader
from dumont_gpu.storage.pace import ConnectionCount
from dumont_gpu.storage.reads import RANGE_SIZE, Range
from dumont_gpu.storage.retry import TransientError
from dumont_gpu.storage.wire import transient

HINT = "try --jobs 1 --memory 140MiB"


def limited(limit: str, *arguments: str | Path) -> Ran:
    """Runs the command line under `ulimit`."""
    line = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", PROGRAM, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    return Ran(done.returncode, done.stdout, done.stderr)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def filled(source: Path) -> Path:
    """Many directories, small files in each, and three larger ones that take a look each."""
    for number in range(60):
        (source / f"{number:02}" / "deep").mkdir(parents=True)
        (source / f"{number:02}" / "a").write_bytes(b"a" * number)
        (source / f"{number:02}" / "deep" / "b").write_bytes(b"b" * number)
    for name in ("x", "y", "z"):
        (source / name).write_bytes(os.urandom(2 << 20))
    (source / "copy").write_bytes((source / "x").read_bytes())
    return source


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [24, 64])
def test_few_descriptors_are_enough(limit: int, filled: Path, snapshot: Path, target: Path) -> None:
    for arguments in (
        ("pack", filled, "-o", snapshot),
        ("restore", snapshot, target),
        ("restore", snapshot, target, "--overwrite", "always", "--verify"),
        ("verify", snapshot, "--content"),
    ):
        ran = limited(f"-n {limit}", *arguments)
        assert (ran.code, ran.err) == (0, "")
        assert "could not" not in ran.out
    assert_same_tree(filled, target)


def test_many_sources_share_the_descriptors(tmp_path: Path, snapshot: Path) -> None:
    sources = [tmp_path / f"source-{number}" for number in range(8)]
    for path in sources:
        for number in range(20):
            (path / f"{number}").mkdir(parents=True)
            (path / f"{number}" / "file").write_bytes(b"x")
    ran = limited("-n 32", "pack", *sources, "-o", snapshot)
    assert (ran.code, ran.err) == (0, "")


FEW = """
import os, resource, sys
import dumont_gpu.cli.main, dumont_gpu.cli.pack, dumont_gpu.cli.report.pack, dumont_gpu.cli.again, dumont_gpu.cli.render
limit = len(os.listdir("/proc/self/fd")) + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
from dumont_gpu.__main__ import main
main()
"""


def test_too_few_descriptors_are_one_line_and_no_snapshot(filled: Path, snapshot: Path) -> None:
    codes = []
    for spare in range(8):
        command = [sys.executable, "-c", FEW, str(spare), "pack", filled, "-o", snapshot]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        codes.append(done.returncode)
        if done.returncode:
            assert "Too many open files" in Ran(done.returncode, done.stdout, done.stderr).error
            assert names(snapshot.parent) == ["source"]
        else:
            assert done.stderr == ""
            snapshot.unlink()
    assert set(codes) == {0, 1}


SHORT = [errno.EMFILE, errno.ENFILE, errno.ENOMEM]


@pytest.mark.parametrize("number", SHORT)
@pytest.mark.parametrize("where", ["x", "07", "deep"])
def test_a_shortage_is_no_problem_of_the_file_that_meets_it(
    where: str, number: int, filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.open

    def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if path == where:
            raise OSError(number, os.strerror(number))
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opening)
    message = clear_error(lambda: pack_tree(filled, snapshot), DumontError)
    assert message == shortage(OSError(number, ""))
    assert names(snapshot.parent) == ["source"]


@pytest.mark.parametrize("number", SHORT)
def test_a_shortage_is_no_problem_of_a_small_file(
    number: int, filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "read_files", lambda directory, files, out: [number] * len(files))
    message = clear_error(lambda: pack_tree(filled, snapshot, method="hybrid_v2"), DumontError)
    assert os.strerror(number) in message
    assert names(snapshot.parent) == ["source"]


@pytest.mark.parametrize("number", SHORT)
def test_a_shortage_does_not_make_a_journal_invisible(
    number: int, filled: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_tree(filled, snapshot)
    target.mkdir()
    (target / "x").touch()  # left by an interrupted restore, with a journal
    original = os.open

    def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if path == ".dumont-restore":
            raise OSError(number, os.strerror(number))
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opening)
    assert os.strerror(number) in clear_error(lambda: restore_tree(snapshot, target), DumontError)


def test_a_socket_that_cannot_be_opened_asks_for_fewer_connections() -> None:
    with pytest.raises(TransientError) as caught, transient():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert caught.value.busy


# --- threads ----------------------------------------------------------------------------------------------------------


def dumont_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("dumont-", "ThreadPool"))]


class Threads:
    """Lets so many threads of ours start, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int, prefix: str = "") -> None:
        self.refused = 0
        start = threading.Thread.start

        def starting(thread: threading.Thread) -> None:
            nonlocal allowed
            if thread.name.startswith(prefix or ("dumont-", "ThreadPool")):
                allowed -= 1
                if allowed < 0:
                    self.refused += 1
                    raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starting)


def fails_with_any_thread(
    monkeypatch: pytest.MonkeyPatch, job: Callable[[], object], after: Callable[[], None]
) -> None:
    """Checks that `job` ends in a single line whichever thread cannot start first, and succeeds when all can."""
    failures = 0
    while True:
        with monkeypatch.context() as patch:
            threads = Threads(patch, failures)
            with contextlib.suppress(DumontError):
                job()
            if not threads.refused:
                break
            message = clear_error(lambda: Threads(patch, failures) and job(), DumontError)  # noqa: B023
        assert message == f"no further thread can be started: {HINT}, or allow more"
        assert dumont_threads() == []
        after()
        failures += 1
    assert failures > 2


def test_a_pack_whose_threads_cannot_start_ends_with_one_line(
    filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after() -> None:
        assert names(snapshot.parent) == ["source"]

    fails_with_any_thread(monkeypatch, lambda: pack_tree(filled, snapshot), after)
    verify(str(snapshot))


def test_a_restore_whose_threads_cannot_start_goes_on_later(
    filled: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_tree(filled, snapshot)
    fails_with_any_thread(monkeypatch, lambda: restore_tree(snapshot, target), lambda: None)
    assert_same_tree(filled, target)


def test_a_verification_whose_threads_cannot_start_ends_with_one_line(
    filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_tree(filled, snapshot)
    fails_with_any_thread(monkeypatch, lambda: verify(str(snapshot), VerifyOptions(content=True)), lambda: None)


class Nothing:
    """A connection that brings zeros."""

    def shut(self) -> None: ...

    def close(self) -> None: ...


class Ones:
    """Fills every range without a network."""

    connect = Nothing

    def fetch(self, connection: Any, item: Range) -> None:
        item.out[:] = b"\1" * len(item.out)
        item.done = len(item.out)


def reader() -> HttpReader:
    return HttpReader(Ones(), ConnectionCount(time.monotonic, 0.1, 8), time.monotonic)  # type: ignore[arg-type]


def test_one_thread_that_starts_fetches_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(monkeypatch, 1)
    some, out = reader(), bytearray(5 * RANGE_SIZE)
    some.read(0, memoryview(out))
    some.close()
    assert out.count(1) == len(out)
    assert threads.refused > 0
    assert dumont_threads() == []


def test_a_read_without_any_thread_fails_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Threads(monkeypatch, 0)
    some, out = reader(), bytearray(2 * RANGE_SIZE)
    with pytest.raises(DumontError, match=HINT), explain_shortages():
        some.read(0, memoryview(out))
    assert not some._waiting  # a thread that starts later would write to memory that the caller has back
    some.close()


@pytest.mark.parametrize("allowed", [0, 1])
def test_an_upload_whose_threads_cannot_start(
    allowed: int,
    source: Path,
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (source / "weights").write_bytes(os.urandom(20 << 20))
    with monkeypatch.context() as patch:
        Threads(patch, allowed, "dumont-upload")
        if allowed:
            pack([str(source)], "s3://bucket/threads.dumont", PackOptions(jobs=1))
        else:
            message = clear_error(lambda: pack([str(source)], "s3://bucket/threads.dumont"), DumontError)
            assert HINT in message
    assert b"threads.dumont" not in s3.uploads  # other tests leave uploads of other keys
    if allowed:
        verify("s3://bucket/threads.dumont")


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [60_000, 90_000, 120_000, 160_000, 200_000])
def test_too_little_address_space_is_one_line_that_says_what_helps(
    limit: int, filled: Path, snapshot: Path, target: Path
) -> None:
    pack_tree(filled, snapshot)
    for arguments in (
        ("pack", filled, "-o", snapshot.with_name("other")),
        ("restore", snapshot, target),
        ("verify", snapshot, "--content"),
    ):
        ran = limited(f"-v {limit}", *arguments)
        assert ran.code in (0, 1)
        assert ran.code == 0 or HINT in ran.error
    assert not snapshot.with_name(".other.partial").exists()


def test_a_pack_fits_into_an_address_space_of_300_MB(source: Path, snapshot: Path, target: Path) -> None:  # noqa: N802
    (source / "weights").write_bytes(os.urandom(1 << 20) * 130)  # two chunks of the default size, and a bit
    for arguments in (
        ("pack", source, "-o", snapshot),
        ("restore", snapshot, target),
        ("verify", snapshot, "--content"),
    ):
        ran = limited("-v 300000", *arguments)
        assert (ran.code, ran.err) == (0, "")
    assert_same_tree(source, target)


def test_memory_for_buffers_that_cannot_be_had_is_not_the_fault_of_the_output(
    filled: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_tree(filled, snapshot)

    def no_memory(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", no_memory)
    other = snapshot.with_name("other")
    for job in (lambda: pack_tree(filled, other), lambda: verify(str(snapshot))):
        assert clear_error(job, DumontError) == f"Cannot allocate memory: {HINT}, or allow more"
    assert HINT in clear_error(lambda: restore_tree(snapshot, target), DumontError)
    assert not other.exists()


def test_memory_that_a_kernel_cannot_have_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("_decode", "_encode"):
        monkeypatch.setattr(native.zipnn, function, lambda *arguments: -4)
    with pytest.raises(MemoryError):
        ZipNN().decode(memoryview(b"stream"), memoryview(bytearray(10)))
    with pytest.raises(MemoryError):
        ZipNN().encode(memoryview(b"chunk."), memoryview(bytearray(10)))


def test_memory_that_lz4_cannot_have_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = lz4.frame.compress(b"x" * 1000, block_linked=False, block_size=lz4.frame.BLOCKSIZE_MAX64KB)

    class Decompressor:
        eof = False

        def decompress(self, data: Any) -> bytes:
            raise RuntimeError("LZ4F_decompress failed with code: ERROR_allocation_failed")

    monkeypatch.setattr(lz4.frame, "LZ4FrameDecompressor", Decompressor)
    with pytest.raises(MemoryError):
        Lz4().decode(memoryview(frame), memoryview(bytearray(1000)))


@pytest.mark.parametrize("name", ["ZstdCompressor", "ZstdDecompressor"])
def test_memory_that_zstd_cannot_have_is_no_damage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, room = memoryview(zstandard.compress(b"x" * 1000)), memoryview(bytearray(1000))

    def no_memory(**settings: Any) -> None:
        raise zstandard.ZstdError(f"zstd error: {ALLOCATION_ERROR}")

    monkeypatch.setattr(zstandard, name, no_memory)
    with pytest.raises(MemoryError):
        ZSTD.encode(memoryview(b"x" * 1000), room) if name == "ZstdCompressor" else ZSTD.decode(frame, room)


ALLOCATION_ERROR = "Allocation error : not enough memory"  # of libzstd for ZSTD_error_memory_allocation

LIMITED = """
import resource, sys
from dumont_gpu.codecs import ZSTD, Zstd
chunk, out = memoryview(bytes(range(256)) * 4096 * 16), memoryview(bytearray(1 << 20))
ZSTD.decode(memoryview(out[: ZSTD.encode(chunk, out)]), memoryview(bytearray(len(chunk))))
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 20), mapped + (1 << 20)))
try:
    Zstd(level=19).encode(chunk, out)
except MemoryError:
    sys.exit(42)
"""


def test_zstd_without_memory_is_a_memory_error() -> None:
    """As the library words the shortage today, which nothing else would notice."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (42, "")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_an_error_of_any_stage_that_means_a_shortage_is_told(
    error: Exception, filled: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_tree(filled, snapshot)

    def short(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("dumont_gpu.snapshot.reader.Snapshot.check_chunk", short)
    for job in (
        lambda: verify(str(snapshot)),
        lambda: restore(str(snapshot), str(target), RestoreOptions(sync=False)),
    ):
        assert HINT in clear_error(job, DumontError)


@pytest.mark.parametrize("reason", ["cannot open shared object file: Too many open files", "failed to map segment"])
def test_a_library_that_cannot_be_loaded_is_no_problem_of_a_file(
    reason: str, filled: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loading(path: str) -> None:
        raise OSError(f"{path}: {reason}")

    monkeypatch.setattr(ctypes, "CDLL", loading)
    native.library.load.cache_clear()
    native.library.bind.cache_clear()
    message = clear_error(lambda: pack_tree(filled, snapshot), DumontError)
    assert message in (shortage(OSError(errno.EMFILE, "")), shortage(MemoryError()))
    assert names(snapshot.parent) == ["source"]
