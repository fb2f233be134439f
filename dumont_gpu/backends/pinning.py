"""Pins host memory for a device, where the machine allows it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dumont_gpu import native
from dumont_gpu.backends.device import Device
from dumont_gpu.errors import DeviceError


class Pinning:
    """Pins host memory until the machine refuses once; goes on without pinned memory from then on.

    Copies from and to other memory are slower but correct: the driver copies through pinned memory of its own. WSL2 and
    some containers limit pinned memory.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._changed = threading.Condition()
        self._pinned: list[memoryview] = []
        self._later: deque[memoryview] = deque()
        self._thread: threading.Thread | None = None
        self._in_use: list[range] = []  # addresses that the device copies from or to
        self._at_work: memoryview | None = None  # is being pinned
        self._closed = False
        self.refusal = ""  # why memory is not pinned; empty if all memory was pinned

    def pin(self, memory: memoryview) -> None:
        """Pins `memory` until `unpin` or `close`, or notes why the machine refuses."""
        if self.refusal:
            return  # another attempt would take as long as pinning
        try:
            self._device.pin(memory)
        except DeviceError as error:  # a lost device reports itself at its next operation
            self._refuse(str(error).removeprefix(f"{self._device.name}: "))
            return
        with self._changed:
            self._pinned.append(memory)

    def pin_later(self, memory: memoryview) -> None:
        """Pins `memory` in a thread of its own, one piece after the other: a buffer of 64 MiB takes 20 to 70 ms."""
        with self._changed:
            self._later.append(memory)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._pin_all, name="dumont-pinning")
                try:
                    self._thread.start()
                except RuntimeError:  # the machine allows no more threads
                    self._thread = None
                    self._later.clear()
                    self.refusal = self.refusal or "there is no thread for it"

    def wait(self) -> None:
        """Waits until all memory is pinned that `pin_later` was given: measurements begin afterwards."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None)

    @contextmanager
    def in_use(self, *memories: memoryview) -> Iterator[None]:
        """Keeps memory as it is, pinned or not, while the device copies from or to it."""
        places = [_addresses(memory) for memory in memories]
        with self._changed:
            self._changed.wait_for(lambda: self._at_work is None or not _meet(self._at_work, places))
            self._in_use += places
        try:
            yield
        finally:
            with self._changed:
                for place in places:
                    self._in_use.remove(place)
                self._changed.notify_all()

    def unpin(self, memory: memoryview) -> None:
        """Unpins `memory`; does nothing for memory that is not pinned."""
        with self._changed:
            place = next((n for n, pinned in enumerate(self._pinned) if pinned is memory), None)
            if place is None:
                return
            del self._pinned[place]
        self._unpin(memory)

    def close(self) -> None:
        """Unpins all memory that is still pinned."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        with self._changed:
            pinned, self._pinned = self._pinned, []
        for memory in pinned:
            self._unpin(memory)

    def _pin_all(self) -> None:
        while (memory := self._next()) is not None:
            try:
                self.pin(memory)
            except Exception as error:  # of any type: from the driver, or its libraries
                self._refuse(f"{type(error).__name__}: {error}")
            finally:
                with self._changed:
                    self._at_work = None
                    self._changed.notify_all()

    def _next(self) -> memoryview | None:
        """Waits for a piece that the device does not use just now; None: there are no more."""
        with self._changed:
            while self._later and not self._closed and not self.refusal:
                for number, memory in enumerate(self._later):
                    if not _meet(memory, self._in_use):
                        del self._later[number]
                        self._at_work = memory
                        return memory
                self._changed.wait()
            self._later.clear()
            self._thread = None
            self._changed.notify_all()
            return None

    def _refuse(self, reason: str) -> None:
        with self._changed:
            self.refusal = self.refusal or reason

    def _unpin(self, memory: memoryview) -> None:
        with suppress(DeviceError):  # stays pinned until the process ends: no reason to fail a job or hide its error
            self._device.unpin(memory)


def _addresses(memory: memoryview) -> range:
    start = native.address_of(memory)
    return range(start, start + len(memory))


def _meet(memory: memoryview, places: list[range]) -> bool:
    own = _addresses(memory)
    return any(own.start < place.stop and place.start < own.stop for place in places)
