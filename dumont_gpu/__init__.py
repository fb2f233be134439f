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
    "SnapshotInfo",
    "SnapshotService",
    "__version__",
]

if TYPE_CHECKING:
    from typing import Any

    from dumont_gpu.errors import DumontError
    from dumont_gpu.jobs.diff import DiffResult
    from dumont_gpu.jobs.info import SnapshotInfo
    from dumont_gpu.jobs.pack import PackPlan, PackResult
    from dumont_gpu.jobs.restore import RestoreResult
    from dumont_gpu.jobs.restore_plan import RestorePlan
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
    "SnapshotService": "snapshot_service",
}


def __getattr__(name: str) -> Any:
    """Imports public names on first use: `import dumont_gpu` itself costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
