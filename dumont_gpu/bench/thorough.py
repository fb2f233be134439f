"""The thorough run behind `bench/cpu.py`: whole jobs on large trees, a profile, every codec path, on one machine.

    python bench/cpu.py [codecs|jobs|profile|all] [--workspace DIR] [--tree NAME=DIR] [--repeats N] [--results DIR]
                        [--scratch DIR] [--quick]

Installed peers take part, others are listed as absent. Package:
zipnn (`pip install --no-deps zipnn==0.5.4`); commands: zstd, lz4, restic, borg, mksquashfs, unsquashfs.
Prints Markdown, and writes it to `cpu-MODEL.md` with the record, `cpu-MODEL.json`, beside it; parts that are not run
keep their figures there. `--quick` only shows that everything works: it writes no results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from dumont_gpu.bench.corpora.weights import weights
from dumont_gpu.bench.measure.codecs import SIZE, measure_codecs
from dumont_gpu.bench.measure.codecs import failures as codec_failures
from dumont_gpu.bench.measure.contenders import OWN_TREE, SMALL_FILES, WORKSPACE, tools
from dumont_gpu.bench.measure.jobs import Patience, Tree, measure_jobs
from dumont_gpu.bench.measure.places import places
from dumont_gpu.bench.measure.profile import measure_profile
from dumont_gpu.bench.report.machine import cpu_slug, describe
from dumont_gpu.bench.report.record import Json, Record, merge, new_record, read_record
from dumont_gpu.bench.report.text import markdown
from dumont_gpu.bench.report.whole_file import write_whole
from dumont_gpu.errors import DumontError
from dumont_gpu.sizes import MiB

_REPEATS: Final = {"codecs": 5, "jobs": 3, "profile": 5}
_QUICK_SIZE: Final = 8 * MiB  # of each kind of weights
_QUICK_SMALL_FILES: Final = ("2000", "20")  # files, directories


def main(checkout: Path, arguments: Sequence[str] | None = None) -> int:
    options = _parse(checkout, arguments)
    try:
        record = _measure(options, checkout)
    except DumontError as error:
        sys.exit(str(error))
    print(markdown(record))
    if not options.quick:
        _publish(record, options.results)
    return 1 if record["failures"] else 0


def _measure(options: argparse.Namespace, checkout: Path) -> Record:
    record = new_record("python bench/cpu.py", checkout=checkout) | {"machines": {}}
    for part, measure in _PARTS.items():
        if options.part in (part, "all"):
            needed = tools(WORKSPACE, SMALL_FILES, OWN_TREE) if part == "jobs" else ()
            record["machines"][part] = describe(needed, checkout)
            repeats = options.repeats or (1 if options.quick else _REPEATS[part])
            record[part] = measure(options, repeats, record["failures"])
    return record


def _jobs(options: argparse.Namespace, repeats: int, failures: list[str]) -> Json:
    small = _QUICK_SMALL_FILES if options.quick else ()
    trees = [_own_tree(*given) for given in options.tree] or [
        _workspace(options),
        Tree(SMALL_FILES, "bench/small_files.py", lambda target: _build("small_files", target, str(target), *small)),
    ]
    return measure_jobs(trees, options.scratch, Patience(repeats, with_minor=not options.quick), failures, _say)


def _profile(options: argparse.Namespace, repeats: int, failures: list[str]) -> Json:
    with places(options.scratch) as room:
        return measure_profile(_workspace(options).build(room.new() / "source"), options.scratch, repeats)


def _codecs(options: argparse.Namespace, repeats: int, failures: list[str]) -> Json:
    part = measure_codecs(weights(_QUICK_SIZE if options.quick else SIZE), repeats, thorough=True, say=_say)
    failures += codec_failures(part)
    return part


_PARTS: Final = {"jobs": _jobs, "profile": _profile, "codecs": _codecs}  # jobs first: a small process starts them


def _workspace(options: argparse.Namespace) -> Tree:
    if options.workspace:
        return Tree(WORKSPACE, "given by --workspace", lambda target: Path(options.workspace.resolve()))
    size = "small" if options.quick else "full"
    arguments = ("--size", size)
    return Tree(
        WORKSPACE,
        f"bench/workspace.py, {size}",
        lambda target: _build("workspace", target, "build", str(target), *arguments),
    )


def _own_tree(name: str, folder: Path) -> Tree:
    return Tree(replace(OWN_TREE, name=name), "given by --tree", lambda target: folder)


def _build(module: str, target: Path, *arguments: str) -> Path:
    """Builds a tree in another process: the benchmark's own stays small, and without NumPy."""
    _say(f"building {module}")
    command = [sys.executable, "-m", f"dumont_gpu.bench.corpora.{module}", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return target


def _publish(record: Record, folder: Path) -> None:
    """Writes the record of this machine, and keeps parts that did not run now."""
    folder.mkdir(parents=True, exist_ok=True)
    data, text = (folder / f"cpu-{cpu_slug()}{suffix}" for suffix in (".json", ".md"))
    merged = merge([*filter(None, [read_record(data)]), record])
    write_whole(data, json.dumps(merged, indent=1) + "\n")
    write_whole(text, markdown(merged))
    _say(f"written: {data.name} and {text.name}")


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and Path(folder).is_dir()):
        raise argparse.ArgumentTypeError(f"{text}: NAME=DIR, where DIR is a directory")
    return name, Path(folder).resolve()


def _parse(checkout: Path, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure codecs and jobs on the CPU, against their peers.")
    parser.add_argument("part", nargs="?", choices=(*_PARTS, "all"), default="all")
    parser.add_argument(
        "--workspace", type=Path, metavar="DIR", help="pack DIR; otherwise bench/workspace.py builds a tree"
    )
    parser.add_argument(
        "--tree", type=_named, metavar="NAME=DIR", action="append", default=[],
        help="jobs: pack DIR instead, against tar and hybrid_v2; may be repeated",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, metavar="N", help="timed runs of each (codecs 5, jobs 3, profile 5)")
    results = checkout / "bench" / "results"
    parser.add_argument("--results", type=Path, metavar="DIR", default=results, help="default: bench/results")
    parser.add_argument("--scratch", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()),
                        help="where jobs write, on the disk to measure; needs 8 times the workspace")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small inputs, one run, no slow peers, nothing written")
    return parser.parse_args(arguments)
