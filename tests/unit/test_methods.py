"""The methods: which codec each chooses for which bytes, `--link` and `--level`, and that hybrid_v2's bytes are frozen."""

from __future__ import annotations

import hashlib
import io
import os
import random
import struct
import zipfile
from pathlib import Path
from typing import Final

import pytest
from support.snapshots import ROOT, assert_same_tree, files_of, pack_tree, restore_tree

from dumont_gpu.codecs import LZ4, ZSTD, Codec, Raw, ZipNN, Zstd
from dumont_gpu.errors import UsageError
from dumont_gpu.native import Dtype
from dumont_gpu.plan.methods import (
    DEFAULT_LINK,
    METHODS,
    SAMPLE_SIZE,
    Choice,
    HybridV2,
    HybridV3,
    make_method,
)
from dumont_gpu.sizes import LOCAL, KiB, MiB, parse_rate, write_rate
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import LocalSource

# What hybrid_v2 makes of `frozen_tree`, by chunk size: digests of its choices and extents, and of the encoded bytes. Only
# the latter may change, and only with another version of the lz4 package.
FROZEN: Final = {
    256 * KiB: (
        "864b8967960db66c1f5475356b1e02548da8862b9c9808d6b6fd813ca5bb45e8",
        "c35be2f79622f56cc2296f7a83f47021c6af753c6e4ba842fffeaf329e98644b",
    ),
    64 * MiB: (
        "6c9ed924e02896ba601a460d9089816d5d3519db02aad67e1f4144aae7e7505b",
        "075d1318aff181fcff8019728798e1c3f71fe3207c0163737f05a8bc7e40eb09",
    ),
}


def frozen_tree(root: Path) -> None:
    """Something of every kind that a method looks at. Never changed: two digests are frozen with it."""
    rng = random.Random(16)
    fp32 = struct.pack("<120000f", *(rng.gauss(0, 0.02) for _ in range(120_000)))
    bf16 = b"".join(fp32[at + 2 : at + 4] for at in range(0, len(fp32), 4))
    log = "".join(f"step {i} loss {rng.random():.3f} at /data/{i % 89}\n" for i in range(12_000)).encode()
    noise = rng.randbytes(200_000)
    header = (
        f'{{"w":{{"dtype":"BF16","shape":[1],"data_offsets":[0,{len(bf16)}]}},'
        f'"n":{{"dtype":"U8","shape":[1],"data_offsets":[{len(bf16)},{len(bf16) + len(noise)}]}}}}'
    ).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as members:
        for name, data in (("a/data.pkl", b"pickle"), ("a/data/0", fp32), ("a/data/11", log), ("a/data/2", bf16)):
            members.writestr(zipfile.ZipInfo(name), data)
    files = {
        "model.safetensors": struct.pack("<Q", len(header)) + header + bf16 + noise,
        "checkpoint.pt": archive.getvalue(),
        "shifted.bin": b"\x01" * 3 + fp32,
        "run.log": log,
        "noise": noise,
        "same-line.log": b"the same line, once more\n" * 10_000,
        "photo.png": noise[:5000],
        "empty": b"",
        "copy.log": log,
        **{f"code/{number}.py": log[number * 300 :][:2000] for number in range(20)},
    }
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    with (root / "sparse").open("wb") as file:
        file.write(log[:100_000])
        file.seek(1 << 20)
        file.write(noise[:100_000])


@pytest.mark.parametrize("chunk_size", FROZEN)
def test_hybrid_v2_writes_what_it_always_wrote(source: Path, snapshot: Path, chunk_size: int) -> None:
    frozen_tree(source)
    pack_tree(source, snapshot, method="hybrid_v2", jobs=1, device="cpu", chunk_size=chunk_size)
    opened = read_snapshot(LocalSource(str(snapshot)))
    whole = snapshot.read_bytes()
    choices, encoded = hashlib.sha256(), hashlib.sha256()
    for record in opened.chunks:
        choices.update(f"{record.compressor_id} {record.size_original}\n".encode())
        encoded.update(whole[record.offset : record.end])
    for entry in files_of(snapshot).values():
        choices.update(os.fsencode(entry.path))
        for extent in entry.extents:
            choices.update(f" {extent.chunk} {extent.file_offset} {extent.chunk_offset} {extent.length}".encode())
    assert (choices.hexdigest(), encoded.hexdigest()) == FROZEN[chunk_size]


# --- hybrid_v3 --------------------------------------------------------------------------------------------------------

rng = random.Random(3)
ONE_LINE = b"2026-11-29 12:00:00 INFO the same line, once more\n" * 2000
SOURCE = b"".join(path.read_bytes() for path in sorted((ROOT / "dumont_gpu" / "storage").glob("*.py")))
NOISE = rng.randbytes(SAMPLE_SIZE)
FP32 = struct.pack("<40000f", *(rng.gauss(0, 0.02) for _ in range(40_000)))
BF16 = b"".join(FP32[at + 2 : at + 4] for at in range(0, len(FP32), 4))
BASE64_LIKE = bytes(rng.choices(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=SAMPLE_SIZE))

SLOWEST, SLOW, FASTER, FASTEST = 1, 12_500_000, 1_250_000_000, 10**12  # bytes per second of a link


def chosen(content: bytes, link: int = DEFAULT_LINK, previous: Choice | None = None, level: int = 3) -> Codec:
    method = make_method("hybrid_v3", link, level)
    return method.for_sample(memoryview(content)[:SAMPLE_SIZE], 0, previous)[0]


@pytest.mark.parametrize(
    ("content", "link", "codec"),
    [
        (SOURCE, SLOWEST, ZSTD),
        (SOURCE, SLOW, ZSTD),
        (SOURCE, DEFAULT_LINK, ZSTD),
        (SOURCE, FASTER, LZ4),
        (SOURCE, FASTEST, LZ4),
        (SOURCE, LOCAL, LZ4),
        (ONE_LINE, DEFAULT_LINK, LZ4),
        (ONE_LINE, FASTER, LZ4),
        (ONE_LINE, LOCAL, LZ4),
        *((NOISE, link, Raw()) for link in (SLOWEST, DEFAULT_LINK, FASTEST, LOCAL)),
        *((BF16, link, ZipNN(Dtype.BF16)) for link in (SLOWEST, DEFAULT_LINK, FASTEST, LOCAL)),
        *((FP32, link, ZipNN(Dtype.FP32)) for link in (SLOWEST, DEFAULT_LINK, FASTEST, LOCAL)),
    ],
)
def test_the_codec_with_the_shortest_total_time_is_chosen(content: bytes, link: int, codec: Codec) -> None:
    assert chosen(content, link) == codec


@pytest.mark.parametrize("link", [DEFAULT_LINK, FASTEST])
def test_zeros_do_not_wait_for_zstd(link: int) -> None:
    assert chosen(bytes(SAMPLE_SIZE), link) != ZSTD


def test_bytes_without_repetition_stay_with_the_float_codec() -> None:
    """All that zstd finds there is how often each byte occurs, which the float codec finds at ten times the rate."""
    assert isinstance(chosen(BASE64_LIKE, SLOWEST), ZipNN)


def test_a_choice_changes_only_where_that_is_clearly_better() -> None:
    mixed = SOURCE[: 20 * KiB] + ONE_LINE[: 12 * KiB]
    assert chosen(mixed, FASTER, previous=(ZSTD, 0)) == LZ4  # far from the balance
    link = next(link for link in range(SLOW, FASTER, SLOW) if chosen(mixed, link, previous=(LZ4, 0)) == LZ4)
    assert chosen(mixed, link, previous=(ZSTD, 0)) == ZSTD


@pytest.mark.parametrize("level", [1, 9, 19])
def test_the_level_does_not_change_the_choice(level: int) -> None:
    """Whoever asks for a level that takes long wants the size."""
    assert chosen(SOURCE, level=level) == Zstd(level=level)
    assert chosen(ONE_LINE, level=level) == LZ4


@pytest.mark.parametrize("name", ["a.py", "a.PNG", "model.gguf", "x"])
def test_small_files_are_not_told_apart(name: str) -> None:
    assert make_method("hybrid_v3").for_small_file(name) == ZSTD
    assert make_method("hybrid_v3", LOCAL).for_small_file(name) == HybridV2().for_small_file(name)


@pytest.mark.parametrize("method", METHODS)
def test_only_zstd_takes_a_level(method: str) -> None:
    plain = make_method(method, level=7).plain
    assert plain == (Zstd(level=7) if method in ("hybrid_v3", "zstd") else make_method(method).plain)


def test_an_unknown_method_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="there are hybrid_v3, hybrid_v2, lz4"):
        make_method("zip")
    assert isinstance(make_method("hybrid_v3"), HybridV3)


# --- whole packs ------------------------------------------------------------------------------------------------------


def codecs_of(source: Path, snapshot: Path, **options: object) -> set[str]:
    return set(pack_tree(source, snapshot, device="cpu", **options).codec_bytes)


@pytest.mark.parametrize(
    ("options", "codecs"),
    [
        ({}, {"zstd", "lz4", "zipnn", "none"}),
        ({"link": LOCAL}, {"lz4", "zipnn", "none"}),
        ({"link": FASTEST}, {"zstd", "lz4", "zipnn", "none"}),  # small files are not looked at
        ({"level": 19}, {"zstd", "lz4", "zipnn", "none"}),
        ({"method": "hybrid_v2"}, {"lz4", "zipnn", "none"}),
    ],
)
def test_one_tree_by_every_way_of_choosing(
    options: dict[str, object], codecs: set[str], source: Path, snapshot: Path, target: Path
) -> None:
    frozen_tree(source)
    (source / "source").write_bytes(SOURCE)
    assert codecs_of(source, snapshot, **options) == codecs
    restore_tree(snapshot, target, verify=True)
    assert_same_tree(source, target)


def test_a_local_link_makes_the_choices_of_hybrid_v2(source: Path, snapshot: Path) -> None:
    frozen_tree(source)
    results = [pack_tree(source, snapshot, jobs=1, **options) for options in ({"link": LOCAL}, {"method": "hybrid_v2"})]
    raw = [{codec: size for codec, (size, _) in result.codec_bytes.items()} for result in results]
    assert raw[0].keys() == raw[1].keys()
    # hybrid_v3 stores equal tensors once, whatever the link.
    assert sum(raw[1].values()) - sum(raw[0].values()) == results[0].shared_bytes - results[1].shared_bytes > 0


@pytest.mark.parametrize("method", ["hybrid_v3", "zstd"])
@pytest.mark.parametrize("level", [1, 19])
def test_chunks_are_encoded_at_the_level(method: str, level: int, source: Path, snapshot: Path) -> None:
    (source / "a").write_bytes(SOURCE)
    pack_tree(source, snapshot, method=method, level=level)
    (record,) = read_snapshot(LocalSource(str(snapshot))).chunks
    out = memoryview(bytearray(len(SOURCE)))
    size = Zstd(level=level).encode(memoryview(SOURCE), out)
    assert snapshot.read_bytes()[record.offset : record.end] == out[:size]


def test_memory_has_room_for_the_encoder_too(source: Path, snapshot: Path) -> None:
    (source / "a").write_bytes(SOURCE)
    memory = 64 * KiB
    pack_tree(source, snapshot, chunk_size=4 * KiB, memory=memory, method="lz4")
    with pytest.raises(UsageError, match="needs --memory of at least"):
        pack_tree(source, snapshot, chunk_size=4 * KiB, memory=memory, method="hybrid_v3", level=19)


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1Gbit", 125_000_000), ("1gbit/s", 125_000_000), ("100Mbit", 12_500_000), ("10Gbit/s", 1_250_000_000),
        ("2.5Gbit", 312_500_000), ("56kbit", 7000), ("8bit", 1), (" 1 Gbit ", 125_000_000), ("125MB", 125_000_000),
        ("125MB/s", 125_000_000), ("1MiB", MiB), ("4096", 4096), ("local", LOCAL), ("Local", LOCAL),
    ],
)  # fmt: skip
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(write_rate(rate)) == rate


@pytest.mark.parametrize(
    "text",
    ["", "0", "0Gbit", "7bit", "fast", "1Gb", "1Gb/s", "1mb", "1Gbps", "-1Gbit", "1e9", "bit", "1Gbit/h", "0.5", "1 G bit", "nan", "9" * 400,
     "9" * 18 + "Tbit", "\u0663Gbit", "1Gbit\n/s", "/s"],
)  # fmt: skip
def test_what_is_no_rate_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_rate(text)
    assert "write it as 1Gbit" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 120
