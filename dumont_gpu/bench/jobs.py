"""Measures whole jobs by command line: pack and restore trees, ours against archivers and `cp -a`.

Keep this module's process small and without NumPy: Linux counts a parent's memory into the peak of a child it starts.
"""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dumont_gpu.bench.compare_trees import differences
from dumont_gpu.bench.contenders import Case, Contender, command_line
from dumont_gpu.bench.places import Places, files_below
from dumont_gpu.errors import DumontError
from dumont_gpu.sizes import MiB

SETTLE = 1.0  # seconds between the sync and a timed run
MINOR_SECONDS = 8.0  # a minor peer runs no more once its runs add up to this
ENVIRONMENT = {"RESTIC_PASSWORD": "benchmark", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
CACHE_VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")  # restic and borg start without a cache


class JobError(DumontError):
    """A job of ours failed, or did not bring back the tree that was packed."""


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


def tree_size(root: Path) -> dict[str, int]:
    """Counts the files below `root`: `size` and `disk_size` (without holes) in bytes, hard links once."""
    found = [entry.stat(follow_symlinks=False) for entry in files_below(root)]
    inodes = {status.st_ino: status for status in found}.values()
    return {
        "files": len(found),
        "size": sum(status.st_size for status in inodes),
        "disk_size": sum(status.st_blocks * 512 for status in inodes),
    }


def _size(archive: Path) -> int:
    return tree_size(archive)["size"] if archive.is_dir() else archive.stat().st_size


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


class CaseRun:
    """All jobs on one tree: first the packs, then the restores of what the last packs made.

    Args:
        case: who packs and restores.
        source: the tree.
        room: where archives and restored trees are written.
        repeats: runs of each; the peers called minor stop once theirs add up to `minor_seconds`.
        with_minor: whether those take part at all.
        enough: seconds after which packs, or restores, are repeated no more; those of minor peers do not count.
        settle: seconds of rest before each timed run, after a sync.
        say: told of each run.
    """

    def __init__(
        self,
        case: Case,
        source: Path,
        room: Places,
        repeats: int,
        *,
        with_minor: bool = True,
        minor_seconds: float = MINOR_SECONDS,
        enough: float = math.inf,
        settle: float = SETTLE,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._case, self._source, self._room, self._repeats = case, source, room, repeats
        self._with_minor, self._minor_seconds, self._settle, self._say = with_minor, minor_seconds, settle, say
        self._enough = enough
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
        for repeat in range(self._repeats):
            minor = sum(sum(row.seconds) for row in rows if row.minor)
            if repeat and time.monotonic() - started - minor > self._enough:
                break
            turn = repeat % len(pairs)
            for contender, row in (*pairs[turn:], *pairs[:turn]):
                row.problem = row.problem or self._reason_to_skip(contender)
                if row.problem or (contender.minor and sum(row.seconds) > self._minor_seconds):
                    continue
                try:
                    (self._pack if job == "pack" else self._restore)(contender, row)
                except CommandError as error:
                    if contender.is_ours:
                        raise JobError(f"{contender.name}: {error}") from None
                    row.problem, row.seconds = str(error), []
                self._say(f"{self._case.name}: {job}: {row.contender}: {row.problem or f'{row.seconds[-1]:.2f} s'}")
        return rows

    def _reason_to_skip(self, contender: Contender) -> str:
        if missing := contender.missing():
            return f"not installed: {', '.join(missing)}"
        return "" if self._with_minor or not contender.minor else "left out"

    def _pack(self, contender: Contender, row: JobFigures) -> None:
        if last := self._packed.pop(contender.name, None):
            self._room.give_back(last)
        place = self._room.new()
        paths = {"SOURCE": self._source, "ARCHIVE": place / "archive"}
        for command in contender.prepare:
            _execute(command, paths, self._source, place)
        _warm(self._source)
        self._time(contender, row, paths, self._source, place)
        row.archive_size = _size(paths["ARCHIVE"])
        self._packed[contender.name] = place

    def _restore(self, contender: Contender, row: JobFigures) -> None:
        archive = self._packed[contender.reads] / "archive" if contender.reads else self._source
        place = self._room.new()
        target = place / "target"
        target.mkdir()
        _warm(archive)
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
        """Adds one run of `contender`, in `folder`, to its figures. `place` lies on the disk that is measured."""
        subprocess.run(["sync", "-f", str(place)], check=True)
        time.sleep(self._settle)
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
