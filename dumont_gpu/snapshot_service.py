"""SnapshotService: the Python API, under the names of the original Dumont snapshot module."""

from __future__ import annotations

from dumont_gpu.format.digests import DEFAULT_DIGEST
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.jobs import arguments as take
from dumont_gpu.jobs.arguments import Duration, OneOrMore, Rate, Size, StrPath
from dumont_gpu.jobs.options import (
    DEFAULT_LEVEL,
    DEFAULT_LINK,
    DEFAULT_MAX_SIZE,
    DEFAULT_METHOD,
    DEFAULT_PATIENCE,
    PackOptions,
    RestoreOptions,
    RunOptions,
    VerifyOptions,
)
from dumont_gpu.jobs.pack import PackResult, pack
from dumont_gpu.jobs.parameters import checked
from dumont_gpu.jobs.restore import RestoreResult, restore
from dumont_gpu.jobs.verify import VerifyResult, verify
from dumont_gpu.progress import ProgressCallback
from dumont_gpu.snapshot_queries import SnapshotQueries
from dumont_gpu.tree.target.options import Overwrite


class SnapshotService(SnapshotQueries):
    """Creates, restores and checks snapshots.

    >>> service = SnapshotService()
    >>> result = service.create_snapshot(source_path="/workspace", output_path="workspace.dumont")
    >>> print(f"{result.original_size} -> {result.compressed_size} ({result.ratio:.2f}x)")
    >>> service.restore_snapshot(snapshot_path="workspace.dumont", target_path="/workspace", verify=True)

    The methods take the same values as the command line: a size is a number of bytes or "64MiB"; a pattern, or a list
    of patterns, is as in .gitignore (`dumont_gpu/tree/globs.py` has the table). Paths are `str` or `os.PathLike`, and
    snapshots may be addresses. Every method takes `progress`, a function that the job's threads call with Progress
    events, and raises a DumontError with a message of one line: a UsageError, which is a DumontError, for a value that
    makes no sense.

    Args:
        device: where to encode and decode: "auto", "cpu", or the number of a CUDA device.
        jobs: threads that encode or decode; 0: one per core, or fewer where the machine's limits ask.
    """

    def __init__(self, device: str | int = "auto", jobs: int = 0) -> None:
        self._running = checked(RunOptions, device=device, jobs=jobs)

    def create_snapshot(
        self,
        source_path: OneOrMore,
        output_path: StrPath,
        chunk_size: Size = DEFAULT_CHUNK_SIZE,
        progress: ProgressCallback | None = None,
        *,
        exclude: OneOrMore = (),
        exclude_from: OneOrMore = (),
        method: str = DEFAULT_METHOD,
        link: Rate = DEFAULT_LINK,
        level: int = DEFAULT_LEVEL,
        digest: str = DEFAULT_DIGEST,
        owner: bool = False,
        follow_outside: bool = False,
        force: bool = False,
        paranoid: bool = False,
        with_reader: bool = False,
        memory: Size = 0,
        gpu_memory: Size | None = None,
        patience: Duration = DEFAULT_PATIENCE,
        discard: bool = False,
    ) -> PackResult:
        """Packs one tree, or several, each then under its own name.

        Args:
            source_path: a directory or a file, or several.
            output_path: where the snapshot appears: a path, - for standard output, or s3://bucket/key.
            chunk_size: raw bytes in a chunk, at most.
            progress: called with the progress of the job.
            exclude: leave out the entries that match; a pattern, or several.
            exclude_from: files with more such patterns, one per line.
            method: how codecs are chosen: "hybrid_v3", "hybrid_v2", "lz4", "lz4_hc", "none" or "zstd".
            link: the link that the snapshot will cross, for hybrid_v3: bytes per second, "1Gbit", or "local" for none.
            level: the level of zstd, where zstd encodes: from 1 to 19.
            digest: the digest of chunks and files: "blake3" or "sha256".
            owner: record user and group ids.
            follow_outside: replace links that lead out of the sources by the entries they lead to.
            force: replace a file at `output_path` that is no snapshot, unless a source holds it.
            paranoid: decode every chunk, and compare, before the chunk is written.
            with_reader: put dumont_reader.py beside the snapshot: any machine with Python 3.9 can restore it with that.
            memory: memory for chunk buffers, in bytes; 0: what the threads use, up to a quarter of what is left.
            gpu_memory: device memory to take at most, in bytes; None: half of the free device memory.
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
            discard: leave no parts of a stopped publish at the server; if False, the next publish goes on from them.

        Raises:
            SnapshotNotFoundError: a source does not exist.
            UsageError: `output_path` may not be replaced, or an argument is wrong.
            NoSpaceError: the disk of `output_path` is full.
            DumontError: anything else that keeps the snapshot from being made. Entries that could not be packed, though
                the snapshot was made, are in the result's `problems`.
        """
        options = checked(
            PackOptions,
            device=self._running.device,
            jobs=self._running.jobs,
            method=method,
            link=link,
            level=level,
            chunk_size=chunk_size,
            exclude=exclude,
            exclude_from=exclude_from,
            digest=digest,
            owner=owner,
            follow_outside=follow_outside,
            force=force,
            paranoid=paranoid,
            with_reader=with_reader,
            memory=memory,
            gpu_memory=gpu_memory,
            patience=patience,
            discard=discard,
        )
        sources, output = take.paths("source_path", source_path), take.path("output_path", output_path)
        return pack(sources, output, options, take.callback("progress", progress))

    def restore_snapshot(
        self,
        snapshot_path: StrPath,
        target_path: StrPath,
        verify: bool = False,
        progress: ProgressCallback | None = None,
        *,
        include: OneOrMore = (),
        exclude: OneOrMore = (),
        overwrite: Overwrite = "refuse",
        strip: int = 0,
        expect: str | None = None,
        owner: bool = False,
        preserve_special: bool = False,
        keep_going: bool = False,
        sync: bool = True,
        max_size: Size = DEFAULT_MAX_SIZE,
        memory: Size = 0,
        gpu_memory: Size | None = None,
        patience: Duration = DEFAULT_PATIENCE,
        connections: int = 0,
        limit_rate: Size = 0,
    ) -> RestoreResult:
        """Restores a snapshot, or a part of it, under `target_path`. After an interruption, the same call goes on.

        Args:
            snapshot_path: a path, - for standard input, or an http(s)://, s3://, gs:// or az:// address. `:path` behind
                it names a directory or a file in the snapshot.
            target_path: the directory to restore into.
            verify: also check the content of every file: new files before they are written.
            progress: called with the progress of the job.
            include: restore only the entries that match; a pattern, or several; none: everything.
            exclude: leave out the entries that match; a pattern, or several.
            overwrite: how to treat files that the target holds already: "always" write over them; "if-changed" keep
                those of the same size and time, and write over the others, newer ones too, which `newer` of the
                result names; "never" write over any; "refuse" to restore, unless every entry is there already.
            strip: leave out the first N names of every path, as tar does.
            expect: refuse any snapshot but the one with this id, "sha256:…".
            owner: restore user and group ids.
            preserve_special: restore setuid, setgid and sticky bits.
            keep_going: restore what no damaged chunk holds; the result's `lost` are the other files.
            sync: wait until everything is on disk.
            max_size: refuse to restore more bytes than this.
            memory: memory for chunk buffers, in bytes; 0: what the threads use, up to a quarter of what is left.
            gpu_memory: device memory to take at most, in bytes; None: half of the free device memory.
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
            connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            SnapshotNotFoundError: nothing is at `snapshot_path`.
            DamagedError, UnsupportedError: the snapshot cannot be used; nothing wrong was written as right.
            UsageError: the target is neither empty nor complete, and `overwrite` does not say how to go on.
            NoSpaceError: the target has too little room.
            DumontError: anything else that keeps the tree from being complete.
        """
        options = checked(
            RestoreOptions,
            device=self._running.device,
            jobs=self._running.jobs,
            include=include,
            exclude=exclude,
            verify=verify,
            expect=expect,
            overwrite=overwrite,
            strip=strip,
            owner=owner,
            preserve_special=preserve_special,
            keep_going=keep_going,
            sync=sync,
            max_size=max_size,
            memory=memory,
            gpu_memory=gpu_memory,
            patience=patience,
            connections=connections,
            limit_rate=limit_rate,
        )
        snapshot, target = take.path("snapshot_path", snapshot_path), take.path("target_path", target_path)
        return restore(snapshot, target, options, take.callback("progress", progress))

    def verify_snapshot(
        self,
        snapshot_path: StrPath,
        content: bool = False,
        progress: ProgressCallback | None = None,
        *,
        expect: str | None = None,
        memory: Size = 0,
        gpu_memory: Size | None = None,
        patience: Duration = DEFAULT_PATIENCE,
        connections: int = 0,
        limit_rate: Size = 0,
    ) -> VerifyResult:
        """Checks every byte of a snapshot.

        Args:
            snapshot_path: a path or an address, as for a restore.
            content: also decode every chunk and check the content of every file.
            progress: called with the progress of the job.
            expect: refuse any snapshot but the one with this id.
            memory: memory for chunk buffers, in bytes; 0: what the threads use, up to a quarter of what is left.
            gpu_memory: device memory to take at most, in bytes; None: half of the free device memory.
            patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
            connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            DamagedError: the snapshot is damaged; the message names the first damaged chunk and counts the others.
            SnapshotNotFoundError, UnsupportedError, DumontError: as for a restore.
        """
        options = checked(
            VerifyOptions,
            device=self._running.device,
            jobs=self._running.jobs,
            content=content,
            expect=expect,
            memory=memory,
            gpu_memory=gpu_memory,
            patience=patience,
            connections=connections,
            limit_rate=limit_rate,
        )
        return verify(take.path("snapshot_path", snapshot_path), options, take.callback("progress", progress))
