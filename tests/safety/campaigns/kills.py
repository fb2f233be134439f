#!/usr/bin/env python3
"""kill -9 at random moments: the same command then completes its job, and nothing is lost or left behind.

Pack, repack over an older snapshot, restore, restore over an older tree, and restore over http from `dumont-gpu serve`; each is killed
once to three times and then left alone.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from campaign import Campaign, Finding, fresh, options
from worlds import JOBS, READ, Job, World, check_restored, fingerprint, nothing
from zygote import Program, Ran

SIZE = 8_000_000  # bytes of a tree: long enough to be killed within
CASES_OF_A_WORLD = 30


@dataclass(frozen=True)
class Kill:
    world: int
    job: str
    moments: tuple[float, ...]  # of each kill, as a part of the time that the job takes undisturbed

    def __str__(self) -> str:
        return f"world {self.world}, {self.job}, killed at {', '.join(f'{moment:.3f}' for moment in self.moments)} of its time"


class Server:
    """`dumont-gpu serve` on a free port."""

    def __init__(self, snapshot: Path) -> None:
        command = [sys.executable, "-m", "dumont_gpu", "serve", str(snapshot), "--port", "0"]
        self._process = subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[1]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Kills:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.program = Program()
        self._world: World | None = None
        self._server: Server | None = None
        self._seconds: dict[str, float] = {}
        over_http = Job("http restore", nothing, self._http_arguments, check_restored, nothing)
        self.jobs = {name: JOBS[name] for name in ("pack", "repack", "restore", "restore over")} | {
            over_http.name: over_http
        }

    def _http_arguments(self, world: World, place: Path) -> tuple[str | Path, ...]:
        assert self._server is not None
        return "restore", self._server.url, place / "target", *READ

    def world(self, seed: int) -> World:
        if self._world is None or self._world.seed != seed:
            self.close_server()
            self._world = World.make(seed, self.place / "world", self.program, SIZE)
            self._server = Server(self._world.snapshot)
            self._seconds = {}
        return self._world

    def close_server(self) -> None:
        if self._server is not None:
            self._server.close()

    def seconds(self, world: World, name: str) -> float:
        """How long a job takes, undisturbed: the shorter of two runs."""
        if name not in self._seconds:
            self._seconds[name] = min(self._undisturbed(world, name).seconds for _ in range(2))
        return self._seconds[name]

    def _undisturbed(self, world: World, name: str) -> Ran:
        job, case = self.jobs[name], fresh(self.place / "case")
        job.prepare(world, case)
        ran = self.program(*job.arguments(world, case))
        if ran.code != 0:
            raise Finding(f"{name}, undisturbed: {ran.code}\n{ran.error}")
        job.check(world, case, self.program, ran)
        return ran

    def judge(self, kill: Kill) -> str:
        try:
            return self._judge(kill)
        except Finding as found:
            raise Finding(f"{kill.job}: {found}") from None

    def _judge(self, kill: Kill) -> str:
        world, job, case = self.world(kill.world), self.jobs[kill.job], self.place / "case"
        seconds = self.seconds(world, kill.job)
        before = fingerprint(world.place)
        fresh(case)
        job.prepare(world, case)
        killed = 0
        for moment in kill.moments:
            ran = self.program(*job.arguments(world, case), kill_after=moment * seconds)
            if ran.code == 0:
                break
            if ran.code != -9:
                raise Finding(f"not killed, and exit code {ran.code}\n{ran.error}")
            killed += 1
            job.left(world, case, self.program, ran)
        else:
            ran = self.program(*job.arguments(world, case))
        if ran.crashed:
            raise Finding(ran.crashed)
        if ran.code != 0:
            raise Finding(f"the same command does not go on: {ran.code}\n{ran.error}")
        job.check(world, case, self.program, ran)
        if fingerprint(world.place) != before:
            raise Finding("what was only to be read has changed")
        return f"killed {killed} times" if killed else "too quick"


def smaller(kill: Kill) -> Iterator[Kill]:
    for number in range(len(kill.moments)):
        if len(kill.moments) > 1:
            yield replace(kill, moments=kill.moments[:number] + kill.moments[number + 1 :])


def main() -> int:
    chosen = options(__doc__)
    kills = Kills(chosen.place)
    drawn = iter(range(chosen.first, 1 << 62))

    def draw(dice: random.Random) -> Kill:
        world = chosen.seed + next(drawn) // CASES_OF_A_WORLD
        moments = tuple(dice.uniform(0, 1.05) for _ in range(dice.choice((1, 1, 2, 3))))
        return Kill(world, dice.choice(list(kills.jobs)), moments)

    try:
        return Campaign("kills", chosen, draw, kills.judge, smaller, str).run()
    finally:
        kills.close_server()
        kills.program.close()


if __name__ == "__main__":
    sys.exit(main())
