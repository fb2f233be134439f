"""Chunks in device memory, encoded by the launches of `backends/launches.py`."""

from __future__ import annotations

from collections.abc import Sequence

from dumont_gpu.backends.device import Device, Stream
from dumont_gpu.backends.launches import RESULT, FrameEncoding, ZipnnEncoding, run
from dumont_gpu.bench.measure.gpu.allocations import Allocations
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.codecs.lz4 import frame_header
from dumont_gpu.native import Dtype, layout
from dumont_gpu.sizes import align_up


class Regions:
    """`count` times the same regions of device memory, until `close`."""

    def __init__(self, device: Device, count: int, sizes: Sequence[int]) -> None:
        memory = Allocations(device)
        self.close = memory.close
        try:
            self.addresses = [[memory.allocate(max(1, size)) for size in sizes] for _ in range(count)]
        except BaseException:
            memory.close()
            raise


class ResidentWeights:
    """`count` copies of one chunk of elements in device memory, and room for their ZipNN streams."""

    PARTS = ("plan", "layout", "write")  # of an encoding, in this order

    def __init__(self, device: Device, stream: Stream, data: memoryview, dtype: Dtype, count: int) -> None:
        self.data, self.count = data, count
        self._regions = Regions(device, count, ZipnnEncoding.regions(len(data), dtype.size))
        self._encodings = [ZipnnEncoding(dtype, len(data), *addresses) for addresses in self._regions.addresses]
        job = memoryview(bytearray(layout("EncodeJob")))
        for encoding in self._encodings:
            stream.copy_in(encoding.source, data)
            stream.copy_in(encoding.job, encoding.describe(job))
            stream.synchronize()

    @staticmethod
    def memory(size: int, dtype: Dtype) -> int:
        """Bytes of device memory that a chunk takes."""
        return sum(align_up(each) for each in ZipnnEncoding.regions(size, dtype.size))

    def close(self) -> None:
        self._regions.close()

    def run(self, stream: Stream, number: int, part: str) -> None:
        """Launches one part of the encoding of chunk `number`, or "all"; does not wait."""
        launches = dict(zip(self.PARTS, self._encodings[number].launches, strict=True))
        run(stream, list(launches.values()) if part == "all" else [launches[part]])

    def clear(self, stream: Stream, number: int) -> None:
        """Clears the output of chunk `number`."""
        stream.clear(self._encodings[number].out, len(self.data))
        stream.clear(self._encodings[number].result, RESULT)
        stream.synchronize()

    def encoded(self, stream: Stream, number: int) -> memoryview:
        """Waits for `stream`; returns the encoded stream of chunk `number`."""
        encoding = self._encodings[number]
        size = _read_result(stream, encoding.result)
        found = anonymous(max(layout("kHeaderSize"), size))
        stream.copy_out(found, encoding.out)
        stream.synchronize()
        encoding.write_header(size, found)
        return found


class ResidentTexts:
    """`count` copies of one chunk in device memory, and room for their LZ4 frames."""

    def __init__(self, device: Device, stream: Stream, data: memoryview, count: int) -> None:
        self.data, self.count = data, count
        regions = FrameEncoding.regions(len(data), device)
        self._regions = Regions(device, count, regions)
        self._encodings = [FrameEncoding(len(data), *addresses) for addresses in self._regions.addresses]
        table = memoryview(bytearray(regions[3]))
        for encoding in self._encodings:
            stream.copy_in(encoding.source, data)
            stream.copy_in(encoding.table, encoding.describe(table))
            stream.synchronize()

    @staticmethod
    def memory(device: Device, size: int) -> int:
        """Bytes of device memory that a chunk takes."""
        return sum(align_up(each) for each in FrameEncoding.regions(size, device))

    def close(self) -> None:
        self._regions.close()

    def run(self, stream: Stream, number: int, part: str) -> None:
        """Launches nvCOMP's part of encoding chunk `number`, or our kernels' ("frame"), or "all"; does not wait."""
        encoding = self._encodings[number]
        if part in ("nvcomp", "all"):
            encoding.compress(stream)
        if part in ("frame", "all"):
            run(stream, encoding.launches)

    def encoded(self, stream: Stream, number: int) -> memoryview:
        """Waits for `stream`; returns the frame of chunk `number`."""
        encoding = self._encodings[number]
        header = frame_header(len(self.data))
        found = anonymous(max(len(header), _read_result(stream, encoding.result)))
        stream.copy_out(found, encoding.out)
        stream.synchronize()
        found[: len(header)] = header
        return found


def _read_result(stream: Stream, address: int) -> int:
    result = memoryview(bytearray(RESULT))
    stream.copy_out(result, address)
    stream.synchronize()
    return int.from_bytes(result, "little")
