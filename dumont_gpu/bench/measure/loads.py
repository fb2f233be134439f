"""Loads of tensors: ours against raw files, on this machine, over links, into a device, and in bounded memory.

This module and those it measures with need NumPy, so they are imported when the part runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import dumont_gpu
from dumont_gpu.bench.corpora.models import EMBEDDING, fp32_model, write_bf16, write_checkpoint, write_npz
from dumont_gpu.bench.measure import load_contenders as contenders
from dumont_gpu.bench.measure.load_contenders import Contender, Model
from dumont_gpu.bench.measure.load_device import measure_device
from dumont_gpu.bench.measure.load_links import QUARTER, measure_link
from dumont_gpu.bench.measure.load_turns import LoadFigures, Task, damaged, in_turn
from dumont_gpu.bench.measure.originals import Original, least_bytes, original_of, written_in
from dumont_gpu.bench.measure.places import Places, places
from dumont_gpu.bench.measure.streamed import measure_stream
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack

PART: Final = "model.layers.0.mlp.up_proj.weight"  # the tensor that is loaded alone
_ENOUGH: Final = 20.0  # seconds of all runs of a task, after which no new turn begins
_STREAM_SHARE: Final = 8  # a streamed load may hold a part of the model: one of so many
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What is measured.

    Args:
        size: of each file, bytes.
        turns: runs of each contender.
        rates: of links, bits per second.
        device: "cuda:0"; None: there is none.
    """

    size: int
    turns: int
    rates: Sequence[float]
    device: str | None = None


@dataclass(frozen=True, slots=True)
class _Bf16:
    """The bf16 model, and what is loaded of it."""

    model: Model
    original: Original
    rows: slice  # the first quarter of the embedding's
    framework: str  # "pt" where PyTorch is installed

    @property
    def some_rows(self) -> Original:
        embedding = self.original[EMBEDDING]
        return {EMBEDDING: embedding[: embedding.nbytes // QUARTER]}


def measure_loads(scratch: Path, options: LoadOptions, failures: list[str], say: Say) -> dict[str, Any]:
    """Returns the figures of part `load`.

    Args:
        scratch: for the files, which are removed.
        options: sizes, turns, links.
        failures: gets a line for each load that was not intact.
        say: told of each file and link.
    """
    with places(scratch) as found:
        folder = found.new()
        say("bf16 model")
        bf16 = _bf16_model(folder, options.size)
        figures = [*_local(bf16, found, options.turns)]
        say("fp32 model")
        figures += _fp32(folder, options)
        for rate in options.rates:
            say(f"{rate / 1e6:,.0f} Mbit/s")
            figures += measure_link(
                bf16.model, bf16.original, PART, bf16.rows, bf16.framework, folder, options.turns, rate
            )
        if options.device is not None:
            say(options.device)
            figures += measure_device(bf16.model, bf16.original, options.device, options.turns)
        say("memory")
        return _described(bf16, options) | {"figures": _checked(figures, failures)}


def _bf16_model(folder: Path, size: int) -> _Bf16:
    file = folder / "model.safetensors"
    write_bf16(file, size)
    rows = slice(0, written_in(file)[EMBEDDING].shape[0] // QUARTER)
    framework = "pt" if contenders.is_installed("torch") else "np"
    return _Bf16(_packed(file), original_of(file), rows, framework)


def _packed(file: Path) -> Model:
    snapshot = f"{file}.dumont"
    pack([str(file)], snapshot, PackOptions(device="cpu"))
    return Model(file, snapshot)


def _local(bf16: _Bf16, found: Places, turns: int) -> Iterator[LoadFigures]:
    model, original = bf16.model, bf16.original
    with dumont_gpu.open(model.snapshot, model.name, framework=bf16.framework) as tensors:
        targets = tensors.get_tensors()
    yield from _run("bf16, all tensors, NumPy", original, contenders.bf16_to_numpy(model, found), turns)
    yield from _run("bf16, all tensors, PyTorch", original, contenders.bf16_to_torch(model), turns)
    yield from _run("bf16, into a caller's tensors", original, contenders.bf16_into(model, targets), turns)
    part = {PART: original[PART]}
    yield from _run("bf16, one tensor", part, contenders.one_tensor(model, PART, bf16.framework), turns)
    rows = contenders.some_rows(model, bf16.rows, bf16.framework)
    yield from _run("bf16, a quarter of the embedding", bf16.some_rows, rows, turns)


def _fp32(folder: Path, options: LoadOptions) -> Iterator[LoadFigures]:
    tensors = fp32_model(options.size)
    original = {name: contenders.as_bytes(array) for name, array in tensors.items()}
    npz = folder / "model.npz"
    write_npz(npz, tensors)
    yield from _run("fp32 .npz, NumPy", original, contenders.fp32_npz(_packed(npz)), options.turns)
    checkpoint = folder / "model.pt"
    if contenders.is_installed("torch"):
        write_checkpoint(checkpoint, tensors, contenders.module("torch"))
        loads = contenders.fp32_checkpoint(_packed(checkpoint))
        yield from _run("fp32 .pt, PyTorch", original, loads, options.turns)


def _run(name: str, original: Original, compared: Iterator[Contender], turns: int) -> Iterator[LoadFigures]:
    return in_turn(Task("local", name, original, tuple(compared)), turns, enough=_ENOUGH, warm=True)


def _described(bf16: _Bf16, options: LoadOptions) -> dict[str, Any]:
    model, written = bf16.model, written_in(bf16.model.file)
    header = (0, 1)  # a byte of the file's table, which lies in one chunk
    size = model.file.stat().st_size
    return {
        "size": size,
        "snapshot_size": Path(model.snapshot).stat().st_size,
        "tensors": len(written),
        "turns": options.turns,
        "least_bytes": least_bytes(model.snapshot, model.name, [header, written[PART][:2]]),
        "stream": measure_stream(model.snapshot, model.name, size // _STREAM_SHARE),
        "device": options.device,
    }


def _checked(figures: Sequence[LoadFigures], failures: list[str]) -> list[dict[str, Any]]:
    failures += damaged(figures)
    return [asdict(each) for each in figures]
