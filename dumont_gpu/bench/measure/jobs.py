"""Whole jobs by command line: packs and restores of a tree, ours against archivers and `cp -a`.

This module runs in a small process without NumPy: Linux counts the memory of a parent into the peak of its children.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dumont_gpu.bench.compare_trees import differences
from dumont_gpu.bench.measure.clock import rotated
from dumont_gpu.bench.measure.contenders import Case, Contender, command_line
from dumont_gpu.bench.measure.memory import warm
from dumont_gpu.bench.measure.places import Places, files_below, places
from dumont_gpu.bench.measure.processes import CommandError, Finished, execute
from dumont_gpu.bench.report.machine import file_system
from dumont_gpu.errors import DumontError

_ENVIRONMENT = {"RESTIC_PASSWORD": "benchmark", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
_CACHE_VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")  # restic and borg start without a cache
Say = Callable[[str], None]


class JobError(DumontError):
    """A job of ours failed, or did not bring back the tree that was packed."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The input of a case."""

    case: Case
    origin: str
    build: Callable[[Path], Path]  # makes the tree at an absent path, or returns another path


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a case may take."""

    repeats: int
    with_minor: bool = True  # whether minor peers take part
    minor_seconds: float = 8.0  # a minor peer runs no more once its runs add up to this
    enough_seconds: float = math.inf  # packs, or restores, are repeated no more after this; minor peers do not count
    settle_seconds: float = 1.0  # between the sync and a timed run


@dataclass(slots=True)
class JobFigures:
    """Costs of one job of one contender."""

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


def measure_jobs(
    trees: Sequence[Tree], scratch: Path, patience: Patience, failures: list[str], say: Say = lambda text: None
) -> dict[str, Any]:
    """Returns all figures of this part, ready for JSON.

    Args:
        trees: packed and restored one after the other.
        scratch: a directory for everything that is written, all of which is deleted at the end.
        patience: bounds the time of each tree.
        failures: gets a line if a job of ours fails, which ends the part.
        say: told of each run.
    """
    kind = file_system(scratch)
    part: dict[str, Any] = {
        "repeats": patience.repeats,
        "file_system": f"{kind} (memory; --scratch measures a disk)" if kind == "tmpfs" else kind,
        "settle_seconds": patience.settle_seconds,
        "minor_seconds": patience.minor_seconds,
        "enough_seconds": patience.enough_seconds if patience.enough_seconds < math.inf else None,
        "own_peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "trees": {},
        "figures": [],
    }
    with places(scratch) as room:
        for tree in trees:
            source = tree.build(room.new() / "source")
            part["trees"][tree.case.name] = {"origin": tree.origin, **tree_size(source)}
            try:
                part["figures"] += map(asdict, CaseRun(tree.case, source, room, patience, say).run())
            except JobError as error:
                failures.append(str(error))
    os.sync()  # writes that the kernel still holds back must not slow down the next part
    return part


def tree_size(root: Path) -> dict[str, int]:
    """Counts the files below `root`: `size` and `disk_size` (without holes) in bytes, hard links once."""
    found = [entry.stat(follow_symlinks=False) for entry in files_below(root)]
    inodes = {status.st_ino: status for status in found}.values()
    return {
        "files": len(found),
        "size": sum(status.st_size for status in inodes),
        "disk_size": sum(status.st_blocks * 512 for status in inodes),
    }


class CaseRun:
    """All jobs on one tree: the packs, then the restores of the last archives.

    Args:
        case: its contenders pack and restore.
        source: the tree.
        room: a disk for archives and restored trees.
        patience: bounds the time.
        say: told of each run.
    """

    def __init__(self, case: Case, source: Path, room: Places, patience: Patience, say: Say) -> None:
        self._case, self._source, self._room, self._patience, self._say = case, source, room, patience, say
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
        started = time.monotonic()
        for repeat in range(self._patience.repeats):
            minor = sum(sum(row.seconds) for row in rows if row.minor)
            if repeat and time.monotonic() - started - minor > self._patience.enough_seconds:
                break
            for contender, row in rotated(pairs, repeat):
                self._turn(job, contender, row)
        return rows

    def _turn(self, job: str, contender: Contender, row: JobFigures) -> None:
        row.problem = row.problem or self._reason_to_skip(contender)
        if row.problem or (contender.minor and sum(row.seconds) > self._patience.minor_seconds):
            return
        try:
            (self._pack if job == "pack" else self._restore)(contender, row)
        except CommandError as error:
            if contender.is_ours:
                raise JobError(f"{contender.name}: {error}") from None
            row.problem, row.seconds = str(error), []
        self._say(f"{self._case.name}: {job}: {row.contender}: {row.problem or f'{row.seconds[-1]:.2f} s'}")

    def _reason_to_skip(self, contender: Contender) -> str:
        if missing := contender.missing():
            return f"not installed: {', '.join(missing)}"
        return "" if self._patience.with_minor or not contender.minor else "left out"

    def _pack(self, contender: Contender, row: JobFigures) -> None:
        if last := self._packed.pop(contender.name, None):
            self._room.give_back(last)
        place = self._room.new()
        paths = {"SOURCE": self._source, "ARCHIVE": place / "archive"}
        for command in contender.prepare:
            _execute(command, paths, self._source, place)
        warm(self._source)
        self._time(contender, row, paths, self._source, place)
        archive = paths["ARCHIVE"]
        row.archive_size = tree_size(archive)["size"] if archive.is_dir() else archive.stat().st_size
        self._packed[contender.name] = place

    def _restore(self, contender: Contender, row: JobFigures) -> None:
        archive = self._packed[contender.reads] / "archive" if contender.reads else self._source
        place = self._room.new()
        target = place / "target"
        target.mkdir()
        warm(archive)
        self._time(contender, row, {"SOURCE": self._source, "ARCHIVE": archive, "TARGET": target}, target, place)
        if contender.is_ours and row.identical is None:
            found = list(differences(self._source, target))
            row.identical = not found
            if found:
                raise JobError(f"{contender.name} did not restore the tree: {'; '.join(found[:20])}")
        self._room.give_back(place)

    def _time(
        self, contender: Contender, row: JobFigures, paths: Mapping[str, Path], folder: Path, place: Path
    ) -> None:
        """Adds a run of `contender`, in `folder`, to its figures. `place` lies on the disk that is measured."""
        subprocess.run(["sync", "-f", str(place)], check=True)
        time.sleep(self._patience.settle_seconds)
        done = [_execute(command, paths, folder, place) for command in contender.commands]
        row.seconds.append(sum(each.seconds for each in done))
        row.cpu_seconds.append(sum(each.user + each.system for each in done))
        row.peak_rss = max(row.peak_rss, *(each.peak_rss for each in done))


def _execute(command: str, paths: Mapping[str, Path], folder: Path, place: Path) -> Finished:
    environment = {**os.environ, **_ENVIRONMENT, **dict.fromkeys(_CACHE_VARIABLES, str(place / "caches"))}
    try:
        return execute(command_line(command, paths), folder, environment)
    except CommandError as error:
        message = str(error)
        for name, path in paths.items():
            message = message.replace(str(path), name)  # results name no path of this machine
        raise CommandError(message) from None
