"""info, ls and --json report all of a snapshot, exactly, and drop no option."""

from __future__ import annotations

import ast
import base64
import dataclasses
import importlib
import inspect
import json
import re
import tracemalloc
from pathlib import Path

import pytest
from support.column_manifest import in_columns
from support.commands import command
from support.hostile import Archive
from support.snapshots import pack_tree

import dumont_gpu
from dumont_gpu.cli.main import COMMANDS, DUMONT_RESTORE, Command
from dumont_gpu.cli.options import Debugging, Output
from dumont_gpu.cli.outcome import Report, show
from dumont_gpu.cli.report.listing import listing
from dumont_gpu.format.names import from_utf8
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import Network, PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource

OTHER_ID = "sha256:" + "0" * 64


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A snapshot of two files; a file changed while it was packed."""
    archive = Archive()
    archive.file("log.txt", b"half old, half new", changed=True)
    archive.file("model.bin", b"weights")
    return archive.write(tmp_path / "changed.dumont")


def test_a_file_that_changed_while_it_was_packed_is_marked(changed: Path) -> None:
    assert "1 changed while packed" in command("info", changed).out
    assert json.loads(command("info", changed, "--json").out)["changed"] == 1
    log, model, total, legend = command("ls", changed, "-l").out.splitlines()
    assert (log[5], model[5]) == ("!", " ")
    assert total == "total: 2 files, 25 B from 25 B (1.00x)"
    assert legend.startswith("! changed while it was packed")
    entries = [json.loads(line) for line in command("ls", changed, "--json").out.splitlines()]
    assert [entry["changed"] for entry in entries] == [True, False]


def test_where_nothing_changed_nothing_is_said_of_it(source: Path, snapshot: Path) -> None:
    (source / "x").write_text("x")
    pack_tree(source, snapshot)
    assert "changed while" not in command("info", snapshot).out + command("ls", snapshot, "-l").out


def test_times_are_local_and_say_so(source: Path, snapshot: Path) -> None:
    (source / "x").write_text("x")
    pack_tree(source, snapshot)
    for zone, offset in (("UTC", "+0000"), ("XXX-05:30", "+0530")):
        for arguments in (["info"], ["ls", "-l"]):
            out = command(*arguments[:1], snapshot, *arguments[1:], TZ=zone).out
            assert re.search(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d \{offset}", out), out


def test_listing_what_is_not_there_is_an_error(source: Path, snapshot: Path) -> None:
    pack_tree(source, snapshot)
    assert command("ls", snapshot).code == 0
    ran = command("ls", snapshot, "nosuch")
    assert (ran.code, ran.out, ran.err) == (2, "", "dumont-gpu: nothing in the snapshot matches nosuch\n")


def test_names_are_exact_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    data = {
        "target_path": "caf\udce9",
        "problems": [{"path": "a\x1bb", "reason": "gone"}, {"path": "\udcff", "reason": "gone"}],
        "changed_files": ("a\\b", "\udcff"),
    }
    show(Report(data, []), Output(as_json=True))
    assert json.loads(capsys.readouterr().out) == {
        "type": "summary",
        "target_path_b64": base64.b64encode(b"caf\xe9").decode(),
        "problems": [{"path": "a\x1bb", "reason": "gone"}, {"path_b64": "/w==", "reason": "gone"}],
        "changed_files": ["a\\b"],
        "changed_files_b64": ["/w=="],
    }


# --- options are not dropped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["--info", "--list"])
def test_the_id_is_checked_when_only_looking(look: str, source: Path, snapshot: Path) -> None:
    identity = pack_tree(source, snapshot).snapshot_id
    assert command(snapshot, look, "--expect", identity, program="dumont-restore").code == 0
    ran = command(snapshot, look, "--expect", OTHER_ID, program="dumont-restore")
    assert (ran.code, ran.out) == (4, "")
    assert "another snapshot" in ran.error
    for name in ("info", "ls"):
        assert command(name, snapshot, "--expect", OTHER_ID).code == 4


@pytest.mark.parametrize("look", ["--info", "--list"])
@pytest.mark.parametrize(
    "option",
    [["--verify"], ["--include", "x"], ["-n"], ["--memory", "1GiB"], ["--jobs", "0"], ["target"]],
    ids=" ".join,
)
def test_an_option_that_looking_would_drop_is_refused(
    look: str, option: list[str], source: Path, snapshot: Path
) -> None:
    pack_tree(source, snapshot)
    ran = command(snapshot, look, *option, program="dumont-restore", DUMONT_DEVICE="cpu")
    assert (ran.code, ran.out) == (2, "")
    assert "means nothing with" in ran.error


def test_dumont_restore_takes_every_option_of_restore(source: Path, snapshot: Path, target: Path) -> None:
    def options(text: str) -> set[str]:
        return set(re.findall(r" (--[a-z-]+)", text))

    other = options(command("-h", program="dumont-restore", COLUMNS="200").out)
    assert options(command("restore", "-h", COLUMNS="200").out) - other == set()
    (source / "x").write_text("x")
    pack_tree(source, snapshot)
    assert command(snapshot, target, "--max-size", "0", program="dumont-restore").code == 1
    assert command(snapshot, target, "--no-sync", "--memory", "200MiB", program="dumont-restore").code == 0
    assert (target / "x").read_text() == "x"


@pytest.mark.parametrize("command", [*COMMANDS.values(), DUMONT_RESTORE], ids=lambda command: command.function)
def test_every_parameter_of_every_command_is_used(command: Command) -> None:
    function = getattr(importlib.import_module(f"dumont_gpu.cli.{command.module}"), command.function)
    used = {node.id for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Name)}
    assert {*inspect.signature(function).parameters} - used == set()


@pytest.mark.parametrize("options", [PackOptions, RestoreOptions, VerifyOptions, Network, Output, Debugging])
def test_every_option_is_read_by_something(options: type) -> None:
    read = {
        node.attr
        for path in Path(dumont_gpu.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    assert {field.name for field in dataclasses.fields(options)} - read == set()


def test_an_empty_name_is_a_mistake_of_the_command_line(source: Path, snapshot: Path) -> None:
    pack_tree(source, snapshot)
    for arguments in (
        ["pack", "", "-o", snapshot],
        ["pack", source, "", "-o", snapshot],
        ["pack", source, "-o", ""],
        ["restore", snapshot, ""],
    ):
        ran = command(*arguments)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
        assert "without a name" in ran.err or "has no name" in ran.err


def odd_names() -> Archive:
    """Names that a list must escape, entries of every type, links that lead out, a changed file, more than one page."""
    archive = Archive()
    archive.directory("d")
    archive.directory("d/\x1b[2J")
    archive.file("d/a\nb", b"in a file with a line feed", changed=True)
    archive.file(b"d/latin-\xe9", b"not UTF-8")
    archive.hardlink("d/zz", "d/a\nb")
    archive.file("e\\f", b"")
    for number in range(30):
        archive.file(f"f{number:02}", b"plain")
    archive.symlink("g", "/outside")
    archive.symlink("h", "d/zz")
    archive.directory("日本")
    return archive


@pytest.mark.parametrize(
    "arguments", [[], ["-l"], ["--json"], ["d/**"], ["f?[0-4]", "-l"], ["d/", "--json"], [from_utf8("日*")]], ids=ascii
)
@pytest.mark.parametrize("page_entries", [7, 8192])
def test_ls_prints_the_same_whichever_form_the_manifest_has(
    arguments: list[str], page_entries: int, tmp_path: Path
) -> None:
    json_form, columns = tmp_path / "json.dumont", tmp_path / "columns.dumont"
    odd_names().write(json_form)
    columns.write_bytes(in_columns(odd_names(), page_entries).to_bytes())
    expected = command("ls", json_form, *arguments)
    assert expected.code == 0
    assert expected.out == command("ls", columns, *arguments).out
    assert len(expected.out.splitlines()) > 0


def test_ls_escapes_each_path_of_many() -> None:
    archive = Archive()
    paths = [f"{number:05}" for number in range(20_000)]
    paths[9_000] += "\n"
    paths[17_000] += "\\"
    paths[18_000] += "é"
    for path in paths:
        archive.directory(path)
    snapshot = read_snapshot(MemorySource(in_columns(archive).to_bytes()))
    lines = "\n".join(listing(snapshot, None, long=False, as_json=False)).split("\n")
    assert lines == [printable(from_utf8(path)) for path in paths]


def test_info_counts_the_same_whichever_form_the_manifest_has(tmp_path: Path) -> None:
    json_form, columns = tmp_path / "json.dumont", tmp_path / "columns.dumont"
    odd_names().write(json_form)
    columns.write_bytes(in_columns(odd_names(), 7).to_bytes())
    by_form = [json.loads(command("info", snapshot, "--json").out) for snapshot in (json_form, columns)]
    for data in by_form:
        assert data["entries"] == {"dir": 3, "file": 33, "hardlink": 1, "symlink": 2}
        assert (data["changed"], data["links_out"]) == (1, 1)
    assert "it holds no bytes" not in command("info", columns).out
    columns.write_bytes(in_columns(Archive([odd_names().entries[0]])).to_bytes())
    assert "it holds no bytes" in command("info", columns).out


def test_ls_takes_no_object_for_each_entry() -> None:
    archive = Archive()
    for number in range(20_000):
        archive.directory(f"{number:05}")
    snapshot = read_snapshot(MemorySource(in_columns(archive).to_bytes()))
    tracemalloc.start()
    try:
        for _ in listing(snapshot, None, long=False, as_json=False):
            pass
        for _ in listing(snapshot, "1*", long=True, as_json=False):
            pass
        assert tracemalloc.get_traced_memory()[1] < 3 << 20  # as objects, 20,000 entries take 12 MiB
    finally:
        tracemalloc.stop()
