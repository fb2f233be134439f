"""How items pass from thread to thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

from dumont_gpu.buffers import ClosedError

T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded queue that can be closed: for good (`close`), or once the queue is empty (`finish`)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = self._finished = False

    def put(self, item: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                raise ClosedError
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items or self._finished)
            if self._closed:
                raise ClosedError
            if not self._items:
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class SharedIterator(Generic[T]):
    """Lets several threads take items from one iterator."""

    def __init__(self, items: Iterable[T]) -> None:
        self._iterator, self._lock = iter(items), threading.Lock()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            return next(self._iterator)

    def close(self) -> None:
        """Ends a generator here and now, not at garbage collection: generators may hold threads and descriptors."""
        if isinstance(self._iterator, Generator):
            self._iterator.close()
