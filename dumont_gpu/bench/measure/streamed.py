"""How much memory a prefetch takes whose tensors are dropped as they come: a process of its own, which tells its peak.

python -m dumont_gpu.bench.measure.streamed SNAPSHOT PATH LIMIT [MEMORY]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dumont_gpu.errors import DumontError


def measure_stream(snapshot: str, path: str, limit: int, memory: int = 0) -> dict[str, Any]:
    """Returns what `stream` does, in a process that did nothing else.

    Raises:
        DumontError: the process failed.
    """
    words = [str(Path(snapshot).resolve()), path, str(limit), str(memory)]
    command = [sys.executable, "-m", "dumont_gpu.bench.measure.streamed", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")  # not beside some sources
    if done.returncode:
        raise DumontError(f"a streamed load failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stream(snapshot: str, path: str, limit: int, memory: int) -> dict[str, Any]:
    """Takes every tensor and drops it.

    Args:
        snapshot: a path.
        path: as of `dumont_gpu.open`.
        limit: of the prefetch, bytes.
        memory: for chunks, bytes; 0: the default.

    Returns seconds, bytes of all tensors and of the largest, and of the process before and at its peak (RSS).
    """
    import numpy  # noqa: F401, what is measured is the load

    import dumont_gpu

    dumont_gpu.open  # noqa: B018, imports what it needs
    before, started = _resident("VmRSS"), time.perf_counter()
    sizes = []
    with (
        dumont_gpu.open(snapshot, path, memory=memory) as tensors,
        tensors.prefetch(limit=limit) as ready,
    ):
        for name in ready.names():
            sizes.append(ready.take(name).nbytes)
    return {
        "seconds": time.perf_counter() - started,
        "size": sum(sizes),
        "largest": max(sizes, default=0),
        "limit": limit,
        "before": before,
        "peak": _resident("VmHWM"),  # of this program: ru_maxrss would count the parent's memory, too
    }


def _resident(field: str) -> int:
    """Returns bytes of this process that are in memory: "VmRSS" now, "VmHWM" at the peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    print(json.dumps(stream(sys.argv[1], sys.argv[2], *map(int, (*sys.argv[3:], "0")[:2]))))
