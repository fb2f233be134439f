"""The ways to load tensors that are compared: ours, and those of safetensors, PyTorch and NumPy.

A contender returns the tensors by name. Where a file is only mapped, a byte of each page is touched, so that everyone's
bytes are in memory at the end.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import dumont_gpu
from dumont_gpu.bench.corpora.models import EMBEDDING
from dumont_gpu.bench.measure.places import Places
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.restore import restore
from dumont_gpu.storage import open_source

OURS: Final = "dumont-gpu"
RESTORE: Final = f"{OURS}, restore of the file"
_PAGE: Final = 4096
Arrays = Mapping[str, Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to load; `run` is timed, `prepare` is not.

    Args:
        who: its name; ours begin with OURS.
        run: returns the tensors by name; None if there is nothing to compare.
        needs: modules and commands; "safetensors:prefetch" stands for a method of its `safe_open`.
        prepare: before each run.
    """

    who: str
    run: Callable[[], Arrays | None]
    needs: tuple[str, ...] = ()
    prepare: Callable[[], None] = lambda: None

    def missing(self) -> list[str]:
        """Returns what it needs and this machine lacks."""
        return [need for need in self.needs if not is_installed(need)]


@dataclass(frozen=True, slots=True)
class Model:
    """A file of tensors, and a snapshot that holds it alone."""

    file: Path
    snapshot: str  # a path or an address

    @property
    def name(self) -> str:
        return self.file.name


def bf16_to_numpy(model: Model, found: Places) -> Iterator[Contender]:
    file = str(model.file)
    yield Contender(f"{OURS}, load", lambda: dumont_gpu.load(model.snapshot, model.name))
    yield Contender("safetensors, load_file", lambda: safetensors_for("np").load_file(file), ("safetensors",))
    yield Contender("safetensors, safe_open", lambda: _each(file, "np"), ("safetensors",))
    yield _restore_of(model, found)
    yield Contender("numpy, fromfile: the bytes alone", lambda: _untold(np.fromfile(model.file, np.uint8)))


def bf16_to_torch(model: Model) -> Iterator[Contender]:
    file, needs = str(model.file), ("torch", "safetensors")
    yield Contender(f"{OURS}, load", lambda: dumont_gpu.load(model.snapshot, model.name, framework="pt"), ("torch",))
    yield Contender(f"{OURS}, prefetch", lambda: _prefetched(model), ("torch",))
    yield Contender("safetensors, load_file", lambda: touched(safetensors_for("pt").load_file(file)), needs)
    yield Contender("safetensors, safe_open", lambda: touched(_each(file, "pt")), needs)
    yield Contender("safetensors, safe_open, copied", lambda: _copied(_each(file, "pt")), needs)
    prefetch = ("torch", "safetensors:prefetch")
    yield Contender("safetensors, prefetch", lambda: touched(_prefetched_by_safetensors(file)), prefetch)


def bf16_into(model: Model, targets: dict[str, Any]) -> Iterator[Contender]:
    """The tensors of a caller are filled.

    Args:
        targets: name -> a tensor of PyTorch or an array of NumPy.
    """
    needs = ("torch", "safetensors")

    def clear() -> None:
        for target in targets.values():
            as_bytes(target)[:] = 0

    def ours() -> Arrays:
        dumont_gpu.load_into(targets, model.snapshot, model.name)
        return targets

    def theirs() -> Arrays:
        with _safe_open(str(model.file), "pt") as tensors:
            for name, target in targets.items():
                target.copy_(tensors.get_tensor(name))
        return targets

    yield Contender(f"{OURS}, load_into", ours, prepare=clear)
    yield Contender("safetensors, safe_open and copy_", theirs, needs, clear)


def one_tensor(model: Model, name: str, framework: str) -> Iterator[Contender]:
    """The file is opened for it."""

    def theirs() -> Arrays:
        with _safe_open(str(model.file), framework) as tensors:
            return touched({name: tensors.get_tensor(name)})

    yield our_tensor(model, name, framework)
    yield Contender("safetensors, safe_open", theirs, ("safetensors",))


def some_rows(model: Model, rows: slice, framework: str) -> Iterator[Contender]:
    """Rows of the embedding; the file is opened for them."""

    def theirs() -> Arrays:
        with _safe_open(str(model.file), framework) as tensors:
            return touched({EMBEDDING: tensors.get_slice(EMBEDDING)[rows]})

    yield our_rows(model, rows, framework)
    yield Contender("safetensors, get_slice", theirs, ("safetensors",))


def our_tensor(model: Model, name: str, framework: str) -> Contender:
    def run() -> Arrays:
        with dumont_gpu.open(model.snapshot, model.name, framework=framework) as tensors:
            return {name: tensors.get_tensor(name)}

    return Contender(f"{OURS}, get_tensor", run)


def our_rows(model: Model, rows: slice, framework: str) -> Contender:
    def run() -> Arrays:
        with dumont_gpu.open(model.snapshot, model.name, framework=framework) as tensors:
            return {EMBEDDING: tensors.get_slice(EMBEDDING)[rows]}

    return Contender(f"{OURS}, get_slice", run)


def fp32_checkpoint(model: Model) -> Iterator[Contender]:
    def by_torch(*, mapped: bool) -> Callable[[], Arrays]:
        def load() -> Arrays:
            tensors = module("torch").load(model.file, mmap=mapped, weights_only=True)
            return touched(tensors) if mapped else tensors

        return load

    yield Contender(
        f"{OURS}, load_checkpoint",
        lambda: dumont_gpu.load_checkpoint(model.snapshot, model.name, framework="pt"),
        ("torch",),
    )
    yield Contender("torch.load, mmap=True", by_torch(mapped=True), ("torch",))
    yield Contender("torch.load", by_torch(mapped=False), ("torch",))


def fp32_npz(model: Model) -> Iterator[Contender]:
    def by_numpy() -> Arrays:
        with np.load(model.file) as arrays:
            return dict(arrays)

    yield Contender(f"{OURS}, load", lambda: dumont_gpu.load(model.snapshot, model.name))
    yield Contender("numpy.load", by_numpy)


def touched(arrays: Arrays) -> Arrays:
    """Returns the arrays once a byte of each of their pages has been read."""
    for array in arrays.values():
        as_bytes(array)[::_PAGE].max(initial=0)
    return arrays


def as_bytes(array: Any) -> Bytes:
    """Returns the bytes of an array in the memory of the host, without a copy where they lie in a row."""
    if type(array).__module__ == "torch":
        torch = module("torch")
        flat: Bytes = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return flat
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _each(file: str, framework: str) -> Arrays:
    with _safe_open(file, framework) as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118, it is no dict


def _copied(arrays: Arrays) -> Arrays:
    return {name: array.clone() for name, array in arrays.items()}


def _prefetched(model: Model) -> Arrays:
    with (
        dumont_gpu.open(model.snapshot, model.name, framework="pt") as tensors,
        tensors.prefetch() as ready,
    ):
        return {name: ready.take(name) for name in ready.names()}


def _prefetched_by_safetensors(file: str) -> Arrays:
    """As its version 0.9 is announced; never run, for no version that can be installed has it yet."""
    with _safe_open(file, "pt") as tensors, tensors.prefetch(dict.fromkeys(tensors.keys())) as ready:
        return {name: ready.take(name) for name in ready.names()}


def _restore_of(model: Model, found: Places) -> Contender:
    """Restores the snapshot, which holds the file alone, to where the benchmark writes: what a load is measured by."""
    room: list[Path] = []

    def prepare() -> None:
        if room:
            found.give_back(room.pop())
        room.append(found.new())

    def run() -> None:
        source = open_source(model.snapshot)
        try:
            restore(source, str(room[0] / "target"), RestoreOptions(sync=False, device="cpu"))
        finally:
            source.close()

    return Contender(RESTORE, run, prepare=prepare)


def _untold(content: Bytes) -> None:
    """Drops bytes of a contender that makes no tensors of them."""


def safetensors_for(framework: str) -> Any:
    return module("safetensors.torch" if framework == "pt" else "safetensors.numpy")


def _safe_open(file: str, framework: str) -> Any:
    return module("safetensors").safe_open(file, framework)


def module(name: str) -> Any:
    """Imports a package that need not be installed, and that mypy does not follow."""
    return importlib.import_module(name)


def is_installed(need: str) -> bool:
    """Whether a module, a command, or "safetensors:METHOD" of its `safe_open` is there."""
    name, _, method = need.partition(":")
    try:
        module = importlib.import_module(name)
    except ImportError:
        return shutil.which(name) is not None
    return not method or hasattr(module.safe_open, method)
