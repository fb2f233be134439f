"""Device or processor, whichever was measured to be faster for a codec; the processor if the device fails."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from dumont_gpu import native
from dumont_gpu.backends.base import Backend, DigestCheck
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.codecs import Codec, codec_by_id
from dumont_gpu.errors import DamagedError, DeviceError, DumontError
from dumont_gpu.format.digests import digest_function

T = TypeVar("T")


class _Choice(enum.Enum):
    CPU = enum.auto()
    DEVICE = enum.auto()
    BOTH = enum.auto()


@dataclass(frozen=True, slots=True)
class _Trial:
    """The times of one chunk of a codec on the CPU and on the device."""

    cpu_seconds: float  # on one core
    device_seconds: float

    def favours_device(self, threads: int) -> bool:
        """Whether a chunk's time on the device, where chunks overlap, beats that of all cores together."""
        return self.device_seconds < self.cpu_seconds / threads


class _Task(NamedTuple):
    """Encoding or decoding one chunk, on any backend."""

    name: str  # codec and direction: tasks of one name share a trial
    run: Callable[[Backend], int]  # returns the result of the backend's method
    content: Callable[[int], bytes]  # result of `run` -> digest of the raw bytes that the chunk now has
    out: memoryview


class AutoBackend:
    """Works on the first chunk of each codec twice, on CPU and device; compares the results; goes on with the faster.

    Args:
        device: owned by the backend from now on.
        threads: how many threads work on the CPU side by side.
    """

    def __init__(self, device: CudaBackend, threads: int) -> None:
        self._device, self._threads = device, threads
        self._cpu = CpuBackend()
        self._lock = threading.Lock()
        self._trials: dict[str, _Trial | None] = {}  # by the name of the task; None while the trial runs
        self._failure = ""  # why the device is no longer used
        self._digest = digest_function("blake3")

    @property
    def name(self) -> str:
        """Where chunks were worked on: "cuda:0", or "cpu (cuda:0: why not)", or both."""
        device, remark = self._device.device_name, self._device.remark
        if self._failure:
            return f"cpu ({self._failure})"
        trials = {name: trial for name, trial in self._trials.items() if trial is not None}
        chosen = {name: trial.favours_device(self._threads) for name, trial in trials.items()}
        if not chosen:
            return "cpu"
        if all(chosen.values()):
            return device + remark
        places = ", ".join(f"{name} on {device if there else 'cpu'}" for name, there in sorted(chosen.items()))
        return f"{device + remark if any(chosen.values()) else 'cpu'} ({places})"

    @property
    def extra_threads(self) -> int:
        return self._device.extra_threads

    def prepare(self, chunk_size: int, *, encode: bool = False, decode: bool = False) -> None:
        self._on_device(lambda device: device.prepare(chunk_size, encode=encode, decode=decode))

    def pin(self, memory: memoryview) -> None:
        self._on_device(lambda device: device.pin(memory))

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None) -> int:
        def content(size: int) -> bytes:
            if not size:  # the chunk stays raw
                return self._digest(chunk)
            decoded = memoryview(bytearray(len(chunk)))
            with suppress(DamagedError):
                self._cpu.decode(codec.id, out[:size], decoded)
            return self._digest(decoded)

        task = _Task(f"{codec.name} encoding", lambda backend: backend.encode(codec, chunk, out, digest), content, out)
        return self._run(task, possible=self._device.encodes(codec, len(chunk)))

    def decode(
        self, compressor_id: int, encoded: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> None:
        def run(backend: Backend) -> int:
            backend.decode(compressor_id, encoded, out, check)
            return len(out)

        task = _Task(f"{codec_by_id(compressor_id).name} decoding", run, lambda _: self._digest(out), out)
        self._run(task, possible=self._device.decodes(compressor_id, len(out)))

    def close(self) -> None:
        self._device.close()

    def _run(self, task: _Task, *, possible: bool) -> int:
        """Runs the task where it is faster, on the CPU if the device fails; `possible`: the device can run the task."""
        choice = self._choose(task.name) if possible else _Choice.CPU
        if choice is _Choice.BOTH:
            return self._try_both(task)
        result = self._on_device(task.run) if choice is _Choice.DEVICE else None
        return task.run(self._cpu) if result is None else result

    def _choose(self, name: str) -> _Choice:
        """Returns where the next chunk goes: BOTH once, and the CPU while that trial runs."""
        with self._lock:
            if self._failure:
                return _Choice.CPU
            if name not in self._trials:
                self._trials[name] = None
                return _Choice.BOTH
            trial = self._trials[name]
        return _Choice.DEVICE if trial is not None and trial.favours_device(self._threads) else _Choice.CPU

    def _try_both(self, task: _Task) -> int:
        started = time.perf_counter()
        cpu_result = task.run(self._cpu)
        cpu_seconds = time.perf_counter() - started
        expected = task.content(cpu_result)
        self._time_on_device(task)  # includes the loading of kernels, which happens once
        result, device_seconds = self._time_on_device(task)
        if result is None:
            return task.run(self._cpu)
        if task.content(result) == expected:
            with self._lock:
                self._trials[task.name] = _Trial(cpu_seconds, device_seconds)
            return result
        self._fail(f"{self._device.device_name} is not right: {task.name} gave other bytes")
        return task.run(self._cpu)

    def _time_on_device(self, task: _Task) -> tuple[int | None, float]:
        native.spoil(task.out)  # or a device that writes nothing would seem to agree with the CPU
        started = time.perf_counter()
        result = self._on_device(task.run)
        return result, time.perf_counter() - started

    def _on_device(self, work: Callable[[CudaBackend], T]) -> T | None:
        """Returns the result of `work` on the device; None if the device failed, now or before."""
        if self._failure:
            return None
        try:
            return work(self._device)
        except DeviceError as error:
            self._fail(str(error))
        except (DumontError, MemoryError):
            raise  # the chunk is damaged, or this machine ran short of memory: no fault of the device
        except Exception as error:  # of any type: from the driver, or its libraries
            self._fail(f"{self._device.name}: {type(error).__name__}: {error}")
        return None

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._failure = self._failure or reason
