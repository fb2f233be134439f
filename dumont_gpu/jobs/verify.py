"""Checks every byte of a snapshot, without restoring it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from dumont_gpu.backends import Backend, select_backend
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.header import CHUNK_ALIGNMENT, HEADER_SIZE
from dumont_gpu.jobs.options import VerifyOptions
from dumont_gpu.jobs.resources import chunk_pairs, default_jobs
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.shortages import told
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.placement import check_content, placement_of
from dumont_gpu.snapshot.reader import Snapshot, parallel_reads, read_into, read_snapshot
from dumont_gpu.storage import Source, open_source


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was checked; nothing was found wrong. Sizes are bytes."""

    snapshot_path: str
    snapshot_id: str
    num_chunks: int
    num_files: int
    stored_size: int  # all bytes of the snapshot were read
    content_size: int | None  # bytes decoded and compared with the files' digests; None: not asked for
    device: str
    seconds: float


@told()
def verify(
    source: str | Source, options: VerifyOptions | None = None, progress: ProgressCallback | None = None
) -> VerifyResult:
    """Reads a whole snapshot and checks it: header, index, manifest, every chunk, and the zeros between them.

    Raises:
        DamagedError: something is wrong; all damaged chunks are named.
        SnapshotNotFoundError, UnsupportedError: as for a restore.
    """
    options = options or VerifyOptions()
    started = time.monotonic()
    # Stored bytes alone are checked by the CPU, and a device that nobody asked for need not wake up.
    device = options.device if options.content or options.device != "auto" else "cpu"
    backend = select_backend(device, _jobs(options), options.gpu_memory)
    opened = open_source(source, options.network) if isinstance(source, str) else source
    try:
        snapshot = read_snapshot(opened, options.expect)
        job = _VerifyJob(snapshot, backend, options)
        job.run(progress)
        _check_padding(snapshot)
    finally:
        backend.close()
        if isinstance(source, str):
            opened.close()
    if job.damaged:
        more = f" (and {len(job.damaged) - 1} more)" if len(job.damaged) > 1 else ""
        raise DamagedError(
            f"{opened.location}: {len(job.damaged)} of {len(snapshot.chunks)} chunks damaged: {job.damaged[0]}{more}"
        )
    return VerifyResult(
        snapshot_path=opened.location,
        snapshot_id=snapshot.id,
        num_chunks=len(snapshot.chunks),
        num_files=len(snapshot.manifest.entries),
        stored_size=opened.size,
        content_size=job.original_size if options.content else None,
        device=backend.name,
        seconds=time.monotonic() - started,
    )


def _jobs(options: VerifyOptions) -> int:
    return options.jobs or default_jobs()


class _VerifyJob:
    """The stages of a verification: fetch, check. A damaged chunk does not end it."""

    def __init__(self, snapshot: Snapshot, backend: Backend, options: VerifyOptions) -> None:
        self._snapshot, self._backend, self._options = snapshot, backend, options
        self._places = placement_of(snapshot.files()) if options.content else {}
        self.original_size = sum(chunk.size_original for chunk in snapshot.chunks)
        self._padding = {start: end for start, end in _padding(snapshot) if end - start < CHUNK_ALIGNMENT}
        self.damaged: list[str] = []

    def run(self, progress: ProgressCallback | None) -> None:
        chunks = self._snapshot.chunks
        meter = Meter(progress, "verify", self.original_size, len(chunks))
        largest = max((chunk.size_original for chunk in chunks), default=1)
        if self._options.content:
            self._backend.prepare(largest, decode=True)
        jobs = _jobs(self._options) + self._backend.extra_jobs
        pairs = chunk_pairs(self._options.memory, largest, jobs)
        stored, contents = (BufferPool(pairs, largest + CHUNK_ALIGNMENT, self._backend.pin) for _ in range(2))
        source = self._snapshot.source
        pipeline = Pipeline(stored, contents, cancel=source.cancel)
        fetched = pipeline.stage(
            "fetch", self._fetch, with_buffers(range(len(chunks)), stored), threads=parallel_reads(source)
        )

        def check(item: tuple[tuple[int, Buffer], Buffer]) -> None:
            (number, buffer), spare = item
            self._check(number, buffer.view[: chunks[number].size_compressed], spare.view)
            buffer.release()
            spare.release()
            meter.add(chunks[number].size_original)

        pipeline.stage("check", check, with_buffers(fetched, contents), threads=min(jobs, pairs))
        pipeline.run()

    def _fetch(self, item: tuple[int, Buffer]) -> tuple[int, Buffer]:
        number, buffer = item
        chunk = self._snapshot.chunks[number]
        padding_end = self._padding.get(chunk.end, chunk.end)  # read together: every request takes a round trip
        self._snapshot.read_chunk(number, buffer.view[: padding_end - chunk.offset])
        _check_zeros(self._snapshot, padding_end, buffer.view[chunk.size_compressed : padding_end - chunk.offset])
        return item

    def _check(self, number: int, stored: memoryview, spare: memoryview) -> None:
        chunk = self._snapshot.chunks[number]
        try:
            self._snapshot.check_chunk(number, stored)
            if self._options.content:
                content = spare[: chunk.size_original]
                self._backend.decode(chunk.compressor_id, stored, content)
                check_content(content, self._places.get(number, ()), self._snapshot.digest)
        except DamagedError as error:
            self.damaged.append(f"chunk {number}: {error}")


def _padding(snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    """Start and end of what no part of the snapshot owns."""
    end = HEADER_SIZE + snapshot.header.index_size
    starts = sorted((chunk.offset, chunk.end) for chunk in snapshot.chunks)
    for start, next_end in [*starts, (snapshot.header.manifest_offset, snapshot.source.size)]:
        if end < start:
            yield end, start
        end = next_end


def _check_padding(snapshot: Snapshot) -> None:
    """Checks what was not read together with the chunk before it."""
    read = {chunk.end for chunk in snapshot.chunks}
    for start, end in _padding(snapshot):
        if start in read and end - start < CHUNK_ALIGNMENT:
            continue
        for at in range(start, end, MiB):
            gap = memoryview(bytearray(min(MiB, end - at)))
            read_into(snapshot.source, at, gap)
            _check_zeros(snapshot, end, gap)


def _check_zeros(snapshot: Snapshot, end: int, gap: memoryview) -> None:
    """No digest covers padding, so it must be zero."""
    if any(gap):
        raise DamagedError(f"{snapshot.source.location}: the padding before byte {end} is not zero")
