"""LZ4 frames in device memory, decoded as the backend does, and by nvCOMP's call alone."""

from __future__ import annotations

import random

from dumont_gpu.backends.device import Device, Lz4Batch, Stream
from dumont_gpu.backends.kernels import Launch
from dumont_gpu.backends.launches import ROOM_AFTER, FrameDecoding, run
from dumont_gpu.bench.measure.gpu.allocations import Allocations
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.codecs import Lz4
from dumont_gpu.format.digests import digest_function
from dumont_gpu.native import layout
from dumont_gpu.sizes import MiB, align_up

PERIOD = 4 * MiB  # blocks are coded alone: a repetition so far away changes nothing


def text(size: int, noise: float) -> memoryview:
    """Lines as a training run logs them; of each PERIOD, the part `noise` are random bytes that do not shrink."""
    draw = random.Random(7)
    lines = bytearray()
    while len(lines) < PERIOD:
        loss, rate = draw.random(), draw.choice((1e-4, 3e-4))
        lines += b"step %06d loss=%.4f lr=%g tokens/s=%d\n" % (len(lines) // 43, loss, rate, draw.randrange(9000, 9999))
    lines[PERIOD - int(noise * PERIOD) :] = draw.randbytes(int(noise * PERIOD))
    out = anonymous(size)
    for start in range(0, size, PERIOD):
        out[start : start + PERIOD] = lines[: len(out[start : start + PERIOD])]
    return out


class ResidentFrames:
    """`count` copies of one frame in device memory."""

    def __init__(self, device: Device, stream: Stream, content: memoryview, count: int) -> None:
        self._stream, self._memory = stream, Allocations(device)
        frame = anonymous(2 * len(content))
        frame = frame[: Lz4().encode(content, frame)]
        self.size, self.count, self.stored = len(content), count, len(frame) / len(content)
        stride = align_up(len(frame) + ROOM_AFTER)
        source, self._out = self._memory.allocate(count * stride), self._memory.allocate(count * align_up(self.size))
        # Of each frame: its compressed blocks, and what copies its raw blocks.
        self._frames: list[tuple[Lz4Batch | None, list[Launch]]] = []
        columns: list[list[int]] = [[], [], [], []]
        for number in range(count):
            stream.copy_in(source + number * stride, frame)
            self._add(frame, source + number * stride, self._out + number * align_up(self.size), columns)
        flat = memoryview(b"".join(value.to_bytes(8, "little") for column in columns for value in column))
        self.blocks = len(columns[0])
        self._whole = self._all_blocks(self._upload(flat)) if self.blocks else None
        stream.synchronize()

    @property
    def compressed_bytes(self) -> int:
        """Original bytes of the blocks that nvCOMP decodes."""
        return self.blocks * layout("kLz4BlockSize")

    def close(self) -> None:
        self._memory.close()

    def decode_one(self, number: int) -> None:
        """Decodes frame `number` as the backend does: nvCOMP for compressed blocks, a kernel for raw blocks."""
        batch, copies = self._frames[number]
        if batch is not None:
            self._stream.decode_lz4(batch)
        run(self._stream, copies)

    def decode_all(self) -> None:
        for number in range(self.count):
            self.decode_one(number)

    def decode_compressed(self) -> None:
        """Decodes the compressed blocks of all frames in one call of nvCOMP's, and nothing else."""
        if self._whole is not None:
            self._stream.decode_lz4(self._whole)

    def check(self, content: memoryview) -> bool:
        """Decodes everything into cleared memory; returns whether the last frame's content came out."""
        digest, out = digest_function("blake3"), anonymous(self.size)
        self._stream.clear(self._out, self.count * align_up(self.size))
        self.decode_all()
        self._stream.copy_out(out, self._out + (self.count - 1) * align_up(self.size))
        self._stream.synchronize()
        return digest(out) == digest(content)

    def _add(self, frame: memoryview, encoded_at: int, out_at: int, columns: list[list[int]]) -> None:
        _, _, table_size, results_size = FrameDecoding.regions(self.size)
        table = memoryview(bytearray(table_size))
        addresses = self._memory.allocate(table_size), self._memory.allocate(results_size)
        decoding = FrameDecoding(encoded_at, out_at, *addresses)
        blocks = decoding.describe(frame, self.size, table)
        if blocks is None:
            raise ValueError("this frame is not for a device")
        for at, column in zip(blocks.arrays, columns, strict=True):
            column += table[at : at + 8 * blocks.compressed].cast("Q").tolist()
        self._stream.copy_in(decoding.table, table)
        self._stream.synchronize()
        self._frames.append((decoding.batch(blocks) if blocks.compressed else None, list(decoding.launches(blocks))))

    def _all_blocks(self, table: int) -> Lz4Batch:
        inputs, sizes, outputs, rooms = (table + 8 * self.blocks * number for number in range(4))
        results = self._memory.allocate(12 * self.blocks)
        return Lz4Batch(self.blocks, inputs, sizes, outputs, rooms, results, results + 8 * self.blocks)

    def _upload(self, table: memoryview) -> int:
        address = self._memory.allocate(len(table))
        self._stream.copy_in(address, table)
        self._stream.synchronize()
        return address
