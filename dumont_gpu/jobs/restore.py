"""Restores a snapshot, or a part of it, as a file tree."""

from __future__ import annotations

import errno
import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu.backends import select_backend
from dumont_gpu.columns.views import count_types
from dumont_gpu.errors import DumontError, LostFile, NoSpaceError, UsageError
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.resources import thread_count
from dumont_gpu.jobs.restore_plan import (
    RestorePlan,
    make_plan,
    open_target,
    plan_new_target,
    select_entries,
    target_options,
)
from dumont_gpu.jobs.restore_stages import RestoreStages
from dumont_gpu.pipeline import Pipeline, Trace
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.shortages import explain_shortages, shortage
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.inside import Place, part_of_snapshot, place_of
from dumont_gpu.snapshot.reader import (
    SnapshotIndex,
    in_columns,
    open_snapshot,
    opened_source,
    read_index,
    read_manifest,
    read_snapshot,
)
from dumont_gpu.storage import Source
from dumont_gpu.storage.base import Watched
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.target.options import OVERWRITE_CHOICES
from dumont_gpu.tree.target.target import Target, is_empty
from dumont_gpu.tree.target.writer import filling

_LARGE_MANIFEST: Final = 1 * MiB  # seconds at 1 MB/s
_USER_CAN_FIX: Final = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ELOOP, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """The outcome of a restore. Sizes are bytes."""

    snapshot_path: str
    inside: str  # path of the part of the snapshot that was restored; "": all of it
    snapshot_id: str
    target_path: str
    original_size: int  # of the restored files
    compressed_size: int  # encoded bytes of the chunks that hold them
    num_files: int  # entries restored, directories and links included
    num_chunks: int
    resumed: bool  # the restore continued an interrupted one
    resumed_chunks: int  # chunks whose bytes an interrupted run had written
    fetched_size: int  # encoded bytes of the other chunks, which this run fetched
    already_there: bool  # every entry was in the target before: nothing was written
    entries: dict[str, int]  # how many of them are files, directories, links: by the format's names
    newer: tuple[str, ...]  # files that were written over though they were newer than the snapshot's
    kept: int  # entries of the target left as they were
    unmatched: tuple[str, ...]  # patterns that match nothing
    left_out: int  # files and links whose path `strip` leaves no name
    altered: int  # files of the right size and time but other content: restored anew (with `verify`)
    copied_links: int  # hard links restored as copies, because the target's file system has no hard links
    ignored: tuple[str, ...]  # "modes", "times": metadata that the target's file system does not keep
    problems: tuple[Problem, ...]  # entries that are not in the target, or differ from the snapshot
    lost: tuple[LostFile, ...]  # files that damaged chunks hold, with `keep_going`; they are among the problems, too
    verified: bool  # the content of every file, kept files included, was checked against the file's own digests
    verified_size: int  # bytes of files whose content was checked
    changed_files: tuple[str, ...]  # files that changed while they were packed: they may mix bytes of two moments
    device: str
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)  # busy time, summed over threads

    @property
    def ratio(self) -> float:
        """Original size over compressed size."""
        return self.original_size / self.compressed_size if self.compressed_size else 1.0


@explain_shortages()
def restore(
    source: str | Source,
    target: str,
    options: RestoreOptions | None = None,
    progress: ProgressCallback | None = None,
    trace: Trace | None = None,
    *,
    inside: str = "",
) -> RestoreResult:
    """Restores a snapshot, or the part of it that `options` select, under `target`.

    After an interruption, the same call continues from the files that are there. If the file system cannot hold an
    entry as the snapshot has it (a name, a link, an owner), the result's `problems` list the entry; all other entries
    are restored.

    Args:
        source: path or address of a snapshot, perhaps with `:path` of a part of it; "-" for standard input; or an open
            source, which stays open.
        target: path of a directory; created if it does not exist.
        progress: called as bytes come and are written.
        trace: called with the begin and end of each stage's work on a chunk.
        inside: with an open source, the path of the part to restore; "": all of it.

    Raises:
        SnapshotNotFoundError: nothing is at `source`, or the snapshot has no such part.
        DamagedError: the snapshot contradicts itself. No damaged byte is in a file that looks complete. With
            `options.keep_going`, damaged chunks are no error: the files that they hold are in the result's `lost`.
        UnsupportedError: the snapshot needs a newer dumont-gpu.
        UsageError: the target is neither empty nor complete and `options.overwrite` is "refuse", or the target holds an
            unfinished restore of another snapshot or selection.
        NoSpaceError: the target has too little room.
        DumontError: the tree is incomplete for another reason.
    """
    options = _checked(options or RestoreOptions(), target)
    started = time.monotonic()
    place = place_of(source) if isinstance(source, str) else Place("", inside)
    with (
        closing(select_backend(options.device, thread_count(options.jobs), options.gpu_memory)) as backend,
        opened_source(place.location or source, options.network, target) as opened,
        _Failures(target) as failures,
        Pipeline(cancel=opened.cancel, trace=trace) as pipeline,
    ):
        index = read_index(opened, options.expect)
        stages = RestoreStages(index, backend, options, pipeline, progress)
        _watch_manifest(index, progress)
        manifest = read_manifest(index)  # before the chunks: over a slow link, they would delay the manifest
        if not place.inside and _needs_every_chunk(target, options):
            stages.fetch_ahead()
        snapshot = part_of_snapshot(in_columns(open_snapshot(index, manifest)), place.inside)
        del manifest  # dozens of megabytes, where there are a million entries
        selected = select_entries(snapshot, options, target)
        with open_target(target, snapshot, selected, options) as tree:
            failures.target = tree
            plan = make_plan(snapshot, selected, tree, options, progress)
            root = None if options.strip else snapshot.manifest.root
            with filling(tree, plan.tree, target_options(options), root) as writer:
                decoded = stages.decode(plan)
                files = writer.make_directories()  # while chunks are fetched and decoded
                needed, changed = plan.needed_chunks, plan.changed_files
                stage_seconds = stages.write(decoded, plan, files)
                lost: list[LostFile] = []
                if stages.damage is not None:
                    lost = stages.damage.lost_files(plan.tree.todo, len(snapshot.chunks))
                    needed -= set(stages.damage.chunks)
                for path, chunk in lost:
                    writer.lose(path, f"lost: chunk {chunk} is damaged")
    restored = writer.refusals.present(plan.entries)
    size = restored.total_size()
    kept_files = plan.tree.decision.kept_files
    unchecked = options.overwrite == "never" and bool(kept_files)
    kept_size = 0 if unchecked else sum(file.size for file in kept_files)
    checks = {} if plan.check_seconds is None else {"check": plan.check_seconds}
    return RestoreResult(
        snapshot_path=opened.location,
        inside=snapshot.inside,
        snapshot_id=snapshot.id,
        target_path=target,
        original_size=size,
        compressed_size=sum(snapshot.chunks[chunk].size_compressed for chunk in needed),
        num_files=len(restored),
        num_chunks=len(needed),
        resumed=plan.resumed,
        resumed_chunks=len(needed) - len(plan.placement),
        fetched_size=plan.fetched_size,
        already_there=plan.already_there,
        entries={kind.value: count for kind, count in count_types(restored).items()},
        newer=plan.newer,
        kept=plan.kept,
        unmatched=plan.unmatched,
        left_out=plan.left_out,
        altered=plan.altered,
        copied_links=writer.copied_links,
        ignored=tuple(sorted(writer.refusals.ignored)),
        problems=writer.refusals.problems,
        lost=tuple(lost),
        verified=options.verify and not unchecked,
        verified_size=size + kept_size if options.verify else 0,
        changed_files=changed,
        device=backend.name,
        seconds=time.monotonic() - started,
        stage_seconds=checks | stage_seconds,
    )


def plan_restore(
    source: str | Source, options: RestoreOptions | None = None, target: str | None = None, *, inside: str = ""
) -> RestorePlan:
    """Reads the table of contents, looks at the target, and returns the plan of a restore; writes nothing.

    Raises as `restore` does.

    Args:
        source: as for `restore`.
        target: as for `restore`; None plans for a directory that does not exist.
        inside: as for `restore`.
    """
    options = _checked(options or RestoreOptions(), target)
    select_backend(options.device).close()
    place = place_of(source) if isinstance(source, str) else Place("", inside)
    with (
        opened_source(place.location or source, options.network, target) as opened,
        _Failures(target or opened.location),
    ):
        snapshot = part_of_snapshot(in_columns(read_snapshot(opened, options.expect)), place.inside)
        selected = select_entries(snapshot, options, target)
        if target is None or not os.path.lexists(target):
            return plan_new_target(snapshot, selected, target, options)
        with open_target(target, snapshot, selected, options, read_only=True) as tree:
            return make_plan(snapshot, selected, tree, options)


def _watch_manifest(index: SnapshotIndex, progress: ProgressCallback | None) -> None:
    """Shows how a large table of contents comes over a link; a small one is there at once."""
    size = index.header.manifest_size
    if size >= _LARGE_MANIFEST and isinstance(index.source, Watched):
        index.source.watch(Meter(progress, "contents", 0, 0, size).come)


class _Failures:
    """Turns an OSError into an error whose message names the path, the state of the restore and the remedy."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.target: Target | None = None  # once it is open

    def __enter__(self) -> _Failures:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else self._path
            reason = "the disk is full" if full else shortage(error) or error.strerror or error
            message = f"{place}: {reason}{self._state(error)}"
            raise (NoSpaceError(message) if full else DumontError(message)) from error

    def _state(self, error: OSError) -> str:
        if self.target is not None and self.target.complete:
            return "; every entry is restored, but the time of the target itself or its last sync may be missing"
        if self.target is not None and self.target.begun:
            when = ": once that is mended" if error.errno in _USER_CAN_FIX else ""
            return f"; the restore is incomplete{when}, the same command goes on"
        return ""


def _checked(options: RestoreOptions, target: str | None) -> RestoreOptions:
    if target == "":
        raise UsageError("the target has no name")
    if options.overwrite not in (*OVERWRITE_CHOICES, "refuse"):
        raise UsageError(f"--overwrite {options.overwrite}: choose one of {', '.join(OVERWRITE_CHOICES)}")
    return options


def _needs_every_chunk(target: str, options: RestoreOptions) -> bool:
    """Whether, before the manifest is read, every chunk is known to be needed: no patterns, and an empty target."""
    if options.include or options.exclude or options.strip:
        return False
    try:
        return is_empty(target)
    except OSError as error:
        return error.errno == errno.ENOENT
