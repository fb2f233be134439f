"""Names that would leave the target, hide something, or confuse a terminal."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.hostile import LZ4, Archive, command, float_bytes, refused, restored, text, tree

from dumont_gpu.disk.direct_io import DIRECT_MINIMUM
from dumont_gpu.format.names import from_utf8
from dumont_gpu.jobs.pack import pack
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource

KINDS = ("file", "dir", "symlink", "hardlink")
CONTROL = "\x1b]0;owned\x07\r\n\t\x7f\x9b2J\u202egpj.exe\u2028"


def named(kind: str, path: str | bytes) -> Archive:
    """An archive with an entry of that path and kind."""
    archive = Archive()
    if kind == "hardlink":
        archive.file(b"\x01", b"leader")
        archive.hardlink(path, b"\x01")
    elif kind == "symlink":
        archive.symlink(path, "target")
    elif kind == "dir":
        archive.directory(path)
    else:
        archive.file(path, b"content")
    return archive


def refuse_name(path: str | bytes, kind: str, tmp_path: Path) -> None:
    """Checks that a restore is refused, and that no file appears anywhere."""
    refused(named(kind, path), tmp_path / "a" / "b" / "target")
    assert tree(tmp_path) == {}


# --- where a path leads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/etc/passwd", "/", "//host/share", b"/tmp/\xff", "/proc/self/cwd/x"])
def test_absolute_path_is_refused(path: str | bytes, kind: str, tmp_path: Path) -> None:
    refuse_name(path, kind, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["..", "../x", "../../x", "a/../../x", "a/..", "d/../x", b"..", b"\xff/../../x"])
def test_path_that_climbs_is_refused(path: str | bytes, kind: str, tmp_path: Path) -> None:
    refuse_name(path, kind, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["", b"", ".", "./x", "d/.", "d/./x", "d//x", "x/", "d/x/", b"./\xff", b"\xff/"])
def test_empty_or_dot_component_or_trailing_slash_is_refused(path: str | bytes, kind: str, tmp_path: Path) -> None:
    refuse_name(path, kind, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["\0", "x\0", "x\0.txt", "\0/x", b"\xff\0", b"..\0"])
def test_nul_byte_is_refused(path: str | bytes, kind: str, tmp_path: Path) -> None:
    refuse_name(path, kind, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["x" * 256, "é" * 128, b"\xff" * 256, "d/" + "x" * 300, "x" * 100_000])
def test_overlong_name_is_refused(path: str | bytes, kind: str, tmp_path: Path) -> None:
    refuse_name(path, kind, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_overlong_path_is_refused(kind: str, tmp_path: Path) -> None:
    refuse_name("/".join(["x" * 200] * 200), kind, tmp_path)


def test_paths_that_climb_are_refused_behind_their_directories_too(tmp_path: Path) -> None:
    for last in ("d/..", "d/../x", "d/../../x"):
        archive = Archive()
        archive.directory("d")
        archive.file(last, b"content")
        refused(archive, tmp_path / "target")


@pytest.mark.parametrize(
    "name",
    [
        "C:",
        "C:\\Windows\\x",
        "c:x",
        "\\\\host\\share",
        "\\",
        "..\\x",
        "..\\..\\x",
        "CON",
        "NUL.txt",
        "a:stream",
        "\\\\?\\",
    ],
)
def test_backslash_and_drive_forms_are_plain_names_here(name: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    restored(named("file", name), target)
    assert os.listdir(target) == [name]
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"-rf", b"--", b"~", b"$HOME", b"*", b" ", b"a\nb", b"\x1b[2J", b"...", b"x" * 255, b"..x"]
)
def test_odd_names_land_inside_the_target(name: bytes, tmp_path: Path) -> None:
    target = tmp_path / "target"
    restored(named("file", name), target)
    assert os.listdir(os.fsencode(target)) == [name]
    assert os.listdir(tmp_path) == ["target"]


# --- two entries of the same path -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_duplicate_path_is_refused(first: str, second: str, target: Path) -> None:
    for spelled in ("x", b"x"):  # base64 is another spelling, not another name
        one, two = named(first, "x"), named(second, spelled)
        offset = len(one.chunks)
        for entry in two.entries:
            for extent in entry.get("extents", ()):
                extent[1] += offset
        leaders = [entry for entry in one.entries + two.entries if entry.get("path_b64") == "AQ=="][:1]
        both = Archive(leaders + [one.entries[-1], two.entries[-1]], one.chunks + two.chunks)
        assert "twice" in refused(both, target)


@pytest.mark.parametrize("kind", ["file", "symlink", "hardlink"])
def test_entry_below_something_that_is_no_directory_is_refused(kind: str, tmp_path: Path) -> None:
    for child in KINDS:
        archive = named(kind, "x")
        if kind == "symlink":
            archive.entries[-1]["target"] = str(tmp_path)
        below = named(child, "x/below")
        for entry in below.entries:
            for extent in entry.get("extents", ()):
                extent[1] += len(archive.chunks)
        archive.entries += [entry for entry in below.entries if "path_b64" not in entry]
        archive.chunks += below.chunks
        if child == "hardlink":
            archive.entries = [
                *named("hardlink", "y").entries[:1],
                *[e for e in archive.entries if "path_b64" not in e],
            ]
        assert "not a directory" in refused(archive, tmp_path / "target")
        assert tree(tmp_path) == {}


def test_entry_whose_directory_is_missing_is_refused(target: Path) -> None:
    for kind in KINDS:
        assert "directory" in refused(named(kind, "d/x"), target)


def test_directory_after_its_entries_is_refused(target: Path) -> None:
    archive = Archive()
    archive.file("d/x", b"content")
    archive.directory("d")
    refused(archive, target)


@pytest.mark.parametrize("paths", [("b", "a"), ("a/b", "a"), ("a", "a!", "a/b"), ("é", "z"), ("b", b"a")])
def test_entries_out_of_order_are_refused(paths: tuple[str | bytes, ...], target: Path) -> None:
    archive = Archive()
    for path in paths:
        archive.directory(path)
    if paths == ("a", "a!", "a/b"):  # "!" sorts before "/": this case is in order
        restored(archive, target)
    else:
        refused(archive, target)


# --- spellings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"path": "x", "path_b64": "eA=="},
        {"path": None, "path_b64": None},
        {"path": 7},
        {"path": ["x"]},
        {"path": True},
        {"path": {"x": 1}},
        {"path_b64": 7},
        {"path_b64": "eA"},
        {"path_b64": "e A=="},
        {"path_b64": "eA==\n"},
        {"path_b64": "-_=="},
        {"path_b64": "eA==eA=="},
        {"path_b64": ""},
        {"path": "\ud800"},
        {"path": "x\udcff"},
        {"path_b64": base64.b64encode(b"../x").decode()},
        {"path_b64": base64.b64encode(b"/x").decode()},
        {"path_b64": base64.b64encode(b"x\0").decode()},
    ],
    ids=repr,
)
def test_malformed_path_is_refused(fields: dict[str, Any], target: Path) -> None:
    refused(Archive([{"type": "dir", "mode": 0o755, "mtime_ns": 0, **fields}]), target)


@pytest.mark.parametrize("key", ["path_b64", "target_b64"])
def test_base64_that_is_not_ascii_is_refused(key: str, target: Path) -> None:
    entry = {"path": "x", "type": "symlink", "mode": 0, "mtime_ns": 0, key: "é"}
    if key == "path_b64":
        entry |= {"target": "y"}
        del entry["path"]
    refused(Archive([entry]), target)


@pytest.mark.parametrize(
    "fields",
    [{}, {"target": ""}, {"target": "a\0b"}, {"target": 1}, {"target": "\udc80"}, {"target": "a", "target_b64": "YQ=="},
     {"target_b64": ""}, {"target_b64": "AA=="}, {"target": "x" * 40_000}],
    ids=lambda fields: repr(fields)[:40],
)  # fmt: skip
def test_symlink_without_a_usable_target_is_refused(fields: dict[str, Any], target: Path) -> None:
    refused(Archive([{"path": "x", "type": "symlink", "mode": 0, "mtime_ns": 0, **fields}]), target)


def test_symlink_target_too_long_for_this_system_is_a_problem_of_that_entry(target: Path) -> None:
    archive = Archive()
    archive.file("f", b"content")
    archive.symlink("x", "y" * 5000)
    assert [(problem.path, problem.reason) for problem in restored(archive, target).problems] == [
        ("x", "File name too long")
    ]
    assert tree(target) == {"f": ("file", b"content")}


# --- on a terminal ----------------------------------------------------------------------------------------------------


@pytest.fixture
def talkative(tmp_path: Path) -> Path:
    """A snapshot full of control characters."""
    archive = Archive(head={"tool": f"tool{CONTROL}", "method": f"method{CONTROL}"})
    archive.file(f"file{CONTROL}", b"content" * 40, LZ4, changed=True)
    archive.hardlink(f"hard{CONTROL}", f"file{CONTROL}")
    archive.symlink(f"sym{CONTROL}", f"to{CONTROL}")
    archive.file(b"zz\xff\x1b", b"not UTF-8")
    return archive.write(tmp_path / "talkative.dumont")


def assert_printable(output: str) -> None:
    for line in output.split("\n"):
        assert line.isprintable(), repr(line)


@pytest.mark.parametrize(
    "arguments",
    [["ls"], ["ls", "-l"], ["ls", "--json"], ["info"], ["info", "--json"], ["verify", "--content"], ["restore", "-n"]],
    ids=" ".join,
)
def test_control_characters_are_escaped_in_what_is_printed(arguments: list[str], talkative: Path) -> None:
    where = [str(talkative.parent / "target")] if arguments[0] == "restore" else []
    ran = command(arguments[0], talkative, *where, *arguments[1:])
    assert (ran.code, ran.err) == (0, "")
    assert_printable(ran.out)
    if "--json" in arguments:
        assert [json.loads(line) for line in ran.out.splitlines()]


@pytest.mark.parametrize("options", [["-v"], ["--json"]])
def test_control_characters_are_escaped_in_a_restore(options: list[str], talkative: Path, tmp_path: Path) -> None:
    ran = command("restore", talkative, tmp_path / "target", "--no-sync", *options)
    assert (ran.code, ran.err) == (0, "")
    assert_printable(ran.out)


def test_control_characters_are_escaped_in_errors(tmp_path: Path) -> None:
    archive = Archive()
    archive.file(f"file{CONTROL}", b"content")["sha256"] = [bytes(32).hex()]
    snapshot = archive.write(tmp_path / "x.dumont")
    ran = command("restore", snapshot, tmp_path / "target", "--verify")
    assert (ran.code, ran.out) == (4, "")
    assert "file\\x1b]0;owned" in ran.error
    archive.entries[0] |= {"type": "device"}
    assert command("ls", archive.write(snapshot)).error.startswith("dumont-gpu: ")
    (tmp_path / "target" / from_utf8(f"file{CONTROL}")).mkdir()
    archive.entries[0] |= {"type": "file"}
    ran = command("restore", archive.write(snapshot), tmp_path / "target", "--overwrite", "always")
    assert (ran.code, ran.out) == (1, "")
    assert "\\x1b" in ran.error


def test_control_characters_are_escaped_in_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / from_utf8(f"a{CONTROL}")).write_bytes(float_bytes(DIRECT_MINIMUM))
    os.link(source / from_utf8(f"a{CONTROL}"), source / "b")
    preadv = os.preadv

    def fail(fd: int, *arguments: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(source)):
            raise OSError(5, "Input/output error")
        return preadv(fd, *arguments)

    monkeypatch.setattr(os, "preadv", fail)
    result = pack([str(source)], str(tmp_path / "x.dumont"))
    assert len(result.problems) == 2
    assert all(problem.reason.isprintable() for problem in result.problems)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
@pytest.mark.parametrize("name", ["verify", "restore"])
def test_snapshot_path_that_is_not_utf8_can_be_printed(name: str, encoding: str, tmp_path: Path) -> None:
    """Python's encoding is utf-8:strict in the locale en_US.UTF-8, utf-8:surrogateescape in C.UTF-8."""
    snapshot = os.fsencode(tmp_path) + b"/x\xff.dumont"
    with open(snapshot, "wb") as file:
        file.write(named("file", "x").to_bytes())
    where = [os.fsencode(tmp_path) + b"/t\xff"] if name == "restore" else []
    ran = command(name, snapshot, *where, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (ran.code, ran.err) == (0, "")
    assert_printable(ran.out)


def test_names_are_printed_whatever_the_terminal_can_show(tmp_path: Path) -> None:
    snapshot = named("file", "é\u4e2d").write(tmp_path / "x.dumont")
    ran = command("ls", snapshot, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (ran.code, ran.err) == (0, "")


def test_snapshot_path_with_control_characters_is_escaped_in_errors(tmp_path: Path) -> None:
    ran = command("info", str(tmp_path / "x\x1b[2J\n.dumont"))
    assert ran.code == 10
    assert ran.error


def test_text_of_a_path_names_the_same_file_either_way(target: Path) -> None:
    plain = read_snapshot(MemorySource(named("file", "é").to_bytes())).manifest.entries
    encoded = read_snapshot(MemorySource(named("file", "é".encode()).to_bytes())).manifest.entries
    assert plain == encoded
    assert text("path", b"x") == {"path_b64": "eA=="}
