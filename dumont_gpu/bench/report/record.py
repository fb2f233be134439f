"""The record of a benchmark: figures by part, and the machine that they were measured on. Its JSON is kept in results.

schema     2; another number once old readers would misread the record
made_by    a command
version    of dumont-gpu
machine    name -> text; `machines` has that of each part that was measured at another time (part -> machine)
device     {"name": "cuda:0" or "", "detail": its model, or why there is none}
failures   lines: every output that was not intact
seconds    of the whole run; `part_seconds` has those of each part
corpora    name -> origin
own        {"rates": [...]}: `jobs` are those of a user's own folder, to be drawn with links of these bytes per second
PARTS      figures, if the part was run
steps      of a GPU check: step -> machine, exit_code, seconds, limit, log, data (its figures)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from dumont_gpu.bench.report.machine import describe

SCHEMA: Final = 2
PARTS: Final = ("rows", "codecs", "chunks", "projections", "jobs", "links", "network", "load", "profile")
Json = dict[str, Any]
Record = dict[str, Any]  # ready for JSON


def new_record(made_by: str, tools: Iterable[str] = (), checkout: Path | None = None) -> Record:
    """Returns a record without figures.

    Args:
        made_by: a command.
        tools: commands that are measured.
        checkout: the repository that is measured, if known.
    """
    from dumont_gpu import __version__

    return {
        "schema": SCHEMA,
        "made_by": made_by,
        "version": __version__,
        "machine": describe(tools, checkout),
        "device": {"name": "", "detail": "not asked for"},
        "failures": [],
    }


def merge(records: Iterable[Record]) -> Record:
    """Joins records of one machine, the oldest first: of each part and step the last counts."""
    merged: Record = {}
    for record in records:
        kept = [part for part in PARTS if part in merged and part not in record]
        machines = {part: machine_of(merged, part) for part in kept} | record.get("machines", {})
        steps = merged.get("steps", {}) | record.get("steps", {})
        device = record["device"] if record["device"]["name"] or not merged else merged["device"]
        merged = merged | record | {"device": device}
        merged |= ({"machines": machines} if machines else {}) | ({"steps": steps} if steps else {})
    return merged


def machine_of(record: Record, part: str) -> dict[str, str]:
    """Returns the machine as it was when a part was measured."""
    machine: dict[str, str] = record.get("machines", {}).get(part, record["machine"])
    return machine


def machines(record: Record) -> list[tuple[dict[str, str], list[str]]]:
    """Returns each machine of a record and its parts, once where machines differ in the moment only."""
    measured = {part: machine_of(record, part) for part in PARTS if part in record}
    measured |= {name: step["machine"] for name, step in record.get("steps", {}).items()}
    found: list[tuple[dict[str, str], list[str]]] = []
    for part, machine in measured.items():
        same = next((parts for other, parts in found if _lasting(other) == _lasting(machine)), None)
        if same is None:
            found.append((machine, [part]))
        else:
            same.append(part)
    return found or [(record["machine"], [])]


def read_record(path: Path) -> Record | None:
    """Returns the record in a file; None if there is no such file, or no record in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def _lasting(machine: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in machine.items() if name not in ("date", "load before")}
