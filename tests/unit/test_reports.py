"""What commands say of a day's work: counts by kind, what was left out, newer files, sizes, help, completion, doctor."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.commands import command
from support.snapshots import pack_tree, restore_tree

from dumont_gpu.cli.completion import paths_inside, words_of
from dumont_gpu.cli.disk_speed import measure_disk
from dumont_gpu.errors import DumontError
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.tree.source.left_out import count_below


@pytest.fixture
def tree(source: Path) -> Path:
    for folder in ("src/deep/er", "cache/a", "cache/b"):
        (source / folder).mkdir(parents=True)
    for name in ("src/deep/er/file.py", "cache/a/1", "cache/a/2", "cache/b/3"):
        (source / name).write_text(f"text of {name}\n" * 100)
    (source / "link").symlink_to("src")
    return source


# --- counts -----------------------------------------------------------------------------------------------------------


def test_what_a_pattern_leaves_out_counts_with_all_that_it_holds(tree: Path, snapshot: Path) -> None:
    said = command("pack", tree, "-o", snapshot, "--exclude", "cache").out
    assert "  6 entries left out by --exclude cache\n" in said
    assert "  6 entries left out by" in command("pack", tree, "-o", snapshot, "-n", "--exclude", "cache").out


def test_what_is_left_out_is_counted_up_to_a_bound(tree: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumont_gpu.tree.source.scan.MOST_COUNTED", 3)
    result = pack([str(tree)], str(snapshot), PackOptions(exclude=("cache",)))
    assert (result.excluded, result.excluded_more) == (3, True)


def test_counting_follows_no_link_and_reads_no_closed_directory(tree: Path, tmp_path: Path) -> None:
    (tree / "cache/out").symlink_to(tmp_path)
    (tree / "cache/loop").symlink_to("..")
    parent = os.open(tree, os.O_RDONLY)
    try:
        assert count_below(parent, "cache", 1000) == 7
        assert count_below(parent, "cache", 4) == 4
        assert count_below(parent, "link", 1000) == 0
        assert count_below(parent, "nosuch", 1000) == 0
    finally:
        os.close(parent)


def test_restored_entries_are_counted_by_kind(tree: Path, snapshot: Path, target: Path) -> None:
    pack_tree(tree, snapshot)
    said = "1 file, 3 directories, "
    for arguments in (["-n"], []):
        ran = command("restore", snapshot, target, "--include", "*.py", *arguments)
        assert re.match(rf"(would restore|restored) {said}", ran.out), ran.out
    assert "  4 files, 6 directories, 1 link\n" in command("info", snapshot).out
    record = json.loads(command("restore", snapshot, f"{target}2", "--json").out.splitlines()[-1])
    assert record["entries"] == {"file": 4, "dir": 6, "symlink": 1}


# --- newer files ------------------------------------------------------------------------------------------------------


def test_if_changed_names_the_newer_files_that_it_writes_over(tree: Path, snapshot: Path, target: Path) -> None:
    pack_tree(tree, snapshot)
    restore_tree(snapshot, target)
    edited, older = target / "cache/a/1", target / "cache/a/2"
    edited.write_text("an hour's work")
    older.write_text("old")
    os.utime(older, (1, 1))
    for words, arguments in (("would be", ["-n"]), ("was", [])):
        ran = command("restore", snapshot, target, "--overwrite", "if-changed", *arguments)
        line = f"  1 file of the target was newer than the snapshot's, and {words} written over:\n    cache/a/1\n"
        assert line in ran.out
    assert edited.read_text().startswith("text of")
    assert "newer than" not in command("restore", snapshot, target, "--overwrite", "if-changed").out


def test_newer_files_are_exact_in_json(tree: Path, snapshot: Path, target: Path) -> None:
    pack_tree(tree, snapshot)
    restore_tree(snapshot, target)
    (target / "cache/a/1").write_text("an hour's work")
    ran = command("restore", snapshot, target, "--overwrite", "if-changed", "--json")
    assert json.loads(ran.out.splitlines()[-1])["newer"] == ["cache/a/1"]


# --- ls ---------------------------------------------------------------------------------------------------------------


def test_a_long_list_ends_with_a_total(tree: Path, snapshot: Path) -> None:
    pack_tree(tree, snapshot)
    *lines, total = command("ls", snapshot, "-l", "cache").out.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"total: 3 files, 3 directories, 5\.3 KiB from \d+ B \(\d+\.\d\dx\)", total)
    assert "extents" not in "".join(lines)


def test_digests_are_whole_and_asked_for(source: Path, snapshot: Path) -> None:
    import hashlib

    (source / "x").write_bytes(b"content")
    pack_tree(source, snapshot, digest="sha256")
    assert hashlib.sha256(b"content").hexdigest() in command("ls", snapshot, "--digest").out
    assert hashlib.sha256(b"content").hexdigest()[:12] not in command("ls", snapshot, "-l").out


# --- help and completion ----------------------------------------------------------------------------------------------


def test_help_comes_in_groups_with_examples_and_the_default_among_the_choices() -> None:
    said = command("restore", "-h", COLUMNS="120").out
    titles = re.findall(r"^╭─ (\w+) ─", said, re.MULTILINE)
    assert titles == ["Arguments", "Options", "What", "Where", "Checks", "Speed", "Network", "Output"]
    assert " Examples:" in said
    assert "refuse|always|if-changed|never" in said
    for name in ("pack", "ls", "info", "verify", "serve", "doctor", "bench"):
        assert " Examples:" in command(name, "-h").out, name


def test_a_shell_completes_choices() -> None:
    assert words_of("refuse|always|if-changed|never")("") == ["refuse", "always", "if-changed", "never"]  # type: ignore[misc]
    assert words_of("auto|cpu|N")("c") == ["cpu"]  # type: ignore[misc]
    assert words_of("GLOB") is None
    ran = command(
        "restore", _DUMONT_GPU_COMPLETE="complete_bash", COMP_WORDS="dumont-gpu restore --overwrite i", COMP_CWORD="3"
    )
    assert ran.out.split() == ["if-changed"]


def test_a_shell_completes_paths_inside_a_snapshot(tree: Path, snapshot: Path) -> None:
    pack_tree(tree, snapshot)

    def offers(location: object, incomplete: str) -> list[str]:
        context: Any = SimpleNamespace(params={"snapshot": str(location)})
        return paths_inside(context, incomplete)

    assert offers(snapshot, "") == ["cache/", "link", "src/"]
    assert offers(snapshot, "cache/") == ["cache/a/", "cache/b/"]
    assert offers(snapshot, "cache/a/") == ["cache/a/1", "cache/a/2"]
    assert offers("https://host/x.dumont", "") == []
    assert offers(tree / "cache/a/1", "") == []
    assert offers("nosuch", "") == []


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_knows_the_clock_and_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    from dumont_gpu.cli import examination

    found = {finding.what: finding for finding in examination.examine()}
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d [+-]\d{4}", found["Clock"].detail)
    assert found["Extra s3"].detail.startswith("obstore ")
    assert found["Extra fs"].detail.startswith("fsspec ")
    assert found["Extra mount"].found or re.match("no .*: ", found["Extra mount"].detail)
    missing = examination._extra("s3", ("obstore", "no-such-package"), "s3://")
    assert (missing.found, missing.detail) == (False, 'no no-such-package, for s3://: pip install "dumont-gpu[s3]"')


def test_a_disk_is_measured_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumont_gpu.cli.disk_speed._PIECES", 1)
    monkeypatch.setattr("dumont_gpu.cli.disk_speed._FILES", 10)
    assert re.search(
        r"writes [\d,]+ MiB/s, reads [\d,]+ MiB/s, makes [\d,]+ files/s", measure_disk(str(tmp_path)).detail
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(DumontError, match="nosuch"):
        measure_disk(str(tmp_path / "nosuch"))
