"""A user's code against the API: mypy --strict must see types in it, not Any (tests/unit/test_api.py)."""

from pathlib import Path
from typing import TYPE_CHECKING

import dumont_gpu
from dumont_gpu import (
    DiffResult,
    DumontError,
    PackPlan,
    PackResult,
    Progress,
    RestorePlan,
    RestoreResult,
    SnapshotFiles,
    SnapshotInfo,
    SnapshotService,
    TensorFiles,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type


def show(event: Progress) -> None:
    print(event.phase, event.done_bytes, event.eta)


def save_and_bring_back(workspace: Path) -> str:
    service = SnapshotService(device=0)
    try:
        packed = service.create_snapshot(workspace, "x.dumont", chunk_size="64MiB", exclude="*.pyc", progress=show)
    except DumontError as error:
        return str(error)
    restored = service.restore_snapshot("x.dumont", Path("target"), include=["src", Path("data")], overwrite="always")
    if TYPE_CHECKING:
        assert_type(packed, PackResult)
        assert_type(packed.original_size, int)
        assert_type(restored, RestoreResult)
        assert_type(restored.changed_files, tuple[str, ...])
        assert_type([entry.path for entry in service.list_entries("x.dumont")], list[str])
        assert_type(service.read("x.dumont", "src/main.py", max_size="1MiB"), bytes)
        assert_type(service.diff("x.dumont", workspace, content=True), DiffResult)
        assert_type([change.path for change in service.diff("x.dumont", "y.dumont").changes], list[str])
    service.restore_snapshot("x.dumont", "target", overwrite="bogus")  # type: ignore[arg-type]
    service.create_snapshot("a", "b", nosuch=1)  # type: ignore[call-arg]
    return packed.snapshot_id


def look_before_you_leap(workspace: Path, snapshot: Path, target: Path) -> list[str]:
    service = SnapshotService(device="cpu")
    forecast = service.plan_snapshot(workspace, exclude=["*.pyc"])
    service.create_snapshot(workspace, snapshot, exclude=["*.pyc"])
    held = service.snapshot_info(snapshot)
    plan = service.plan_restore(snapshot, target, include="src", overwrite="if-changed")
    if TYPE_CHECKING:
        assert_type(forecast, PackPlan)
        assert_type(held, SnapshotInfo)
        assert_type(held.codec_bytes, dict[str, tuple[int, int]])
        assert_type(plan, RestorePlan)
        assert_type(plan.newer, tuple[str, ...])
        assert_type(plan.original_size, int)
    said = [f"{forecast.num_files} entries, {held.entries['file']} files in {held.num_chunks} chunks"]
    said += [f"would write {path}" for path in plan.new]
    said += [f"is newer, and would be written over: {path}" for path in plan.newer]
    return said


def tensors_by_name(snapshot: Path, targets: dict[str, object]) -> list[str]:
    with dumont_gpu.open(snapshot, ["m.safetensors", Path("n.safetensors")], framework="np", memory="1GiB") as tensors:
        meta = tensors.get_tensor_meta("w")
        with tensors.prefetch({"w": None, "v": slice(0, 4)}, limit=1 << 30) as ready:
            found = {name: ready.take(name) for name in ready.names()}
        left = tensors.load_into(targets, strict=False)
        if TYPE_CHECKING:
            assert_type(tensors, TensorFiles)
            assert_type(tensors.keys(), list[str])
            assert_type(meta.shape, tuple[int, ...])
            assert_type(meta.dtype, str)
            assert_type(left.missing, list[str])
    if TYPE_CHECKING:
        assert_type(dumont_gpu.read(snapshot, "config.json", max_size="1MiB"), bytes)
        assert_type(dumont_gpu.open_files(snapshot), SnapshotFiles)
        assert_type(dumont_gpu.open_files(snapshot).open_file("m.safetensors").read(4), bytes)
        assert_type(sorted(dumont_gpu.load(snapshot, "m.safetensors", framework="pt")), list[str])
    dumont_gpu.open(snapshot, 7)  # type: ignore[arg-type]
    return sorted(found)
