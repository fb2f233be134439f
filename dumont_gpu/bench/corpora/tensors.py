"""Tensors of the benchmark's workspace: casts between element types, and the file formats that hold them. By NumPy."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumont_gpu.bench.corpora.synthetic import GGUF_F32, GGUF_Q8_0, fp32_tensors
from dumont_gpu.bench.corpora.synthetic import gguf as gguf_file
from dumont_gpu.bench.corpora.synthetic import safetensors as safetensors_pieces

Array = NDArray[Any]
Tensors = dict[str, Array]


def bf16(values: Array) -> Array:
    """Rounds finite fp32 to nearest even; the bits, as uint16."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen_bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _e4m3_of_half() -> Array:
    """For each of the 65,536 fp16 bit patterns, the e4m3fn code nearest to it (ties to even, saturating)."""
    code = np.arange(127)
    exponent, mantissa = code >> 3, (code & 7) / 8
    grid = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7.0))
    halfway = (grid[1:] + grid[:-1]) / 2
    half = np.arange(1 << 15, dtype=np.uint16).view(np.float16).astype(np.float64)
    nearest = np.searchsorted(halfway, half)
    nearest += (half == halfway[np.minimum(nearest, 125)]) & (nearest % 2 == 1)
    positive = np.minimum(nearest, 126).astype(np.uint8)
    return np.concatenate([positive, positive | 0x80])


def fp8(tensors: Tensors) -> Tensors:
    """Matrices as e4m3 with an fp32 scale each, vectors as bf16, as in published fp8 checkpoints."""
    table, cast = _e4m3_of_half(), Tensors()
    for name, values in tensors.items():
        if values.ndim < 2:
            cast[name] = bf16(values)
            continue
        scale = np.float32(np.abs(values).max() / 448)  # 448: the largest finite e4m3fn
        cast[name] = table[(values / scale).astype(np.float16).view(np.uint16)]
        cast[f"{name}_scale"] = np.array([scale], np.float32)
    return cast


def q8_0(values: Array) -> Array:
    """GGUF's Q8_0: blocks of 32 values, an fp16 scale and 32 int8 each."""
    rows = values.reshape(-1, 32)
    blocks = np.zeros(len(rows), np.dtype([("scale", "<f2"), ("quants", "i1", 32)]))
    scale = np.abs(rows).max(axis=1) / 127
    blocks["scale"] = scale
    blocks["quants"] = np.rint(rows / np.maximum(scale, 1e-12)[:, None])
    return blocks


# --- file formats -----------------------------------------------------------------------------------------------------

SAFETENSORS_TYPES = {"<f4": "F32", "<f2": "F16", "<u2": "BF16", "|u1": "F8_E4M3"}  # NumPy has no bf16, no fp8


def parse_safetensors(data: bytes) -> Tensors:
    """The F32 tensors of a safetensors file, by name."""
    return {name: np.frombuffer(content, "<f4").reshape(shape) for name, shape, content in fp32_tensors(data)}


def safetensors(tensors: Tensors) -> bytes:
    listed = [(name, SAFETENSORS_TYPES[each.dtype.str], each.shape, each.tobytes()) for name, each in tensors.items()]
    return b"".join(safetensors_pieces(listed, {"format": "pt"}))


def gguf(tensors: Tensors) -> bytes:
    """A GGUF file: matrices as Q8_0, vectors as F32."""
    return gguf_file(
        [
            (name, each.shape[::-1], GGUF_Q8_0, q8_0(each).tobytes())
            if each.ndim > 1
            else (name, each.shape, GGUF_F32, each.tobytes())
            for name, each in tensors.items()
        ]
    )


def zip_of(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED, align: int = 1) -> bytes:
    """A zip file without times. `align` pads each header with an extra field, as PyTorch does, to place its data."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if align > 1:
                pad = -(out.tell() + 30 + len(name) + 4) % align  # 30: the local header, 4: the extra field's own
                info.extra = struct.pack("<2sH", b"FB", pad) + b"Z" * pad
            archive.writestr(info, data)
    return out.getvalue()


def checkpoint(groups: dict[str, Tensors], align: int) -> bytes:
    """The shape of a PyTorch zip checkpoint; its pickle holds plain dicts, so that no PyTorch is needed here."""
    index: dict[str, Any] = {}
    storages: list[tuple[str, bytes]] = []
    for group, tensors in groups.items():
        index[group] = {}
        for name, values in tensors.items():
            index[group][name] = {"storage": str(len(storages)), "dtype": values.dtype.str, "shape": values.shape}
            storages.append((f"archive/data/{len(storages)}", values.tobytes()))
    head = [("archive/data.pkl", pickle.dumps(index, protocol=2)), ("archive/byteorder", b"little")]
    return zip_of([*head, *storages, ("archive/version", b"3\n")], align=align)


def npy(values: Array) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


# --- training state ---------------------------------------------------------------------------------------------------


def adam_state(weights: Tensors, rng: np.random.Generator) -> dict[str, Tensors]:
    """Weights after some steps with their moments: gradient scales differ by row and column, as in training."""
    trained, average, square = Tensors(), Tensors(), Tensors()
    for name, values in weights.items():
        scale = np.ones(values.shape, np.float32)
        for axis, length in enumerate(values.shape):
            along = np.exp(rng.normal(0, 0.7, length)).astype(np.float32)
            scale *= along.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        scale *= np.float32(1e-4)
        spread = rng.standard_normal(values.shape, np.float32) * np.float32(0.3)
        average[name] = scale * rng.standard_normal(values.shape, np.float32) * np.float32(0.2)
        square[name] = scale * scale * np.exp(spread)
        trained[name] = values - np.float32(1e-4) * average[name] / (np.sqrt(square[name]) + np.float32(1e-8))
    return {"model": trained, "exp_avg": average, "exp_avg_sq": square}
