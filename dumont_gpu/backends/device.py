"""What the CUDA backend needs of a device: little enough that the tests can stand in for it without a GPU.

Addresses are plain integers. Everything a stream is told to do happens in order; `synchronize` waits for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dumont_gpu.errors import DeviceError


class NoDeviceError(DeviceError):
    """The machine has no such device, or not what using it takes: nothing is wrong with it."""


class DeviceMemoryError(DeviceError):
    """The device has too little free memory; fewer or smaller slots may do."""


@dataclass(frozen=True, slots=True)
class Lz4Batch:
    """Addresses of arrays in device memory, one element for each block that is decoded or encoded."""

    count: int
    inputs: int  # void*[]
    input_sizes: int  # u64[]
    outputs: int  # void*[]
    output_rooms: int  # u64[]: how many bytes each may have; unused by encoders, which get room for the worst case
    output_sizes: int  # u64[], written: how many it has
    statuses: int  # i32[], written: 0 is good


class Stream(Protocol):
    """A queue of work on a device. Used by one thread at a time."""

    def copy_in(self, to: int, source: memoryview) -> None: ...
    def copy_out(self, to: memoryview, source: int) -> None: ...
    def clear(self, address: int, size: int) -> None:
        """Sets bytes to 0."""

    def launch(self, kernel: str, grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
        """Launches a kernel of KERNELS with `shared` bytes of dynamic shared memory; every argument is an address."""

    def decode_lz4(self, batch: Lz4Batch) -> None:
        """Decodes raw LZ4 blocks; may only be called where the device `has_lz4`."""

    def encode_lz4(self, batch: Lz4Batch, block_size: int, scratch: int) -> None:
        """Encodes blocks of up to `block_size` bytes as raw LZ4; `scratch` has the bytes that the device asks for."""

    def synchronize(self) -> None: ...


class Device(Protocol):
    """One CUDA device.

    Its methods and those of its streams raise DeviceMemoryError when memory is short, DeviceError when it is lost.
    """

    @property
    def name(self) -> str:
        """ "cuda:N"."""

    @property
    def has_lz4(self) -> bool:
        """Whether there is an LZ4 decoder."""

    @property
    def shared_limit(self) -> int:
        """The most dynamic shared memory that a CTA may have, in bytes."""

    def lz4_encode_scratch(self, blocks: int, block_size: int) -> int:
        """Bytes of scratch that encoding a batch of LZ4 blocks takes."""

    def free_memory(self) -> int: ...
    def allocate(self, size: int) -> int:
        """Returns the address of `size` bytes, a multiple of 256."""

    def free(self, address: int) -> None: ...
    def pin(self, memory: memoryview) -> None:
        """Makes copies from and to this host memory fast and asynchronous, until `unpin`.

        Raises:
            DeviceError: the machine lets no more memory be pinned.
        """

    def unpin(self, memory: memoryview) -> None: ...
    def load_kernels(self) -> None:
        """Makes every kernel ready to launch."""

    def new_stream(self) -> Stream: ...
    def close(self) -> None: ...


# The entry points, and the source each one is in: all that is said of a kernel outside its file.
KERNELS = {
    "zipnn_decode": "zipnn_decode.cu",
    "zipnn_join": "zipnn_decode.cu",
    "zipnn_plan": "zipnn_encode.cu",
    "zipnn_layout": "zipnn_encode.cu",
    "zipnn_write": "zipnn_encode.cu",
    "copy_stored": "copy_stored.cu",
    "lz4_layout": "lz4_frame.cu",
    "lz4_write": "lz4_frame.cu",
}
