"""The codecs on one CUDA device: each chunk in a slot of device memory, with a stream of its own.

Copies in, kernels and copies out of different slots run side by side: copies hide behind kernels, and the kernels of
several chunks share a device that one chunk does not fill. Slots are allocated before the first chunk, and none later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from dumont_gpu.backends.base import DigestCheck, nobody_joins
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.decode_slot import DecodeSlot
from dumont_gpu.backends.device import Device
from dumont_gpu.backends.device_codecs import DEVICE_CODECS, WORTH_THE_TRIP, DeviceCodec
from dumont_gpu.backends.encode_slot import EncodeSlot
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slots import SlotPool
from dumont_gpu.backends.tally import Tally
from dumont_gpu.codecs import Codec
from dumont_gpu.errors import DeviceError
from dumont_gpu.format.digests import digest_function

SLOTS: Final = 4  # one chunk is copied in, one decoded, one copied out, and one waits: a fifth would only wait
_MEMORY_SHARE: Final = 0.5  # of the free device memory: other processes may need the rest


class CudaBackend:
    """Encodes and decodes the chunks of DEVICE_CODECS on a device, all other chunks on the CPU.

    If the device finds a fault in a chunk, or another digest, the CPU checks and decodes the chunk again: the CPU alone
    decides which chunks are damaged, and words the error.

    Args:
        device: owned by the backend from now on.
        memory: bytes of device memory to take at most; None: half of the free memory.
        minimum: chunks of fewer raw bytes stay on the CPU.
    """

    extra_threads = SLOTS

    def __init__(self, device: Device, memory: int | None = None, minimum: int = WORTH_THE_TRIP) -> None:
        self.device, self._memory, self._minimum = device, memory, minimum
        self._cpu = CpuBackend()
        self._chunk_size = 0  # raw bytes that a slot has room for
        self._decoding: SlotPool[DecodeSlot] | None = None
        self._encoding: SlotPool[EncodeSlot] | None = None
        self.pinning = Pinning(device)
        self._lock = threading.Lock()
        self._hashes_right = False  # whether a digest of the device was compared with the CPU's
        self._tally = Tally()
        self.repeated = 0  # chunks in which the device found a fault, so that the CPU decoded them

    @property
    def name(self) -> str:
        """ "cuda:N"; with sizes, where the CPU worked on chunks that are not for a device."""
        return self._tally.text(self.device.name) + self.remark

    @property
    def remark(self) -> str:
        """A limitation of the device that a user should know of; empty if there is none."""
        refusal = self.pinning.refusal
        return f", without pinned host memory ({refusal})" if refusal else ""

    @property
    def slots(self) -> int:
        """How many chunks may be on the device at once."""
        return min((pool.count for pool in (self._decoding, self._encoding) if pool is not None), default=0)

    def prepare(
        self,
        chunk_size: int,
        *,
        encode: bool = False,
        decode: bool = False,
        on_join: Callable[[int], None] = nobody_joins,
    ) -> None:
        """Allocates slots for chunks of up to `chunk_size` bytes.

        Raises:
            DeviceMemoryError: not even one slot fits.
        """
        self._chunk_size = chunk_size
        limit = self._memory if self._memory is not None else int(self.device.free_memory() * _MEMORY_SHARE)
        device, pinning = self.device, self.pinning
        if encode and decode:
            limit //= 2
        if encode:
            size = EncodeSlot.size(chunk_size, device)
            self._encoding = SlotPool(lambda: EncodeSlot(device, pinning, chunk_size), size, SLOTS, limit)
        if decode:
            size = DecodeSlot.size(chunk_size)
            self._decoding = SlotPool(lambda: DecodeSlot(device, pinning, chunk_size), size, SLOTS, limit)

    def expect(self, size: int) -> None:
        pass

    def pin(self, memory: memoryview) -> None:
        self.pinning.pin_later(memory)

    def encodes(self, codec: Codec, size: int) -> bool:
        """Whether chunks of this codec and size are encoded on the device."""
        on_device = self._on_device(codec.id, size)
        return on_device is not None and on_device.encode is not None

    def decodes(self, compressor_id: int, size: int) -> bool:
        """Whether chunks of this codec and size are decoded on the device."""
        return self._on_device(compressor_id, size) is not None

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None) -> int:
        size, on_device = self.encode_there(codec, chunk, out, digest)
        self._tally.add(len(chunk), device=on_device)
        return size

    def decode(
        self, compressor_id: int, encoded: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> None:
        self._tally.add(len(out), device=bool(self.decode_there(compressor_id, encoded, out, check)))

    def encode_there(
        self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None
    ) -> tuple[int, bool]:
        """Encodes as `encode` does; returns the size, and whether the device did the work."""
        if digest is not None:
            digest.clear()
        on_device = self._on_device(codec.id, len(chunk))
        if self._encoding is None or on_device is None or on_device.encode is None:
            return self._cpu.encode(codec, chunk, out, digest), False
        encode = on_device.encode
        with self.pinning.in_use(chunk, out):
            size = self._encoding.run(lambda slot: encode(slot, codec, chunk, out, digest))
        if digest and not self._hashes_right:  # a snapshot keeps the digest, and nobody looks again
            if digest_function("blake3")(out[:size]) != digest:
                raise DeviceError(f"{self.device.name} is not right: it gave another digest")
            self._hashes_right = True
        return size, True

    def decode_there(
        self, compressor_id: int, encoded: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> bool | None:
        """Decodes as `decode` does; returns whether the device did the work.

        False: it found a fault, and the CPU did; None: the chunk is for the CPU.
        """
        done: bool | None = None
        on_device = self._on_device(compressor_id, len(out))
        if self._decoding is not None and on_device is not None:
            decode, digest = on_device.decode, check.blake3 if check is not None else None
            if check is not None and digest is None:
                check.on_cpu()
                check = None
            with self.pinning.in_use(encoded, out):
                done = self._decoding.run(lambda slot: slot.load(encoded, digest) and decode(slot, encoded, out))
        if done is False:
            with self._lock:
                self.repeated += 1
        if not done:
            self._cpu.decode(compressor_id, encoded, out, check)
        return done

    def close(self) -> None:
        for pool in (self._decoding, self._encoding):
            if pool is not None:
                pool.close()
        self.pinning.close()
        self.device.close()

    def _on_device(self, compressor_id: int, size: int) -> DeviceCodec | None:
        """Returns how the device works on a chunk; None if the chunk is for the CPU."""
        if not self._minimum <= size <= self._chunk_size:
            return None
        on_device = DEVICE_CODECS.get(compressor_id)
        return None if on_device is None or (on_device.needs_lz4 and not self.device.has_lz4) else on_device
