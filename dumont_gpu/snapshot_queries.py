"""The part of the Python API that writes nothing: what a snapshot holds, and what a pack or a restore would do."""

from __future__ import annotations

from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.jobs import arguments as take
from dumont_gpu.jobs.arguments import Duration, OneOrMore, Rate, Size, StrPath
from dumont_gpu.jobs.info import SnapshotInfo, snapshot_info
from dumont_gpu.jobs.options import (
    DEFAULT_LINK,
    DEFAULT_MAX_SIZE,
    DEFAULT_METHOD,
    DEFAULT_PATIENCE,
    PackOptions,
    ReadOptions,
    RestoreOptions,
)
from dumont_gpu.jobs.pack import PackPlan, plan_pack
from dumont_gpu.jobs.parameters import checked
from dumont_gpu.jobs.restore import plan_restore
from dumont_gpu.jobs.restore_plan import RestorePlan
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import open_source
from dumont_gpu.tree.target.options import Overwrite


class SnapshotQueries:
    """Methods of SnapshotService."""

    def snapshot_info(
        self,
        snapshot_path: StrPath,
        *,
        expect: str | None = None,
        patience: Duration = DEFAULT_PATIENCE,
        connections: int = 0,
        limit_rate: Size = 0,
    ) -> SnapshotInfo:
        """Returns the totals of a snapshot, its codecs and its id.

        Args:
            snapshot_path: a path or an address.
            expect: refuse any snapshot but the one with this id, "sha256:…".
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
            connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            DamagedError, SnapshotNotFoundError, UnsupportedError, DumontError: as for a restore.
        """
        location = take.path("snapshot_path", snapshot_path)
        options = checked(ReadOptions, expect=expect, patience=patience, connections=connections, limit_rate=limit_rate)
        source = open_source(location, options.network)
        try:
            return snapshot_info(read_snapshot(source, options.expect))
        finally:
            source.close()

    def plan_snapshot(
        self,
        source_path: OneOrMore,
        output_path: StrPath | None = None,
        chunk_size: Size = DEFAULT_CHUNK_SIZE,
        *,
        exclude: OneOrMore = (),
        exclude_from: OneOrMore = (),
        method: str = DEFAULT_METHOD,
        link: Rate = DEFAULT_LINK,
        follow_outside: bool = False,
        force: bool = False,
    ) -> PackPlan:
        """Returns what `create_snapshot` would pack, and writes nothing.

        Args:
            source_path: a directory or a file, or several.
            output_path: where the snapshot would appear, to be checked; None checks no place.
            chunk_size: raw bytes in a chunk, at most.
            exclude: leave out the entries that match; a pattern, or several.
            exclude_from: files with more such patterns, one per line.
            method: how codecs are chosen.
            link: the link that the snapshot will cross, for hybrid_v3: bytes per second, "1Gbit", or "local" for none.
            follow_outside: replace links that lead out of the sources by the entries they lead to.
            force: replace a file at `output_path` that is no snapshot, unless a source holds it.

        Raises:
            SnapshotNotFoundError, UsageError, DumontError: as for `create_snapshot`.
        """
        options = checked(
            PackOptions,
            chunk_size=chunk_size,
            exclude=exclude,
            exclude_from=exclude_from,
            method=method,
            link=link,
            follow_outside=follow_outside,
            force=force,
        )
        output = None if output_path is None else take.path("output_path", output_path)
        return plan_pack(take.paths("source_path", source_path), options, output)

    def plan_restore(
        self,
        snapshot_path: StrPath,
        target_path: StrPath | None = None,
        *,
        include: OneOrMore = (),
        exclude: OneOrMore = (),
        overwrite: Overwrite = "refuse",
        expect: str | None = None,
        max_size: Size = DEFAULT_MAX_SIZE,
        patience: Duration = DEFAULT_PATIENCE,
    ) -> RestorePlan:
        """Returns what `restore_snapshot` would write, write over and keep, and writes nothing.

        Args:
            snapshot_path: a path or an address.
            target_path: the directory to look at; None plans for a directory that does not exist.
            include: restore only the entries that match; a pattern, or several.
            exclude: leave out the entries that match; a pattern, or several.
            overwrite: how to treat files that the target holds already; see `restore_snapshot`.
            expect: refuse any snapshot but the one with this id, "sha256:…".
            max_size: refuse to restore more bytes than this.
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.

        Raises:
            DamagedError, SnapshotNotFoundError, UsageError, NoSpaceError, DumontError: as for `restore_snapshot`.
        """
        options = checked(
            RestoreOptions,
            include=include,
            exclude=exclude,
            overwrite=overwrite,
            expect=expect,
            max_size=max_size,
            patience=patience,
        )
        target = None if target_path is None else take.path("target_path", target_path)
        return plan_restore(take.path("snapshot_path", snapshot_path), options, target)
