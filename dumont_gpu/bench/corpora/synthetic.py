"""Content made up from a seed: repeated texts, measurements, weights, and casts of real weights.

Without NumPy: a benchmark must not need more than the program that is measured. Casts work on long integers, many
elements at once.
"""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Final

from dumont_gpu.sizes import MiB

SEED: Final = 20_241_217
GGUF_F32, GGUF_Q8_0 = 0, 8  # types of its tensors
SIGMA: Final = 0.02  # the spread of a language model's weights, about
_QUANTILES: Final = 1 << 16
_PIECE: Final = 1 * MiB

PYTHON_TEXT: Final = '''\
def step(model, batch, optimizer, scaler):
    """One training step; returns its loss."""
    optimizer.zero_grad(set_to_none=True)
    loss = model(**batch).loss
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss.item()

'''
JSON_TEXT: Final = (
    '{"model": "tinyllama-1.1b", "dtype": "bfloat16", "layers": 22, "hidden": 2048, "heads": 32, "rope": 10000}\n'
)
LOG_TEXT: Final = "2024-12-17 10:00:00 INFO step=100 loss=2.34\n"


def repeated(text: str, size: int) -> bytes:
    """Returns `size` bytes of `text`, repeated."""
    unit = text.encode()
    return (unit * (size // len(unit) + 1))[:size]


def measurements(size: int) -> bytes:
    """Returns about `size` bytes of CSV: a counter, two categories, numbers of few digits."""
    dice = random.Random(SEED)
    lines, length, number = ["step,split,loss,accuracy,lr\n"], 0, 0
    while length < size:
        number += 1
        split = dice.choice(("train", "valid"))
        lines.append(f"{number},{split},{dice.gauss(2, 0.3):.3f},{dice.random():.2f},0.0003\n")
        length += len(lines[-1])
    return "".join(lines).encode()


@functools.cache
def quantiles() -> tuple[float, ...]:
    """Returns 65,536 quantiles of normal weights; a random rank draws a weight."""
    normal = NormalDist(0, SIGMA)
    return tuple(normal.inv_cdf((rank + 0.5) / _QUANTILES) for rank in range(_QUANTILES))


def normal_bf16(size: int, seed: int = SEED) -> bytes:
    """Returns `size` bytes of bf16 weights, normally distributed: quantiles, rounded."""
    table = array("H", bf16(array("f", quantiles()).tobytes()))
    ranks = array("H", random.Random(seed).randbytes(size))
    return array("H", map(table.__getitem__, ranks)).tobytes()


def normal_fp32(size: int, seed: int = SEED) -> bytes:
    """Returns `size` bytes of fp32 weights: bf16 ones above, random bits below."""
    high, low = normal_bf16(size // 2, seed), random.Random(seed + 1).randbytes(size // 2)
    out = bytearray(size)
    out[0::4], out[1::4], out[2::4], out[3::4] = low[0::2], low[1::2], high[0::2], high[1::2]
    return bytes(out)


def bf16(fp32: bytes) -> bytes:
    """Rounds finite fp32 values to bf16, to nearest even."""
    out = bytearray()
    for at in range(0, len(fp32), _PIECE):
        piece = fp32[at : at + _PIECE]
        count = len(piece) // 4
        # No lane overflows into its neighbour: a finite value plus 0x8000 fits 32 bits.
        bits, ones = int.from_bytes(piece, "little"), int.from_bytes(b"\1\0\0\0" * count, "little")
        rounded = (bits + ones * 0x7FFF + ((bits >> 16) & ones)).to_bytes(len(piece), "little")
        half = bytearray(len(piece) // 2)
        half[0::2], half[1::2] = rounded[2::4], rounded[3::4]
        out += half
    return bytes(out)


def q8_0(fp32: bytes) -> bytes:
    """GGUF's Q8_0 of fp32 values: blocks of 32, each an fp16 scale and 32 int8."""
    values = memoryview(fp32).cast("f")
    blocks = []
    for at in range(0, len(values) - 31, 32):
        block = values[at : at + 32].tolist()
        scale = max(map(abs, block)) / 127
        inverse = 1 / scale if scale else 0.0
        blocks.append(struct.pack("<e32b", scale, *[round(value * inverse) for value in block]))
    return b"".join(blocks)


def gguf(tensors: Sequence[tuple[str, Sequence[int], int, bytes]]) -> bytes:
    """Returns a GGUF v3 file of (name, dimensions, type, content)."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    head += string("general.architecture") + struct.pack("<I", 8) + string("bert")  # 8: the type of a string
    body, offset = [], 0
    for name, dimensions, kind, content in tensors:
        count = len(dimensions)
        head += string(name) + struct.pack(f"<I{count}QIQ", count, *dimensions, kind, offset)
        body.append(content + bytes(-len(content) % 32))
        offset += len(body[-1])
    return b"".join([head, bytes(-len(head) % 32), *body])


def gguf_q8_0(content: bytes) -> bytes:
    """Returns a GGUF file with a single tensor of Q8_0 blocks."""
    return gguf([("weight", (len(content) // 34 * 32,), GGUF_Q8_0, content)])


def safetensors(
    tensors: Sequence[tuple[str, str, Sequence[int], bytes]], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """Yields the pieces of a safetensors file of (name, dtype, shape, content)."""
    yield safetensors_header(((name, dtype, shape, len(content)) for name, dtype, shape, content in tensors), metadata)
    for _, _, _, content in tensors:
        yield content


def safetensors_header(
    tensors: Iterable[tuple[str, str, Sequence[int], int]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Returns what a safetensors file begins with, for (name, dtype, shape, size in bytes)."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def fp32_tensors(data: bytes) -> Iterator[tuple[str, list[int], bytes]]:
    """Yields name, shape and content of the F32 tensors of a safetensors file, in its order."""
    (header_size,) = struct.unpack_from("<Q", data)
    start = 8 + header_size
    for name, entry in json.loads(data[8:start]).items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            yield name, entry["shape"], data[start + begin : start + end]


def checkpoint(storages: Sequence[bytes]) -> bytes:
    """Returns a zip in the shape of a PyTorch checkpoint: stored members `archive/data/N`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, content in enumerate(storages):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{number}"), content)
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")
    return out.getvalue()
