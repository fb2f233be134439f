"""Encoding one chunk on a device."""

from __future__ import annotations

from dumont_gpu.backends.device import Device
from dumont_gpu.backends.launches import RESULT, FrameEncoding, ZipnnEncoding, run
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slot_digest import SlotDigest
from dumont_gpu.backends.slots import Slot
from dumont_gpu.codecs import Codec, ZipNN
from dumont_gpu.codecs.lz4 import frame_header
from dumont_gpu.native import layout
from dumont_gpu.sizes import KiB


class EncodeSlot(Slot):
    """Device memory for raw and encoded bytes, scratch memory, a description of the work, encoded size, and digest."""

    def __init__(self, device: Device, pinning: Pinning, chunk_size: int) -> None:
        _, _, _, table, result, work, _ = regions = _regions(chunk_size, device)
        super().__init__(device, pinning, regions, (table, result, work))
        *self._places, work_at, values_at = self.addresses
        self._source, self._out, _, self._table, self._result = self._places
        self._host_table, self._host_result, host_digest = self.host
        self._digest = SlotDigest(self.stream, work_at, values_at, host_digest)

    @staticmethod
    def size(chunk_size: int, device: Device) -> int:
        """Bytes of device memory."""
        return sum(_regions(chunk_size, device)) + len(_regions(chunk_size, device)) * 4 * KiB

    def encode_zipnn(self, codec: ZipNN, chunk: memoryview, out: memoryview, digest: bytearray | None = None) -> int:
        """Writes the stream to `out` and returns its size, or 0 if the stream does not fit there.

        Args:
            digest: becomes BLAKE3 of the stream.
        """
        encoding = ZipnnEncoding(codec.dtype, len(chunk), *self._places)
        self.stream.copy_in(self._source, chunk)
        self.stream.copy_in(self._table, encoding.describe(self._host_table))
        run(self.stream, encoding.launches)
        size = self._size_within(len(out))
        if size:
            encoding.write_header(size, out)
            self._collect(out[:size], layout("kHeaderSize"), digest)
        return size

    def encode_lz4(self, _codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None) -> int:
        """Writes the frame to `out` and returns its size, or 0 if the frame does not fit there; as `encode_zipnn`."""
        encoding = FrameEncoding(len(chunk), *self._places)
        self.stream.copy_in(self._source, chunk)
        self.stream.copy_in(self._table, encoding.describe(self._host_table))
        encoding.compress(self.stream)
        run(self.stream, encoding.launches)
        size = self._size_within(len(out))
        if size:
            header = frame_header(len(chunk))
            out[: len(header)] = header
            self._collect(out[:size], len(header), digest)
        return size

    def _size_within(self, room: int) -> int:
        """Waits for the encoded chunk; returns its size, or 0 if it does not fit in `room` bytes."""
        self.stream.copy_out(self._host_result[:RESULT], self._result)
        self.stream.synchronize()
        size = int.from_bytes(self._host_result[:RESULT], "little")
        return size if size <= room else 0

    def _collect(self, out: memoryview, header: int, digest: bytearray | None) -> None:
        """Fills `out`, which has the header already, with the encoded chunk."""
        if digest is not None:
            self.stream.copy_in(self._out, out[:header])
            self._digest.queue(self._out, len(out))
        self.stream.copy_out(out[header:], self._out + header)
        self.stream.synchronize()
        if digest is not None:
            digest[:] = self._digest.found


def _regions(chunk_size: int, device: Device) -> tuple[int, ...]:
    regions: tuple[int, ...] = ZipnnEncoding.regions(chunk_size, layout("kMaxPlanes"))
    if device.has_lz4:
        frames = FrameEncoding.regions(chunk_size, device)
        regions = tuple(max(sizes) for sizes in zip(regions, frames, strict=True))
    return *regions, *SlotDigest.regions(regions[1])
