"""Threads that pass items from stage to stage, bounded by the buffers the items hold.

Items own buffers; the first stage waits for a free buffer, and nothing else bounds memory. The first error wins and
stops every stage; no thread outlives `Pipeline.run`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from dumont_gpu.buffers import BufferPool, ClosedError, Turns, Window
from dumont_gpu.channel import Channel, SharedIterator

_SIGNAL_POLL = 0.2  # seconds; a signal that another thread receives does not wake the main thread

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")
# The stage, and the seconds of `time.perf_counter` at which work on an item began and ended.
Trace = Callable[[str, float, float], None]


class Pipeline:
    """A chain of stages, each a function run by its own threads.

    >>> pipeline = Pipeline()
    >>> loaded = pipeline.stage("read", read, chunks)
    >>> pipeline.stage("write", write, loaded, threads=2)
    >>> pipeline.run()

    Or, where the first stage starts before the needs of the later stages are known:

    >>> with Pipeline() as pipeline:
    >>>     loaded = pipeline.stage("read", read, chunks)
    >>>     pipeline.start()
    >>>     ...  # find out the needs of `write`
    >>>     pipeline.stage("write", write, loaded, threads=2)
    >>>     pipeline.run()

    Args:
        pools: closed when the pipeline fails, so that nobody waits for a buffer or a turn.
        cancel: wakes up stages that wait for something else, such as a network; called when the pipeline fails.
        trace: called for each item that a stage has worked on, from the stage's threads.
    """

    def __init__(
        self, *pools: BufferPool | Window | Turns, cancel: Callable[[], None] = lambda: None, trace: Trace | None = None
    ) -> None:
        self._pools, self._cancel, self._trace = pools, cancel, trace
        self._channels: list[Channel[Any]] = []
        self._threads: list[threading.Thread] = []
        self._new: list[threading.Thread] = []  # of them: not started yet
        # Each function tells the stage of its thread to do without the thread.
        self._spare: dict[threading.Thread, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._widen: dict[str, Callable[[int], None]] = {}  # by stage
        self._ending = threading.Condition()
        self._ended = 0  # threads
        self._widening = 0  # calls of `widen` that start threads now
        self.seconds: dict[str, float] = {}  # busy time by stage, summed over its threads

    @property
    def error(self) -> BaseException | None:
        """The first error of a stage, or of the caller's block."""
        return self._error

    def add_pools(self, *pools: BufferPool) -> None:
        """Closes these pools, too, when the pipeline fails."""
        self._pools += pools

    def items(self, capacity: int) -> Channel[Any]:
        """Returns a channel for the items of a first stage that are not all known yet."""
        channel: Channel[Any] = Channel(capacity)
        self._channels.append(channel)
        return channel

    def stage(
        self,
        name: str,
        work: Callable[[In], Out | None],
        items: Iterable[In],
        threads: int = 1,
        enough: int | None = None,
    ) -> Iterable[Out]:
        """Adds a stage that turns each item into one result, or none; returns the results, for the next stage.

        Args:
            name: of the stage and of its threads.
            work: turns an item into its result.
            items: the stage's input.
            threads: how many threads work at once.
            enough: threads that must start, where the machine allows no more threads; None: all of them.
        """
        source = SharedIterator(items)
        results: Channel[Out] = Channel(capacity=2 * threads)
        running = [threads]
        self._channels.append(results)
        self.seconds[name] = 0.0

        def leave() -> None:
            with self._lock:
                running[0] -= 1
                last = not running[0]
            if last:
                source.close()
                results.finish()

        def loop() -> None:
            try:
                for item in source:
                    if self._error is not None:
                        break
                    started = time.perf_counter()
                    result = work(item)
                    ended = time.perf_counter()
                    with self._lock:
                        self.seconds[name] += ended - started
                    if self._trace is not None:
                        self._trace(name, started, ended)
                    if result is not None:
                        results.put(result)
            except ClosedError as error:
                if self._error is None:  # else another stage failed, and says why
                    self.fail(error)  # somebody else has closed a pool: that is no good end
            except BaseException as error:
                self.fail(error)
            finally:
                leave()
                with self._ending:
                    self._ended += 1
                    self._ending.notify()

        def widen(more: int) -> None:
            nonlocal threads
            with self._lock, self._ending:
                if not running[0]:
                    return  # the stage is over
                running[0] += more
                self._widening += 1
            added = [new_thread(threads + number) for number in range(more)]
            threads += more
            self._spare.update(dict.fromkeys(added, leave))
            self._threads += added
            try:
                self._start(added)
            finally:
                with self._ending:
                    self._widening -= 1
                    self._ending.notify()

        def new_thread(number: int) -> threading.Thread:
            return threading.Thread(target=loop, name=f"dumont-{name}-{number}")

        for number in range(threads):
            thread = new_thread(number)
            self._threads.append(thread)
            self._new.append(thread)
            if enough is not None and number >= enough:
                self._spare[thread] = leave
        self._widen[name] = widen
        return results

    def widen(self, name: str, threads: int) -> None:
        """Adds threads to a running stage, as many as the machine allows, unless the stage is over.

        Called by one thread at a time, of any of the caller's.
        """
        self._widen[name](threads)

    def produce(self, name: str, items: Generator[Out, None, None]) -> Iterable[Out]:
        """Adds a first stage that makes `items` in a thread of its own; returns them, for the next stage."""
        more = True

        def turns() -> Iterator[None]:
            with contextlib.closing(items):
                while more:
                    yield

        def make(_: None) -> Out | None:
            nonlocal more
            item = next(items, None)
            more = item is not None
            return item

        return self.stage(name, make, turns())

    def start(self) -> None:
        """Starts the stages added so far; more may be added.

        Within a `with` block, a failure ends the stages; otherwise `fail` and `join` are up to the caller.
        """
        new, self._new = self._new, []
        self._start(new)

    def _start(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            try:
                thread.start()
            except RuntimeError:  # the machine allows no more threads
                if thread not in self._spare:
                    raise
                self._threads.remove(thread)
                self._spare.pop(thread)()

    def run(self) -> None:
        """Runs until the items are used up, or raises the first error of any stage once every thread has ended."""
        with self:
            self.start()
            self._wait()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and error is not self._error:  # the block failed: a signal, a thread that cannot start
            self.fail(error)
        self.join()
        if self._error is not None and self._error is not error:
            raise self._error from None

    @contextlib.contextmanager
    def feeding(self) -> Iterator[None]:
        """Raises the first error of the stages where the caller, who feeds them, meets only a ClosedError."""
        try:
            yield
        except ClosedError:
            raise self._error or ClosedError from None

    def join(self) -> None:
        """Waits until every started thread has ended; raises nothing of theirs."""
        self._wait()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _wait(self) -> None:
        """Waits until every started thread is about to end.

        Not by joining: a signal that interrupts `join` makes Python up to 3.12 take the thread for ended.
        """

        def are_over() -> bool:
            started = sum(thread.ident is not None for thread in list(self._threads))
            return not self._widening and self._ended >= started

        with self._ending:
            wait_until(self._ending, are_over)

    def fail(self, error: BaseException) -> None:
        """Ends every stage; of several errors, the first wins."""
        with self._lock:
            if self._error is None:
                self._error = error
            else:
                _add_note(self._error, f"and then: {error!r}")
        for channel in self._channels:
            channel.close()
        for pool in self._pools:
            pool.close()
        self._cancel()


def wait_until(changed: threading.Condition, is_over: Callable[[], object]) -> None:
    """Waits for a condition that the caller holds, in the main thread too: a signal ends the wait."""
    while not is_over():
        changed.wait(_SIGNAL_POLL)


def in_turn(items: Iterable[T], turn: Callable[[T], int]) -> Iterator[T]:
    """Yields items by their turns, 0 first and none missing; holds back items that come early.

    Held items keep their buffers, so a Window must leave a buffer to each item that the held items wait for.
    """
    held: dict[int, T] = {}
    due = 0
    for item in items:
        held[turn(item)] = item
        while due in held:
            yield held.pop(due)
            due += 1


def _add_note(error: BaseException, note: str) -> None:
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(note)
