"""Brings a snapshot back as a tree."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu.backends import Backend, select_backend
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.codecs import Raw
from dumont_gpu.disk.direct_io import ALIGNMENT, DIRECT_MINIMUM, shift_for
from dumont_gpu.errors import DamagedError, DumontError, NoSpaceError, UsageError
from dumont_gpu.format.digests import Digest
from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.resources import chunk_pairs, default_jobs, default_memory
from dumont_gpu.jobs.resume import altered, remaining
from dumont_gpu.pipeline import Channel, Pipeline, Trace
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.shortages import shortage, told
from dumont_gpu.sizes import KiB, align_up
from dumont_gpu.snapshot.reader import (
    Snapshot,
    SnapshotIndex,
    open_snapshot,
    parallel_reads,
    read_index,
    read_into,
    read_manifest,
    read_snapshot,
)
from dumont_gpu.storage import Source, open_source
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.selection import Selection, select_tree
from dumont_gpu.tree.target.existing import OVERWRITE_CHOICES
from dumont_gpu.tree.target.journal import NAMES, Journal
from dumont_gpu.tree.target.place import PlaceOptions, TreeWriter
from dumont_gpu.tree.target.target import check_creatable, is_empty

RAW: Final = Raw()
_TO_BE_MENDED: Final = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ELOOP, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip
_PLACE_THREADS: Final = 2  # one writes while another waits for the disk
_COST_OF_FILE: Final = 64 * KiB  # creating one takes as long as handling so many bytes


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did. Sizes are bytes."""

    snapshot_path: str
    snapshot_id: str
    target_path: str
    original_size: int  # of the restored files
    compressed_size: int  # stored bytes of the chunks they need
    num_files: int  # entries restored, directories and links included
    num_chunks: int
    resumed: bool  # it went on with an interrupted restore
    resumed_chunks: int  # that were in their files already
    fetched_size: int  # stored bytes of the other chunks, which this run read
    kept: int  # entries of the target left as they were
    unmatched: tuple[str, ...]  # patterns that match nothing
    altered: int  # files that looked as if they could be kept, but had other content: restored anew (with `verify`)
    copied_links: int  # hard links that became files of their own, as the target has no hard links
    ignored: tuple[str, ...]  # "modes", "times": what the target's file system does not keep
    problems: tuple[Problem, ...]  # entries that are not in the target, or not as they were in the snapshot
    verified: bool  # the content of every file was checked, beyond the stored bytes; kept ones included
    verified_size: int  # bytes of files whose content was checked
    changed_files: tuple[str, ...]  # files that changed while they were packed: theirs may be bytes of two moments
    device: str
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.original_size / self.compressed_size if self.compressed_size else 1.0


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore would do, for `-n`. Sizes are bytes."""

    entries: tuple[FileEntry, ...]  # that it would restore
    original_size: int
    compressed_size: int
    num_chunks: int
    unmatched: tuple[str, ...]
    resumed: bool  # it would go on with an interrupted restore
    new: tuple[str, ...]  # paths of files and links that would be written where nothing is
    replaced: tuple[str, ...]  # paths of files and links of the target that would be written over
    kept: int  # entries of the target that would stay as they are
    fetched_size: int  # stored bytes that would be read


@dataclass(frozen=True, slots=True)
class _Work:
    """What a restore has to do, once the target is known."""

    entries: list[FileEntry]  # that it restores
    todo: list[FileEntry]  # of these, what an interrupted run has not written; files with the extents they lack
    altered: int
    seconds: dict[str, float]


@told()
def restore(
    source: str | Source,
    target: str,
    options: RestoreOptions | None = None,
    progress: ProgressCallback | None = None,
    trace: Trace | None = None,
) -> RestoreResult:
    """Restores a snapshot, or the part of it that `options` select, under `target`.

    After an interruption, the same call goes on from what is there. `trace` is told when which stage worked on a chunk.
    What one entry cannot be here (a name, a link, an owner) is in the result's `problems`; the others are restored.

    Raises:
        SnapshotNotFoundError: nothing is at `source`.
        DamagedError, UnsupportedError: the snapshot cannot be used; nothing wrong was written as right.
        UsageError: the target is not empty, and `options.overwrite` does not say what to do; or it holds what another
            restore has begun.
        NoSpaceError: the target has too little room.
        DumontError: anything else that keeps the tree from being complete.
    """
    options = _checked(options or RestoreOptions(), target)
    started = time.monotonic()
    backend = select_backend(options.device, _jobs(options), options.gpu_memory)
    opened = open_source(source, options.network) if isinstance(source, str) else source
    writer: TreeWriter | None = None
    try:
        index = read_index(opened, options.expect)
        with Pipeline(cancel=opened.cancel, trace=trace) as pipeline:
            job = _RestoreJob(index, backend, options, pipeline)
            manifest = read_manifest(index)  # before the chunks: a slow link brings them for a long time
            if _needs_every_chunk(target, options):
                job.fetch_ahead()
            snapshot = open_snapshot(index, manifest)
            selected, unmatched = _select(snapshot, options, target)
            writer = _open_target(target, snapshot, options)
            try:
                work = _plan_work(selected, snapshot, writer, options, progress)
                job.plan(snapshot, _files(work.todo))
                if work.todo:
                    writer.check_writable()
                _check_bounds(job.decoded_size, job.files, options, writer.statvfs(), target)
                if work.todo:
                    writer.begin()
                job.decode()
                writer.prepare(work.todo)
                files = _files(work.entries)  # what the result says of them, while chunks are on their way
                needed = {extent.chunk for file in files for extent in file.extents}
                seconds = work.seconds | job.place(writer, progress)
                writer.finish()
            finally:
                writer.close()
    except OSError as error:
        raise _failure(error, target, writer) from error
    finally:
        backend.close()
        if isinstance(source, str):
            opened.close()
    restored = writer.refusals.present(work.entries)
    size = sum(file.size for file in restored)
    unchecked = options.overwrite == "never" and bool(writer.kept_files)
    return RestoreResult(
        snapshot_path=opened.location,
        snapshot_id=snapshot.id,
        target_path=target,
        original_size=size,
        compressed_size=sum(snapshot.chunks[chunk].size_compressed for chunk in needed),
        num_files=len(restored),
        num_chunks=len(needed),
        resumed=writer.resumed,
        resumed_chunks=len(needed) - len(job.chunks),
        fetched_size=job.stored_size,
        kept=writer.kept,
        unmatched=unmatched,
        altered=work.altered,
        copied_links=writer.copied_links,
        ignored=tuple(sorted(writer.refusals.ignored)),
        problems=writer.refusals.problems,
        verified=options.verify and not unchecked,
        verified_size=size + (0 if unchecked else sum(file.size for file in writer.kept_files))
        if options.verify
        else 0,
        changed_files=tuple(file.path for file in files if file.changed),
        device=backend.name,
        seconds=time.monotonic() - started,
        stage_seconds=seconds,
    )


def plan_restore(source: str | Source, options: RestoreOptions | None = None, target: str | None = None) -> RestorePlan:
    """Reads the table of contents, looks at the target, and says what a restore would do; writes nothing.

    Args:
        target: None: a directory that is not there.

    Raises as `restore` does.
    """
    options = _checked(options or RestoreOptions(), target)
    select_backend(options.device).close()
    opened = open_source(source, options.network) if isinstance(source, str) else source
    writer: TreeWriter | None = None
    status: os.statvfs_result | None = None
    try:
        snapshot = read_snapshot(opened, options.expect)
        selected, unmatched = _select(snapshot, options, target)
        if target is not None and os.path.lexists(target):
            writer = _open_target(target, snapshot, options, read_only=True)
            work = _plan_work(selected, snapshot, writer, options)
            status = writer.statvfs()
        else:
            work = _Work(selected, selected, 0, {})
            if target is not None:
                status = os.statvfs(check_creatable(target))
        todo, chunks = _files(work.todo), snapshot.chunks
        fetched = {extent.chunk for file in todo for extent in file.extents}
        if status is not None:
            if writer is not None and work.todo:
                writer.check_writable()
            size = sum(chunks[chunk].size_original for chunk in fetched)
            _check_bounds(size, todo, options, status, target or "")
    except OSError as error:
        raise _failure(error, target or opened.location, None) from error
    finally:
        if writer is not None:
            writer.close()
        if isinstance(source, str):
            opened.close()
    needed = {extent.chunk for entry in work.entries for extent in entry.extents}
    replaced = tuple(writer.replaced) if writer is not None else ()
    there = set(replaced)
    return RestorePlan(
        entries=tuple(work.entries),
        original_size=sum(entry.size for entry in work.entries),
        compressed_size=sum(chunks[chunk].size_compressed for chunk in needed),
        num_chunks=len(needed),
        unmatched=unmatched,
        resumed=writer is not None and writer.resumed,
        new=tuple(entry.path for entry in work.todo if entry.type is not EntryType.DIR and entry.path not in there),
        replaced=replaced,
        kept=writer.kept if writer is not None else 0,
        fetched_size=sum(chunks[chunk].size_compressed for chunk in fetched),
    )


def _failure(error: OSError, target: str, writer: TreeWriter | None) -> DumontError:
    """Says what went wrong, what there is now, and what to do."""
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else target
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    message = f"{place}: {'the disk is full' if full else shortage(error) or error.strerror or error}"
    if writer is not None and writer.target.complete:
        message += "; every entry is restored, but the time of the target itself or its last sync may be missing"
    elif writer is not None and writer.target.begun:
        when = ": once that is mended" if error.errno in _TO_BE_MENDED else ""
        message += f"; the restore is incomplete{when}, the same command goes on"
    return NoSpaceError(message) if full else DumontError(message)


def _checked(options: RestoreOptions, target: str | None) -> RestoreOptions:
    if target == "":
        raise UsageError("the target has no name")
    if options.overwrite not in (*OVERWRITE_CHOICES, "refuse"):
        raise UsageError(f"--overwrite {options.overwrite}: choose one of {', '.join(OVERWRITE_CHOICES)}")
    return options


def _jobs(options: RestoreOptions) -> int:
    return options.jobs or default_jobs()


def _open_target(target: str, snapshot: Snapshot, options: RestoreOptions, *, read_only: bool = False) -> TreeWriter:
    place = PlaceOptions(options.overwrite, options.preserve_special, options.owner, options.sync)
    names = {entry.path for entry in snapshot.manifest.entries if entry.path.startswith(NAMES)}
    return TreeWriter(target, place, _journal(snapshot, options), snapshot.manifest.root, names, read_only=read_only)


def _journal(snapshot: Snapshot, options: RestoreOptions) -> Journal:
    """Identifies the restore: the same command goes on with what an interrupted one left, any other does not."""
    patterns = [_in_order(options.include), _in_order(options.exclude)]
    selection = [*patterns, options.owner, options.preserve_special]
    return Journal(snapshot.id, hashlib.sha256(json.dumps(selection).encode()).hexdigest())


def _in_order(patterns: Sequence[str]) -> list[str]:
    """The patterns as they count: their order does only where one takes back what another names."""
    return list(patterns) if any(pattern.startswith("!") for pattern in patterns) else sorted(patterns)


def _files(entries: Sequence[FileEntry]) -> list[FileEntry]:
    return [entry for entry in entries if entry.type is EntryType.FILE]


def _plan_work(
    selected: list[FileEntry],
    snapshot: Snapshot,
    writer: TreeWriter,
    options: RestoreOptions,
    progress: ProgressCallback | None = None,
) -> _Work:
    """Finds out what there is to do in this target, without changing it: for a restore, and for `-n`."""
    jobs, memory = _jobs(options), options.memory or default_memory()
    entries = writer.resolve(selected)
    seconds = 0.0
    wrong: set[str] = set()
    if options.verify and options.overwrite == "if-changed" and writer.kept_files:
        wrong, seconds = altered(writer.kept_files, writer, snapshot.digest, jobs, memory, progress)
        if wrong:
            entries = writer.resolve(selected, wrong)
    todo = entries
    if writer.resumed:
        rest, again = remaining(_files(entries), writer, snapshot.digest, jobs, memory, progress)
        remains = {entry.path: entry for entry in rest}
        left = (remains.get(entry.path) if entry.type is EntryType.FILE else entry for entry in entries)
        todo, seconds = [entry for entry in left if entry is not None], seconds + again
    checked = writer.resumed or seconds
    return _Work(entries, todo, len(wrong), {"check": seconds} if checked else {})


def _needs_every_chunk(target: str, options: RestoreOptions) -> bool:
    """Whether that is certain before the manifest is read: nothing is left out, and nothing can be there already."""
    if options.include or options.exclude:
        return False
    try:
        return is_empty(target)
    except OSError as error:
        return error.errno == errno.ENOENT


def _select(snapshot: Snapshot, options: RestoreOptions, target: str | None) -> Selection:
    """The entries that include and exclude patterns leave, with the directories they lie in."""
    selection = select_tree(snapshot.manifest.entries, options.include, options.exclude, target)
    size = sum(entry.size for entry in selection.entries)
    if size > options.max_size:
        raise DumontError(
            f"{snapshot.source.location}: the files are said to have {size} bytes; --max-size {size} allows it"
        )
    return selection


def _check_bounds(
    decoded_size: int, files: Sequence[FileEntry], options: RestoreOptions, status: os.statvfs_result, target: str
) -> None:
    """Refuses what would decode without end, or fill the disk; `status` is that of the target's file system."""
    if decoded_size > options.max_size:
        raise DumontError(f"the chunks decode to {decoded_size} bytes; --max-size {decoded_size} allows it")
    needed = sum(align_up(extent.length, status.f_frsize) for file in files for extent in file.extents)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and needed > free:
        raise NoSpaceError(f"{target}: {needed} bytes are needed, {free} are free: {needed - free} are missing")


@dataclass(slots=True)
class _LoadedChunk:
    number: int
    buffer: Buffer
    content: memoryview  # within `buffer`


class _RestoreJob:
    """The stages of a restore: fetch, check and decode, place. Each begins as soon as is known what it needs.

    >>> job.fetch_ahead()      # if every chunk is needed: the first ones come while the manifest is parsed
    >>> job.plan(snapshot, files)
    >>> job.decode()           # they are decoded while directories are created
    >>> job.place(writer, progress)
    """

    def __init__(self, index: SnapshotIndex, backend: Backend, options: RestoreOptions, pipeline: Pipeline) -> None:
        self._source, self._entries = index.source, index.chunks
        self._backend, self.options, self._pipeline = backend, options, pipeline
        self._jobs = _jobs(options) + backend.extra_jobs
        self._wanted: Channel[int] = pipeline.items(capacity=len(index.chunks))  # chunks, in the order to fetch them
        self._ahead: Sequence[int] = ()
        self._stored: BufferPool | None = None
        self._fetched: Iterable[_LoadedChunk] = ()

    def fetch_ahead(self) -> None:
        """Begins to fetch the first chunks, as many as memory holds, before anything is known about them."""
        numbers = range(len(self._entries))
        stored = self._begin(numbers)
        self._ahead = numbers[: stored.count]
        for number in self._ahead:
            self._wanted.put(number)

    def plan(self, snapshot: Snapshot, files: Sequence[FileEntry]) -> None:
        """Finds out which chunks `files` need."""
        self._snapshot, self.files = snapshot, files
        self._places = places_by_chunk(files)
        self.chunks = sorted(self._places, key=self._cost, reverse=True)
        self.stored_size = sum(self._entries[number].size_compressed for number in self.chunks)
        self.decoded_size = sum(self._entries[number].size_original for number in self.chunks)

    def decode(self) -> None:
        """Begins to fetch the other chunks and to decode all of them."""
        stored = self._stored or self._begin(self.chunks)
        for number in self.chunks:
            if number not in self._ahead:
                self._wanted.put(number)
        self._wanted.finish()
        contents = BufferPool(stored.count, stored.size, self._backend.pin)
        self._pipeline.add_pools(contents)
        self._decoded = self._pipeline.stage(
            "decode", self._decode, with_buffers(self._fetched, contents), threads=min(self._jobs, contents.count)
        )
        self._pipeline.start()

    def place(self, writer: TreeWriter, progress: ProgressCallback | None) -> dict[str, float]:
        """Moves every chunk into its files; returns busy seconds by stage."""
        meter = Meter(progress, "restore", self.decoded_size, len(self.chunks))

        def place(chunk: _LoadedChunk) -> None:
            self._place(chunk, writer)
            meter.add(self._entries[chunk.number].size_original)

        self._pipeline.stage("place", place, self._decoded, threads=_PLACE_THREADS)
        self._pipeline.run()
        return self._pipeline.seconds

    def _begin(self, numbers: Sequence[int]) -> BufferPool:
        """Starts the threads that fetch, into buffers that hold any of these chunks."""
        largest = max((self._entries[number].size_original for number in numbers), default=1)
        self._backend.prepare(largest, decode=True)
        pairs = chunk_pairs(self.options.memory, largest, self._jobs, others=2 if self._source.remote else 1)
        self._stored = BufferPool(pairs, largest + ALIGNMENT, self._backend.pin)
        self._pipeline.add_pools(self._stored)
        self._fetched = self._pipeline.stage(
            "fetch", self._fetch, with_buffers(self._wanted, self._stored), threads=parallel_reads(self._source)
        )
        self._pipeline.start()
        return self._stored

    def _cost(self, number: int) -> int:
        """What takes long comes first, so that the threads end together, soon after the last byte has come."""
        return self._entries[number].size_original + _COST_OF_FILE * len(self._places[number])

    def _fetch(self, item: tuple[int, Buffer]) -> _LoadedChunk:
        number, buffer = item
        entry = self._entries[number]
        shift = self._shift(number) if entry.compressor_id == RAW.id and number not in self._ahead else 0
        stored = buffer.view[shift : shift + entry.size_compressed]
        read_into(self._source, entry.offset, stored)
        return _LoadedChunk(number, buffer, stored)

    def _decode(self, item: tuple[_LoadedChunk, Buffer]) -> _LoadedChunk | None:
        chunk, spare = item
        if chunk.number not in self._places:  # fetched ahead, but no file is in it
            chunk.buffer.release()
            spare.release()
            return None
        try:
            return self._check_and_decode(chunk, spare)
        except DamagedError as error:
            raise DamagedError(f"{self._source.location}: chunk {chunk.number}: {error}") from None

    def _check_and_decode(self, chunk: _LoadedChunk, spare: Buffer) -> _LoadedChunk:
        entry = self._entries[chunk.number]
        self._snapshot.check_chunk(chunk.number, chunk.content)
        if entry.compressor_id == RAW.id and len(chunk.content) == entry.size_original:
            spare.release()
        else:
            shift = self._shift(chunk.number)
            content = spare.view[shift : shift + entry.size_original]
            self._backend.decode(entry.compressor_id, chunk.content, content)
            chunk.buffer.release()
            chunk = _LoadedChunk(chunk.number, spare, content)
        if self.options.verify:
            check_content(chunk.content, self._places[chunk.number], self._snapshot.digest)
        return chunk

    def _place(self, chunk: _LoadedChunk, writer: TreeWriter) -> None:
        small: dict[str, list[tuple[FileEntry, int]]] = defaultdict(list)  # directory -> whole files, offsets in chunk
        for file, extents in self._places[chunk.number]:
            if extents[0].length == file.size < DIRECT_MINIMUM:
                small[split(file.path)[0]].append((file, extents[0].chunk_offset))
                continue
            pieces = [
                (extent.file_offset, chunk.content[extent.chunk_offset : extent.chunk_offset + extent.length])
                for extent in extents
            ]
            writer.write(file, pieces)
        for folder, files in small.items():
            writer.write_small(folder, files, chunk.content)
        chunk.buffer.release()

    def _shift(self, number: int) -> int:
        """Where in its buffer the chunk's content must start so that its largest extent can be written directly."""
        extents = (extent for _, extents in self._places[number] for extent in extents)
        largest = max(extents, key=lambda extent: extent.length)
        return shift_for(largest.file_offset, largest.chunk_offset) if largest.length >= DIRECT_MINIMUM else 0


def places_by_chunk(files: Sequence[FileEntry]) -> dict[int, list[tuple[FileEntry, list[Extent]]]]:
    """Maps each chunk that `files` need to what lies in it: files, and their extents there in file order."""
    places: dict[int, list[tuple[FileEntry, list[Extent]]]] = defaultdict(list)
    for file in files:
        by_chunk: dict[int, list[Extent]] = {}
        for extent in file.extents:
            by_chunk.setdefault(extent.chunk, []).append(extent)
        for chunk, extents in by_chunk.items():
            places[chunk].append((file, extents))
    return places


def check_content(content: memoryview, places: Sequence[tuple[FileEntry, Sequence[Extent]]], digest: Digest) -> None:
    """Checks every extent within one decoded chunk; what several files share is hashed once.

    Raises:
        DamagedError: a file's bytes are not those that were packed.
    """
    digests: dict[tuple[int, int], bytes] = {}
    for file, extents in places:
        for extent in extents:
            key = extent.chunk_offset, extent.length
            if key not in digests:
                digests[key] = digest(content[key[0] : key[0] + key[1]])
            if digests[key] != extent.digest:
                raise DamagedError(f"{printable(file.path)}: its content does not match its digest")
