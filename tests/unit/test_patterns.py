"""Patterns: gitignore's language in every option that takes patterns, also after a shell's completion."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from support.commands import command
from support.snapshots import pack_tree, restore_tree

from dumont_gpu.format.names import from_utf8
from dumont_gpu.snapshot_service import SnapshotService
from dumont_gpu.tree.globs import Patterns, chosen, pattern_lines, roots_of


def matched(patterns: list[str], paths: list[str]) -> list[str]:
    """Returns the `paths` that the patterns name; a directory's path ends with a slash."""
    return [path for path, named in zip(paths, chosen(paths, Patterns(patterns), Patterns([])), strict=True) if named]


def with_parents(paths: list[str]) -> list[str]:
    folders = {f"{path[:at]}/" for path in paths for at, char in enumerate(path[:-1]) if char == "/"}
    return sorted(folders | set(paths), key=os.fsencode)


@pytest.fixture
def workspace(source: Path) -> Path:
    for name in ("build/out/x.o", "src/build/y.o", "src/a.py", "notes.tmp", "[id] x", "!x", "#x", "a\\b", "new\nline"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    return source


def paths_in(snapshot: Path) -> list[str]:
    return [entry.path for entry in SnapshotService().list_entries(snapshot)]


# --- the language -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.py", ["a.py", "d/e/a.py"], ["a.pyc", "py"]),
        ("cache", ["cache/", "d/cache", "cache/x", "e/cache/x"], ["mycache", "cached"]),
        ("/cache", ["cache/", "cache/x"], ["d/cache"]),
        ("cache/", ["cache/", "d/cache/", "d/cache/x"], ["caches", "e/cache"]),
        ("d/*.py", ["d/a.py"], ["d/e/a.py", "x/d/a.py", "a.py"]),
        ("d/**/*.py", ["d/a.py", "d/e/f/a.py"], ["e/a.py"]),
        ("**/logs", ["logs", "a/logs", "a/b/logs/x"], ["logs2"]),
        ("d/**", ["d/a", "d/e/", "d/e/f"], ["d/"]),
        ("**", ["a", "a/b", ".hidden"], []),
        ("[ab]?", ["a1", "d/b2"], ["c1", "a"]),
        ("[!ab]1", ["c1"], ["a1", "d/1"]),
        ("[[:digit:]_]", ["1", "_"], ["a"]),
        ("[]a-]", ["]", "a", "-"], ["b"]),
        ("[[a]x", ["[x", "ax"], ["bx"]),
        ("x[&&~~||]", ["x&", "x~", "x|"], ["x", "xx"]),
        ("a.b", ["a.b"], ["aXb"]),
        ("a$", ["a$"], ["a"]),
        ("new\nline", ["new\nline"], ["new"]),
        ("a", ["a"], ["a\n"]),
        ("a\\*", ["a*"], ["ab", "a"]),
        ("\\!a", ["!a"], ["a"]),
        ("#a", ["#a"], []),
        ("a ", ["a "], ["a"]),
        ("caf\udce9*", ["caf\udce9", "caf\udce9s"], ["café"]),
        ("./d/a", ["d/a"], ["d/d/a"]),
        ("./*.py", ["a.py"], ["d/a.py"]),
        (".//d/./a//", ["d/a/"], ["a"]),
        (".", ["a", "a/b"], []),
    ],
)
def test_what_a_pattern_names(pattern: str, matching: list[str], other: list[str]) -> None:
    pattern, *paths = map(from_utf8, [pattern, *matching, *other])  # as the locale of these tests has them in memory
    matching, other = paths[: len(matching)], paths[len(matching) :]
    named = matched([pattern], with_parents(paths))
    assert [path for path in matching if path not in named] == []
    assert [path for path in other if path in named] == []


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        (["*.py", "!b.py"], ["a.py"]),
        (["!b.py", "*.py"], ["a.py", "b.py"]),
        (["d", "!d/x"], ["d/", "d/y"]),
        (["!a.py"], []),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: list[str], named: list[str]) -> None:
    assert matched(patterns, ["a.py", "b.py", "d/", "d/x", "d/y"]) == named


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_patterns_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    draw = random.Random(7)
    names = ["a", "b", "ab", "a.b", "a b", "x1", "*", "!a", "#a", "b ", "a-b", "A"]
    for _ in range(80):
        path = tmp_path.joinpath(*draw.choices(names, k=draw.randint(1, 4)))
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    tree = with_parents([str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()])
    asked = "\0".join(path.removesuffix("/") for path in tree).encode()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    atoms = ["a", "b", "*", "?", "**", "/", "/", "[ab]", "[!a]", "[a-b]", "\\*", "\\ ", "[[:alpha:]]", "x", "1", ".b"]
    atoms += ["ab", " ", "[]a]", "[a-]", "-", "\\!", "\\#", "#", "A", "[^b]", "\\a"]
    for _ in range(80):
        lines = ["!" * (draw.random() < 0.25) + "".join(draw.choices(atoms, k=draw.randint(1, 5))) for _ in range(4)]
        # `/` is nothing to git, the root here.
        lines = [line for line in lines if "//" not in line and line.strip("!/ ")]
        content = "".join(f"{line}\n" for line in lines).encode()
        (tmp_path / ".git/info/exclude").write_bytes(content)
        git = ["git", "-c", "core.excludesFile=", "-C", str(tmp_path), "check-ignore", "-z", "--no-index", "--stdin"]
        ignored = subprocess.run(git, input=asked, capture_output=True).stdout.decode().split("\0")
        excluded = chosen(tree, Patterns([]), Patterns(pattern_lines(content)))
        actual = [path.removesuffix("/") for path, kept in zip(tree, excluded, strict=True) if not kept]
        assert sorted(filter(None, ignored)) == sorted(actual), lines


def test_a_file_of_patterns_is_read_as_git_reads_it() -> None:
    content = b"\xef\xbb\xbf*.tmp\r\n# comment\n\n   \nblank  \nkept\\ \n!x\n\\#y\ncaf\xe9\nlast"
    assert pattern_lines(content) == ["*.tmp", "blank", "kept\\ ", "!x", "\\#y", os.fsdecode(b"caf\xe9"), "last"]


# --- on the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    ["./build", "/build", "build/out", "{source}/build", "{source}/build/", "source/build", "./source/build"],
)
def test_what_a_shell_completes_is_understood(
    spelling: str, workspace: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = spelling == "./build"
    monkeypatch.chdir(workspace if inside else workspace.parent)
    packed = "." if inside else "source"
    ran = command("pack", packed, "-o", snapshot, "--exclude", spelling.format(source=workspace))
    assert (ran.code, ran.err) == (0, "")
    assert "build/out/x.o" not in paths_in(snapshot)
    assert "src/build/y.o" in paths_in(snapshot)


def test_the_target_s_path_is_understood_when_restoring(workspace: Path, snapshot: Path, target: Path) -> None:
    pack_tree(workspace, snapshot)
    for number, spelling in enumerate([f"{target}0/src", "./src", "src/"]):
        assert restore_tree(snapshot, Path(f"{target}{number}"), include=[spelling]).unmatched == ()
        assert sorted(path.name for path in Path(f"{target}{number}").iterdir()) == ["src"]


def test_an_entry_is_meant_before_a_place_on_disk(tmp_path: Path) -> None:
    def holds(path: str, name: str) -> bool:
        return name == "ws"

    assert roots_of({"/ws": "", "ws": ""}, holds).keys().isdisjoint({"/ws", "ws"})
    assert roots_of({"/ws": ""}, lambda path, name: False) == {"/ws": ""}


def test_several_sources_stand_under_their_names(tmp_path: Path, snapshot: Path) -> None:
    for name in ("one/x", "one/y", "two/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    sources = [tmp_path / "one", tmp_path / "two"]
    SnapshotService().create_snapshot(sources, snapshot, exclude=f"{tmp_path}/one/x")
    assert paths_in(snapshot) == ["one", "one/y", "two", "two/x"]
    SnapshotService().create_snapshot(sources, snapshot, exclude="/one")
    assert paths_in(snapshot) == ["two", "two/x"]


def test_a_pattern_that_matched_nothing_is_named_once(workspace: Path, snapshot: Path, target: Path) -> None:
    patterns = ["--exclude", "*.tmp", "--exclude", "nomatch", "--exclude", "notes.*", "--exclude", "no/such"]
    for more in ([], ["-n"]):
        ran = command("pack", workspace, "-o", snapshot, *patterns, *more)
        assert (ran.code, ran.err) == (0, "dumont-gpu: matched nothing: nomatch, no/such\n")
        listed = command("pack", workspace, "-o", snapshot, *patterns, *more, "--json")
        assert (listed.err, json.loads(listed.out.splitlines()[-1])["unmatched"]) == ("", ["nomatch", "no/such"])
        ran = command("restore", snapshot, target, "--include", "src", "--include", "nomatch", "--no-sync", *more)
        assert (ran.code, ran.err) == (0, "dumont-gpu: matched nothing: nomatch\n")
        shutil.rmtree(target, ignore_errors=True)
    assert command("pack", workspace, "-o", snapshot, *patterns, "-q").err == ""


@pytest.mark.parametrize("pattern", ["x[a--b]", "[z-a]", "[", "x[", "x\\", "[[:nosuch:]]", "", "!"])
@pytest.mark.parametrize(
    "arguments", ["pack {source} -o {out} --exclude", "restore {snapshot} {target} --include", "ls {snapshot}"]
)
def test_a_malformed_pattern_is_one_line(
    pattern: str, arguments: str, workspace: Path, snapshot: Path, target: Path
) -> None:
    pack_tree(workspace, snapshot)
    out = snapshot.with_name("out.dumont")
    line = arguments.format(source=workspace, out=out, snapshot=snapshot, target=target).split()
    ran = command(*line, pattern, PYTHONWARNINGS="always")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "pattern" in ran.error
    assert not out.exists() and not target.exists()


def test_brackets_bring_no_warning_of_python_s(workspace: Path, snapshot: Path, target: Path) -> None:
    pack_tree(workspace, snapshot)
    ran = command("restore", snapshot, target, "--include", "[[]id] x", "--no-sync", PYTHONWARNINGS="always")
    assert (ran.code, ran.err) == (0, "")
    assert [path.name for path in target.iterdir()] == ["[id] x"]


def test_a_name_that_looks_like_a_malformed_pattern_can_be_given(source: Path, snapshot: Path) -> None:
    for name in ("x[z-a]", "half[", "back\\"):
        (source / name).touch()
    pack_tree(source, snapshot)
    for name in ("x[z-a]", "half[", "back\\"):
        assert command("ls", snapshot, name, "--json").code == 0


def test_excludes_come_from_a_file_with_a_mark_and_carriage_returns(workspace: Path, snapshot: Path) -> None:
    ignore = workspace.parent / "ignore"
    ignore.write_bytes(b"\xef\xbb\xbf/build/  \r\n# no\r\n*.o\r\n!y.o\r\n")
    ran = command("pack", workspace, "-o", snapshot, "--exclude-from", ignore)
    assert (ran.code, ran.err) == (0, "")
    assert "build" not in paths_in(snapshot) and "src/build/y.o" in paths_in(snapshot)


@pytest.mark.parametrize("content", [None, "a\nb\n".encode("utf-16")])
def test_a_file_that_holds_no_patterns_is_one_line(content: bytes | None, source: Path, snapshot: Path) -> None:
    ignore = source.parent / "ignore"
    if content is not None:
        ignore.write_bytes(content)
    ran = command("pack", source, "-o", snapshot, "--exclude-from", ignore)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert str(ignore) in ran.error


# --- printed paths work as patterns -----------------------------------------------------------------------------------


def printed_paths(snapshot: Path) -> list[bytes]:
    entries = [json.loads(line) for line in command("ls", snapshot, "--json").out.splitlines()]
    return [base64.b64decode(entry["path_b64"]) if "path_b64" in entry else entry["path"].encode() for entry in entries]


def test_every_path_that_json_prints_can_be_given_back(workspace: Path, snapshot: Path, target: Path) -> None:
    for name in (b"caf\xe9", b"\x1b[31m", "日本".encode(), b" blank ", b"a*b", b"x[z-a]", b"tab\t"):
        with open(os.path.join(os.fsencode(workspace), name), "wb"):
            pass
    pack_tree(workspace, snapshot)
    paths = printed_paths(snapshot)
    assert sorted(paths) == sorted(entry.sort_key for entry in SnapshotService().list_entries(snapshot))
    for number, path in enumerate(paths):
        given = b"/" + path if path.startswith(b"!") else path
        listed = [json.loads(line) for line in command("ls", snapshot, given, "--json").out.splitlines()]
        assert listed, path
        into = Path(f"{target}{number}")
        assert command("restore", snapshot, into, "--include", given, "--no-sync").code == 0
        assert os.path.lexists(os.path.join(os.fsencode(into), path))


# --- entries that a selection needs -----------------------------------------------------------------------------------


def test_hard_links_without_their_file_are_restored_with_patterns(source: Path, snapshot: Path, target: Path) -> None:
    (source / "a").mkdir()
    (source / "b").mkdir()
    (source / "a/first").write_text("content")
    os.link(source / "a/first", source / "b/second")
    os.link(source / "a/first", source / "b/third")
    pack_tree(source, snapshot)
    for number, options in enumerate([{"include": ["b/"]}, {"exclude": ["/a"]}, {"include": ["b", "!first"]}]):
        into = Path(f"{target}{number}")
        restore_tree(snapshot, into, **options)
        assert (into / "b/second").read_text() == "content"
        assert (into / "b/second").stat().st_ino == (into / "b/third").stat().st_ino
        assert not (into / "a").exists()


def test_including_a_directory_includes_all_of_it_but_what_is_taken_back(
    workspace: Path, snapshot: Path, target: Path
) -> None:
    pack_tree(workspace, snapshot)
    restore_tree(snapshot, target, include=["src", "!src/build"])
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["src", "src/a.py"]
