"""Which bytes go to which codec, and how files are cut."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import struct
import zipfile
from pathlib import Path

import pytest
from support.snapshots import files_of, pack_tree

from dumont_gpu.codecs import ZSTD, Codec, Lz4, Raw, ZipNN
from dumont_gpu.native import Dtype
from dumont_gpu.plan.methods import HybridV2, Method, make_method
from dumont_gpu.plan.regions import Region, find_regions
from dumont_gpu.sizes import KiB, MiB

DEFAULT = make_method("hybrid_v3")
rng = random.Random(9)
COUNT = 150_000
FP32 = struct.pack(f"<{COUNT}f", *(rng.gauss(0, 0.02) for _ in range(COUNT)))
BF16 = b"".join(FP32[i + 2 : i + 4] for i in range(0, len(FP32), 4))
FP16 = struct.pack(f"<{COUNT}e", *struct.unpack(f"<{COUNT}f", FP32))
NOISE = rng.randbytes(300_000)
TEXT = b"".join(
    f"epoch {i} loss={rng.random():.3f} lr=0.0003 path=/data/shard-{i % 97}\n".encode() for i in range(6000)
)


def regions_of(path: Path, data: bytes, method: Method = DEFAULT) -> list[Region]:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = find_regions(fd, [(0, len(data))], method)
    finally:
        os.close(fd)
    assert found[0].start == 0
    assert found[-1].end == len(data)
    assert all(before.end == after.start for before, after in itertools.pairwise(found))
    return found


def share(regions: list[Region], codec: Codec) -> float:
    """The share of bytes that go to `codec`, at the same phase as the codec's largest region."""
    size = codec.dtype.size if isinstance(codec, ZipNN) else 1
    mine = [region for region in regions if region.codec == codec]
    phase = max(mine, key=lambda region: region.end - region.start).start % size if mine else 0
    total = sum(region.end - region.start for region in mine if region.start % size == phase)
    return total / regions[-1].end


@pytest.mark.parametrize(("method", "plain"), [(HybridV2(), Lz4()), (DEFAULT, ZSTD)], ids=["hybrid_v2", "hybrid_v3"])
@pytest.mark.parametrize(
    ("data", "codec"),
    [(FP32, ZipNN(Dtype.FP32)), (BF16, ZipNN(Dtype.BF16)), (NOISE, Raw()), (TEXT, None)],
    ids=["fp32", "bf16", "noise", "text"],
)
def test_unknown_files_are_probed(
    tmp_path: Path, data: bytes, codec: Codec | None, method: Method, plain: Codec
) -> None:
    assert share(regions_of(tmp_path / "f", data, method), codec or plain) > 0.99


def test_fp16_is_probed(tmp_path: Path) -> None:
    # Moving the sign, as for bf16, costs and gains nothing on fp16: either of the two is right.
    found = regions_of(tmp_path / "f", FP16)
    assert max(share(found, ZipNN(dtype)) for dtype in (Dtype.FP16, Dtype.BF16)) > 0.99


@pytest.mark.parametrize("shift", range(1, 8))
@pytest.mark.parametrize(("data", "dtype"), [(FP32, Dtype.FP32), (BF16, Dtype.BF16)], ids=["fp32", "bf16"])
def test_elements_at_odd_offsets_keep_their_phase(tmp_path: Path, data: bytes, dtype: Dtype, shift: int) -> None:
    found = regions_of(tmp_path / "f", b"\x80" * shift + data)
    assert share(found, ZipNN(dtype)) > 0.99
    largest = max(found, key=lambda region: region.end - region.start)
    assert largest.start % dtype.size == shift % dtype.size


def safetensors(tensors: list[tuple[str, str, bytes]]) -> bytes:
    header, at = {}, 0
    for name, dtype, data in tensors:
        header[name] = {"dtype": dtype, "shape": [1], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors)


def test_safetensors_regions_follow_its_header(tmp_path: Path) -> None:
    found = regions_of(
        tmp_path / "m",  # as in a Hugging Face cache: no extension
        safetensors(
            [("a", "F32", FP32), ("b", "BF16", BF16), ("c", "F16", FP16), ("d", "U8", NOISE), ("e", "I64", TEXT)]
        ),
    )
    sizes = {codec: sum(r.end - r.start for r in found if r.codec == codec) for codec in {r.codec for r in found}}
    assert sizes[ZipNN(Dtype.FP32)] == pytest.approx(len(FP32), abs=100)
    assert sizes[ZipNN(Dtype.BF16)] == pytest.approx(len(BF16), abs=100)
    assert sizes[ZipNN(Dtype.FP16)] == pytest.approx(len(FP16), abs=100)
    assert sizes[Raw()] == pytest.approx(len(NOISE), abs=100)


@pytest.mark.parametrize(
    "header",
    [
        b"{", b"{}", b'{"a":1}', b'{"a":{"dtype":"F32","data_offsets":[5,2]}}', b'{"a":{"dtype":"F32","data_offsets":[0]}}',
        b'{"a":{"dtype":{},"data_offsets":[0,9]}}', b'{"a":{"dtype":"F32","data_offsets":[-9,1e99]}}', b'{"' + b"[" * 90_000,
        b'{"a":{"dtype":"F32","data_offsets":[0,99999999999]}}', b'{"a":{"dtype":"F32","data_offsets":["0","9"]}}',
    ],
)  # fmt: skip
def test_broken_safetensors_headers_do_not_matter(tmp_path: Path, header: bytes) -> None:
    found = regions_of(tmp_path / "m.safetensors", struct.pack("<Q", len(header)) + header + FP32)
    assert found


def test_storages_of_a_checkpoint_get_their_own_phase(tmp_path: Path) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"pickle, never loaded")
        for number, data in enumerate((FP32, BF16, FP32, TEXT)):
            archive.writestr(f"archive/data/{number}{'x' * number}", data)
    found = regions_of(tmp_path / "c.pt", memory.getvalue())
    floats = [(region.codec, region.end - region.start) for region in found if isinstance(region.codec, ZipNN)]
    assert [codec for codec, size in floats if size > MiB // 4] == [
        ZipNN(Dtype.FP32), ZipNN(Dtype.BF16), ZipNN(Dtype.FP32),
    ]  # fmt: skip


def test_holes_cut_regions_and_keep_their_phase(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors([("a", "F32", FP32)]))
    start = path.stat().st_size - len(FP32)
    ranges = [(0, start + 80_001), (start + 90_002, path.stat().st_size)]
    fd = os.open(path, os.O_RDONLY)
    found = find_regions(fd, ranges, DEFAULT)
    os.close(fd)
    covered = [(region.start, region.end) for region in found]
    assert [(a, b) for a, b in ranges if a not in dict(covered) or b not in dict(covered).values()] == []
    assert {region.start % 4 for region in found if region.codec == ZipNN(Dtype.FP32)} == {start % 4}


@pytest.mark.parametrize("cut", [30, 1000, 100_000])
def test_broken_zips_do_not_matter(tmp_path: Path, cut: int) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("archive/data/0", FP32)
    whole = memory.getvalue()
    assert regions_of(tmp_path / "c.pt", whole[:-cut])
    assert regions_of(tmp_path / "c.pt", whole[: -22 - cut] + bytes(cut) + whole[-22:])


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.py", Lz4()), ("a.PNG", Raw()), ("dir.png/a", Lz4()), ("model.gguf", Raw()), ("x.tar.gz", Raw()), ("x", Lz4())],
)
def test_small_files_follow_the_extension_map_of_hybrid_v2(name: str, codec: Codec) -> None:
    assert HybridV2().for_small_file(name) == codec


def test_small_files_share_chunks_and_large_regions_do_not(source: Path, snapshot: Path) -> None:
    (source / "model.bin").write_bytes(FP32[:400_000])
    for number in range(100):
        (source / f"{number}.py").write_bytes(TEXT[number * 100 :][:500])
    pack_tree(source, snapshot, chunk_size=128 * KiB)
    by_name = files_of(snapshot)
    assert {len(by_name[f"{number}.py"].extents) for number in range(100)} == {1}
    assert len({by_name[f"{number}.py"].extents[0].chunk for number in range(100)}) == 1
    assert [extent.length for extent in by_name["model.bin"].extents] == [131072, 131072, 131072, 6784]


def test_packing_is_smaller_with_the_right_codec(source: Path, snapshot: Path) -> None:
    (source / "model.safetensors").write_bytes(safetensors([("a", "F32", FP32), ("b", "BF16", BF16)]))
    hybrid = pack_tree(source, snapshot)
    lz4 = pack_tree(source, snapshot, method="lz4")
    none = pack_tree(source, snapshot, method="none")
    assert hybrid.compressed_size < 0.85 * lz4.compressed_size
    assert none.compressed_size > none.original_size
    assert set(hybrid.codec_bytes) == {"zipnn", "zstd"}
    assert set(none.codec_bytes) == {"none"}
