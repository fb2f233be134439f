"""The part of a device that the CUDA backend uses: so small that the tests can emulate a device without a GPU.

Addresses are plain integers. A stream does its work in order; `synchronize` waits until all work is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dumont_gpu.errors import DeviceError


class NoDeviceError(DeviceError):
    """The machine lacks the device, or a package for it; nothing is broken."""


class DeviceMemoryError(DeviceError):
    """The device has too little free memory; fewer or smaller slots may fit."""


@dataclass(frozen=True, slots=True)
class Lz4Batch:
    """Addresses of arrays in device memory, one element for each block that is decoded or encoded."""

    count: int
    inputs: int  # void*[]
    input_sizes: int  # u64[]
    outputs: int  # void*[]
    output_rooms: int  # u64[]: bytes of room at each output; 0 for encoders, whose outputs fit the worst case
    output_sizes: int  # u64[], written: bytes of each output
    statuses: int  # i32[], written: 0 for success


@dataclass(frozen=True, slots=True)
class DeviceRegion:
    """Bytes of device memory; an empty region may have any address."""

    address: int
    size: int

    def __len__(self) -> int:
        return self.size

    def part(self, start: int, size: int) -> DeviceRegion:
        """Returns `size` bytes from the byte `start` on."""
        return DeviceRegion(self.address + start, size)


class Stream(Protocol):
    """A queue of work on a device. Used by one thread at a time."""

    def copy_in(self, to: int, source: memoryview) -> None: ...
    def copy_out(self, to: memoryview, source: int) -> None: ...
    def copy(self, to: int, source: int, size: int) -> None:
        """Copies bytes within the device's memory."""

    def clear(self, address: int, size: int) -> None:
        """Sets bytes to 0."""

    def launch(self, kernel: str, grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
        """Launches a kernel of KERNELS: `grid` CTAs of `block` threads, each CTA with `shared` bytes of dynamic memory.

        Every argument is an address.
        """

    def decode_lz4(self, batch: Lz4Batch) -> None:
        """Decodes LZ4 blocks; only for a device that `has_lz4`."""

    def encode_lz4(self, batch: Lz4Batch, block_size: int, scratch: int) -> None:
        """Encodes blocks of up to `block_size` bytes; `scratch` has the bytes that `lz4_encode_scratch` returns."""

    def synchronize(self) -> None: ...


class Device(Protocol):
    """One CUDA device.

    Its methods and those of its streams raise DeviceMemoryError when memory is short, DeviceError when the device is
    lost.
    """

    @property
    def name(self) -> str:
        """ "cuda:N"."""

    @property
    def has_lz4(self) -> bool:
        """Whether the device can encode and decode LZ4 blocks."""

    def lz4_encode_scratch(self, blocks: int, block_size: int) -> int:
        """Returns the bytes of scratch memory that encoding a batch of LZ4 blocks takes."""

    def free_memory(self) -> int: ...
    def allocate(self, size: int) -> int:
        """Returns the address of `size` bytes, a multiple of 256."""

    def free(self, address: int) -> None: ...
    def pin(self, memory: memoryview) -> None:
        """Makes copies from and to this host memory fast and asynchronous until `unpin`.

        Raises:
            DeviceError: the machine does not allow more pinned memory.
        """

    def unpin(self, memory: memoryview) -> None: ...
    def load_kernels(self) -> None:
        """Makes every kernel ready to launch."""

    def new_stream(self) -> Stream: ...
    def close(self) -> None: ...
