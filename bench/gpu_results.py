"""What the steps of a GPU check left in its work folder, and in earlier reports, as one object.

A step leaves NAME.status ("exit-code seconds limit"), NAME.log, and NAME.json if it measures. What is cut off counts as
not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpu_machine import describe_gpu_machine, device_name
from whole_file import write_whole

Json = dict[str, Any]
STEPS = ("install", "smoke", "self_test", "tests", "sanitizer", "kernels", "encode", "copies", "jobs", "packs")
LOG_LINES = 15
MACHINE = "machine.json"
TIMED_OUT = (124, 137)
STOPPED = (129, 130, 143)
SKIPPED = 77  # and the log says why


def describe(work: Path, device: int) -> None:
    """Writes what `collect` says of the machine: asking the device takes seconds, or for ever."""
    described = {"device": device_name(device), "machine": describe_gpu_machine(device)}
    write_whole(work / MACHINE, json.dumps(described))


def collect(work: Path) -> Json:
    """Reads what the steps left in `work`."""
    described = _json(work / MACHINE) or {"device": "unknown", "machine": {"date": "unknown", "commit": "unknown"}}
    found: Json = {"device": described["device"], "steps": {}}
    for step in STEPS:
        status, log = work / f"{step}.status", work / f"{step}.log"
        if not status.exists():
            continue
        code, seconds, limit = _numbers(status)
        found["steps"][step] = {
            "machine": described["machine"], "exit_code": code, "seconds": seconds, "limit": limit,
            "log": _last_lines(log.read_text(encoding="utf-8", errors="replace"), work) if log.exists() else [],
            "data": _json(work / f"{step}.json"),
        }  # fmt: skip
    return found


def _numbers(status: Path) -> tuple[int, int, int]:
    """Exit code, seconds and limit; a status that a full disk cut off is a failure."""
    try:
        code, seconds, limit = (int(float(word)) for word in status.read_text(encoding="utf-8").split())
    except ValueError:
        return 1, 0, 0
    return code, seconds, limit


def _json(path: Path) -> Json | None:
    """The object in a file; None if there is none, or only a part of it."""
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def earlier(path: Path) -> list[Json]:
    """The results that a new report adds to; a file that holds none is put aside."""
    found = _json(path)
    if found and "device" in found and isinstance(found.get("steps"), dict):
        return [found]
    if path.exists():
        path.replace(path.with_name(f"{path.name}.unreadable"))
    return []


def merge(parts: Iterable[Json]) -> Json:
    """Of each step the last."""
    merged: Json = {"device": "unknown", "steps": {}}
    for part in parts:
        if part["device"] != "unknown":
            merged["device"] = part["device"]
        merged["steps"] |= part["steps"]
    return merged


def _last_lines(log: str, work: Path) -> list[str]:
    lines = log.replace(str(work), "WORK").replace(str(Path.home()), "~").splitlines()
    return [line[:300] for line in lines if line.strip()][-LOG_LINES:]
