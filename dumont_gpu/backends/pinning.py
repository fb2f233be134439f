"""Pins host memory for a device, where the machine allows it."""

from __future__ import annotations

import threading
from contextlib import suppress

from dumont_gpu.backends.device import Device
from dumont_gpu.errors import DeviceError


class Pinning:
    """Pins host memory, and goes on without after the first time that the machine refuses.

    Copies from and to memory that is not pinned are slower, and right all the same: the driver takes them through
    memory of its own. WSL2 and some containers limit what may be pinned.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._pinned: list[memoryview] = []
        self.refusal = ""  # why memory is not pinned; empty while everything was

    def pin(self, memory: memoryview) -> None:
        """Pins `memory` until `unpin` or `close`, or notes why that cannot be."""
        if self.refusal:
            return  # each try takes as long as pinning does
        try:
            self._device.pin(memory)
        except DeviceError as error:  # a device that is lost says so at its next operation
            with self._lock:
                self.refusal = self.refusal or str(error).removeprefix(f"{self._device.name}: ")
            return
        with self._lock:
            self._pinned.append(memory)

    def unpin(self, memory: memoryview) -> None:
        """Gives `memory` back to be paged; one that was not pinned is left alone."""
        with self._lock:
            place = next((n for n, pinned in enumerate(self._pinned) if pinned is memory), None)
            if place is None:
                return
            del self._pinned[place]
        self._unpin(memory)

    def close(self) -> None:
        """Unpins all that is left."""
        with self._lock:
            pinned, self._pinned = self._pinned, []
        for memory in pinned:
            self._unpin(memory)

    def _unpin(self, memory: memoryview) -> None:
        with suppress(DeviceError):  # it stays pinned until the process ends: no reason to end a job, or hide its error
            self._device.unpin(memory)
