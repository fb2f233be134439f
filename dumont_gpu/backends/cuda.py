"""The codecs on one CUDA device: each chunk in a slot of device memory, with a stream of its own.

Copies in, kernels and copies out of different slots run side by side: that hides the copies behind one another, and
lets the kernels of several chunks share a device that one chunk does not fill. Slots are allocated once; nothing is
allocated while chunks pass.
"""

from __future__ import annotations

import threading
from typing import Final

from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.decode_slot import DecodeSlot
from dumont_gpu.backends.device import Device
from dumont_gpu.backends.encode_slot import EncodeSlot
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slots import SlotPool
from dumont_gpu.codecs import Codec, Lz4, Lz4Hc, ZipNN
from dumont_gpu.sizes import KiB

_ZIPNN: Final = ZipNN().id
_LZ4: Final = Lz4().id
_LZ4_HC: Final = Lz4Hc().id
_SLOTS: Final = 4  # one chunk goes up, one is worked on, one comes down, one waits: more only wait
_WORTH_THE_TRIP: Final = 256 * KiB  # below, launches and copies cost more than the work takes here
_MEMORY_SHARE: Final = 0.5  # of the free device memory that a job takes unless told otherwise: others may be at work


class CudaBackend:
    """Encodes and decodes ZipNN and LZ4 chunks on a device; what is not for it goes to the CPU.

    Whatever the device finds wrong with a chunk, the CPU decodes it again and has the last word: one place decides what
    is damaged, and what it says.

    Args:
        device: owned by the backend from now on.
        memory: bytes of device memory to take at most; None: half of what is free.
        minimum: chunks of fewer original bytes stay on the CPU.
    """

    def __init__(self, device: Device, memory: int | None = None, minimum: int = _WORTH_THE_TRIP) -> None:
        self._device, self._memory, self._minimum = device, memory, minimum
        self._cpu = CpuBackend()
        self._chunk_size = 0  # what a slot holds
        self._decoding: SlotPool[DecodeSlot] | None = None
        self._encoding: SlotPool[EncodeSlot] | None = None
        self._pinning = Pinning(device)
        self._lock = threading.Lock()
        self.repeated = 0  # chunks that the device did not decode to the end, and the CPU did

    @property
    def name(self) -> str:
        return self.device_name + self.remark

    @property
    def device_name(self) -> str:
        """ "cuda:N"."""
        return self._device.name

    @property
    def remark(self) -> str:
        """What a user should know of how the device is used; empty if all is as it should be."""
        refusal = self._pinning.refusal
        return f", without pinned host memory ({refusal})" if refusal else ""

    @property
    def extra_jobs(self) -> int:
        return _SLOTS

    def prepare(self, chunk_size: int, *, encode: bool = False, decode: bool = False) -> None:
        """Allocates slots for chunks of up to `chunk_size` bytes.

        Raises:
            DeviceMemoryError: not even one fits.
        """
        self._chunk_size = chunk_size
        limit = self._memory if self._memory is not None else int(self._device.free_memory() * _MEMORY_SHARE)
        device, pinning = self._device, self._pinning
        if encode and decode:
            limit //= 2
        if encode:
            size = EncodeSlot.size(chunk_size, device)
            self._encoding = SlotPool(lambda: EncodeSlot(device, pinning, chunk_size), size, _SLOTS, limit)
        if decode:
            size = DecodeSlot.size(chunk_size)
            self._decoding = SlotPool(lambda: DecodeSlot(device, pinning, chunk_size), size, _SLOTS, limit)

    def pin(self, memory: memoryview) -> None:
        self._pinning.pin(memory)

    def encodes(self, codec: Codec, size: int) -> bool:
        """Whether chunks of this codec and size are encoded on the device: not those of LZ4's high compression."""
        known = codec.id == _ZIPNN or (self._device.has_lz4 and codec.id == _LZ4)
        return known and self._fits(size)

    def decodes(self, compressor_id: int, size: int) -> bool:
        """Whether chunks of this codec and size are decoded on the device."""
        known = compressor_id == _ZIPNN or (self._device.has_lz4 and compressor_id in (_LZ4, _LZ4_HC))
        return known and self._fits(size)

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview) -> int:
        if self._encoding is None or not self.encodes(codec, len(chunk)):
            return self._cpu.encode(codec, chunk, out)
        if isinstance(codec, ZipNN):
            dtype = codec.dtype
            return self._encoding.run(lambda slot: slot.encode_zipnn(chunk, out, dtype))
        return self._encoding.run(lambda slot: slot.encode_lz4(chunk, out))

    def decode(self, compressor_id: int, stored: memoryview, out: memoryview) -> None:
        done: bool | None = None
        if self._decoding is not None and self.decodes(compressor_id, len(out)):
            if compressor_id == _ZIPNN:
                done = self._decoding.run(lambda slot: slot.decode_zipnn(stored, out))
            else:
                done = self._decoding.run(lambda slot: slot.decode_lz4(stored, out))
        if done is False:
            with self._lock:
                self.repeated += 1
        if not done:
            self._cpu.decode(compressor_id, stored, out)

    def close(self) -> None:
        for pool in (self._decoding, self._encoding):
            if pool is not None:
                pool.close()
        self._pinning.close()
        self._device.close()

    def _fits(self, size: int) -> bool:
        return self._minimum <= size <= self._chunk_size
