"""Describes the machine, its tools and the code that is measured, without paths of this machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

OTHER_PACKAGE = "THE INSTALLED PACKAGE IS NOT THIS CHECKOUT"
PACKAGES = ("dumont-gpu", "lz4", "numpy", "typer", "zipnn", "zstandard")
VERSION_FLAGS = {
    "borg": "--version",
    "cp": "--version",
    "lz4": "--version",
    "mksquashfs": "-version",
    "restic": "version",
    "sync": "--version",
    "tar": "--version",
    "unsquashfs": "-version",
    "zstd": "--version",
}


def cpu_model() -> str:
    """Returns the processor's name as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()  # aarch64 kernels name no model


def cpu_slug() -> str:
    """Returns the processor's name for use in a file name."""
    return slug(cpu_model().replace("(R)", "").replace("(TM)", ""))


def slug(name: str) -> str:
    """Returns `name` in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def file_system(place: Path) -> str:
    """Returns the type of the file system that `place` lies on."""
    mounts = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mount_point, kind, *_ = line.split(" ")
        mounts.append((mount_point.encode().decode("unicode_escape"), kind))
    resolved = place.resolve()
    inside = [(len(Path(point).parts), kind) for point, kind in mounts if resolved.is_relative_to(point)]
    return max(inside, default=(0, "unknown"))[1]


def memory_folder(needed: int) -> Path | None:
    """Returns a directory that lies in memory and has room for `needed` bytes twice, if this machine has one."""
    folder = Path("/dev/shm")
    if not folder.is_dir() or file_system(folder) != "tmpfs" or not os.access(folder, os.W_OK):
        return None
    status = os.statvfs(folder)
    free = min(status.f_bavail * status.f_frsize, _available_memory())
    return folder if free >= 2 * needed else None


def _available_memory() -> int:
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    return int(found[1]) * 1024 if found else 0


def describe(tools: Iterable[str] = (), checkout: Path | None = None) -> dict[str, str]:
    """Returns the facts that a reader needs to judge figures from this machine.

    Args:
        tools: commands that were measured.
        checkout: the repository; its commit is named.
    """
    from dumont_gpu import native

    found = {
        "date": now(),
        **({"commit": commit(checkout)} if checkout else {}),
        "CPU": f"{cpu_model()}, {cores()} cores, {native.cpu_path()} kernels",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.1f} GiB",
        "load before": f"{os.getloadavg()[0]:.2f} (average of one minute)",
        "kernel": f"{platform.system()} {platform.release()}, transparent huge pages: {_huge_pages()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {version}" for name in PACKAGES if (version := _package(name))),
    }
    versions = ", ".join(f"{tool} {_tool_version(tool)}" for tool in sorted(set(tools)) if shutil.which(tool))
    return found | ({"tools": versions} if versions else {})


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def commit(checkout: Path) -> str:
    """The commit of a checkout, whether files differ from it, and whether another package is installed.

    Where git cannot tell, DUMONT_COMMIT may.
    """
    head = _git(checkout, "rev-parse", "--short=12", "HEAD")
    if not head:
        told = os.environ.get("DUMONT_COMMIT")
        return f"{told} (as told: no git here)" if told else "unknown"
    changed = _git(checkout, "status", "--porcelain", "--", "dumont_gpu", "kernels")
    text = head + (", with uncommitted changes to the package" if changed else "")
    return text if same_python(checkout) else f"{text}; {OTHER_PACKAGE}"


def same_python(checkout: Path) -> bool:
    """Whether the installed Python files are those of the checkout; the compiled library cannot be compared."""
    import dumont_gpu

    return digest_of([Path(p) for p in dumont_gpu.__path__], "*.py") == digest_of([checkout / "dumont_gpu"], "*.py")


def digest_of(folders: Iterable[Path], *patterns: str) -> str:
    """Returns a digest of all files below `folders` that match, with their paths relative to those."""
    below = {file.relative_to(folder): file for folder in folders for name in patterns for file in folder.rglob(name)}
    digest = hashlib.sha256()
    for name in sorted(below):
        digest.update(name.as_posix().encode() + b"\0" + below[name].read_bytes())
    return digest.hexdigest()


def _git(checkout: Path, *arguments: str) -> str:
    """The output of git; empty where there is no git, or no checkout."""
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()


def _huge_pages() -> str:
    try:
        choices = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8")
    except OSError:
        return "none"
    return choices.partition("[")[2].partition("]")[0]


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _tool_version(tool: str) -> str:
    if tool not in VERSION_FLAGS:
        return "(version unknown)"
    done = subprocess.run([tool, VERSION_FLAGS[tool]], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
    return found[0] if found else "(version unknown)"
