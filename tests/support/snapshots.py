"""Packs and restores trees the way most tests do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dumont_gpu.bench.compare_trees import differences
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.jobs.options import PackOptions, RestoreOptions
from dumont_gpu.jobs.pack import PackResult, pack
from dumont_gpu.jobs.restore import RestoreResult, restore
from dumont_gpu.plan.cutter import PlannedChunk
from dumont_gpu.plan.planner import Plan
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage.local import LocalSource

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def pack_tree(source: Path, snapshot: Path, **options: object) -> PackResult:
    return pack([str(source)], str(snapshot), PackOptions(**options))  # type: ignore[arg-type]


def restore_tree(snapshot: Path, target: Path, **options: object) -> RestoreResult:
    return restore(str(snapshot), str(target), RestoreOptions(sync=False, **options))  # type: ignore[arg-type]


def assert_same_tree(source: Path, target: Path) -> None:
    assert list(differences(source, target)) == []


def files_of(snapshot: Path) -> dict[str, FileEntry]:
    """Returns the regular files of a snapshot by their paths."""
    entries = read_snapshot(LocalSource(str(snapshot))).manifest.entries
    return {entry.path: entry for entry in entries if entry.type is EntryType.FILE}


def once_planned(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Calls `act` when every chunk is cut and none is read."""
    chunks = Plan.chunks

    def changing(plan: Plan) -> Iterator[PlannedChunk]:
        planned = list(chunks(plan))
        act()
        yield from planned

    monkeypatch.setattr(Plan, "chunks", changing)
