"""Parts of a snapshot: `SNAP:path`, --strip, --map."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.hostile import Archive, clear_error, command
from support.snapshots import assert_same_tree, pack_tree, restore_tree

from dumont_gpu import SnapshotService
from dumont_gpu.errors import SnapshotNotFoundError, UsageError
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.snapshot.inside import Place, place_of
from dumont_gpu.snapshot.reader import in_columns, read_snapshot
from dumont_gpu.storage import MemorySource
from dumont_gpu.storage.local import LocalSource

ODD = os.fsdecode(b"not utf-8 \xff")


@pytest.fixture
def workspace(source: Path) -> Path:
    for name in ("readme", "src/main.py", "src/a b/c:d", f"src/{ODD}/deep/x", "src-old/main.py", "src.txt", "zz/top"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name, errors="surrogateescape")
    (source / "src/link").symlink_to("../readme")
    os.link(source / "readme", source / "src/same")
    os.link(source / "readme", source / "src/a b/same")
    (source / "src/large").write_bytes(os.urandom(3000))
    os.utime(source / "src", ns=(10**18, 10**18))
    (source / "src").chmod(0o750)
    return source


@pytest.fixture(params=["hybrid_v3", "none"])
def packed(request: pytest.FixtureRequest, workspace: Path, snapshot: Path) -> Path:
    """A snapshot with a manifest in columns, and one with a manifest in JSON."""
    pack_tree(workspace, snapshot, method=request.param)
    return snapshot


def paths(target: Path) -> list[str]:
    return sorted((str(path.relative_to(target)) for path in target.rglob("*")), key=os.fsencode)


# --- SNAP:path --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["src", "/src", "./src/", "src//", "src/."])
def test_the_content_of_a_directory_comes_into_the_target(
    spelling: str, workspace: Path, packed: Path, target: Path
) -> None:
    result = restore(f"{packed}:{spelling}", str(target), RestoreOptions(sync=False))
    assert (result.inside, result.snapshot_path) == ("src", str(packed))
    assert_same_tree(workspace / "src", target)
    assert target.stat().st_mtime_ns == 10**18
    assert (target / "same").stat().st_ino == (target / "a b/same").stat().st_ino
    assert (target / "same").read_bytes() == b"readme"
    assert restore(f"{packed}:{spelling}", str(target), RestoreOptions(sync=False)).already_there


@pytest.mark.parametrize("name", ["src/a b", f"src/{ODD}", f"src/{ODD}/deep"])
def test_names_may_be_anything(name: str, workspace: Path, packed: Path, target: Path) -> None:
    restore(f"{packed}:{name}", str(target), RestoreOptions(sync=False))
    assert_same_tree(workspace / name, target)


@pytest.mark.parametrize(
    ("name", "content"), [("src/main.py", "src/main.py"), ("src/a b/c:d", "src/a b/c:d"), ("src/same", "readme")]
)
def test_a_file_comes_under_its_own_name(name: str, content: str, packed: Path, target: Path) -> None:
    restore(f"{packed}:{name}", str(target), RestoreOptions(sync=False))
    assert paths(target) == [name.rpartition("/")[2]]
    assert (target / paths(target)[0]).read_text() == content


def test_a_link_comes_as_a_link(packed: Path, target: Path) -> None:
    restore(f"{packed}:src/link", str(target), RestoreOptions(sync=False))
    assert os.readlink(target / "link") == "../readme"


def test_patterns_are_compared_within_the_part(packed: Path, target: Path) -> None:
    restore(f"{packed}:src", str(target), RestoreOptions(sync=False, include=("/main.py", "deep")))
    assert paths(target) == ["main.py", ODD, f"{ODD}/deep", f"{ODD}/deep/x"]


def test_a_part_is_another_restore_than_the_whole(packed: Path, target: Path) -> None:
    restore(f"{packed}:src", str(target), RestoreOptions(sync=False))
    assert "is not empty" in clear_error(lambda: restore(str(packed), str(target)), UsageError)


def test_what_is_not_there_is_not_found(packed: Path, target: Path) -> None:
    for name in ("nothing", "src/nothing", "src/link/x", "readme/x", "sr"):
        error = clear_error(lambda: restore(f"{packed}:{name}", str(target)), SnapshotNotFoundError)  # noqa: B023
        assert error == f"{packed}: holds no {name}"
    assert not target.exists()
    assert "no .." in clear_error(lambda: restore(f"{packed}:src/../zz", str(target)), UsageError)


def test_only_needed_chunks_are_read(target: Path) -> None:
    archive = Archive()
    archive.directory("a")
    archive.file("a/x", b"x" * 5000)
    archive.directory("b")
    archive.file("b/y", b"y" * 7000)
    data = archive.to_bytes()
    result = restore(MemorySource(data), str(target), RestoreOptions(sync=False), inside="b")
    assert (result.num_chunks, result.original_size) == (1, 7000)
    assert paths(target) == ["y"]


def test_a_part_that_was_interrupted_goes_on_as_that_part_only(
    packed: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dumont_gpu.tree.target.writer import TreeWriter

    with monkeypatch.context() as patch:
        patch.setattr(TreeWriter, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            restore(f"{packed}:src", str(target), RestoreOptions(sync=False))
    for other in (str(packed), f"{packed}:zz"):
        assert "unfinished restore" in clear_error(lambda: restore(other, str(target)), UsageError)  # noqa: B023
    assert restore(f"{packed}:src", str(target), RestoreOptions(sync=False)).resumed
    assert (target / "main.py").read_text() == "src/main.py"


# --- which colon ------------------------------------------------------------------------------------------------------


def test_a_file_that_exists_is_taken_with_its_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a:b.dumont", "w.dumont", ODD):
        Path(name).write_bytes(b"")
    Path("folder:x").mkdir()
    assert place_of("a:b.dumont") == Place("a:b.dumont")
    assert place_of("a:b.dumont:src:x") == Place("a:b.dumont", "src:x")
    assert place_of("a:c/d") == Place("a", "c/d")
    assert place_of("w.dumont:") == place_of("w.dumont:/") == Place("w.dumont")
    assert place_of(f"{ODD}:{ODD}") == Place(ODD, ODD)
    assert place_of("missing.dumont:src") == Place("missing.dumont:src")
    assert place_of("folder:x:src") == Place("folder:x:src")
    assert place_of("-") == Place("-")
    assert place_of("") == Place("")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("https://host:8700/w.dumont", Place("https://host:8700/w.dumont")),
        ("https://host:8700/w.dumont:src/a", Place("https://host:8700/w.dumont", "src/a")),
        ("http://u:p@host/a:b", Place("http://u:p@host/a:b")),
        ("https://host/w.dumont:a b?X-Sig=1:2", Place("https://host/w.dumont?X-Sig=1:2", "a b")),
        ("https://host/x?next=w.dumont:src", Place("https://host/x?next=w.dumont:src")),
        ("s3://bucket/w.dumont:a.dumont:b", Place("s3://bucket/w.dumont", "a.dumont:b")),
    ],
)
def test_an_address_is_split_behind_the_suffix_only(text: str, place: Place) -> None:
    assert place_of(text) == place


# --- by command -------------------------------------------------------------------------------------------------------


def test_ls_lists_a_part(packed: Path) -> None:
    ran = command("ls", f"{packed}:src/a b")
    assert (ran.code, ran.out) == (0, "c:d\nsame\n")
    assert command("ls", f"{packed}:src", "*.py").out == "main.py\n"
    assert command("ls", f"{packed}:none").code == 10
    assert [entry.path for entry in SnapshotService().list_entries(f"{packed}:zz")] == ["top"]


@pytest.mark.parametrize("name", ["info", "verify"])
def test_what_takes_the_whole_says_so(name: str, packed: Path) -> None:
    ran = command(name, f"{packed}:src")
    assert (ran.code, "name the whole snapshot here, without :src" in ran.error) == (2, True)


def test_restore_by_command(packed: Path, target: Path) -> None:
    ran = command("restore", f"{packed}:src/a b", target, "--json")
    summary = json.loads(ran.out.splitlines()[-1])
    assert (ran.code, summary["inside"], summary["num_files"]) == (0, "src/a b", 2)
    assert command("restore", f"{packed}:src/{ODD}", target / "new", "-n").code == 0
    assert not (target / "new").exists()


# --- --strip ----------------------------------------------------------------------------------------------------------


def test_strip_takes_names_off(workspace: Path, packed: Path, target: Path) -> None:
    result = restore_tree(packed, target, strip=1, include=("/src", "/readme"))
    assert (result.left_out, paths(target)[:2]) == (1, ["a b", "a b/c:d"])
    assert (target / "main.py").read_text() == "src/main.py"
    assert (target / "same").stat().st_ino == (target / "a b/same").stat().st_ino
    assert (target / "same").read_text() == "readme"
    assert restore_tree(packed, target, strip=1, include=("/src", "/readme")).already_there


def test_two_entries_under_one_path_are_refused(packed: Path, target: Path) -> None:
    message = clear_error(lambda: restore_tree(packed, target, strip=1), UsageError)
    assert message == "--strip 1: src-old/main.py and src/main.py would both be main.py"
    assert not target.exists() or not os.listdir(target)
    assert "no path has more than 9 names" in clear_error(lambda: restore_tree(packed, target, strip=9), UsageError)


def test_a_link_never_stands_where_a_directory_belongs(target: Path, tmp_path: Path) -> None:
    """Otherwise a hostile snapshot could write through the link."""
    archive = Archive()
    archive.directory("a")
    archive.symlink("a/x", str(tmp_path))
    archive.directory("b")
    archive.directory("b/x")
    archive.file("b/x/evil", b"evil")
    message = clear_error(
        lambda: restore(MemorySource(archive.to_bytes()), str(target), RestoreOptions(strip=1)), UsageError
    )
    assert message == "--strip 1: a/x and b/x would both be x"
    assert not (tmp_path / "evil").exists()


def test_hard_links_follow_their_new_order(target: Path) -> None:
    archive = Archive()
    archive.directory("a")
    archive.file("a/z", b"content")
    archive.directory("b")
    archive.hardlink("b/c", "a/z")
    archive.file("top", b"top")
    archive.directory("x")
    archive.hardlink("x/only", "top")
    result = restore(MemorySource(archive.to_bytes()), str(target), RestoreOptions(strip=1, sync=False))
    assert (result.left_out, paths(target)) == (1, ["c", "only", "z"])
    assert (target / "c").stat().st_ino == (target / "z").stat().st_ino
    assert ((target / "c").read_bytes(), (target / "only").read_bytes()) == (b"content", b"top")


def test_directories_under_one_path_become_one(target: Path) -> None:
    archive = Archive()
    for top in "ab":
        archive.directory(top)
        archive.directory(f"{top}/sub")
        archive.file(f"{top}/sub/{top}", b"content")
    restore(MemorySource(archive.to_bytes()), str(target), RestoreOptions(strip=1, sync=False))
    assert paths(target) == ["sub", "sub/a", "sub/b"]


def test_an_entry_that_comes_under_the_journal_s_name_is_no_journal(target: Path) -> None:
    archive = Archive()
    archive.directory("a")
    archive.file("a/.dumont-restore", b"dumont-gpu restore 1\n" + b"{}" * 3000)
    archive.file("a/x", b"content")
    data = archive.to_bytes()
    for _ in range(2):
        restore(MemorySource(data), str(target), RestoreOptions(strip=1, sync=False))
        assert paths(target) == [".dumont-restore", "x"]
        assert (target / ".dumont-restore").stat().st_size == 6021


def test_a_password_is_in_no_message() -> None:
    for address in ("https://me:secret@host/w.dumont:../x", "https://me:secret@host/w.dumont:x"):
        assert "secret" not in command("info", address).error


def test_strip_is_reported(packed: Path, target: Path) -> None:
    ran = command("restore", packed, target, "--strip", "1", "--include", "/src", "--include", "/readme")
    assert (ran.code, "1 file or link left out: --strip 1 leaves nothing of the path" in ran.out) == (0, True)


# --- --map ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(workspace: Path, tmp_path: Path) -> Path:
    other = tmp_path / "hugging face*"
    (other / "hub").mkdir(parents=True)
    (other / "hub" / "x").write_bytes(b"x")
    pack([str(workspace), str(other)], str(tmp_path / "two.dumont"))
    return tmp_path / "two.dumont"


def test_sources_come_back_to_their_places(two: Path, workspace: Path, tmp_path: Path) -> None:
    maps = ["--map", f"source={tmp_path / 'w'}", "--map", f"hugging face*={tmp_path / 'h'}"]
    ran = command("restore", two, *maps)
    assert (ran.code, ran.out.count("restored ")) == (0, 2), ran.err
    assert_same_tree(workspace, tmp_path / "w")
    assert_same_tree(tmp_path / "hugging face*", tmp_path / "h")
    again = command("restore", two, *maps, "--json")
    summaries = [json.loads(line) for line in again.out.splitlines()]
    assert [line["already_there"] for line in summaries if line["type"] == "summary"] == [True, True]
    assert [line["inside"] for line in summaries if line["type"] == "summary"] == ["source", "hugging face*"]


def test_the_rest_goes_to_the_target(two: Path, workspace: Path, target: Path, tmp_path: Path) -> None:
    ran = command("restore", two, target, "--map", f"hugging face*={tmp_path / 'h'}")
    assert ran.code == 0, ran.err
    assert os.listdir(target) == ["source"]
    assert_same_tree(workspace, target / "source")
    assert paths(tmp_path / "h") == ["hub", "hub/x"]


def test_a_map_plans_without_writing(two: Path, target: Path, tmp_path: Path) -> None:
    assert command("restore", two, target, "-n", "--map", f"source={tmp_path / 'w'}").code == 0
    assert not target.exists() and not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--map", "source={0}/w"], 2, "no --map says where hugging face*, hugging face*/hub, hugging face*/hub/x shall go"),
        (["--map", "nothing={0}/w", "{0}/t"], 10, "holds no nothing"),
        (["--map", "source", "{0}/t"], 2, "write NAME=PATH"),
        (["--map", "={0}/w", "{0}/t"], 2, "write NAME=PATH"),
        (["--map", "source={0}/w", "--map", "source/src={0}/v", "{0}/t"], 2, "source and source/src have entries in common"),
        (["--map", "source={0}/w", "--strip", "1", "{0}/t"], 2, "leave --include and --strip out"),
        (["--map", "source={0}/w", "--map", "hugging face*={0}/./w/"], 2, "two parts would be mixed in one place"),
        (["--map", "source={0}/t", "{0}/t"], 2, "two parts would be mixed in one place"),
    ],
)  # fmt: skip
def test_a_map_that_makes_no_sense_is_refused(
    arguments: list[str], code: int, says: str, two: Path, tmp_path: Path
) -> None:
    ran = command("restore", two, *(text.format(tmp_path) for text in arguments))
    assert (ran.code, says in ran.error) == (code, True), ran.error
    assert not {"w", "t", "v"} & {*os.listdir(tmp_path)}


def test_the_columns_of_a_part_are_in_order(workspace: Path, packed: Path) -> None:
    from dumont_gpu.columns.subtree import subtree

    source = LocalSource(str(packed))
    table = in_columns(read_snapshot(source)).manifest.entries
    part = subtree(table, "src")  # type: ignore[arg-type]
    names = [entry.path for entry in part]
    assert names == sorted(names, key=os.fsencode)
    assert [part.find(name) for name in names] == list(range(len(names)))
    assert {entry.target for entry in part if entry.type.value == "hardlink"} <= {*names}
    source.close()


# --- a folder at the root, by pattern ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["/src", "/src/", "./src", "./src/", ".//src", "././src/."])
def test_every_spelling_from_the_root_names_the_folder_at_the_root(
    pattern: str, workspace: Path, packed: Path, target: Path
) -> None:
    (workspace / "zz/src").mkdir()
    (workspace / "zz/src/deep").write_bytes(b"deep")
    pack_tree(workspace, packed)
    restore_tree(packed, target, include=(pattern,))
    assert os.listdir(target) == ["src"]
    assert_same_tree(workspace / "src/a b", target / "src/a b")
    listed = command("ls", packed, pattern).out.splitlines()
    assert listed and all(line == "src" or line.startswith("src/") for line in listed)
    without = SnapshotService().create_snapshot(workspace, target / "x.dumont", exclude=pattern)
    below = sum(1 for _ in (workspace / "src").rglob("*"))
    assert (without.excluded, without.unmatched) == (1 + below, ())


def test_a_bare_name_names_every_folder_so_called(workspace: Path, packed: Path, target: Path) -> None:
    (workspace / "zz/src").mkdir()
    pack_tree(workspace, packed)
    restore_tree(packed, target, include=("src",))
    assert sorted(os.listdir(target)) == ["src", "zz"]
