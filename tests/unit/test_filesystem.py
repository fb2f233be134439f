"""`dumont://` is a read-only file system of fsspec: what is where, every byte checked, links, forks, replaced snapshots."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from support.hostile import Archive, damaged_archive
from support.servers import FaultServer, flipped, served, status
from support.snapshots import pack_tree
from support.trees import write_files

from dumont_gpu.errors import DamagedError, DumontError, UsageError
from dumont_gpu.storage.local import LocalSource

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.local import LocalFileSystem  # noqa: E402
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests  # noqa: E402

from dumont_gpu.filesystem import DumontFileSystem  # noqa: E402

ODD = os.fsdecode(b"not utf-8 \xff")
TIME = 1_600_000_000


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    yield
    DumontFileSystem.clear_instance_cache()
    gc.collect()  # closes what nobody uses any more


@pytest.fixture
def packed(source: Path, snapshot: Path) -> Path:
    write_files(source, ("readme", "a b/c:d", f"{ODD}/x", "data/ünïcode.csv", "data/deep/er/x.csv"))
    (source / "hollow").mkdir()
    (source / "readme").chmod(0o640)
    os.utime(source / "readme", ns=(0, TIME * 10**9 + 5 * 10**8))
    for name, target in LINKS.items():
        (source / name).symlink_to(target)
    pack_tree(source, snapshot, chunk_size=1 << 16)
    return snapshot


LINKS = {
    "link": "readme",
    "data/up": "../data/deep/../ünïcode.csv",
    "chain": "data/up",
    "folder": "data/deep",
    "circle": "circle",
    "around": "data/../around2",
    "around2": "around",
    "data/deep/top": "../..",
    "dangling": "nothing",
    "out": "../source/readme",
    "absolute": "/etc/hostname",
    "through": "readme/x",
}
LEADS_OUT = ("out", "absolute")
CIRCLES = ("circle", "around")
LEADS_NOWHERE = ("dangling", "through")


@pytest.fixture
def fs(packed: Path) -> DumontFileSystem:
    return DumontFileSystem(str(packed))


# --- what there is ----------------------------------------------------------------------------------------------------


def test_lists_hold_what_is_directly_in_a_directory(fs: DumontFileSystem, source: Path) -> None:
    assert sorted(os.listdir(source)) == sorted(fs.ls("", detail=False))
    assert fs.ls("data", detail=False) == ["data/deep", "data/up", "data/ünïcode.csv"]
    assert fs.ls("/data/", detail=False) == fs.ls("dumont://data", detail=False) == fs.ls("data", detail=False)
    assert fs.ls("hollow") == []
    assert fs.ls("readme", detail=False) == ["readme"]
    assert fs.ls(ODD, detail=False) == [f"{ODD}/x"]
    with pytest.raises(FileNotFoundError):
        fs.ls("nothing")


def test_a_name_between_a_directory_and_its_content(source: Path, snapshot: Path) -> None:
    """In byte order, `a.b` and `a b` stand between `a` and `a/x`."""
    for name in ("a/x", "a.b/y", "a b/z", "a0", "a/x.y/1", "a/x0"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if name != "a/x":
            (source / name).touch()
    (source / "a/x").mkdir()
    (source / "a/x/deep").touch()
    pack_tree(source, snapshot)
    fs = DumontFileSystem(str(snapshot))
    for folder, folders, files in os.walk(source):
        inside = os.path.relpath(folder, source) if folder != str(source) else ""
        assert sorted([*folders, *files]) == sorted(name.rpartition("/")[2] for name in fs.ls(inside, detail=False))


def test_what_is_said_of_a_file(fs: DumontFileSystem) -> None:
    info = fs.info("readme")
    assert info == {"name": "readme", "size": 18, "type": "file", "mode": 0o100640, "mtime": TIME + 0.5}
    assert fs.modified("readme") == datetime.fromtimestamp(TIME + 0.5, tz=timezone.utc)
    assert {**info, "name": "same"} == fs.info("same")
    assert (fs.size("empty"), fs.size("holes"), fs.isfile("empty")) == (0, 3 << 20, True)
    assert fs.info("")["type"] == fs.info("dumont://")["type"] == "directory"
    assert (fs.isdir("data"), fs.isfile("data"), fs.isdir(""), fs.exists("nothing")) == (True, False, True, False)


def test_owners_are_said_if_they_were_recorded(source: Path, snapshot: Path) -> None:
    (source / "x").touch()
    pack_tree(source, snapshot, owner=True)
    info = DumontFileSystem(str(snapshot)).info("x")
    assert (info["uid"], info["gid"]) == (os.getuid(), os.getgid())


def test_walk_find_and_glob(fs: DumontFileSystem, source: Path) -> None:
    files = {
        os.path.relpath(os.path.join(folder, name), source) for folder, _, names in os.walk(source) for name in names
    }
    links = {name for name in LINKS if os.path.isdir(source / name)}
    assert files | links == set(fs.find(""))
    assert fs.glob("data/**/*.csv") == ["data/deep/er/x.csv", "data/ünïcode.csv"]
    assert fs.glob("*d*e") == ["readme"]
    assert fs.du("data/deep/er") == fs.size("data/deep/er/x.csv")


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_are_followed_within_the_snapshot(fs: DumontFileSystem, source: Path) -> None:
    for name in ("link", "data/up", "chain", "folder/er/x.csv", "data/deep/top/readme", "folder/top/data/up"):
        assert (source / name).read_bytes() == fs.cat_file(name), name
    info = fs.info("chain")
    assert (info["type"], info["islink"], info["destination"]) == ("file", True, "data/up")
    assert info["size"] == (source / "chain").stat().st_size


def test_a_link_to_a_directory_ends_a_walk_and_can_be_entered(fs: DumontFileSystem) -> None:
    listed = {info["name"]: info["type"] for info in fs.ls("")}
    assert (listed["folder"], listed["data"], listed["link"]) == ("link", "directory", "file")
    assert (fs.isdir("folder"), fs.info("folder")["destination"]) == (True, "data/deep")
    assert fs.ls("folder", detail=False) == ["folder/er", "folder/top"]
    assert "data/deep/top" in fs.find("")


@pytest.mark.parametrize("name", LEADS_OUT)
def test_links_out_of_the_snapshot_are_refused(name: str, fs: DumontFileSystem) -> None:
    for attempt in (fs.open, fs.cat_file, fs.ls):
        with pytest.raises(UsageError, match=f"^{name}: leads out of the snapshot$"):
            attempt(name)
    assert (fs.info(name)["type"], fs.info(name)["destination"]) == ("link", LINKS[name])
    assert (fs.exists(name), fs.lexists(name), fs.isfile(name)) == (False, True, False)


@pytest.mark.parametrize("name", CIRCLES)
def test_links_in_a_circle_are_refused(name: str, fs: DumontFileSystem) -> None:
    with pytest.raises(UsageError, match="links in a circle"):
        fs.open(name)
    assert (fs.info(name)["type"], fs.exists(name)) == ("link", False)


@pytest.mark.parametrize("name", LEADS_NOWHERE)
def test_links_to_nothing(name: str, fs: DumontFileSystem) -> None:
    with pytest.raises(FileNotFoundError):
        fs.open(name)
    assert (fs.info(name)["type"], fs.exists(name)) == ("link", False)


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["readme", "a b/c:d", f"{ODD}/x", "empty", "large", "holes", "same", "data/ünïcode.csv"]
)
def test_the_bytes_of_a_file(name: str, fs: DumontFileSystem, source: Path) -> None:
    content = (source / name).read_bytes()
    assert content == fs.cat(name) == fs.cat_file(name)
    with fs.open(name) as file:
        assert content == file.read()
        for start, size in ((0, 10), (1 << 20, 100_000), (70_000, 1), (len(content), 5), (len(content) + 5, 5)):
            file.seek(start)
            assert content[start : start + size] == file.read(size)
            assert content[start : start + size] == fs.cat_file(name, start, start + size)
    assert content[-5:] == fs.cat_file(name, -5) == fs.tail(name, 5)
    assert content[2:-3] == fs.cat_file(name, 2, -3)


def test_text(fs: DumontFileSystem) -> None:
    with fs.open("data/ünïcode.csv", "r", encoding="utf-8") as file:
        assert list(file) == ["content of data/ünïcode.csv\n"]
    assert fs.read_text("readme") == "content of readme\n"


def test_ranges_of_several_files_read_each_chunk_once(
    fs: DumontFileSystem, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["large", "readme", "large", "holes", "link"]
    starts, ends = [0, 2, 70_000, (1 << 20) - 5, -4], [10, 5, 400_000, (1 << 20) + 9, None]
    expected = [(source / name).read_bytes()[start:end] for name, start, end in zip(names, starts, ends, strict=True)]
    fs.info("")
    reads: list[int] = []
    read_into = LocalSource.read_into

    def counted(self: LocalSource, offset: int, out: memoryview) -> None:
        reads.append(offset)
        read_into(self, offset, out)

    monkeypatch.setattr(LocalSource, "read_into", counted)
    assert expected == fs.cat_ranges(names, starts, ends)
    assert sorted(set(reads)) == sorted(reads)
    assert fs.cat_ranges(["readme", "same"], 0, 3) == [b"con", b"con"]


def test_ranges_have_an_error_in_the_place_of_what_is_not_there(fs: DumontFileSystem) -> None:
    readme, missing, folder, out = fs.cat_ranges(["readme", "nothing", "data", "out"], [0] * 4, [3] * 4)
    assert readme == b"con"
    assert [type(missing), type(folder), type(out)] == [FileNotFoundError, IsADirectoryError, UsageError]
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["readme", "nothing"], [0, 0], [3, 3], on_error="raise")


def test_nothing_can_be_written(fs: DumontFileSystem) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: fs.open("x", "wb"), lambda: fs.open("readme", "ab"), lambda: fs.open("x", "w"), lambda: fs.mkdir("x"),
        lambda: fs.makedirs("x/y", exist_ok=True), lambda: fs.rm("readme"), lambda: fs.rmdir("data"), lambda: fs.touch("x"),
        lambda: fs.pipe("x", b""), lambda: fs.cp_file("readme", "x"), lambda: fs.mv("readme", "x"),
        lambda: fs.put_file(__file__, "x"),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(OSError, match="Read-only"):
            attempt()


@pytest.mark.parametrize("name", ["data", "", "folder"])
def test_a_directory_is_no_file(name: str, fs: DumontFileSystem) -> None:
    with pytest.raises(IsADirectoryError):
        fs.open(name)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return damaged_archive(tmp_path / "damaged.dumont")


def test_a_flipped_bit_reaches_the_reader_as_an_error(damaged: Path) -> None:
    fs = DumontFileSystem(str(damaged))
    for attempt in (lambda: fs.cat("weights"), lambda: fs.open("weights").read(1), lambda: fs.head("weights", 1)):
        for _ in range(3):
            with pytest.raises(DamagedError, match="chunk 1: its "):
                attempt()
    assert fs.cat("sound") == b"s" * 5000
    sound, error = fs.cat_ranges(["sound", "weights"], 0, 10)
    assert (sound, type(error)) == (b"s" * 10, DamagedError)


def test_content_that_the_chunk_has_but_the_file_had_not(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("a", b"a" * 5000)
    archive.entries[0]["sha256"] = ["00" * 32]
    fs = DumontFileSystem(str(archive.write(tmp_path / "x.dumont")))
    for _ in range(2):
        with pytest.raises(DamagedError, match="a: its content does not match its digest"):
            fs.cat("a")
        with pytest.raises(DamagedError, match="a: its content does not match its digest"):
            fs.cat_file("a", 0, 5)


def test_damage_does_not_disturb_other_readers(damaged: Path) -> None:
    fs = DumontFileSystem(str(damaged))

    def read(number: int) -> object:
        try:
            return fs.cat_file("weights" if number % 3 == 0 else "sound", 0, 100)
        except DamagedError:
            return DamagedError

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read, range(300)))
    assert results == [DamagedError if number % 3 == 0 else b"s" * 100 for number in range(300)]


# --- the snapshot behind it -------------------------------------------------------------------------------------------


def test_a_replaced_snapshot_is_seen(fs: DumontFileSystem, packed: Path, source: Path, tmp_path: Path) -> None:
    before = fs.open("large")
    content = (source / "large").read_bytes()
    (source / "large").write_bytes(b"new")
    pack_tree(source, packed)
    assert (fs.cat("large"), fs.size("large")) == (b"new", 3)
    assert before.read() == content  # what is open stays as it was
    packed.unlink()
    with pytest.raises(FileNotFoundError, match="no such snapshot"):
        fs.exists("large")


def test_bytes_of_a_snapshot_that_was_written_over_or_cut_are_never_given_out(packed: Path, source: Path) -> None:
    with DumontFileSystem(str(packed)).open("large") as file:
        size = packed.stat().st_size
        with packed.open("r+b") as other:
            other.truncate(8192)
        with pytest.raises(DamagedError, match="ends at byte"):
            file.read(10)
        with packed.open("r+b") as other:
            other.truncate(size)
        with pytest.raises(DamagedError, match="do not match their digest"):
            file.read(10)


def test_another_snapshot_than_expected_is_refused(packed: Path) -> None:
    with pytest.raises(DamagedError, match="another snapshot"):
        DumontFileSystem(str(packed), expect="sha256:" + "0" * 64).ls("")


def test_names_of_content_for_caches(fs: DumontFileSystem, packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.dumont"
    copy.write_bytes(packed.read_bytes())
    other = DumontFileSystem(str(copy))
    assert (fs.fsid, fs.ukey("large"), fs.ukey(f"{ODD}/x")) == (other.fsid, other.ukey("large"), other.ukey(f"{ODD}/x"))
    assert fs.ukey("large") != fs.ukey("readme")


def test_a_part_of_a_snapshot(packed: Path, source: Path) -> None:
    assert DumontFileSystem(f"{packed}:data").find("") == ["deep/er/x.csv", "deep/top", "up", "ünïcode.csv"]
    alone = DumontFileSystem(f"{packed}:readme")
    assert (alone.find(""), alone.cat("readme")) == (["readme"], (source / "readme").read_bytes())


# --- arguments, addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["dumont://link::file://{}", "dumont://link::{}", "dumont:///link::{}", "dumont://link::local://{}"]
)
def test_chained_addresses(address: str, packed: Path, source: Path) -> None:
    with fsspec.open(address.format(packed), "rb") as file:
        assert (source / "readme").read_bytes() == file.read()
    opened, path = fsspec.url_to_fs(address.format(packed))
    assert (type(opened), path) == (DumontFileSystem, "link")


def test_options_of_chained_addresses(packed: Path, source: Path) -> None:
    with fsspec.open("dumont://readme", fo=str(packed), memory="64MiB") as file:
        assert (source / "readme").read_bytes() == file.read()
    with fsspec.open(f"simplecache::dumont://readme::{packed}") as file:
        assert (source / "readme").read_bytes() == file.read()
    with pytest.raises(UsageError, match="takes no auto_mkdir: accounts come from the environment"):
        fsspec.open(f"dumont://readme::file://{packed}", file={"auto_mkdir": True})


@pytest.mark.parametrize(
    ("fo", "protocol", "location"),
    [
        ("/x/ws.dumont", "file", "/x/ws.dumont"),
        ("https://host/ws.dumont?x=1", "https", "https://host/ws.dumont?x=1"),
        ("bucket/ws.dumont", "s3", "s3://bucket/ws.dumont"),
        ("bucket/ws.dumont", "s3a", "s3://bucket/ws.dumont"),
        ("bucket/ws.dumont:models", "gcs", "gs://bucket/ws.dumont:models"),
        ("container/ws.dumont", "az", "az://container/ws.dumont"),
        ("file:///x/ws.dumont", None, "/x/ws.dumont"),
        ("s3://bucket/ws.dumont", None, "s3://bucket/ws.dumont"),
    ],
)
def test_addresses_are_put_together_again(fo: str, protocol: str | None, location: str) -> None:
    assert DumontFileSystem(fo, target_protocol=protocol)._snapshot._location == location


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, UsageError, "name the snapshot"),
        ({"fo": "x", "target_protocol": "ftp"}, UsageError, "cannot open a snapshot through ftp://"),
        ({"fo": "x", "memory": "much"}, UsageError, "'much' is no size"),
        ({"fo": "x", "expct": "sha256:"}, TypeError, "no option expct"),
        ({"fo": 5}, UsageError, "fo"),
        ({"fo": "x", "limit_rate": -1}, UsageError, "limit_rate"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        DumontFileSystem(**arguments)


def test_fsspec_finds_the_file_system_by_its_entry_point() -> None:
    code = "import fsspec; print(fsspec.get_filesystem_class('dumont').__module__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("dumont_gpu.filesystem", "")


def test_without_fsspec_an_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['fsspec'] = None; import dumont_gpu.filesystem"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1] == 'ImportError: dumont:// needs a package: pip install "dumont-gpu[fs]"'


# --- over the network -------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(packed: Path, fault_server: FaultServer) -> DumontFileSystem:
    fault_server.data = packed.read_bytes()
    return DumontFileSystem(fault_server.url, patience=1)


def test_over_http(remote: DumontFileSystem, source: Path, fault_server: FaultServer) -> None:
    assert sorted(os.listdir(source)) == sorted(remote.ls("", detail=False))
    asked = len(fault_server.requests)
    assert remote.cat_file("large", 5, 10) == (source / "large").read_bytes()[5:10]
    assert len(fault_server.requests) == asked + 1
    assert remote.cat("large") == (source / "large").read_bytes()


def test_a_wrong_byte_from_a_server_is_asked_for_again_and_never_given_out(
    remote: DumontFileSystem, source: Path, fault_server: FaultServer
) -> None:
    remote.info("")
    first = len(fault_server.requests)
    fault_server.script = lambda request: flipped(9) if request.number == first else served
    assert remote.cat_file("large", 0, 5) == (source / "large").read_bytes()[:5]
    fault_server.script = lambda request: flipped(9)
    with pytest.raises(DamagedError):
        remote.cat_file("large", 400_000, 400_005)


def test_an_object_that_was_replaced_at_the_server(
    remote: DumontFileSystem, source: Path, packed: Path, fault_server: FaultServer
) -> None:
    remote.info("")
    (source / "large").write_bytes(b"new" * 50_000)
    pack_tree(source, packed)
    fault_server.data, fault_server.etag = packed.read_bytes(), '"two"'
    with pytest.raises(DumontError, match="changed on the server"):
        remote.cat("large")
    remote.invalidate_cache()
    assert remote.cat("large") == b"new" * 50_000


def test_a_server_that_fails_is_not_taken_for_an_empty_place(fault_server: FaultServer) -> None:
    fault_server.script = lambda request: status(403)
    fs = DumontFileSystem(fault_server.url, patience=0)
    for attempt in (fs.exists, fs.isfile, fs.isdir, fs.ls):
        with pytest.raises(DumontError, match="403 Forbidden"):
            attempt("x")


# --- processes and threads --------------------------------------------------------------------------------------------


def test_a_pickled_file_system_opens_the_snapshot_again(fs: DumontFileSystem, packed: Path, source: Path) -> None:
    fs.cat("readme")
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    code = f"import pickle; print(pickle.loads({pickle.dumps(fs)!r}).cat('large').hex())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert bytes.fromhex(ran.stdout) == (source / "large").read_bytes()


def test_threads_share_one_open_snapshot(packed: Path, source: Path) -> None:
    first = DumontFileSystem(str(packed))._files()
    content = (source / "large").read_bytes()

    def read(number: int) -> bool:
        fs = DumontFileSystem(str(packed))
        start = number * 1733 % len(content)
        return fs._files() is first and fs.cat_file("large", start, start + 70_000) == content[start : start + 70_000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(400)))


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` returns True in a forked child, soon."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    timer = threading.Timer(20, os.kill, (child, 9))
    timer.start()
    try:
        return os.waitpid(child, 0)[1] == 0
    finally:
        timer.cancel()


@pytest.mark.parametrize("where", ["local", "http"])
def test_a_forked_child_reads_while_threads_of_its_parent_read(
    where: str, packed: Path, source: Path, fault_server: FaultServer
) -> None:
    fault_server.data = packed.read_bytes()
    fs = DumontFileSystem(str(packed) if where == "local" else fault_server.url)
    content = (source / "large").read_bytes()
    opened, over = fs.open("large"), threading.Event()

    def read(seed: int) -> bool:
        starts = [(seed + number) * 7919 % len(content) for number in range(20)]
        return all(fs.cat_file("large", start, start + 90_000) == content[start : start + 90_000] for start in starts)

    def keep_reading(seed: int) -> None:
        while not over.is_set():
            assert read(seed)

    def in_worker() -> bool:
        opened.seek(0)
        with ThreadPoolExecutor(3) as pool:  # as a worker of a data loader may have
            return all(pool.map(read, range(3))) and opened.read() == content and fs.ls("data") != []

    threads = [threading.Thread(target=keep_reading, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(in_worker) for _ in range(4)] == [True] * 4
        assert read(5)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_grandchild_reads_too(fs: DumontFileSystem, source: Path) -> None:
    content = (source / "large").read_bytes()
    fs.cat("large")
    assert in_child(lambda: in_child(lambda: fs.cat("large") == content) and fs.cat("large") == content)


# --- fsspec's own suite -----------------------------------------------------------------------------------------------


class TestGet(AbstractFixtures, AbstractGetTests):  # type: ignore[misc]
    """What is not here writes: put, pipe, copy, mv, and open, whose only test opens for writing."""

    @pytest.fixture
    def fs(self, tmp_path: Path) -> DumontFileSystem:
        for name, scenario in self._scenarios().items():
            scenario(LocalFileSystem(auto_mkdir=True), os.path.join, str(tmp_path / "tree" / name))
        (tmp_path / "tree/top/src").mkdir(parents=True)
        (tmp_path / "tree/top/src/file").touch()
        pack_tree(tmp_path / "tree", tmp_path / "ws.dumont")
        fs = DumontFileSystem(str(tmp_path / "ws.dumont"))
        fs.mkdir = fs.touch = lambda path: None  # a test makes top/src/file, which is there
        return fs

    def _scenarios(self) -> dict[str, Callable[..., str]]:
        return {
            "bulk": self._bulk_operations_scenario_0,
            "glob": self._glob_edge_cases_files,
            "prefix": self._dir_and_file_with_same_name_prefix,
            "hashed": self._10_files_with_hashed_names,
        }

    @pytest.fixture
    def fs_path(self) -> str:
        return "top"

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self) -> str:
        return "bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self) -> str:
        return "glob/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self) -> str:
        return "prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self) -> str:
        return "hashed/source"


def test_a_read_that_a_signal_has_ended_ends_no_other(remote: DumontFileSystem, source: Path) -> None:
    files = remote._files()
    files._loader.cancelled = True  # as after Ctrl-C in a large read
    files.snapshot.source.cancel()
    expected = (source / "large").read_bytes()
    assert remote.cat_file("large") == expected
    assert (
        DumontFileSystem(remote._snapshot._location, patience=1, skip_instance_cache=True).cat_file("large") == expected
    )
