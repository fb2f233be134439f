"""Limits of a container: read from a double of /proc and /sys, and obeyed by a job's defaults."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import PROGRAM, cli
from support.snapshots import GOLDEN

from dumont_gpu.backends.cuda import SLOTS
from dumont_gpu.errors import UsageError
from dumont_gpu.jobs.resources import ChunkRoom, default_threads, memory_share, writer_count
from dumont_gpu.limits import core_limits, memory_limits, open_files

MiB = 1 << 20
GiB = 1 << 30
V2_MOUNT = "35 24 0:30 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "40 25 0:35 {root} /sys/fs/cgroup/{name} rw,nosuid - cgroup cgroup rw,{name}"


class Machine:
    """A double of the files in which a kernel shows a process's limits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: {64 * MiB} kB\nMemFree: 1 kB\nMemAvailable: {60 * MiB} kB\n")  # 64 GiB
        self.groups: list[str] = []
        self.mounts: list[str] = ["22 1 8:1 / / rw - ext4 /dev/root rw", "23 22 0:5 / /proc rw - proc proc rw"]

    def write(self, path: str, content: str | bytes) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def v2(self, group: str, mount_root: str = "/") -> None:
        self.groups.append(f"0::{group}")
        self.mounts.append(V2_MOUNT.format(root=mount_root))
        self._say()

    def v1(self, name: str, group: str, mount_root: str = "/") -> None:
        self.groups.append(f"4:{name}:{group}")
        self.mounts.append(V1_MOUNT.format(root=mount_root, name=name))
        self._say()

    def _say(self) -> None:
        self.write("proc/self/cgroup", "\n".join(self.groups) + "\n")
        self.write("proc/self/mountinfo", "\n".join(self.mounts) + "\n")

    @property
    def memory(self) -> tuple[float, float, str]:
        """The tightest limit of memory: value, rest, source."""
        limit = memory_limits(self.root)[-1]
        return limit.value, limit.left, limit.source

    @property
    def cores(self) -> tuple[float, str]:
        limit = core_limits(self.root)[-1]
        return limit.value, limit.source


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """64 cores and 64 GiB, of which nothing is limited."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2 if kind != resource.RLIMIT_NOFILE else (1 << 20,) * 2)  # fmt: skip
    return Machine(tmp_path)


# --- limits as read ---------------------------------------------------------------------------------------------------


def test_a_machine_without_limits_is_bound_by_its_memory_and_cores(machine: Machine) -> None:
    assert machine.memory == (64 * GiB, 60 * GiB, "physical memory")
    assert machine.cores == (64, "this process's affinity")
    assert default_threads(machine.root) == 64
    assert memory_share(machine.root) == 15 * GiB


def test_version_2(machine: Machine) -> None:
    machine.v2("/docker/abc")
    machine.write("sys/fs/cgroup/docker/abc/memory.max", f"{GiB}\n")
    machine.write("sys/fs/cgroup/docker/abc/memory.high", "max\n")
    machine.write("sys/fs/cgroup/docker/abc/memory.current", f"{300 * MiB}\n")
    machine.write("sys/fs/cgroup/docker/abc/memory.stat", f"anon 5\nactive_file {MiB}\ninactive_file {99 * MiB}\n")
    machine.write("sys/fs/cgroup/docker/abc/cpu.max", "150000 100000\n")
    assert machine.memory == (GiB, GiB - 200 * MiB, "/sys/fs/cgroup/docker/abc/memory.max")
    assert machine.cores == (1.5, "/sys/fs/cgroup/docker/abc/cpu.max")
    assert default_threads(machine.root) == 2


def test_version_1(machine: Machine) -> None:
    machine.v1("memory", "/box")
    machine.v1("cpu,cpuacct", "/box")
    machine.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{GiB}\n")
    machine.write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", f"{500 * MiB}\n")
    stat = f"active_file 1\ninactive_file 1\ntotal_active_file {100 * MiB}\ntotal_inactive_file {100 * MiB}\n"
    machine.write("sys/fs/cgroup/memory/box/memory.stat", stat)
    machine.write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "50000\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n")
    assert machine.memory == (GiB, GiB - 300 * MiB, "/sys/fs/cgroup/memory/box/memory.limit_in_bytes")
    assert machine.cores == (0.5, "/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us")
    assert default_threads(machine.root) == 1


def test_both_versions_at_once(machine: Machine) -> None:
    machine.v1("memory", "/box")
    machine.v2("/")
    machine.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{2 * GiB}\n")
    machine.write("sys/fs/cgroup/cpu.max", "300000 100000\n")
    assert machine.memory == (2 * GiB, 2 * GiB, "/sys/fs/cgroup/memory/box/memory.limit_in_bytes")
    assert machine.cores == (3, "/sys/fs/cgroup/cpu.max")


@pytest.mark.parametrize(
    ("inner", "outer", "expected"), [("max", "1000000000", 10**9), ("10", "max", 10), ("7", "9", 7)]
)
def test_the_tightest_of_nested_groups_counts(machine: Machine, inner: str, outer: str, expected: int) -> None:
    machine.v2("/slice/scope")
    machine.write("sys/fs/cgroup/slice/scope/memory.max", inner)
    machine.write("sys/fs/cgroup/slice/memory.high", outer)
    assert machine.memory[0] == expected


@pytest.mark.parametrize(
    ("mount_root", "group", "folder"),
    [
        ("/docker/abc", "/docker/abc", ""),  # a container sees its own group as the mount's root
        ("/docker/abc", "/docker/abc/inner", "inner"),
        ("/docker/abc", "/docker/abcdef", ""),
        ("/", "/../../outside", ""),  # a namespace that begins below this process's group
        ("/a b", "/a b/c", "c"),
        ("/", "/gone/away", ""),
    ],
)
def test_the_group_is_found_below_what_is_mounted(machine: Machine, mount_root: str, group: str, folder: str) -> None:
    machine.v2(group, mount_root.replace(" ", "\\040"))
    machine.write(f"sys/fs/cgroup/{folder}/memory.max", "12345678")
    assert machine.memory[0] == 12345678


def test_other_groups_do_not_count(machine: Machine) -> None:
    machine.v2("/mine")
    machine.write("sys/fs/cgroup/mine/memory.max", "max")
    machine.write("sys/fs/cgroup/yours/memory.max", "1000")
    machine.v1("pids", "/mine")
    machine.write("sys/fs/cgroup/pids/mine/memory.limit_in_bytes", "1000")
    assert machine.memory[2] == "physical memory"


@pytest.mark.parametrize(
    "content",
    [
        "max",
        "9223372036854771712",
        "18446744073709551615",
        "0",
        "-1",
        "",
        "many",
        "1e6",
        "12 34 56",
        b"\xff\xfe",
        "9" * 5000,
    ],
)
def test_what_is_no_limit_is_none(machine: Machine, content: str | bytes) -> None:
    machine.v2("/g")
    machine.v1("memory", "/g")
    machine.v1("cpu", "/g")
    for path in (
        "g/memory.max",
        "g/memory.high",
        "memory/g/memory.limit_in_bytes",
        "g/cpu.max",
        "cpu/g/cpu.cfs_quota_us",
    ):
        machine.write(f"sys/fs/cgroup/{path}", content)
    machine.write("sys/fs/cgroup/cpu/g/cpu.cfs_period_us", "0")
    assert machine.memory[2] == "physical memory"
    assert machine.cores[0] == 64


@pytest.mark.parametrize(
    "path", ["proc/self/cgroup", "proc/self/mountinfo", "proc/meminfo", "sys/fs/cgroup/g/memory.stat"]
)
@pytest.mark.parametrize(
    "content", ["", "\0" * 50, "0:", "0::\n:::\n - cgroup2\n", b"\xff" * 99, "MemTotal: kB\nMemTotal:\n"]
)
def test_garbage_stops_nothing(machine: Machine, path: str, content: str | bytes) -> None:
    machine.v2("/g")
    machine.write("sys/fs/cgroup/g/memory.max", f"{GiB}")
    machine.write(path, content)
    assert default_threads(machine.root) >= 1
    assert memory_share(machine.root) >= 0
    assert ChunkRoom.of_machine(0, MiB, root=machine.root).chunks(2) >= 1


def test_without_proc_and_sys_the_defaults_stay(machine: Machine) -> None:
    nowhere = machine.root / "nowhere"
    assert memory_limits(nowhere) == []
    assert default_threads(nowhere) == 64
    assert ChunkRoom.of_machine(0, 64 * MiB, root=nowhere).chunks(64) == 65


def test_limits_of_the_process_itself_count(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: 800 * GiB, resource.RLIMIT_DATA: 700 * GiB, resource.RLIMIT_NOFILE: 80}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], limits[kind]))
    found = {limit.source: limit for limit in memory_limits(machine.root)}
    assert found["RLIMIT_AS"].value == 800 * GiB
    assert 0 < found["RLIMIT_AS"].left < 800 * GiB
    assert 0 < found["RLIMIT_DATA"].left < 700 * GiB
    assert open_files().value == 80
    assert default_threads(machine.root) == 10


# --- defaults within the limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "chunk_size", "expected"),
    [
        (100 * GiB, 64 * MiB, 384 * MiB),
        (2 * GiB, 64 * MiB, 384 * MiB),
        (1 * GiB, 64 * MiB, 256 * MiB),
        (250 * MiB, 64 * MiB, 128 * MiB),  # a chunk of the default size: no job works with less
        (250 * MiB, 1 * GiB, 2 * GiB),
    ],
)
def test_buffers_take_a_quarter_of_what_is_left(machine: Machine, limit: int, chunk_size: int, expected: int) -> None:
    machine.v2("/")
    machine.write("sys/fs/cgroup/memory.max", str(limit))
    assert ChunkRoom.of_machine(0, chunk_size, root=machine.root).size(threads=2) == expected


@pytest.mark.parametrize(
    ("cores", "left", "alone", "with_device"),
    [
        (2, 60 * GiB, 3, 7),  # 384 MiB: as much as ever
        (4, 60 * GiB, 5, 9),
        (16, 60 * GiB, 23, 27),
        (64, 60 * GiB, 71, 75),
        (4, 1 * GiB, 2, 2),
        (16, 10 * GiB, 20, 20),
        (64, 10 * GiB, 20, 20),
    ],
)
def test_chunks_in_flight_follow_cores_slots_and_memory(
    cores: int, left: int, alone: int, with_device: int, machine: Machine
) -> None:
    """A restore's chunks, of the default size, on machines of several sizes."""
    machine.v2("/")
    machine.write("sys/fs/cgroup/memory.max", str(left))
    room = ChunkRoom.of_machine(0, 64 * MiB, others=writer_count(cores) - 1, root=machine.root)
    assert room.chunks(cores) == alone
    assert room.chunks(cores + SLOTS) == with_device


def test_writers_follow_the_cores() -> None:
    assert [writer_count(cores) for cores in (1, 2, 4, 8, 16, 64)] == [2, 2, 2, 4, 8, 8]


def test_little_memory_means_few_threads(machine: Machine) -> None:
    machine.v2("/")
    for limit, jobs in ((200 * MiB, 1), (1 * GiB, 4), (8 * GiB, 32), (32 * GiB, 64)):
        machine.write("sys/fs/cgroup/memory.max", str(limit))
        assert default_threads(machine.root) == jobs


def test_what_is_given_wins_over_the_limits() -> None:
    assert ChunkRoom.of_machine(10 * GiB, MiB).chunks(100) == 101
    assert ChunkRoom.of_machine(6 * MiB, MiB).chunks(100) == 3
    assert ChunkRoom.of_machine(6 * MiB, MiB, buffers=3).chunks(100) == 2
    with pytest.raises(UsageError, match="at least 3MiB"):
        ChunkRoom.of_machine(2 * MiB - 1, MiB).chunks(1)
    with pytest.raises(UsageError, match="at least 4MiB"):
        ChunkRoom.of_machine(3 * MiB - 1, MiB, buffers=3).chunks(1)


def test_each_thread_that_encodes_needs_its_context(machine: Machine) -> None:
    assert ChunkRoom(6 * MiB, MiB, context=MiB).chunks(100) == 2
    assert ChunkRoom(5 * MiB, MiB, context=MiB).chunks(100) == 1  # no second thread, so no second chunk
    assert ChunkRoom(6 * MiB, MiB, others=2, context=2 * MiB).chunks(1) == 2  # chunks that wait need no context
    assert ChunkRoom(9 * MiB, MiB, others=2, context=2 * MiB).chunks(1) == 3
    with pytest.raises(UsageError, match="at least 4MiB"):
        ChunkRoom(3 * MiB - 1, MiB, context=MiB).chunks(4)
    assert ChunkRoom.of_machine(0, MiB, context=MiB, root=machine.root).size(threads=2) == 3 * 2 * MiB + 2 * MiB


def test_doctor_shows_each_limit_with_its_place() -> None:
    line = f'ulimit -Sn 100; ulimit -Hn 120; ulimit -v 4000000; exec "{PROGRAM}" doctor --json'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    shown = {
        what: [f["detail"] for f in findings if f["what"] == what]
        for what in ("Memory", "Cores", "Open files", "A job takes")
    }
    assert shown["Memory"][0].endswith("left: physical memory")
    assert any(detail.startswith("3.8 GiB, ") and detail.endswith("left: RLIMIT_AS") for detail in shown["Memory"])
    assert f"{len(os.sched_getaffinity(0))}: this process's affinity" in shown["Cores"]
    assert shown["Open files"] == ["120: RLIMIT_NOFILE"]
    assert shown["A job takes"][0].startswith("--jobs ")


def test_a_job_follows_the_affinity_of_its_process() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from dumont_gpu.jobs.resources import default_threads; print(default_threads())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_memory_may_be_left_to_the_limits_by_name(tmp_path: Path) -> None:
    assert cli("restore", GOLDEN / "example.dumont", tmp_path / "t", "--memory", "0").returncode == 0
