"""Measures whole jobs by command line: pack and restore trees, ours against archivers and `cp -a`.

Keep this module's process small and without NumPy: Linux counts a parent's memory into the peak of a child it starts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compare_trees import differences
from job_contenders import SMALL_FILES, WORKSPACE, Case, Contender, command_line
from machine import REPOSITORY, file_system
from places import Places, files_below, give_space_back, places

MiB = 1 << 20
SETTLE = 1.0  # seconds between the sync and a timed run
MINOR_SECONDS = 8.0  # a minor peer runs no more once its runs add up to this
QUICK_SMALL_FILES = (2000, 20)  # files, directories
ENVIRONMENT = {"RESTIC_PASSWORD": "benchmark", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
CACHE_VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")  # restic and borg start without a cache


class CommandError(Exception):
    """A command of a contender failed."""


@dataclass(slots=True)
class JobFigures:
    """What one contender needed for one job."""

    case: str
    job: str  # pack or restore
    contender: str
    commands: list[str]
    minor: bool
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # user and system
    peak_rss: int = 0  # bytes, of the largest process
    archive_size: int = 0  # bytes; 0: no archive
    identical: bool | None = None  # the restored tree, compared once; None: not compared
    problem: str = ""  # why there are no figures


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
            trees[case.name] = {"origin": _origin(case, given, quick), **_tree_size(source)}
            figures += _CaseRun(case, source, room, repeats, quick).run()
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


def _tree_size(root: Path) -> dict[str, int]:
    found = [entry.stat(follow_symlinks=False) for entry in files_below(root)]
    inodes = {status.st_ino: status for status in found}.values()
    return {
        "files": len(found),
        "size": sum(status.st_size for status in inodes),
        "disk_size": sum(status.st_blocks * 512 for status in inodes),
    }


def _size(archive: Path) -> int:
    return _tree_size(archive)["size"] if archive.is_dir() else archive.stat().st_size


def _warm(root: Path) -> None:
    """Reads every file once, so that it is in the page cache (restic and borg drop what they read)."""
    buffer = bytearray(MiB)
    files = (
        (entry.path for entry in files_below(root) if entry.is_file(follow_symlinks=False)) if root.is_dir() else [root]
    )
    for path in files:
        with Path(path).open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


class _CaseRun:
    """All jobs on one tree: first the packs, then the restores of what the last packs made."""

    def __init__(self, case: Case, source: Path, room: Places, repeats: int, quick: bool) -> None:
        self._case, self._source, self._room, self._repeats, self._quick = case, source, room, repeats, quick
        self._packed: dict[str, Path] = {}  # pack -> the place of its last run

    def run(self) -> list[JobFigures]:
        packed = self._repeat("pack", self._case.packs)
        made = {row.contender for row in packed if row.seconds}
        restores = [c for c in self._case.restores if not c.reads or c.reads in made]
        return packed + self._repeat("restore", restores)

    def _repeat(self, job: str, contenders: Sequence[Contender]) -> list[JobFigures]:
        """Each repeat runs every contender once, in an order that rotates."""
        rows = [JobFigures(self._case.name, job, c.name, list(c.commands), c.minor) for c in contenders]
        pairs = list(zip(contenders, rows, strict=True))
        for repeat in range(self._repeats):
            turn = repeat % len(pairs)
            for contender, row in (*pairs[turn:], *pairs[:turn]):
                row.problem = row.problem or self._reason_to_skip(contender, row)
                if row.problem or (contender.minor and sum(row.seconds) > MINOR_SECONDS):
                    continue
                try:
                    (self._pack if job == "pack" else self._restore)(contender, row)
                except CommandError as error:
                    if contender.is_ours:
                        raise SystemExit(f"{contender.name}: {error}") from None
                    row.problem, row.seconds = str(error), []
                print(f"jobs: {self._case.name}: {job}: {row.contender}: {row.problem or f'{row.seconds[-1]:.2f} s'}",
                      file=sys.stderr, flush=True)  # fmt: skip
        return rows

    def _reason_to_skip(self, contender: Contender, row: JobFigures) -> str:
        if missing := contender.missing():
            return f"not installed: {', '.join(missing)}"
        return "left out by --quick" if contender.minor and self._quick else ""

    def _pack(self, contender: Contender, row: JobFigures) -> None:
        if last := self._packed.pop(contender.name, None):
            give_space_back(last)
        place = self._room.new()
        paths = {"SOURCE": self._source, "ARCHIVE": place / "archive"}
        for command in contender.prepare:
            _execute(command, paths, self._source, place)
        _warm(self._source)
        _time(contender, row, paths, self._source, place)
        row.archive_size = _size(paths["ARCHIVE"])
        self._packed[contender.name] = place

    def _restore(self, contender: Contender, row: JobFigures) -> None:
        archive = self._packed[contender.reads] / "archive" if contender.reads else self._source
        place = self._room.new()
        target = place / "target"
        target.mkdir()
        _warm(archive)
        _time(contender, row, {"SOURCE": self._source, "ARCHIVE": archive, "TARGET": target}, target, place)
        if contender.is_ours and row.identical is None:
            found = list(differences(self._source, target))
            row.identical = not found
            if found:
                raise SystemExit("\n".join([f"{contender.name} did not restore the tree:", *found[:20]]))
        give_space_back(place)


def _time(contender: Contender, row: JobFigures, paths: Mapping[str, Path], folder: Path, place: Path) -> None:
    """Adds one run of `contender`, in `folder`, to its figures. `place` lies on the disk that is measured."""
    subprocess.run(["sync", "-f", str(place)], check=True)
    time.sleep(SETTLE)
    seconds, cpu_seconds = 0.0, 0.0
    for command in contender.commands:
        took, cpu, peak = _execute(command, paths, folder, place)
        seconds, cpu_seconds, row.peak_rss = seconds + took, cpu_seconds + cpu, max(row.peak_rss, peak)
    row.seconds.append(seconds)
    row.cpu_seconds.append(cpu_seconds)


def _execute(command: str, paths: Mapping[str, Path], folder: Path, place: Path) -> tuple[float, float, int]:
    """Runs one command; its seconds, CPU seconds, and peak memory in bytes (of its largest process)."""
    words = command_line(command, paths)
    environment = {**os.environ, **ENVIRONMENT, **dict.fromkeys(CACHE_VARIABLES, str(place / "caches"))}
    with tempfile.TemporaryFile() as messages:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            messages.seek(0)
            message = (messages.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            for name, path in paths.items():
                message = message.replace(str(path), name)  # results name no path of this machine
            raise CommandError(f"exit code {process.returncode}: {message}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
