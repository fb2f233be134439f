"""Trees and snapshots that campaigns work on, made once for a seed, and the commands that they try."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from campaign import Finding, differences, fresh, grow, ours, remove
from zygote import Program, Ran

VERIFY = ("--device", "cpu", "--jobs", "2", "--memory", "64MiB")
READ = (*VERIFY, "-v")  # every problem is named
PACK = (*READ, "--chunk-size", "64KiB")


@dataclass(frozen=True)
class World:
    """A tree and its snapshot, an older tree and its snapshot, and a restore that was interrupted, if the interruption succeeded."""

    seed: int
    place: Path

    @property
    def source(self) -> Path:
        return self.place / "source"

    @property
    def snapshot(self) -> Path:
        return self.place / "source.dumont"

    @property
    def old(self) -> Path:
        return self.place / "old"

    @property
    def old_snapshot(self) -> Path:
        return self.place / "old.dumont"

    @property
    def half(self) -> Path:
        return self.place / "half"

    @classmethod
    def make(cls, seed: int, place: Path, program: Program, size: int) -> World:
        world = cls(seed, fresh(place))
        dice = random.Random(f"world {seed}")
        grow(dice, world.source, size)
        make_older(dice, world.source, world.old)
        for tree, snapshot in ((world.source, world.snapshot), (world.old, world.old_snapshot)):
            done(program("pack", tree, "-o", snapshot, *PACK))
        world._interrupt(dice, program)
        return world

    def _interrupt(self, dice: random.Random, program: Program) -> None:
        """Leaves a killed restore in `half`."""
        target = self.place / "whole"
        seconds = done(program("restore", self.snapshot, target, *READ)).seconds
        remove(target)
        for _ in range(50):
            fresh(self.half)
            ran = program("restore", self.snapshot, self.half, *READ, kill_after=dice.uniform(0.1, 0.9) * seconds)
            if ran.code == -9 and (self.half / ".dumont-restore").exists():
                return
        print("no restore could be interrupted in time: resume begins anew in this world")
        fresh(self.half)


def done(ran: Ran) -> Ran:
    """Checks a command that must succeed."""
    if ran.code != 0:
        raise RuntimeError(f"exit code {ran.code}: {ran.error}")
    return ran


def make_older(dice: random.Random, source: Path, old: Path) -> None:
    """A copy of a tree in which files differ, are missing, and are there in addition."""
    copy(source, old)
    for folder, _, names in os.walk(old):
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_symlink() or dice.random() < 0.5:
                continue
            path.chmod(0o644)
            if dice.random() < 0.3:
                path.unlink()
            else:
                path.write_bytes(dice.randbytes(dice.randrange(20_000)))
    (old / "extra").write_bytes(b"not of the snapshot")


def copy(tree: Path, to: Path) -> None:
    """A copy with times, modes, links and hard links."""
    remove(to)
    links: dict[int, str] = {}

    def copied(source: str, target: str) -> None:
        inode = os.stat(source).st_ino
        if inode in links:
            os.link(links[inode], target)
        else:
            shutil.copy2(source, target)
            links[inode] = target

    shutil.copytree(tree, to, symlinks=True, copy_function=copied)


def fingerprint(place: Path) -> dict[str, tuple[int, ...]]:
    """Returns the state that a job must not change if it only reads."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            found[path] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_nlink)
    return found


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A command, its input, and the judgement of its result."""

    name: str
    prepare: Callable[[World, Path], None]  # fills an empty directory with the command's input
    arguments: Callable[[World, Path], tuple[str | Path, ...]]
    check: Callable[[World, Path, Program, Ran], None]  # raises Finding unless the result agrees with exit code 0 or 3
    left: Callable[[World, Path, Program, Ran], None]  # raises Finding if after a failure something is lost


def nothing(world: World, place: Path, *_: object) -> None:
    pass


def check_packed(world: World, place: Path, program: Program, ran: Ran) -> None:
    check_snapshot(world, place, program, ran)
    check_left(place, {"x.dumont"})


def check_snapshot(world: World, place: Path, program: Program, ran: Ran) -> None:
    """Raises Finding unless the snapshot is the whole tree."""
    target = place / "restored"
    again = program("restore", place / "x.dumont", target, "--no-sync", *READ)
    if again.code != 0:
        raise Finding(f"exit code {ran.code}, but what was packed cannot be restored\n{again.error}")
    check_same(world.source, target, ran)
    remove(target)


def check_restored(world: World, place: Path, program: Program, ran: Ran) -> None:
    check_same(world.source, place / "target", ran)
    check_left(place / "target", None)


def check_all_but_the_root(world: World, place: Path) -> None:
    """Raises Finding unless every entry is restored, as a restore that failed at its very end says: the target's own time may be missing."""
    for line in differences(world.source, place / "target"):
        if not line.startswith(("'.': mtime_ns ", "'.': mode ")) and line != "'extra': only in B":
            raise Finding(f"every entry is restored, it says, and a wrong tree\n{line}")
    check_left(place / "target", None)


def check_same(source: Path, target: Path, ran: Ran) -> None:
    """Raises Finding for a difference that the command did not name."""
    problems = ran.error.splitlines() if ran.code == 3 else []
    told = bool(problems) or b"hard link" in ran.out + ran.err  # a file system without hard links gets a copy
    unsure = b"was written, but" in ran.err  # the snapshot must not be relied on, and its gaps are not named
    for line in differences(source, target):
        if line == "'extra': only in B" or ((told or unsure) and "hard links" in line):
            continue
        if unsure and line.endswith("only in A"):
            continue
        if not any(excuses(problem, source, line) for problem in problems):
            raise Finding(f"exit code {ran.code} and a wrong tree\n{line}\n{ran.error}")


def excuses(problem: str, source: Path, difference: str) -> bool:
    """Whether `dumont-gpu: NAME: REASON` names a difference: the entry, another name of its file, or a directory that is not there."""
    name = difference.split("': ")[0].strip("'")
    names = {name}
    if ": its " in problem:
        if not difference.split("': ")[1].startswith(("mode ", "mtime_ns ")):
            return False
    elif difference.endswith("only in A"):
        names |= {str(folder) for folder in Path(name).parents}
    status = os.lstat(source / name) if os.path.lexists(source / name) else None
    if status is not None and status.st_nlink > 1:
        names |= {
            os.path.relpath(os.path.join(folder, other), source)
            for folder, _, others in os.walk(source)
            for other in others
            if os.lstat(os.path.join(folder, other)).st_ino == status.st_ino
        }
    return any(problem.startswith(f"dumont-gpu: {known}: ") for known in names)


def check_left(place: Path, names: set[str] | None) -> None:
    """Raises Finding if there is something unfinished, or anything but `names`."""
    left = ours(place) or (sorted({path.name for path in place.iterdir()} - names) if names is not None else [])
    if left:
        raise Finding(f"something is left behind\n{left}")


def no_snapshot(world: World, place: Path, program: Program, ran: Ran) -> None:
    """Raises Finding for an incomplete snapshot: steps after the rename may fail, too."""
    if (place / "x.dumont").exists():
        check_snapshot(world, place, program, ran)


def old_snapshot(world: World, place: Path, program: Program, ran: Ran) -> None:
    if not (place / "x.dumont").exists():
        raise Finding("the old snapshot is gone")
    if (place / "x.dumont").read_bytes() != world.old_snapshot.read_bytes():
        check_snapshot(world, place, program, ran)


def restored_from(world: World, place: Path) -> tuple[str | Path, ...]:
    return "restore", world.snapshot, place / "target", *READ


def read_only(world: World, place: Path, program: Program, ran: Ran) -> None:
    check_left(place, set())


JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        Job("pack", nothing, lambda w, p: ("pack", w.source, "-o", p / "x.dumont", *PACK), check_packed, no_snapshot),
        Job(
            "repack",
            lambda w, p: (p / "x.dumont").write_bytes(w.old_snapshot.read_bytes()) and None,
            lambda w, p: ("pack", w.source, "-o", p / "x.dumont", *PACK),
            check_packed,
            old_snapshot,
        ),
        Job("restore", nothing, restored_from, check_restored, nothing),
        Job("resume", lambda w, p: copy(w.half, p / "target"), restored_from, check_restored, nothing),
        Job(
            "restore over",
            lambda w, p: copy(w.old, p / "target"),
            lambda w, p: (*restored_from(w, p), "--overwrite", "always"),
            check_restored,
            nothing,
        ),
        Job("verify", nothing, lambda w, p: ("verify", w.snapshot, "--content", *VERIFY), read_only, nothing),
        Job("ls", nothing, lambda w, p: ("ls", "-l", w.snapshot), read_only, nothing),
    )
}
