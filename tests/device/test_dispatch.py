"""Device and processor side by side: who gets which chunk, decided chunk by chunk and in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from dumont_gpu.backends.dispatch import Dispatch, Place, Ticket
from dumont_gpu.backends.forecast import STEP_SECONDS, WORTH_WAKING
from dumont_gpu.sizes import MiB

KIND = "zipnn decoding"
SLOTS = 4
RUNS = 3  # of a trial
CORE_SECONDS = 0.06  # one core's time for 64 MiB
WORST = 1.02  # of the time without a device


class Device:
    """A chunk is copied in, worked on and copied out: three parts that chunks pass one after the other."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # of each part, for a chunk of 64 MiB
        self._free = [0.0, 0.0, 0.0]

    def finish(self, size: int, now: float) -> float:
        for part, free in enumerate(self._free):
            now = self._free[part] = max(now, free) + self.seconds * size / (64 * MiB)
        return now


@dataclass
class Job:
    """A job with chunks of `sizes`, in simulated time, on `cores` and perhaps a device.

    Args:
        speed: of the device with many chunks in flight, as a multiple of one core's; None: no device.
        opening: seconds of each step until the device is open.
        fails_at: number of the chunk on the device that fails, and with it the device.
        opens: how many of the steps succeed.
    """

    sizes: Sequence[int]
    cores: int
    speed: float | None = None
    opening: Sequence[float] = (0.5, 0.5, 0.4)
    fails_at: int | None = None
    opens: int = 99
    expected: bool = True
    noise: float = 0.0  # part of the time by which chunks differ that should take as long
    flatters: float = 1.0  # how much faster the device seems in its trial
    changes: Callable[[float], float] = lambda now: 1.0  # factor of the device's time
    on_device: int = 0
    done: list[int] = field(default_factory=list)
    woken: bool = False

    def run(self) -> float:
        """Returns the seconds until all is done and nobody works any more."""
        self.dispatch = Dispatch(self.cores)
        if self.expected:
            self.dispatch.forecast.expect(sum(self.sizes))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._queue = list(reversed(list(enumerate(self.sizes))))
        self._waiting: list[tuple[Ticket, int]] = []
        self._idle = self.cores
        self._opened = self._tried = self._lost = False
        self._device_chunks = 0
        self.now = self._busy_until = 0.0
        if self.speed is not None:
            self.device = Device(CORE_SECONDS / self.speed)
        self._settle()
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
            self._settle()
        assert sorted(self.done) == list(range(len(self.sizes)))
        return max(self.now, self._busy_until)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), act))

    def _settle(self) -> None:
        """Lets free threads take chunks, and waiting chunks begin, until nothing changes."""
        while self._idle and self._queue:
            number, size = self._queue.pop()
            self._idle -= 1
            self._waiting.append((self.dispatch.arrive(KIND, size, fit=self.speed is not None, now=self.now), number))
        for entry in list(self._waiting):
            place = self.dispatch.start(entry[0], self.now)
            if place is not None:
                self._waiting.remove(entry)
                self._begin(entry, place)
                self._settle()
                return

    def _begin(self, entry: tuple[Ticket, int], place: Place) -> None:
        ticket, number = entry
        if place is Place.CPU:
            seconds = CORE_SECONDS * ticket.size / (64 * MiB) * self._factor(number)
            self._at(self.now + seconds, lambda: self._end(ticket, number))
            return
        self._device_chunks += 1
        failed = self._lost or self._device_chunks == self.fails_at
        self.device.seconds = CORE_SECONDS / (self.speed or 1) * self.changes(self.now) * self._factor(~number)
        finish = self.device.finish(ticket.size, self.now)
        self._at(finish, lambda: self._fail(ticket, number) if failed else self._end(ticket, number))

    def _factor(self, number: int) -> float:
        return 1 + self.noise * random.Random(number).uniform(-1, 1)

    def _end(self, ticket: Ticket, number: int) -> None:
        self.dispatch.end(ticket, self.now)
        self.done.append(number)
        self.on_device += ticket.place is Place.DEVICE
        self._idle += 1
        if self.speed is not None and not self.woken and self.dispatch.forecast.worth_waking(self.now):
            self.woken = True
            self._step(0)
        if self._opened and not self._tried:
            self._tried = True
            self._try(ticket.size, RUNS)

    def _fail(self, ticket: Ticket, number: int) -> None:
        self._lost = True
        self.dispatch.drop()
        ticket.failed = True
        self.dispatch.end(ticket, self.now)
        again = self.dispatch.arrive(KIND, ticket.size, fit=False, now=self.now)
        self._waiting.insert(0, (again, number))

    def _step(self, number: int) -> None:
        if number == self.opens:
            return  # this step failed, and the job goes on without a device
        if number == len(self.opening):
            self._opened = True
        elif number == 0 or self.dispatch.forecast.worth_a_step(self.now):
            self._busy_until = self.now + self.opening[number]
            self._at(self._busy_until, lambda: self._step(number + 1))

    def _try(self, size: int, runs: int) -> None:
        seconds = 3 * (CORE_SECONDS / (self.speed or 1)) * size / (64 * MiB)
        if not runs:
            self._join(size, seconds / self.flatters)
        elif self.dispatch.forecast.worth_a_step(self.now):
            self._busy_until = self.now + seconds
            self._at(self._busy_until, lambda: self._try(size, runs - 1))

    def _join(self, size: int, seconds: float) -> None:
        if self.dispatch.trust(KIND, size, seconds):
            self.dispatch.attach(SLOTS)
            self._idle += SLOTS


def chunks(count: int, *, mixed: bool = False) -> list[int]:
    draw = random.Random(count)
    return [draw.randrange(1, 65) * MiB if mixed else 64 * MiB for _ in range(count)]


CORES = [1, 2, 3, 4, 8, 16, 64]
SPEEDS = [0.1, 0.3, 0.5, 0.9, 1.0, 1.5, 3.0, 10.0, 100.0]
USUAL = (0.5, 0.5, 0.4)  # seconds: CUDA opens, slots are allocated, kernels are loaded


@pytest.mark.parametrize("cores", CORES)
def test_a_device_never_makes_a_job_slower(cores: int) -> None:
    for speed, count, mixed in itertools.product(SPEEDS, (64, 70, 150, 333, 1500), (False, True)):
        sizes = chunks(count, mixed=mixed)
        alone = Job(sizes, cores).run()
        for opening in ((0.0,), USUAL, (STEP_SECONDS,) * 4):
            job = Job(sizes, cores, speed, opening)
            assert job.run() <= WORST * alone, (speed, count, mixed, opening)


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
@pytest.mark.parametrize(("noise", "flatters"), [(0.5, 1.0), (0.0, 5.0), (0.5, 5.0)])
def test_times_that_vary_and_a_trial_that_misleads_make_no_job_slower(
    cores: int, noise: float, flatters: float
) -> None:
    for speed, count in itertools.product(SPEEDS, (150, 333, 1000)):
        sizes = chunks(count, mixed=True)
        alone = Job(sizes, cores, noise=noise).run()
        job = Job(sizes, cores, speed, USUAL, noise=noise, flatters=flatters)
        assert job.run() <= WORST * alone, (speed, count)


@pytest.mark.parametrize("cores", CORES)
def test_a_job_whose_size_is_not_known_wakes_no_device(cores: int) -> None:
    job = Job(chunks(500), cores, 10.0, expected=False)
    assert job.run() == Job(chunks(500), cores).run()
    assert not job.woken


@pytest.mark.parametrize("cores", [1, 4, 16])
@pytest.mark.parametrize("opens", range(len(USUAL)))
def test_a_device_that_does_not_open_costs_nothing(cores: int, opens: int) -> None:
    sizes = chunks(130 * cores)
    job = Job(sizes, cores, 10.0, opens=opens)
    assert job.run() <= WORST * Job(sizes, cores).run()
    assert job.woken
    assert job.on_device == 0


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
@pytest.mark.parametrize("speed", [1.5, 10.0, 100.0])
def test_a_device_that_is_lost_costs_no_more_than_it_saved(cores: int, speed: float) -> None:
    sizes = chunks(130 * cores, mixed=True)
    alone = Job(sizes, cores).run()
    for fails_at in (1, 2, 3, 4, 5, 10, 50, 51, 100):
        job = Job(sizes, cores, speed, (0.0,), fails_at=fails_at)
        assert job.run() <= WORST * alone, fails_at


@pytest.mark.parametrize(
    ("cores", "speed", "least"), [(1, 3.0, 3.5), (1, 10.0, 9.0), (2, 10.0, 5.0), (4, 10.0, 3.0), (16, 10.0, 1.5)]
)
def test_a_fast_device_takes_its_share(cores: int, speed: float, least: float) -> None:
    sizes = chunks(200 * cores)
    assert Job(sizes, cores).run() >= least * Job(sizes, cores, speed, (0.0,)).run()


@pytest.mark.parametrize("cores", [1, 4, 16])
def test_a_device_that_becomes_slow_loses_its_chunks_and_gets_them_back(cores: int) -> None:
    sizes = chunks(600 * cores)
    alone = Job(sizes, cores).run()

    def slow_for_a_while(now: float) -> float:
        return 30.0 if 0.2 * alone < now < 0.4 * alone else 1.0

    job = Job(sizes, cores, 10.0, (0.0,), changes=slow_for_a_while)
    assert job.run() < alone
    steady = Job(sizes, cores, 10.0, (0.0,))
    steady.run()
    assert job.on_device > 0.5 * steady.on_device


def test_no_last_chunk_waits_for_a_slow_device() -> None:
    """Chunks have just begun on both cores: the device would still be later than the first core that is free again."""
    dispatch = seen(cores=2, cpu_seconds=1.0, device_seconds=1.9)
    busy = [dispatch.arrive(KIND, MiB, fit=True, now=0.0) for _ in range(2)]
    assert [dispatch.start(ticket, 0.0) for ticket in busy] == [Place.CPU, Place.CPU]
    last = dispatch.arrive(KIND, MiB, fit=True, now=0.2)
    assert dispatch.start(last, 0.2) is None
    dispatch.end(busy[0], 1.0)
    assert dispatch.start(last, 1.0) is Place.CPU


def test_a_core_begins_no_chunk_that_a_fast_device_ends_sooner() -> None:
    dispatch = seen(cores=2, cpu_seconds=1.0, device_seconds=0.1)
    dispatch.forecast.expect(6 * MiB)  # two were seen, three are on the device, and no more come
    on_device = [dispatch.arrive(KIND, MiB, fit=True, now=0.0) for _ in range(4)]
    assert [dispatch.start(ticket, 0.0) for ticket in on_device] == [Place.DEVICE] * 4
    last = dispatch.arrive(KIND, MiB, fit=True, now=0.0)
    assert dispatch.start(last, 0.0) is None
    dispatch.end(on_device[0], 0.1)
    assert dispatch.start(last, 0.1) is Place.DEVICE


def test_while_much_is_left_the_cores_work_beside_a_fast_device() -> None:
    dispatch = seen(cores=2, cpu_seconds=1.0, device_seconds=0.1)
    dispatch.forecast.expect(1000 * MiB)
    tickets = [dispatch.arrive(KIND, MiB, fit=True, now=0.0) for _ in range(6)]
    places = [dispatch.start(ticket, 0.0) for ticket in tickets]
    assert places == [Place.DEVICE] * 4 + [Place.CPU] * 2


def test_chunks_that_are_not_for_the_device_wait_for_a_core() -> None:
    dispatch = seen(cores=1, cpu_seconds=1.0, device_seconds=0.1)
    first, second = (dispatch.arrive("zstd decoding", MiB, fit=False, now=0.0) for _ in range(2))
    assert dispatch.start(first, 0.0) is Place.CPU
    assert dispatch.start(second, 0.5) is None
    dispatch.end(first, 1.0)
    assert dispatch.start(second, 1.0) is Place.CPU


def test_a_chunk_that_failed_on_the_device_is_no_measurement() -> None:
    dispatch = seen(cores=1, cpu_seconds=1.0, device_seconds=0.5)
    ticket = dispatch.arrive(KIND, MiB, fit=True, now=0.0)
    assert dispatch.start(ticket, 0.0) is Place.DEVICE
    ticket.failed = True
    dispatch.end(ticket, 100.0)
    again = dispatch.arrive(KIND, MiB, fit=True, now=100.0)
    assert dispatch.start(again, 100.0) is Place.DEVICE


def seen(cores: int, cpu_seconds: float, device_seconds: float) -> Dispatch:
    """A dispatch that has seen how long 1 MiB takes on each side."""
    dispatch = Dispatch(cores)
    for _ in range(cores):
        ticket = dispatch.arrive(KIND, MiB, fit=True, now=-cpu_seconds)
        dispatch.start(ticket, -cpu_seconds)
        dispatch.end(ticket, 0.0)
    assert dispatch.trust(KIND, MiB, device_seconds)
    dispatch.attach(SLOTS)
    return dispatch


def test_the_device_is_woken_only_for_jobs_that_last() -> None:
    for size, speed, woken in (
        (WORTH_WAKING, 0.9e9, True),
        (WORTH_WAKING - 1, 0.9e9, False),
        (WORTH_WAKING, 2e9, False),
    ):
        dispatch = Dispatch(cores=1)
        dispatch.forecast.expect(size)
        ticket = dispatch.arrive(KIND, 64 * MiB, fit=True, now=0.0)
        dispatch.start(ticket, 0.0)
        assert not dispatch.forecast.worth_waking(0.01)  # nothing is known yet
        seconds = 64 * MiB / speed
        dispatch.end(ticket, seconds)
        assert dispatch.forecast.worth_waking(seconds) == woken
