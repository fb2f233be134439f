"""Describes the machine and the checkout that a developer's benchmark measures."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from dumont_gpu.bench import machine
from dumont_gpu.bench.machine import cores, cpu_slug, file_system

REPOSITORY = Path(__file__).resolve().parent.parent
__all__ = ["REPOSITORY", "commit", "cores", "cpu_slug", "describe", "file_system"]


def describe(tools: Iterable[str] = ()) -> dict[str, str]:
    """Returns what a reader needs to judge figures from this machine; `tools` are commands."""
    found = machine.describe(tools)
    return {"date": found.pop("date"), "commit": commit(), **found}


def commit() -> str:
    """The commit of this checkout, whether files differ from it, and whether what is installed is another package.

    Where git cannot tell, DUMONT_COMMIT may.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        told = os.environ.get("DUMONT_COMMIT")
        return f"{told} (as told: no git here)" if told else "unknown"
    changed = _git("status", "--porcelain", "--", "dumont_gpu", "kernels")
    text = head + (", with uncommitted changes to the package" if changed else "")
    return text if _installed_is_checkout() else f"{text}; THE INSTALLED PACKAGE IS NOT THIS CHECKOUT"


def _git(*arguments: str) -> str:
    """What git says of this checkout; nothing where there is no git, or no checkout."""
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()


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
