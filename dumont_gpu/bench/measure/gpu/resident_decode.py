"""ZipNN streams in device memory, and the launch that decodes a batch of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dumont_gpu import native
from dumont_gpu.backends.decode_slot import DECODE_MEMORY, DECODE_THREADS, ROOM_AFTER, SMALLEST_BLOCK
from dumont_gpu.backends.device import Device, Stream
from dumont_gpu.bench.measure.gpu.allocations import Allocations
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.format.digests import digest_function
from dumont_gpu.sizes import align_up


@dataclass(frozen=True, slots=True)
class Launch:
    kernel: str
    grid: int
    block: int
    shared: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks `first` to `first + count` of `ResidentStreams`, and the launch that decodes them."""

    first: int
    count: int
    table: int  # address
    status: int  # address of a u32 for each row of the table, of which the grid has as many
    launch: Launch


class ResidentStreams:
    """`count` copies of one stream in device memory, far enough apart that no cache holds two, and room to decode them.

    Args:
        encoded: the stream.
        size: original bytes of its chunk.
    """

    def __init__(self, device: Device, stream: Stream, encoded: memoryview, size: int, count: int) -> None:
        self.encoded, self.size, self.count = encoded, size, count
        self._stream, self._memory = stream, Allocations(device)
        self._encoded_stride = align_up(len(encoded) + ROOM_AFTER)
        self._out_stride = align_up(size)
        self._source = self._memory.allocate(count * self._encoded_stride)
        self._out = self._memory.allocate(count * self._out_stride)
        for number in range(count):
            stream.copy_in(self._source + number * self._encoded_stride, encoded)
        stream.synchronize()

    def close(self) -> None:
        self._memory.close()

    def batch(self, first: int, count: int) -> Batch:
        """Makes the table of a batch.

        Raises:
            ValueError: the stream is not for a device.
        """
        table = bytearray()
        room = (self.size // SMALLEST_BLOCK + 16) * native.ZIPNN_BLOCK
        for number in range(first, first + count):
            rows = memoryview(bytearray(room))
            places = number * self._encoded_stride, number * self._out_stride
            blocks = native.zipnn_device_blocks(self.encoded, self.size, rows, *places)
            if blocks is None:
                raise ValueError("this stream is not for a device")
            table += rows[: blocks * native.ZIPNN_BLOCK]
        launch = Launch("zipnn_decode", len(table) // native.ZIPNN_BLOCK, DECODE_THREADS, DECODE_MEMORY)
        address = self._memory.allocate(len(table))
        status = self._memory.allocate(4 * launch.grid)
        self._stream.copy_in(address, memoryview(table))
        self._stream.clear(status, 4 * launch.grid)
        self._stream.synchronize()
        return Batch(first, count, address, status, launch)

    def decode(self, batch: Batch) -> None:
        """Launches the batch's kernel; does not wait for it."""
        launch = batch.launch
        arguments = (self._source, self._out, batch.table, batch.status)
        self._stream.launch(launch.kernel, launch.grid, launch.block, launch.shared, arguments)

    def check(self, batch: Batch, expected: bytes) -> bool:
        """Decodes the batch into cleared memory; returns whether its first and last chunk have this BLAKE3 digest."""
        digest = digest_function("blake3")
        self._stream.clear(self._out + batch.first * self._out_stride, batch.count * self._out_stride)
        self._stream.clear(batch.status, 4 * batch.launch.grid)
        self.decode(batch)
        statuses = memoryview(bytearray(4 * batch.launch.grid))
        self._stream.copy_out(statuses, batch.status)
        self._stream.synchronize()
        out = anonymous(self.size)
        for number in {batch.first, batch.first + batch.count - 1}:
            self._stream.copy_out(out, self._out + number * self._out_stride)
            self._stream.synchronize()
            if digest(out) != expected:
                return False
        return not any(statuses)


@contextmanager
def resident(device: Device, stream: Stream, encoded: memoryview, size: int, count: int) -> Iterator[ResidentStreams]:
    streams = ResidentStreams(device, stream, encoded, size, count)
    try:
        yield streams
    finally:
        streams.close()
