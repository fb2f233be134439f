"""Manifests in columns that break a rule, with every digest right: restore, plan and verify refuse them, and write nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import independent_reader
from support.column_manifest import in_columns
from support.column_rules import COLUMN_RULES
from support.hostile import clear_error, command, refused, restored, small_archive, tree
from support.snapshot_rules import DAMAGED

from dumont_gpu.errors import DamagedError
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource

WITH_ATTACKS = [
    row for row in COLUMN_RULES if row not in ("head: unknown facts", "page: unknown columns", "column: mtime")
]
OF_CONTENT = ("column: digest",)  # whose attacks are found when the content is checked


@pytest.mark.parametrize("row", [row for row in WITH_ATTACKS if row not in OF_CONTENT])
def test_what_breaks_a_rule_is_refused_before_anything_is_written(row: str, target: Path) -> None:
    attacks = 0
    for verdict, data in COLUMN_RULES[row]():
        if verdict == DAMAGED and is_refused_by_its_table(data):
            refused(data, target)
            attacks += 1
    assert attacks


def is_refused_by_its_table(data: bytes) -> bool:
    try:
        independent_reader.read_table(data)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("page_entries", [1, 2, 3, 8192])
def test_sound_columns_restore_as_json_does(page_entries: int, tmp_path: Path) -> None:
    restored(small_archive(), tmp_path / "json")
    restored(in_columns(small_archive(), page_entries).to_bytes(), tmp_path / "columns")
    assert tree(tmp_path / "columns") == tree(tmp_path / "json")


REASONS = {
    "path": ({"suffix": b"d\0/..\0text\0"}, "entry 1 of the manifest: not a plain relative path"),
    "mode": ({"mode": b"\xff\x7f\0\0"}, "entry 0 of the manifest: its mode is outside 0 to 4095"),
    "type": ({"type": b"\1\0\4"}, "entry 2 of the manifest: unknown entry type"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_message_names_the_entry_and_the_rule(reason: str, tmp_path: Path) -> None:
    archive = small_archive()
    del archive.entries[3:], archive.chunks[2:]
    built = in_columns(archive)
    columns, message = REASONS[reason]
    built.pages[0].columns |= columns
    snapshot = tmp_path / "x.dumont"
    snapshot.write_bytes(built.to_bytes())
    ran = command("info", snapshot)
    assert (ran.code, ran.out) == (4, "")
    assert ran.error == f"dumont-gpu: {os.fspath(snapshot)}: {message}"


def test_a_page_of_another_snapshot_is_refused() -> None:
    """Its bytes are sound; the digest in the head is not theirs."""
    built = in_columns(small_archive(), 2)
    mine = built.to_bytes()
    other = small_archive()
    other.entries[0]["mode"] = 0o700
    theirs = in_columns(other, 2)
    theirs.place()
    frame = theirs.pages[0].record_and_frame()[1]
    own = built.pages[0].record_and_frame()[1]
    assert len(frame) == len(own)
    assert "SHA-256" in clear_error(lambda: read_snapshot(MemorySource(mine.replace(own, frame))), DamagedError)
