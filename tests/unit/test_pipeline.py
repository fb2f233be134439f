"""Stages, channels and buffers: nothing is lost, nothing leaks, the first error wins."""

from __future__ import annotations

import signal
import threading

import pytest

from dumont_gpu.buffers import Buffer, BufferPool, ClosedError, Window, with_buffers
from dumont_gpu.channel import Channel
from dumont_gpu.pipeline import Pipeline

ITEMS = 40


class BrokenError(Exception):
    pass


def dumont_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("dumont-")]


def run(pool: BufferPool, breaks_in: str = "", breaks_at: int = -1) -> list[int]:
    """Three stages over ITEMS numbers, each of which travels in a buffer."""

    def guard(stage: str, number: int) -> None:
        if stage == breaks_in and number == breaks_at:
            raise BrokenError(stage)

    def load(item: tuple[int, Buffer]) -> Buffer:
        number, buffer = item
        guard("load", number)
        buffer.view[:8] = number.to_bytes(8, "little")
        return buffer

    def double(buffer: Buffer) -> Buffer:
        number = int.from_bytes(buffer.view[:8], "little")
        guard("double", number)
        buffer.view[:8] = (2 * number).to_bytes(8, "little")
        return buffer

    def store(buffer: Buffer) -> None:
        number = int.from_bytes(buffer.view[:8], "little")
        guard("store", number // 2)
        results.append(number)
        buffer.release()

    results: list[int] = []
    pipeline = Pipeline(pool)
    loaded = pipeline.stage("load", load, with_buffers(range(ITEMS), pool), threads=2)
    doubled = pipeline.stage("double", double, loaded, threads=3)
    pipeline.stage("store", store, doubled, threads=2)
    pipeline.run()
    assert set(pipeline.seconds) == {"load", "double", "store"}
    return results


@pytest.mark.parametrize("buffers", [1, 2, 7, 100])
def test_every_item_arrives_once_and_every_buffer_comes_back(buffers: int) -> None:
    pool = BufferPool(buffers, 4096)
    assert sorted(run(pool)) == [2 * number for number in range(ITEMS)]
    assert pool.free_count == buffers
    assert dumont_threads() == []


@pytest.mark.parametrize("stage", ["load", "double", "store"])
@pytest.mark.parametrize("at", [0, ITEMS // 2, ITEMS - 1])
def test_an_error_in_any_stage_ends_all_threads(stage: str, at: int) -> None:
    for buffers in (1, 3):
        with pytest.raises(BrokenError, match=stage):
            run(BufferPool(buffers, 4096), stage, at)
        assert dumont_threads() == []


def test_a_stage_may_begin_before_the_next_is_known() -> None:
    pool, results = BufferPool(2, 4096), []
    with Pipeline(pool) as pipeline:
        numbers = pipeline.items(capacity=ITEMS)
        loaded = pipeline.stage("load", lambda item: item, with_buffers(numbers, pool), threads=2)
        pipeline.start()
        for number in range(ITEMS):
            numbers.put(number)
        numbers.finish()

        def store(item: tuple[int, Buffer]) -> None:
            results.append(item[0])
            item[1].release()

        pipeline.stage("store", store, loaded)
        pipeline.run()
    assert sorted(results) == list(range(ITEMS))
    assert pool.free_count == 2
    assert dumont_threads() == []


def test_a_block_that_fails_ends_the_threads() -> None:
    pool = BufferPool(1, 4096)
    cancelled = []
    with pytest.raises(BrokenError, match="block"), Pipeline(pool, cancel=lambda: cancelled.append(1)) as pipeline:
        pipeline.stage("load", lambda item: item, with_buffers(pipeline.items(1), pool), threads=3)
        pipeline.start()
        raise BrokenError("block")
    assert cancelled
    assert dumont_threads() == []


def test_the_error_of_a_stage_comes_before_what_it_makes_of_the_block() -> None:
    def fail(item: int) -> None:
        raise BrokenError("stage")

    with pytest.raises(BrokenError, match="stage"), Pipeline() as pipeline:
        numbers = pipeline.items(capacity=1)
        pipeline.stage("work", fail, numbers)
        pipeline.start()
        while True:
            numbers.put(1)  # ClosedError, sooner or later
    assert dumont_threads() == []


def test_an_error_of_the_items_themselves_is_raised() -> None:
    def items() -> object:
        yield 1
        raise BrokenError("items")

    pipeline = Pipeline()
    pipeline.stage("work", lambda item: None, items())  # type: ignore[arg-type, misc]
    with pytest.raises(BrokenError):
        pipeline.run()
    assert dumont_threads() == []


def test_a_signal_stops_the_pipeline() -> None:
    def interrupt(item: int) -> None:
        if item == 3:
            signal.raise_signal(signal.SIGINT)

    def forever() -> object:
        number = 0
        while True:
            yield number
            number += 1

    pipeline = Pipeline()
    pipeline.stage("work", interrupt, forever())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert dumont_threads() == []


def test_a_closed_pool_and_channel_wake_their_waiters() -> None:
    pool, channel = BufferPool(1, 4096), Channel[int](1)
    pool.acquire()
    channel.put(1)
    woken = []

    def wait(blocking: object) -> None:
        try:
            blocking()  # type: ignore[operator]
        except ClosedError:
            woken.append(blocking)

    waiters = [threading.Thread(target=wait, args=(call,)) for call in (pool.acquire, lambda: channel.put(2))]
    for waiter in waiters:
        waiter.start()
    pool.close()
    channel.close()
    for waiter in waiters:
        waiter.join()
    assert len(woken) == 2
    with pytest.raises(ClosedError):
        next(channel)


def test_a_finished_channel_hands_out_what_is_left() -> None:
    channel = Channel[int](3)
    channel.put(1)
    channel.put(2)
    channel.finish()
    assert list(channel) == [1, 2]


def starting_only(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    start = threading.Thread.start

    def starting(thread: threading.Thread) -> None:
        nonlocal allowed
        allowed -= 1
        if allowed < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starting)


@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_a_stage_for_which_fewer_threads_are_enough_does_all_its_work(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting_only(monkeypatch, allowed)
    done: list[int] = []
    pipeline = Pipeline()
    pipeline.stage("work", done.append, range(ITEMS), threads=4, enough=1)
    pipeline.run()
    assert sorted(done) == list(range(ITEMS))
    assert dumont_threads() == []


def test_a_stage_without_enough_threads_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    starting_only(monkeypatch, 1)
    pipeline = Pipeline()
    pipeline.stage("work", lambda item: None, range(ITEMS), threads=4, enough=2)
    with pytest.raises(RuntimeError, match="can't start"):
        pipeline.run()
    assert dumont_threads() == []


def test_whoever_feeds_a_stage_meets_its_first_error() -> None:
    def fail(item: int) -> None:
        raise BrokenError("stage")

    pipeline = Pipeline()
    numbers = pipeline.items(capacity=1)
    pipeline.stage("work", fail, numbers)
    pipeline.start()
    with pytest.raises(BrokenError, match="stage"), pipeline.feeding():
        while True:
            numbers.put(1)
    pipeline.join()
    assert dumont_threads() == []


def test_a_pipeline_can_be_ended_from_outside() -> None:
    cancelled: list[int] = []
    pipeline = Pipeline(cancel=lambda: cancelled.append(1))
    numbers = pipeline.items(capacity=1)
    pipeline.stage("work", lambda item: None, numbers, threads=3)
    pipeline.start()
    pipeline.fail(BrokenError("outside"))
    pipeline.join()
    assert cancelled
    assert dumont_threads() == []
    with pytest.raises(BrokenError, match="outside"), pipeline.feeding():
        numbers.put(1)


# --- stages that grow while they run ----------------------------------------------------------------------------------


def test_a_stage_gets_more_threads_while_it_runs() -> None:
    """Every item but the last waits until four threads are at work."""
    meeting, done = threading.Barrier(4), list[int]()

    def work(item: int) -> None:
        if item == 0:
            pipeline.widen("work", 3)
        if item < 4:
            meeting.wait(timeout=60)
        done.append(item)

    pipeline = Pipeline()
    pipeline.stage("work", work, range(ITEMS))
    pipeline.run()
    assert sorted(done) == list(range(ITEMS))
    assert dumont_threads() == []


def test_a_stage_that_is_over_gets_no_more_threads() -> None:
    pipeline = Pipeline()
    pipeline.stage("work", lambda item: None, range(3))
    pipeline.run()
    pipeline.widen("work", 3)
    assert dumont_threads() == []


def test_a_stage_grows_only_as_far_as_the_machine_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    starting_only(monkeypatch, 2)
    done: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            pipeline.widen("work", 5)
        done.append(item)

    pipeline = Pipeline()
    pipeline.stage("work", work, range(ITEMS))
    pipeline.run()
    assert sorted(done) == list(range(ITEMS))
    assert dumont_threads() == []


@pytest.mark.parametrize("failing", [0, 3, ITEMS - 1])
def test_a_failure_ends_the_threads_that_came_later(failing: int) -> None:
    def work(item: int) -> None:
        if item == 0:
            pipeline.widen("work", 3)
        if item == failing:
            raise BrokenError("work")

    pipeline = Pipeline()
    pipeline.stage("work", work, range(ITEMS))
    with pytest.raises(BrokenError):
        pipeline.run()
    assert dumont_threads() == []


def test_a_pool_and_a_window_grow_under_those_who_wait() -> None:
    pool, window = BufferPool(1, 4096), Window(1)
    pool.acquire()
    window.enter()
    waiters = [threading.Thread(target=wait) for wait in (pool.acquire, window.enter)]
    for waiter in waiters:
        waiter.start()
    pool.grow(2)
    window.grow(1)
    for waiter in waiters:
        waiter.join(60)
    assert not any(waiter.is_alive() for waiter in waiters)
    assert (pool.count, pool.free_count) == (3, 1)


def test_a_pool_that_somebody_else_has_closed_is_no_good_end() -> None:
    pool = BufferPool(1, 4096)
    pool.close()
    pipeline = Pipeline(pool)
    pipeline.stage("work", lambda item: None, with_buffers(range(3), pool))
    with pytest.raises(ClosedError):
        pipeline.run()


def test_a_buffer_that_could_not_be_had_can_be_asked_for_again() -> None:
    failures = iter([OSError(12, "Cannot allocate memory")])

    def on_new(memory: memoryview) -> None:
        for failure in failures:
            raise failure

    pool = BufferPool(1, 4096, on_new)
    with pytest.raises(OSError, match="memory"):
        pool.acquire()
    assert len(pool.acquire().view) == 4096
