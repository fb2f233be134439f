"""Writes the report of a GPU check, as JSON and Markdown; the program behind `bench/gpu_report.py`.

    python bench/gpu_report.py describe WORK                  # the machine, once: WORK/machine.json
    python bench/gpu_report.py collect WORK --results DIR     # the steps of bench/gpu_check.sh in WORK so far
    python bench/gpu_report.py merge FILE... --results DIR    # records of several runs; of each step the last counts
    python bench/gpu_report.py options FILE...                # from records to dumont_gpu/backends/kernel_options.py

The report must come out where nothing else works: without third-party packages, with files missing, cut off or empty.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from dumont_gpu.bench.report.kernel_options import write_options
from dumont_gpu.bench.report.machine import slug
from dumont_gpu.bench.report.record import merge
from dumont_gpu.bench.report.steps import collect, describe_check, earlier
from dumont_gpu.bench.report.tables import Json
from dumont_gpu.bench.report.text import markdown
from dumont_gpu.bench.report.whole_file import write_whole


def publish(record: Json, folder: Path) -> list[Path]:
    """Writes `gpu-NAME.json`, and then `.md`: should rendering fail, the figures are safe."""
    folder.mkdir(parents=True, exist_ok=True)
    data, text = (folder / f"{_name(record)}{suffix}" for suffix in (".json", ".md"))
    write_whole(data, json.dumps(record, indent=1) + "\n")
    write_whole(text, markdown(record))
    return [data, text]


def main(checkout: Path, arguments: list[str] | None = None) -> int:
    options = _parse(checkout, arguments)
    try:
        if options.command == "describe":
            describe_check(options.work, options.device, checkout)
            return 0
        if options.command == "options":
            table = write_options(checkout / "dumont_gpu/backends/kernel_options.py", map(_read, options.files))
            print(f"kernel_options.py: {table or 'no device is faster with other options'}", file=sys.stderr)
            return 0
        if options.command == "collect":
            new = collect(options.work)
            record = merge([*earlier(options.results / f"{_name(new)}.json"), new])
        else:
            record = merge(map(_read, options.files))
        for path in publish(record, options.results):
            print(f"written: {path.name}", file=sys.stderr)
    except OSError as error:
        print(f"gpu_report.py: {error.strerror or error}: {error.filename or options.results}", file=sys.stderr)
        return 1
    except Exception as error:  # of the report itself, not of the check
        traceback.print_exc()
        print(f"gpu_report.py: no report: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(checkout: Path, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write the report of a GPU check.")
    commands = parser.add_subparsers(dest="command", required=True)
    describing, collecting = (commands.add_parser(name) for name in ("describe", "collect"))
    describing.add_argument("--device", type=int, default=0)
    for command in (describing, collecting):
        command.add_argument("work", type=Path)
    merging, choosing = (commands.add_parser(name) for name in ("merge", "options"))
    for command in (merging, choosing):
        command.add_argument("files", type=Path, nargs="+")
    for command in (collecting, merging):
        command.add_argument("--results", type=Path, default=checkout / "bench" / "results", metavar="DIR")
    return parser.parse_args(arguments)


def _read(file: Path) -> Json:
    found: Json = json.loads(file.read_text(encoding="utf-8"))
    return found


def _name(record: Json) -> str:
    return f"gpu-{slug(record['device']['detail'])}"
