"""Decoding one chunk on a device."""

from __future__ import annotations

from dumont_gpu import native
from dumont_gpu.backends.device import Device
from dumont_gpu.backends.launches import FrameDecoding, run, zipnn_block_count, zipnn_decoding, zipnn_table_size
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slots import Slot
from dumont_gpu.codecs.lz4 import frame_content_size
from dumont_gpu.errors import DamagedError
from dumont_gpu.native import layout
from dumont_gpu.sizes import KiB


class DecodeSlot(Slot):
    """Device memory for encoded bytes, raw bytes, the list of a chunk's blocks, and the status of each block."""

    def __init__(self, device: Device, pinning: Pinning, chunk_size: int) -> None:
        super().__init__(device, pinning, _regions(chunk_size), _regions(chunk_size)[2:])
        self._encoded, self._out, self._table, self._results = self.addresses
        self._host_table, self._host_results = self.host
        self._frames = FrameDecoding(*self.addresses)

    @staticmethod
    def size(chunk_size: int) -> int:
        """Bytes of device memory."""
        return sum(_regions(chunk_size)) + 4 * 4 * KiB

    def decode_zipnn(self, encoded: memoryview, out: memoryview) -> bool | None:
        """Returns True if `out` holds the chunk, False if the chunk has a fault, None if the chunk is for the CPU."""
        counts = native.zipnn_device_blocks(encoded, len(out), self._host_table)
        if counts is None:
            return None
        total = sum(counts)
        launches = zipnn_decoding(counts, self._encoded, self._out, self._table, self._results)
        if any(launch.shared > self.device.shared_limit for launch in launches):
            return None
        self.stream.copy_in(self._encoded, encoded)
        self.stream.copy_in(self._table, self._host_table[: total * layout("DeviceBlock")])
        self.stream.clear(self._results, 4 * total)
        run(self.stream, launches)
        return not any(self._finish(out, 4 * total))

    def decode_lz4(self, encoded: memoryview, out: memoryview) -> bool | None:
        """Returns as `decode_zipnn` does."""
        try:
            if frame_content_size(encoded) != len(out):
                return None
        except DamagedError:
            return None
        blocks = self._frames.describe(encoded, len(out), self._host_table)
        if blocks is None:
            return None
        self.stream.copy_in(self._encoded, encoded)
        self.stream.copy_in(self._table, self._host_table)
        self.stream.clear(self._results, 12 * blocks.compressed)
        if blocks.compressed:
            self.stream.decode_lz4(self._frames.batch(blocks))
        run(self.stream, self._frames.launches(blocks))
        sizes = 8 * blocks.compressed
        found = self._finish(out, sizes + 4 * blocks.compressed)
        _, _, _, raw_sizes = blocks.arrays
        expected = self._host_table[raw_sizes : raw_sizes + sizes]
        return found[:sizes] == expected and not any(found[sizes:])

    def _finish(self, out: memoryview, results: int) -> memoryview:
        """Waits until `out` holds the chunk; returns the first `results` bytes of the kernels' results."""
        self.stream.copy_out(self._host_results[:results], self._results)
        self.stream.copy_out(out, self._out)
        self.stream.synchronize()
        return self._host_results[:results]


def _regions(chunk_size: int) -> tuple[int, int, int, int]:
    encoded, out, table, results = FrameDecoding.regions(chunk_size)
    return encoded, out, max(table, zipnn_table_size(chunk_size)), max(results, 4 * zipnn_block_count(chunk_size))
