"""Device or processor, whichever was measured to be faster for a codec; the processor if the device fails."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.codecs import Codec, codec_by_id
from dumont_gpu.digests import digest_function
from dumont_gpu.errors import DeviceError


class _Place(enum.Enum):
    CPU = enum.auto()
    DEVICE = enum.auto()
    BOTH = enum.auto()


@dataclass(frozen=True, slots=True)
class _Trial:
    """One chunk of a codec, decoded in both places."""

    size: int
    cpu_seconds: float  # on one core
    device_seconds: float

    def favours_device(self, jobs: int) -> bool:
        """Whether a chunk's time on the device, where others overlap with it, beats that of all cores together."""
        return self.device_seconds < self.cpu_seconds / jobs


class AutoBackend:
    """Decodes the first chunk of each codec in both places, checks that they agree, and goes on where it was faster.

    Args:
        device: what may be used; owned from now on.
        jobs: threads that decode on the CPU side by side.
    """

    def __init__(self, device: CudaBackend, jobs: int) -> None:
        self._device, self._jobs = device, jobs
        self._cpu = CpuBackend()
        self._lock = threading.Lock()
        self._trials: dict[int, _Trial | None] = {}  # compressor id -> its trial; None while it runs
        self._failure = ""  # why the device is no longer used
        self._digest = digest_function("blake3")

    @property
    def name(self) -> str:
        """What ran where: "cuda:0", or "cpu (cuda:0: why not)", or both."""
        device = self._device.name
        if self._failure:
            return f"cpu ({self._failure})"
        chosen = {codec_by_id(number).name: trial.favours_device(self._jobs)
                  for number, trial in self._trials.items() if trial is not None}  # fmt: skip
        if not chosen:
            return "cpu"
        if all(chosen.values()):
            return device
        places = ", ".join(f"{codec} on {device if there else 'cpu'}" for codec, there in sorted(chosen.items()))
        return f"{device if any(chosen.values()) else 'cpu'} ({places})"

    @property
    def extra_jobs(self) -> int:
        return self._device.extra_jobs

    def prepare(self, chunk_size: int) -> None:
        self._guarded(lambda: self._device.prepare(chunk_size))

    def pin(self, memory: memoryview) -> None:
        self._guarded(lambda: self._device.pin(memory))

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview) -> int:
        return self._cpu.encode(codec, chunk, out)

    def decode(self, compressor_id: int, stored: memoryview, out: memoryview) -> None:
        place = self._place(compressor_id, len(out))
        if place is _Place.BOTH:
            self._try(compressor_id, stored, out)
        elif place is _Place.CPU or not self._decode_on_device(compressor_id, stored, out):
            self._cpu.decode(compressor_id, stored, out)

    def close(self) -> None:
        self._device.close()

    def _place(self, compressor_id: int, size: int) -> _Place:
        """Where the next chunk goes; BOTH once for each codec, and the CPU while that runs."""
        if self._failure or not self._device.takes(compressor_id, size):
            return _Place.CPU
        with self._lock:
            if compressor_id not in self._trials:
                self._trials[compressor_id] = None
                return _Place.BOTH
            trial = self._trials[compressor_id]
        return _Place.DEVICE if trial is not None and trial.favours_device(self._jobs) else _Place.CPU

    def _decode_on_device(self, compressor_id: int, stored: memoryview, out: memoryview) -> bool:
        return self._guarded(lambda: self._device.decode(compressor_id, stored, out))

    def _try(self, compressor_id: int, stored: memoryview, out: memoryview) -> None:
        started = time.perf_counter()
        self._cpu.decode(compressor_id, stored, out)
        cpu_seconds = time.perf_counter() - started
        expected = self._digest(out)
        device_seconds = 0.0
        for _ in range(2):  # the first time includes what a device does once: loading a kernel
            started = time.perf_counter()
            if not self._decode_on_device(compressor_id, stored, out):
                self._cpu.decode(compressor_id, stored, out)
                return
            device_seconds = time.perf_counter() - started
        if self._digest(out) != expected:
            self._fail(f"{self._device.name} decoded a chunk to other bytes than the CPU")
            self._cpu.decode(compressor_id, stored, out)
            return
        with self._lock:
            self._trials[compressor_id] = _Trial(len(out), cpu_seconds, device_seconds)

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Runs `work` on the device; returns False if it failed, now or before."""
        if self._failure:
            return False
        try:
            work()
        except DeviceError as error:
            self._fail(str(error))
            return False
        return True

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._failure = self._failure or reason
