"""Checks every byte of a snapshot without restoring anything."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from dumont_gpu.backends import Backend, fit_for_devices, select_backend
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.columns.placement import Placement
from dumont_gpu.columns.table import EntryTable, as_table
from dumont_gpu.errors import DamagedError, LostFile
from dumont_gpu.format.header import CHUNK_ALIGNMENT, HEADER_SIZE, STREAM_BLOCK, STREAM_HEADER_SIZE
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.chunk_checks import chunk_check
from dumont_gpu.jobs.damage import Damage
from dumont_gpu.jobs.options import VerifyOptions
from dumont_gpu.jobs.resources import ChunkRoom, thread_count
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.shortages import explain_shortages
from dumont_gpu.sizes import MiB, counted
from dumont_gpu.snapshot.content import check_content
from dumont_gpu.snapshot.inside import whole_snapshot
from dumont_gpu.snapshot.reader import Snapshot, in_columns, opened_source, parallel_reads, read_into, read_snapshot
from dumont_gpu.storage import Source
from dumont_gpu.storage.base import Watched

_NAMED: Final = 3  # lost files that a message names


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The extent of a verification that found no damage. Sizes are bytes."""

    snapshot_path: str
    snapshot_id: str
    num_chunks: int
    num_files: int
    stored_size: int  # the whole snapshot, which was read
    content_size: int | None  # raw bytes, decoded and compared with the files' digests; None: without `content`
    device: str
    seconds: float


@explain_shortages()
def verify(
    source: str | Source, options: VerifyOptions | None = None, progress: ProgressCallback | None = None
) -> VerifyResult:
    """Reads and checks a whole snapshot: header, chunk index, manifest, every chunk, and the padding between them.

    Raises:
        DamagedError: bytes contradict their digest or FORMAT.md; names the first damaged chunk and counts the others.
            Its `lost` are the files that the damaged chunks hold.
        SnapshotNotFoundError: nothing is at `source`.
        UnsupportedError: the snapshot needs a newer dumont-gpu.
        UsageError: `source` names a part of a snapshot, `options.expect` is no snapshot id, or the memory does not hold
            a chunk.
        DumontError: the source cannot be read, or the machine is short of memory, threads or descriptors.
    """
    options = options or VerifyOptions()
    started = time.monotonic()
    # The CPU alone checks encoded bytes: a device that nobody asked for need not wake up.
    device = options.device if options.content or options.device != "auto" else "cpu"
    with (
        closing(select_backend(device, thread_count(options.jobs), options.gpu_memory)) as backend,
        opened_source(whole_snapshot(source) if isinstance(source, str) else source, options.network) as opened,
    ):
        snapshot = read_snapshot(opened, options.expect)
        if options.content:
            snapshot = in_columns(snapshot)
        stages = _VerifyStages(snapshot, backend, options)
        stages.run(progress)
        if stages.damage.chunks:
            raise _damaged(snapshot, stages.damage)
        if stages.padding:
            raise stages.padding[0]
        _check_padding(snapshot)
    return VerifyResult(
        snapshot_path=opened.location,
        snapshot_id=snapshot.id,
        num_chunks=len(snapshot.chunks),
        num_files=len(snapshot.manifest.entries),
        stored_size=opened.size,
        content_size=stages.raw_size if options.content else None,
        device=backend.name,
        seconds=time.monotonic() - started,
    )


def _damaged(snapshot: Snapshot, damage: Damage) -> DamagedError:
    """Returns the error for damaged chunks, with the files that are lost."""
    lost = damage.lost_files(as_table(snapshot.manifest.entries), len(snapshot.chunks))
    number, reason = min(damage.chunks.items())
    more = f" (and {len(damage.chunks) - 1} more)" if len(damage.chunks) > 1 else ""
    error = DamagedError(
        f"{snapshot.source.location}: {len(damage.chunks)} of {len(snapshot.chunks)} chunks damaged: "
        f"chunk {number}: {reason}{more}; {_lost_clause(lost)}"
    )
    error.lost = tuple(lost)
    return error


def _lost_clause(lost: Sequence[LostFile]) -> str:
    named = ", ".join(printable(file.path) for file in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED:,} more" if len(lost) > _NAMED else ""
    return f"{counted(len(lost), 'file is', 'files are')} lost{': ' * bool(lost)}{named}{more}"


class _VerifyStages:
    """The stages of a verification: fetch, check. A damaged chunk is noted, and the other chunks are checked."""

    def __init__(self, snapshot: Snapshot, backend: Backend, options: VerifyOptions) -> None:
        self._snapshot, self._records, self._backend, self._options = snapshot, snapshot.chunks, backend, options
        entries = as_table(snapshot.manifest.entries) if options.content else EntryTable()
        self._placement = Placement(entries, len(snapshot.chunks))
        self._padding_ends = {start: end for start, end in _padding(snapshot) if end - start < CHUNK_ALIGNMENT}
        self.raw_size = sum(record.size_original for record in self._records)
        self.damage = Damage()
        self.padding: list[DamagedError] = []  # gaps that are not zero; no file has bytes there

    def run(self, progress: ProgressCallback | None) -> None:
        source = self._snapshot.source
        watched = source if isinstance(source, Watched) else None
        come = sum(record.size_compressed for record in self._records) if watched else 0
        meter = Meter(progress, "verify", self.raw_size, len(self._records), come)
        if watched:
            watched.watch(meter.come)
        largest = max((record.size_original for record in self._records), default=1)
        threads = thread_count(self._options.jobs) + self._backend.extra_threads
        room = ChunkRoom.of_machine(self._options.memory, largest)
        pairs = room.chunks(threads)
        if self._options.content:
            self._backend.prepare(largest, decode=True, on_join=lambda more: join(more))
        encoded, raw = (BufferPool(pairs, largest + CHUNK_ALIGNMENT, self._backend.pin) for _ in range(2))
        pipeline = Pipeline(encoded, raw, cancel=source.cancel)
        wanted = with_buffers(range(len(self._records)), encoded)
        fetched = pipeline.stage("fetch", self._fetch, wanted, threads=parallel_reads(source))

        def check(item: tuple[tuple[int, Buffer], Buffer]) -> None:
            (number, buffer), spare = item
            record = self._records[number]
            self._check(number, buffer.view[: record.size_compressed], spare.view[: record.size_original])
            buffer.release()
            spare.release()
            meter.add(record.size_original)

        def join(joining: int) -> None:
            more = room.chunks(threads + joining) - pairs
            encoded.grow(more)
            raw.grow(more)
            pipeline.widen("check", min(joining, more))

        pipeline.stage("check", check, with_buffers(fetched, raw), threads=min(threads, pairs))
        if self._options.content:
            sizes = ((record.compressor_id, record.size_original) for record in self._records)
            self._backend.expect(sum(size for codec, size in sizes if fit_for_devices(codec, size)))
        pipeline.run()

    def _fetch(self, item: tuple[int, Buffer]) -> tuple[int, Buffer] | None:
        number, buffer = item
        record = self._records[number]
        # The padding after the chunk comes in the same request: every request takes a round trip.
        padding_end = self._padding_ends.get(record.end, record.end)
        with self.damage.noted(number):
            self._snapshot.read_chunk(number, buffer.view[: padding_end - record.offset])
            try:
                gap = buffer.view[record.size_compressed : padding_end - record.offset]
                _check_zeros(self._snapshot, padding_end, gap)
            except DamagedError as error:
                self.padding.append(error)
            return item
        buffer.release()
        return None

    def _check(self, number: int, encoded: memoryview, raw: memoryview) -> None:
        with self.damage.noted(number):
            if not self._options.content:
                self._snapshot.check_chunk(number, encoded)
                return
            check = chunk_check(self._snapshot, number, encoded)
            self._backend.decode(self._records[number].compressor_id, encoded, raw, check)
            check_content(raw, self._snapshot, self._placement, number)


def _padding(snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    """Yields the start and end of each gap between the parts of a snapshot."""
    header, size = snapshot.header, snapshot.source.size
    parts = [(chunk.offset, chunk.end) for chunk in snapshot.chunks]
    if header.is_stream:
        closing = size - STREAM_BLOCK
        parts += [
            (header.manifest_offset, header.index_offset + header.index_size),
            (closing, closing + STREAM_HEADER_SIZE),
        ]
        parts.append((size, size))
        end = STREAM_HEADER_SIZE
    else:
        parts.append((header.manifest_offset, size))
        end = HEADER_SIZE + header.index_size
    for start, next_end in sorted(parts):
        if end < start:
            yield end, start
        end = next_end


def _check_padding(snapshot: Snapshot) -> None:
    """Checks the gaps that were not read together with the chunk before them."""
    read = {chunk.end for chunk in snapshot.chunks}
    for start, end in _padding(snapshot):
        if start in read and end - start < CHUNK_ALIGNMENT:
            continue
        for at in range(start, end, MiB):
            gap = memoryview(bytearray(min(MiB, end - at)))
            read_into(snapshot.source, at, gap)
            _check_zeros(snapshot, end, gap)


def _check_zeros(snapshot: Snapshot, end: int, gap: memoryview) -> None:
    """Raises DamagedError unless `gap` is all zeros: no digest covers padding."""
    if any(gap):
        raise DamagedError(f"{snapshot.source.location}: the padding before byte {end} is not zero")
