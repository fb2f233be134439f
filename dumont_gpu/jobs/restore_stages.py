"""The stages of a restore: fetch, decode, write. Each begins as soon as its inputs are known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from dumont_gpu.backends import Backend, fit_for_devices
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.channel import Channel
from dumont_gpu.codecs import Raw
from dumont_gpu.columns.placement import FileExtents, Placement, SmallFiles
from dumont_gpu.disk.direct_io import ALIGNMENT, DIRECT_MINIMUM, shift_for
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.entries import Extent
from dumont_gpu.jobs.chunk_checks import chunk_check
from dumont_gpu.jobs.damage import Damage
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.resources import ChunkRoom, thread_count, writer_count
from dumont_gpu.jobs.restore_plan import RestorePlan
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.content import check_content
from dumont_gpu.snapshot.reader import SnapshotIndex, parallel_reads, read_into
from dumont_gpu.storage.base import Watched
from dumont_gpu.tree.target.files import FileWriter

RAW: Final = Raw()
_PART: Final = 500  # small files that a thread takes at a time
_COST_OF_FILE: Final = 64 * KiB  # decoding and writing that many bytes takes as long as creating a file


@dataclass(slots=True)
class LoadedChunk:
    """A chunk in memory, fetched or decoded."""

    number: int
    buffer: Buffer
    content: memoryview  # within `buffer`: encoded bytes, then raw bytes


@dataclass(slots=True)
class _Rest:
    """What is left to write of a decoded chunk."""

    parts: int
    size: int  # raw bytes that progress has not counted


class _Part(NamedTuple):
    """A part of a decoded chunk that one thread writes."""

    chunk: LoadedChunk
    rest: _Rest  # shared by the parts of the chunk
    small: SmallFiles | None  # None: all files of the chunk that are not small


@dataclass(slots=True)
class _Wanted:
    """A chunk to fetch."""

    number: int
    shift: int  # offset of the encoded bytes in their buffer


class RestoreStages:
    """Moves chunks from a source into files. `decode` returns the chunks that `write` takes."""

    def __init__(
        self,
        index: SnapshotIndex,
        backend: Backend,
        options: RestoreOptions,
        pipeline: Pipeline,
        progress: ProgressCallback | None = None,
    ) -> None:
        self._progress, self._meter = progress, Meter(None, "restore", 0, 0)
        self._source, self._records = index.source, index.chunks
        self._backend, self._options, self._pipeline = backend, options, pipeline
        self._threads = thread_count(options.jobs) + backend.extra_threads
        self._writers = writer_count(thread_count(options.jobs))
        self._wanted: Channel[_Wanted] = pipeline.items(capacity=len(index.chunks))  # in the order of fetching
        self._ahead: Sequence[int] = ()
        self._encoded: BufferPool | None = None
        self._raw: BufferPool | None = None
        self._room: ChunkRoom | None = None
        self._fetched: Iterable[LoadedChunk] = ()
        self.damage = Damage(bad_sectors=True) if options.keep_going else None

    def fetch_ahead(self) -> None:
        """Begins to fetch as many chunks as memory holds, before there is a plan: for a restore of every chunk."""
        numbers = range(len(self._records))
        self._encoded = self._begin_fetching(numbers)
        self._ahead = numbers[: self._encoded.count]
        for number in self._ahead:
            self._wanted.put(_Wanted(number, shift=0))

    def decode(self, plan: RestorePlan) -> Iterable[LoadedChunk]:
        """Begins to fetch and to decode the chunks of a plan; returns an iterable of decoded chunks."""
        numbers = sorted(plan.placement, key=lambda number: self._cost(number, plan), reverse=True)
        encoded = self._encoded = self._encoded or self._begin_fetching(numbers)
        for number in numbers:
            if number not in self._ahead:
                is_raw = self._records[number].compressor_id == RAW.id  # written from the buffer of the fetch
                self._wanted.put(_Wanted(number, _shift(plan.placement.largest(number)) if is_raw else 0))
        self._meter.expect(plan.decoded_size, len(numbers), self._to_come({*numbers, *self._ahead}))
        self._wanted.finish()
        raw = self._raw = BufferPool(encoded.count, encoded.size, self._backend.pin)
        self._pipeline.add_pools(raw)
        decoder = _Decoder(plan, self._backend, self.damage, verify=self._options.verify)
        chunks = with_buffers(self._fetched, raw)
        decoded = self._pipeline.stage("decode", decoder.decode, chunks, threads=min(self._threads, raw.count))
        self._pipeline.start()
        records = [self._records[number] for number in numbers]
        fit = (
            record.size_original for record in records if fit_for_devices(record.compressor_id, record.size_original)
        )
        self._backend.expect(sum(fit))
        return decoded

    def write(
        self,
        decoded: Iterable[LoadedChunk],
        plan: RestorePlan,
        files: FileWriter,
    ) -> dict[str, float]:
        """Writes every chunk of a plan into its files; returns busy seconds by stage."""
        lock = threading.Lock()

        def count(rest: _Rest, size: int) -> None:
            with lock:
                size = min(size, rest.size)  # bytes that two files share are written twice
                rest.size -= size
            self._meter.move(size)

        _write_files(files, plan.placement.others(None), memoryview(b""))
        files.write_small(plan.placement.small(None), memoryview(b""))

        def write(part: _Part) -> None:
            chunk, rest = part.chunk, part.rest
            if part.small is not None:
                files.write_small(part.small, chunk.content)
                count(rest, part.small.size)
            else:
                written = partial(count, rest)
                _write_files(files, plan.placement.others(chunk.number), chunk.content, written)
            with lock:
                rest.parts -= 1
                last = not rest.parts
            if last:
                chunk.buffer.release()
                self._meter.add(rest.size)

        self._pipeline.stage("write", write, self._parts(decoded, plan.placement), threads=self._writers)
        self._pipeline.run()
        if self.damage is not None and self.damage.chunks:
            sound = [number for number in plan.placement if number not in self.damage.chunks]
            self._meter.expect(sum(self._records[number].size_original for number in sound), len(sound))
        return self._pipeline.seconds

    def _begin_fetching(self, numbers: Sequence[int]) -> BufferPool:
        """Starts the fetch threads; returns their buffers, each large enough for any of the chunks `numbers`."""
        largest = max((self._records[number].size_original for number in numbers), default=1)
        self._backend.prepare(largest, decode=True, on_join=self._join)
        size = sum(self._records[number].size_original for number in numbers)
        self._meter = Meter(self._progress, "restore", size, len(numbers), self._to_come(numbers))
        if isinstance(self._source, Watched):
            self._source.watch(self._meter.come)
        others = max(2 if self._source.remote else 1, self._writers - 1)
        self._room = ChunkRoom.of_machine(self._options.memory, largest, others=others)
        encoded = BufferPool(self._room.chunks(self._threads), largest + ALIGNMENT, self._backend.pin)
        self._pipeline.add_pools(encoded)
        wanted = with_buffers(self._wanted, encoded)
        self._fetched = self._pipeline.stage("fetch", self._fetch, wanted, threads=parallel_reads(self._source))
        self._pipeline.start()
        return encoded

    def _join(self, threads: int) -> None:
        """Makes room for a device beside the CPU, and lets more threads decode."""
        assert self._room is not None and self._encoded is not None and self._raw is not None
        more = self._room.chunks(self._threads + threads) - self._room.chunks(self._threads)
        for pool in (self._encoded, self._raw):
            pool.grow(more)
        self._pipeline.widen("decode", min(threads, more))

    def _fetch(self, item: tuple[_Wanted, Buffer]) -> LoadedChunk | None:
        """Returns the encoded chunk; None for a damaged chunk that the restore does without."""
        wanted, buffer = item
        record = self._records[wanted.number]
        encoded = buffer.view[wanted.shift : wanted.shift + record.size_compressed]
        with self.damage.noted(wanted.number) if self.damage is not None else nullcontext():
            read_into(self._source, record.offset, encoded)
            return LoadedChunk(wanted.number, buffer, encoded)
        buffer.release()
        return None

    def _to_come(self, numbers: Collection[int]) -> int:
        """Returns how many bytes the source will tell of while it reads these chunks."""
        watched = isinstance(self._source, Watched)
        return sum(self._records[number].size_compressed for number in numbers) if watched else 0

    def _parts(self, decoded: Iterable[LoadedChunk], placement: Placement) -> Iterator[_Part]:
        """Divides chunks among the threads that write: tiny files may all lie in one chunk."""
        for chunk in decoded:
            small = placement.small(chunk.number)
            parts: list[SmallFiles | None] = [small[at : at + _PART] for at in range(0, len(small), _PART)]
            if placement.count(chunk.number) > len(small):
                parts.insert(0, None)
            rest = _Rest(len(parts), self._records[chunk.number].size_original)
            yield from (_Part(chunk, rest, part) for part in parts)

    def _cost(self, number: int, plan: RestorePlan) -> int:
        """Returns a chunk's cost in bytes. Slow chunks come first, so that all threads end soon after the last byte."""
        return self._records[number].size_original + _COST_OF_FILE * plan.placement.count(number)


class _Decoder:
    """Checks and decodes the chunks of a plan. Used from many threads."""

    def __init__(self, plan: RestorePlan, backend: Backend, damage: Damage | None, *, verify: bool) -> None:
        self._snapshot, self._placement, self._backend, self._verify = plan.snapshot, plan.placement, backend, verify
        self._damage = damage

    def decode(self, item: tuple[LoadedChunk, Buffer]) -> LoadedChunk | None:
        """Returns the chunk with its raw bytes; None for a chunk fetched ahead that the plan does not need.

        None, too, for a damaged chunk that the restore does without.
        """
        chunk, spare = item
        if chunk.number not in self._placement:
            chunk.buffer.release()
            spare.release()
            return None
        if self._damage is not None:
            with self._damage.noted(chunk.number):
                return self._check_and_decode(chunk, spare)
            chunk.buffer.release()
            spare.release()
            return None
        try:
            return self._check_and_decode(chunk, spare)
        except DamagedError as error:
            raise DamagedError(f"{self._snapshot.source.location}: chunk {chunk.number}: {error}") from None

    def _check_and_decode(self, chunk: LoadedChunk, spare: Buffer) -> LoadedChunk:
        """Returns the chunk with its raw bytes, and gives the other buffer back; after an error, both are taken."""
        record = self._snapshot.chunks[chunk.number]
        if record.compressor_id == RAW.id and len(chunk.content) == record.size_original:
            self._snapshot.check_chunk(chunk.number, chunk.content)
            other = spare
        else:
            shift = _shift(self._placement.largest(chunk.number))
            content = spare.view[shift : shift + record.size_original]
            check = chunk_check(self._snapshot, chunk.number, chunk.content)
            self._backend.decode(record.compressor_id, chunk.content, content, check)
            other = chunk.buffer
            chunk = LoadedChunk(chunk.number, spare, content)
        if self._verify:
            check_content(chunk.content, self._snapshot, self._placement, chunk.number)
        other.release()
        return chunk


def _write_files(
    files: FileWriter, placed: FileExtents, content: memoryview, written: Callable[[int], None] | None = None
) -> None:
    """Writes the files' extents in a decoded chunk; tells `written` of the bytes of each file."""
    for file, extents in placed:
        pieces = [
            (extent.file_offset, content[extent.chunk_offset : extent.chunk_offset + extent.length])
            for extent in extents
        ]
        files.write(file, pieces)
        if written is not None:
            written(sum(len(data) for _, data in pieces))


def _shift(largest: Extent | None) -> int:
    """Returns the offset of a chunk's raw bytes in their buffer that lets the largest extent be written directly."""
    if largest is None or largest.length < DIRECT_MINIMUM:
        return 0
    return shift_for(largest.file_offset, largest.chunk_offset)
