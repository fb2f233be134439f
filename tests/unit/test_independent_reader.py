"""The program's snapshots, read by a reader that was written from FORMAT.md alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import independent_reader

from dumont_gpu.codecs import CODECS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SNAPSHOTS = sorted(GOLDEN.glob("[!f]*.dumont"))
FUTURE = sorted(GOLDEN.glob("future-*.dumont"))
STREAMS: list[dict[str, Any]] = json.loads((GOLDEN / "streams" / "streams.json").read_text())
KIB = 1 << 10


def named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", SNAPSHOTS, ids=named)
def test_golden_snapshot_holds_the_expected_tree(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    tree = independent_reader.read(path.read_bytes())
    assert expected.keys() == {ascii(name) for name in tree}
    for name, content in tree.items():
        entry = expected[ascii(name)]
        if isinstance(content, bytes):
            assert ("-", entry["sha256"]) == (entry["type"][0], hashlib.sha256(content).hexdigest())
        elif isinstance(content, str):
            assert ("l", entry["target"]) == (entry["type"][0], ascii(content))
        else:
            assert content is None
            assert entry["type"][0] == "d"


@pytest.mark.parametrize("path", FUTURE, ids=named)
def test_future_snapshot_is_unsupported(path: Path) -> None:
    with pytest.raises(independent_reader.Unsupported):
        independent_reader.read(path.read_bytes())


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream["name"])
def test_golden_stream_decodes(stream: dict[str, Any]) -> None:
    stored = (GOLDEN / "streams" / f"{stream['name']}.zipnn").read_bytes()
    original = independent_reader.decode_zipnn(stored, stream["original_size"])
    assert stream["original_sha256"] == hashlib.sha256(original).hexdigest()


def test_every_changed_byte_is_noticed() -> None:
    sound = (GOLDEN / "example.dumont").read_bytes()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1
        with pytest.raises((ValueError, independent_reader.Unsupported)):
            independent_reader.read(bytes(damaged))


def test_every_missing_end_is_noticed() -> None:
    sound = (GOLDEN / "example.dumont").read_bytes()
    for size in range(len(sound)):
        with pytest.raises(ValueError, match=r"damaged|no snapshot"):
            independent_reader.read(sound[:size])


def test_damaged_stream_raises_nothing_but_value_error() -> None:
    """No digest stands before these bytes: decoders check every bound themselves."""
    dice = random.Random(3)
    for stream in STREAMS:
        sound = (GOLDEN / "streams" / f"{stream['name']}.zipnn").read_bytes()
        for _ in range(4):
            damaged = bytearray(sound)
            damaged[dice.randrange(32, min(len(sound), 400))] = dice.randrange(256)
            try:
                original = independent_reader.decode_zipnn(bytes(damaged), stream["original_size"])
            except ValueError:
                continue
            assert stream["original_size"] == len(original)


def safetensors(dtype: str, elements: bytes) -> bytes:
    tensor = {"w": {"dtype": dtype, "shape": [len(elements)], "data_offsets": [0, len(elements)]}}
    head = json.dumps(tensor).encode()
    return struct.pack("<Q", len(head)) + head + elements


def make_tree(top: Path) -> None:
    """Write floats of three types, text, zeros, small and empty files, a directory, a symlink and a hard link."""
    dice = random.Random(2)
    weights = [dice.gauss(0, 0.02) for _ in range(48 * KIB)]
    fp32 = struct.pack(f"<{len(weights)}f", *weights)
    bf16 = b"".join(fp32[at + 2 : at + 4] for at in range(0, len(fp32), 4))
    fp16 = struct.pack(f"<{len(weights)}e", *weights)
    (top / "weights" / "none").mkdir(parents=True)
    for dtype, elements in {"F32": fp32, "BF16": bf16, "F16": fp16}.items():
        (top / "weights" / f"{dtype}.safetensors").write_bytes(safetensors(dtype, elements))
        (top / "weights" / f"{dtype}.bin").write_bytes(elements[: len(elements) // 3])
    (top / "log.txt").write_text("".join(f"step {step} loss {dice.random():.3f}\n" for step in range(9000)))
    (top / "same-line.txt").write_text("the same line, once more\n" * 5000)
    (top / "zeros").write_bytes(bytes(300 * KIB))
    (top / "noise").write_bytes(dice.randbytes(20_000))
    for size in (0, 1, 2, 3, 5, 63, 4096, 4097):
        (top / f"small-{size}").write_bytes(dice.randbytes(size))
    with (top / "holes").open("wb") as file:
        file.seek(200 * KIB)
        file.write(b"between")
        file.truncate(500 * KIB)
    (top / "link").symlink_to("weights/nowhere")
    (top / "other-name").hardlink_to(top / "log.txt")


def tree_of(top: Path) -> dict[str, object]:
    tree: dict[str, object] = {}
    for path in top.rglob("*"):
        content = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
        tree[os.fspath(path.relative_to(top))] = content
    return tree


@pytest.mark.parametrize(
    ("method", "chunk_size", "codecs"),
    [
        ("hybrid_v3", "64MiB", {1, 3, 4}),
        ("hybrid_v3", "64KiB", {0, 3, 4}),
        ("hybrid_v2", "64MiB", {1, 3}),
        ("hybrid_v2", "64KiB", {0, 1, 3}),
        ("lz4_hc", "64MiB", {2}),
        ("none", "4KiB", {0}),
        *((codec.name, "64KiB", {codec.id}) for codec in CODECS if codec.element_size == 1),
    ],
)
def test_packed_tree_is_read_back(tmp_path: Path, method: str, chunk_size: str, codecs: set[int]) -> None:
    source, packed = tmp_path / "source", tmp_path / "tree.dumont"
    make_tree(source)
    options = ["--method", method, "--chunk-size", chunk_size, "--device", "cpu", "--jobs", "2"]
    command = [sys.executable, "-m", "dumont_gpu", "pack", str(source), "-o", str(packed), *options]
    subprocess.run(command, check=True, cwd=tmp_path)  # not in a checkout: its package has no compiled kernels
    data = packed.read_bytes()
    assert tree_of(source) == independent_reader.read(data)
    chunks = independent_reader.read_table(data).chunks
    assert codecs <= {chunk.codec for chunk in chunks}, "a codec was not put to the test"
