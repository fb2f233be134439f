"""Loads into the memory of a CUDA device, against a plain pinned copy of the same tensors. Not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np

import dumont_gpu
from dumont_gpu.bench.measure.load_contenders import (
    OURS,
    Arrays,
    Contender,
    Model,
    is_installed,
    module,
    safetensors_for,
)
from dumont_gpu.bench.measure.load_turns import LoadFigures, Task, in_turn
from dumont_gpu.bench.measure.originals import Original, written_in

_ENOUGH: Final = 30.0  # seconds of all runs, after which no new turn begins


class _Copier(Protocol):
    """A framework as this benchmark uses it."""

    framework: str  # as `dumont_gpu.load` names it

    def to_device(self, content: np.ndarray[Any, Any]) -> Any:
        """Begins to copy pinned bytes to the device."""

    def pinned(self, size: int) -> np.ndarray[Any, Any]:
        """Returns pinned memory of the host."""

    def wait(self) -> None:
        """Returns once the device has done all that it was told."""


class _Torch:
    framework = "pt"

    def __init__(self, device: str) -> None:
        self._torch, self._device = module("torch"), device

    def to_device(self, content: np.ndarray[Any, Any]) -> Any:
        return self._torch.from_numpy(content).to(self._device, non_blocking=True)

    def pinned(self, size: int) -> np.ndarray[Any, Any]:
        memory: np.ndarray[Any, Any] = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True).numpy()
        return memory

    def wait(self) -> None:
        self._torch.cuda.synchronize(self._device)


class _CuPy:
    framework = "cupy"

    def __init__(self, device: str) -> None:
        self._cupy = module("cupy")
        self._cupy.cuda.Device(int(device.removeprefix("cuda:"))).use()

    def to_device(self, content: np.ndarray[Any, Any]) -> Any:
        target = self._cupy.empty(content.size, np.uint8)
        target.set(content, stream=self._cupy.cuda.get_current_stream())
        return target

    def pinned(self, size: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(self._cupy.cuda.alloc_pinned_memory(size), np.uint8, size)

    def wait(self) -> None:
        self._cupy.cuda.get_current_stream().synchronize()


def measure_device(model: Model, original: Original, device: str, turns: int) -> Iterator[LoadFigures]:
    """Yields figures of a bf16 model.

    Args:
        model: a file and its snapshot, both in the page cache.
        original: its tensors.
        device: "cuda:0".
        turns: runs of each, at most.
    """
    by_torch = is_installed("torch") and module("torch").cuda.is_available()
    copier: _Copier = _Torch(device) if by_torch else _CuPy(device)
    task = Task(device, "bf16, all tensors", original, tuple(_contenders(model, device, copier)))
    for figure in in_turn(task, turns, enough=_ENOUGH, warm=True):
        figure.intact = None  # `as_bytes` knows memory of the host; a digest on the device is the tests' business
        yield figure


def _contenders(model: Model, device: str, copier: _Copier) -> Iterator[Contender]:
    tensors = written_in(model.file)
    memory = copier.pinned(model.file.stat().st_size)

    def ours() -> None:
        arrays = dumont_gpu.load(model.snapshot, model.name, framework=copier.framework, device=device)
        copier.wait()
        del arrays

    def plain() -> None:
        with model.file.open("rb", buffering=0) as file:
            file.readinto(memory.data)
        arrays = [copier.to_device(memory[tensor.start : tensor.end]) for tensor in tensors.values()]
        copier.wait()
        del arrays

    def copies_alone() -> None:
        arrays = [copier.to_device(memory[tensor.start : tensor.end]) for tensor in tensors.values()]
        copier.wait()
        del arrays

    def theirs() -> Arrays | None:
        arrays = safetensors_for("pt").load_file(str(model.file), device=device)
        copier.wait()
        del arrays
        return None

    yield Contender(f"{OURS}, load to the device", lambda: ours())
    yield Contender("file into pinned memory, copied", lambda: plain())
    yield Contender("pinned copies alone", lambda: copies_alone())
    if copier.framework == "pt":
        yield Contender("safetensors, load_file to the device", theirs, ("safetensors",))
