"""SnapshotService: the Python API, under the names of the original Dumont snapshot module."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dumont_gpu.format import DEFAULT_CHUNK_SIZE
from dumont_gpu.manifest import FileEntry
from dumont_gpu.pack import PackOptions, PackResult, pack
from dumont_gpu.progress import ProgressCallback
from dumont_gpu.restore import RestoreOptions, RestoreResult, restore
from dumont_gpu.snapshot import read_snapshot
from dumont_gpu.storage import open_source
from dumont_gpu.verify import VerifyOptions, VerifyResult, verify

StrPath = str | os.PathLike[str]


class SnapshotService:
    """Creates, restores and checks snapshots.

    >>> service = SnapshotService()
    >>> result = service.create_snapshot(source_path="/workspace", output_path="workspace.dumont")
    >>> print(f"{result.original_size} -> {result.compressed_size} ({result.ratio:.2f}x)")
    >>> service.restore_snapshot(snapshot_path="workspace.dumont", target_path="/workspace", verify=True)

    Every method takes `progress`, a function that is called with Progress events from the job's threads, and raises
    a DumontError with one clear line.

    Args:
        device: "auto", "cpu", or the number of a CUDA device.
        jobs: threads that encode or decode; 0: one per core, or fewer where the machine's limits ask for it.
    """

    def __init__(self, device: str = "auto", jobs: int = 0) -> None:
        self._common: dict[str, Any] = {"device": device, "jobs": jobs}

    def create_snapshot(
        self,
        source_path: StrPath | Sequence[StrPath],
        output_path: StrPath,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> PackResult:
        """Packs one tree, or several, each then under its own name. `options` are those of PackOptions."""
        sources = [source_path] if isinstance(source_path, (str, os.PathLike)) else list(source_path)
        packing = PackOptions(chunk_size=chunk_size, **self._common, **options)
        return pack([os.fspath(source) for source in sources], os.fspath(output_path), packing, progress)

    def restore_snapshot(
        self,
        snapshot_path: StrPath,
        target_path: StrPath,
        verify: bool = False,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> RestoreResult:
        """Restores a snapshot under `target_path`. `options` are those of RestoreOptions."""
        restoring = RestoreOptions(verify=verify, **self._common, **options)
        return restore(os.fspath(snapshot_path), os.fspath(target_path), restoring, progress)

    def verify_snapshot(
        self, snapshot_path: StrPath, content: bool = False, progress: ProgressCallback | None = None, **options: Any
    ) -> VerifyResult:
        """Checks every stored byte; with `content`, every file's content too. `options` are those of VerifyOptions."""
        return verify(os.fspath(snapshot_path), VerifyOptions(content=content, **self._common, **options), progress)

    def list_entries(self, snapshot_path: StrPath) -> tuple[FileEntry, ...]:
        """Returns the entries of a snapshot in path order."""
        source = open_source(os.fspath(snapshot_path))
        try:
            return read_snapshot(source).manifest.entries
        finally:
            source.close()
