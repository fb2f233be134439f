"""Runs contenders for the same tensors in turn, and compares what each of them loads with the original."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dumont_gpu.bench.measure.clock import rotated
from dumont_gpu.bench.measure.load_contenders import OURS, Arrays, Contender, as_bytes
from dumont_gpu.bench.measure.originals import Original


@dataclass(slots=True)
class LoadFigures:
    """What one contender took for a task."""

    place: str  # "local", or the rate of a link
    task: str
    who: str
    size: int  # bytes of the tensors
    seconds: list[float] = field(default_factory=list)
    sent: int = 0  # bytes of content that crossed the link, in the last run
    problem: str = ""  # why there are no figures
    intact: bool | None = None  # None: there was nothing to compare


@dataclass(frozen=True, slots=True)
class Task:
    place: str
    name: str
    original: Original
    contenders: tuple[Contender, ...]

    @property
    def size(self) -> int:
        return sum(content.nbytes for content in self.original.values())


def in_turn(
    task: Task, turns: int, *, enough: float, warm: bool, sent: Callable[[], int] = lambda: 0
) -> Iterator[LoadFigures]:
    """Yields the figures of each contender that is installed, or why there are none.

    Args:
        task: its contenders run once in each turn.
        turns: how many.
        enough: seconds of all runs, after which no new turn begins.
        warm: whether everyone runs once before, without the clock: imports, caches, kernels.
        sent: returns the bytes that have crossed the link so far.
    """
    figures = {each.who: LoadFigures(task.place, task.name, each.who, task.size) for each in task.contenders}
    running = []
    for contender in task.contenders:
        if missing := contender.missing():
            figures[contender.who].problem = f"not installed: {', '.join(missing)}"
        elif not warm or _run(contender, task, figures[contender.who], sent):
            running.append(contender)
    for figure in figures.values():
        figure.seconds.clear()
    started = time.perf_counter()
    for turn in range(turns):
        if turn and time.perf_counter() - started > enough:
            break
        running = [each for each in rotated(running, turn) if _run(each, task, figures[each.who], sent)]
    yield from figures.values()


def _run(contender: Contender, task: Task, figure: LoadFigures, sent: Callable[[], int]) -> bool:
    """Runs a contender once; returns whether that went well. Compares its first result."""
    contender.prepare()
    before = sent()
    try:
        started = time.perf_counter()
        arrays = contender.run()
        figure.seconds.append(time.perf_counter() - started)
    except Exception as error:  # a peer's failure is a line of the report, not the end of the run
        figure.problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return False
    figure.sent = sent() - before
    if arrays is not None and figure.intact is None:
        figure.intact = matches(arrays, task.original)
    return True


def matches(arrays: Arrays, original: Original) -> bool:
    """Whether arrays have the names and the bytes of the original."""
    return arrays.keys() == original.keys() and all(
        (as_bytes(arrays[name]) == content).all() for name, content in original.items()
    )


def damaged(figures: Iterable[LoadFigures]) -> Sequence[str]:
    """Returns a line for each of our contenders that failed, and for everyone whose tensors are not the original's."""
    lines = []
    for each in figures:
        if each.intact is False:
            lines.append(f"load, {each.place}, {each.task}: {each.who}: not the original tensors")
        elif each.who.startswith(OURS) and each.problem and not each.problem.startswith("not installed"):
            lines.append(f"load, {each.place}, {each.task}: {each.who}: {each.problem}")
    return lines
