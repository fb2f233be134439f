"""Packs source trees into one snapshot."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
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
from dumont_gpu.codecs import Codec, Lz4, Raw
from dumont_gpu.digests import DEFAULT_DIGEST, Digest, digest_function
from dumont_gpu.direct_io import ALIGNMENT, DIRECT_MINIMUM, read_at, shift_for
from dumont_gpu.errors import DamagedError, DumontError, NoSpaceError, UsageError
from dumont_gpu.format import (
    CHUNK_ALIGNMENT,
    CHUNK_ENTRY_SIZE,
    DEFAULT_CHUNK_SIZE,
    FLAG_BLAKE3,
    HEADER_SIZE,
    MAX_CHUNK_SIZE,
    MIN_CHUNK_SIZE,
    ChunkEntry,
    Header,
    KiB,
    align_up,
    index_to_bytes,
)
from dumont_gpu.globs import Patterns, places_of
from dumont_gpu.jobs import chunk_pairs, default_jobs
from dumont_gpu.manifest import EntryType, Extent, FileEntry, Manifest, manifest_limit
from dumont_gpu.methods import DEFAULT_METHOD, check_method
from dumont_gpu.paths import printable
from dumont_gpu.pipeline import Buffer, BufferPool, Pipeline, Window, in_turn, with_buffers
from dumont_gpu.planner import Plan, PlannedChunk, PlannedExtent
from dumont_gpu.problems import Problem
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.shortages import is_shortage, told
from dumont_gpu.storage import NetworkOptions, Sink, open_sink
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.scan import Scan, SourceFile, scan

RAW: Final = Raw()
_READERS: Final = 2  # one opens small files while the other reads a large one
_NOT_REGULAR: Final = "is no regular file any more"
_SHORT: Final = "became shorter while it was packed"
_READ_PROBLEMS: Final = {native.NOT_REGULAR: _NOT_REGULAR, native.SHORT: _SHORT}
GAIN: Final = 0.99  # a chunk that does not shrink below this is stored: decoding it would buy nothing


@dataclass(frozen=True, slots=True)
class PackOptions:
    method: str = DEFAULT_METHOD
    chunk_size: int = DEFAULT_CHUNK_SIZE  # bytes
    exclude: Sequence[str] = ()  # patterns as in globs.py
    digest: str = DEFAULT_DIGEST  # of chunks and files: "sha256" or "blake3"
    owner: bool = False  # record user and group ids
    device: str = "auto"
    gpu_memory: int | None = None  # bytes of device memory to take at most; None: half of what is free
    paranoid: bool = False  # decode every chunk, and compare, before it is written
    jobs: int = 0  # threads that encode; 0: one per core, or fewer where the machine's limits ask for it
    memory: int = 0  # bytes for chunk buffers; 0: 512 MiB, or less where the machine's limits leave less
    network: NetworkOptions = field(default_factory=NetworkOptions)


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


@told()
def pack(
    sources: Sequence[str], output: str, options: PackOptions | None = None, progress: ProgressCallback | None = None
) -> PackResult:
    """Packs `sources` into a snapshot at `output`, which appears there complete or not at all.

    Raises:
        SnapshotNotFoundError: a source does not exist.
        NoSpaceError: the disk of `output` is full.
        DumontError: any other reason why there is no snapshot now. Files that could not be read are no such reason:
            they are listed in the result's `problems`.
    """
    options = _checked(options or PackOptions(), sources)
    started = time.monotonic()
    exclude = _patterns(options, sources)
    backend = select_backend(options.device, _jobs(options), options.gpu_memory)
    sink = open_sink(output, options.network)
    try:
        found = scan(sources, exclude.excludes, leave_out=sink.identities(), with_owner=options.owner)
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
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
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
    )


@told()
def plan_pack(sources: Sequence[str], options: PackOptions | None = None) -> PackPlan:
    """Scans and plans without writing anything. Raises as `pack` does."""
    options = _checked(options or PackOptions(), sources)
    select_backend(options.device).close()
    exclude = _patterns(options, sources)
    found = scan(sources, exclude.excludes)
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
    )


def _patterns(options: PackOptions, sources: Sequence[str]) -> Patterns:
    if not options.exclude:
        return Patterns(())
    alone = len(sources) == 1 and Path(sources[0]).is_dir()
    names = {source: "" if alone else Path(os.path.abspath(source)).name for source in sources}
    return Patterns(options.exclude, places_of(names, lambda source, name: os.path.lexists(os.path.join(source, name))))


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
    chunks, stored, checks = (BufferPool(pairs, size, backend.pin) for size in (largest + ALIGNMENT, largest, largest))
    window = Window(pairs)  # those that wait for their turn to be written leave a buffer to the one whose turn it is
    pipeline = Pipeline(chunks, stored, checks, window, cancel=writer.cancel)
    if options.paranoid:
        writer.check_with(checks)

    def all_chunks() -> Iterator[PlannedChunk]:
        count = 0
        started = time.perf_counter()
        for count, chunk in enumerate(plan.chunks(), start=1):
            pipeline.seconds["plan"] += time.perf_counter() - started
            chunk.turn = count - 1
            yield chunk
            started = time.perf_counter()
        meter.expect(plan.size, count)

    def write(chunk: _EncodedChunk) -> None:
        writer.write(chunk)
        window.leave()
        meter.add(chunk.planned.size)

    def admitted(chunks: Iterable[PlannedChunk]) -> Iterator[PlannedChunk]:
        for chunk in chunks:
            window.enter()
            yield chunk

    jobs = min(jobs, pairs)
    planned = pipeline.stage("plan", _as_it_is, all_chunks())
    if writer.in_order:
        planned = admitted(planned)
    read = pipeline.stage("read", writer.read, with_buffers(planned, chunks), threads=min(jobs, _READERS))
    encoded = pipeline.stage("encode", writer.encode, with_buffers(read, stored), threads=jobs)
    if writer.in_order:
        encoded = in_turn(encoded, lambda chunk: chunk.planned.turn)
    pipeline.stage("write", write, encoded)
    pipeline.run()
    return pipeline.seconds


def _as_it_is(chunk: PlannedChunk) -> PlannedChunk:
    return chunk


@dataclass(slots=True)
class _ReadChunk:
    planned: PlannedChunk
    buffer: Buffer
    content: memoryview  # within `buffer`


@dataclass(slots=True)
class _EncodedChunk:
    planned: PlannedChunk
    buffer: Buffer
    compressor_id: int
    stored: memoryview  # within `buffer`
    digest: bytes  # of `stored`
    extents: list[Extent]  # as many as `planned` has, in the same order


class _SnapshotWriter:
    """The stages of a pack, and what they find out on the way."""

    def __init__(self, plan: Plan, sink: Sink, backend: Backend, digest: Digest) -> None:
        self._plan, self._sink, self.backend, self._digest = plan, sink, backend, digest
        self._checks: BufferPool | None = None
        self._written: dict[int, tuple[ChunkEntry, bytes, str]] = {}  # number -> entry, digest, name of its codec
        self._extents: dict[int, list[Extent]] = defaultdict(list)  # file index -> its extents
        self._lost: dict[int, Problem] = {}  # file index -> why it is not in the snapshot
        self._changed: dict[int, Problem] = {}  # file index -> packed, though it changed meanwhile
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
        small: dict[tuple[int, str], list[PlannedExtent]] = defaultdict(list)  # tree and directory -> whole files
        for extent in chunk.extents:
            file = self._plan.files[extent.file]
            if extent.length == file.entry.size < DIRECT_MINIMUM:
                small[id(file.tree), split(file.relative)[0]].append(extent)
            else:
                self._read_large(file, extent, content)
        for extents in small.values():
            self._read_small(extents, content)
        return _ReadChunk(chunk, buffer, content)

    def _read_large(self, file: SourceFile, extent: PlannedExtent, content: memoryview) -> None:
        out = content[extent.chunk_offset : extent.chunk_offset + extent.length]
        try:
            with file.open() as fd:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    self._lose(extent, content, _NOT_REGULAR)
                elif read_at(fd, extent.file_offset, out) != extent.length:
                    self._lose(extent, content, _SHORT)
                elif not file.unchanged(os.fstat(fd)):
                    self._note_change(extent)
        except OSError as error:
            if is_shortage(error.errno):
                raise
            self._lose(extent, content, error.strerror or str(error))

    def _read_small(self, extents: Sequence[PlannedExtent], content: memoryview) -> None:
        """Reads whole files of one directory."""
        files = [self._plan.files[extent.file] for extent in extents]
        folder = split(files[0].relative)[0]
        wanted = []
        for file, extent in zip(files, extents, strict=True):
            name = split(file.relative)[1]
            scanned = (file.entry.mtime_ns, *file.identity)
            wanted.append(native.OldFile(name, extent.chunk_offset, extent.length, *scanned))
        try:
            with files[0].tree.handles.lease(folder) as directory:
                results = native.read_files(directory, wanted, content)
        except OSError as error:
            results = [error.errno or errno.EIO] * len(extents)
        for extent, result in zip(extents, results, strict=True):
            if is_shortage(result):
                raise OSError(result, os.strerror(result))
            if result == native.CHANGED:
                self._note_change(extent)
            elif result:
                self._lose(extent, content, _READ_PROBLEMS.get(result) or os.strerror(result))

    def _note_change(self, extent: PlannedExtent) -> None:
        path = self._plan.files[extent.file].entry.path
        self._changed.setdefault(extent.file, Problem(path, "changed while it was packed"))

    def _lose(self, extent: PlannedExtent, content: memoryview, reason: str) -> None:
        # Another chunk's bytes may be in the buffer.
        content[extent.chunk_offset : extent.chunk_offset + extent.length] = bytes(extent.length)
        self._lost.setdefault(extent.file, Problem(self._plan.files[extent.file].entry.path, reason))

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
            for extent in planned.extents
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
            self._check(planned.codec, stored, extents, self._checks)
        is_extent = stored is chunk and len(extents) == 1  # whose digest is known already
        digest = extents[0].digest if is_extent else self._digest(stored)
        return _EncodedChunk(planned, buffer, compressor_id, stored, digest, extents)

    def _check(self, codec: Codec, stored: memoryview, extents: Sequence[Extent], checks: BufferPool) -> None:
        """Raises DumontError unless the encoded chunk decodes to the bytes that were read."""
        buffer = checks.acquire()
        content = buffer.view[: extents[-1].chunk_offset + extents[-1].length]
        native.spoil(content)  # or what an earlier chunk left could pass for this one
        with suppress(DamagedError):
            self.backend.decode(codec.id, stored, content)
            if all(self._digest(content[e.chunk_offset : e.chunk_offset + e.length]) == e.digest for e in extents):
                buffer.release()
                return
        raise DumontError(
            f"chunk {extents[0].chunk}: {codec.name} on {self.backend.name} does not give back what it got; "
            "this is a defect of dumont-gpu or of the machine"
        )

    def write(self, chunk: _EncodedChunk) -> None:
        number, size = chunk.planned.number, len(chunk.stored)
        self._sink.write_at(self._end, chunk.stored)
        entry = ChunkEntry(self._end, size, chunk.planned.size, chunk.compressor_id, chunk.digest[:8])
        codec = chunk.planned.codec.name if chunk.compressor_id else RAW.name
        self._written[number] = entry, chunk.digest, codec
        for planned, extent in zip(chunk.planned.extents, chunk.extents, strict=True):
            self._extents[planned.file].append(extent)
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
            changed = self._changed.get(leader)
            if changed is not None:
                found.problems.append(Problem(file.entry.path, changed.reason))
            extents = sorted(self._extents.get(leader, ()), key=lambda extent: extent.file_offset)
            if sum(extent.length for extent in extents) != self._plan.planned.get(leader, 0):
                raise DumontError(f"{printable(file.entry.path)}: an extent is missing; this is a defect of dumont-gpu")
            entries.append(file.entry._replace(extents=tuple(extents), changed=changed is not None))
        return entries

    def _problem(self, index: int) -> Problem | None:
        return self._plan.problems.get(index) or self._lost.get(index)


def _shift(chunk: PlannedChunk) -> int:
    """Where in its buffer a chunk's content starts so that its largest extent can be read directly.

    Chunks that are stored as they are start at 0 instead, so that they can be written directly.
    """
    largest = max(chunk.extents, key=lambda extent: extent.length)
    if chunk.codec.id == RAW.id or largest.length < DIRECT_MINIMUM:
        return 0
    return shift_for(largest.file_offset, largest.chunk_offset)


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


def _shared_bytes(plan: Plan) -> int:
    return sum(plan.files[index].entry.size for index in plan.copies)
