"""The slots of device memory that chunks on their way to tensors are decoded in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from dumont_gpu.backends.decode_slot import DecodeSlot
from dumont_gpu.backends.device import Device, DeviceMemoryError
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.errors import DeviceError
from dumont_gpu.sizes import MiB

SLOTS: Final = 4  # one chunk goes up, one is hashed, one is decoded, and one waits
_SHARE: Final = 0.5  # of the free device memory that slots may take


class LoadSlot(DecodeSlot):
    """A slot that may still hold the raw bytes of a chunk of which only a part was wanted."""

    holds: int | None = None  # the chunk's number


class LoadSlots:
    """The slots of a loader. A slot goes to one thread at a time.

    Raises:
        DeviceMemoryError: not even one slot fits.
    """

    def __init__(self, device: Device, pinning: Pinning, chunk_size: int, memory: int | None) -> None:
        limit = memory if memory is not None else int(device.free_memory() * _SHARE)
        size = LoadSlot.size(chunk_size)
        self._free: deque[LoadSlot] = deque()  # the one that was used last comes last
        self._changed = threading.Condition()
        try:
            while len(self._free) < SLOTS and (len(self._free) + 1) * size <= limit:
                self._free.append(LoadSlot(device, pinning, chunk_size))
        except DeviceMemoryError:
            pass  # there are as many slots as fit
        except DeviceError:
            self.close()
            raise
        if not self._free:
            needed, allowed = size // MiB + 1, limit // MiB
            raise DeviceMemoryError(f"a chunk needs {needed} MiB of device memory; {allowed} MiB may be used, or less")

    @contextmanager
    def lease(self) -> Iterator[LoadSlot]:
        """Waits for a slot; what the slot held is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            slot = self._free.popleft()
        slot.holds = None
        with self._given_back(slot):
            yield slot

    @contextmanager
    def lease_of(self, number: int) -> Iterator[LoadSlot | None]:
        """Gives the free slot that holds a chunk; None if there is none."""
        with self._changed:
            slot = next((slot for slot in self._free if slot.holds == number), None)
            if slot is not None:
                self._free.remove(slot)
        if slot is None:
            yield None
        else:
            with self._given_back(slot):
                yield slot

    @contextmanager
    def _given_back(self, slot: LoadSlot) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._free.append(slot)
                self._changed.notify()

    def close(self) -> None:
        for slot in self._free:
            with suppress(DeviceError):  # a lost device does nothing more
                slot.stream.synchronize()
            with suppress(DeviceError):  # and has nothing to give back
                slot.close()
        self._free.clear()
