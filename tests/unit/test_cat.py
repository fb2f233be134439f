"""`cat` prints files of a snapshot, verified, and reads only their chunks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.hostile import ZIPNN, Archive, clear_error, float_bytes
from support.program import program
from support.snapshots import pack_tree
from support.trees import write_files

from dumont_gpu.errors import DamagedError
from dumont_gpu.jobs.read_file import read_files
from dumont_gpu.storage.local import LocalSource

ODD = os.fsdecode(b"not utf-8 \xff")


@pytest.fixture
def packed(source: Path, snapshot: Path) -> Path:
    write_files(source, ("readme", "a b/c:d", f"{ODD}/x", "-n"), "\r\n")
    (source / "link").symlink_to("readme")
    pack_tree(source, snapshot, chunk_size=1 << 16)
    return snapshot


def cat(*arguments: str | Path) -> tuple[int, bytes, str]:
    ran = subprocess.run([program(), "cat", *map(str, arguments)], capture_output=True, timeout=60)
    return ran.returncode, ran.stdout, os.fsdecode(ran.stderr).strip()


@pytest.mark.parametrize("name", ["readme", "a b/c:d", f"{ODD}/x", "empty", "large", "holes", "same", "./readme"])
def test_the_bytes_of_a_file(name: str, packed: Path, source: Path) -> None:
    assert cat(packed, name) == (0, (source / name).read_bytes(), "")
    assert cat(f"{packed}:{name}") == (0, (source / name).read_bytes(), "")


def test_several_files_in_order(packed: Path, source: Path) -> None:
    names = ["same", "large", f"{ODD}/x", "large", "-n"]
    assert cat(packed, "--", *names) == (0, b"".join((source / name).read_bytes() for name in names), "")
    assert cat(f"{packed}:a b", "c:d") == (0, b"content of a b/c:d\r\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("{}", "readme", "a b"), 2, "a b: is a directory"),
        (("{}:a b",), 2, "name the files"),
        (("{}",), 2, "name the files"),
        (("{}", "/"), 2, "is a directory"),
        (("{}", "readme", "link"), 2, "link: is a link to readme"),
        (("{}:readme", "x"), 2, "readme: is a file"),
        (("{}", "readme", "none"), 10, "holds no none"),
        (("{}", "a b/../readme"), 2, "no .."),
        (("{}.missing", "x"), 10, ""),
    ],
)
def test_nothing_is_printed_before_every_path_is_known(
    arguments: tuple[str, ...], code: int, says: str, packed: Path
) -> None:
    ran = cat(*(text.format(packed) for text in arguments))
    assert (ran[0], ran[1], says in ran[2]) == (code, b"", True), ran


def test_only_the_chunks_of_the_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()
    archive.file("a", b"a" * 50_000)
    archive.file("b", b"b" * 60_000)
    path = archive.write(tmp_path / "x.dumont")
    reads: list[int] = []
    read_into = LocalSource.read_into

    def counted(self: LocalSource, offset: int, out: memoryview) -> None:
        reads.append(len(out))
        read_into(self, offset, out)

    monkeypatch.setattr(LocalSource, "read_into", counted)
    assert b"".join(read_files(str(path), ["b"])) == b"b" * 60_000
    assert (60_000 in reads, 50_000 in reads) == (True, False)


def test_no_damaged_byte_is_printed(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("sound", b"s" * 5000)
    archive.file("weights", float_bytes(9000), ZIPNN)
    data = bytearray(archive.to_bytes())
    chunk = archive.chunks[1]
    data[data.index(chunk.stored) + 900] ^= 1
    path = tmp_path / "x.dumont"
    path.write_bytes(data)
    code, out, error = cat(path, "sound", "weights")
    assert (code, out) == (4, b"s" * 5000)
    assert "chunk 1: its " in error


def test_content_that_the_chunk_has_but_the_file_had_not(tmp_path: Path) -> None:
    """The chunk matches its digest, the file's extent does not match its own: a hostile or a broken packer."""
    archive = Archive()
    archive.file("a", b"a" * 5000)
    archive.entries[0]["sha256"] = ["00" * 32]
    path = archive.write(tmp_path / "x.dumont")
    assert "a: its content does not match its digest" in clear_error(
        lambda: b"".join(read_files(str(path), ["a"])), DamagedError
    )
    assert cat(path, "a")[:2] == (4, b"")


def test_a_reader_that_leaves_ends_the_command(packed: Path) -> None:
    with subprocess.Popen([program(), "cat", packed, *["large"] * 50], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert len(running.stdout.read(10)) == 10
        running.stdout.close()
        assert running.wait(30) == 0


def test_a_closed_standard_output_is_told(packed: Path) -> None:
    line = ["sh", "-c", '"$@" >&-', "sh", program(), "cat", f"{packed}:readme"]
    ran = subprocess.run(line, stderr=subprocess.PIPE, timeout=60)
    assert ran.returncode == 1
    assert ran.stderr == b"dumont-gpu: standard output is closed: nothing can be written there\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_told(packed: Path) -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run([program(), "cat", packed, "large"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert (ran.returncode, b"No space left" in ran.stderr) == (1, True)
