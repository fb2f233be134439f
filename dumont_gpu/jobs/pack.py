"""Packs source trees into one snapshot."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dumont_gpu import __version__, native
from dumont_gpu.backends import Backend, select_backend
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.codecs import Lz4, Raw
from dumont_gpu.disk.direct_io import ALIGNMENT, DIRECT_MINIMUM, shift_for
from dumont_gpu.disk.outputs import Identity, Output
from dumont_gpu.errors import NO_ROOM, DamagedError, DumontError, NoSpaceError, UsageError
from dumont_gpu.format.digests import Digest, digest_function
from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.format.header import (
    CHUNK_ALIGNMENT,
    CHUNK_ENTRY_SIZE,
    FLAG_BLAKE3,
    HEADER_SIZE,
    MAX_CHUNK_SIZE,
    MIN_CHUNK_SIZE,
    ChunkEntry,
    Header,
    index_to_bytes,
)
from dumont_gpu.format.manifest import Manifest, manifest_limit
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.resources import chunk_pairs, default_jobs
from dumont_gpu.jobs.source_reader import SourceReader
from dumont_gpu.pipeline import Pipeline, Window, in_turn
from dumont_gpu.plan.methods import check_method
from dumont_gpu.plan.planner import Plan, PlannedChunk, PlannedExtent
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.shortages import is_shortage, told
from dumont_gpu.sizes import KiB, align_up, counted
from dumont_gpu.storage import Sink, check_place, open_sink
from dumont_gpu.tree.globs import Patterns, places_of
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.scan import Scan, scan

RAW: Final = Raw()
_READERS: Final = 2  # one opens small files while the other reads a large one
GAIN: Final = 0.99  # a chunk that does not shrink below this is stored: decoding it would buy nothing


@dataclass(frozen=True, slots=True)
class PackResult:
    """What a pack made. Sizes are bytes."""

    snapshot_path: str
    snapshot_id: str
    original_size: int  # of the regular files
    compressed_size: int  # of the whole snapshot
    num_files: int
    num_chunks: int
    device: str
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)  # busy time, summed over threads
    codec_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)  # codec -> original and stored bytes
    shared_bytes: int = 0  # bytes of files stored once more than needed
    problems: tuple[Problem, ...] = ()  # what could not be packed, or changed meanwhile
    excluded: int = 0
    special: int = 0  # sockets, fifos and devices, which are not packed
    unmatched: tuple[str, ...] = ()  # patterns that match nothing
    links_out: tuple[FileEntry, ...] = ()  # symlinks that lead to something which is not packed
    unfinished: tuple[FileEntry, ...] = ()  # files that this program had not finished, left out
    snapshots: tuple[FileEntry, ...] = ()  # files that were packed and are snapshots themselves
    notes: tuple[str, ...] = ()  # what else its user should know

    @property
    def ratio(self) -> float:
        return self.original_size / self.compressed_size if self.compressed_size else 1.0


@dataclass(frozen=True, slots=True)
class PackPlan:
    """What a pack would do, for `-n`."""

    original_size: int
    num_files: int
    num_chunks: int
    codec_bytes: dict[str, int]
    shared_bytes: int
    problems: tuple[Problem, ...]
    excluded: int
    special: int
    unmatched: tuple[str, ...]
    links_out: tuple[FileEntry, ...] = ()
    unfinished: tuple[FileEntry, ...] = ()
    snapshots: tuple[FileEntry, ...] = ()


@told()
def pack(
    sources: Sequence[str], output: str, options: PackOptions | None = None, progress: ProgressCallback | None = None
) -> PackResult:
    """Packs `sources` into a snapshot at `output`, which appears there complete or not at all.

    Raises:
        SnapshotNotFoundError: a source does not exist.
        UsageError: `output` may not be replaced: a source, a file of one, or (without `force`) no snapshot.
        NoSpaceError: the disk of `output` is full.
        DumontError: any other reason why there is no snapshot now. Files that could not be read are no such reason:
            they are listed in the result's `problems`, and so is that nothing was left to pack.
    """
    options = _checked(options or PackOptions(), sources)
    started = time.monotonic()
    exclude = _patterns(options, sources)
    place = check_place(output, sources, force=options.force)
    backend = select_backend(options.device, _jobs(options), options.gpu_memory)
    try:
        sink = open_sink(output, options.network, force=options.force)
    except BaseException:
        backend.close()
        raise
    try:
        found = _scan(sources, options, exclude, sink.identities(), place)
        try:
            unmatched = exclude.unmatched()
            plan = Plan(found.files, options.method, options.chunk_size, _jobs(options))
            writer = _SnapshotWriter(plan, sink, backend, digest_function(options.digest))
            sink.expect(writer.largest_size)
            seconds = _run(writer, plan, options, progress)
            header, size = writer.finish(found, options)
        finally:
            found.close()
        sink.commit(size)
    except OSError as error:
        if is_shortage(error.errno):
            raise  # and no fault of the output
        if error.errno in NO_ROOM:
            raise NoSpaceError(f"{output}: no room for the snapshot: {error.strerror}") from None
        raise DumontError(f"{output}: {error.strerror or error}") from error
    finally:
        sink.abort(sys.exc_info()[1])
        backend.close()
    return PackResult(
        snapshot_path=output,
        snapshot_id=header.snapshot_id,
        original_size=header.total_size_original,
        compressed_size=size,
        num_files=header.num_files,
        num_chunks=header.num_chunks,
        device=backend.name,
        seconds=time.monotonic() - started,
        stage_seconds=seconds,
        codec_bytes=writer.codec_bytes(),
        shared_bytes=_shared_bytes(plan),
        problems=tuple(found.problems),
        excluded=found.excluded,
        special=found.special,
        unmatched=unmatched,
        links_out=tuple(found.links_out),
        unfinished=tuple(found.unfinished),
        snapshots=_snapshots(plan),
        notes=sink.notes(),
    )


@told()
def plan_pack(sources: Sequence[str], options: PackOptions | None = None, output: str | None = None) -> PackPlan:
    """Scans and plans without writing anything. Raises as `pack` does; of `output`, if the caller names it, too."""
    options = _checked(options or PackOptions(), sources)
    place = None if output is None else check_place(output, sources, force=options.force, network=options.network)
    select_backend(options.device).close()
    exclude = _patterns(options, sources)
    found = _scan(sources, options, exclude, place.identities if place else frozenset(), place)
    try:
        unmatched = exclude.unmatched()
        plan = Plan(found.files, options.method, options.chunk_size, _jobs(options))
        chunks = list(plan.chunks())
    finally:
        found.close()
    codec_bytes: dict[str, int] = defaultdict(int)
    for chunk in chunks:
        codec_bytes[chunk.codec.name] += chunk.size
    return PackPlan(
        original_size=sum(file.entry.size for file in found.files),
        num_files=len(found.files) + len(found.others),
        num_chunks=len(chunks),
        codec_bytes=dict(codec_bytes),
        shared_bytes=_shared_bytes(plan),
        problems=(*found.problems, *plan.problems.values()),
        excluded=found.excluded,
        special=found.special,
        unmatched=unmatched,
        links_out=tuple(found.links_out),
        unfinished=tuple(found.unfinished),
        snapshots=_snapshots(plan),
    )


def _patterns(options: PackOptions, sources: Sequence[str]) -> Patterns:
    if not options.exclude:
        return Patterns(())
    alone = len(sources) == 1 and Path(sources[0]).is_dir()
    names = {source: "" if alone else Path(os.path.abspath(source)).name for source in sources}
    return Patterns(options.exclude, places_of(names, lambda source, name: os.path.lexists(os.path.join(source, name))))


def _scan(
    sources: Sequence[str],
    options: PackOptions,
    exclude: Patterns,
    leave_out: frozenset[Identity],
    place: Output | None,
) -> Scan:
    found = scan(
        sources,
        exclude.excludes,
        leave_out=leave_out,
        output=place,
        follow_outside=options.follow_outside,
        with_owner=options.owner,
    )
    if found.is_empty:
        found.problems.append(Problem(".", f"nothing was left to pack: {_why_empty(found)}"))
    return found


def _why_empty(found: Scan) -> str:
    reasons = (
        (found.excluded, "entry left out by patterns", "entries left out by patterns"),
        (found.special, "socket, fifo or device", "sockets, fifos or devices"),
        (len(found.unfinished), "unfinished file of dumont-gpu", "unfinished files of dumont-gpu"),
    )
    return ", ".join(counted(*reason) for reason in reasons if reason[0]) or "the source is empty"


def _checked(options: PackOptions, sources: Sequence[str]) -> PackOptions:
    check_method(options.method)
    digest_function(options.digest)
    if not sources or not all(sources):
        raise UsageError(f"nothing to pack: {'a source without a name' if sources else 'name at least one source'}")
    if not MIN_CHUNK_SIZE <= options.chunk_size <= MAX_CHUNK_SIZE or options.chunk_size % CHUNK_ALIGNMENT:
        raise UsageError("the chunk size must be a multiple of 4KiB between 4KiB and 1GiB")
    return options


def _jobs(options: PackOptions) -> int:
    return options.jobs or default_jobs()


def _run(
    writer: _SnapshotWriter, plan: Plan, options: PackOptions, progress: ProgressCallback | None
) -> dict[str, float]:
    """Moves every chunk from its files to the sink: plan, read, encode, write."""
    meter = Meter(progress, "pack", plan.size, plan.max_chunks)
    largest = align_up(max(1, min(options.chunk_size, plan.size)))
    backend = writer.backend
    backend.prepare(largest, encode=True, decode=options.paranoid)
    jobs = _jobs(options) + backend.extra_jobs
    others = 2 if writer.in_order else 1
    pairs = chunk_pairs(options.memory, largest, jobs, others, buffers=3 if options.paranoid else 2)
    pools = [BufferPool(pairs, size, backend.pin) for size in (largest + ALIGNMENT, largest, largest)]
    if options.paranoid:
        writer.check_with(pools[2])
    threads = min(jobs, pairs)
    count = 0  # of chunks

    def move(chunks: Iterator[PlannedChunk]) -> dict[str, float]:
        raw, stored, _ = pools
        window = Window(
            pairs
        )  # those that wait for their turn to be written leave a buffer to the one whose turn it is
        pipeline = Pipeline(*pools, window, cancel=writer.cancel)

        def counted() -> Iterator[PlannedChunk]:
            """Yields the chunks, and counts them and the time that cutting them takes."""
            nonlocal count
            started = time.perf_counter()
            for turn, chunk in enumerate(chunks):
                chunk.turn = turn
                count += 1
                pipeline.seconds["plan"] += time.perf_counter() - started
                yield chunk
                started = time.perf_counter()
            meter.expect(plan.size, count)

        def admitted(planned: Iterable[PlannedChunk]) -> Iterator[PlannedChunk]:
            for chunk in planned:
                window.enter()
                yield chunk

        def write(chunk: _EncodedChunk) -> None:
            writer.write(chunk)
            window.leave()
            meter.add(chunk.planned.size)

        planned = pipeline.stage("plan", _as_it_is, counted())
        if writer.in_order:
            planned = admitted(planned)
        read = pipeline.stage("read", writer.read, with_buffers(planned, raw), threads=min(threads, _READERS))
        encoded = pipeline.stage("encode", writer.encode, with_buffers(read, stored), threads=threads)
        if writer.in_order:
            encoded = in_turn(encoded, lambda chunk: chunk.planned.turn)
        pipeline.stage("write", write, encoded)
        pipeline.run()
        return pipeline.seconds

    seconds = move(plan.chunks())
    bereft = writer.bereft_copies()
    if bereft:
        for name, more in move(plan.chunks_of_copies(bereft)).items():
            seconds[name] += more
    return seconds


def _as_it_is(chunk: PlannedChunk) -> PlannedChunk:
    return chunk


@dataclass(slots=True)
class _ReadChunk:
    planned: PlannedChunk
    buffer: Buffer
    content: memoryview  # within `buffer`
    extents: Sequence[PlannedExtent]  # what there is: less than planned where a file could not be read, or ended


@dataclass(slots=True)
class _EncodedChunk:
    planned: PlannedChunk
    buffer: Buffer
    compressor_id: int
    stored: memoryview  # within `buffer`
    digest: bytes  # of `stored`
    extents: list[Extent]
    origins: Sequence[PlannedExtent]  # where each of them comes from


class _SnapshotWriter:
    """The stages of a pack, and what they find out on the way."""

    def __init__(self, plan: Plan, sink: Sink, backend: Backend, digest: Digest) -> None:
        self._plan, self._sink, self.backend, self._digest = plan, sink, backend, digest
        self._reader = SourceReader(plan.files)
        self._checks: BufferPool | None = None
        self._written: dict[int, tuple[ChunkEntry, bytes, str]] = {}  # number -> entry, digest, name of its codec
        self._extents: dict[int, list[Extent]] = defaultdict(list)  # file index -> its extents
        self._end = align_up(HEADER_SIZE + CHUNK_ENTRY_SIZE * plan.max_chunks)  # room for header and index

    def check_with(self, checks: BufferPool) -> None:
        """Has every chunk decoded again, into one of these buffers, before it is written."""
        self._checks = checks

    @property
    def in_order(self) -> bool:
        return self._sink.in_order

    @property
    def largest_size(self) -> int:
        """Bytes of the snapshot without its manifest if nothing shrinks."""
        return self._end + self._plan.size + CHUNK_ALIGNMENT * self._plan.max_chunks

    # --- stages ---------------------------------------------------------------------------------------------------

    def read(self, item: tuple[PlannedChunk, Buffer]) -> _ReadChunk:
        chunk, buffer = item
        content = buffer.view[_shift(chunk) :][: chunk.size]
        return _ReadChunk(chunk, buffer, content, self._reader.read(chunk, content))

    def encode(self, item: tuple[_ReadChunk, Buffer]) -> _EncodedChunk:
        read, spare = item
        planned, chunk = read.planned, read.content
        extents = [
            Extent(
                extent.file_offset,
                planned.number,
                extent.chunk_offset,
                extent.length,
                self._digest(chunk[extent.chunk_offset : extent.chunk_offset + extent.length]),
            )
            for extent in read.extents
        ]
        size = 0
        if planned.codec.id != RAW.id:
            size = self.backend.encode(planned.codec, chunk, spare.view[: int(planned.size * GAIN)])
        if size:
            read.buffer.release()
            compressor_id, buffer, stored = planned.codec.id, spare, spare.view[:size]
        else:
            spare.release()
            compressor_id, buffer, stored = RAW.id, read.buffer, chunk
        if size and self._checks is not None:
            self._check(planned, stored, extents, self._checks)
        is_extent = stored is chunk and [e.length for e in extents] == [planned.size]  # whose digest is known already
        digest = extents[0].digest if is_extent else self._digest(stored)
        return _EncodedChunk(planned, buffer, compressor_id, stored, digest, extents, read.extents)

    def _check(self, planned: PlannedChunk, stored: memoryview, extents: Sequence[Extent], checks: BufferPool) -> None:
        """Raises DumontError unless the encoded chunk decodes to the bytes that were read."""
        codec = planned.codec
        buffer = checks.acquire()
        content = buffer.view[: planned.size]
        native.spoil(content)  # or what an earlier chunk left could pass for this one
        with suppress(DamagedError):
            self.backend.decode(codec.id, stored, content)
            if all(self._digest(content[e.chunk_offset : e.chunk_offset + e.length]) == e.digest for e in extents):
                buffer.release()
                return
        raise DumontError(
            f"chunk {planned.number}: {codec.name} on {self.backend.name} does not give back what it got; "
            "this is a defect of dumont-gpu or of the machine"
        )

    def write(self, chunk: _EncodedChunk) -> None:
        number, size = chunk.planned.number, len(chunk.stored)
        self._sink.write_at(self._end, chunk.stored)
        entry = ChunkEntry(self._end, size, chunk.planned.size, chunk.compressor_id, chunk.digest[:8])
        codec = chunk.planned.codec.name if chunk.compressor_id else RAW.name
        self._written[number] = entry, chunk.digest, codec
        for origin, extent in zip(chunk.origins, chunk.extents, strict=True):
            self._extents[origin.file].append(extent)
        self._end = align_up(self._end + size)
        chunk.buffer.release()

    def cancel(self) -> None:
        self._sink.cancel()

    # --- the end --------------------------------------------------------------------------------------------------

    def finish(self, found: Scan, options: PackOptions) -> tuple[Header, int]:
        """Writes manifest, index and header; returns the header and the size of the snapshot."""
        entries = self._file_entries(found) + found.others
        entries = _without_orphans(sorted(entries, key=lambda entry: entry.sort_key), found)
        written = [self._written[number] for number in range(len(self._written))]
        manifest = Manifest(
            method=options.method,
            tool=f"dumont-gpu {__version__}",
            created_ns=_now_ns(),
            chunk_digests=tuple(digest for _, digest, _ in written),
            digest=options.digest,
            entries=tuple(entries),
            root=found.root,
        ).to_json()
        stored = memoryview(bytearray(len(manifest) + len(manifest) // 128 + 64 * KiB))
        stored = stored[: Lz4().encode(memoryview(manifest), stored)]
        chunks = [entry for entry, _, _ in written]
        index = index_to_bytes(chunks)
        header = Header(
            num_chunks=len(chunks),
            num_files=len(entries),
            total_size_compressed=sum(chunk.size_compressed for chunk in chunks),
            total_size_original=sum(entry.size for entry in entries),
            chunk_size=options.chunk_size,
            manifest_offset=self._end,
            manifest_size=len(stored),
            index_sha256=hashlib.sha256(index).digest(),
            manifest_sha256=hashlib.sha256(stored).digest(),
            flags=FLAG_BLAKE3 if options.digest == "blake3" else 0,
        )
        if len(manifest) > manifest_limit(header):
            raise DumontError(
                f"a manifest of {len(manifest)} bytes is more than a snapshot can hold: pack less at once"
            )
        self._sink.write_at(self._end, stored)
        self._sink.write_at(0, memoryview(header.to_bytes() + index))
        return header, self._end + len(stored)

    def codec_bytes(self) -> dict[str, tuple[int, int]]:
        """Original and stored bytes by codec."""
        totals: dict[str, tuple[int, int]] = {}
        for entry, _, name in self._written.values():
            original, stored = totals.get(name, (0, 0))
            totals[name] = (original + entry.size_original, stored + entry.size_compressed)
        return totals

    def _file_entries(self, found: Scan) -> list[FileEntry]:
        entries = []
        for index, file in enumerate(self._plan.files):
            leader = self._plan.copies.get(index, index)
            problem = self._problem(index) or self._problem(leader)
            if problem is not None:
                found.problems.append(Problem(file.entry.path, problem.reason))
                continue
            extents = sorted(self._extents.get(leader, ()), key=lambda extent: extent.file_offset)
            packed = sum(extent.length for extent in extents) + self._reader.missing.get(leader, 0)
            if packed != self._plan.planned.get(leader, 0):
                raise DumontError(f"{printable(file.entry.path)}: an extent is missing; this is a defect of dumont-gpu")
            if leader not in self._reader.changed:
                entries.append(file.entry._replace(extents=tuple(extents)))
                continue
            size = self._reader.size_of(leader, extents)
            extents = [extent for extent in extents if extent.file_end <= size]
            found.problems.append(Problem(file.entry.path, _change(size, file.entry.size)))
            entries.append(file.entry._replace(size=size, extents=tuple(extents), changed=True))
        return entries

    def bereft_copies(self) -> list[int]:
        """Returns the files that were to share the bytes of another one, which turned out to be others."""
        return [
            index
            for index, leader in self._plan.copies.items()
            if leader in self._reader.changed or self._problem(leader) is not None
        ]

    def _problem(self, index: int) -> Problem | None:
        return self._plan.problems.get(index) or self._reader.lost.get(index)


def _shift(chunk: PlannedChunk) -> int:
    """Where in its buffer a chunk's content starts so that its largest extent can be read directly.

    Chunks that are stored as they are start at 0 instead, so that they can be written directly.
    """
    largest = max(chunk.extents, key=lambda extent: extent.length)
    if chunk.codec.id == RAW.id or largest.length < DIRECT_MINIMUM:
        return 0
    return shift_for(largest.file_offset, largest.chunk_offset)


def _change(size: int, scanned: int) -> str:
    if size == scanned:
        return "changed while it was packed"
    return f"became shorter while it was packed: its first {size} of {scanned} bytes are stored"


def _without_orphans(entries: list[FileEntry], found: Scan) -> list[FileEntry]:
    """Leaves out hard links to files that could not be packed."""
    present = {entry.path for entry in entries}
    kept = []
    for entry in entries:
        if entry.type is EntryType.HARDLINK and entry.target not in present:
            found.problems.append(
                Problem(entry.path, f"is a hard link to {printable(entry.target)}, which could not be packed")
            )
        else:
            kept.append(entry)
    return kept


def _now_ns() -> int:
    """The time, or SOURCE_DATE_EPOCH for builds that must come out the same (with one job, a snapshot then does)."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(fixed) * 10**9 if fixed.isascii() and fixed.isdecimal() else time.time_ns()


def _snapshots(plan: Plan) -> tuple[FileEntry, ...]:
    """The files that are snapshots themselves: often yesterday's, which nobody wanted to pack."""
    alike = plan.snapshots | {index for index, leader in plan.copies.items() if leader in plan.snapshots}
    return tuple(plan.files[index].entry for index in sorted(alike))


def _shared_bytes(plan: Plan) -> int:
    return sum(plan.files[index].entry.size for index in plan.copies)
