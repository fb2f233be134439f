"""Tar and zip: what an export writes other programs read, and what other programs write a pack takes, or refuses."""

from __future__ import annotations

import bz2
import errno
import gc
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import PROGRAM, cli
from support.hostile import Archive, small_archive
from support.snapshots import assert_same_tree, pack_tree, restore_tree

from dumont_gpu.disk.new_file import NewFile
from dumont_gpu.errors import DamagedError, DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.jobs import file_reader, tar_source
from dumont_gpu.jobs.archives import TarArchive, ZipArchive
from dumont_gpu.jobs.export import export
from dumont_gpu.jobs.options import ExportOptions
from dumont_gpu.jobs.tar_source import unpacked_tar
from dumont_gpu.jobs.tar_stream import MOST_OF_HEADERS, ForwardTar
from dumont_gpu.progress import Progress
from dumont_gpu.storage import MemorySource
from dumont_gpu.storage.standard_input import SpooledSource

TAR, UNZIP = shutil.which("tar"), shutil.which("unzip")
MTIME = 1_700_000_000_123_456_789


@pytest.fixture
def tree(source: Path) -> Path:
    """Everything that a tar can say: links, holes, names of all kinds, modes, times before 1970."""
    rng = random.Random(3)
    (source / "d" / "deep").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "d" / "noise").write_bytes(rng.randbytes(200_000))
    (source / "d" / "deep" / "text").write_text("text " * 40_000)
    (source / "same").write_bytes((source / "d" / "noise").read_bytes())
    (source / "none").write_bytes(b"")
    (source / ("é" * 40)).write_bytes(b"unicode")
    (source / os.fsdecode(b"latin-\xe9")).write_bytes(b"not UTF-8")
    (source / ("n" * 255)).write_bytes(b"long")
    (source / "z-hard").hardlink_to(source / "d" / "noise")
    (source / "link").symlink_to("t" * 300)
    with (source / "sparse").open("wb") as file:
        file.seek(300_000)
        file.write(b"data")
        file.truncate(1 << 20)
    (source / "none").chmod(0o600)
    (source / "d" / "deep").chmod(0o700)
    for number, path in enumerate(sorted(source.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, MTIME - number * 10**17), follow_symlinks=False)
    return source


@pytest.fixture
def packed(tree: Path, snapshot: Path) -> Path:
    pack_tree(tree, snapshot, chunk_size=64 << 10)
    return snapshot


def same_but_the_root(tree: Path, target: Path) -> None:
    os.utime(target, ns=(0, tree.stat().st_mtime_ns))
    target.chmod(tree.stat().st_mode & 0o7777)
    assert_same_tree(tree, target)


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(TAR is None, reason="no tar here")
def test_tar_restores_an_export(tree: Path, packed: Path, target: Path) -> None:
    target.mkdir()
    with subprocess.Popen([PROGRAM, "export", packed, "--tar"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        subprocess.run([TAR or "", "-x", "-p", "-C", target], stdin=run.stdout, check=True, timeout=60)
        assert run.wait(60) == 0
    same_but_the_root(tree, target)


def test_pythons_tarfile_reads_an_export(tree: Path, packed: Path, tmp_path: Path) -> None:
    assert cli("export", packed, "--tar", "-o", tmp_path / "x.tar").returncode == 0
    with tarfile.open(tmp_path / "x.tar") as tar:
        members = {member.name: member for member in tar}
        assert members.keys() == {os.fspath(path.relative_to(tree)) for path in tree.rglob("*")}
        assert members["z-hard"].islnk()
        assert members["d/deep"].mode == 0o700
        content = tar.extractfile("sparse")
        assert content is not None
        assert content.read() == (tree / "sparse").read_bytes()


@pytest.mark.parametrize("to_stdout", [False, True])
def test_pythons_zipfile_reads_an_export(to_stdout: bool, tree: Path, packed: Path, tmp_path: Path) -> None:
    (tree / os.fsdecode(b"latin-\xe9")).unlink()
    pack_tree(tree, packed)
    place = tmp_path / "x.zip"
    command = [PROGRAM, "export", packed, "--zip", "-o", "-" if to_stdout else place]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    if to_stdout:
        place.write_bytes(done.stdout)
    with zipfile.ZipFile(place) as archive:
        assert archive.testzip() is None
        names = {os.fspath(path.relative_to(tree)) + "/" * (not path.is_symlink() and path.is_dir())
                 for path in tree.rglob("*")}  # fmt: skip
        assert set(archive.namelist()) == names
        for path in tree.rglob("*"):
            name = os.fspath(path.relative_to(tree))
            if path.is_symlink():
                assert archive.read(name) == os.readlink(path).encode()
                assert stat.S_ISLNK(archive.getinfo(name).external_attr >> 16)
            elif path.is_file():
                assert archive.read(name) == path.read_bytes()
                assert archive.getinfo(name).external_attr >> 16 == path.stat().st_mode


@pytest.mark.skipif(UNZIP is None, reason="no unzip here")
def test_unzip_restores_an_export(source: Path, snapshot: Path, target: Path, tmp_path: Path) -> None:
    (source / "d").mkdir()
    (source / "d" / "text").write_text("text " * 9000)
    (source / "link").symlink_to("d/text")
    for path in (source / "d" / "text", source / "d"):
        os.utime(path, ns=(0, MTIME))
    pack_tree(source, snapshot)
    assert cli("export", snapshot, "--zip", "-o", tmp_path / "x.zip").returncode == 0
    subprocess.run([UNZIP or "", "-q", tmp_path / "x.zip", "-d", target], check=True, timeout=60)
    assert (target / "d" / "text").read_text() == "text " * 9000
    assert os.readlink(target / "link") == "d/text"
    for name in ("d", "d/text"):
        assert (target / name).stat().st_mtime == MTIME // 10**9


def test_a_name_that_a_zip_cannot_hold_is_a_problem(packed: Path, tmp_path: Path) -> None:
    done = cli("export", packed, "--zip", "-o", tmp_path / "x.zip")
    assert done.returncode == 3
    assert "a zip holds names in UTF-8 alone" in done.stderr
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert "d/noise" in archive.namelist()


def test_patterns_choose_what_is_exported(packed: Path, tmp_path: Path) -> None:
    options = ExportOptions(include=["/d", "z-hard"], exclude=["deep"])
    export(str(packed), str(tmp_path / "x.tar"), "tar", options)
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert sorted(tar.getnames()) == ["d", "d/noise", "z-hard"]


def test_few_chunks_are_kept(tree: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for a single chunk, the same bytes come out: chunks are decoded again where files share them."""
    export(str(packed), str(tmp_path / "many.tar"), "tar")
    monkeypatch.setattr(file_reader, "_ROOM", 0)
    export(str(packed), str(tmp_path / "few.tar"), "tar")
    assert (tmp_path / "many.tar").read_bytes() == (tmp_path / "few.tar").read_bytes()


def damaged() -> bytes:
    """A snapshot whose first file is sound."""
    archive = small_archive()
    archive.chunks[1].stored = archive.chunks[1].stored[:-1] + b"\xff"
    archive.chunks[1].digest, archive.chunks[1].checksum = "00" * 32, bytes(8)
    return archive.to_bytes()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_damage_ends_an_export_and_leaves_no_file(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="chunk 1"):
        export(MemorySource(damaged()), str(tmp_path / "x"), kind)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_stays_incomplete_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "x.dumont").write_bytes(damaged())
    done = {}
    for kind in ("tar", "zip"):
        line = [PROGRAM, "export", tmp_path / "x.dumont", f"--{kind}"]
        done[kind] = subprocess.run(line, capture_output=True, timeout=60)
        assert (done[kind].returncode, done[kind].stderr.count(b"\n")) == (4, 1)
        assert b"d/raw" in done[kind].stdout
    assert not done["tar"].stdout.endswith(bytes(1024))
    records = {name: done["zip"].stdout.count(b"PK" + name) for name in (b"\3\4", b"\7\x08", b"\1\2", b"\5\6")}
    assert records == {b"\3\4": 4, b"\7\x08": 3, b"\1\2": 0, b"\5\6": 0}  # the third file began, and has no sum


def test_nothing_is_written_once_an_export_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zipfile writes an end whenever its objects are collected: into whatever file has the number then."""
    write, late = NewFile.write, []

    def watched(self: NewFile, data: memoryview) -> None:
        if not self._open:
            late.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(NewFile, "write", watched)
    with pytest.raises(DamagedError):
        export(MemorySource(damaged()), str(tmp_path / "x.zip"), "zip")
    gc.collect()
    assert late == []


def test_a_closed_file_takes_nothing(tmp_path: Path) -> None:
    file = NewFile(str(tmp_path / "x"), "archive")
    file.write(memoryview(b"x"))
    file.close()
    with pytest.raises(ValueError, match="is closed"):
        file.write(memoryview(b"y"))


def test_content_that_the_chunk_has_but_the_file_had_not_is_not_exported(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("a", b"a" * 5000)
    archive.entries[0]["sha256"] = ["00" * 32]
    with pytest.raises(DamagedError, match="a: its content does not match its digest"):
        export(MemorySource(archive.to_bytes()), str(tmp_path / "x.tar"), "tar")
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_replaced(packed: Path, tmp_path: Path) -> None:
    for name in ("precious", packed.name):
        place = packed if name == packed.name else tmp_path / name
        if name == "precious":
            place.write_bytes(b"precious")
        before = place.read_bytes()
        with pytest.raises(UsageError, match="is there already"):
            export(str(packed), str(place), "tar")
        assert place.read_bytes() == before
    (tmp_path / "empty").touch()
    export(str(packed), str(tmp_path / "empty"), "tar")
    assert tarfile.is_tarfile(tmp_path / "empty")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_that_is_filled_meanwhile_stays(is_there: bool, packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "x.tar"
    if is_there:
        place.touch()

    def put(event: Progress) -> None:
        if event.done_chunks:
            place.write_bytes(b"precious")

    with pytest.raises(DumontError, match="was put there"):
        export(str(packed), str(place), "tar", progress=put)
    assert place.read_bytes() == b"precious"


def test_where_files_need_a_name(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: the archive then has a hidden name until it is complete, or gone."""
    real = os.open

    def refusing(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    room = tmp_path / "room"
    room.mkdir()
    export(str(packed), str(room / "x.tar"), "tar")
    assert [path.name for path in room.iterdir()] == ["x.tar"]
    assert tarfile.is_tarfile(room / "x.tar")
    data = bytearray(packed.read_bytes())
    data[4096] ^= 1
    with pytest.raises(DamagedError):
        export(MemorySource(bytes(data)), str(room / "y.tar"), "tar")
    assert [path.name for path in room.iterdir()] == ["x.tar"]
    with packed.open("rb") as file, closing(SpooledSource(file.fileno(), "standard input", str(room))) as spooled:
        assert spooled.size == packed.stat().st_size


def test_an_archive_for_nobody_is_refused(packed: Path) -> None:
    assert cli("export", packed).returncode == 2
    assert cli("export", packed, "--tar", "--zip").returncode == 2
    with pytest.raises(UsageError):
        export(str(packed), "x", "rar")


def test_a_reader_that_leaves_ends_an_export_with_a_line(packed: Path) -> None:
    with subprocess.Popen([PROGRAM, "export", packed, "--tar"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.wait(60) == 1
        assert run.stderr.read().startswith(b"dumont-gpu: standard output: was closed")


@pytest.mark.parametrize("make", [TarArchive, ZipArchive])
def test_sizes_and_times_at_the_limits(make: Callable[[Callable[[memoryview], None]], TarArchive | ZipArchive]) -> None:
    """Their headers alone: nobody writes eight exbibytes."""
    out = bytearray()
    archive = make(out.extend)
    for number, time in enumerate((0, -1, -(1 << 63), (1 << 63) - 1, MTIME, 315532800 * 10**9 - 1)):
        archive.add(FileEntry(f"d{number}", EntryType.DIR, 0o755, time), ())
    archive.close()
    assert out


# --- from a tar -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(TAR is None, reason="no tar here")
@pytest.mark.parametrize(
    "options", [["-c"], ["-cz"], ["-cJ"], ["-cj"], ["-cS"], ["-c", "--format=gnu"], ["-c", "--format=pax"]]
)
def test_a_tar_is_packed(options: list[str], tree: Path, snapshot: Path, target: Path) -> None:
    """Through a pipe, whose other end must not fail either."""
    with subprocess.Popen([TAR or "", *options, "-C", tree, "."], stdout=subprocess.PIPE) as sender:
        command = [PROGRAM, "pack", "--from-tar", "-", "-o", snapshot]
        subprocess.run(command, stdin=sender.stdout, check=True, capture_output=True, timeout=60)
        assert sender.wait(60) == 0
    restore_tree(snapshot, target)
    if "--format=pax" not in options:  # others have whole seconds
        for folder in (tree, target):
            for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
                os.utime(path, ns=(0, path.lstat().st_mtime_ns // 10**9 * 10**9), follow_symlinks=False)
    assert_same_tree(tree, target)


def test_a_tar_goes_round(packed: Path, tmp_path: Path) -> None:
    first, again, second = tmp_path / "1.tar", tmp_path / "again.dumont", tmp_path / "2.tar"
    export(str(packed), str(first), "tar")
    assert cli("pack", "--from-tar", first, "-o", again, "--chunk-size", "64KiB", "--jobs", "1").returncode == 0
    export(str(again), str(second), "tar")
    with tarfile.open(first) as one, tarfile.open(second) as two:
        described = [
            {m.name: (m.type, m.mode, m.size, m.linkname, m.pax_headers.get("mtime", m.mtime)) for m in tar}
            for tar in (one, two)
        ]
    assert described[0] == described[1]


def made(*members: tuple[str, bytes, str, bytes], end: bool = True) -> bytes:
    """A tar of (name, type, link's target, content)."""
    out = b""
    for name, kind, target, content in members:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size, info.mtime = kind, target, len(content), 1_700_000_000
        out += info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)
    return out + bytes(1024) * end


F, D, S, L = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE = {
    "absolute": [("/etc/x", F, "", b"x")],
    "above": [("../x", F, "", b"x")],
    "above, later": [("a/../../x", F, "", b"x")],
    "above, a folder": [("..", D, "", b"")],
    "the root as a file": [(".", F, "", b"x")],
    "through a link": [("out", S, "/tmp", b""), ("out/x", F, "", b"x")],
    "through a link of two": [("a", D, "", b""), ("a/out", S, "..", b""), ("a/out/x", F, "", b"x")],
    "a folder over a link": [("out", S, "/tmp", b""), ("out/", D, "", b""), ("out", S, "/tmp", b"")],
    "below a file": [("f", F, "", b"x"), ("f/x", F, "", b"x")],
    "a file over a folder": [("d/x", F, "", b"x"), ("d", F, "", b"x")],
    "a link over a folder": [("d/x", F, "", b"x"), ("d", S, "/", b"")],
    "hard link to outside": [("h", L, "/etc/passwd", b"")],
    "hard link to above": [("h", L, "../../etc/passwd", b"")],
    "hard link to nothing": [("h", L, "f", b""), ("f", F, "", b"x")],
    "hard link to a folder": [("d", D, "", b""), ("h", L, "d", b"")],
    "hard link through a link": [("s", S, "/etc", b""), ("h", L, "s/passwd", b"")],
    "symlink to nothing": [("s", S, "", b"")],
    "long name": [("n" * 256, F, "", b"x")],
    "of another type": [("m", b"M", "", b"")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused(name: str, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    (tmp_path / "x.tar").write_bytes(made(*HOSTILE[name]))
    done = cli("pack", "--from-tar", tmp_path / "x.tar", "-o", tmp_path / "x.dumont", TMPDIR=str(room))
    assert done.returncode in (1, 4)
    assert done.stderr.startswith(f"dumont-gpu: {tmp_path / 'x.tar'}: ")
    assert "defect" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"room", "x.tar"}
    assert list(room.iterdir()) == []


def from_tar(data: bytes, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Packs a tar; checks that there is an output or an error, and that nothing is left in TMPDIR."""
    room, place, output = tmp_path / "room", tmp_path / "x.tar", tmp_path / "x.dumont"
    room.mkdir()
    place.write_bytes(data)
    done = cli("pack", "--from-tar", place, "-o", output, TMPDIR=str(room))
    assert list(room.iterdir()) == []
    assert (done.returncode == 0) == output.exists()
    assert done.returncode == 0 or (done.stderr.startswith(f"dumont-gpu: {place}: ") and done.stderr.count("\n") == 1)
    return done


ONE, EMPTY = ("a", F, "", b"a" * 700), ("e", F, "", b"")
WITH_TAILS = {
    "a letter": made(ONE) + bytes(5000) + b"x",
    "another tar": made(ONE) + made(("b", F, "", b"b")),
    "a header of zeros": made(ONE, end=False) + bytes(512) + made(ONE),
    "a header of zeros, and content": made(EMPTY, ONE)[:512] + bytes(512) + made(EMPTY, ONE)[1024:],
}


@pytest.mark.parametrize("name", WITH_TAILS)
def test_something_behind_the_end_of_a_tar_is_damage(name: str, tmp_path: Path) -> None:
    done = from_tar(WITH_TAILS[name], tmp_path)
    assert done.returncode == 4
    assert "something follows the end of the tar" in done.stderr


def test_zeros_behind_the_end_of_a_tar_are_not(tmp_path: Path) -> None:
    assert from_tar(made(ONE) + bytes(3 << 20), tmp_path).returncode == 0


@pytest.mark.parametrize("depth", [1_500, 5_000, 200_000])
def test_folders_without_end_are_packed_or_refused(depth: int, tmp_path: Path) -> None:
    done = from_tar(made(("d/" * depth + "f", F, "", b"deep")), tmp_path)
    assert "defect" not in done.stderr
    assert (done.returncode == 0) == (depth == 1_500)


def test_no_other_user_sees_what_a_tar_holds(tmp_path: Path) -> None:
    info = tarfile.TarInfo(".")
    info.type, info.mode = D, 0o777
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(1024))
    with unpacked_tar(str(tmp_path / "x.tar")) as folder:
        assert Path(folder).stat().st_mode & 0o777 == 0o777
        assert Path(folder).parent.stat().st_mode & 0o777 == 0o700


def test_folders_without_rights_are_deleted(tmp_path: Path) -> None:
    info = tarfile.TarInfo("d")
    info.type, info.mode = D, 0
    (tmp_path / "x.tar").write_bytes(made(("d/f", F, "", b"x"), end=False) + info.tobuf() + bytes(1024))
    with unpacked_tar(str(tmp_path / "x.tar")) as folder:
        pass
    assert not Path(folder).parent.exists()


def test_the_last_entry_of_a_name_counts(tmp_path: Path) -> None:
    members = [
        ("f", F, "", b"old"),
        ("s", S, "x", b""),
        ("f", F, "", b"new"),
        ("s", F, "", b"a file"),
        ("g", S, "f", b""),
    ]
    (tmp_path / "x.tar").write_bytes(made(*members, ("d/e/f", F, "", b"deep"), ("h", L, "g", b"")))
    with unpacked_tar(str(tmp_path / "x.tar")) as folder:
        assert (Path(folder) / "f").read_bytes() == b"new"
        assert (Path(folder) / "s").read_bytes() == b"a file"
        assert os.readlink(Path(folder) / "h") == "f"
        assert (Path(folder) / "d" / "e" / "f").read_bytes() == b"deep"
        assert os.stat(folder).st_mtime == 1_700_000_000
    assert not Path(folder).exists()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_a_tar_cut_short_anywhere_is_refused(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = made(("a", F, "", b"a" * 700), ("b", F, "", b"b" * 512), ("c", D, "", b""))
    data = compress(whole)
    place = tmp_path / "x.tar"
    last = len(data) - 1024 if compress is bytes else len(data)  # a single block of zeros is an end, too
    for size in [*range(0, last, 1 if compress is not bytes else 64), last - 1]:
        place.write_bytes(data[:size])
        with pytest.raises(DamagedError), unpacked_tar(str(place)):
            pytest.fail(f"{size} bytes are no whole tar")


def test_a_damaged_tar_never_is_a_defect(tmp_path: Path) -> None:
    data = made(("a", F, "", b"a" * 700), ("é" * 60, F, "", b"b" * 512), ("c", D, "", b""), ("s", S, "t" * 200, b""))
    rng = random.Random(5)
    place = tmp_path / "x.tar"
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 0xFF, 0x39, 0x2D, rng.randrange(256)))
        for start in range(0, len(damaged), 512):  # half of the checksums are mended, so that more is read
            if rng.random() < 0.5 and damaged[start + 257 : start + 262] == b"ustar":
                block = damaged[start : start + 512]
                block[148:156] = b" " * 8
                damaged[start + 148 : start + 156] = b"%06o\0 " % sum(block)
        place.write_bytes(damaged)
        try:
            with unpacked_tar(str(place)):
                pass
        except DumontError:
            pass


def test_headers_without_bound_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(DamagedError, match="bytes of headers"), unpacked_tar(str(tmp_path / "x.tar")):
        pass


def test_headers_for_all_entries_have_a_bound_together(tmp_path: Path) -> None:
    half = "x" * (MOST_OF_HEADERS // 2)
    headers = [tarfile.TarInfo.create_pax_global_header({name: half}) for name in ("one", "two", "three")]
    entry = made(ONE, end=False)
    (tmp_path / "x.tar").write_bytes(headers[0] + entry + bytes(1024))
    with unpacked_tar(str(tmp_path / "x.tar")) as folder:
        assert (Path(folder) / "a").is_file()
    (tmp_path / "x.tar").write_bytes(b"".join(header + entry for header in headers) + bytes(1024))
    with pytest.raises(DamagedError, match="headers for all entries"), unpacked_tar(str(tmp_path / "x.tar")):
        pass


@pytest.mark.parametrize("time", ["1e999999999", "inf", "nan", "x", "-1e30", "9" * 5000])
def test_a_time_without_bound(time: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("f")
    info.pax_headers = {"mtime": time}
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    try:
        with unpacked_tar(str(tmp_path / "x.tar")):
            pass
    except DumontError:
        pass


def test_what_is_no_tar_or_not_there(tmp_path: Path) -> None:
    for head in (b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"PK"):
        (tmp_path / "x").write_bytes(head + random.Random(1).randbytes(4096))
        with pytest.raises(DamagedError), unpacked_tar(str(tmp_path / "x")):
            pass
    with pytest.raises(SnapshotNotFoundError), unpacked_tar(str(tmp_path / "none")):
        pass


def test_owners_need_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_source.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="only root"), unpacked_tar(str(tmp_path / "x"), owner=True):
        pass


def test_a_tar_and_a_source_make_no_sense(source: Path, tmp_path: Path) -> None:
    assert cli("pack", source, "--from-tar", "x.tar", "-o", tmp_path / "x").returncode == 2
    assert cli("pack", "-o", tmp_path / "x").returncode == 2


def test_a_tar_is_read_in_pieces() -> None:
    stream = ForwardTar(io.BytesIO(bytes(5000)))
    stream.seek(4000)
    assert (stream.tell(), len(stream.read(512)), stream.tell()) == (4000, 512, 4512)
    with pytest.raises(DamagedError):
        stream.seek(0)
