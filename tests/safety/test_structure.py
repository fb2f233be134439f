"""Tables that contradict themselves, with every digest right."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.frozen_codecs import FIRST_UNKNOWN
from support.hostile import (  # fmt: skip
    LZ4,
    RAW,
    Archive,
    Chunk,
    clear_error,
    command,
    lz4_frame,
    refused,
    restored,
    sha256,
    small_archive,
    tree,
)

from dumont_gpu.errors import DamagedError, DumontError, UnsupportedError
from dumont_gpu.jobs.options import VerifyOptions
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource

U32, U64 = (1 << 32) - 1, (1 << 64) - 1


def two_chunks(**header: Any) -> Archive:
    """Two files with a raw chunk each."""
    archive = Archive(header=header)
    archive.file("a", b"first" * 1000)
    archive.file("b", b"second")
    return archive


# --- header -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        *({"manifest_offset": offset} for offset in (0, 512, 562, 4095, 1 << 40, 1 << 63, U64)),
        *({"manifest_size": size} for size in (0, 1, 1 << 40, 1 << 63, U64)),
        *(
            {"manifest_offset": U64 - 10, "manifest_size": size} for size in (11, 12, 16 << 10)
        ),  # wraps around to an offset that fits
        *({"num_chunks": count} for count in (0, 1, 3, 1000, 1 << 22, U32)),
        *({"num_files": count} for count in (0, 1, 3, 1 << 24, U32)),
        *({"total_size_compressed": size} for size in (0, 5005, 5007, 1 << 63, U64)),
        *({"total_size_original": size} for size in (0, 5005, 5007, 1 << 63, U64)),
        *({"chunk_size": size} for size in (0, 1, 4095, 4096, 4999, (1 << 30) + 1, 1 << 63, U64)),
        *({"reserved": reserved} for reserved in (b"\1", bytes(351) + b"\1", b"\0\0\0\x80")),
        *({name: bytes(32)} for name in ("index_sha256", "manifest_sha256")),
    ],
    ids=repr,
)
def test_header_that_contradicts_the_file_is_refused(header: dict[str, Any], target: Path) -> None:
    refused(two_chunks(**header), target)


@pytest.mark.parametrize("flag", range(3, 16))
def test_unknown_required_flag_is_not_supported(flag: int, target: Path) -> None:
    assert "flags" in refused(two_chunks(flags=1 << flag), target, UnsupportedError)


@pytest.mark.parametrize("version", [b"\0\0", b"\x1b[", b"xx", b"2 "])
def test_magic_without_a_version_is_no_snapshot(version: bytes, target: Path) -> None:
    refused(two_chunks(magic=b"DUMONT" + version), target)


@pytest.mark.parametrize("flag", range(16, 32))
def test_unknown_optional_flag_is_ignored(flag: int, target: Path) -> None:
    restored(two_chunks(flags=1 << flag), target)


@pytest.mark.parametrize(
    "header",
    [*({"magic": b"DUMONT" + version} for version in (b"01", b"03", b"99")),
     *({"version": version} for version in (0, 1, 3, 1 << 31, U32)), {"magic": b"DUMONT03", "version": 3}],
    ids=repr,
)  # fmt: skip
def test_another_version_is_not_supported(header: dict[str, Any], target: Path) -> None:
    assert "version" in refused(two_chunks(**header), target, UnsupportedError)


@pytest.mark.parametrize("magic", [b"dumont02", b"PK\3\4\0\0\0\0", bytes(8), b"DUMON\xd4" + b"02", b"ustar\x0000"])
def test_another_magic_is_damaged(magic: bytes, target: Path) -> None:
    refused(two_chunks(magic=magic), target)


@pytest.mark.parametrize("codec", [FIRST_UNKNOWN, FIRST_UNKNOWN + 1, 127, 128, 255])
def test_unknown_codec_is_not_supported(codec: int, target: Path) -> None:
    archive = two_chunks()
    archive.chunks[1].codec = codec
    assert str(codec) in refused(archive, target, UnsupportedError)


def test_what_is_not_supported_and_what_is_damaged_have_their_exit_codes(tmp_path: Path) -> None:
    unknown = two_chunks()
    unknown.chunks[0].codec = 9
    cases = [
        (8, two_chunks(flags=8)), (8, two_chunks(magic=b"DUMONT01")), (8, unknown),
        (4, two_chunks(reserved=b"x")), (0, two_chunks(flags=1 << 31)),
    ]  # fmt: skip
    for code, archive in cases:
        ran = command("verify", archive.write(tmp_path / "x.dumont"))
        assert ran.code == code
        assert code == 0 or ran.error


# --- index ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        *({"offset": offset} for offset in (0, 512, 1, 4095, 4097, 1 << 20, 1 << 40, 1 << 63, U64, U64 - 4095)),
        {"offset": 4096},  # at the first chunk
        {"offset": 8192},  # within the first chunk
        *({"size_original": size} for size in (0, 5, (64 << 20) + 1, 1 << 31, U32)),
        *({"size_compressed": size} for size in (0, 7, 1 << 20, 1 << 31, U32)),
    ],
    ids=repr,
)
def test_index_entry_that_contradicts_the_file_is_refused(fields: dict[str, int], target: Path) -> None:
    archive = two_chunks()
    for name, value in fields.items():
        setattr(archive.chunks[1], name, value)
    if fields == {"size_original": 5}:
        archive.entries[1] |= {"size": 5, "extents": [[0, 1, 0, 5]]}  # encoded bytes exceed the raw bytes
    refused(archive, target)


def test_chunks_that_overlap_are_refused_in_any_order(target: Path) -> None:
    archive = Archive()
    for number, offset in enumerate((12288, 8192, 4096)):
        archive.file(f"{number}", b"x" * 4096)
        archive.chunks[number].offset = offset
    restored(archive, target)
    archive.chunks[2].stored += b"x"
    archive.chunks[2].size_original += 1
    refused(archive, target / "none")


def test_sum_of_stored_sizes_does_not_wrap(target: Path) -> None:
    archive = Archive(header={"total_size_compressed": 0})
    for number in range(3):
        archive.chunks.append(Chunk(b"x", 64 << 20, LZ4, size_compressed=U32))
        archive.file(f"{number}")
    refused(archive, target)


def test_sum_of_file_sizes_does_not_wrap(target: Path) -> None:
    archive = Archive()
    for name, size in (("a", (1 << 63) - 1), ("b", (1 << 63) - 1), ("c", 2)):
        archive.file(name, size=size)
    assert sum(entry["size"] for entry in archive.entries) % (1 << 64) == 0
    refused(archive, target)


# --- extents ----------------------------------------------------------------------------------------------------------

BIG = 1 << 63


@pytest.mark.parametrize(
    "extents",
    [
        [[0, 2, 0, 5]],
        [[0, -1, 0, 5]],
        [[0, U32 + 1, 0, 5]],
        [[0, 0, 0, 0]],
        [[0, 0, 0, -1]],
        [[0, 0, 0, 11]],
        [[0, 0, 4991, 10]],
        [[0, 0, 5000, 1]],
        [[0, 0, -1, 5]],
        [[0, 0, BIG, 5]],
        [[0, 0, U64 + 1, 5]],
        [[0, 0, -BIG, BIG + 5]],
        [[-1, 0, 0, 5]],
        [[6, 0, 0, 5]],
        [[BIG, 0, 0, 5]],
        [[U64 - 4, 0, 0, 5]],
        [[1, 0, 0, U64]],
        [[0, 0, 0, 6], [5, 0, 0, 5]],
        [[5, 0, 0, 5], [0, 0, 0, 5]],
        [[0, 0, 0, 5], [0, 0, 0, 5]],
        [[0, 0, 0, 10], [10, 0, 0, 1]],
        [[0, 0, 0]],
        [[0, 0, 0, 5, 0]],
        [[0.0, 0, 0, 5]],
        [[0, False, 0, 5]],
        [[0, "0", 0, 5]],
        [[0, None, 0, 5]],
        [5],
        ["abcd"],
        [{}],
        [None],
        {},
        None,
        "x",
        0,
    ],
    ids=repr,
)
def test_extents_that_overlap_wrap_or_leave_chunk_or_file_are_refused(extents: Any, target: Path) -> None:
    archive = two_chunks()
    count = len(extents) if isinstance(extents, list) else 1
    archive.file("c", size=10, extents=extents, sha256=[sha256(b"x").hex()] * count)
    archive.header["total_size_original"] = 5016
    refused(archive, target)


@pytest.mark.parametrize(
    "digests",
    [[], ["00" * 32] * 2, ["00" * 31], ["00" * 33], ["zz" * 32], [""], [0], [None], [["00"]], None, {}, "00" * 32, 0,
     ["00 " * 32], ["٠" * 64]],
    ids=repr,
)  # fmt: skip
def test_malformed_digests_are_refused(digests: Any, target: Path) -> None:
    archive = two_chunks()
    archive.entries[0]["sha256"] = digests
    refused(archive, target)


@pytest.mark.parametrize("size", [-1, 1 << 63, U64, 10**30, 5000.0, "5000", True, None, [5000], 4999])
def test_malformed_file_size_is_refused(size: Any, target: Path) -> None:
    archive = two_chunks()
    archive.entries[0]["size"] = size
    archive.header["total_size_original"] = 5006
    refused(archive, target)


# --- JSON -------------------------------------------------------------------------------------------------------------


def manifest_cases() -> Iterator[tuple[str, bytes]]:
    """Manifests of `two_chunks`, malformed."""
    good = two_chunks().manifest_json()
    first, a, b, close = good.splitlines()
    yield "empty", b""
    yield "one line", good.replace(b"\n", b"")
    yield "no last newline", good[:-1]
    yield "cut in an entry", good[: len(first) + 20]
    yield "cut before the end", first + b"\n" + a + b"\n" + b + b"\n"
    yield "followed by a line", good + b"\n"
    yield "followed by an entry", good + b + b"\n"
    yield "two manifests", good + good
    yield "an empty line", first + b"\n" + a + b"\n\n" + b + b"\n" + close + b"\n"
    yield "not UTF-8", good.replace(b'"path"', b'"p\xffth"', 1)
    yield "UTF-8 of a surrogate", good.replace(b'"a"', b'"\xed\xa0\x80"')
    yield "overlong UTF-8 of a dot", good.replace(b'"a"', b'"\xc0\xae\xc0\xae"')
    yield "UTF-16", good.decode().encode("utf-16")
    yield "byte order mark", b"\xef\xbb\xbf" + good
    yield "NaN", good.replace(b'"size": 5000', b'"size": NaN')
    yield "Infinity", good.replace(b'"size": 5000', b'"size": Infinity')
    yield "a float", good.replace(b'"size": 5000', b'"size": 5e3')
    yield "endless digits", good.replace(b'"size": 5000', b'"size": ' + b"9" * 100_000)
    yield "a string of digits", good.replace(b'"size": 5000', b'"size": "5000"')
    yield "a comment", good.replace(b'"size"', b'/**/"size"')
    yield "single quotes", good.replace(b'"size"', b"'size'")
    yield "a control character in a string", good.replace(b'"a"', b'"a\x01"')
    yield "an array for an entry", first + b"\n[],\n" + b + b"\n" + close + b"\n"
    yield "a number for an entry", first + b"\n0,\n" + b + b"\n" + close + b"\n"
    yield "two commas", good.replace(b"},\n", b"},,\n")
    yield "two entries in a line", first + b"\n" + a + b + b"\n" + close + b"\n"
    yield "null for an entry", first + b"\nnull,\n" + b + b"\n" + close + b"\n"
    yield "an array for the head", b'["entries":[\n' + good[len(first) + 1 :]
    yield "an empty head", b'{"entries":[\n' + good[len(first) + 1 :]
    head = json.loads(first + b"]}")
    for key in ("method", "tool", "created_ns", "chunks"):
        for value in (b"null", b"[]", b"{}", b"1.5", b"true", b'"\\ud800"' if key == "created_ns" else b"-0.0"):
            rest = {name: field for name, field in head.items() if name not in (key, "entries")}
            opening = json.dumps(rest, separators=(",", ":"))[:-1].encode()
            opening += b',"%s":%s,"entries":[\n' % (key.encode(), value)
            yield f"{key} is {value.decode()}", opening + good[len(first) + 1 :]


@pytest.mark.parametrize(("what", "manifest"), list(manifest_cases()), ids=[what for what, _ in manifest_cases()])
def test_malformed_manifest_is_refused(what: str, manifest: bytes, target: Path) -> None:
    archive = two_chunks()
    archive.manifest = manifest
    refused(archive, target)


@pytest.mark.parametrize("what", ["a number of 4000 digits", "a path of 30,000 bytes"])
def test_what_is_refused_is_not_repeated_at_length(what: str, target: Path) -> None:
    archive = two_chunks()
    if what == "a number of 4000 digits":
        archive.manifest = archive.manifest_json().replace(b'"size": 5000', b'"size": ' + b"9" * 4000)
    else:
        archive.directory("/".join(["x" * 200] * 150))
    refused(archive, target)


@pytest.mark.parametrize("key", [b'"path": "zz"', b'"type": "dir"', b'"size": 7', b'"mode": 511', b'"path": "a"'])
def test_duplicate_key_is_refused(key: bytes, target: Path) -> None:
    archive = two_chunks()
    archive.manifest = archive.manifest_json().replace(b'{"path": "a"', b"{" + key + b', "path": "a"')
    refused(archive, target)


@pytest.mark.parametrize("what", ["missing comma", "comma after the last"])
def test_manifest_that_is_no_json_as_a_whole_is_refused(what: str, target: Path) -> None:
    archive = two_chunks()
    good = archive.manifest_json()
    archive.manifest = {
        "missing comma": good.replace(b"},\n", b"}\n"),
        "comma after the last": good.replace(b"}\n]}", b"},\n]}"),
    }[what]
    with pytest.raises(json.JSONDecodeError):
        json.loads(archive.manifest)
    refused(archive, target)


def test_unknown_keys_are_ignored(target: Path) -> None:
    archive = small_archive()
    archive.head["note"] = {"any": ["thing"]}
    for entry in archive.entries:
        entry["xattrs"] = None
    restored(archive, target)


@pytest.mark.parametrize(
    "stored", [b"", b"x", lz4_frame(b""), lz4_frame(b"{}"), b'{"entries":[\n]}\n', lz4_frame(b"\n" * 100)], ids=repr
)
def test_manifest_that_is_no_frame_of_a_manifest_is_refused(stored: bytes, target: Path) -> None:
    refused(Archive(stored_manifest=stored), target)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from([0, 1, -1, U32, U64, 1 << 63, -(1 << 63), 10**40]),
        st.floats(), st.text(max_size=8), st.sampled_from(["", ".", "..", "/", "file", "dir", "symlink", "hardlink", "é"]),
        st.sampled_from(["d", "d/raw", "floats", "=", "eA==", "\ud800"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
KEYS = ["path", "path_b64", "type", "mode", "mtime_ns", "size", "extents", "sha256", "target", "target_b64", "owner"]


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 7), st.sampled_from([*KEYS, "changed"]), VALUES), min_size=1, max_size=3),
    head=st.dictionaries(st.sampled_from(["method", "tool", "chunks", "root"]), VALUES, max_size=1),
)
def test_any_manifest_is_read_or_refused_with_one_line(
    changes: list[tuple[int, str, Any]], head: dict[str, Any]
) -> None:
    archive = small_archive()
    for entry, key, value in changes:
        archive.entries[entry][key] = value
    for entry in archive.entries:
        for key in ("path_b64", "target_b64"):
            if isinstance(entry.get(key), str) and not entry[key].isascii():
                del entry[key]  # known: see test_base64_that_is_not_ascii_is_refused
    archive.head = head
    archive.header["total_size_original"] = 12_232
    data = archive.to_bytes()
    try:
        read_snapshot(MemorySource(data))
    except DumontError as error:
        assert str(error).isprintable()


# --- every byte -------------------------------------------------------------------------------------------------------

SMALL = small_archive()
DATA = SMALL.to_bytes()


def test_truncation_at_every_byte_is_damaged() -> None:
    for size in range(len(DATA)):
        with pytest.raises(DamagedError):
            read_snapshot(MemorySource(DATA[:size]))


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 511, 512, 600, 4096, 5000, len(DATA) - 1])
def test_truncated_snapshot_is_refused(size: int, target: Path) -> None:
    refused(DATA[:size], target)


def test_truncated_snapshot_is_refused_by_every_command(tmp_path: Path) -> None:
    snapshot = tmp_path / "x.dumont"
    snapshot.write_bytes(DATA[:-1])
    for arguments in (["info"], ["ls"], ["verify"], ["restore", tmp_path / "target"]):
        ran = command(arguments[0], snapshot, *arguments[1:])
        assert (ran.code, ran.out) == (4, "")
        assert str(snapshot) in ran.error
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("trailer", [b"\0", b"\n", b"x" * 5000, DATA])
def test_trailing_bytes_are_refused(trailer: bytes, target: Path) -> None:
    refused(DATA + trailer, target)


def tiny_archive() -> Archive:
    archive = Archive(padding=b"")
    archive.file("f", b"0123456789", RAW)
    return archive


def test_every_flipped_bit_is_found_by_verify_and_never_restores_a_wrong_tree(tmp_path: Path) -> None:
    good = tiny_archive().to_bytes()
    restored(good, tmp_path / "good")
    expected = tree(tmp_path / "good")
    covered = [*range(537), *range(4096, 4106), *range(8192, len(good))]
    padding = [*range(537, 600), *range(600, 4096, 61), 4095, 4106, *range(4200, 8192, 61), 8191]
    for offset in sorted(covered + padding):
        for bit in range(8) if offset in covered else (offset % 8,):
            data = bytearray(good)
            data[offset] ^= 1 << bit
            with pytest.raises(DumontError):
                verify(MemorySource(data), VerifyOptions(jobs=1))
            target = tmp_path / f"{offset}-{bit}"
            if offset in padding:  # no part of the tree
                restored(bytes(data), target)
                assert tree(target) == expected
            else:
                with pytest.raises(DumontError):
                    restored(bytes(data), target)


def test_every_flipped_bit_of_a_stored_chunk_is_found(tmp_path: Path) -> None:
    for number, chunk in enumerate(SMALL.chunks):
        offset = DATA.index(chunk.stored)
        for at in range(offset, offset + len(chunk.stored), 3):
            data = bytearray(DATA)
            data[at] ^= 1 << at % 8
            message = clear_error(lambda data=data: verify(MemorySource(data), VerifyOptions(jobs=1)), DamagedError)  # type: ignore[misc]
            assert f"chunk {number}" in message


def test_bytes_hidden_between_chunks_are_found_by_verify(target: Path) -> None:
    for padding in (b"\1", bytes(2000) + b"hidden"):
        archive = small_archive()
        archive.padding = padding
        assert "padding" in clear_error(lambda archive=archive: verify(MemorySource(archive.to_bytes())), DamagedError)  # type: ignore[misc]


def test_changed_lengths_are_refused() -> None:
    """Bytes taken out or put in, at places all over the file."""
    for at in range(0, len(DATA), 37):
        for data in (DATA[:at] + DATA[at + 1 :], DATA[:at] + b"\0" + DATA[at:]):
            with pytest.raises(DumontError):
                read_snapshot(MemorySource(data))


def test_numbers_of_the_header_at_their_extremes_are_refused_or_read() -> None:
    base = small_archive()
    for offset, size in [(at, 4) for at in range(8, 24, 4)] + [(at, 8) for at in range(24, 64, 8)]:
        for value in (0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), 4096, 512):
            body = bytearray(base.to_bytes()[:480])
            struct.pack_into("<I" if size == 4 else "<Q", body, offset, value)
            data = bytes(body) + sha256(bytes(body)) + DATA[512:]
            try:
                read_snapshot(MemorySource(data))
            except DumontError as error:
                assert str(error).isprintable()


def test_flag_of_blake3_without_its_digests_is_refused(target: Path) -> None:
    refused(two_chunks(flags=1), target)
