"""Chunks in device memory, and the launches that encode them as `backends/encode_slot.py` does."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dumont_gpu import native
from dumont_gpu.backends.decode_slot import LZ4_BLOCK, ROOM_AFTER
from dumont_gpu.backends.device import Device, Lz4Batch, Stream
from dumont_gpu.backends.encode_slot import FRAME_JOB, HEADER, LZ4_ROOM, PLAN_MEMORY, TABLES, THREADS
from dumont_gpu.bench.measure.gpu.allocations import Allocations
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.codecs.lz4 import frame_header
from dumont_gpu.codecs.zipnn import BLOCK_LOG2
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import align_up

RESULT = 8
JOB_ROOM = 64


class Regions:
    """`count` times the same regions of device memory, until `close`."""

    def __init__(self, device: Device, count: int, sizes: Sequence[int]) -> None:
        memory = Allocations(device)
        self.close = memory.close
        try:
            self.addresses = [[memory.allocate(size) for size in sizes] for _ in range(count)]
        except BaseException:
            memory.close()
            raise


class ResidentWeights:
    """`count` copies of one chunk of elements in device memory, and room for their ZipNN streams."""

    PARTS = ("plan", "layout", "write")  # of an encoding, in this order

    def __init__(self, device: Device, stream: Stream, data: memoryview, dtype: Dtype, count: int) -> None:
        self.data, self.dtype, self.count = data, dtype, count
        self._regions = Regions(device, count, _zipnn_regions(len(data), dtype))
        self._entries = 0
        job = memoryview(bytearray(native.ENCODE_JOB))
        for source, out, plans, job_at, _ in self._regions.addresses:
            self._entries = native.zipnn_encode_job(dtype, len(data), BLOCK_LOG2, source, out, plans, job)
            stream.copy_in(source, data)
            stream.copy_in(job_at, job)
            stream.synchronize()

    @staticmethod
    def memory(size: int, dtype: Dtype) -> int:
        """Bytes of device memory that a chunk takes."""
        return sum(align_up(each) for each in _zipnn_regions(size, dtype))

    def close(self) -> None:
        self._regions.close()

    def run(self, stream: Stream, number: int, part: str) -> None:
        """Launches one part of the encoding of chunk `number`, or "all"; does not wait."""
        _, _, _, job, result = self._regions.addresses[number]
        if part in ("plan", "all"):
            shared = self.dtype.size * PLAN_MEMORY
            stream.launch("zipnn_plan", self._entries // self.dtype.size, THREADS, shared, (job,))
        if part in ("layout", "all"):
            stream.launch("zipnn_layout", 1, THREADS, 0, (job, result))
        if part in ("write", "all"):
            stream.launch("zipnn_write", self._entries, THREADS, 0, (job,))

    def clear(self, stream: Stream, number: int) -> None:
        """Clears the output of chunk `number`."""
        _, out, _, _, result = self._regions.addresses[number]
        stream.clear(out, len(self.data))
        stream.clear(result, RESULT)
        stream.synchronize()

    def encoded(self, stream: Stream, number: int) -> memoryview:
        """Waits for `stream`; returns the encoded stream of chunk `number`."""
        _, out, _, _, result = self._regions.addresses[number]
        size = _read_result(stream, result)
        found = anonymous(max(HEADER, size))
        stream.copy_out(found, out)
        stream.synchronize()
        native.zipnn_header(self.dtype, len(self.data), BLOCK_LOG2, size, found)
        return found


class ResidentTexts:
    """`count` copies of one chunk in device memory, and room for their LZ4 frames."""

    def __init__(self, device: Device, stream: Stream, data: memoryview, count: int) -> None:
        self.data, self.count = data, count
        self._blocks = -(-len(data) // LZ4_BLOCK)
        scratch = device.lz4_encode_scratch(self._blocks, LZ4_BLOCK)
        self._regions = Regions(device, count, _lz4_regions(len(data), scratch))
        for source, out, compressed, _, job, _ in self._regions.addresses:
            arrays = [job + JOB_ROOM + 8 * self._blocks * number for number in range(6)]
            sizes, statuses, offsets = arrays[4], arrays[5], arrays[3]
            numbers = (source, compressed, sizes, statuses, offsets, out, len(data), self._blocks)
            table = bytearray(FRAME_JOB.pack(*numbers))
            table += bytes(JOB_ROOM - len(table))
            starts = range(0, len(data), LZ4_BLOCK)
            batch = [source + start for start in starts]
            batch += [min(LZ4_BLOCK, len(data) - start) for start in starts]
            batch += [compressed + LZ4_ROOM * number for number in range(self._blocks)]
            table += struct.pack(f"<{len(batch)}Q", *batch)
            stream.copy_in(source, data)
            stream.copy_in(job, memoryview(table))
            stream.synchronize()

    @staticmethod
    def memory(device: Device, size: int) -> int:
        """Bytes of device memory that a chunk takes."""
        scratch = device.lz4_encode_scratch(-(-size // LZ4_BLOCK), LZ4_BLOCK)
        return sum(align_up(each) for each in _lz4_regions(size, scratch))

    def close(self) -> None:
        self._regions.close()

    def run(self, stream: Stream, number: int, part: str) -> None:
        """Launches nvCOMP's part of encoding chunk `number`, or our kernels' ("frame"), or "all"; does not wait."""
        _, _, _, scratch, job, result = self._regions.addresses[number]
        sources, sizes, outputs, _, compressed_sizes, statuses = (
            job + JOB_ROOM + 8 * self._blocks * array for array in range(6)
        )
        if part in ("nvcomp", "all"):
            stream.clear(compressed_sizes, 16 * self._blocks)  # and the statuses behind them
            batch = Lz4Batch(self._blocks, sources, sizes, outputs, 0, compressed_sizes, statuses)
            stream.encode_lz4(batch, LZ4_BLOCK, scratch)
        if part in ("frame", "all"):
            stream.launch("lz4_layout", 1, THREADS, 0, (job, result))
            stream.launch("lz4_write", self._blocks, THREADS, 0, (job,))

    def encoded(self, stream: Stream, number: int) -> memoryview:
        """Waits for `stream`; returns the frame of chunk `number`."""
        _, out, _, _, _, result = self._regions.addresses[number]
        header = frame_header(len(self.data))
        found = anonymous(max(len(header), _read_result(stream, result)))
        stream.copy_out(found, out)
        stream.synchronize()
        found[: len(header)] = header
        return found


def _read_result(stream: Stream, address: int) -> int:
    result = memoryview(bytearray(RESULT))
    stream.copy_out(result, address)
    stream.synchronize()
    return int.from_bytes(result, "little")


def _zipnn_regions(size: int, dtype: Dtype) -> tuple[int, ...]:
    blocks = (size >> BLOCK_LOG2) + 1
    out = size + HEADER + TABLES * blocks
    return size + ROOM_AFTER, out, dtype.size * blocks * native.PLANE_PLAN, native.ENCODE_JOB, RESULT


def _lz4_regions(size: int, scratch: int) -> tuple[int, ...]:
    blocks = -(-size // LZ4_BLOCK)
    out = size + 4 * blocks + 64
    return size + ROOM_AFTER, out, blocks * LZ4_ROOM, max(1, scratch), JOB_ROOM + 6 * 8 * blocks, RESULT
