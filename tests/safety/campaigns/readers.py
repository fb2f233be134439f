#!/usr/bin/env python3
"""Damaged snapshots, given to the reader for any machine: the verdict of the independent reader, and never a wrong file.

Cases are those of archives.py, and snapshots with bytes that changed, or are missing, after they were signed. Each goes
through ls, verify and restore, with the standard library alone and with whatever else is there, in a process of its own.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bends
import zygote
from archives import OK, Archives, Expected
from campaign import Campaign, fresh, options
from zygote import Ran

from dumont_gpu.reader import dumont_reader

NAMES = {OK: "ok", 4: "damaged", 8: "not supported"}


@dataclass(frozen=True)
class Case:
    bent: bends.Bent
    flips: tuple[tuple[int, int], ...]  # (place, bits): of bytes that change after the snapshot is signed
    cut: int  # bytes that are missing at the end
    pure: bool


def draw(dice: random.Random) -> Case:
    bent, pure = bends.draw(dice), dice.random() < 0.7
    if dice.randrange(4):
        return Case(bent, (), 0, pure)
    flips = tuple((dice.randrange(1 << 20), 1 << dice.randrange(8)) for _ in range(dice.randrange(1, 4)))
    return Case(bends.Bent(bent.base, ()), flips, dice.choice((0, 0, 0, 1, dice.randrange(5000))), pure)


def smaller(case: Case) -> Iterator[Case]:
    for number in range(len(case.flips)):
        yield Case(case.bent, case.flips[:number] + case.flips[number + 1 :], case.cut, case.pure)
    for bent in bends.smaller(case.bent):
        yield Case(bent, case.flips, case.cut, case.pure)


def build(case: Case) -> bytes:
    data = bytearray(bends.build(case.bent))
    for place, bits in case.flips:
        data[place % len(data)] ^= bits
    return bytes(data[: max(0, len(data) - case.cut)])


class Readers(Archives):
    """Judges the reader as archives.py judges the program: only the command differs, and what a command checks."""

    def __init__(self, place: Path) -> None:
        self.place = place
        dumont_reader.faster.find()  # once, before the forks: packages need their time
        self._found = dumont_reader.faster

    def judge_case(self, case: Case) -> str:
        data = build(case)
        place = fresh(self.place / "case")
        (place / "beside").write_bytes(b"stays")
        snapshot, target = place / "x.dumont", place / "target"
        snapshot.write_bytes(data)
        expected = Expected(data)
        self.check("ls", self.run(case, "ls", "-l", snapshot), {expected.table})
        self.check("verify", self.run(case, "verify", snapshot), expected.content, expected.large)
        ran = self.run(case, "restore", "--no-sync", "--max-size", str(1 << 30), snapshot, target)
        self.check("restore", ran, expected.restored, expected.large, may_not=True)
        self.check_place(place, data)
        if ran.code == OK and expected.tree is not None:
            self.check_tree(target, expected.tree)
        return "large" if expected.large else NAMES[min(expected.restored)]

    def run(self, case: Case, *arguments: str | Path) -> Ran:
        def command() -> None:
            dumont_reader.faster = dumont_reader.Faster() if case.pure else self._found
            dumont_reader.faster.find = lambda: None  # type: ignore[method-assign]
            code = dumont_reader.main([os.fspath(argument) for argument in arguments])
            sys.stdout.flush()
            os._exit(code)

        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                zygote.in_child(command, out.fileno(), err.fileno())
            ended, code, peak = zygote.wait(child, zygote.LIMIT)
            # Messages begin with the program's name, which `check` looks for.
            said = zygote.read(err.fileno()).replace(b"dumont_reader: ", b"dumont-gpu: ")
            return Ran(code, zygote.read(out.fileno()), said, peak, zygote.LIMIT, hung=not ended)


def show(case: Case) -> str:
    return f"{case.bent.base} archive, {', '.join(map(ascii, (*case.bent.bends, *case.flips)))}, {case.cut} less"


def main() -> int:
    chosen = options(__doc__)
    return Campaign("readers", chosen, draw, Readers(chosen.place).judge_case, smaller, show).run()


if __name__ == "__main__":
    sys.exit(main())
