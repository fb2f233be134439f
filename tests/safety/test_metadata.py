"""Modes, owners and times: which are restored, dropped or refused."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from support.hostile import MTIME, Archive, command, refused, restored

from dumont_gpu.errors import DamagedError
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import open_source

SPECIAL = 0o7777


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def special() -> Archive:
    archive = Archive(head={"root": {"mode": SPECIAL, "mtime_ns": MTIME}})
    archive.directory("d")["mode"] = SPECIAL
    archive.file("d/empty")["mode"] = SPECIAL
    archive.file("d/f", b"#!/bin/sh\n")["mode"] = SPECIAL
    archive.hardlink("d/hard", "d/f")
    return archive


PLACES = (".", "d", "d/empty", "d/f", "d/hard")


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", ["refuse", "always"])
def test_setuid_setgid_and_sticky_are_dropped(overwrite: str, target: Path) -> None:
    if overwrite == "always":
        restored(special(), target)
    restored(special(), target, overwrite=overwrite)
    assert {place: mode_of(target / place) for place in PLACES} == dict.fromkeys(PLACES, 0o777)


def test_setuid_setgid_and_sticky_are_restored_when_asked_for(target: Path) -> None:
    restored(special(), target, preserve_special=True)
    assert {place: mode_of(target / place) for place in PLACES} == dict.fromkeys(PLACES, SPECIAL)


def test_file_that_replaces_a_setuid_one_does_not_inherit_its_mode(target: Path) -> None:
    (target / "d").mkdir(parents=True)
    (target / "d" / "f").write_bytes(b"trusted")
    (target / "d" / "f").chmod(0o6755)
    restored(special(), target, overwrite="always")
    assert mode_of(target / "d" / "f") == 0o777


@pytest.mark.parametrize("mode", [0o10000, 0o100644, 0o40755, -1, 1 << 31, 1 << 64, True, "644", 420.0, None])
@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "root"])
def test_mode_out_of_range_is_refused(kind: str, mode: Any, target: Path) -> None:
    archive = Archive()
    if kind == "root":
        archive.head["root"] = {"mode": mode, "mtime_ns": 0}
    else:
        archive.entry("x", type=kind, mode=mode, mtime_ns=0, size=0, extents=[], sha256=[], target="y")
    refused(archive, target)


def test_umask_does_not_matter(target: Path) -> None:
    before = os.umask(0o077)
    try:
        restored(special(), target)
    finally:
        os.umask(before)
    assert mode_of(target / "d" / "f") == 0o777


# --- owners -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Records the calls of chown, and changes nothing."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: calls.append((uid, gid)))
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_: calls.append((uid, gid)))
    return calls


def owned() -> Archive:
    archive = Archive(head={"root": {"mode": 0o755, "mtime_ns": MTIME, "owner": [1, 2]}})
    archive.directory("d", owner=[3, 4])
    archive.file("f", b"content", owner=[5, 6])
    archive.symlink("s", "f", owner=[7, 8])
    return archive


def test_owner_is_left_alone_unless_asked_for(target: Path, owners: list[tuple[int, int]]) -> None:
    restored(owned(), target)
    assert owners == []


def test_owner_is_restored_when_asked_for(target: Path, owners: list[tuple[int, int]]) -> None:
    restored(owned(), target, owner=True)
    assert sorted(owners) == [(1, 2), (3, 4), (5, 6), (7, 8)]


def test_setuid_survives_neither_owner_nor_its_order(target: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    archive = special()
    for entry in archive.entries[:3]:
        entry["owner"] = [12345, 12345]
    restored(archive, target, owner=True)
    assert [(mode_of(target / place), (target / place).stat().st_uid) for place in ("d", "d/f")] == [(0o777, 12345)] * 2


@pytest.mark.parametrize(
    "owner",
    [[], [0], [0, 0, 0], [-1, 0], [1 << 32, 0], [0.0, 0], ["root", "root"], "root", 0, [True, 0], {}, [None, 0]],
)
def test_malformed_owner_is_refused(owner: Any, target: Path) -> None:
    archive = Archive()
    archive.directory("d", owner=owner)
    refused(archive, target)


@pytest.mark.parametrize("owner", [[(1 << 32) - 1, 0], [0, (1 << 32) - 1]])
def test_owner_that_means_no_change_is_refused(owner: list[int], target: Path) -> None:
    archive = Archive()
    archive.directory("d", owner=owner)
    refused(archive, target)


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mtime", [0, -1, -(1 << 63), (1 << 63) - 1, 1, -(10**18), 4 * 10**18])
def test_extreme_times_are_clamped_by_the_file_system_not_fatal(mtime: int, target: Path) -> None:
    archive = Archive(head={"root": {"mode": 0o755, "mtime_ns": mtime}})
    archive.directory("d")["mtime_ns"] = mtime
    archive.file("f", b"content")["mtime_ns"] = mtime
    archive.symlink("s", "f")["mtime_ns"] = mtime
    restored(archive, target)
    if abs(mtime) > 1 << 62:
        assert command("ls", "-l", archive.write(target.parent / "x.dumont")).code == 0


@pytest.mark.parametrize("mtime", [1 << 63, -(1 << 63) - 1, 10**400, 1.5e9, True, "now", None, [0]])
def test_time_out_of_range_is_refused(mtime: Any, target: Path) -> None:
    archive = Archive()
    archive.directory("d")["mtime_ns"] = mtime
    refused(archive, target)


@pytest.mark.parametrize(
    "created",
    [10**30, -(10**30), 10**400, 253402300800 * 10**9],
    ids=lambda number: f"{number:.3g}"[:9] if abs(number) < 1 << 200 else "endless",
)
def test_creation_time_out_of_range_can_be_printed(created: int, tmp_path: Path) -> None:
    snapshot = Archive(head={"created_ns": created}).write(tmp_path / "x.dumont")
    ran = command("info", snapshot)
    assert ran.code in (0, 4)
    assert ran.code == 0 or ran.error


@pytest.mark.parametrize("kind", ["file", "dir", "root"])
def test_packed_times_beyond_the_formats_range_are_clamped(kind: str, source: Path, snapshot: Path) -> None:
    (source / "dir").mkdir()
    (source / "file").write_bytes(b"content")
    place = {"file": source / "file", "dir": source / "dir", "root": source}[kind]
    os.utime(place, ns=((1 << 63) + 1, (1 << 63) + 1))
    if place.stat().st_mtime_ns < 1 << 63:
        pytest.skip("this file system has no such times")
    pack([str(source)], str(snapshot))
    verify(str(snapshot))


# --- entries that are no files ----------------------------------------------------------------------------------------


def test_device_nodes_fifos_and_sockets_are_not_packed_but_counted(source: Path, snapshot: Path) -> None:
    os.mkfifo(source / "fifo")
    expected = 2
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(source)  # a socket's path is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        if os.geteuid() == 0:
            try:
                os.mknod(source / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
                expected += 1
            except PermissionError:
                pass
        (source / "file").write_bytes(b"content")
        result = pack([str(source)], str(snapshot))
    assert (result.special, result.num_files, result.problems) == (expected, 1, ())
    ran = command("pack", source, "-o", snapshot)
    assert ran.code == 0
    assert f"{expected} sockets, fifos or devices not packed" in ran.out


@pytest.mark.parametrize("kind", ["fifo", "char", "block", "socket", "whiteout", "FILE", "", None, 0, [], {}, True])
def test_unknown_entry_type_is_refused(kind: Any, target: Path) -> None:
    refused(Archive([{"path": "x", "type": kind, "mode": 0o666, "mtime_ns": 0, "rdev": 259}]), target)


# --- the root ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [[], 0, "x", True, {}, {"mode": 0o755}, {"mtime_ns": 0}])
def test_malformed_root_is_refused(root: Any, target: Path) -> None:
    refused(Archive(head={"root": root}), target)


@pytest.mark.parametrize(
    "fields",
    [{"type": "symlink", "target": "/"}, {"type": "hardlink", "target": "x"}, {"path": "../x"},
     {"type": "file", "size": 1 << 62, "extents": [[0, 9, 0, 1 << 61]], "sha256": ["00" * 32]}],
    ids=repr,
)  # fmt: skip
def test_root_that_claims_to_be_something_else_is_refused_or_a_directory(fields: dict[str, Any], target: Path) -> None:
    source = open_source(str(Archive(head={"root": {"mode": 0o755, "mtime_ns": 0} | fields}).write(target)))
    try:
        root = read_snapshot(source).manifest.root
    except DamagedError:
        return
    assert root is not None
    assert (root.path, root.type.value, root.size) == ("root", "dir", 0)


def test_metadata_of_the_root_is_not_changed_when_existing_files_are_to_stay(target: Path) -> None:
    target.mkdir(mode=0o700)
    (target / "mine").write_bytes(b"my own")
    restored(special(), target, overwrite="never")
    assert mode_of(target) == 0o700


def test_owner_is_not_recorded_unless_asked_for(source: Path, snapshot: Path) -> None:
    (source / "file").write_bytes(b"content")
    for owner in (False, True):
        pack([str(source)], str(snapshot), PackOptions(owner=owner))
        opened = open_source(str(snapshot))
        entries = [*read_snapshot(opened).manifest.entries, read_snapshot(opened).manifest.root]
        opened.close()
        assert [entry is not None and entry.owner is not None for entry in entries] == [owner, owner]
