"""Where the time of a pack and of a restore goes, beside the limits of memory and disk on the same machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from dumont_gpu.bench.measure.clock import seconds_of
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.bench.measure.places import Places, places
from dumont_gpu.bench.measure.processes import dumont
from dumont_gpu.sizes import MiB

_SIZE: Final = 256 * MiB  # moved for each limit
_PIECE: Final = 64 * MiB
_KEPT: Final = ("wall", "user", "system", "seconds", "stage_seconds", "codec_bytes")  # of a summary


def measure_profile(tree: Path, scratch: Path, repeats: int) -> dict[str, Any]:
    """Runs pack and restore by command line, and the limits, `repeats` times each; every list has an item for each run.

    Raises:
        CommandError: a command failed.
    """
    jobs: dict[str, list[dict[str, Any]]] = {"pack": [], "restore": []}
    limits: dict[str, list[float]] = {}
    with places(scratch) as found:
        for _ in range(repeats):
            for name, seconds in _limits(found).items():
                limits.setdefault(name, []).append(_SIZE / seconds)
            snapshot = found.new() / "workspace.dumont"
            target = found.new() / "target"
            for name, arguments in (
                ("pack", (str(tree), "-o", str(snapshot))),
                ("restore", (str(snapshot), str(target), "--no-sync")),
            ):
                summary = dumont(name, *arguments, folder=scratch)
                jobs[name].append({key: summary[key] for key in _KEPT if key in summary})
            os.sync()
    return {"repeats": repeats, "jobs": jobs, "limits": limits}


def _limits(found: Places) -> dict[str, float]:
    """Seconds that a thread takes for `_SIZE` bytes."""
    pieces = range(0, _SIZE, _PIECE)
    source, target = anonymous(_PIECE), anonymous(_PIECE)
    source[:] = target[:] = os.urandom(_PIECE)
    path = found.new() / "file"
    results = {
        "memory, copied": seconds_of(lambda: [target.__setitem__(slice(None), source) for _ in pieces]),
        "fresh pages, written": seconds_of(
            lambda: [anonymous(_PIECE).__setitem__(slice(None), source) for _ in pieces]
        ),
        "BLAKE3": seconds_of(lambda: [blake3(source).digest() for _ in pieces]),
    }
    with contextlib.suppress(OSError):  # a file system without direct I/O
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        results["disk, written directly"] = seconds_of(lambda: [os.pwrite(fd, source, at) for at in pieces])
        results["disk, read directly"] = seconds_of(lambda: [os.preadv(fd, [target], at) for at in pieces])
        os.close(fd)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    results["page cache, written"] = seconds_of(lambda: [os.pwrite(fd, source, at) for at in pieces])
    results["page cache, read"] = seconds_of(lambda: [os.preadv(fd, [target], at) for at in pieces])
    os.ftruncate(fd, 0)
    os.close(fd)
    return results
