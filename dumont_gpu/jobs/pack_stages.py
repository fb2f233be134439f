"""The stages of a pack: plan, read, encode, write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from dumont_gpu import native
from dumont_gpu.backends import Backend, fit_for_devices
from dumont_gpu.buffers import Buffer, BufferPool, Turns, Window, with_buffers
from dumont_gpu.codecs import Codec, Raw
from dumont_gpu.disk.direct_io import ALIGNMENT, DIRECT_MINIMUM, shift_for
from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.format.digests import digest_function
from dumont_gpu.format.entries import Extent
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.packed_files import PackedFiles
from dumont_gpu.jobs.packed_rows import PackedRows
from dumont_gpu.jobs.resources import ChunkRoom, thread_count
from dumont_gpu.jobs.shared_extents import SharedExtents, as_planned
from dumont_gpu.jobs.source_reader import SourceReader
from dumont_gpu.pipeline import Pipeline, in_turn
from dumont_gpu.plan.cutter import PlannedChunk, PlannedExtent
from dumont_gpu.plan.planner import Plan
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.sizes import align_up
from dumont_gpu.snapshot.writer import SnapshotWriter

RAW: Final = Raw()
_READERS: Final = 2  # threads: one opens small files while the other reads a large file
GAIN: Final = 0.99  # a chunk whose encoded bytes exceed this share of its raw bytes stays raw: not worth decoding


@dataclass(slots=True)
class _ReadChunk:
    planned: PlannedChunk
    buffer: Buffer
    content: memoryview  # within `buffer`
    extents: Sequence[PlannedExtent]  # as read: shorter than planned or absent where a file ended or was unreadable
    complete: bool = True  # as planned
    pieces: range = range(0)  # of rows, instead of extents


@dataclass(slots=True)
class _SettledChunk:
    planned: PlannedChunk
    buffer: Buffer
    raw: memoryview  # within `buffer`; nothing if the snapshot has all the bytes in other chunks
    extents: Sequence[Extent]
    origins: Sequence[PlannedExtent]  # of `extents`, in the same order
    pieces: range  # of rows, instead of extents


@dataclass(slots=True)
class _EncodedChunk:
    settled: _SettledChunk
    buffer: Buffer
    codec: Codec  # RAW where the planned codec gains too little
    encoded: memoryview  # within `buffer`
    digest: bytes  # of `encoded`


class PackStages:
    """Moves chunks from files to a snapshot.

    Args:
        plan: the chunks.
        writer: gets the encoded chunks.
        backend: runs the codecs.
        in_order: whether chunks are written in the order of the plan: the same tree then gives the same bytes.
        cancel: wakes up writes that wait for a network.
        watch: makes the sink tell of the bytes that it sends, if it does; see `Watched`.
    """

    def __init__(
        self,
        plan: Plan,
        writer: SnapshotWriter,
        backend: Backend,
        options: PackOptions,
        *,
        in_order: bool,
        cancel: Callable[[], None],
        watch: Callable[[Callable[[int], None]], None] | None = None,
    ) -> None:
        self._plan, self._writer, self._backend, self._options = plan, writer, backend, options
        self._in_order, self._cancel, self._watch = in_order, cancel, watch
        self._meter = Meter(None, "pack", 0, 0)
        self._digest = digest_function(options.digest)
        self._reader = SourceReader(plan.files)
        self.files = PackedFiles(plan, self._reader)
        self.rows = PackedRows(plan.small, options.digest) if plan.small else None
        self._shared = SharedExtents() if plan.align_tensors else None
        self._turns = Turns()
        self._count = 0  # chunks so far
        largest = align_up(max(1, min(options.chunk_size, plan.size)))
        threads = thread_count(options.jobs) + backend.extra_threads
        self._room = ChunkRoom.of_machine(
            options.memory,
            largest,
            others=2 if in_order else 1,
            buffers=3 if options.paranoid else 2,
            context=plan.encoder_memory(largest),
        )
        self._pairs = self._room.chunks(threads)
        self._threads = min(threads, self._pairs)
        self._raw, self._encoded, self._checks = (
            BufferPool(self._pairs, size, backend.pin) for size in (largest + ALIGNMENT, largest, largest)
        )
        self._planned = self._fit = 0  # raw bytes planned so far, and those of them that are fit for devices
        self._window = Window(self._pairs)
        self._pipeline = Pipeline()
        self._building = threading.Lock()  # of the pipeline: no device joins meanwhile
        backend.prepare(largest, encode=True, decode=options.paranoid, on_join=self._join)

    @property
    def shared_bytes(self) -> int:
        """Bytes of extents, and of small files, that are not stored because equal ones are."""
        return (self._shared.saved if self._shared else 0) + (self.rows.shared_bytes if self.rows else 0)

    def run(self, progress: ProgressCallback | None) -> dict[str, float]:
        """Packs every chunk of the plan; returns busy seconds by stage."""
        size = self._plan.size
        self._meter = Meter(progress, "pack", size, self._plan.max_chunks, size)
        self._reader.came = self._meter.come
        if self._watch is not None:
            self._watch(self._meter.sent)
        seconds = self._move(self._plan.chunks())
        orphaned = self.files.orphaned_copies()
        given_up = self.rows.given_up() if self.rows else []
        if orphaned or given_up:
            for name, more in self._move(self._plan.more_chunks(given_up, orphaned)).items():
                seconds[name] += more
        if self.rows:
            self.rows.close()
        return seconds

    def _move(self, chunks: Iterator[PlannedChunk]) -> dict[str, float]:
        with self._building:
            pipeline = self._built(chunks)
        pipeline.run()
        return pipeline.seconds

    def _built(self, chunks: Iterator[PlannedChunk]) -> Pipeline:
        # The window keeps chunks that wait for their turn from taking the buffer of the chunk whose turn has come.
        window = self._window = Window(self._pairs)
        self._turns = Turns()
        pools = self._raw, self._encoded, self._checks
        pipeline = self._pipeline = Pipeline(*pools, window, self._turns, cancel=self._cancel)

        def numbered() -> Generator[PlannedChunk, None, None]:
            for turn, chunk in enumerate(chunks):
                chunk.turn = turn
                self._count += 1
                self._announce(chunk)
                yield chunk
            self._meter.expect(self._plan.size, self._count, self._plan.size)

        def admitted(planned: Iterable[PlannedChunk]) -> Iterator[PlannedChunk]:
            for chunk in planned:
                window.enter()
                yield chunk

        def write(chunk: _EncodedChunk) -> None:
            self._write(chunk)
            window.leave()
            self._meter.add(chunk.settled.planned.size)

        planned = pipeline.produce("plan", numbered())
        if self._in_order:
            planned = admitted(planned)
        to_read, readers = with_buffers(planned, self._raw), min(self._threads, _READERS)
        read = pipeline.stage("read", self._read, to_read, threads=readers)
        if self._in_order and self._shared is not None:
            read = in_turn(read, lambda chunk: chunk.planned.turn)
        encoded = pipeline.stage(
            "encode", self._settle_and_encode, with_buffers(read, self._encoded), threads=self._threads
        )
        if self._in_order:
            encoded = in_turn(encoded, lambda chunk: chunk.settled.planned.turn)
        pipeline.stage("write", write, encoded)
        return pipeline

    def _announce(self, chunk: PlannedChunk) -> None:
        """Tells the backend how much is to be expected, if all that is not planned yet is like what is."""
        self._planned += chunk.size
        if fit_for_devices(chunk.codec.id, chunk.size, encode=True):
            self._fit += chunk.size
        unplanned = max(0, self._plan.size - self._planned)
        passes = 2 if self._options.paranoid else 1  # which decodes every chunk, too
        self._backend.expect(passes * (self._fit + unplanned * self._fit // max(1, self._planned)))

    def _join(self, joining: int) -> None:
        """Makes room for a device beside the CPU, and lets more threads encode."""
        with self._building:
            more = self._room.chunks(self._threads + joining) - self._pairs
            self._pairs += more
            self._window.grow(more)
            for pool in (self._raw, self._encoded, self._checks):
                pool.grow(more)
            self._threads += min(joining, more)
            self._pipeline.widen("encode", min(joining, more))

    def _read(self, item: tuple[PlannedChunk, Buffer]) -> _ReadChunk:
        chunk, buffer = item
        if chunk.rows and self.rows is not None:
            stored = self.rows.read(chunk, buffer.view[: chunk.size], self._turns)
            self._meter.come(chunk.size)
            return _ReadChunk(chunk, buffer, buffer.view[: stored.size], (), pieces=stored.pieces)
        content = buffer.view[_shift(chunk) :][: chunk.size]
        extents = self._reader.read(chunk, content)
        complete = extents is chunk.extents  # the reader makes another list where a file ended or was lost
        return _ReadChunk(chunk, buffer, content, extents, complete)

    def _settle_and_encode(self, item: tuple[_ReadChunk, Buffer]) -> _EncodedChunk:
        read, spare = item
        return self._encode((self._settle(read), spare))

    def _settle(self, read: _ReadChunk) -> _SettledChunk:
        """Hashes the extents, and decides which of them are stored in this chunk; of rows, the reader has done that."""
        planned, raw = read.planned, read.content
        if planned.rows:
            return _SettledChunk(planned, read.buffer, raw, (), (), read.pieces)
        digests = [self._digest(raw[e.chunk_offset : e.chunk_offset + e.length]) for e in read.extents]
        if self._shared is None:
            extents = as_planned(planned.number, read.extents, digests)
        else:
            turns = self._turns if self._in_order else None
            extents, raw = self._shared.settle(planned, read.extents, digests, raw, turns, complete=read.complete)
        return _SettledChunk(planned, read.buffer, raw, extents, read.extents, read.pieces)

    def _encode(self, item: tuple[_SettledChunk, Buffer]) -> _EncodedChunk:
        chunk, spare = item
        codec, raw = chunk.planned.codec, chunk.raw
        size = 0
        # A paranoid pack trusts no device, neither its bytes nor its digests.
        found = bytearray() if self._options.digest == "blake3" and not self._options.paranoid else None
        if raw and codec.id != RAW.id:
            size = self._backend.encode(codec, raw, spare.view[: int(len(raw) * GAIN)], found)
        if not size:
            spare.release()
            single_extent = [extent.length for extent in chunk.extents] == [len(raw)]  # its digest covers the chunk
            digest = chunk.extents[0].digest if single_extent else self._digest(raw)
            return _EncodedChunk(chunk, chunk.buffer, RAW, raw, digest)
        encoded = spare.view[:size]
        chunk.buffer.release()
        if self._options.paranoid:
            self._check(chunk, codec, encoded)
        return _EncodedChunk(chunk, spare, codec, encoded, bytes(found) if found else self._digest(encoded))

    def _check(self, chunk: _SettledChunk, codec: Codec, encoded: memoryview) -> None:
        """Raises DumontError unless the encoded chunk decodes to the bytes that were read."""
        buffer = self._checks.acquire()
        raw = buffer.view[: len(chunk.raw)]
        native.spoil(raw)  # an earlier chunk's bytes must not pass for this chunk's
        with suppress(DamagedError):
            self._backend.decode(codec.id, encoded, raw)
            if all(self._digest(raw[at : at + length]) == digest for at, length, digest in self._stored(chunk)):
                buffer.release()
                return
        raise DumontError(
            f"chunk {chunk.planned.number}: {codec.name} on {self._backend.name} does not give back what it got; "
            "this is a defect of dumont-gpu or of the machine"
        )

    def _stored(self, chunk: _SettledChunk) -> Iterable[tuple[int, int, bytes]]:
        """Yields offset, length and digest of what a chunk stores."""
        if self.rows is not None and chunk.pieces:
            return self.rows.stored(chunk.pieces)
        number = chunk.planned.number
        return ((e.chunk_offset, e.length, e.digest) for e in chunk.extents if e.chunk == number)

    def _write(self, encoded: _EncodedChunk) -> None:
        chunk = encoded.settled
        if chunk.raw:
            number, raw_size = chunk.planned.number, len(chunk.raw)
            self._writer.write_chunk(number, encoded.encoded, raw_size, encoded.codec, encoded.digest)
        self.files.add((origin.file, extent) for origin, extent in zip(chunk.origins, chunk.extents, strict=True))
        encoded.buffer.release()


def _shift(chunk: PlannedChunk) -> int:
    """Returns the offset of a chunk's raw bytes in their buffer that lets the largest extent be read directly.

    A chunk that stays raw starts at 0 instead, so that the sink can write its bytes directly.
    """
    largest = max(chunk.extents, key=lambda extent: extent.length)
    if chunk.codec.id == RAW.id or largest.length < DIRECT_MINIMUM:
        return 0
    return shift_for(largest.file_offset, largest.chunk_offset)
