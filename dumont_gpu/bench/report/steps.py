"""Reads the files that the steps of a GPU check leave in its work folder into a record.

A step leaves NAME.status ("exit-code seconds limit"), NAME.log, and NAME.json if it measures. A file that was cut off
counts as absent.
"""

from __future__ import annotations

import json
from pathlib import Path

from dumont_gpu.bench.report.gpu_machine import describe_gpu_machine, device_name
from dumont_gpu.bench.report.record import SCHEMA, read_record
from dumont_gpu.bench.report.tables import Json
from dumont_gpu.bench.report.whole_file import write_whole

STEPS = ("install", "smoke", "self_test", "tests", "sanitizer", "kernels", "variants", "encode", "copies", "jobs",
         "packs", "loads")  # fmt: skip
LOG_LINES = 15
MACHINE = "machine.json"
TIMED_OUT = (124, 137)
STOPPED = (129, 130, 143)
SKIPPED = 77  # the log says why
UNKNOWN = "unknown"


def describe_check(work: Path, device: int, checkout: Path) -> None:
    """Writes the machine into `work` for `collect`: a device may take seconds to answer, or never."""
    described = {"device": device_name(device), "machine": describe_gpu_machine(device, checkout)}
    write_whole(work / MACHINE, json.dumps(described))


def collect(work: Path) -> Json:
    """Returns the record of the steps in `work`."""
    described = _json(work / MACHINE) or {"device": UNKNOWN, "machine": {"date": UNKNOWN, "commit": UNKNOWN}}
    known = described["device"] != UNKNOWN
    device = {"name": "cuda" if known else "", "detail": described["device"]}
    found: Json = {"schema": SCHEMA, "made_by": "bench/gpu_check.sh", "device": device, "steps": {}}
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
    """The object in a file; None if there is no file, or only a part of it."""
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def earlier(path: Path) -> list[Json]:
    """The record that a new record adds to; a file that holds no record is put aside."""
    found = read_record(path)
    if found and isinstance(found.get("steps"), dict):
        return [found]
    if path.exists():
        path.replace(path.with_name(f"{path.name}.unreadable"))
    return []


def _last_lines(log: str, work: Path) -> list[str]:
    lines = log.replace(str(work), "WORK").replace(str(Path.home()), "~").splitlines()
    return [line[:300] for line in lines if line.strip()][-LOG_LINES:]
