"""Bounds a job's memory: a number of reusable buffers, and windows for items on their way."""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class ClosedError(Exception):
    """The channel or pool was closed while a thread waited on it: the pipeline is over."""


class Buffer:
    """Reusable page-aligned memory from a pool."""

    def __init__(self, size: int, pool: BufferPool) -> None:
        # Private and anonymous: fresh pages are zeroed one fault at a time (2 GB/s), so huge pages and reuse pay.
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._pool = pool
        self.view = memoryview(self._memory)

    def release(self) -> None:
        """Gives the buffer back; its content must not be used any more."""
        self._pool._put(self)


class BufferPool:
    """A number of buffers of one size (bytes), allocated on first use; `on_new` sees each buffer once."""

    def __init__(self, count: int, size: int, on_new: Callable[[memoryview], None] = lambda memory: None) -> None:
        self.count, self.size, self._on_new = count, size, on_new
        self._unallocated = count
        self._free: list[Buffer] = []
        self._changed = threading.Condition()
        self._closed = False

    def acquire(self) -> Buffer:
        """Returns a free buffer; waits until a buffer is free.

        Raises:
            ClosedError: the pipeline is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free or self._unallocated)
            if self._closed:
                raise ClosedError
            if self._free:
                return self._free.pop()
            self._unallocated -= 1
        try:
            buffer = Buffer(self.size, self)
            self._on_new(buffer.view)
        except BaseException:
            with self._changed:
                self._unallocated += 1  # the next caller may have more luck
                self._changed.notify()
            raise
        return buffer

    def grow(self, more: int) -> None:
        """Lets the pool have so many more buffers."""
        with self._changed:
            self.count += more
            self._unallocated += more
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def free_count(self) -> int:
        return len(self._free) + self._unallocated

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def empty(self) -> None:
        """Gives the memory of free buffers back; the pool makes new ones when somebody asks.

        Pool and buffer know each other, and pipelines know pools: without this, the memory, a few hundred MB, would
        stay until Python looks for cycles, which it does by counting objects, not bytes.
        """
        with self._changed:
            self._unallocated += len(self._free)
            self._free.clear()

    def _put(self, buffer: Buffer) -> None:
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()


class Window:
    """Bounds how many items are on their way between two stages that are far apart."""

    def __init__(self, size: int) -> None:
        self._left, self._closed = size, False
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Waits for a place.

        Raises:
            ClosedError: the pipeline is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._left)
            if self._closed:
                raise ClosedError
            self._left -= 1

    def leave(self) -> None:
        with self._changed:
            self._left += 1
            self._changed.notify()

    def grow(self, more: int) -> None:
        """Makes room for so many more items."""
        with self._changed:
            self._left += more
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Turns:
    """Lets threads pass one by one, in the order of their items: turn 0 first and no turn left out.

    An item must not wait for its turn before every item of an earlier turn has a thread.
    """

    def __init__(self) -> None:
        self._due, self._closed = 0, False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, turn: int) -> Iterator[None]:
        """Waits for the turn; the next turn begins when the block ends.

        Raises:
            ClosedError: the pipeline is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._due == turn)
            if self._closed:
                raise ClosedError
            yield
            self._due += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def with_buffers(items: Iterable[T], pool: BufferPool) -> Iterator[tuple[T, Buffer]]:
    """Pairs each item with a free buffer: the input of a stage whose results need memory."""
    for item in items:
        yield item, pool.acquire()
