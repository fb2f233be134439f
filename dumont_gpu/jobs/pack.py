"""Packs source trees into a snapshot."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dumont_gpu.backends import select_backend
from dumont_gpu.disk.outputs import Identity, Output
from dumont_gpu.errors import NO_ROOM, DumontError, NoSpaceError, UsageError
from dumont_gpu.format.digests import digest_function
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.format.header import CHUNK_ALIGNMENT, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack_stages import PackStages
from dumont_gpu.jobs.reader_file import beside, check_reader_place, write_reader
from dumont_gpu.jobs.resources import thread_count
from dumont_gpu.plan.equal_parts import repeated_extents
from dumont_gpu.plan.methods import make_method, writes_columns
from dumont_gpu.plan.planner import Plan
from dumont_gpu.plan.rows import row_limits
from dumont_gpu.progress import ProgressCallback
from dumont_gpu.shortages import explain_shortages, is_shortage
from dumont_gpu.sizes import counted
from dumont_gpu.snapshot.writer import SnapshotWriter
from dumont_gpu.storage import STANDARD_STREAM, check_place, open_sink
from dumont_gpu.storage.base import Watched
from dumont_gpu.tree.globs import Patterns, roots_of
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.found import Scan
from dumont_gpu.tree.source.scan import scan


@dataclass(frozen=True, slots=True)
class PackResult:
    """The outcome of a pack. Sizes are bytes."""

    snapshot_path: str
    snapshot_id: str
    original_size: int  # of the regular files
    compressed_size: int  # of the whole snapshot
    num_files: int
    num_chunks: int
    device: str
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)  # busy time, summed over threads
    codec_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)  # codec -> (raw bytes, encoded bytes)
    shared_bytes: int = 0  # raw bytes of files that share stored bytes: of equal files, and equal tensors
    problems: tuple[Problem, ...] = ()  # entries that could not be packed, or changed during the pack
    excluded: int = 0  # entries left out by patterns
    excluded_more: bool = False  # there are more: they were not all counted
    special: int = 0  # sockets, fifos and devices, which are not packed
    unmatched: tuple[str, ...] = ()  # patterns that match nothing
    links_out: tuple[FileEntry, ...] = ()  # symlinks whose target is not packed
    unfinished: tuple[FileEntry, ...] = ()  # unfinished files of this program, which are not packed
    snapshots: tuple[FileEntry, ...] = ()  # packed files that are snapshots themselves
    notes: tuple[str, ...] = ()  # the sink's messages for the user

    @property
    def ratio(self) -> float:
        """Original size over compressed size."""
        return self.original_size / self.compressed_size if self.compressed_size else 1.0


@dataclass(frozen=True, slots=True)
class PackPlan:
    """The forecast of a pack, for `-n`; fields as in `PackResult`. Sizes are bytes."""

    original_size: int
    num_files: int
    num_chunks: int
    codec_bytes: dict[str, int]  # codec -> raw bytes
    shared_bytes: int  # without those of small files that are rows: nobody has read them
    problems: tuple[Problem, ...]
    excluded: int
    excluded_more: bool  # there are more: they were not all counted
    special: int
    unmatched: tuple[str, ...]
    links_out: tuple[FileEntry, ...] = ()
    unfinished: tuple[FileEntry, ...] = ()
    snapshots: tuple[FileEntry, ...] = ()


@explain_shortages()
def pack(
    sources: Sequence[str], output: str, options: PackOptions | None = None, progress: ProgressCallback | None = None
) -> PackResult:
    """Packs `sources` into a snapshot at `output`, which appears there complete or not at all.

    Files that cannot be read do not end the pack: the result's `problems` list them. An empty selection is such a
    problem, too.

    Args:
        sources: a directory, whose entries stand at the snapshot's root; or files and directories under their names.
        output: path or address of the snapshot; "-" for standard output, which gets a stream.
        progress: called as chunks are written.

    Raises:
        SnapshotNotFoundError: a source does not exist.
        UsageError: the options make no sense, or `output` must not be replaced: a source, a file of a source, or
            (without `force`) a file that is no snapshot.
        NoSpaceError: the disk of `output` is full.
        DumontError: the snapshot cannot be completed for another reason.
    """
    options = _checked(options or PackOptions(), sources)
    started = time.monotonic()
    exclude = _patterns(options, sources)
    existing = check_place(output, sources, force=options.force)
    if options.with_reader and output == STANDARD_STREAM:
        raise UsageError("--with-reader puts a file beside the snapshot, and a stream has no place")
    if options.with_reader:
        check_reader_place(beside(output), options.network)
    with closing(select_backend(options.device, thread_count(options.jobs), options.gpu_memory)) as backend:
        sink = open_sink(output, options.network, force=options.force)
        try:
            with closing(_scan(sources, options, exclude, sink.files, existing)) as found:
                unmatched = exclude.unmatched()  # raises for a malformed pattern, before any work
                plan = _plan(found, options)
                columns = writes_columns(options.method)
                writer = SnapshotWriter(sink, plan.max_chunks, options.digest, options.chunk_size, columns=columns)
                if sink.parts is not None:
                    sink.parts.fit(writer.largest_size(plan.size))
                stages = PackStages(
                    plan,
                    writer,
                    backend,
                    options,
                    in_order=sink.parts is not None,
                    cancel=sink.cancel,
                    watch=sink.watch if isinstance(sink, Watched) else None,
                )
                seconds = stages.run(progress)
                entries = stages.files.entries(found)
                header, size = writer.finish(entries, found.root, options.method)
            sink.commit(size)
            if options.with_reader:
                write_reader(beside(output), options.network)
        except OSError as error:
            if is_shortage(error.errno):  # the machine's fault, not the output's
                raise
            raise _failure(error, sink.location) from error
        finally:
            sink.abort(sys.exc_info()[1])
    return PackResult(
        snapshot_path=sink.location,
        snapshot_id=header.snapshot_id,
        original_size=header.total_size_original,
        compressed_size=size,
        num_files=header.num_files,
        num_chunks=header.num_chunks,
        device=backend.name,
        seconds=time.monotonic() - started,
        stage_seconds=seconds,
        codec_bytes=writer.codec_bytes,
        shared_bytes=_shared_bytes(plan) + stages.shared_bytes,
        problems=tuple(found.problems),
        excluded=found.excluded,
        excluded_more=found.excluded_more,
        special=found.special,
        unmatched=unmatched,
        links_out=tuple(found.links_out),
        unfinished=tuple(found.unfinished),
        snapshots=_snapshots(plan),
        notes=sink.notes,
    )


@explain_shortages()
def plan_pack(sources: Sequence[str], options: PackOptions | None = None, output: str | None = None) -> PackPlan:
    """Scans and plans without writing anything. Raises as `pack` does; checks `output` only if the caller names it."""
    options = _checked(options or PackOptions(), sources)
    existing = None if output is None else check_place(output, sources, force=options.force, network=options.network)
    if output is not None and options.with_reader:
        check_reader_place(beside(output), options.network)
    select_backend(options.device).close()
    exclude = _patterns(options, sources)
    replaced = existing.identities if existing else frozenset()
    with closing(_scan(sources, options, exclude, replaced, existing)) as found:
        unmatched = exclude.unmatched()
        plan = _plan(found, options)
        chunks = list(plan.chunks())
        repeated = (
            repeated_extents(found.files, chunks, thread_count(options.jobs)) if plan.align_tensors else frozenset()
        )
    sizes = [chunk.size - sum(extent.length for extent in chunk.extents if extent in repeated) for chunk in chunks]
    codec_bytes: dict[str, int] = defaultdict(int)
    for chunk, size in zip(chunks, sizes, strict=True):
        codec_bytes[chunk.codec.name] += size
    return PackPlan(
        original_size=found.size,
        num_files=found.num_entries,
        num_chunks=sum(size > 0 for size in sizes),
        codec_bytes={name: size for name, size in codec_bytes.items() if size},
        shared_bytes=_shared_bytes(plan) + sum(extent.length for extent in repeated),
        problems=(*found.problems, *plan.problems.values()),
        excluded=found.excluded,
        excluded_more=found.excluded_more,
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
    return Patterns(options.exclude, roots_of(names, lambda source, name: os.path.lexists(os.path.join(source, name))))


def _scan(
    sources: Sequence[str],
    options: PackOptions,
    exclude: Patterns,
    leave_out: frozenset[Identity],
    existing: Output | None,
) -> Scan:
    found = scan(
        sources,
        exclude.excludes if exclude else None,
        small=row_limits(options.chunk_size) if writes_columns(options.method) else None,
        leave_out=leave_out,
        output=existing,
        follow_outside=options.follow_outside,
        with_owner=options.owner,
    )
    if found.is_empty:
        found.problems.append(Problem(".", f"nothing was left to pack: {_why_empty(found)}"))
    return found


def _plan(found: Scan, options: PackOptions) -> Plan:
    method = make_method(options.method, options.link, options.level)
    return Plan(found.files, method, options.chunk_size, thread_count(options.jobs), found.small)


def _why_empty(found: Scan) -> str:
    reasons = (
        (found.excluded, "entry left out by patterns", "entries left out by patterns"),
        (found.special, "socket, fifo or device", "sockets, fifos or devices"),
        (len(found.unfinished), "unfinished file of dumont-gpu", "unfinished files of dumont-gpu"),
    )
    return ", ".join(counted(*reason) for reason in reasons if reason[0]) or "the source is empty"


def _checked(options: PackOptions, sources: Sequence[str]) -> PackOptions:
    make_method(options.method)
    digest_function(options.digest)
    if not sources or not all(sources):
        raise UsageError(f"nothing to pack: {'a source without a name' if sources else 'name at least one source'}")
    if not MIN_CHUNK_SIZE <= options.chunk_size <= MAX_CHUNK_SIZE or options.chunk_size % CHUNK_ALIGNMENT:
        raise UsageError("the chunk size must be a multiple of 4KiB between 4KiB and 1GiB")
    return options


def _failure(error: OSError, output: str) -> DumontError:
    if error.errno in NO_ROOM:
        return NoSpaceError(f"{output}: no room for the snapshot: {error.strerror}")
    return DumontError(f"{output}: {error.strerror or error}")


def _snapshots(plan: Plan) -> tuple[FileEntry, ...]:
    """Returns the packed files that are snapshots themselves: often older snapshots that nobody wanted to pack."""
    alike = plan.snapshots | {index for index, leader in plan.copies.items() if leader in plan.snapshots}
    return tuple(plan.files[index].entry for index in sorted(alike))


def _shared_bytes(plan: Plan) -> int:
    return sum(plan.files[index].entry.size for index in plan.copies)
