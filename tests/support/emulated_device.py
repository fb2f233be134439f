"""A CUDA device for the tests: host memory, and the kernels as the compiler makes them, run by the PTX machine.

Faults can be asked for: memory that runs short, a device that is lost. A `deferred` device does nothing before somebody
waits for it, as late as a real device may: it finds host memory that was given back, or read, too early. It may have a
speed, in simulated time.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import lz4.block

from dumont_gpu import native
from dumont_gpu.backends.device import DeviceMemoryError, Lz4Batch
from dumont_gpu.errors import DeviceError
from support.ptx_machine import library

_ALIGNMENT = 256


@dataclass
class SimulatedClock:
    now: float = 0.0  # seconds


@dataclass
class EmulatedDevice:
    """Stands in for `CupyDevice`.

    Args:
        memory: bytes of the device's memory.
        lose_after: operations until the device is lost; None: never.
        short_at: numbers of launches that fail for lack of memory.
        pins: how many pieces of host memory may be pinned, ever; None: any number.
        unpins: whether pinned memory can be unpinned.
        compiles: whether the kernels can be loaded.
        deferred: whether copies and kernels wait until somebody waits for them; `copy_out` spoils its memory meanwhile.
        rate: bytes that are copied in or out in a second of `clock`.
    """

    memory: int = 1 << 30
    name: str = "cuda:0"
    has_lz4: bool = True
    shared_limit: int = 227 * 1024
    lose_after: int | None = None
    short_at: frozenset[int] = frozenset()
    pins: int | None = None
    unpins: bool = True
    compiles: bool = True
    deferred: bool = False
    rate: float = float("inf")
    clock: SimulatedClock = field(default_factory=lambda: SimulatedClock())
    pin_attempts: int = 0
    operations: int = 0
    launches: list[str] = field(default_factory=list)
    pinned: dict[int, int] = field(default_factory=dict)  # address -> size
    closed: bool = False

    def __post_init__(self) -> None:
        self._blocks: dict[int, mmap.mmap] = {}
        self._streams: list[EmulatedStream] = []
        self._lock = threading.Lock()

    def lz4_encode_scratch(self, blocks: int, block_size: int) -> int:
        return 1000 * blocks

    def free_memory(self) -> int:
        return self.memory - sum(len(block) for block in self._blocks.values())

    def allocate(self, size: int) -> int:
        self.step()
        with self._lock:
            if size > self.free_memory():
                raise DeviceMemoryError(f"{self.name}: too little free device memory")
            block = mmap.mmap(-1, size)
            address = native.address_of(memoryview(block))
            assert address % _ALIGNMENT == 0
            self._blocks[address] = block
            library().machine_add_memory(address, size)
            return address

    def free(self, address: int) -> None:
        with self._lock:
            library().machine_remove_memory(address)
            del self._blocks[address]  # the map itself ends with its last view

    def pin(self, memory: memoryview) -> None:
        self.step()
        with self._lock:
            self.pin_attempts += 1
            if self.pins is not None and self.pin_attempts > self.pins:
                raise DeviceError(f"{self.name}: no more host memory can be pinned")
            address = native.address_of(memory)
            assert address not in self.pinned
            self.pinned[address] = len(memory)

    def unpin(self, memory: memoryview) -> None:
        with self._lock:
            del self.pinned[native.address_of(memory)]
        if not self.unpins:
            raise DeviceError(f"{self.name}: host memory stays pinned")

    def load_kernels(self) -> None:
        self.step()
        if not self.compiles:
            raise DeviceError(f"{self.name}: CuPy failed to load libnvrtc.so")
        library().machine_set_strict(1)  # kernels touch this memory only

    def new_stream(self) -> EmulatedStream:
        stream = EmulatedStream(self)
        with self._lock:
            self._streams.append(stream)
        return stream

    @property
    def pending(self) -> int:
        """Operations that nobody has waited for: only of a `deferred` device."""
        return sum(len(stream._queue) for stream in self._streams)

    def close(self) -> None:
        assert not self.closed
        assert not self._blocks, "device memory was not given back"
        assert not self.pinned, "host memory is still pinned"
        self.closed = True

    def step(self) -> None:
        """Counts an operation; at a given number, the device is lost."""
        with self._lock:
            self.operations += 1
            lost = self.lose_after is not None and self.operations > self.lose_after
        if lost:
            raise DeviceError(f"{self.name}: the device is lost")

    def inside(self, address: int, size: int) -> bool:
        return any(start <= address and address + size <= start + len(block) for start, block in self._blocks.items())


class EmulatedStream:
    """Does everything at once, and `synchronize` has nothing left to wait for; or everything then, if `deferred`."""

    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device
        self._queue: list[Callable[[], object]] = []

    def _add(self, work: Callable[[], object]) -> None:
        if self._device.deferred:
            self._queue.append(work)
        else:
            work()

    def copy_in(self, to: int, source: memoryview) -> None:
        self._device.step()
        assert self._device.inside(to, len(source))
        self._add(lambda: ctypes.memmove(to, native.address_of(source), len(source)))
        self._device.clock.now += len(source) / self._device.rate

    def copy_out(self, to: memoryview, source: int) -> None:
        self._device.step()
        assert self._device.inside(source, len(to))
        if self._device.deferred:
            native.spoil(to)
        self._add(lambda: native.copy(to, _memory(source, len(to))))
        self._device.clock.now += len(to) / self._device.rate

    def copy(self, to: int, source: int, size: int) -> None:
        self._device.step()
        assert self._device.inside(to, size)
        assert self._device.inside(source, size)
        self._add(lambda: ctypes.memmove(to, source, size))

    def clear(self, address: int, size: int) -> None:
        self._device.step()
        assert self._device.inside(address, size)
        self._add(lambda: ctypes.memset(address, 0, size))

    def launch(self, kernel: str, grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
        self._device.step()
        assert shared <= self._device.shared_limit
        self._device.launches.append(kernel)
        if len(self._device.launches) in self._device.short_at:
            raise DeviceMemoryError(f"{self._device.name}: too little free device memory")
        self._add(lambda: _run(kernel, grid, block, shared, arguments))

    def decode_lz4(self, batch: Lz4Batch) -> None:
        """Does the work of nvCOMP's batched call: a status for each block, and no write beyond a block's output."""
        self._device.step()
        self._device.launches.append("lz4")
        self._add(lambda: self._decode_lz4(batch))

    def encode_lz4(self, batch: Lz4Batch, block_size: int, scratch: int) -> None:
        self._device.step()
        self._device.launches.append("lz4 encode")
        assert self._device.inside(scratch, self._device.lz4_encode_scratch(batch.count, block_size))
        self._add(lambda: self._encode_lz4(batch, block_size))

    def synchronize(self) -> None:
        self._device.step()
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def _decode_lz4(self, batch: Lz4Batch) -> None:
        columns = (batch.inputs, batch.input_sizes, batch.outputs, batch.output_rooms)
        stored, sizes, outputs, rooms = (_array(ctypes.c_uint64, address, batch.count) for address in columns)
        actual = _array(ctypes.c_uint64, batch.output_sizes, batch.count)
        statuses = _array(ctypes.c_int32, batch.statuses, batch.count)
        for i in range(batch.count):
            assert self._device.inside(stored[i], sizes[i])
            assert self._device.inside(outputs[i], rooms[i])
            try:
                data = lz4.block.decompress(_memory(stored[i], sizes[i]), uncompressed_size=rooms[i])
            except lz4.block.LZ4BlockError:
                statuses[i], actual[i] = 12, 0  # nvcompErrorCannotDecompress
                continue
            ctypes.memmove(outputs[i], data, len(data))
            statuses[i], actual[i] = 0, len(data)

    def _encode_lz4(self, batch: Lz4Batch, block_size: int) -> None:
        inputs, sizes, outputs = (
            _array(ctypes.c_uint64, address, batch.count)
            for address in (batch.inputs, batch.input_sizes, batch.outputs)
        )
        actual = _array(ctypes.c_uint64, batch.output_sizes, batch.count)
        for i in range(batch.count):
            assert sizes[i] <= block_size
            assert self._device.inside(inputs[i], sizes[i])
            data = lz4.block.compress(_memory(inputs[i], sizes[i]), store_size=False)
            assert self._device.inside(outputs[i], len(data))
            ctypes.memmove(outputs[i], data, len(data))
            actual[i] = len(data)


def _run(kernel: str, grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
    values = [ctypes.c_uint64(argument) for argument in arguments]
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    if library().machine_launch(kernel.encode(), grid, block, shared, addresses):
        raise AssertionError(f"{kernel}: {library().machine_error().decode()}")


def _memory(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_uint8 * size).from_address(address)).cast("B")


def _array(
    kind: type[ctypes.c_uint64] | type[ctypes.c_int32], address: int, count: int
) -> ctypes.Array[ctypes.c_uint64]:
    return (kind * count).from_address(address)  # type: ignore[return-value]
