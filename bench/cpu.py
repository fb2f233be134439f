"""The CPU benchmark: our codecs and whole jobs against their peers, in one run on this machine.

    python bench/cpu.py [codecs|jobs|profile|all] [--workspace DIR] [--repeats N] [--results DIR] [--scratch DIR]
                        [--quick]

Needs `pip install '.[bench]'`. Peers that are installed take part, the others are listed as absent. Packages:
zstandard, and zipnn (`pip install --no-deps zipnn==0.5.4`); commands: zstd, lz4, restic, borg, mksquashfs, unsquashfs.
Prints Markdown, and writes it to `cpu-MODEL.md` with `cpu-MODEL.json` beside it; a part that is not run keeps its place
in them. `--quick` only shows that everything works: it writes no results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cpu_jobs
import cpu_profile
from cpu_report import render
from machine import cpu_slug, describe

PARTS = ("codecs", "jobs", "profile")
REPEATS = {"codecs": 5, "jobs": 3, "profile": 5}


def run_jobs(options: argparse.Namespace) -> dict[str, Any]:
    machine = describe(cpu_jobs.tools())
    repeats = _repeats("jobs", options)
    return {"machine": machine, **cpu_jobs.measure(options.workspace, options.scratch, repeats, options.quick)}


def run_codecs(options: argparse.Namespace) -> dict[str, Any]:
    import cpu_codecs  # after the jobs: they must start from a small process

    machine = describe()
    return {"machine": machine, **cpu_codecs.measure(_repeats("codecs", options), options.quick)}


def run_profile(options: argparse.Namespace) -> dict[str, Any]:
    repeats = _repeats("profile", options)
    return {"machine": describe(), **cpu_profile.measure(options.workspace, options.scratch, repeats, options.quick)}


def _repeats(part: str, options: argparse.Namespace) -> int:
    return options.repeats or (1 if options.quick else REPEATS[part])


def publish(results: dict[str, Any], folder: Path) -> None:
    """Writes the results of this machine, and keeps those of parts that did not run now."""
    folder.mkdir(parents=True, exist_ok=True)
    data, text = (folder / f"cpu-{cpu_slug()}{suffix}" for suffix in (".json", ".md"))
    kept = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}
    merged = {part: found for part in PARTS if (found := results.get(part) or kept.get(part))}
    data.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    text.write_text(render(merged), encoding="utf-8")
    print(f"written: {data.name} and {text.name}", file=sys.stderr)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure codecs and jobs on the CPU, against their peers.")
    parser.add_argument("part", nargs="?", choices=(*PARTS, "all"), default="all")
    parser.add_argument(
        "--workspace", type=Path, metavar="DIR", help="pack DIR; otherwise bench/workspace.py builds one"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="timed runs of each (codecs 5, jobs 3, profile 5)")
    default_results = Path(__file__).resolve().parent / "results"
    parser.add_argument("--results", type=Path, metavar="DIR", default=default_results, help="default: bench/results")
    parser.add_argument("--scratch", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()),
                        help="where jobs write, on the disk to measure; needs 8 times the workspace")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small inputs, one run, no slow peers, nothing written")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    results = {}
    for part, run in (("jobs", run_jobs), ("profile", run_profile), ("codecs", run_codecs)):
        if options.part in (part, "all"):
            results[part] = run(options)
    print(render(results))
    if not options.quick:
        publish(results, options.results)


if __name__ == "__main__":
    main()
