"""Files to pack come from strangers, too; every packed file can be restored."""

from __future__ import annotations

import json
import os
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.hostile import command, float_bytes, restored, tree

from dumont_gpu.errors import DumontError
from dumont_gpu.jobs.options import PackOptions, VerifyOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.verify import verify

DATA = float_bytes(60_000)


def safetensors(header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + DATA


def tensor(dtype: object = "BF16", begin: object = 0, end: object = len(DATA)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1], "data_offsets": [begin, end]}


def comes_back(content: bytes, source: Path, snapshot: Path) -> None:
    """Checks that a file of this content is packed without a problem, and restored with the same bytes."""
    (source / "model.safetensors").write_bytes(content)
    assert pack([str(source)], str(snapshot)).problems == ()
    restored(snapshot.read_bytes(), source.parent / "target", verify=True)
    assert tree(source.parent / "target") == {"model.safetensors": ("file", content)}


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor(begin=10**30)},
        {"a": tensor(end=10**30)},
        {"a": tensor(end=-1)},
        {"a": tensor(begin=-1)},
        {"a": tensor(begin=100, end=50)},
        {"a": tensor(end=100), "b": tensor(begin=50)},
        {"a": tensor("no such type")},
        {"a": tensor(None)},
        {"a": tensor(7)},
        {"a": tensor([])},
        {"a": tensor({})},
        {"a": {}},
        {"a": []},
        [],
        {},
        {f"{number}": tensor(begin=0, end=0) for number in range(1000)},
        b'{"a":' * 100_000,
        b'{"a": NaN}',
        b'{"\xff": 1}',
        {"a": tensor(begin=True)},
    ],
    ids=lambda header: repr(header)[:60],
)
def test_strange_safetensors_headers_come_back(header: object, source: Path, snapshot: Path) -> None:
    comes_back(safetensors(header), source, snapshot)


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor(begin=0.0)},
        {"a": tensor(end=float(len(DATA)))},
        {"a": tensor(end=1e4), "b": tensor(begin=1e4)},
    ],
    ids=repr,
)
def test_safetensors_headers_of_wrong_types_come_back(header: object, source: Path, snapshot: Path) -> None:
    comes_back(safetensors(header), source, snapshot)


def zip_file(tmp_path: Path) -> bytearray:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("data/0", DATA)
    return bytearray(path.read_bytes())


def with_offset(data: bytearray, offset: int) -> bytes:
    """The zip's member is said to start at a 64-bit `offset`."""
    directory, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry = bytearray(data[directory:end])
    struct.pack_into("<H", entry, 30, 12)
    struct.pack_into("<I", entry, 42, 0xFFFFFFFF)
    entry += struct.pack("<HHQ", 1, 8, offset)
    tail = bytearray(data[end:])
    struct.pack_into("<I", tail, 12, len(entry))
    return bytes(data[:directory] + entry + tail)


@pytest.mark.parametrize("offset", [0, 1, 1 << 40, (1 << 63) - 31])
def test_strange_zip_offsets_come_back(offset: int, source: Path, snapshot: Path) -> None:
    comes_back(with_offset(zip_file(source.parent), offset), source, snapshot)


@pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 1, (1 << 63) - 1])
def test_zip_offsets_that_no_file_has_come_back(offset: int, source: Path, snapshot: Path) -> None:
    comes_back(with_offset(zip_file(source.parent), offset), source, snapshot)


def test_damaged_zips_come_back(source: Path, snapshot: Path) -> None:
    for seed in range(20):
        chance, data = random.Random(seed), zip_file(source.parent)
        for _ in range(3):
            data[-chance.randrange(1, 110)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        (source / f"{seed}.pt").write_bytes(data)
    assert pack([str(source)], str(snapshot)).problems == ()


# --- limits of the reader hold for the writer -------------------------------------------------------------------------


def usable_or_refused(source: Path, snapshot: Path, **options: Any) -> None:
    """Checks that a pack fails, or lists the entries left out, or writes a snapshot that can be read."""
    try:
        result = pack([str(source)], str(snapshot), PackOptions(**options))
    except DumontError as error:
        assert str(error).isprintable()
        assert not snapshot.exists()
        return
    verify(str(snapshot), VerifyOptions(content=True))
    assert result.problems or result.num_files


def test_path_longer_than_a_reader_takes_is_not_packed_unnoticed(source: Path, snapshot: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    for _ in range(140):
        os.mkdir("x" * 250, dir_fd=fd)
        child = os.open("x" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)
    try:
        usable_or_refused(source, snapshot)
    finally:
        os.system(f"rm -rf '{source}'")  # shutil.rmtree gives up before


def test_file_of_more_extents_than_a_line_holds_is_not_packed_unnoticed(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --chunk-size 4KiB, a file of 700 MB reaches the real limit; this test lowers the limit to 64 KiB."""
    monkeypatch.setattr("dumont_gpu.format.entry_json.MAX_LINE", 64 << 10)
    (source / "file").write_bytes(os.urandom(1 << 22))
    usable_or_refused(source, snapshot, chunk_size=4096, method="none")


def test_more_entries_than_a_reader_takes_are_not_packed_unnoticed(
    source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumont_gpu.format.manifest.MAX_ENTRIES", 10)
    for number in range(20):
        (source / f"{number}").write_bytes(b"")
    usable_or_refused(source, snapshot)


def test_exclude_file_that_is_not_text_is_one_clear_error(source: Path, snapshot: Path) -> None:
    (source / "patterns").write_bytes("*".encode("utf-16"))
    ran = command("pack", source, "-o", snapshot, "--exclude-from", source / "patterns")
    assert ran.code == 2
    assert ran.error


def test_odd_names_come_back(source: Path, snapshot: Path) -> None:
    names = [b"\xff\xfe", b"a\nb", b"\x1b[2J", b"-rf", b" ", b"\\", b"C:", b"x" * 255, "é".encode(), b"\xc0\xae"]
    for name in names:
        with open(os.fsencode(source) + b"/" + name, "wb") as file:
            file.write(name)
    assert pack([str(source)], str(snapshot)).problems == ()
    restored(snapshot.read_bytes(), source.parent / "target")
    assert sorted(os.listdir(os.fsencode(source.parent / "target"))) == sorted(names)
