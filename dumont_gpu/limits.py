"""The memory, cores and descriptors that this process may use, each limit with its source.

A container is limited by its control group and every group above, in version 1 or 2 of cgroups or both; the kernel
enforces the tightest limit. A limit that cannot be read or makes no sense is ignored: a wrong guess must stop no job.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dumont_gpu.sizes import KiB

_ROOT: Final = Path("/")
_NO_LIMIT: Final = 1 << 60  # cgroup v1 says "none" as a number of bytes near 2^63
_OCTAL: Final = re.compile(r"\\([0-7]{3})")  # how mountinfo writes blanks
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in bytes of memory, cores or descriptors."""

    value: float
    left: float  # still available now
    source: str  # the file or the call that sets the limit


def memory_limits(root: Path = _ROOT) -> list[Limit]:
    """Returns the limits set by physical memory, control groups and this process, in bytes, the tightest last.

    A group's page cache counts as available: the kernel gives up cached pages.

    Args:
        root: the directory that holds /proc and /sys; tests pass another.
    """
    found = [*_physical(root), *_group_memory(root), *_own_memory()]
    return sorted(found, key=lambda limit: limit.left, reverse=True)


def core_limits(root: Path = _ROOT) -> list[Limit]:
    """Returns the cores of this process's affinity, and the CPU time that control groups allow; the tightest last."""
    cores = len(os.sched_getaffinity(0))
    found = [Limit(cores, cores, "this process's affinity"), *_group_cores(root)]
    return sorted(found, key=lambda limit: limit.value, reverse=True)


def open_files() -> Limit:
    """Returns the limit on this process's open descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limit(soft, soft, f"RLIMIT_NOFILE, which may be raised to {hard}" if soft != hard else "RLIMIT_NOFILE")


# --- memory -----------------------------------------------------------------------------------------------------------


def _physical(root: Path) -> Iterator[Limit]:
    fields = _numbers(root / "proc/meminfo")
    total, available = fields.get("MemTotal:", 0) * KiB, fields.get("MemAvailable:", 0) * KiB
    if total:
        yield Limit(total, available or total, "physical memory")


def _group_memory(root: Path) -> Iterator[Limit]:
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limit = _number(group / name)
            if limit is None or not 0 < limit < _NO_LIMIT:
                continue
            used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
            stat = _numbers(group / "memory.stat")
            # In version 1 the names without `total_` leave out the groups below.
            cached = sum(stat.get(f"total_{kind}_file", stat.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))
            yield Limit(limit, max(0, limit - max(0, used - cached)), f"/{(group / name).relative_to(root)}")


def _own_memory() -> Iterator[Limit]:
    """Yields the limits of the address space and of the data segment (`ulimit -v` and `-d`)."""
    try:
        pages = [int(field) for field in Path("/proc/self/statm").read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        pages = [0] * 7
    for name, used in (("RLIMIT_AS", pages[0]), ("RLIMIT_DATA", pages[5])):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            yield Limit(soft, max(0, soft - used * _PAGE), name)


# --- cores ------------------------------------------------------------------------------------------------------------


def _group_cores(root: Path) -> Iterator[Limit]:
    for group in _groups(root, "cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        source = group / "cpu.cfs_quota_us"
        if quota is None:
            source = group / "cpu.max"
            quota, period = _pair(source)
        if quota and period and quota > 0 and period > 0:
            yield Limit(quota / period, quota / period, f"/{source.relative_to(root)}")


# --- control groups ---------------------------------------------------------------------------------------------------


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yields the directories of control groups that may limit `controller`, from this process's group upwards."""
    mounts = list(_mounts(root, controller))
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = 2 if number == "0" and not controllers else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        for mount_version, mount_root, mount_point in mounts:
            if mount_version == version:
                yield from _upwards(root / mount_point.lstrip("/"), _below(mount_root, path))


def _mounts(root: Path, controller: str) -> Iterator[tuple[int, str, str]]:
    """Yields the version, the group at the mount's root, and the mount point of each mounted hierarchy."""
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, file_system = line.partition(" - ")
        fields, about = mount.split(" "), file_system.split(" ")
        if len(fields) < 5 or len(about) < 3:
            continue
        mount_root, mount_point = _unescaped(fields[3]), _unescaped(fields[4])
        if about[0] == "cgroup2":
            yield 2, mount_root, mount_point
        elif about[0] == "cgroup" and controller in about[2].split(","):
            yield 1, mount_root, mount_point


def _below(mount_root: str, path: str) -> list[str]:
    """Returns the path components from a mount's root to a group; none if the mount does not contain the group."""
    inner = path if mount_root == "/" else path.removeprefix(mount_root) if _within(mount_root, path) else ""
    parts = [part for part in inner.split("/") if part]
    return [] if ".." in parts else parts


def _within(mount_root: str, path: str) -> bool:
    return path == mount_root or path.startswith(f"{mount_root}/")


def _upwards(top: Path, way: list[str]) -> Iterator[Path]:
    for length in range(len(way), -1, -1):
        folder = top.joinpath(*way[:length])
        if folder.is_dir():
            yield folder


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


# --- files of the kernel ----------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _number(path: Path) -> int | None:
    return _integer(_text(path).strip())


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else None


def _pair(path: Path) -> tuple[int | None, int | None]:
    fields = _text(path).split()
    return (_integer(fields[0]), _integer(fields[1])) if len(fields) == 2 else (None, None)


def _numbers(path: Path) -> Mapping[str, int]:
    """Returns the number of each line that consists of a name and a number; skips other lines."""
    found = {}
    for line in _lines(path):
        fields = line.split()
        if len(fields) >= 2 and (value := _integer(fields[1])) is not None:
            found[fields[0]] = value
    return found
