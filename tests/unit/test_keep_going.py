"""A damaged snapshot: which files are lost, and how the others come back."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from support.hostile import RAW, ZIPNN, ZSTD, Archive, clear_error, command, float_bytes, sha256, tree
from support.snapshots import pack_tree

from dumont_gpu import SnapshotService
from dumont_gpu.bench.compare_trees import differences
from dumont_gpu.errors import DamagedError, DumontError, UsageError
from dumont_gpu.jobs.options import RestoreOptions, VerifyOptions
from dumont_gpu.jobs.restore import RestoreResult, restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource
from dumont_gpu.storage.local import LocalSource
from dumont_gpu.tree.target.journal import NAMES
from dumont_gpu.tree.unfinished import is_unfinished

ODD = b"lost \x80"


def content(seed: int) -> bytes:
    return float_bytes(6000, seed)[:6000]


def archive_of(codec: int) -> Archive:
    """Chunks 0 to 3; chunk 1 holds `lost`, the middle of `spans`, and what a hard link leads to."""
    archive = Archive()
    contents = [content(seed) for seed in range(4)]
    chunks = [archive.chunk(each, codec) for each in contents]
    digest = [sha256(each).hex() for each in contents]
    archive.directory("d")["mode"] = 0o555
    archive.entry("d/spans", type="file", mode=0o640, mtime_ns=5, size=18000, sha256=digest[:3],
                  extents=[[6000 * at, chunks[at], 0, 6000] for at in range(3)])  # fmt: skip
    archive.entry(ODD, type="file", mode=0o644, mtime_ns=6, size=6000, sha256=[digest[1]],
                  extents=[[0, chunks[1], 0, 6000]])  # fmt: skip
    archive.file("no bytes")
    archive.entry("sound", type="file", mode=0o600, mtime_ns=7, size=6000, sha256=[digest[3]],
                  extents=[[0, chunks[3], 0, 6000]])  # fmt: skip
    archive.hardlink("x link", ODD)
    archive.hardlink("y link", "sound")
    archive.symlink("z link", "sound")
    return archive


LOST = ["d/spans", os.fsdecode(ODD), "x link"]


def damaged(archive: Archive, *chunks: int) -> bytes:
    data = bytearray(archive.to_bytes())
    for number in chunks:
        stored = archive.chunks[number].stored
        data[data.index(stored) + len(stored) // 2] ^= 1
    return bytes(data)


def keep_going(data: bytes, target: Path, **options: Any) -> RestoreResult:
    return restore(MemorySource(data), str(target), RestoreOptions(keep_going=True, sync=False, **options))


@pytest.mark.parametrize("codec", [RAW, ZSTD, ZIPNN])
@pytest.mark.parametrize("options", [{}, {"verify": True}, {"jobs": 1}])
def test_what_is_sound_comes_back_and_the_rest_is_named(codec: int, options: dict[str, Any], target: Path) -> None:
    data = damaged(archive_of(codec), 1)
    result = keep_going(data, target, **options)
    assert [(file.path, file.chunk) for file in result.lost] == [(path, 1) for path in LOST]
    assert [problem.path for problem in result.problems] == LOST
    assert result.num_files == 5  # d, no bytes, sound, two links
    assert (target / "sound").read_bytes() == content(3)
    assert (target / "y link").stat().st_ino == (target / "sound").stat().st_ino
    assert (target / "d").stat().st_mode & 0o777 == 0o555
    assert not os.path.lexists(os.fsencode(target) + b"/" + ODD) and not (target / "x link").exists()
    assert is_unfinished((target / "d/spans").lstat())
    assert (target / NAMES[0]).exists()


@pytest.mark.parametrize("verified", [False, True])
def test_a_sound_copy_brings_the_rest(verified: bool, target: Path, tmp_path: Path) -> None:
    archive = archive_of(ZSTD)
    keep_going(damaged(archive, 0, 1), target)
    assert len(keep_going(damaged(archive, 1), target).lost) == 3  # and again, with another copy
    result = restore(MemorySource(archive.to_bytes()), str(target), RestoreOptions(verify=verified, sync=False))
    assert (result.resumed, result.lost, result.problems) == (True, (), ())
    restore(MemorySource(archive.to_bytes()), str(tmp_path / "whole"), RestoreOptions(sync=False))
    assert tree(target) == tree(tmp_path / "whole")
    found = [str(line) for line in differences(tmp_path / "whole", target)]
    assert [line for line in found if not line.startswith("'.': mtime_ns")] == []  # the root has no time of its own


def test_another_restore_into_it_is_refused(target: Path) -> None:
    data = damaged(archive_of(RAW), 1)
    keep_going(data, target)
    other = Archive()
    other.file("x", b"other")
    message = clear_error(lambda: restore(MemorySource(other.to_bytes()), str(target)), UsageError)
    assert "holds an unfinished restore" in message


def test_without_the_option_damage_ends_the_restore_and_the_option_goes_on(target: Path) -> None:
    data = damaged(archive_of(ZSTD), 1)
    with pytest.raises(DamagedError):
        restore(MemorySource(data), str(target), RestoreOptions(sync=False))
    assert [file.path for file in keep_going(data, target).lost] == LOST


def test_what_stood_there_before_is_not_lost(target: Path) -> None:
    target.mkdir()
    old = Path(os.fsdecode(os.fsencode(target) + b"/" + ODD))
    old.write_bytes(b"old")
    (target / "sound").write_bytes(b"old")
    result = keep_going(damaged(archive_of(ZSTD), 1), target, overwrite="always")
    assert [file.path for file in result.lost] == LOST
    assert (old.read_bytes(), (target / "sound").read_bytes()) == (b"old", content(3))


def test_a_part_without_damage_has_no_problem(target: Path) -> None:
    result = keep_going(damaged(archive_of(ZSTD), 1), target, include=("sound", "y link"))
    assert (result.lost, result.problems) == ((), ())
    assert not (target / NAMES[0]).exists()


def test_every_chunk_damaged(target: Path) -> None:
    archive = archive_of(ZSTD)
    result = keep_going(damaged(archive, 0, 1, 2, 3), target)
    assert [file.path for file in result.lost] == [*LOST[:1], LOST[1], "sound", "x link", "y link"]
    assert sorted(os.listdir(target)) == [NAMES[0], "d", "no bytes", "z link"]


@pytest.mark.parametrize("seed", range(20))
def test_no_file_looks_complete_that_is_not(seed: int, source: Path, snapshot: Path, target: Path) -> None:
    """Damage at random: whatever is in the target and not marked as unfinished has the right bytes."""
    rng = random.Random(seed)
    for number in range(40):
        (source / f"{number}").write_bytes(rng.randbytes(rng.choice([0, 10, 3000, 50_000, 200_000])))
    os.link(source / "1", source / "link")
    pack_tree(source, snapshot, chunk_size=1 << 16, method="zstd")
    opened = LocalSource(str(snapshot))
    chunks = read_snapshot(opened).chunks
    opened.close()
    data = bytearray(snapshot.read_bytes())
    for chunk in rng.sample(chunks, 3):
        data[rng.randrange(chunk.offset, chunk.end)] ^= rng.randrange(1, 256)
    result = keep_going(bytes(data), target, verify=bool(seed % 2))
    lost = {file.path for file in result.lost}
    assert lost
    for path in source.iterdir():
        restored = target / path.name
        if path.name not in lost:
            assert restored.read_bytes() == path.read_bytes()
        else:
            assert not restored.exists() or is_unfinished(restored.lstat())


def test_a_bad_sector_is_damage(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(ZSTD)
    path = archive.write(tmp_path / "x.dumont")
    bad = path.read_bytes().index(archive.chunks[1].stored)
    read_into = LocalSource.read_into

    def failing(self: LocalSource, offset: int, out: memoryview) -> None:
        if offset <= bad < offset + len(out):
            raise OSError(errno.EIO, "Input/output error")
        read_into(self, offset, out)

    monkeypatch.setattr(LocalSource, "read_into", failing)
    result = restore(str(path), str(target), RestoreOptions(keep_going=True, sync=False))
    assert [file.path for file in result.lost] == LOST
    assert "cannot be read" in clear_error(lambda: verify(str(path)), DumontError)


def test_another_failure_of_the_source_ends_it(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(ZSTD)
    path = archive.write(tmp_path / "x.dumont")
    bad = path.read_bytes().index(archive.chunks[1].stored)
    read_into = LocalSource.read_into

    def failing(self: LocalSource, offset: int, out: memoryview) -> None:
        if offset <= bad < offset + len(out):
            raise OSError(errno.ESTALE, "Stale file handle")
        read_into(self, offset, out)

    monkeypatch.setattr(LocalSource, "read_into", failing)
    with pytest.raises(Exception, match="Stale"):
        restore(str(path), str(target), RestoreOptions(keep_going=True, sync=False))


def test_a_damaged_table_of_contents_ends_it(target: Path) -> None:
    data = bytearray(archive_of(RAW).to_bytes())
    data[-3] ^= 1
    with pytest.raises(DamagedError):
        keep_going(bytes(data), target)
    assert not target.exists()


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoded", [False, True])
def test_verify_names_the_files_that_are_lost(decoded: bool) -> None:
    with pytest.raises(DamagedError) as caught:
        verify(MemorySource(damaged(archive_of(ZSTD), 1, 3)), VerifyOptions(content=decoded))
    assert [(file.path, file.chunk) for file in caught.value.lost] == [
        (LOST[0], 1), (LOST[1], 1), ("sound", 3), ("x link", 1), ("y link", 3),
    ]  # fmt: skip
    assert "2 of 4 chunks damaged: chunk 1: " in str(caught.value)
    assert str(caught.value).endswith("(and 1 more); 5 files are lost: d/spans, lost \\x80, sound and 2 more")


def test_damaged_padding_does_not_hide_damaged_chunks() -> None:
    archive = archive_of(ZSTD)
    archive.padding = b"not zero"
    with pytest.raises(DamagedError, match="padding"):
        verify(MemorySource(archive.to_bytes()))
    with pytest.raises(DamagedError) as caught:
        verify(MemorySource(damaged(archive, 1)))
    assert [file.path for file in caught.value.lost] == LOST


def test_the_command_line(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "x.dumont"
    path.write_bytes(damaged(archive_of(ZSTD), 1))
    ran = command("restore", path, target, "--keep-going")
    assert ran.code == 4
    assert ran.err.splitlines() == [
        "dumont-gpu: d/spans: lost: chunk 1 is damaged",
        "dumont-gpu: lost \\x80: lost: chunk 1 is damaged",
        "dumont-gpu: x link: lost: chunk 1 is damaged",
    ]
    assert "3 files lost to damaged chunks" in ran.out
    ran = command("restore", path, target, "--keep-going", "--json")
    summary = json.loads(ran.out.splitlines()[-1])
    assert (ran.code, [item["chunk"] for item in summary["lost"]]) == (4, [1, 1, 1])
    assert "path_b64" in summary["lost"][1]
    ran = command("verify", path)
    assert (ran.code, ran.error.rpartition("; ")[2]) == (4, "3 files are lost: d/spans, lost \\x80, x link")
    lines = command("verify", path, "-v").err.splitlines()
    assert (lines[0], len(lines)) == ("dumont-gpu: d/spans: lost: chunk 1 is damaged", 4)
    ran = command("verify", path, "--json")
    assert [json.loads(line)["chunk"] for line in ran.out.splitlines() if '"lost"' in line] == [1, 1, 1]


def test_from_python(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "x.dumont"
    path.write_bytes(damaged(archive_of(ZSTD), 1))
    result = SnapshotService().restore_snapshot(path, target, keep_going=True, sync=False)
    assert [file.path for file in result.lost] == LOST
