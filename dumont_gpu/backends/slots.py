"""Slots: device memory for one chunk at a time, and the pool of slots."""

from __future__ import annotations

import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import accumulate
from typing import Generic, TypeVar

from dumont_gpu.backends.device import Device, DeviceMemoryError
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.errors import DeviceError
from dumont_gpu.sizes import MiB, align_up


class Slot:
    """Regions of device memory with a stream of their own, and host memory, pinned if possible, for tables and results.

    Args:
        device: owns the memory.
        pinning: pins the host memory.
        regions: bytes of each region of device memory.
        host: bytes of each piece of host memory.
    """

    def __init__(self, device: Device, pinning: Pinning, regions: Sequence[int], host: Sequence[int]) -> None:
        self.device = device
        self.closed = False
        sizes = [align_up(size) for size in regions]
        with ExitStack() as held:
            base = device.allocate(sum(sizes))
            held.callback(device.free, base)
            self.addresses = [base + end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
            self.host = [memoryview(mmap.mmap(-1, align_up(size))) for size in host]
            for memory in self.host:
                pinning.pin(memory)
                held.callback(pinning.unpin, memory)
            self.stream = device.new_stream()
            self._held = held.pop_all()

    def close(self) -> None:
        self.closed = True
        self._held.close()


S = TypeVar("S", bound=Slot)
T = TypeVar("T")


class SlotPool(Generic[S]):
    """Slots that threads lease; the pool allocates all slots at once, and gives slots up where memory runs short.

    Args:
        make: allocates one slot.
        slot_size: bytes of device memory of one slot.
        most: how many slots there may be.
        limit: bytes of device memory that all slots together may take.

    Raises:
        DeviceMemoryError: not even one slot fits.
    """

    def __init__(self, make: Callable[[], S], slot_size: int, most: int, limit: int) -> None:
        self._free: deque[S] = deque()
        self._changed = threading.Condition()
        try:
            while len(self._free) < most and (len(self._free) + 1) * slot_size <= limit:
                self._free.append(make())
        except DeviceMemoryError:
            pass  # the pool has as many slots as fit
        except DeviceError:
            self.close()
            raise
        self.count = len(self._free)
        if not self.count:
            needed, allowed = slot_size // MiB + 1, limit // MiB
            raise DeviceMemoryError(f"a chunk needs {needed} MiB of device memory; {allowed} MiB may be used, or less")

    def run(self, work: Callable[[S], T]) -> T:
        """Does `work` in a free slot; in another slot if device memory runs short, which other processes use, too.

        Raises:
            DeviceMemoryError: device memory ran short in the last slot.
            DeviceError: the device is lost.
        """
        while True:
            with self._lease() as slot:
                try:
                    return work(slot)
                except DeviceMemoryError:
                    self._give_up(slot)

    def close(self) -> None:
        for slot in self._free:
            with suppress(DeviceError):  # a lost device has nothing to give back
                slot.close()
        self._free.clear()

    @contextmanager
    def _lease(self) -> Iterator[S]:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            slot = self._free.popleft()
        try:
            yield slot
        finally:
            with self._changed:
                if not slot.closed:
                    self._free.append(slot)
                self._changed.notify()

    def _give_up(self, slot: S) -> None:
        with self._changed:
            if self.count == 1:
                raise DeviceMemoryError(f"{slot.device.name}: the device has no memory left")
            self.count -= 1
            slot.close()
