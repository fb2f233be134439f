"""Loads over http at the rate of a link, against fetching the raw file: whole, or only the bytes of a tensor."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

import dumont_gpu
from dumont_gpu.bench.corpora.models import EMBEDDING
from dumont_gpu.bench.measure.load_contenders import (
    OURS,
    Arrays,
    Contender,
    Model,
    our_rows,
    our_tensor,
    safetensors_for,
    touched,
)
from dumont_gpu.bench.measure.load_turns import LoadFigures, Task, in_turn
from dumont_gpu.bench.measure.originals import HEADER_SIZE, Bytes, Original, read_header
from dumont_gpu.bench.measure.paced_server import PacedServer
from dumont_gpu.storage import open_source

QUARTER: Final = 4  # of the embedding's rows are loaded alone: the first ones
_ENOUGH: Final = 30.0  # seconds of all runs, after which no new turn begins


def measure_link(
    model: Model, original: Original, part: str, rows: slice, framework: str, scratch: Path, turns: int, rate: float
) -> Iterator[LoadFigures]:
    """Yields figures of a bf16 model over a link.

    Args:
        model: its snapshot is a path.
        original: its tensors.
        part: the tensor that is loaded alone.
        rows: the first quarter of the embedding's.
        framework: "pt" or "np".
        scratch: for a file that is fetched before it is loaded.
        turns: runs of each, at most.
        rate: of the link, bits per second.
    """
    place = f"http, {rate / 1e6:,.0f} Mbit/s"
    some = {EMBEDDING: original[EMBEDDING][: original[EMBEDDING].nbytes // QUARTER]}
    with PacedServer([Path(model.snapshot), model.file], rate) as server:
        snapshot, raw = server.urls
        far = Model(model.file, snapshot)
        for task in (
            Task(place, "bf16, all tensors", original, tuple(_whole(far, raw, framework, scratch))),
            Task(place, "bf16, one tensor", {part: original[part]}, tuple(_part(far, raw, part, framework))),
            Task(place, "bf16, a quarter of the embedding", some, tuple(_rows(far, raw, rows, framework))),
        ):
            yield from in_turn(task, turns, enough=_ENOUGH, warm=False, sent=server.sent)


def _whole(model: Model, raw: str, framework: str, scratch: Path) -> Iterator[Contender]:
    fetched = scratch / "fetched.safetensors"
    library = safetensors_for

    def into_memory() -> Arrays:
        tensors: Arrays = library(framework).load(_read(raw).tobytes())
        return tensors

    def by_curl() -> Arrays:
        subprocess.run(["curl", "-sSf", raw, "-o", str(fetched)], check=True)
        return touched(library(framework).load_file(str(fetched)))

    yield Contender(f"{OURS}, load", lambda: dumont_gpu.load(model.snapshot, model.name, framework=framework))
    yield Contender("raw file into memory, safetensors load", into_memory, ("safetensors",))
    yield Contender("curl, then safetensors load_file", by_curl, ("curl", "safetensors"))


def _part(model: Model, raw: str, name: str, framework: str) -> Iterator[Contender]:
    yield our_tensor(model, name, framework)
    yield Contender("raw file, by ranges", lambda: {name: _ranges(raw, name, 1)})


def _rows(model: Model, raw: str, rows: slice, framework: str) -> Iterator[Contender]:
    yield our_rows(model, rows, framework)
    yield Contender("raw file, by ranges", lambda: {EMBEDDING: _ranges(raw, EMBEDDING, QUARTER)})


def _ranges(raw: str, name: str, share: int) -> Bytes:
    """Returns a tensor's bytes, or the first part of them, from a raw file: its header is read for that."""
    head = _read(raw, 0, HEADER_SIZE)
    header = _read(raw, HEADER_SIZE, int.from_bytes(head.tobytes(), "little"))
    tensor = read_header(head.tobytes(), header.tobytes())[name]
    return _read(raw, tensor.start, (tensor.end - tensor.start) // share)


def _read(location: str, start: int = 0, size: int | None = None) -> Bytes:
    """Returns bytes of a file at an address, by the package's own client. Raises DumontError."""
    source = open_source(location)
    try:
        content = np.empty(source.size if size is None else size, np.uint8)
        source.read_into(start, content.data)
        return content
    finally:
        source.close()
