"""A language model of a given size with normal weights, as the kinds of file that tensors are loaded from. By NumPy."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import isqrt, prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from dumont_gpu.bench.corpora.synthetic import SEED, bf16, quantiles, safetensors_header
from dumont_gpu.bench.corpora.tensors import Array, Tensors

EMBEDDING: Final = "model.embed_tokens.weight"
_WIDEST: Final = 2048  # hidden units, as of a model of 1.1 billion weights
_SHARE: Final = 4  # of a small model, the embedding takes a quarter
Shapes = dict[str, tuple[int, ...]]


def shapes(size: int, item_size: int) -> Shapes:
    """Returns names and shapes of a model of `size` bytes or, by its last layer, a little more."""
    hidden = min(_WIDEST, max(64, isqrt(size // _SHARE // 16 // item_size) // 64 * 64))
    found: Shapes = {EMBEDDING: (16 * hidden, hidden)}
    inner, narrow = 11 * hidden // 4, hidden // 8
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden), "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
    }  # fmt: skip
    number = 0
    while sum(map(prod, found.values())) * item_size < size:
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
        number += 1
    return found


def write_bf16(path: Path, size: int) -> None:
    """Writes a safetensors file of bf16 tensors, one after the other: the model may be larger than the memory."""
    model = shapes(size, 2)
    with path.open("wb") as file:
        file.write(safetensors_header((name, "BF16", shape, 2 * prod(shape)) for name, shape in model.items()))
        for bits in _bf16_weights(model):
            file.write(bits.data)


def fp32_model(size: int) -> Tensors:
    """Returns fp32 tensors: bf16 weights above, random bits below."""
    model = shapes(size, 4)
    low = np.random.default_rng(SEED + 1)
    tensors = Tensors()
    for (name, shape), high in zip(model.items(), _bf16_weights(model), strict=True):
        bits = high.astype(np.uint32) << 16 | low.integers(0, 1 << 16, high.size, np.uint16)
        tensors[name] = bits.view(np.float32).reshape(shape)
    return tensors


def write_npz(path: Path, tensors: Tensors) -> None:
    np.savez(path, **tensors)  # type: ignore[arg-type]  # NumPy's own flags have names, too, but none with a dot


def write_checkpoint(path: Path, tensors: Tensors, torch: Any) -> None:
    torch.save({name: torch.from_numpy(values) for name, values in tensors.items()}, path)


def _bf16_weights(model: Shapes) -> Iterator[Array]:
    """Yields the words of each tensor."""
    table = np.frombuffer(bf16(array("f", quantiles()).tobytes()), np.uint16)
    dice = np.random.default_rng(SEED)
    for shape in model.values():
        yield table[dice.integers(0, 1 << 16, prod(shape), np.uint16)]
