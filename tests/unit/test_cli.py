"""The command line for its user: commands, exit codes, output for people and for programs."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import cli
from support.snapshots import GOLDEN, assert_same_tree

from dumont_gpu import __version__
from dumont_gpu.cli.main import COMMANDS
from dumont_gpu.codecs import zstd
from dumont_gpu.jobs.options import MAX_LEVEL, Network, PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.parameters import build, declared
from dumont_gpu.plan.methods import DEFAULT_LINK, DEFAULT_METHOD, METHODS
from dumont_gpu.storage import NetworkOptions
from dumont_gpu.tree.target.options import OVERWRITE_CHOICES


@pytest.fixture
def workspace(source: Path) -> Path:
    (source / "code").mkdir()
    (source / "code/train.py").write_text("print('train')\n" * 300)
    (source / ".env").write_text("SECRET=1\n")
    (source / "latest").symlink_to("code")
    (source / "scratch.tmp").write_text("temporary")
    return source


def test_pack_info_ls_verify_restore(workspace: Path, snapshot: Path, target: Path) -> None:
    packed = cli("pack", workspace, "-o", snapshot)
    assert (packed.returncode, packed.stderr) == (0, "")
    assert packed.stdout.startswith("packed 5 entries")
    identity = packed.stdout.split()[-1]
    assert identity.startswith("sha256:")

    assert identity in cli("info", snapshot).stdout
    assert cli("ls", snapshot).stdout.split() == [".env", "code", "code/train.py", "latest", "scratch.tmp"]
    assert cli("ls", snapshot, "*.py").stdout == "code/train.py\n"
    long = cli("ls", snapshot, "-l", "code/*").stdout
    assert long.startswith("-0644")
    assert "4500 zstd" in long

    verified = cli("verify", snapshot, "--content", "--expect", identity)
    assert verified.returncode == 0
    assert verified.stdout.startswith("ok: ")

    restored = cli("restore", snapshot, target, "--verify")
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "content verified" in restored.stdout
    assert_same_tree(workspace, target)


def test_the_spellings_of_the_seed(workspace: Path, snapshot: Path, target: Path) -> None:
    assert cli(workspace, "-o", snapshot, program="dumont-pack").returncode == 0
    assert "sha256:" in cli(snapshot, "--info", program="dumont-restore").stdout
    assert "code/train.py" in cli(snapshot, "--list", program="dumont-restore").stdout
    assert cli(snapshot, target, "--verify", program="dumont-restore").returncode == 0
    assert_same_tree(workspace, target)
    assert cli(snapshot, program="dumont-restore").returncode == 2


def test_json_lines(workspace: Path, snapshot: Path, target: Path) -> None:
    def summary(*arguments: str | Path) -> dict[str, object]:
        lines = [json.loads(line) for line in cli(*arguments, "--json").stdout.splitlines()]
        assert {line["type"] for line in lines[:-1]} <= {"status"}
        assert lines[-1]["type"] == "summary"
        return dict(lines[-1])

    packed = summary("pack", workspace, "-o", snapshot, "--exclude", "*.tmp")
    assert packed["excluded"] == 1
    assert packed["problems"] == []
    assert packed["device"] == "cpu"
    assert set(packed["stage_seconds"]) == {"plan", "read", "encode", "write"}  # type: ignore[call-overload]
    restored = summary("restore", snapshot, target)
    assert restored["snapshot_id"] == packed["snapshot_id"] == summary("info", snapshot)["snapshot_id"]
    assert summary("verify", snapshot)["content_size"] is None
    assert summary("pack", workspace, "-o", snapshot, "-n")["num_files"] == 5
    entries = [json.loads(line) for line in cli("ls", snapshot, "--json").stdout.splitlines()]
    assert [entry["path"] for entry in entries] == [".env", "code", "code/train.py", "latest"]
    failed = cli("info", target / "nothing", "--json")
    assert json.loads(failed.stderr)["code"] == failed.returncode == 10


def test_dry_runs_touch_nothing(workspace: Path, snapshot: Path, target: Path) -> None:
    assert "would pack 5 entries" in cli("pack", workspace, "-o", snapshot, "-n").stdout
    assert not snapshot.exists()
    cli("pack", workspace, "-o", snapshot)
    assert "code/train.py" in cli("restore", snapshot, target, "-n", "--include", "*.py").stdout
    assert not target.exists()


def test_excludes_come_from_files_too(workspace: Path, snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "ignore").write_text("# comment\n*.tmp\n\ncode/\n")
    result = cli("pack", workspace, "-o", snapshot, "--exclude-from", tmp_path / "ignore")
    assert "3 entries left out by --exclude *.tmp code/" in result.stdout
    assert cli("ls", snapshot).stdout.split() == [".env", "latest"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["info", "{tmp}/nothing"], 10, "no such snapshot"),
        (["pack", "{tmp}/nothing", "-o", "{tmp}/x.dumont"], 10, "no such file"),
        (["pack", "{tmp}", "-o", "{tmp}"], 2, "directory"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--method", "zip"], 2, "method"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--link", "fast"], 2, "no rate of a link"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--link", "0"], 2, "no rate of a link"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--level", "0"], 2, "--level"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--level", "20"], 2, "--level"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--digest", "md5"], 2, "digest"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--chunk-size", "5000"], 2, "chunk size"),
        (["pack", "{tmp}", "-o", "{tmp}/x", "--chunk-size", "lots"], 2, "size"),
        (["pack", "{tmp}"], 2, "output"),
        (["pack", "{tmp}", "-o", "gs://bucket/key"], 8, "s3://bucket/key"),
        (["pack", "{tmp}", "-o", "https://host/x.dumont"], 8, "cannot be written to"),
        (["info", "ftp://host/x.dumont"], 8, "ftp://"),
        (["info", "http://127.0.0.1:1/x.dumont", "--patience", "0"], 5, "cannot be reached"),
        (["info", "http://"], 2, "no http address"),
        (["info", "https://[me:secret@host/x.dumont"], 2, "no http address"),
        (["restore", "{golden}/example.dumont", "{tmp}/t", "--limit-rate", "fast"], 2, "size"),
        (["restore", "{golden}/example.dumont", "{tmp}/t", "--connections", "65"], 2, "connections"),
        (["info", "{tmp}"], 2, "not a regular file"),
        (["info", sys.executable], 4, "not a .dumont file"),
        (["restore", "{golden}/future-codec.dumont", "{tmp}/t"], 8, "codec 127"),
        (["restore", "{golden}/future-flag.dumont", "{tmp}/t"], 8, "made by a newer version"),
        (["restore", "{golden}/example.dumont", "{golden}"], 2, "not empty"),
        (["restore", "{golden}/example.dumont", "{golden}/make.py"], 2, "not a directory"),
        (["restore", "{golden}/example.dumont", "{tmp}/t", "--overwrite", "maybe"], 2, "--overwrite"),
        (["restore", "{golden}/example.dumont", "{tmp}/t", "--expect", "sha256:12"], 2, "snapshot id"),
        (["restore", "{golden}/example.dumont", "{tmp}/t", "--expect", "0" * 64], 4, "another snapshot"),
        (["restore", "{golden}/holes.dumont", "{tmp}/t", "--max-size", "1MiB", "--exclude", "sparse"], 0, ""),
        (["restore", "{golden}/holes.dumont", "{tmp}/t", "--max-size", "1MB"], 1, "--max-size"),
        (["verify", "{golden}/example.dumont", "--device", "gpu"], 2, "gpu"),
        (["nonsense"], 2, "nonsense"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_mistakes_are_one_line_and_a_code(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    result = cli(*(part.format(tmp=tmp_path, golden=GOLDEN) for part in arguments), TERM="dumb")
    assert result.returncode == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    if code not in (0, 2):
        assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.dumont")) and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_an_error_and_auto_is_not(tmp_path: Path) -> None:
    failed = cli("restore", GOLDEN / "example.dumont", tmp_path / "t", "--device", "0")
    assert (failed.returncode, len(failed.stderr.splitlines())) == (7, 1)
    assert "driver" in failed.stderr
    assert cli("restore", GOLDEN / "example.dumont", tmp_path / "t", DUMONT_DEVICE="0").returncode == 7
    restored = cli("restore", GOLDEN / "example.dumont", tmp_path / "t", "--device", "auto", "--json")
    assert json.loads(restored.stdout.splitlines()[-1])["device"] == "cpu"


def test_a_traceback_only_with_debug() -> None:
    assert "Traceback" in cli("info", "/nothing", "--debug").stderr


def test_version_and_help() -> None:
    assert cli("--version").stdout == f"dumont-gpu {__version__}\n"
    assert "restore" in cli("--help").stdout
    for command in ("pack", "restore", "info", "ls", "verify"):
        shown = cli(command, "-h")
        assert shown.returncode == 0
        assert f"dumont-gpu {command} " in shown.stdout
    assert cli("doctor").returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_the_first_line_of_each(name: str) -> None:
    command = COMMANDS[name]
    function = getattr(importlib.import_module(f"dumont_gpu.cli.{command.module}"), command.function)
    assert command.summary == (inspect.getdoc(function) or "").splitlines()[0]


def test_help_names_what_there_is_to_choose() -> None:
    """The command line must not load codecs, or the target of a restore, to say so."""
    assert dict(declared(PackOptions))["method"].metavar.split("|") == list(METHODS)
    assert PackOptions().method == DEFAULT_METHOD
    assert (PackOptions().link, PackOptions().level, MAX_LEVEL) == (DEFAULT_LINK, zstd.LEVEL, zstd.MAX_LEVEL)
    assert dict(declared(RestoreOptions))["overwrite"].metavar.split("|") == ["refuse", *OVERWRITE_CHOICES]
    assert Network().made() == NetworkOptions()


@pytest.mark.parametrize("options", [PackOptions, RestoreOptions, VerifyOptions])
def test_options_that_are_not_given_have_their_defaults(options: type) -> None:
    """Sizes and times are shown as text, and the text is read again."""
    assert build(options, {}) == options()
    for name, option in declared(options):
        if option.shown is None and option.kind.write(option.default) is not None:
            assert option.kind.parse(option.kind.write(option.default)) == option.default, name


def test_progress_lines_and_bar_go_to_stderr(workspace: Path, snapshot: Path) -> None:
    for kind in ("bar", "lines", "none"):
        result = cli("pack", workspace, "-o", snapshot, "--progress", kind)
        assert result.returncode == 0
        assert result.stdout.startswith("packed")
    assert cli("pack", workspace, "-o", snapshot, "-q").stdout == ""


def test_output_that_cannot_be_written_is_an_error(workspace: Path, snapshot: Path) -> None:
    cli("pack", workspace, "-o", snapshot)
    with open("/dev/full", "w", encoding="utf-8") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "dumont_gpu", "info", snapshot], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "No space left" in ran.stderr


def test_what_was_said_before_an_error_is_not_lost(workspace: Path, snapshot: Path, target: Path) -> None:
    cli("pack", workspace, "-o", snapshot)
    target.mkdir()
    (target / "there").write_bytes(b"")
    ran = cli("restore", snapshot, target, "--json")
    assert ran.returncode == 2
    assert "not empty" in json.loads(ran.stderr.splitlines()[-1])["message"]


def test_a_closed_pipe_is_no_traceback(source: Path, snapshot: Path) -> None:
    for number in range(3000):
        (source / f"a-rather-long-name-for-an-empty-file-{number}").touch()
    cli("pack", source, "-o", snapshot)
    command = f"'{sys.executable}' -m dumont_gpu ls '{snapshot}' | head -1"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in result.stderr
    assert len(result.stdout.splitlines()) == 1
