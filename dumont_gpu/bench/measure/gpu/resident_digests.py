"""Copies of a chunk in device memory, hashed there."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from dumont_gpu.backends.device import Device, Stream
from dumont_gpu.backends.kernels import Launch
from dumont_gpu.backends.launches import RegionDigests, run
from dumont_gpu.bench.measure.gpu.allocations import Allocations
from dumont_gpu.format.digests import DIGEST_SIZE, digest_function
from dumont_gpu.sizes import align_up


class ResidentChunks:
    """`count` copies of a chunk, each `shift` bytes behind an aligned address."""

    def __init__(self, stream: Stream, memory: Allocations, content: memoryview, count: int, shift: int) -> None:
        self._stream, self._memory, self.count = stream, memory, count
        self._expected, self._size = digest_function("blake3")(content), len(content)
        stride = align_up(len(content) + shift)
        start = memory.allocate(count * stride) + shift
        self._begins = [start + number * stride for number in range(count)]
        for begin in self._begins:
            stream.copy_in(begin, content)
        stream.synchronize()

    def batch(self, first: int, count: int) -> tuple[RegionDigests, list[Launch]]:
        """Returns the hashing of `count` chunks from chunk `first` on, in one launch of each kernel."""
        *_, size = sizes = RegionDigests.sizes(count * self._size, count)
        digests = RegionDigests(*(self._memory.allocate(size) for size in sizes))
        table = memoryview(bytearray(size))
        begins = array("Q", self._begins[first : first + count])
        launches = digests.describe(begins, array("Q", [self._size] * count), table)
        self._stream.copy_in(digests.table, table)
        self._stream.synchronize()
        return digests, list(launches)

    def hash(self, launches: list[Launch]) -> None:
        run(self._stream, launches)

    def check(self, digests: RegionDigests, launches: list[Launch]) -> bool:
        """Hashes into cleared memory; returns whether every digest is the CPU's."""
        _, roots = launches
        found = memoryview(bytearray(DIGEST_SIZE * roots.grid))
        self._stream.clear(digests.digests, len(found))
        self.hash(launches)
        self._stream.copy_out(found, digests.digests)
        self._stream.synchronize()
        return found == self._expected * roots.grid


@contextmanager
def resident_chunks(
    device: Device, stream: Stream, content: memoryview, count: int, shift: int = 0
) -> Iterator[ResidentChunks]:
    memory = Allocations(device)
    try:
        yield ResidentChunks(stream, memory, content, count, shift)
    finally:
        memory.close()
