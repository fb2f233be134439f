"""Pins host memory for a device, where the machine allows it."""

from __future__ import annotations

import threading
from contextlib import suppress

from dumont_gpu.backends.device import Device
from dumont_gpu.errors import DeviceError


class Pinning:
    """Pins host memory until the machine refuses once; goes on without pinned memory from then on.

    Copies from and to other memory are slower but correct: the driver copies through pinned memory of its own. WSL2 and
    some containers limit pinned memory.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._pinned: list[memoryview] = []
        self.refusal = ""  # why memory is not pinned; empty if all memory was pinned

    def pin(self, memory: memoryview) -> None:
        """Pins `memory` until `unpin` or `close`, or notes why the machine refuses."""
        if self.refusal:
            return  # another attempt would take as long as pinning
        try:
            self._device.pin(memory)
        except DeviceError as error:  # a lost device reports itself at its next operation
            with self._lock:
                self.refusal = self.refusal or str(error).removeprefix(f"{self._device.name}: ")
            return
        with self._lock:
            self._pinned.append(memory)

    def unpin(self, memory: memoryview) -> None:
        """Unpins `memory`; does nothing for memory that is not pinned."""
        with self._lock:
            place = next((n for n, pinned in enumerate(self._pinned) if pinned is memory), None)
            if place is None:
                return
            del self._pinned[place]
        self._unpin(memory)

    def close(self) -> None:
        """Unpins all memory that is still pinned."""
        with self._lock:
            pinned, self._pinned = self._pinned, []
        for memory in pinned:
            self._unpin(memory)

    def _unpin(self, memory: memoryview) -> None:
        with suppress(DeviceError):  # stays pinned until the process ends: no reason to fail a job or hide its error
            self._device.unpin(memory)
