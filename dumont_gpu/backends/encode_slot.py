"""Encoding one chunk on a device."""

from __future__ import annotations

import struct
from typing import Final

from dumont_gpu import native
from dumont_gpu.backends.decode_slot import LZ4_BLOCK, ROOM_AFTER
from dumont_gpu.backends.device import Device, Lz4Batch
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slots import Slot
from dumont_gpu.codecs import Codec, ZipNN
from dumont_gpu.codecs.lz4 import frame_header
from dumont_gpu.codecs.zipnn import BLOCK_LOG2
from dumont_gpu.sizes import KiB

THREADS: Final = 128  # in each CTA: kEncodeThreads of zipnn_job.h, kFrameThreads of lz4_blocks.h
PLAN_MEMORY: Final = 9280  # shared memory of `zipnn_plan` for each plane: kPlanMemory of zipnn_job.h
LZ4_ROOM: Final = 65_808  # kLz4BlockRoom of lz4_blocks.h
MAX_PLANES: Final = 4  # of an element: kMaxPlanes of zipnn.h
TABLES: Final = 9 * MAX_PLANES  # bytes of the tables of a ZipNN stream for each block
HEADER: Final = 32  # bytes of a ZipNN stream's header: kHeaderSize of zipnn.h
FRAME_JOB: Final = struct.Struct("<8Q")  # FrameJob of lz4_blocks.h
_RESULT: Final = struct.Struct("<Q")


class EncodeSlot(Slot):
    """Device memory for raw bytes, encoded bytes, a description of the work, scratch memory, and the encoded size."""

    def __init__(self, device: Device, pinning: Pinning, chunk_size: int) -> None:
        _, _, table, _, result = regions = _regions(chunk_size, device)
        super().__init__(device, pinning, regions, (table, result))
        self._source, self._out, self._table, self._scratch, self._result = self.addresses
        self._host_table, self._host_result = self.host

    @staticmethod
    def size(chunk_size: int, device: Device) -> int:
        """Bytes of device memory."""
        return sum(_regions(chunk_size, device)) + 5 * 4 * KiB

    def encode_zipnn(self, codec: ZipNN, chunk: memoryview, out: memoryview) -> int:
        """Writes the stream to `out` and returns its size, or 0 if the stream does not fit there."""
        dtype = codec.dtype
        planes = native.zipnn_encode_job(
            dtype, len(chunk), BLOCK_LOG2, self._source, self._out, self._scratch, self._host_table
        )
        blocks = planes // dtype.size
        self.stream.copy_in(self._source, chunk)
        self.stream.copy_in(self._table, self._host_table[: native.ENCODE_JOB])
        self.stream.launch("zipnn_plan", blocks, THREADS, dtype.size * PLAN_MEMORY, (self._table,))
        self.stream.launch("zipnn_layout", 1, THREADS, 0, (self._table, self._result))
        self.stream.launch("zipnn_write", planes, THREADS, 0, (self._table,))
        size = self._collect(out, HEADER)
        if size:
            native.zipnn_header(dtype, len(chunk), BLOCK_LOG2, size, out)
        return size

    def encode_lz4(self, _codec: Codec, chunk: memoryview, out: memoryview) -> int:
        """Writes the frame to `out` and returns its size, or 0 if the frame does not fit there."""
        blocks = -(-len(chunk) // LZ4_BLOCK)
        job_at, arrays_at = self._table, self._table + 64
        sources, sizes, outputs, offsets, compressed_sizes, statuses = (arrays_at + 8 * blocks * n for n in range(6))
        compressed = self._scratch
        temporary = compressed + blocks * LZ4_ROOM
        numbers = [self._source + LZ4_BLOCK * number for number in range(blocks)]
        numbers += [min(LZ4_BLOCK, len(chunk) - LZ4_BLOCK * number) for number in range(blocks)]
        numbers += [compressed + LZ4_ROOM * number for number in range(blocks)]
        FRAME_JOB.pack_into(
            self._host_table, 0,
            self._source, compressed, compressed_sizes, statuses, offsets, self._out, len(chunk), blocks,
        )  # fmt: skip
        struct.pack_into(f"<{len(numbers)}Q", self._host_table, 64, *numbers)
        self.stream.copy_in(self._source, chunk)
        self.stream.copy_in(self._table, self._host_table[: 64 + 8 * len(numbers)])
        self.stream.clear(compressed_sizes, 16 * blocks)  # and the statuses behind them
        batch = Lz4Batch(blocks, sources, sizes, outputs, 0, compressed_sizes, statuses)
        self.stream.encode_lz4(batch, LZ4_BLOCK, temporary)
        self.stream.launch("lz4_layout", 1, THREADS, 0, (job_at, self._result))
        self.stream.launch("lz4_write", blocks, THREADS, 0, (job_at,))
        header = frame_header(len(chunk))
        size = self._collect(out, len(header))
        if size:
            out[: len(header)] = header
        return size

    def _collect(self, out: memoryview, header: int) -> int:
        """Waits for the encoded chunk and copies all but its header to `out`; returns its size, or 0 if too large."""
        self.stream.copy_out(self._host_result[: _RESULT.size], self._result)
        self.stream.synchronize()
        (size,) = _RESULT.unpack_from(self._host_result)
        if size > len(out):
            return 0
        self.stream.copy_out(out[header:size], self._out + header)
        self.stream.synchronize()
        return int(size)


def _regions(chunk_size: int, device: Device) -> tuple[int, int, int, int, int]:
    zipnn_blocks = (chunk_size >> BLOCK_LOG2) + 1
    lz4_blocks = chunk_size // LZ4_BLOCK + 1
    out = chunk_size + HEADER + max(TABLES * zipnn_blocks, 4 * lz4_blocks + 64)
    table = max(native.ENCODE_JOB, 64 + 6 * 8 * lz4_blocks)
    lz4_scratch = lz4_blocks * LZ4_ROOM + device.lz4_encode_scratch(lz4_blocks, LZ4_BLOCK) if device.has_lz4 else 0
    scratch = max(MAX_PLANES * zipnn_blocks * native.PLANE_PLAN, lz4_scratch)
    return chunk_size + ROOM_AFTER, out + ROOM_AFTER, table, scratch, _RESULT.size
