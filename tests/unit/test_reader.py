"""The reader for any machine: one file that reads what the program writes, with Python's standard library alone."""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lz4.block
import lz4.frame
import pytest
import zstandard
from blake3 import blake3
from golden.make import ARCHIVES, FUTURE, describe
from hypothesis import given, settings
from hypothesis import strategies as st
from support import trees
from support.column_rules import COLUMN_RULES
from support.commands import cli
from support.hostile import LZ4, LZ4_HC, ZIPNN, ZSTD, Archive, Ran, encode, float_bytes, open_bytes, small_archive, tree
from support.snapshot_rules import DAMAGED, OK, RULES, UNSUPPORTED
from support.snapshots import GOLDEN, assert_same_tree, pack_tree
from support.stream_rules import STREAM_RULES

from dumont_gpu.reader import dumont_reader as reader
from dumont_gpu.reader import reader_source

CODES = {OK: 0, DAMAGED: 4, UNSUPPORTED: 8}
STREAMS: list[dict[str, Any]] = json.loads((GOLDEN / "streams" / "streams.json").read_text())
KIB = 1 << 10


@pytest.fixture(autouse=True)
def _nothing_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with the standard library alone, unless it asks for `faster`."""
    monkeypatch.setattr(reader, "faster", reader.Faster())


def pure() -> reader.Faster:
    return reader.Faster()


def with_numpy() -> reader.Faster:
    faster = reader.Faster()
    faster.numpy = pytest.importorskip("numpy")
    return faster


def with_packages() -> reader.Faster:
    faster = reader.Faster()
    faster.find()
    return faster


def with_libraries() -> reader.Faster:
    faster = reader.Faster()
    faster.lz4_block = reader.lz4_of_library(reader.library("lz4"))
    faster.zstd = reader.zstd_of_library(reader.library("zstd"))
    if faster.lz4_block is None or faster.zstd is None:
        pytest.skip("the C libraries of lz4 and zstd are not there")
    return faster


@pytest.fixture(params=[pure, with_numpy, with_packages, with_libraries], ids=lambda make: make.__name__)
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> reader.Faster:
    """What the reader has beside the standard library; what it has, it uses for the smallest input, too."""
    found: reader.Faster = request.param()
    monkeypatch.setattr(found, "find", lambda: None)
    monkeypatch.setattr(reader, "faster", found)
    monkeypatch.setattr(reader, "FEW", 0)
    return found


def run(*arguments: str | Path | bytes) -> Ran:
    """Runs the reader's command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = reader.main([os.fsdecode(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def restored(snapshot: str | Path, target: Path, *options: str) -> Ran:
    return run("restore", "--no-sync", *options, snapshot, target)


# --- what must be read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHIVES)
def test_golden_archive_is_restored(name: str, target: Path, faster: reader.Faster) -> None:
    snapshot = GOLDEN / f"{name}.dumont"
    assert restored(snapshot, target).code == 0
    assert describe(target) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert run("verify", snapshot).out.startswith("sound: sha256:")
    assert run("ls", snapshot).out == cli("ls", snapshot).stdout


@pytest.mark.parametrize("name", FUTURE)
def test_archive_from_the_future_is_not_supported(name: str, target: Path) -> None:
    for ran in (run("ls", GOLDEN / f"{name}.dumont"), restored(GOLDEN / f"{name}.dumont", target)):
        assert (ran.code, ran.out) == (8, "")
        assert ran.error
    assert not target.exists()


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream["name"])
def test_golden_stream_decodes(stream: dict[str, Any], faster: reader.Faster) -> None:
    stored = (GOLDEN / "streams" / f"{stream['name']}.zipnn").read_bytes()
    raw = reader.decode_zipnn(stored, stream["original_size"])
    assert stream["original_sha256"] == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("frame", sorted((GOLDEN / "lz4").glob("*.lz4")), ids=lambda path: path.stem)
def test_golden_frame_decodes(frame: Path, faster: reader.Faster) -> None:
    expected = (GOLDEN / "lz4" / "original.txt").read_bytes()
    try:
        raw = bytes(reader.decode_lz4(frame.read_bytes(), len(expected)))
    except reader.DamagedError:  # not of the kind that FORMAT.md allows
        assert cli("--version").returncode == 0
        assert frame.stem not in ("independent-64k", "block-checksums", "high-compression")
        return
    assert expected == raw


@pytest.mark.parametrize(
    ("method", "digest", "chunk_size"),
    [
        ("hybrid_v3", "blake3", "64KiB"),
        ("hybrid_v2", "sha256", "1MiB"),
        ("zstd", "blake3", "4KiB"),
        ("lz4_hc", "blake3", "64MiB"),
    ],
)
def test_every_kind_of_entry_comes_back(
    method: str, digest: str, chunk_size: str, source: Path, snapshot: Path, target: Path, faster: reader.Faster
) -> None:
    make_tree(source)
    assert pack_tree(source, snapshot, method=method, digest=digest, chunk_size=reader_size(chunk_size)).problems == ()
    assert run("verify", snapshot).code == 0
    ran = restored(snapshot, target)
    assert (ran.code, ran.err) == (0, "")
    assert_same_tree(source, target)
    assert (target / "sparse").stat().st_blocks * 512 < 100 * KIB
    assert run("ls", snapshot).out == cli("ls", snapshot).stdout


def reader_size(text: str) -> int:
    return int(text[:-3]) << {"KiB": 10, "MiB": 20}[text[-3:]]


def make_tree(top: Path) -> None:
    """Makes files of all codecs, empty and sparse ones, links, hard links, odd names, modes and times."""
    dice = random.Random(5)
    (top / "weights" / "none").mkdir(parents=True)
    (top / "weights" / "bf16.bin").write_bytes(float_bytes(60_000))
    (top / "log.txt").write_text("".join(f"step {step} loss {dice.random():.3f}\n" for step in range(9000)))
    (top / "noise").write_bytes(dice.randbytes(70_000))
    (top / "noise again").write_bytes((top / "noise").read_bytes())
    for size in (0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 4097):
        (top / f"small-{size}").write_bytes(dice.randbytes(size))
    with (top / "sparse").open("wb") as file:
        file.seek(2_000_000)
        file.write(b"between")
        file.truncate(5_000_000)
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"\x1b[2J", b"x" * 255, "\u00e9\u2028".encode(), b"back\\slash"):
        Path(os.fsdecode(os.fsencode(top) + b"/" + name)).write_bytes(name)
    (top / "link").symlink_to("weights/nowhere")
    (top / "absolute").symlink_to("/etc/passwd")
    (top / "other-name").hardlink_to(top / "log.txt")
    (top / "log.txt").chmod(0o444)
    (top / "small-1").chmod(0o600)
    (top / "weights" / "none").chmod(0o500)
    for path in (top / "noise", top / "weights", top):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(tree_=st.builds(trees.Dir, trees.DIR_MODES, trees.TIMES, st.dictionaries(trees.NAMES, trees.TREES, max_size=4)))
def test_any_tree_comes_back(tree_: trees.Dir, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("tree")
    trees.make(tree_, place / "source")
    pack_tree(place / "source", place / "x.dumont")
    assert restored(place / "x.dumont", place / "target", "--pure").code == 0
    assert_same_tree(place / "source", place / "target")
    shutil.rmtree(os.fsencode(place))


# --- digests and codecs against others --------------------------------------------------------------------------------


def test_blake3_of_many_pieces_is_that_of_the_package(faster: reader.Faster) -> None:
    dice = random.Random(1)
    sizes = [
        0,
        1,
        3,
        63,
        64,
        65,
        127,
        128,
        1023,
        1024,
        1025,
        2047,
        2048,
        2049,
        3072,
        3073,
        5000,
        16_384,
        31_745,
        1_100_000,
        5_300_001,
    ]
    pieces = [dice.randbytes(size) for size in sizes]
    assert reader.blake3_many(pieces) == [blake3(piece).digest() for piece in pieces]
    assert reader.blake3_many([]) == []


@pytest.mark.parametrize("level", [-5, 1, 3, 9, 19, 22])
@pytest.mark.parametrize("content", ["text", "noise", "zeros", "words", "short", "empty", "long matches"])
def test_zstd_frames_of_the_library_decode(level: int, content: str) -> None:
    raw = CONTENTS[content]
    settings = zstandard.ZstdCompressionParameters.from_level(level, write_checksum=level > 3)
    frame = zstandard.ZstdCompressor(compression_params=settings).compress(raw)
    assert bytes(reader.decode_zstd(frame, len(raw))) == raw


def contents() -> dict[str, bytes]:
    dice = random.Random(9)
    words = [bytes(dice.choices(b"abcdefghijklmnop", k=dice.randrange(1, 9))) for _ in range(400)]
    block = dice.randbytes(9_000)
    return {
        "text": b"".join(b"%d loss %.3f, " % (step, dice.random()) for step in range(30_000)),
        "noise": dice.randbytes(200_000),
        "zeros": bytes(300_000),
        "words": b" ".join(dice.choices(words, k=60_000)),
        "short": b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
        "empty": b"",
        "long matches": block * 3 + dice.randbytes(150_000) + block + b"x" + block[::-1] + bytes(70_000) + block,
    }


CONTENTS = contents()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("level", [0, 9, -10])
def test_lz4_frames_of_the_library_decode(level: int, content: str) -> None:
    raw = CONTENTS[content]
    frame = lz4.frame.compress(
        raw, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False, store_size=True,
        compression_level=level, content_checksum=True, block_checksum=level > 0,
    )  # fmt: skip
    if raw:  # the library leaves out the content size of nothing
        assert bytes(reader.decode_lz4(frame, len(raw))) == raw


@pytest.mark.parametrize("codec", [LZ4, LZ4_HC, ZIPNN, ZSTD])
def test_a_damaged_stream_is_decoded_or_damaged_and_never_too_long(codec: int, faster: reader.Faster) -> None:
    """No digest stands before these bytes: decoders check every bound themselves."""
    dice = random.Random(codec)
    raw = float_bytes(9_000) if codec == ZIPNN else CONTENTS["words"][:20_000] + bytes(9_000) + CONTENTS["noise"][:500]
    sound = encode(codec, raw)
    for _ in range(150):
        damaged = bytearray(sound)
        for _ in range(dice.choice((1, 1, 2, 5))):
            damaged[dice.randrange(len(damaged) if dice.random() < 0.5 else min(80, len(damaged)))] = dice.randrange(
                256
            )
        if dice.random() < 0.1:
            del damaged[dice.randrange(len(damaged)) :]
        try:
            found = reader.DECODERS[codec](memoryview(bytes(damaged)), len(raw))
        except (reader.DamagedError, reader.UnsupportedError):
            continue
        assert len(found) == len(raw)


def test_a_zstd_bomb_is_refused_before_it_takes_memory() -> None:
    """98,000 sequences that copy 64 KiB each would be 6 GiB; a block has at most 128 KiB."""
    decoder = reader.ZstdDecoder(1 << 20, reader.ZSTD_BLOCK)
    decoder.plain(b"x" * 10)
    # A repeated literal, then as many sequences as can be, whose tables are of one code each: no literals, the last
    # offset but one, matches of code 52.
    block = bytes([0b0001000, ord("y"), 255, 0, 0, 0b01010100, 0, 0, 52]) + b"\xff" * 64_000 + b"\1"
    with pytest.raises(reader.DamagedError, match="size of a zstd block"):
        decoder.block(block)
    assert len(decoder.out) <= 2 * reader.ZSTD_BLOCK


# --- the table of FORMAT.md, section 9 --------------------------------------------------------------------------------


@pytest.mark.parametrize("row", RULES | COLUMN_RULES)
def test_a_snapshot_gets_the_verdict_of_the_table(row: str) -> None:
    for number, (verdict, data) in enumerate((RULES | COLUMN_RULES)[row]()):
        with open_bytes(data) as path:
            assert (number, CODES[verdict]) == (number, run("verify", "--pure", path).code)


@pytest.mark.parametrize("row", STREAM_RULES)
def test_stored_bytes_get_the_verdict_of_the_table(row: str, faster: reader.Faster) -> None:
    for number, (verdict, codec, stored, size) in enumerate(STREAM_RULES[row]()):
        found = OK
        try:
            raw = reader.DECODERS[codec](memoryview(stored), size)
            assert len(raw) == size
        except reader.DamagedError:
            found = DAMAGED
        except reader.UnsupportedError:
            found = UNSUPPORTED
        assert (number, verdict) == (number, found)


def test_every_changed_byte_and_every_missing_end_is_noticed() -> None:
    sound = (GOLDEN / "example.dumont").read_bytes()
    for at in (*range(600), *range(600, len(sound), 23), *range(len(sound) - 30, len(sound))):
        flipped = bytearray(sound)
        flipped[at] ^= 1
        for data in (bytes(flipped), sound[:at]):
            with open_bytes(data) as path:
                assert run("verify", "--pure", path).code in (4, 8), at


# --- a restore that cannot end well -----------------------------------------------------------------------------------


def damaged_archive() -> bytes:
    """Two chunks, the second of which is damaged; a hard link to a file of each."""
    archive = Archive()
    archive.directory("d")
    archive.file("d/good", b"good " * 1000, LZ4)
    archive.file("d/lost", b"lost " * 1000, LZ4)
    archive.hardlink("h", "d/good")
    archive.hardlink("i", "d/lost")
    data = bytearray(archive.to_bytes())
    at = data.index(archive.chunks[1].stored)
    data[at + 20] ^= 1
    return bytes(data)


def test_a_restore_that_fails_leaves_whole_files_and_its_mark(target: Path) -> None:
    with open_bytes(damaged_archive()) as path:
        ran = restored(path, target)
    assert ran.code == 4
    assert "chunk 1: " in ran.error
    assert "is not complete" in ran.error
    assert tree(target) == {
        "d": ("dir", b""),
        "d/good": ("file", b"good " * 1000),
        ".dumont-reader-unfinished": ("dir", b""),
    }


def test_keep_going_restores_what_is_sound_and_names_the_rest(target: Path) -> None:
    with open_bytes(damaged_archive()) as path:
        ran = restored(path, target, "--keep-going")
    assert ran.code == 4
    assert "d/lost: lost" in ran.err
    assert "i: the file that it is a hard link of" in ran.err
    assert tree(target).keys() == {"d", "d/good", "h"}


def test_wrong_content_is_found_before_a_file_has_its_name(target: Path) -> None:
    """The chunk is sound, and the digest of the file's bytes is another's."""
    archive = small_archive()
    archive.entries[1]["sha256"] = ["00" * 32]
    with open_bytes(archive.to_bytes()) as path:
        assert "d/raw: its content does not match" in run("verify", path).error
        assert restored(path, target).code == 4
    assert "d/raw" not in tree(target)


def test_a_target_with_something_in_it_is_refused_and_stays(target: Path) -> None:
    target.mkdir()
    (target / "mine").write_text("stays")
    ran = restored(GOLDEN / "example.dumont", target)
    assert (ran.code, ran.error) == (2, f"dumont_reader: {target}: is not empty; choose a new or empty directory")
    assert tree(target) == {"mine": ("file", b"stays")}
    assert restored(GOLDEN / "example.dumont", target / "mine").code == 2


def test_lost_and_found_does_not_count(target: Path) -> None:
    (target / "lost+found").mkdir(parents=True)
    assert restored(GOLDEN / "example.dumont", target).code == 0


def test_a_folder_that_becomes_a_link_leads_nowhere(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    make = reader.Restore.make_folders

    def swapped(job: reader.Restore) -> None:
        make(job)
        job._folders.close()
        (target / "d").rmdir()
        (target / "d").symlink_to(outside)

    monkeypatch.setattr(reader.Restore, "make_folders", swapped)
    with open_bytes(small_archive().to_bytes()) as path:
        ran = restored(path, target)
    assert ran.code == 3
    assert "d/raw: " in ran.err
    assert tree(outside) == {}


def test_names_that_are_one_name_here_do_not_replace_each_other(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that ignores case: every name is looked up in small letters."""
    archive = Archive()
    for name in ("A", "a"):
        archive.file(name, name.encode())
    move = reader.Restore._move

    def small(job: reader.Restore, name: str, folder: int, last: bytes) -> None:
        move(job, name, folder, last.lower())

    monkeypatch.setattr(reader.Restore, "_move", small)
    with open_bytes(archive.to_bytes()) as path:
        ran = restored(path, target)
    assert (ran.code, tree(target)) == (3, {"a": ("file", b"A")})
    assert ran.error == "dumont_reader: a: the name of another entry, for this file system"


def test_hard_links_become_copies_where_there_are_none(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for name in ("supports_dir_fd", "supports_follow_symlinks"):
        monkeypatch.setattr(os, name, getattr(os, name) | {refuse})
    with open_bytes(small_archive().to_bytes()) as path:
        assert restored(path, target).code == 0
    hard, leader = target / "hard", target / "d" / "text"
    assert hard.read_bytes() == leader.read_bytes() == b"again and " * 60
    assert (hard.stat().st_nlink, hard.stat().st_mtime_ns) == (1, leader.stat().st_mtime_ns)


def test_a_full_disk_ends_the_restore(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    ran = restored(GOLDEN / "example.dumont", target)
    assert (ran.code, ran.error) == (6, f"dumont_reader: {target}: No space left on device; the tree is not complete")
    assert os.listdir(target) == [".dumont-reader-unfinished"]


def test_what_the_file_system_refuses_is_named_and_the_rest_is_restored(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system without names that are not UTF-8."""
    make = os.mkdir

    def picky(path: Any, *more: Any, **options: Any) -> None:
        if path == b"d":
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ))
        make(path, *more, **options)

    monkeypatch.setattr(os, "mkdir", picky)
    monkeypatch.setattr(os, "supports_dir_fd", os.supports_dir_fd | {picky})
    with open_bytes(small_archive().to_bytes()) as path:
        ran = restored(path, target)
    assert ran.code == 3
    refused = [line.split(": ")[1] for line in ran.err.splitlines()]
    assert refused == ["d", "d/raw", "d/text", "hard"]
    assert tree(target).keys() == {"floats", "high", "sparse", "sym"}
    assert ran.out == "restored 4 of 8 entries\n"


def test_special_bits_are_dropped(target: Path) -> None:
    archive = Archive()
    archive.directory("d")["mode"] = 0o7755
    archive.file("f", b"x")["mode"] = 0o6755
    with open_bytes(archive.to_bytes()) as path:
        assert restored(path, target).code == 0
    assert [(target / name).stat().st_mode & 0o7777 for name in ("d", "f")] == [0o755, 0o755]


def test_an_entry_with_the_name_of_the_mark_is_restored(target: Path) -> None:
    archive = Archive()
    archive.file(".dumont-reader-unfinished", b"mine")
    with open_bytes(archive.to_bytes()) as path:
        assert restored(path, target).code == 0
    assert tree(target) == {".dumont-reader-unfinished": ("file", b"mine")}


def test_more_than_max_size_is_refused(target: Path) -> None:
    archive = Archive()
    archive.file("f", size=(1 << 63) - 1)
    with open_bytes(archive.to_bytes()) as path:
        assert restored(path, target).code == 1
        assert restored(GOLDEN / "example.dumont", target, "--max-size", "14").code == 1
    assert not target.exists()


# --- the command line -------------------------------------------------------------------------------------------------


def test_exit_codes_are_those_of_the_program(tmp_path: Path) -> None:
    other = "sha256:" + "0" * 64
    example = GOLDEN / "example.dumont"
    (tmp_path / "text").write_text("no snapshot")
    for arguments, code in {
        ("ls", tmp_path / "missing"): 10,
        ("ls", tmp_path): 2,
        ("ls", tmp_path / "text"): 4,
        ("ls", "/dev/null"): 2,
        ("verify", example, "--expect", other): 4,
        ("verify", example, "--expect", "x"): 2,
        ("ls", example): 0,
    }.items():
        ran = run(*arguments)
        assert (arguments, code) == (arguments, ran.code)
        assert code == cli(*arguments).returncode
        assert code == 0 or ran.error.startswith("dumont_reader: ")
    for wrong in ((), ("ls",), ("restore", example), ("nothing",), ("ls", example, "--what")):
        assert (wrong, 2) == (wrong, run(*wrong).code)
    identity = run("verify", example).out.split()[1].rstrip(",")
    assert run("verify", example, "--expect", identity).code == 0


def test_long_lines_of_ls(tmp_path: Path) -> None:
    assert run("ls", "-l", GOLDEN / "example.dumont").out == (
        "-0644             15 2023-11-14 22:13:20 UTC hello.py\n"
        "l0000                2023-11-14 22:13:20 UTC link -> hello.py\n"
    )


def test_a_list_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    archive = Archive()
    for number in range(9000):
        archive.directory(f"{number:06}")
    with open_bytes(archive.to_bytes()) as path:
        data = Path(path).read_bytes()
    snapshot = tmp_path / "x.dumont"
    snapshot.write_bytes(data)
    line = f"{sys.executable} {reader.__file__} ls {snapshot} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "000000\n", "")


def test_a_full_stdout_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, reader.__file__, "ls", GOLDEN / "example.dumont"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (6, "dumont_reader: No space left on device\n")
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in closed.stderr


def test_the_command_writes_the_reader_and_replaces_only_readers(tmp_path: Path) -> None:
    file = tmp_path / "reader.py"
    for _ in range(2):
        assert cli("reader", "-o", file).returncode == 0
        assert file.read_bytes() == reader_source()
    assert cli("reader", "-o", "-").stdout.encode() == reader_source()
    file.write_text("print('mine')")
    assert cli("reader", "-o", file).returncode == 2
    assert file.read_text() == "print('mine')"


def test_pack_puts_the_reader_beside_the_snapshot(source: Path, snapshot: Path, target: Path) -> None:
    (source / "f").write_text("content")
    assert cli("pack", source, "-o", snapshot, "--with-reader").returncode == 0
    beside = snapshot.with_name("dumont_reader.py")
    command = [sys.executable, "-I", beside, "restore", "--pure", snapshot, target]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stderr == b""
    assert_same_tree(source, target)
    beside.write_text("mine")
    snapshot.unlink()
    assert cli("pack", source, "-o", snapshot, "--with-reader").returncode == 2
    assert (beside.read_text(), snapshot.exists()) == ("mine", False)


def test_no_module_comes_from_the_folder_of_the_reader(tmp_path: Path) -> None:
    """Whoever puts files beside a snapshot must not run code when the snapshot is read."""
    file = tmp_path / "dumont_reader.py"
    file.write_bytes(reader_source())
    for name in ("json", "hashlib", "numpy", "lz4", "zstandard", "argparse"):
        (tmp_path / f"{name}.py").write_text(f"print('ran {name}')")
    command = [sys.executable, file, "ls", GOLDEN / "example.dumont"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello.py\nlink\n", "")


# --- what it needs ----------------------------------------------------------------------------------------------------


def test_it_is_written_in_python_3_9_and_imports_the_standard_library_only() -> None:
    parsed = ast.parse(reader_source(), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(parsed) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    assert not any(isinstance(node, (ast.Match, ast.TryStar)) for node in ast.walk(parsed))


def pythons() -> Iterator[str]:
    """Yields the other Python interpreters of this machine, without their site packages."""
    found = {shutil.which(f"python3.{minor}") for minor in range(9, 20)}
    found |= {str(path) for path in (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3")}
    for path in sorted(filter(None, found)):
        version = subprocess.run(
            [path, "-c", "import sys; print(sys.version_info >= (3, 9))"], capture_output=True, text=True
        )
        if version.stdout == "True\n":
            yield path


@pytest.mark.parametrize("python", list(pythons()))
def test_other_pythons_restore_a_golden_archive(python: str, tmp_path: Path) -> None:
    for name in ("columns", "hybrid-v3", "zipnn", "lz4_hc"):
        target = tmp_path / name
        command = [python, "-I", "-S", reader.__file__, "restore", "--no-sync", GOLDEN / f"{name}.dumont", target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert describe(target) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
