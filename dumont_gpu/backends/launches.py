"""A device's work on one chunk, as data: its regions of memory, and the launches of kernels.

Slots, benchmarks and tests run these. No number of a kernel stands here: all come from the headers of kernels/shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dumont_gpu import native
from dumont_gpu.backends.device import Device, Lz4Batch, Stream
from dumont_gpu.backends.kernels import Launch, launch
from dumont_gpu.codecs.zipnn import BLOCK_LOG2
from dumont_gpu.native import Dtype, layout
from dumont_gpu.sizes import KiB

ROOM_AFTER: Final = 256  # kernels read up to kRoomAfterEncoded bytes after a region's content; more keeps the alignment
RESULT: Final = 8  # bytes in which a kernel returns the size of what it has encoded
_SMALLEST_BLOCK: Final = 16 * KiB  # average of a ZipNN stream; the CPU decodes streams of smaller blocks


def run(stream: Stream, launches: Iterable[Launch]) -> None:
    for each in launches:
        stream.launch(*each)


# ---------------------------------------------------------------------------------------------------------------
# Decoding ZipNN streams.


def zipnn_table_size(size: int) -> int:
    """Returns the bytes of the table of a chunk's blocks, for chunks of up to `size` raw bytes."""
    return zipnn_block_count(size) * layout("DeviceBlock")


def zipnn_block_count(size: int) -> int:
    """Returns how many blocks a chunk of `size` raw bytes may have at most; the CPU decodes chunks that have more."""
    return size // _SMALLEST_BLOCK + 16


def zipnn_decoding(counts: Sequence[int], encoded: int, out: int, table: int, statuses: int) -> list[Launch]:
    """Returns the launches that decode blocks.

    Args:
        counts: as from `native.zipnn_device_blocks`.
        encoded, out: addresses that the offsets in the table count from.
        table: address of the blocks.
        statuses: address of a u32 for each block, which is 0.
    """
    launches, first = [], 0
    for coded, count in enumerate(counts):
        arguments = encoded, out, table + first * layout("DeviceBlock")
        if count and coded:
            decode = launch("zipnn_decode", count, *arguments, statuses + 4 * first, planes=coded)
            launches.append(decode._replace(block=coded * decode.block))
        elif count:
            launches.append(launch("zipnn_join", count, *arguments))
        first += count
    return launches


# ---------------------------------------------------------------------------------------------------------------
# Encoding ZipNN streams.


@dataclass(frozen=True, slots=True)
class ZipnnEncoding:
    """The encoding of a chunk as one ZipNN stream. All fields but the first two are addresses on the device.

    Args:
        dtype: of the elements.
        size: raw bytes of the chunk.
        source: the raw bytes.
        out: the stream, without its header.
        plans: scratch memory.
        job: the description of the work, which `describe` writes.
        result: RESULT bytes, which become the size of the stream.
    """

    dtype: Dtype
    size: int
    source: int
    out: int
    plans: int
    job: int
    result: int

    @staticmethod
    def regions(size: int, planes: int) -> tuple[int, int, int, int, int]:
        """Returns the bytes of source, out, plans, job and result, for up to `size` raw bytes and `planes` planes."""
        entries = planes * ((size >> BLOCK_LOG2) + 1)
        out = size + layout("kHeaderSize") + layout("kTableEntry") * entries
        return size + ROOM_AFTER, out + ROOM_AFTER, entries * layout("PlanePlan"), layout("EncodeJob"), RESULT

    def describe(self, job: memoryview) -> memoryview:
        """Writes the description into host memory; returns the part of `job` that is to be copied to the device."""
        native.zipnn_encode_job(self.dtype, self.size, BLOCK_LOG2, self.source, self.out, self.plans, job)
        return job[: layout("EncodeJob")]

    @property
    def launches(self) -> tuple[Launch, Launch, Launch]:
        """Counts and codes; where everything lies; the stream."""
        blocks, planes = -(-self.size >> BLOCK_LOG2), self.dtype.size
        return (
            launch("zipnn_plan", blocks, self.job, planes=planes),
            launch("zipnn_layout", 1, self.job, self.result),
            launch("zipnn_write", blocks * planes, self.job),
        )

    def write_header(self, stream_size: int, out: memoryview) -> None:
        native.zipnn_header(self.dtype, self.size, BLOCK_LOG2, stream_size, out)


# ---------------------------------------------------------------------------------------------------------------
# LZ4 frames.


@dataclass(frozen=True, slots=True)
class FrameDecoding:
    """The decoding of an LZ4 frame: nvCOMP decodes compressed blocks, a kernel copies the others. All are addresses.

    Args:
        encoded: the frame.
        out: its raw bytes.
        table: the list of blocks, which `describe` writes.
        results: of each compressed block the size (u64), then of each the status (i32).
    """

    encoded: int
    out: int
    table: int
    results: int

    @staticmethod
    def regions(size: int) -> tuple[int, int, int, int]:
        """Returns the bytes of encoded, out, table and results for a chunk of up to `size` raw bytes."""
        blocks = size // layout("kLz4BlockSize") + 1
        return size + ROOM_AFTER, size + ROOM_AFTER, native.Lz4Listing.size(blocks), 12 * blocks

    def describe(self, frame: memoryview, size: int, table: memoryview) -> native.Lz4Listing | None:
        """Lists the blocks of a frame of `size` raw bytes in host memory; None if the frame is not for a device."""
        return native.lz4_device_blocks(frame, size, self.encoded, self.out, table)

    def batch(self, blocks: native.Lz4Listing) -> Lz4Batch:
        """Returns the compressed blocks."""
        inputs, sizes, outputs, rooms = (self.table + at for at in blocks.arrays)
        statuses = self.results + 8 * blocks.compressed
        return Lz4Batch(blocks.compressed, inputs, sizes, outputs, rooms, self.results, statuses)

    def launches(self, blocks: native.Lz4Listing) -> Iterator[Launch]:
        if blocks.copies:
            yield launch("copy_stored", blocks.copies, self.table + blocks.copies_at)


@dataclass(frozen=True, slots=True)
class FrameEncoding:
    """The making of an LZ4 frame: nvCOMP compresses the blocks, kernels put the frame together.

    All fields but `size`, which counts raw bytes, are addresses on the device.

    Args:
        source: the raw bytes.
        out: the frame, without its header.
        scratch: compressed blocks, then what nvCOMP needs.
        table: the description of the work, which `describe` writes.
        result: RESULT bytes, which become the size of the frame.
    """

    size: int
    source: int
    out: int
    scratch: int
    table: int
    result: int

    @staticmethod
    def regions(size: int, device: Device) -> tuple[int, int, int, int, int]:
        """Returns the bytes of source, out, scratch, table and result for a chunk of up to `size` raw bytes."""
        blocks = size // layout("kLz4BlockSize") + 1
        out = size + 4 * blocks + 64
        needed = device.lz4_encode_scratch(blocks, layout("kLz4BlockSize"))
        scratch = blocks * layout("kLz4BlockRoom") + needed
        return size + ROOM_AFTER, out + ROOM_AFTER, scratch, native.FrameTable(blocks).size, RESULT

    @property
    def _parts(self) -> native.FrameTable:
        return native.FrameTable(-(-self.size // layout("kLz4BlockSize")))

    def describe(self, table: memoryview) -> memoryview:
        """Writes the description into host memory; returns the part of `table` that is to be copied to the device."""
        native.lz4_frame_job(self.size, self.source, self.scratch, self.out, self.table, table)
        return table[: self._parts.uploaded]

    def compress(self, stream: Stream) -> None:
        """Queues nvCOMP's part."""
        parts = self._parts
        sources, sizes, outputs, _, compressed_sizes, statuses = (self.table + at for at in parts.arrays)
        stream.clear(compressed_sizes, 16 * parts.blocks)  # and the statuses behind them
        batch = Lz4Batch(parts.blocks, sources, sizes, outputs, 0, compressed_sizes, statuses)
        temporary = self.scratch + parts.blocks * layout("kLz4BlockRoom")
        stream.encode_lz4(batch, layout("kLz4BlockSize"), temporary)

    @property
    def launches(self) -> tuple[Launch, Launch]:
        """Where the blocks lie; the frame."""
        return launch("lz4_layout", 1, self.table, self.result), launch("lz4_write", self._parts.blocks, self.table)
