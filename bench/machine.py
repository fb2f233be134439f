"""Describes the machine and the checkout that a developer's benchmark measures."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

from dumont_gpu.bench import machine
from dumont_gpu.bench.machine import cores, cpu_slug, file_system

REPOSITORY = Path(__file__).resolve().parent.parent
__all__ = ["REPOSITORY", "cores", "cpu_slug", "describe", "file_system"]


def describe(tools: Iterable[str] = ()) -> dict[str, str]:
    """Returns what a reader needs to judge figures from this machine; `tools` are commands."""
    found = machine.describe(tools)
    return {"date": found.pop("date"), "commit": _commit(), **found}


def _commit() -> str:
    """The commit of this checkout, whether files differ from it, and whether what is installed is another package."""
    git = ["git", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "not a git checkout"
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "dumont_gpu", "kernels"], capture_output=True, text=True, check=False
    )
    text = head.stdout.strip() + (", with uncommitted changes to the package" if changed.stdout.strip() else "")
    return text if _installed_is_checkout() else f"{text}; THE INSTALLED PACKAGE IS NOT THIS CHECKOUT"


def _installed_is_checkout() -> bool:
    """Whether the installed Python files are those of this checkout; of the compiled library nothing tells."""
    import dumont_gpu

    installed, checkout = _digest([Path(p) for p in dumont_gpu.__path__]), _digest([REPOSITORY / "dumont_gpu"])
    return installed == checkout


def _digest(folders: Iterable[Path]) -> str:
    files = {file.relative_to(folder).as_posix(): file for folder in folders for file in folder.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].read_bytes())
    return digest.hexdigest()
