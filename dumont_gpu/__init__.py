"""dumont-gpu: packs an ML workspace into a chunked .dumont file, and restores the workspace fast and verified."""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` takes longest here: a signal would arrive before its handler is set

__version__ = "0.1.0"
__all__ = [
    "DiffResult",
    "DumontError",
    "PackPlan",
    "PackResult",
    "Progress",
    "RestorePlan",
    "RestoreResult",
    "SnapshotFiles",
    "SnapshotInfo",
    "SnapshotService",
    "TensorFiles",
    "__version__",
    "load",
    "load_checkpoint",
    "load_into",
    "open",
    "open_files",
    "read",
]

if TYPE_CHECKING:
    from typing import Any

    from dumont_gpu.errors import DumontError
    from dumont_gpu.jobs.diff import DiffResult
    from dumont_gpu.jobs.info import SnapshotInfo
    from dumont_gpu.jobs.pack import PackPlan, PackResult
    from dumont_gpu.jobs.restore import RestoreResult
    from dumont_gpu.jobs.restore_plan import RestorePlan
    from dumont_gpu.loading.calls import load, load_checkpoint, load_into, open, open_files, read  # noqa: A004
    from dumont_gpu.loading.files import SnapshotFiles
    from dumont_gpu.loading.tensor_files import TensorFiles
    from dumont_gpu.progress import Progress
    from dumont_gpu.snapshot_service import SnapshotService

_HOMES = {
    "DiffResult": "jobs.diff",
    "DumontError": "errors",
    "PackPlan": "jobs.pack",
    "PackResult": "jobs.pack",
    "Progress": "progress",
    "RestorePlan": "jobs.restore_plan",
    "RestoreResult": "jobs.restore",
    "SnapshotInfo": "jobs.info",
    "SnapshotFiles": "loading.files",
    "SnapshotService": "snapshot_service",
    "TensorFiles": "loading.tensor_files",
    "load": "loading.calls",
    "load_checkpoint": "loading.calls",
    "load_into": "loading.calls",
    "open": "loading.calls",
    "open_files": "loading.calls",
    "read": "loading.calls",
}


def __getattr__(name: str) -> Any:
    """Imports public names on first use: `import dumont_gpu` itself costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
