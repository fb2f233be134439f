"""Where the time of a pack and of a restore goes, beside what memory and disk can do on the same machine."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3
from cpu_jobs import build

from dumont_gpu.bench.contenders import WORKSPACE
from dumont_gpu.bench.places import Places, places

PROGRAM = str(Path(sys.executable).parent / "dumont-gpu")
SIZE = 256 << 20
PIECE = 64 << 20


def measure(workspace: Path | None, scratch: Path, repeats: int, quick: bool = False) -> dict[str, Any]:
    """Runs pack and restore by command line, and the limits, `repeats` times each; every list has one item a run."""
    jobs: dict[str, list[dict[str, Any]]] = {"pack": [], "restore": []}
    limits: dict[str, list[float]] = {}
    with places(scratch) as found:
        tree = workspace.resolve() if workspace else build(WORKSPACE, found.new() / "source", quick)
        for _ in range(repeats):
            for name, seconds in _limits(found).items():
                limits.setdefault(name, []).append(SIZE / seconds)
            snapshot = found.new() / "workspace.dumont"
            jobs["pack"].append(_run(["pack", str(tree), "-o", str(snapshot)]))
            target = found.new() / "target"
            jobs["restore"].append(_run(["restore", str(snapshot), str(target), "--no-sync"]))
            os.sync()
    return {"repeats": repeats, "jobs": jobs, "limits": limits}


def _run(arguments: list[str]) -> dict[str, Any]:
    """Returns the job's own summary, with its whole time and that of the processor."""
    started = time.perf_counter()
    process = subprocess.Popen([PROGRAM, *arguments, "--json", "--progress", "none"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"dumont-gpu {arguments[0]} failed with {process.returncode}")
    summary = json.loads(output.splitlines()[-1])
    wanted = ("seconds", "stage_seconds", "codec_bytes")
    times = {"wall": wall, "user": usage.ru_utime, "system": usage.ru_stime}
    return times | {key: summary[key] for key in wanted if key in summary}


def _limits(found: Places) -> dict[str, float]:
    """Seconds that SIZE bytes take, in one thread."""
    pieces = range(0, SIZE, PIECE)
    source, target = (memoryview(mmap.mmap(-1, PIECE)) for _ in range(2))
    source[:] = target[:] = os.urandom(PIECE)
    path = found.new() / "file"
    results = {
        "memory, copied": _seconds(lambda: [target.__setitem__(slice(None), source) for _ in pieces]),
        "fresh pages, written": _seconds(lambda: [_fresh(source) for _ in pieces]),
        "BLAKE3": _seconds(lambda: [blake3(source).digest() for _ in pieces]),
    }
    with contextlib.suppress(OSError):  # a file system without direct I/O
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        results["disk, written directly"] = _seconds(lambda: [os.pwrite(fd, source, at) for at in pieces])
        results["disk, read directly"] = _seconds(lambda: [os.preadv(fd, [target], at) for at in pieces])
        os.close(fd)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    results["page cache, written"] = _seconds(lambda: [os.pwrite(fd, source, at) for at in pieces])
    results["page cache, read"] = _seconds(lambda: [os.preadv(fd, [target], at) for at in pieces])
    os.ftruncate(fd, 0)
    os.close(fd)
    return results


def _fresh(source: memoryview) -> None:
    with mmap.mmap(-1, PIECE) as memory:
        memory[:] = source[:]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
