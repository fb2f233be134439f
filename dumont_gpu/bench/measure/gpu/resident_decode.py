"""ZipNN streams in device memory, and the launches that decode a batch of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

from dumont_gpu import native
from dumont_gpu.backends.device import Device, Stream
from dumont_gpu.backends.kernels import Launch
from dumont_gpu.backends.launches import ROOM_AFTER, run, zipnn_decoding, zipnn_table_size
from dumont_gpu.bench.measure.gpu.allocations import Allocations
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.format.digests import digest_function
from dumont_gpu.native import layout
from dumont_gpu.sizes import align_up


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks `first` to `first + count` of `ResidentStreams`, and the launches that decode them."""

    first: int
    count: int
    statuses: int  # address of a u32 for each block
    blocks: int
    launches: list[Launch]


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
        row = layout("DeviceBlock")
        classes: list[list[memoryview]] = [[] for _ in range(1 + layout("kMaxPlanes"))]  # by number of coded planes
        for number in range(first, first + count):
            rows = memoryview(bytearray(zipnn_table_size(self.size)))
            places = number * self._encoded_stride, number * self._out_stride
            counts = native.zipnn_device_blocks(self.encoded, self.size, rows, *places)
            if counts is None:
                raise ValueError("this stream is not for a device")
            for blocks, end, of_class in zip(counts, accumulate(counts), classes, strict=True):
                of_class.append(rows[(end - blocks) * row : end * row])
        tables = [b"".join(of_class) for of_class in classes]
        table = self._memory.allocate(sum(map(len, tables)))
        total = sum(map(len, tables)) // row
        statuses = self._memory.allocate(4 * total)
        self._stream.copy_in(table, memoryview(b"".join(tables)))
        self._stream.clear(statuses, 4 * total)
        self._stream.synchronize()
        launches = zipnn_decoding([len(each) // row for each in tables], self._source, self._out, table, statuses)
        return Batch(first, count, statuses, total, launches)

    def decode(self, batch: Batch) -> None:
        """Launches the batch's kernels; does not wait for them."""
        run(self._stream, batch.launches)

    def check(self, batch: Batch, expected: bytes) -> bool:
        """Decodes the batch into cleared memory; returns whether its first and last chunk have this BLAKE3 digest."""
        digest = digest_function("blake3")
        self._stream.clear(self._out + batch.first * self._out_stride, batch.count * self._out_stride)
        self._stream.clear(batch.statuses, 4 * batch.blocks)
        self.decode(batch)
        statuses = memoryview(bytearray(4 * batch.blocks))
        self._stream.copy_out(statuses, batch.statuses)
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
