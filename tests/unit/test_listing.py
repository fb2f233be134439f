"""info, ls and --json report all of a snapshot, exactly, and drop no option."""

from __future__ import annotations

import ast
import base64
import dataclasses
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
from support.commands import command
from support.hostile import Archive
from support.snapshots import pack_tree

import dumont_gpu
from dumont_gpu.cli.main import COMMANDS, DUMONT_RESTORE, Command
from dumont_gpu.cli.options import Debugging, Output
from dumont_gpu.cli.outcome import Report, show
from dumont_gpu.jobs.options import Network, PackOptions, RestoreOptions, VerifyOptions

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
    log, model, legend = command("ls", changed, "-l").out.splitlines()
    assert (log[5], model[5]) == ("!", " ")
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
    function = getattr(importlib.import_module(f"dumont_gpu.cli.main.{command.module}"), command.function)
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
