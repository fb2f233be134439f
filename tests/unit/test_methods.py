"""The methods: which codec each chooses for which bytes, and that hybrid_v2 never writes other bytes than it did."""

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
from support.snapshots import pack_tree

from dumont_gpu.sizes import KiB, MiB
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
    for entry in opened.files():
        choices.update(os.fsencode(entry.path))
        for extent in entry.extents:
            choices.update(f" {extent.chunk} {extent.file_offset} {extent.chunk_offset} {extent.length}".encode())
    assert (choices.hexdigest(), encoded.hexdigest()) == FROZEN[chunk_size]
