"""The part of the Python API that writes nothing: what a snapshot holds, and what a pack or a restore would do."""

from __future__ import annotations

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.jobs import arguments as take
from dumont_gpu.jobs.arguments import Duration, OneOrMore, Rate, Size, StrPath
from dumont_gpu.jobs.diff import DiffResult, diff
from dumont_gpu.jobs.info import SnapshotInfo, snapshot_info
from dumont_gpu.jobs.options import (
    DEFAULT_LINK,
    DEFAULT_MAX_SIZE,
    DEFAULT_METHOD,
    DEFAULT_PATIENCE,
    DEFAULT_READ_SIZE,
    DiffOptions,
    PackOptions,
    ReadOptions,
    RestoreOptions,
    RunOptions,
)
from dumont_gpu.jobs.pack import PackPlan, plan_pack
from dumont_gpu.jobs.parameters import checked
from dumont_gpu.jobs.read_file import read_bytes
from dumont_gpu.jobs.restore import plan_restore
from dumont_gpu.jobs.restore_plan import RestorePlan
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.snapshot.inside import opened_snapshot
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import open_source
from dumont_gpu.tree.target.options import Overwrite


class SnapshotQueries:
    """Methods of SnapshotService."""

    _running: RunOptions  # where the service's jobs run

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

    def read(
        self,
        snapshot_path: StrPath,
        path: StrPath = "",
        *,
        max_size: Size = DEFAULT_READ_SIZE,
        expect: str | None = None,
        patience: Duration = DEFAULT_PATIENCE,
        connections: int = 0,
        limit_rate: Size = 0,
    ) -> bytes:
        """Returns the content of one file, verified; reads only the chunks that hold it.

        Args:
            snapshot_path: a path or an address, perhaps with `:path` of a directory or a file in the snapshot.
            path: of the file in the snapshot, or in that directory; "" for a file that `snapshot_path` names.
            max_size: refuse to read a file of more bytes than this.
            expect: refuse any snapshot but the one with this id.
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
            connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            SnapshotNotFoundError: nothing is at `snapshot_path`, or the snapshot holds no such file.
            UsageError: a directory or a symlink is there.
            DamagedError, UnsupportedError, DumontError: as for a restore; or the file is larger than `max_size`.
        """
        options = checked(
            ReadOptions,
            device=self._running.device,
            jobs=self._running.jobs,
            expect=expect,
            patience=patience,
            connections=connections,
            limit_rate=limit_rate,
        )
        name = take.path("path", path) if path != "" else ""
        limit = take.size("max_size", max_size)
        return read_bytes(take.path("snapshot_path", snapshot_path), name, limit, options)

    def diff(
        self,
        a: StrPath,
        b: StrPath,
        *,
        content: bool = False,
        patience: Duration = DEFAULT_PATIENCE,
        connections: int = 0,
        limit_rate: Size = 0,
    ) -> DiffResult:
        """Compares two snapshots, or a snapshot and a folder: what was added, removed, modified from `a` to `b`.

        Types, sizes and what links lead to are compared, and the content of files: by the digests of two snapshots, as
        far as both have cut a file alike; or else by the time, or with `content` by reading.

        Args:
            a: a snapshot, a part of one (`:path` behind it), or a folder.
            b: the same; one of both is a snapshot.
            content: read the files that no digests compare; without this, their time decides.
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
            connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            UsageError: both are folders.
            DamagedError, SnapshotNotFoundError, UnsupportedError, DumontError: as for a restore.
        """
        options = checked(
            DiffOptions, content=content, patience=patience, connections=connections, limit_rate=limit_rate
        )
        return diff(take.path("a", a), take.path("b", b), options)

    def list_entries(
        self,
        snapshot_path: StrPath,
        progress: ProgressCallback | None = None,
        *,
        expect: str | None = None,
        patience: Duration = DEFAULT_PATIENCE,
        connections: int = 0,
        limit_rate: Size = 0,
    ) -> tuple[FileEntry, ...]:
        """Returns the entries of a snapshot in path order.

        Args:
            snapshot_path: a path or an address, perhaps with `:path` of a directory in the snapshot.
            progress: called when the list is complete, with no bytes and no chunks.
            expect: refuse any snapshot but the one with this id.
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
            connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            DamagedError, SnapshotNotFoundError, UnsupportedError, DumontError: as for a restore.
        """
        progress, location = take.callback("progress", progress), take.path("snapshot_path", snapshot_path)
        options = checked(ReadOptions, expect=expect, patience=patience, connections=connections, limit_rate=limit_rate)
        with opened_snapshot(location, options.network, options.expect) as snapshot:
            entries = tuple(snapshot.manifest.entries)
        Meter(progress, "list", 0, 0)
        return entries
