#!/usr/bin/env python3
"""System calls that fail: the outcome is right, or a single clear line; then the same command completes its job.

A shim (failing.c, compiled here) makes the Nth call of a function, every Nth, or all from the Nth on fail with a drawn errno, or do
less than requested. Pack, repack, restore, resume, restore over an old tree, verify and ls run with this shim.
"""

from __future__ import annotations

import ctypes
import errno
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from campaign import Campaign, Finding, fresh, options, remove
from worlds import JOBS, World, check_all_but_the_root, fingerprint
from zygote import Program, Ran

SIZE = 700_000  # bytes of a tree
CASES_OF_A_WORLD = 40
MODES = ("once", "from", "every")
LESS = 0  # instead of an errno: the call does a part of its work
SANE = {"verify": {0, 1}, "ls": {0, 1}, "pack": {0, 1, 3, 6}, "repack": {0, 1, 3, 6}}
SANE_RESTORE = {0, 1, 3, 6}
TRY_AGAIN = (errno.EINTR, errno.EAGAIN, LESS)

COMPILERS = (("cc",), ("gcc",), ("clang",), ("g++", "-x", "c"))
IO = (errno.EIO, errno.EINTR)
ERRORS: dict[str, tuple[int, ...]] = {
    "open": (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.EINTR, errno.ENOMEM, errno.ENOSPC),
    "openat": (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.EINTR, errno.ENOMEM, errno.ENOSPC),
    "read": (*IO, errno.EAGAIN, LESS),
    "pread": (*IO, errno.EAGAIN, errno.ENOMEM, LESS),
    "write": (*IO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, LESS),
    "pwrite": (*IO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EINVAL, LESS),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EINTR),
    "fdatasync": (errno.EIO, errno.ENOSPC, errno.EINTR),
    "ftruncate": (errno.EIO, errno.ENOSPC, errno.EFBIG, errno.EPERM),
    "fallocate": (errno.ENOSPC, errno.EOPNOTSUPP, errno.EIO),
    "rename": (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EXDEV),
    "link": (errno.EIO, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP),
    "symlink": (errno.EIO, errno.EPERM, errno.ENOSPC),
    "unlink": (errno.EIO, errno.EPERM, errno.EACCES),
    "mkdir": (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMLINK),
    "rmdir": (errno.EIO, errno.EACCES),
    "fchmod": (errno.EIO, errno.EPERM, errno.EROFS),
    "futimens": (errno.EIO, errno.EPERM, errno.EROFS),
    "fchown": (errno.EPERM, errno.EIO),
    "flock": (errno.ENOLCK, errno.ENOSYS, errno.EINTR, errno.EIO),
    "lseek": (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP),
    "fstat": (errno.EIO, errno.ENOMEM, errno.EOVERFLOW),
    "stat": (errno.EIO, errno.EACCES, errno.ENOMEM),
    "statx": (errno.EIO, errno.EACCES, errno.ENOSYS),
    "statvfs": (errno.EIO, errno.ENOSYS),
    "mmap": (errno.ENOMEM, errno.ENODEV),
    "pthread_create": (errno.EAGAIN,),
    "readdir": (errno.EIO,),
    "readlink": (errno.EIO, errno.EACCES),
    "close": (errno.EIO, errno.EINTR, errno.ENOSPC),
    "fcntl": (errno.EMFILE,),  # of F_DUPFD, the call behind dup()
}


@dataclass(frozen=True)
class Fault:
    world: int
    job: str
    function: str
    mode: str
    nth: int
    error: int

    def __str__(self) -> str:
        what = errno.errorcode.get(self.error, "less than asked for")
        when = {
            "once": f"call {self.nth}",
            "from": f"call {self.nth} and all later ones",
            "every": f"every {self.nth}th call",
        }
        return f"world {self.world}, {self.job}: {self.function} gives {what} at {when[self.mode]}"


def compiled(place: Path) -> Path | None:
    """Compiles the shim; None where nothing compiles C."""
    shim = place / "failing.so"
    source = Path(__file__).with_name("failing.c")
    for compiler in COMPILERS:
        if shutil.which(compiler[0]):
            command = [*compiler, "-O1", "-shared", "-fPIC", "-o", shim, source, "-ldl"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return shim
    return None


class Syscalls:
    def __init__(self, place: Path, shim: Path) -> None:
        self.place = place
        self.work = fresh(place / "work")
        library = ctypes.CDLL(str(shim))
        library.failing_name.restype = ctypes.c_char_p
        self.functions = [library.failing_name(number).decode() for number in range(library.failing_functions())]
        self.program = Program({"DUMONT_FAILING_PLACE": str(self.work)}, preload=shim)
        self._worlds: dict[int, World] = {}
        self._counts: dict[tuple[int, str], dict[str, int]] = {}

    def world(self, seed: int) -> World:
        if seed not in self._worlds:
            self._worlds.clear()
            self._counts.clear()
            self._worlds[seed] = World.make(seed, self.work / "world", self.program, SIZE)
        return self._worlds[seed]

    def counts(self, seed: int, job: str) -> dict[str, int]:
        """Counts an undisturbed job's calls of each function."""
        if (seed, job) not in self._counts:
            ran = self.run(self.world(seed), job, None)
            if ran.code != 0:
                raise RuntimeError(f"{job}, undisturbed: {ran.code} {ran.error}")
            self._counts[seed, job] = dict(zip(self.functions, self.program.counts, strict=True))
        return self._counts[seed, job]

    def run(self, world: World, name: str, failing: tuple[int, int, int, int] | None) -> Ran:
        job, case = JOBS[name], fresh(self.work / "case")
        job.prepare(world, case)
        return self.program(*job.arguments(world, case), failing=failing)

    def draw(self, dice: random.Random, seed: int) -> Fault:
        job = dice.choice(list(JOBS))
        counts = {name: count for name, count in self.counts(seed, job).items() if count and name in ERRORS}
        function = dice.choice(list(counts))
        mode = dice.choice(("once", "once", "from", "every"))
        # The first and the last calls are the rare ones.
        nth = min(counts[function], math.ceil(counts[function] ** dice.random()))
        if mode != "every" and dice.random() < 0.4:
            nth = counts[function] + 1 - nth
        error = dice.choice(ERRORS[function])
        if error in TRY_AGAIN and (mode == "from" or nth == 1):
            mode = "once"  # else trying again never ends, and is right to
        return Fault(seed, job, function, mode, nth, error)

    def judge(self, fault: Fault) -> str:
        try:
            return self._judge(fault)
        except Finding as found:
            raise Finding(f"{fault.job}, {fault.function}: {found}") from None

    def _judge(self, fault: Fault) -> str:
        world, job, case = self.world(fault.world), JOBS[fault.job], self.work / "case"
        before = fingerprint(world.place)
        orders = (self.functions.index(fault.function), MODES.index(fault.mode), fault.nth, fault.error)
        ran = self.run(world, fault.job, orders)
        self._sane(fault, ran)
        if fingerprint(world.place) != before:
            raise Finding("what was only to be read has changed")
        if ran.code in (0, 3):
            job.check(world, case, self.program, ran)
            return "done" if ran.code == 0 else "done, with problems"
        job.left(world, case, self.program, ran)
        blind = fault.function == "stat" and fault.mode != "once"  # files whose status cannot be read are not deleted
        if fault.function not in ("unlink", "flock") and not blind and fault.job in ("pack", "repack"):
            left = sorted(path.name for path in case.iterdir() if path.name != "x.dumont")
            if left:
                raise Finding(f"a pack that failed leaves something behind\n{left}\n{ran.error}")
        again = self.program(*job.arguments(world, case))
        if (
            again.code == 0 and b"every entry is restored" in ran.err
        ):  # there is nothing left to go on with, as was said
            check_all_but_the_root(world, case)
            return "one line, but all restored"
        if again.code != 0:
            raise Finding(f"the same command does not go on: {again.code}\nfirst: {ran.error}\nthen: {again.error}")
        job.check(world, case, self.program, again)
        return "one line, then done"

    def _sane(self, fault: Fault, ran: Ran) -> None:
        if ran.crashed:
            raise Finding(f"{ran.crashed}")
        if ran.code not in SANE.get(fault.job, SANE_RESTORE):
            raise Finding(f"exit code {ran.code}\n{ran.error}")
        if ran.code not in (0, 3) and (ran.err.count(b"\n") != 1 or not ran.err.startswith(b"dumont-gpu: ")):
            raise Finding(f"exit code {ran.code} without exactly one line\n{ran.error}")


def smaller(fault: Fault) -> Iterator[Fault]:
    if fault.mode != "once":
        yield replace(fault, mode="once")
    for nth in (1, 2, fault.nth // 2, fault.nth - 1):
        if 0 < nth < fault.nth and (fault.mode == "once" or fault.error not in TRY_AGAIN):
            yield replace(fault, nth=nth)
    if fault.error != errno.EIO and errno.EIO in ERRORS[fault.function]:
        yield replace(fault, error=errno.EIO)


def main() -> int:
    chosen = options(__doc__)
    shim = compiled(chosen.place)
    if shim is None:
        print("syscalls: nothing here compiles C: skipped")
        remove(chosen.place)
        return 0
    syscalls = Syscalls(chosen.place, shim)
    drawn = iter(range(chosen.first, 1 << 62))

    def draw(dice: random.Random) -> Fault:
        return syscalls.draw(dice, chosen.seed + next(drawn) // CASES_OF_A_WORLD)

    try:
        return Campaign("syscalls", chosen, draw, syscalls.judge, smaller, str).run()
    finally:
        syscalls.program.close()


if __name__ == "__main__":
    sys.exit(main())
