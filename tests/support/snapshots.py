"""Packs and restores trees the way most tests do."""

from __future__ import annotations

from pathlib import Path

from dumont_gpu.bench.compare_trees import differences
from dumont_gpu.jobs.options import PackOptions, RestoreOptions
from dumont_gpu.jobs.pack import PackResult, pack
from dumont_gpu.jobs.restore import RestoreResult, restore

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def pack_tree(source: Path, snapshot: Path, **options: object) -> PackResult:
    return pack([str(source)], str(snapshot), PackOptions(**options))  # type: ignore[arg-type]


def restore_tree(snapshot: Path, target: Path, **options: object) -> RestoreResult:
    return restore(str(snapshot), str(target), RestoreOptions(sync=False, **options))  # type: ignore[arg-type]


def assert_same_tree(source: Path, target: Path) -> None:
    assert list(differences(source, target)) == []
