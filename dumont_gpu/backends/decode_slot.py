"""Decoding one chunk on a device."""

from __future__ import annotations

from typing import Final

from dumont_gpu import native
from dumont_gpu.backends.device import Device, Lz4Batch
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slots import Slot
from dumont_gpu.codecs.lz4 import frame_content_size
from dumont_gpu.errors import DamagedError
from dumont_gpu.sizes import KiB

ROOM_AFTER: Final = 256  # kernels read up to 16 bytes after a region's content; more keeps the alignment
COPY_THREADS: Final = 128
DECODE_THREADS: Final = 128  # kDecodeThreads of zipnn_blocks.h
DECODE_MEMORY: Final = 45_456  # shared memory of a CTA of `zipnn_decode`: kDecodeMemory of zipnn_blocks.h
SMALLEST_BLOCK: Final = 16 * KiB  # average of a ZipNN stream; the CPU decodes streams of smaller blocks
LZ4_BLOCK: Final = 64 * KiB  # kLz4BlockSize of lz4_blocks.h


class DecodeSlot(Slot):
    """Device memory for encoded bytes, raw bytes, the list of a chunk's blocks, and the status of each block."""

    def __init__(self, device: Device, pinning: Pinning, chunk_size: int) -> None:
        super().__init__(device, pinning, _regions(chunk_size), _regions(chunk_size)[2:])
        self._encoded, self._out, self._table, self._results = self.addresses
        self._host_table, self._host_results = self.host

    @staticmethod
    def size(chunk_size: int) -> int:
        """Bytes of device memory."""
        return sum(_regions(chunk_size)) + 4 * 4 * KiB

    def decode_zipnn(self, encoded: memoryview, out: memoryview) -> bool | None:
        """Returns True if `out` holds the chunk, False if the chunk has a fault, None if the chunk is for the CPU."""
        count = native.zipnn_device_blocks(encoded, len(out), self._host_table)
        if count is None:
            return None
        self.stream.copy_in(self._encoded, encoded)
        self.stream.copy_in(self._table, self._host_table[: count * native.ZIPNN_BLOCK])
        self.stream.clear(self._results, 4 * count)
        if count:
            arguments = (self._encoded, self._out, self._table, self._results)
            self.stream.launch("zipnn_decode", count, DECODE_THREADS, DECODE_MEMORY, arguments)
        return not any(self._finish(out, 4 * count))

    def decode_lz4(self, encoded: memoryview, out: memoryview) -> bool | None:
        """Returns as `decode_zipnn` does."""
        try:
            if frame_content_size(encoded) != len(out):
                return None
        except DamagedError:
            return None
        counts = native.lz4_device_blocks(encoded, len(out), self._encoded, self._out, self._host_table)
        if counts is None:
            return None
        compressed, copies = counts
        capacity = len(self._host_table) // (native.LZ4_BLOCK + native.STORED_COPY)
        encoded_at, sizes_at, out_at, rooms_at, copies_at = (self._table + 8 * capacity * n for n in range(5))
        self.stream.copy_in(self._encoded, encoded)
        self.stream.copy_in(self._table, self._host_table)
        self.stream.clear(self._results, 12 * compressed)
        if compressed:
            results = self._results, self._results + 8 * compressed  # sizes, statuses
            self.stream.decode_lz4(Lz4Batch(compressed, encoded_at, sizes_at, out_at, rooms_at, *results))
        if copies:
            self.stream.launch("copy_stored", copies, COPY_THREADS, 0, (copies_at,))
        found = self._finish(out, 12 * compressed)
        expected = self._host_table[24 * capacity : 24 * capacity + 8 * compressed]
        return found[: 8 * compressed] == expected and not any(found[8 * compressed :])

    def _finish(self, out: memoryview, results: int) -> memoryview:
        """Waits until `out` holds the chunk; returns the first `results` bytes of the kernels' results."""
        self.stream.copy_out(self._host_results[:results], self._results)
        self.stream.copy_out(out, self._out)
        self.stream.synchronize()
        return self._host_results[:results]


def _regions(chunk_size: int) -> tuple[int, int, int, int]:
    blocks = chunk_size // SMALLEST_BLOCK + 16
    lz4_blocks = chunk_size // LZ4_BLOCK + 1
    table = max(blocks * native.ZIPNN_BLOCK, lz4_blocks * (native.LZ4_BLOCK + native.STORED_COPY))
    results = max(4 * blocks, 12 * lz4_blocks)
    return chunk_size + ROOM_AFTER, chunk_size + ROOM_AFTER, table, results
