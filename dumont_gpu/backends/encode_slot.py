"""Encoding one chunk on a device."""

from __future__ import annotations

from dumont_gpu.backends.device import Device
from dumont_gpu.backends.launches import RESULT, FrameEncoding, ZipnnEncoding, run
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slots import Slot
from dumont_gpu.codecs import Codec, ZipNN
from dumont_gpu.codecs.lz4 import frame_header
from dumont_gpu.native import layout
from dumont_gpu.sizes import KiB


class EncodeSlot(Slot):
    """Device memory for raw bytes, encoded bytes, scratch memory, a description of the work, and the encoded size."""

    def __init__(self, device: Device, pinning: Pinning, chunk_size: int) -> None:
        _, _, _, table, result = regions = _regions(chunk_size, device)
        super().__init__(device, pinning, regions, (table, result))
        self._source, self._out, self._scratch, self._table, self._result = self.addresses
        self._host_table, self._host_result = self.host

    @staticmethod
    def size(chunk_size: int, device: Device) -> int:
        """Bytes of device memory."""
        return sum(_regions(chunk_size, device)) + 5 * 4 * KiB

    def encode_zipnn(self, codec: ZipNN, chunk: memoryview, out: memoryview) -> int:
        """Writes the stream to `out` and returns its size, or 0 if the stream does not fit there."""
        encoding = ZipnnEncoding(codec.dtype, len(chunk), *self.addresses)
        self.stream.copy_in(self._source, chunk)
        self.stream.copy_in(self._table, encoding.describe(self._host_table))
        run(self.stream, encoding.launches)
        size = self._collect(out, layout("kHeaderSize"))
        if size:
            encoding.write_header(size, out)
        return size

    def encode_lz4(self, _codec: Codec, chunk: memoryview, out: memoryview) -> int:
        """Writes the frame to `out` and returns its size, or 0 if the frame does not fit there."""
        encoding = FrameEncoding(len(chunk), *self.addresses)
        self.stream.copy_in(self._source, chunk)
        self.stream.copy_in(self._table, encoding.describe(self._host_table))
        encoding.compress(self.stream)
        run(self.stream, encoding.launches)
        header = frame_header(len(chunk))
        size = self._collect(out, len(header))
        if size:
            out[: len(header)] = header
        return size

    def _collect(self, out: memoryview, header: int) -> int:
        """Waits for the encoded chunk and copies all but its header to `out`; returns its size, or 0 if too large."""
        self.stream.copy_out(self._host_result[:RESULT], self._result)
        self.stream.synchronize()
        size = int.from_bytes(self._host_result[:RESULT], "little")
        if size > len(out):
            return 0
        self.stream.copy_out(out[header:size], self._out + header)
        self.stream.synchronize()
        return size


def _regions(chunk_size: int, device: Device) -> tuple[int, ...]:
    regions = ZipnnEncoding.regions(chunk_size, layout("kMaxPlanes"))
    if device.has_lz4:
        frames = FrameEncoding.regions(chunk_size, device)
        return tuple(max(sizes) for sizes in zip(regions, frames, strict=True))
    return regions
