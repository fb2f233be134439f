"""Frozen archives: later versions read them for ever; the specification's example is among them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from golden.make import ARCHIVES, FUTURE, describe
from support.snapshots import GOLDEN, restore_tree

import dumont_gpu
from dumont_gpu.columns.manifest import parse_head
from dumont_gpu.errors import UnsupportedError
from dumont_gpu.format.entries import EntryType
from dumont_gpu.jobs.options import VerifyOptions
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_index, read_manifest, read_snapshot
from dumont_gpu.storage import LocalSource


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_restores(name: str, target: Path) -> None:
    snapshot = GOLDEN / f"{name}.dumont"
    restore_tree(snapshot, target, verify=True)
    assert describe(target) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert verify(str(snapshot), VerifyOptions(content=True)).num_files == len(describe(target))


@pytest.mark.parametrize("name", FUTURE)
def test_archive_from_the_future_is_not_supported(name: str, target: Path) -> None:
    with pytest.raises(UnsupportedError):
        restore_tree(GOLDEN / f"{name}.dumont", target)
    assert not target.exists()


def test_every_golden_archive_is_tested() -> None:
    assert {path.stem for path in GOLDEN.glob("*.dumont")} == {*ARCHIVES, *FUTURE}


def test_the_archive_in_columns_has_all_that_columns_can_say() -> None:
    source = LocalSource(str(GOLDEN / "columns.dumont"))
    index = read_index(source)
    head = parse_head(memoryview(read_manifest(index)), index.header, index.chunks)
    assert [page.entries for page in head.pages] == [4, 4, 4, 4]
    entries = {entry.path: entry for entry in read_snapshot(source).manifest.entries}
    assert {entry.type for entry in entries.values()} == {*EntryType}
    assert {entry.owner for entry in entries.values()} == {None, (1000, 100), (1000, 104), (1000, 111)}
    assert [path for path, entry in entries.items() if entry.changed] == ["a"]
    assert entries["z"].extents == entries["a"].extents
    assert head.pages[3].pieces == 1, "z's pieces are in the first page"
    assert sum(extent.length for extent in entries["sparse"].extents) < entries["sparse"].size
    assert any(os.fsencode(path) == b"latin-\xe9" for path in entries)


def test_the_example_of_the_specification_is_the_golden_one() -> None:
    text = (Path(dumont_gpu.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
    data = (GOLDEN / "example.dumont").read_bytes()
    rows = re.findall(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)", text, re.MULTILINE)
    shown = bytearray(len(data))
    for offset, row in rows:
        content = bytes.fromhex(row)
        shown[int(offset, 16) : int(offset, 16) + len(content)] = content
    assert bytes(shown) == data
    manifest = read_snapshot(LocalSource(str(GOLDEN / "example.dumont"))).manifest
    assert manifest.to_json().decode().strip() in text
