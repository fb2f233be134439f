"""The frame of every campaign: command line, cases drawn from a seed, the count of verdicts, and the smallest case."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

ROOT = Path(__file__).resolve().parents[3]
# The installed package, not the checkout, which has no compiled kernels; and the tests' shared modules.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
sys.path.insert(0, str(ROOT / "tests"))

MOST_FINDINGS = 30  # of different kinds; then a campaign ends
MOST_SHRINKS = 200  # tries to make a case smaller
SHRINK_SECONDS = 20.0

Case = TypeVar("Case")


@dataclass(frozen=True)
class Options:
    seed: int
    seconds: float
    cases: int | None
    first: int  # number of the first case
    place: Path  # an empty directory, for this campaign only


def options(description: str | None) -> Options:
    """Parses the command line that all campaigns have."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="drawn, if not given")
    parser.add_argument("--seconds", type=float, help="end after so long; 60, if --cases is not given either")
    parser.add_argument("--cases", type=int, help="end after so many cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to see one again")
    given = parser.parse_args()
    seconds = given.seconds if given.seconds is not None else 60.0 if given.cases is None else float("inf")
    return Options(given.seed, seconds, given.cases, given.first, Path(tempfile.mkdtemp(prefix="dumont-campaign-")))


class Finding(Exception):  # noqa: N818 - the campaigns' word
    """A defect. The first line of its text names the kind of defect, further lines give details."""

    @property
    def kind(self) -> str:
        return str(self).split("\n")[0]


def no_smaller(case: Any) -> Iterator[Any]:
    return iter(())


@dataclass
class Campaign(Generic[Case]):
    """Draws cases, judges them, and reports findings.

    Args:
        draw: makes a case; the same case for the same dice.
        judge: returns a word for the outcome of a case, for the count.

            Raises:
                Finding: something that must not be.
        smaller: returns cases a little simpler than the given case, the simplest first.
        show: a case as a report has it.
    """

    name: str
    options: Options
    draw: Callable[[random.Random], Case]
    judge: Callable[[Case], str]
    smaller: Callable[[Case], Iterator[Case]] = no_smaller
    show: Callable[[Case], str] = repr
    verdicts: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)

    def run(self) -> int:
        """Runs until time or cases are over; returns the exit code."""
        started = time.monotonic()
        number = self.options.first
        print(f"{self.name}: seed {self.options.seed}", flush=True)
        try:
            while self._goes_on(number - self.options.first, time.monotonic() - started):
                self._case(number)
                number += 1
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
        finally:
            remove(self.options.place)
        verdicts = ", ".join(f"{verdict} {count}" for verdict, count in self.verdicts.most_common())
        seconds = time.monotonic() - started
        print(
            f"{self.name}: {number - self.options.first} cases in {seconds:.0f} s: {verdicts}; {len(self.findings)} findings"
        )
        return 1 if self.findings else 0

    def _goes_on(self, done: int, seconds: float) -> bool:
        if len(self.findings) >= MOST_FINDINGS or (self.options.cases is not None and done >= self.options.cases):
            return False
        return seconds < self.options.seconds

    def _case(self, number: int) -> None:
        case = self.draw(random.Random(f"{self.options.seed}:{number}"))
        try:
            self.verdicts[self.judge(case)] += 1
        except Finding as found:
            self.verdicts["finding"] += 1
            if found.kind not in self.findings:
                smallest, message = self._smallest(case, found)
                self.findings[found.kind] = message
                print(f"\nFINDING in case {number} (--seed {self.options.seed} --first {number} --cases 1)")
                print(f"{message}\nthe smallest case: {self.show(smallest)}\n", flush=True)

    def _smallest(self, case: Case, found: Finding) -> tuple[Case, str]:
        """Returns the simplest case with a finding of the same kind, and that finding."""
        message, tries, simpler = str(found), 0, True
        until = time.monotonic() + SHRINK_SECONDS
        while simpler:
            simpler = False
            for candidate in self.smaller(case):
                if tries >= MOST_SHRINKS or time.monotonic() > until:
                    break
                tries += 1
                try:
                    self.judge(candidate)
                except Finding as again:
                    if again.kind == found.kind:
                        case, message, simpler = candidate, str(again), True
                        break
        return case, message


def fresh(place: Path) -> Path:
    """An empty directory there."""
    remove(place)
    place.mkdir(parents=True)
    return place


def remove(place: Path) -> None:
    """Deletes a tree, whatever modes its directories have."""
    if place.is_symlink() or not place.is_dir():
        place.unlink(missing_ok=True)
        return

    def open_up(function: Callable[[str], object], path: str, _: object) -> None:
        os.chmod(os.path.dirname(path), 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path)
        else:
            function(path)

    shutil.rmtree(os.fsencode(place), onerror=open_up)


# --- trees ------------------------------------------------------------------------------------------------------------


def grow(dice: random.Random, top: Path, size: int) -> None:
    """Makes a tree of about `size` bytes: weights, text, noise, copies, holes, small files, links, directories."""
    top.mkdir(parents=True)
    folders = [top]
    for number in range(dice.randint(1, 6)):
        folder = dice.choice(folders) / f"d{number}"
        folder.mkdir()
        folders.append(folder)
    files: list[Path] = []
    left = size
    number = 0
    while left > 0:
        number += 1
        path = dice.choice(folders) / f"f{number}"
        length = min(left, int(dice.expovariate(4 / size)) + 1 if dice.random() < 0.3 else dice.randint(0, 9000))
        content = _content(dice, length)
        path.write_bytes(content)
        if dice.random() < 0.1:
            with path.open("r+b") as file:
                file.truncate(length + dice.randint(1, 1 << 20))  # a hole at the end
        os.chmod(path, dice.choice((0o644, 0o600, 0o755, 0o444)))
        files.append(path)
        left -= length + 100
    for number in range(dice.randint(1, 5)):
        os.link(dice.choice(files), dice.choice(folders) / f"h{number}")
        os.symlink(dice.choice(("f1", "../x", "/nowhere", "d0")), dice.choice(folders) / f"s{number}")
        shutil.copy(dice.choice(files), dice.choice(folders) / f"c{number}")
    for path in [*files, *reversed(folders)]:
        moment = dice.randrange(1_600_000_000 * 10**9, 1_800_000_000 * 10**9)
        os.utime(path, ns=(moment, moment))


def _content(dice: random.Random, length: int) -> bytes:
    kind = dice.randrange(4)
    if kind == 0:  # bf16: exponents that shrink
        noise = bytearray(dice.randbytes(length))
        noise[1::2] = bytes(60 + byte % 3 for byte in noise[1::2])
        return bytes(noise)
    if kind == 1:
        return (b"step %d loss 0.25\n" % dice.randrange(1000) * (length // 16 + 1))[:length]
    return dice.randbytes(length) if kind == 2 else bytes(length)


def differences(a: Path, b: Path) -> list[str]:
    """How tree `b` differs from tree `a`."""
    from dumont_gpu.bench.compare_trees import differences as found

    return list(found(a, b))


def ours(place: Path) -> list[str]:
    """Returns the names below a directory that the program gives to unfinished files."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), place)
        for folder, folders, files in os.walk(place)
        for name in [*folders, *files]
        if name.endswith(".partial") or name.startswith((".dumont-", ".x.dumont"))
    )
