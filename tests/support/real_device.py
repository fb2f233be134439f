"""A real CUDA device for tests that otherwise run on the emulated one: records launches, and allocations that are still held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumont_gpu import native
from dumont_gpu.backends.device import Device, Lz4Batch, Stream


class RecordedDevice:
    """Passes everything on to `device`."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.launches: list[str] = []
        self.closed = False
        self._held: set[int] = set()  # addresses of device memory, and of pinned host memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def allocate(self, size: int) -> int:
        address = self._device.allocate(size)
        self._held.add(address)
        return address

    def free(self, address: int) -> None:
        self._device.free(address)
        self._held.remove(address)

    def pin(self, memory: memoryview) -> None:
        self._device.pin(memory)
        self._held.add(native.address_of(memory))

    def unpin(self, memory: memoryview) -> None:
        self._device.unpin(memory)
        self._held.remove(native.address_of(memory))

    def new_stream(self) -> RecordedStream:
        return RecordedStream(self._device.new_stream(), self.launches)

    def close(self) -> None:
        assert not self.closed
        assert not self._held, "memory was not given back"
        self._device.close()
        self.closed = True


class RecordedStream:
    def __init__(self, stream: Stream, launches: list[str]) -> None:
        self._stream, self._launches = stream, launches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def launch(self, kernel: str, grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
        self._launches.append(kernel)
        self._stream.launch(kernel, grid, block, shared, arguments)

    def decode_lz4(self, batch: Lz4Batch) -> None:
        self._launches.append("lz4")
        self._stream.decode_lz4(batch)
