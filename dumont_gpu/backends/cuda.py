"""The codecs on one CUDA device: each chunk in a slot of device memory, with a stream of its own.

Copies in, kernels and copies out of different slots run side by side: that hides the copies behind one another, and
lets the kernels of several chunks share a device that one chunk does not fill. Slots are allocated once; nothing is
allocated while chunks pass.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from dumont_gpu import native
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.device import Device, DeviceMemoryError, Lz4Batch
from dumont_gpu.codecs import Codec, Lz4, Lz4Hc, ZipNN
from dumont_gpu.codecs.lz4 import frame_content_size
from dumont_gpu.errors import DamagedError, DeviceError
from dumont_gpu.format import KiB, MiB, align_up

_ZIPNN: Final = ZipNN().id
_LZ4: Final = (Lz4().id, Lz4Hc().id)
_SLOTS: Final = 4  # one chunk goes up, one is decoded, one comes down, one waits: more only wait
_WORTH_THE_TRIP: Final = 256 * KiB  # below, launches and copies cost more than decoding here
_MEMORY_SHARE: Final = 0.5  # of the free device memory that a job takes unless told otherwise: others may be at work
_PLANE_MEMORY: Final = 20_624  # shared memory of `zipnn_decode` for each coded plane, asserted in zipnn_decode.cu
_WARP: Final = 32
_JOIN_THREADS: Final = 128
_SMALLEST_BLOCK: Final = 16 * KiB  # of a ZipNN stream on average; chunks of smaller ones are decoded on the CPU
_LZ4_BLOCK: Final = 64 * KiB
_ROOM_AFTER_STORED: Final = 256  # kernels read up to 16 bytes beyond the stored bytes; the rest keeps alignment


class CudaBackend:
    """Decodes ZipNN and LZ4 chunks on a device; encodes on the CPU.

    Whatever the device finds wrong with a chunk, the CPU decodes it again and has the last word: one place decides what
    is damaged, and what it says.

    Args:
        device: owned by the backend from now on.
        memory: bytes of device memory to take at most; None: half of what is free.
        minimum: chunks of fewer original bytes are decoded on the CPU.
    """

    def __init__(self, device: Device, memory: int | None = None, minimum: int = _WORTH_THE_TRIP) -> None:
        self._device, self._memory, self._minimum = device, memory, minimum
        self._cpu = CpuBackend()
        self._slots: deque[_Slot] = deque()
        self._slot_count = 0
        self._chunk_size = 0  # what a slot holds
        self._changed = threading.Condition()
        self._pinned: list[memoryview] = []
        self.repeated = 0  # chunks that the device did not decode to the end, and the CPU did

    @property
    def name(self) -> str:
        return self._device.name

    @property
    def extra_jobs(self) -> int:
        """How many more chunks than the CPU's it can have at work."""
        return _SLOTS

    def prepare(self, chunk_size: int) -> None:
        """Allocates slots for chunks of up to `chunk_size` bytes.

        Raises:
            DeviceMemoryError: not even one fits.
        """
        self._chunk_size = chunk_size
        limit = self._memory if self._memory is not None else int(self._device.free_memory() * _MEMORY_SHARE)
        size = _slot_size(chunk_size)
        try:
            while self._slot_count < _SLOTS and (self._slot_count + 1) * size <= limit:
                self._slots.append(_Slot(self._device, chunk_size))
                self._slot_count += 1
        except DeviceMemoryError:
            if not self._slot_count:
                raise
        if not self._slot_count:
            raise DeviceMemoryError(
                f"{self.name}: a chunk needs {size // MiB + 1} MiB of device memory, {limit // MiB} MiB may be used"
            )

    def pin(self, memory: memoryview) -> None:
        self._device.pin(memory)
        self._pinned.append(memory)

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview) -> int:
        return self._cpu.encode(codec, chunk, out)

    def decode(self, compressor_id: int, stored: memoryview, out: memoryview) -> None:
        if not self._decode_here(compressor_id, stored, out):
            self._cpu.decode(compressor_id, stored, out)

    def takes(self, compressor_id: int, size: int) -> bool:
        """Whether chunks of this codec and size travel to the device."""
        known = compressor_id == _ZIPNN or (self._device.has_lz4 and compressor_id in _LZ4)
        return known and self._minimum <= size <= self._chunk_size

    def close(self) -> None:
        for slot in self._slots:
            with suppress(DeviceError):  # a lost device has nothing left to give back
                slot.close()
        for memory in self._pinned:
            with suppress(DeviceError):
                self._device.unpin(memory)
        self._slots.clear()
        self._pinned.clear()
        self._device.close()

    def _decode_here(self, compressor_id: int, stored: memoryview, out: memoryview) -> bool:
        """Returns whether `out` now holds the chunk."""
        if not self.takes(compressor_id, len(out)):
            return False
        while True:
            with self._slot() as slot:
                try:
                    done = slot.decode_zipnn(stored, out) if compressor_id == _ZIPNN else slot.decode_lz4(stored, out)
                    break
                except DeviceMemoryError:
                    self._give_up(slot)
        if done is False:
            with self._changed:
                self.repeated += 1
        return done is True

    @contextmanager
    def _slot(self) -> Iterator[_Slot]:
        with self._changed:
            self._changed.wait_for(lambda: self._slots)
            slot = self._slots.popleft()
        try:
            yield slot
        finally:
            with self._changed:
                if not slot.closed:
                    self._slots.append(slot)
                self._changed.notify()

    def _give_up(self, slot: _Slot) -> None:
        """Goes on with one slot less: somebody else has taken the memory that a launch needs.

        Raises:
            DeviceMemoryError: it was the last one.
        """
        with self._changed:
            if self._slot_count == 1:
                raise DeviceMemoryError(f"{self.name}: the device has no memory left")
            self._slot_count -= 1
            slot.close()


def _block_count(chunk_size: int) -> int:
    return chunk_size // _SMALLEST_BLOCK + 16


def _table_size(chunk_size: int) -> int:
    """Bytes of the table that lists a chunk's blocks, of either codec."""
    lz4 = (chunk_size // _LZ4_BLOCK + 1) * (native.LZ4_BLOCK + native.STORED_COPY)
    return align_up(max(_block_count(chunk_size) * native.ZIPNN_BLOCK, lz4))


def _results_size(chunk_size: int) -> int:
    """Bytes of what the kernels say of a chunk's blocks: a status each, and for LZ4 a size."""
    return align_up(max(4 * _block_count(chunk_size), 12 * (chunk_size // _LZ4_BLOCK + 1)))


def _slot_size(chunk_size: int) -> int:
    return 2 * align_up(chunk_size + _ROOM_AFTER_STORED) + _table_size(chunk_size) + _results_size(chunk_size)


class _Slot:
    """Device memory for one chunk: stored bytes, original bytes, the list of its blocks and what became of them."""

    def __init__(self, device: Device, chunk_size: int) -> None:
        self._device = device
        with ExitStack() as held:
            self._stored = device.allocate(_slot_size(chunk_size))
            held.callback(device.free, self._stored)
            self._host_table = memoryview(mmap.mmap(-1, _table_size(chunk_size)))
            self._host_results = memoryview(mmap.mmap(-1, _results_size(chunk_size)))
            for memory in (self._host_table, self._host_results):
                device.pin(memory)
                held.callback(device.unpin, memory)
            self._stream = device.new_stream()
            self._held = held.pop_all()
        self._out = self._stored + align_up(chunk_size + _ROOM_AFTER_STORED)
        self._table = self._out + align_up(chunk_size + _ROOM_AFTER_STORED)
        self._results = self._table + _table_size(chunk_size)
        self.closed = False

    def decode_zipnn(self, stored: memoryview, out: memoryview) -> bool | None:
        """Returns True if `out` holds the chunk, False if the device found a fault, None if the chunk is not for it."""
        counts = native.zipnn_device_blocks(stored, len(out), self._host_table)
        if counts is None or self._too_many_planes(counts):
            return None
        total = sum(counts)
        self._stream.copy_in(self._stored, stored)
        self._stream.copy_in(self._table, self._host_table[: total * native.ZIPNN_BLOCK])
        self._stream.clear(self._results, 4 * total)
        first = 0
        for coded, count in enumerate(counts):
            if count:
                blocks = self._table + first * native.ZIPNN_BLOCK
                arguments = (self._stored, self._out, blocks)
                if coded:
                    status = self._results + 4 * first
                    shared = coded * _PLANE_MEMORY
                    self._stream.launch("zipnn_decode", count, coded * _WARP, shared, (*arguments, status))
                else:
                    self._stream.launch("zipnn_join", count, _JOIN_THREADS, 0, arguments)
            first += count
        statuses = self._finish(out, 4 * total)
        return not any(statuses)

    def decode_lz4(self, stored: memoryview, out: memoryview) -> bool | None:
        """Returns as `decode_zipnn` does."""
        try:
            if frame_content_size(stored) != len(out):
                return None
        except DamagedError:
            return None
        counts = native.lz4_device_blocks(stored, len(out), self._stored, self._out, self._host_table)
        if counts is None:
            return None
        compressed, copies = counts
        capacity = len(self._host_table) // (native.LZ4_BLOCK + native.STORED_COPY)
        stored_at, sizes_at, out_at, rooms_at, copies_at = (self._table + 8 * capacity * n for n in range(5))
        self._stream.copy_in(self._stored, stored)
        self._stream.copy_in(self._table, self._host_table)
        self._stream.clear(self._results, 12 * compressed)
        if compressed:
            results = self._results, self._results + 8 * compressed  # sizes, statuses
            self._stream.decode_lz4(Lz4Batch(compressed, stored_at, sizes_at, out_at, rooms_at, *results))
        if copies:
            self._stream.launch("copy_stored", copies, _JOIN_THREADS, 0, (copies_at,))
        found = self._finish(out, 12 * compressed)
        expected = self._host_table[24 * capacity : 24 * capacity + 8 * compressed]
        return found[: 8 * compressed] == expected and not any(found[8 * compressed :])

    def close(self) -> None:
        self.closed = True
        self._held.close()

    def _too_many_planes(self, counts: list[int]) -> bool:
        return any(count and coded * _PLANE_MEMORY > self._device.shared_limit for coded, count in enumerate(counts))

    def _finish(self, out: memoryview, results: int) -> memoryview:
        """Waits for the chunk, in `out`; returns `results` bytes of what the kernels said."""
        self._stream.copy_out(self._host_results[:results], self._results)
        self._stream.copy_out(out, self._out)
        self._stream.synchronize()
        return self._host_results[:results]
