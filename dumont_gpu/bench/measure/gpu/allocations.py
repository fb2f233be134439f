"""Device memory that is freed all at once."""

from __future__ import annotations

from contextlib import ExitStack

from dumont_gpu.backends.device import Device
from dumont_gpu.sizes import align_up


class Allocations:
    """Regions of a device's memory, held until `close`."""

    def __init__(self, device: Device) -> None:
        self._device, self._held = device, ExitStack()

    def allocate(self, size: int) -> int:
        """Returns the address of at least `size` bytes."""
        address = self._device.allocate(align_up(size))
        self._held.callback(self._device.free, address)
        return address

    def close(self) -> None:
        self._held.close()
