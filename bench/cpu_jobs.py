"""Builds the trees of the CPU benchmark and has whole jobs on them measured: ours against archivers and `cp -a`.

Keep this module's process small and without NumPy: Linux counts a parent's memory into the peak of a child it starts.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import REPOSITORY, file_system

from dumont_gpu.bench.contenders import SMALL_FILES, WORKSPACE, Case
from dumont_gpu.bench.jobs import MINOR_SECONDS, SETTLE, CaseRun, JobError, JobFigures, tree_size
from dumont_gpu.bench.places import places

QUICK_SMALL_FILES = (2000, 20)  # files, directories


def measure(workspace: Path | None, scratch: Path, repeats: int, quick: bool = False) -> dict[str, Any]:
    """Returns all figures of this part, ready for JSON.

    Args:
        workspace: what to pack; None: the tree of bench/workspace.py is built for it.
        scratch: a directory for everything that is written; what is made there is deleted again.
    """
    figures: list[JobFigures] = []
    trees = {}
    with places(scratch) as room:
        for case in (WORKSPACE, SMALL_FILES):
            given = workspace if case is WORKSPACE else None
            source = given.resolve() if given else build(case, room.new() / "source", quick)
            trees[case.name] = {"origin": _origin(case, given, quick), **tree_size(source)}
            try:
                figures += CaseRun(case, source, room, repeats, with_minor=not quick, say=_say).run()
            except JobError as error:
                raise SystemExit(str(error)) from None
    return {
        "repeats": repeats,
        "settle_seconds": SETTLE,
        "minor_seconds": MINOR_SECONDS,
        "file_system": file_system(scratch),
        "own_peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "trees": trees,
        "figures": [asdict(row) for row in figures],
    }


def tools() -> list[str]:
    """Returns the executables of all peers."""
    return sorted(
        {tool for case in (WORKSPACE, SMALL_FILES) for c in (*case.packs, *case.restores) for tool in c.needs}
    )


def build(case: Case, target: Path, quick: bool) -> Path:
    """Makes the tree of a case at `target`."""
    print(f"jobs: building the {case.name}", file=sys.stderr, flush=True)
    bench = REPOSITORY / "bench"
    if case is WORKSPACE:
        command = [str(bench / "workspace.py"), "build", str(target), "--size", "small" if quick else "full"]
    else:
        command = [str(bench / "small_files.py"), str(target), *(map(str, QUICK_SMALL_FILES) if quick else ())]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return target


def _origin(case: Case, workspace: Path | None, quick: bool) -> str:
    if case is SMALL_FILES:
        return "bench/small_files.py"
    return "given by --workspace" if workspace else f"bench/workspace.py, {'small' if quick else 'full'}"


def _say(text: str) -> None:
    print(f"jobs: {text}", file=sys.stderr, flush=True)
