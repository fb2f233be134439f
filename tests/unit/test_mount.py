"""`mount` shows a snapshot as the kernel shows any file system: the same tree, every byte checked, and it ends cleanly."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import cli
from support.hostile import damaged_archive
from support.program import program
from support.servers import FaultServer
from support.snapshots import pack_tree
from support.trees import write_files

from dumont_gpu import mounting

ODD = os.fsdecode(b"not utf-8 \xff")
missing = mounting.missing_for_mount()


def _mounts() -> list[str]:
    return [os.fsdecode(line.split()[1]) for line in Path("/proc/self/mounts").read_bytes().splitlines()]


def _refused() -> str:
    """Returns why nobody may mount here: a container may have the device and no right to use it."""
    if missing:
        return missing
    try:
        descriptor = os.open(mounting.DEVICE, os.O_RDWR)
    except OSError as error:
        return f"{mounting.DEVICE}: {error.strerror}"
    os.close(descriptor)
    return ""


needs_fuse = pytest.mark.skipif(bool(_refused()), reason=_refused() or "-")


class Mounted:
    """A running `dumont-gpu mount`."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self.folder = folder
        command = [program(), "mount", *map(str, arguments), str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.line = os.fsdecode(self.process.stdout.readline())
        assert self.line, os.fsdecode(self.process.communicate()[1])

    def ended(self) -> tuple[int, str]:
        """Waits for the end; returns the exit code, and what was said on stderr."""
        _, said = self.process.communicate(timeout=20)
        assert str(self.folder) not in _mounts()
        return self.process.returncode, os.fsdecode(said)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """Mounts a snapshot; all mounts end with the test."""
    mounted: list[Mounted] = []

    def start(*arguments: str | Path) -> Mounted:
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir()
        mounted.append(Mounted(folder, *arguments))
        return mounted[-1]

    yield start
    for each in mounted:
        if each.process.returncode is None:
            each.process.kill()
            each.process.communicate()
        with contextlib.suppress(OSError):
            mounting.unmount(str(each.folder))


@pytest.fixture
def packed(source: Path, snapshot: Path) -> Path:
    write_files(source, ("readme", "a b/c:d", f"{ODD}/x", "data/ünïcode", "data.x", "data/deep/er/x"))
    (source / "hollow").mkdir()
    os.link(source / "readme", source / "data/same")
    for name, target in {"link": "data/same", "absolute": "/etc/hostname", "dangling": "no", "folder": "data"}.items():
        (source / name).symlink_to(target)
    (source / "readme").chmod(0o4751)
    (source / "data").chmod(0o700)
    os.utime(source / "large", ns=(0, -1_500_000_000))
    os.utime(source / "data", ns=(0, 1_234_567_890_123_456_789))
    pack_tree(source, snapshot, chunk_size=1 << 16, owner=True)
    return snapshot


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Returns what `stat` and `readlink` say of everything below a directory, and the bytes of files."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for path in [folder, *(os.path.join(folder, name) for name in (*folders, *files))]:
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content: object = None
            if kind == stat.S_IFLNK:
                content = os.readlink(path)
            elif kind == stat.S_IFREG:
                content = Path(path).read_bytes()
            found[os.path.relpath(path, root)] = (
                status.st_mode,
                status.st_mtime_ns,
                status.st_size if kind != stat.S_IFDIR else 0,
                status.st_nlink if kind == stat.S_IFREG else 0,
                (status.st_uid, status.st_gid),
                content,
            )
    return found


# --- what is there ----------------------------------------------------------------------------------------------------


@needs_fuse
def test_the_mount_is_the_tree(packed: Path, source: Path, mount: Callable[..., Mounted]) -> None:
    mounted = mount(packed)
    assert mounted.line == f"mounted at {mounted.folder}\n"
    assert tree(source) == tree(mounted.folder)
    done = subprocess.run(["diff", "-r", "--no-dereference", source, mounted.folder], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert subprocess.run(["cmp", source / "large", mounted.folder / "large"]).returncode == 0


@needs_fuse
def test_find_and_inodes(packed: Path, source: Path, mount: Callable[..., Mounted]) -> None:
    folder = mount(packed).folder
    listed = subprocess.run(["find", ".", "-printf", "%y %s %p\\n"], cwd=folder, capture_output=True, check=True).stdout
    expected = subprocess.run(
        ["find", ".", "-printf", "%y %s %p\\n"], cwd=source, capture_output=True, check=True
    ).stdout
    files = [sorted(line for line in text.splitlines() if line[:1] != b"d") for text in (listed, expected)]
    assert files[0] == files[1]
    inodes = {name: os.lstat(folder / name).st_ino for name in ("readme", "same", "data/same", "empty", "data", ".")}
    assert inodes["readme"] == inodes["same"] == inodes["data/same"]
    assert len(set(inodes.values())) == 4
    with os.scandir(folder) as entries:
        assert {entry.name: entry.inode() for entry in entries if entry.name in inodes} == {
            name: inode for name, inode in inodes.items() if name in ("readme", "same", "empty", "data")
        }


@needs_fuse
def test_it_is_read_only_and_without_devices_or_setuid(packed: Path, mount: Callable[..., Mounted]) -> None:
    folder = mount(packed).folder
    flags = os.statvfs(folder).f_flag
    assert all(flags & flag for flag in (os.ST_RDONLY, os.ST_NODEV, os.ST_NOSUID))
    for attempt in (
        lambda: (folder / "new").touch(), lambda: (folder / "readme").write_bytes(b""), lambda: (folder / "empty").unlink(),
        lambda: (folder / "data").chmod(0o777), lambda: (folder / "d").mkdir(),
    ):  # fmt: skip
        with pytest.raises(OSError) as refused:
            attempt()
        assert refused.value.errno == errno.EROFS
    space = os.statvfs(folder)
    assert (space.f_bfree, space.f_bavail, space.f_namemax) == (0, 0, 255)
    assert space.f_blocks * space.f_frsize >= (folder / "large").stat().st_size


@needs_fuse
def test_a_part_of_a_snapshot(packed: Path, source: Path, mount: Callable[..., Mounted]) -> None:
    part = tree(mount(f"{packed}:data").folder)
    whole = tree(source / "data")
    assert part.keys() == whole.keys()
    assert part["ünïcode"] == whole["ünïcode"]
    assert part["same"][-1] == whole["same"][-1]
    assert os.listdir(mount(f"{packed}:readme").folder) == ["readme"]


@needs_fuse
def test_an_empty_snapshot(source: Path, snapshot: Path, mount: Callable[..., Mounted]) -> None:
    pack_tree(source, snapshot)
    assert os.listdir(mount(snapshot).folder) == []


@needs_fuse
def test_over_http(packed: Path, source: Path, mount: Callable[..., Mounted], fault_server: FaultServer) -> None:
    fault_server.data = packed.read_bytes()
    mounted = mount(fault_server.url, "--connections", "2", "--memory", "64MiB")
    before = len(fault_server.requests)
    assert (mounted.folder / "readme").read_bytes() == (source / "readme").read_bytes()
    assert len(fault_server.requests) <= before + 1
    assert tree(source) == tree(mounted.folder)


# --- readers ----------------------------------------------------------------------------------------------------------


@needs_fuse
def test_parallel_readers(packed: Path, source: Path, mount: Callable[..., Mounted]) -> None:
    folder, content = mount(packed).folder, (source / "large").read_bytes()
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda _: subprocess.run(["cmp", source / "large", folder / "large"]).returncode, range(8))
        )
    assert done == [0] * 8

    def read(number: int) -> bool:
        start = number * 7919 % len(content)
        with (folder / "large").open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(70_000) == content[start : start + 70_000]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(200)))


@needs_fuse
def test_damage_is_an_error_of_the_file_alone(tmp_path: Path, mount: Callable[..., Mounted]) -> None:
    path = damaged_archive(tmp_path / "damaged.dumont")
    mounted = mount(path)
    for _ in range(3):
        with pytest.raises(OSError) as failed:
            (mounted.folder / "weights").read_bytes()
        assert failed.value.errno == errno.EIO
        assert (mounted.folder / "sound").read_bytes() == b"s" * 5000
    code, said = mounted.end()
    assert code == 130
    assert said.count("\n") == 2
    assert said.splitlines()[0].startswith(f"dumont-gpu: weights: {path}: chunk 1: its ")
    assert said.splitlines()[1] == "dumont-gpu: stopped"


# --- its end ----------------------------------------------------------------------------------------------------------


@needs_fuse
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts(number: int, packed: Path, mount: Callable[..., Mounted]) -> None:
    mounted = mount(packed)
    assert mounted.end(number) == (128 + number, "dumont-gpu: stopped\n")
    assert os.listdir(mounted.folder) == []


@needs_fuse
def test_whoever_unmounts_ends_the_command(packed: Path, mount: Callable[..., Mounted]) -> None:
    mounted = mount(packed)
    subprocess.run(["umount", mounted.folder], check=True)
    assert mounted.ended() == (0, "")


@needs_fuse
def test_a_signal_while_a_file_is_open(packed: Path, mount: Callable[..., Mounted]) -> None:
    mounted = mount(packed)
    size = (mounted.folder / "large").stat().st_size
    file = os.open(mounted.folder / "large", os.O_RDONLY)
    assert len(os.read(file, 10)) == 10
    before = time.monotonic()
    assert mounted.end(signal.SIGTERM)[0] == 143
    assert time.monotonic() - before < 15
    with pytest.raises(OSError):
        os.pread(file, 10, size - 10)
    with contextlib.suppress(OSError):  # nobody is there to be told
        os.close(file)
    assert os.listdir(mounted.folder) == []


@needs_fuse
def test_killed_it_leaves_a_mount_that_can_be_taken_away(packed: Path, mount: Callable[..., Mounted]) -> None:
    mounted = mount(packed)
    mounted.process.kill()
    mounted.process.communicate()
    with pytest.raises(OSError):
        (mounted.folder / "nothing").stat()
    mounting.unmount(str(mounted.folder))
    assert os.listdir(mounted.folder) == []


# --- what cannot be mounted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "says"),
    [("none", "none: no such directory"), ("file", "file: not a directory"), ("full", "full: is not empty")],
)
def test_places_that_are_refused(folder: str, says: str, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full/x").mkdir(parents=True)
    ran = cli("mount", packed, tmp_path / folder)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert says in ran.stderr


@needs_fuse
def test_snapshots_that_are_refused(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("mount", tmp_path / "none.dumont", tmp_path / "empty").returncode == 10
    assert cli("mount", packed, tmp_path / "empty", "--expect", "sha256:" + "0" * 64).returncode == 4
    assert os.listdir(tmp_path / "empty") == []


def test_what_a_machine_may_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "DEVICE", str(tmp_path / "none"))
    assert "none: a container needs --device" in mounting.missing_for_mount()
    monkeypatch.setattr(mounting, "DEVICE", "/dev/null")
    monkeypatch.setattr(mounting.ctypes.util, "find_library", lambda name: None)
    assert mounting.missing_for_mount() == "no libfuse: install the package fuse3 of this system"
    monkeypatch.setattr(mounting.ctypes.util, "find_library", lambda name: "libfuse.so")
    monkeypatch.setattr(mounting.importlib.util, "find_spec", lambda name: None)
    assert mounting.missing_for_mount() == 'no mfusepy: pip install "dumont-gpu[mount]"'


@needs_fuse
def test_what_libfuse_says_is_the_error(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dumont_gpu.errors import DumontError
    from dumont_gpu.loading.files import SnapshotFiles

    monkeypatch.setattr(mounting, "check_mountable", lambda folder: None)
    with SnapshotFiles(str(packed)) as files:
        mounted = mounting.Mount(files, str(tmp_path / "gone"), print)
        with pytest.raises(DumontError, match="gone: cannot be mounted: .*fuse"):
            mounted.__enter__()


@needs_fuse
@pytest.mark.parametrize("library", ["fuse", "fuse3"])
def test_both_generations_of_libfuse(library: str, packed: Path, source: Path, mount: Callable[..., Mounted],
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    if mounting.ctypes.util.find_library(library) is None:
        pytest.skip(f"lib{library} is not installed")
    monkeypatch.setenv("FUSE_LIBRARY_NAME", library)
    mounted = mount(packed)
    assert tree(source) == tree(mounted.folder)
    assert mounted.end()[0] == 130
