"""The Python API in the seed document's spelling."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.snapshots import assert_same_tree

from dumont_gpu import DumontError, Progress, SnapshotService


def test_create_and_restore(source: Path, snapshot: Path, target: Path) -> None:
    (source / "log.txt").write_text("loss 0.5\n" * 10_000)
    service = SnapshotService()
    events: list[Progress] = []
    result = service.create_snapshot(
        source_path=source, output_path=snapshot, chunk_size=64 * 1024, progress=events.append
    )
    assert result.original_size == 90_000
    assert result.compressed_size == snapshot.stat().st_size
    assert result.ratio == result.original_size / result.compressed_size
    assert (events[-1].phase, events[-1].done_bytes, events[-1].done_chunks) == ("pack", 90_000, 2)

    assert [entry.path for entry in service.list_entries(snapshot)] == ["log.txt"]
    assert service.verify_snapshot(snapshot, content=True).content_size == 90_000
    restored = service.restore_snapshot(snapshot_path=str(snapshot), target_path=str(target), verify=True)
    assert restored.verified
    assert restored.snapshot_id == result.snapshot_id
    assert_same_tree(source, target)


def test_errors_are_dumont_errors(source: Path, snapshot: Path) -> None:
    service = SnapshotService(device="7")
    with pytest.raises(DumontError):
        service.create_snapshot(source, snapshot)
    with pytest.raises(DumontError):
        SnapshotService().restore_snapshot(snapshot, source)
