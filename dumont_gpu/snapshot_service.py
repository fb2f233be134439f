"""SnapshotService: the Python API, under the names of the original Dumont snapshot module."""

from __future__ import annotations

from typing import cast

from dumont_gpu.format.digests import DEFAULT_DIGEST, DIGESTS
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.jobs import arguments as take
from dumont_gpu.jobs.arguments import MAX_CONNECTIONS, MAX_JOBS, Duration, OneOrMore, Size, StrPath
from dumont_gpu.jobs.options import DEFAULT_MAX_SIZE, PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.pack import PackResult, pack
from dumont_gpu.jobs.restore import RestoreResult, restore
from dumont_gpu.jobs.verify import VerifyResult, verify
from dumont_gpu.plan.methods import DEFAULT_METHOD
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import NetworkOptions, open_source
from dumont_gpu.storage.retry import DEFAULT_PATIENCE, RetryPolicy
from dumont_gpu.tree.target.options import OVERWRITE_CHOICES, Overwrite


class SnapshotService:
    """Creates, restores and checks snapshots.

    >>> service = SnapshotService()
    >>> result = service.create_snapshot(source_path="/workspace", output_path="workspace.dumont")
    >>> print(f"{result.original_size} -> {result.compressed_size} ({result.ratio:.2f}x)")
    >>> service.restore_snapshot(snapshot_path="workspace.dumont", target_path="/workspace", verify=True)

    What the command line takes, the methods take: a size is a number of bytes or "64MiB"; a pattern, as in .gitignore
    (globs.py has the table), or a list of them. Paths are `str` or `os.PathLike`; snapshots may be addresses.
    Every method takes `progress`, a function that is called with Progress events from the job's threads, and raises
    a DumontError with one clear line; a value that makes no sense is a UsageError, which is one.

    Args:
        device: "auto", "cpu", or the number of a CUDA device.
        jobs: threads that encode or decode; 0: one per core, or fewer where the machine's limits ask for it.
    """

    def __init__(self, device: str | int = "auto", jobs: int = 0) -> None:
        self._device, self._jobs = take.device(device), take.whole("jobs", jobs, MAX_JOBS)

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
        digest: str = DEFAULT_DIGEST,
        owner: bool = False,
        follow_outside: bool = False,
        force: bool = False,
        paranoid: bool = False,
        memory: Size = 0,
        gpu_memory: Size | None = None,
        patience: Duration = DEFAULT_PATIENCE,
        discard: bool = False,
    ) -> PackResult:
        """Packs one tree, or several, each then under its own name.

        Args:
            source_path: a directory or a file, or several.
            output_path: where the snapshot appears: a path, or s3://bucket/key.
            chunk_size: original bytes in a chunk, at most.
            progress: is told how far the job is.
            exclude: patterns of what is left out.
            exclude_from: files with such patterns, one a line.
            method: how codecs are chosen: "hybrid_v2", "lz4", "lz4_hc" or "none".
            digest: what covers chunks and files: "blake3" or "sha256".
            owner: record user and group ids.
            follow_outside: store what links lead to that leave the source, in place of the links.
            force: replace a file at `output_path` that is no snapshot, if no source holds it.
            paranoid: decode every chunk, and compare, before it is written.
            memory: bytes for chunk buffers; 0: 512 MiB, or less where the machine has less.
            gpu_memory: bytes of device memory to take at most; None: half of what is free.
            patience: seconds to try on while nothing comes from a server; also as "5m". 0: the first failure is final.
            discard: take away what a publish that is stopped has sent, or an earlier one; else the next one goes on.

        Raises:
            SnapshotNotFoundError: a source does not exist.
            UsageError: `output_path` may not be replaced, or an argument is wrong.
            NoSpaceError: the disk of `output_path` is full.
            DumontError: anything else that keeps the snapshot from being made. What could not be packed, though the
                snapshot was made, is in the result's `problems`.
        """
        options = PackOptions(
            method=take.text("method", method),
            chunk_size=take.size("chunk_size", chunk_size),
            exclude=take.patterns("exclude", exclude, exclude_from),
            digest=take.choice("digest", digest, tuple(DIGESTS)),
            owner=take.flag("owner", owner),
            follow_outside=take.flag("follow_outside", follow_outside),
            force=take.flag("force", force),
            device=self._device,
            gpu_memory=take.optional_size("gpu_memory", gpu_memory),
            paranoid=take.flag("paranoid", paranoid),
            jobs=self._jobs,
            memory=take.size("memory", memory),
            network=_network(patience, discard=discard),
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
        expect: str | None = None,
        owner: bool = False,
        preserve_special: bool = False,
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
            snapshot_path: a path, or an http(s)://, s3://, gs:// or az:// address.
            target_path: the directory to restore into.
            verify: also check every file's content, before it is written.
            progress: is told how far the job is.
            include: patterns of what is restored; none: everything.
            exclude: patterns of what is left out.
            overwrite: what becomes of files that are there: "always", "if-changed", "never", or "refuse" the restore.
            expect: the snapshot id it must have, "sha256:…".
            owner: restore user and group ids.
            preserve_special: restore setuid, setgid and sticky bits.
            sync: wait until everything is on disk.
            max_size: bytes that all files together may declare.
            memory: bytes for chunk buffers; 0: 512 MiB, or less where the machine has less.
            gpu_memory: bytes of device memory to take at most; None: half of what is free.
            patience: seconds to try on while nothing comes from a server; also as "5m". 0: the first failure is final.
            connections: exactly so many; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            SnapshotNotFoundError: nothing is at `snapshot_path`.
            DamagedError, UnsupportedError: the snapshot cannot be used; nothing wrong was written as right.
            UsageError: the target is not empty, and `overwrite` does not say what to do.
            NoSpaceError: the target has too little room.
            DumontError: anything else that keeps the tree from being complete.
        """
        options = RestoreOptions(
            include=take.patterns("include", include),
            exclude=take.patterns("exclude", exclude),
            verify=take.flag("verify", verify),
            expect=_expected(expect),
            overwrite=cast(Overwrite, take.choice("overwrite", overwrite, (*OVERWRITE_CHOICES, "refuse"))),
            owner=take.flag("owner", owner),
            preserve_special=take.flag("preserve_special", preserve_special),
            sync=take.flag("sync", sync),
            max_size=take.size("max_size", max_size),
            device=self._device,
            gpu_memory=take.optional_size("gpu_memory", gpu_memory),
            jobs=self._jobs,
            memory=take.size("memory", memory),
            network=_network(patience, connections, limit_rate),
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
        """Checks every stored byte of a snapshot.

        Args:
            snapshot_path: a path or an address.
            content: also decode every chunk, and check every file's content.
            progress: is told how far the job is.
            expect: the snapshot id it must have.
            memory: bytes for chunk buffers; 0: 512 MiB, or less where the machine has less.
            gpu_memory: bytes of device memory to take at most; None: half of what is free.
            patience: seconds to try on while nothing comes from a server; also as "5m". 0: the first failure is final.
            connections: exactly so many; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            DamagedError: something is wrong; all damaged chunks are named.
            SnapshotNotFoundError, UnsupportedError, DumontError: as for a restore.
        """
        options = VerifyOptions(
            content=take.flag("content", content),
            expect=_expected(expect),
            device=self._device,
            gpu_memory=take.optional_size("gpu_memory", gpu_memory),
            jobs=self._jobs,
            memory=take.size("memory", memory),
            network=_network(patience, connections, limit_rate),
        )
        return verify(take.path("snapshot_path", snapshot_path), options, take.callback("progress", progress))

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
            snapshot_path: a path or an address.
            progress: is told when the list is complete; its bytes and chunks are none.
            expect: the snapshot id it must have.
            patience: seconds to try on while nothing comes from a server; also as "5m". 0: the first failure is final.
            connections: exactly so many; 0: 16 (4 nearby), and more if that helps.
            limit_rate: bytes per second to download, at most; 0: no limit.

        Raises:
            DamagedError, SnapshotNotFoundError, UnsupportedError, DumontError: as for a restore.
        """
        progress, location = take.callback("progress", progress), take.path("snapshot_path", snapshot_path)
        expect, network = _expected(expect), _network(patience, connections, limit_rate)
        source = open_source(location, network)
        try:
            entries = read_snapshot(source, expect).manifest.entries
        finally:
            source.close()
        Meter(progress, "list", 0, 0)
        return entries


def _expected(value: str | None) -> str | None:
    return None if value is None else take.text("expect", value)


def _network(
    patience: Duration, connections: int = 0, limit_rate: Size = 0, *, discard: bool = False
) -> NetworkOptions:
    return NetworkOptions(
        connections=take.whole("connections", connections, MAX_CONNECTIONS),
        limit_rate=take.size("limit_rate", limit_rate),
        retry=RetryPolicy(patience=take.duration("patience", patience)),
        discard=take.flag("discard", discard),
    )
