"""A job ends as it should, whatever is closed, missing, full or sent: streams, signals, exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import PROGRAM, cli
from support.hostile import Ran, command
from support.snapshots import GOLDEN, assert_same_tree

STREAMS = ("<&-", ">&-", "2>&-")
CLOSED = [" ".join(STREAMS[n] for n in range(3) if bits >> n & 1) for bits in range(1, 8)]


def shell(line: str, *arguments: str | Path) -> Ran:
    """Runs a line of sh; `arguments` are $1 and so on."""
    done = subprocess.run(["sh", "-c", line, "sh", *arguments], capture_output=True, text=True, timeout=60)
    return Ran(done.returncode, done.stdout, done.stderr)


def patched(patch: str, *arguments: str | Path, before: str = "") -> Ran:
    """Runs the command line after some code that changes how its process behaves, and `before` in its shell."""
    program = f"import os, signal, sys, time\n{patch}\nfrom dumont_gpu.__main__ import main\nmain()"
    return shell(f'{before} exec "$@"', sys.executable, "-c", program, *arguments)


def ended(line: str, job: str) -> Ran:
    """Runs `job`, a Python function's body, to its end in a shell line where $@ is the program."""
    program = f"import os, resource, sys\nfrom dumont_gpu.cli import endings\ndef job():\n    {job}\nendings.run(job)"
    return shell(line, sys.executable, "-c", program)


@pytest.fixture
def filled(source: Path) -> Path:
    (source / "d").mkdir()
    (source / "d" / "weights").write_bytes(os.urandom(1_500_000))
    (source / "text").write_text("text " * 9000)
    return source


@pytest.fixture
def packed(filled: Path, snapshot: Path) -> Path:
    assert cli("pack", filled, "-o", snapshot).returncode == 0
    return snapshot


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", CLOSED)
def test_with_streams_closed_jobs_work(closed: str, filled: Path, snapshot: Path, target: Path) -> None:
    assert shell(f'"$1" pack "$2" -o "$3" {closed}', PROGRAM, filled, snapshot).code == 0
    assert shell(f'"$1" verify "$2" --content {closed}', PROGRAM, snapshot).code == 0
    assert shell(f'"$1" restore "$2" "$3" {closed}', PROGRAM, snapshot, target).code == 0
    assert_same_tree(filled, target)
    assert shell(f'"$1" info "$2" {closed}', PROGRAM, target / "nothing").code == 10


@pytest.mark.parametrize("number", range(3))
def test_no_file_gets_the_number_of_a_closed_stream(number: int) -> None:
    job = f"sys.exit(os.readlink('/proc/self/fd/{number}') != '/dev/null')"
    assert ended(f'"$@" {STREAMS[number]}', job).code == 0


def without_reader(*arguments: str | Path) -> int:
    """Runs a command whose stdout is a pipe that nobody reads any more; returns its exit code."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writer)
    assert done.stderr == b""
    return done.returncode


def test_a_reader_that_left_does_not_stop_a_job(filled: Path, snapshot: Path, target: Path) -> None:
    assert without_reader("pack", filled, "-o", snapshot, "--json") == 0
    assert without_reader("restore", snapshot, target, "--json") == 0
    assert_same_tree(filled, target)
    for arguments in (("verify", snapshot, "--json"), ("info", snapshot), ("ls", snapshot), ("doctor",), ("-h",)):
        assert without_reader(*arguments) == 0
    assert without_reader("--version") == 0


def test_what_a_full_disk_does_not_take_is_said_and_the_job_is_done(filled: Path, snapshot: Path, target: Path) -> None:
    for arguments in (("pack", filled, "-o", snapshot), ("restore", snapshot, target, "--json"), ("--version",)):
        with open("/dev/full", "w") as full:
            done = subprocess.run([PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr == "dumont-gpu: cannot write what there is to say: No space left on device\n" or (
            "--json" in arguments and done.stderr.count("\n") == 1 and "No space left" in done.stderr
        )
    assert_same_tree(filled, target)


def test_messages_that_cannot_be_written_change_no_exit_code(filled: Path, snapshot: Path) -> None:
    assert shell('exec "$1" pack "$2" -o "$3" --progress bar 2>/dev/full', PROGRAM, filled, snapshot).code == 0
    assert shell('exec "$1" info "$2" 2>/dev/full', PROGRAM, snapshot.with_name("nothing")).code == 10


def test_a_pipe_that_is_not_blocking_loses_nothing(source: Path, snapshot: Path) -> None:
    for number in range(2000):
        (source / f"a-rather-long-name-for-an-empty-file-{number:04}").touch()
    assert cli("pack", source, "-o", snapshot).returncode == 0
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen([PROGRAM, "ls", snapshot], stdout=writer) as process:
        os.close(writer)
        with os.fdopen(reader) as listing:
            assert len(listing.readlines()) == 2000
        assert process.wait(60) == 0


def test_a_signal_ends_a_job_whose_output_nobody_reads(source: Path, snapshot: Path) -> None:
    for number in range(3000):
        (source / f"a-rather-long-name-for-an-empty-file-{number:04}").touch()
    assert cli("pack", source, "-o", snapshot).returncode == 0
    with subprocess.Popen([PROGRAM, "ls", snapshot], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # the listing has begun, and is longer than the pipe's buffer
        process.terminate()
        assert process.wait(30) == 143


# --- signals ----------------------------------------------------------------------------------------------------------

STOP = """
pwrite = os.pwrite
def stopping(*arguments):
    os.kill(os.getpid(), signal.{name})
    return pwrite(*arguments)
os.pwrite = stopping
"""
SIGNALS = [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]


@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_a_signal_stops_a_pack_that_leaves_nothing(name: str, code: int, filled: Path, snapshot: Path) -> None:
    ran = patched(STOP.format(name=name), "pack", filled, "-o", snapshot)
    assert (ran.code, ran.out, ran.error) == (code, "", "dumont-gpu: stopped")
    assert [path.name for path in snapshot.parent.iterdir()] == ["source"]


@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_a_signal_stops_a_restore_and_the_same_command_goes_on(
    name: str, code: int, packed: Path, filled: Path, target: Path
) -> None:
    ran = patched(STOP.format(name=name), "restore", packed, target)
    assert (ran.code, ran.out, ran.error) == (code, "", "dumont-gpu: stopped")
    assert "went on" in cli("restore", packed, target).stdout
    assert_same_tree(filled, target)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    name: str, filled: Path, snapshot: Path, target: Path
) -> None:
    stop, before = STOP.format(name=f"SIG{name}"), f"trap '' {name};"
    assert patched(stop, "pack", filled, "-o", snapshot, before=before).code == 0
    assert patched(stop, "restore", snapshot, target, before=before).code == 0
    assert_same_tree(filled, target)


@pytest.mark.parametrize("program", ["dumont-gpu", "dumont-pack", "dumont-restore"])
@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_a_signal_during_the_imports_is_no_traceback(name: str, code: int, program: str, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.{name})\nraise RuntimeError('the signal was lost')"
    )
    done = cli("-h", program=program, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "dumont-gpu: stopped\n")


def test_an_interrupt_before_a_job_begins_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "resource.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nos._exit(99)")
    done = cli("--version", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_second_signal_does_not_interrupt_the_cleaning_up(filled: Path, snapshot: Path) -> None:
    again = """
from dumont_gpu.storage.local import LocalSink
abort = LocalSink.abort
def aborting(sink):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    abort(sink)
LocalSink.abort = aborting
"""
    ran = patched(again + STOP.format(name="SIGTERM"), "pack", filled, "-o", snapshot)
    assert (ran.code, ran.error) == (143, "dumont-gpu: stopped")
    assert [path.name for path in snapshot.parent.iterdir()] == ["source"]


def test_a_signal_that_a_destructor_swallows_is_not_lost(filled: Path, snapshot: Path) -> None:
    swallow = """
class Trap:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        os.getpid()
scandir = os.scandir
def trapping(*arguments):
    Trap()
    time.sleep(30)
    return scandir(*arguments)
from dumont_gpu.tree.source import scan
os.scandir = trapping
"""
    ran = patched(swallow, "pack", filled, "-o", snapshot, "--method", "hybrid_v2")  # which scans in Python
    assert (ran.code, ran.error) == (143, "dumont-gpu: stopped")
    assert [path.name for path in snapshot.parent.iterdir()] == ["source"]


# --- errors -----------------------------------------------------------------------------------------------------------

DEFECT = """
from dumont_gpu.jobs import pack
def broken(*arguments):
    raise ValueError("a\\nb")
pack.Plan = broken
"""


def test_a_defect_is_one_line_and_a_traceback_only_with_debug(filled: Path, snapshot: Path) -> None:
    ran = patched(DEFECT, "pack", filled, "-o", snapshot)
    assert (ran.code, ran.out) == (1, "")
    assert ran.error == "dumont-gpu: defect of dumont-gpu: ValueError: a\\nb; --debug shows where"
    assert [path.name for path in snapshot.parent.iterdir()] == ["source"]
    assert "Traceback" in patched(DEFECT, "pack", filled, "-o", snapshot, "--debug").err


@pytest.mark.parametrize(
    ("job", "code", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no')", 1, "dumont-gpu: no\n"),
        ("raise KeyboardInterrupt", 130, "dumont-gpu: stopped\n"),
        ("raise OSError(5, 'Input/output error', 7)", 1, "dumont-gpu: Input/output error\n"),
        ("raise OSError(5, 'Input/output error', b'a')", 1, "dumont-gpu: a: Input/output error\n"),
        ("__import__('warnings').warn('careful')", 0, ""),
    ],
)
def test_whatever_a_job_ends_with_is_a_code_and_at_most_one_line(job: str, code: int, said: str) -> None:
    ran = ended('exec "$@"', job)
    assert (ran.code, ran.out, ran.err) == (code, "", said)


NO_TYPER = "sys.modules['typer'] = None"


def test_an_error_before_the_command_line_is_parsed_heeds_its_flags(packed: Path) -> None:
    assert patched(NO_TYPER, "info", packed).err.count("\n") == 1
    assert "Traceback" in patched(NO_TYPER, "info", packed, "--debug").err
    assert json.loads(patched(NO_TYPER, "info", packed, "--json").err)["code"] == 1


def test_a_value_that_looks_like_a_flag_is_none(filled: Path, snapshot: Path) -> None:
    ran = cli("pack", "-o", snapshot, filled, "--", "--json", "--debug")
    assert (ran.returncode, ran.stderr) == (10, "dumont-gpu: --json: no such file or directory\n")


def test_an_error_that_escapes_from_a_thread_ends_the_job_with_one_line() -> None:
    ran = ended(
        'exec "$@"', "import threading; threading.Thread(target=lambda: 1 / 0).start(); __import__('time').sleep(30)"
    )
    assert (ran.code, ran.out) == (1, "")
    assert ran.error == "dumont-gpu: defect of dumont-gpu: ZeroDivisionError: division by zero; --debug shows where"


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    job = "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert ended('ulimit -Sn 50; ulimit -Hn 200; exec "$@"', job).out == "200 200\n"


# --- answers of a file system's functions -----------------------------------------------------------------------------

READDIR = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
// Listing a directory below $READDIR_BELOW fails.
static int is_below(int listing) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", listing);
    return readlink(link, path, sizeof path - 1) > 0 && strstr(path, getenv("READDIR_BELOW")) == path;
}
#define SHIM(type, name)                                                                    \
    struct type *name(DIR *listing) {                                                       \
        if (is_below(dirfd(listing))) { errno = EIO; return NULL; }                                   \
        return ((struct type *(*)(DIR *))dlsym(RTLD_NEXT, #name))(listing);                 \
    }
SHIM(dirent, readdir)
SHIM(dirent64, readdir64)
long syscall(long number, ...) {
    va_list list;
    long given[6];
    va_start(list, number);
    for (int i = 0; i < 6; ++i) given[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_getdents64 && is_below((int)given[0])) { errno = EIO; return -1; }
    return ((long (*)(long, ...))dlsym(RTLD_NEXT, "syscall"))(
        number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
"""


@pytest.fixture(scope="session")
def readdir_shim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A library that makes listing directories fail, or a skip where there is no compiler."""
    folder = tmp_path_factory.mktemp("readdir")
    (folder / "shim.c").write_text(READDIR)
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "shim.c", "-o", "shim.so", "-ldl"], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs gcc")
    yield folder / "shim.so"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite", "always"]])
def test_a_directory_that_cannot_be_listed_ends_a_restore_with_one_line(
    overwrite: list[str], readdir_shim: Path, target: Path
) -> None:
    target.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(readdir_shim), "READDIR_BELOW": str(target)}
    ran = command("restore", GOLDEN / "example.dumont", target, *overwrite, env=environment)
    assert (ran.code, ran.out) == (1, "")
    assert str(target) in ran.error and "Input/output error" in ran.error


@pytest.mark.parametrize("method", ["hybrid_v3", "hybrid_v2"])
def test_a_directory_that_cannot_be_listed_is_a_problem_of_a_pack(
    method: str, readdir_shim: Path, filled: Path, snapshot: Path
) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(readdir_shim), "READDIR_BELOW": str(filled / "d")}
    ran = command("pack", filled, "-o", snapshot, "--method", method, env=environment)
    assert (ran.code, ran.error) == (3, "dumont-gpu: d: Input/output error")
