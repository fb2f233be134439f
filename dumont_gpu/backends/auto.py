"""Device or processor, whichever was measured to be faster for a codec; the processor if the device fails."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dumont_gpu import native
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.codecs import Codec, codec_by_id
from dumont_gpu.errors import DamagedError, DeviceError, DumontError
from dumont_gpu.format.digests import digest_function


class _Place(enum.Enum):
    CPU = enum.auto()
    DEVICE = enum.auto()
    BOTH = enum.auto()


@dataclass(frozen=True, slots=True)
class _Trial:
    """One chunk of a codec, through both places."""

    cpu_seconds: float  # on one core
    device_seconds: float

    def favours_device(self, jobs: int) -> bool:
        """Whether a chunk's time on the device, where others overlap with it, beats that of all cores together."""
        return self.device_seconds < self.cpu_seconds / jobs


class AutoBackend:
    """Takes the first chunk of each codec through both places, checks the device, and goes on where it was faster.

    Args:
        device: what may be used; owned from now on.
        jobs: threads that work on the CPU side by side.
    """

    def __init__(self, device: CudaBackend, jobs: int) -> None:
        self._device, self._jobs = device, jobs
        self._cpu = CpuBackend()
        self._lock = threading.Lock()
        self._trials: dict[str, _Trial | None] = {}  # what was tried -> how it went; None while it runs
        self._failure = ""  # why the device is no longer used
        self._digest = digest_function("blake3")

    @property
    def name(self) -> str:
        """What ran where: "cuda:0", or "cpu (cuda:0: why not)", or both."""
        device, remark = self._device.device_name, self._device.remark
        if self._failure:
            return f"cpu ({self._failure})"
        chosen = {codec: trial.favours_device(self._jobs) for codec, trial in self._trials.items() if trial is not None}
        if not chosen:
            return "cpu"
        if all(chosen.values()):
            return device + remark
        places = ", ".join(f"{codec} on {device if there else 'cpu'}" for codec, there in sorted(chosen.items()))
        return f"{device + remark if any(chosen.values()) else 'cpu'} ({places})"

    @property
    def extra_jobs(self) -> int:
        return self._device.extra_jobs

    def prepare(self, chunk_size: int, *, encode: bool = False, decode: bool = False) -> None:
        self._guarded(lambda: self._device.prepare(chunk_size, encode=encode, decode=decode))

    def pin(self, memory: memoryview) -> None:
        self._guarded(lambda: self._device.pin(memory))

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview) -> int:
        size = 0

        def on_cpu() -> None:
            nonlocal size
            size = self._cpu.encode(codec, chunk, out)

        def on_device() -> None:
            nonlocal size
            size = self._device.encode(codec, chunk, out)

        def content() -> bytes:
            if not size:  # it stays as it is
                return self._digest(chunk)
            decoded = memoryview(bytearray(len(chunk)))
            with suppress(DamagedError):
                self._cpu.decode(codec.id, out[:size], decoded)
            return self._digest(decoded)

        self._run(f"{codec.name} encoding", self._device.encodes(codec, len(chunk)), on_cpu, on_device, content, out)
        return size

    def decode(self, compressor_id: int, stored: memoryview, out: memoryview) -> None:
        def on_cpu() -> None:
            self._cpu.decode(compressor_id, stored, out)

        def on_device() -> None:
            self._device.decode(compressor_id, stored, out)

        def content() -> bytes:
            return self._digest(out)

        name = codec_by_id(compressor_id).name
        self._run(f"{name} decoding", self._device.decodes(compressor_id, len(out)), on_cpu, on_device, content, out)

    def close(self) -> None:
        self._device.close()

    def _run(
        self,
        name: str,
        possible: bool,
        on_cpu: Callable[[], None],
        on_device: Callable[[], None],
        content: Callable[[], bytes],
        out: memoryview,
    ) -> None:
        """Does one of the two; `content` is the digest of the original bytes that what is in `out` stands for."""
        place = self._place(name) if possible else _Place.CPU
        if place is _Place.BOTH:
            self._try(name, on_cpu, on_device, content, out)
        elif place is _Place.CPU or not self._guarded(on_device):
            on_cpu()

    def _place(self, name: str) -> _Place:
        """Where the next chunk goes; BOTH once, and the CPU while that runs."""
        with self._lock:
            if self._failure:
                return _Place.CPU
            if name not in self._trials:
                self._trials[name] = None
                return _Place.BOTH
            trial = self._trials[name]
        return _Place.DEVICE if trial is not None and trial.favours_device(self._jobs) else _Place.CPU

    def _try(
        self,
        name: str,
        on_cpu: Callable[[], None],
        on_device: Callable[[], None],
        content: Callable[[], bytes],
        out: memoryview,
    ) -> None:
        cpu_seconds = _seconds(on_cpu)
        expected = content()
        device_seconds = 0.0
        for _ in range(2):  # the first time includes what a device does once: loading a kernel
            native.spoil(out)  # or a device that writes nothing would seem to agree with the CPU
            started = time.perf_counter()
            if not self._guarded(on_device):
                on_cpu()
                return
            device_seconds = time.perf_counter() - started
        if content() == expected:
            with self._lock:
                self._trials[name] = _Trial(cpu_seconds, device_seconds)
        else:
            self._fail(f"{self._device.device_name} is not right: {name} gave other bytes")
            on_cpu()

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Does `work` on the device; returns False if the device failed, now or before."""
        if self._failure:
            return False
        try:
            work()
        except DeviceError as error:
            self._fail(str(error))
            return False
        except (DumontError, MemoryError):
            raise  # the chunk is damaged, or this machine ran short: no fault of the device
        except Exception as error:  # whatever a driver or its libraries come up with
            self._fail(f"{self._device.name}: {type(error).__name__}: {error}")
            return False
        return True

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._failure = self._failure or reason


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
