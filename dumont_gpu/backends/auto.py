"""Device and processor side by side: the device joins large jobs while they run; the processor goes on if it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from dumont_gpu.backends.base import DigestCheck, nobody_joins
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.backends.device_codecs import fit_for_devices
from dumont_gpu.backends.dispatch import Dispatch, Place, Ticket
from dumont_gpu.backends.tally import Tally
from dumont_gpu.backends.trial import DecodeSample, EncodeSample, Sample
from dumont_gpu.backends.waking import Waking, reason
from dumont_gpu.codecs import Codec, codec_by_id
from dumont_gpu.errors import DamagedError

if TYPE_CHECKING:
    from dumont_gpu.backends.cuda import CudaBackend
    from dumont_gpu.backends.waking import OpenDevice

T = TypeVar("T")
_LARGE: Final = 4  # a chunk is large enough to try a device with if it has this part of the largest chunk's size


@dataclass(frozen=True, slots=True)
class _Task:
    """Encoding or decoding one chunk."""

    kind: str  # codec and direction
    size: int  # raw bytes
    fit: bool  # for devices
    on_cpu: Callable[[], int]  # returns the result of the backend's method
    on_device: Callable[[CudaBackend], tuple[int, bool]]  # returns the result, and whether it is the device's
    possible: Callable[[CudaBackend], bool]  # for this device
    sample: Callable[[int], Sample]  # of the CPU's result


class AutoBackend:
    """Works on the CPU; wakes the device once enough is left to do, and tries it on copies of chunks, in other threads.

    A device that was right gets every chunk that it is expected to finish first (see `Dispatch`).

    Args:
        open_device: as for `Waking`.
        cores: how many threads work on the CPU side by side.
    """

    extra_threads = 0

    def __init__(self, open_device: OpenDevice, cores: int) -> None:
        self._waking = Waking(open_device, self._go_on, self._fail)
        self._cpu = CpuBackend()
        self._dispatch, self._tally = Dispatch(cores), Tally()
        self._changed = threading.Condition()  # holds what is below, and the dispatch
        self._woken = self._joined = self._stopped = False
        self._tried: set[str] = set()  # kinds of chunks
        self._failure = ""  # why the device is no longer used, or not at all
        self._slow: list[str] = []  # kinds of chunks that the CPU is faster with
        self._memory: list[memoryview] = []  # that the device pins when it joins
        self._prepared = 0, False, False  # the arguments of `prepare`
        self._on_join: Callable[[int], None] = nobody_joins

    @property
    def name(self) -> str:
        """Where chunks were worked on: "cuda:0 5.2 GiB, cpu 1.1 GiB", or "cpu (why not on a device)"."""
        device, why = self._waking.device, self._failure
        if not why and self._slow and device is not None:
            why = f"{device.device.name} is slower: {', '.join(self._slow)}"
        why = f" ({why})" if why else ""
        if not self._tally.device or device is None:
            return f"cpu{why}"
        return self._tally.text(device.device.name) + device.remark + why

    def prepare(
        self,
        chunk_size: int,
        *,
        encode: bool = False,
        decode: bool = False,
        on_join: Callable[[int], None] = nobody_joins,
    ) -> None:
        self._prepared, self._on_join = (chunk_size, encode, decode), on_join

    def expect(self, size: int) -> None:
        with self._changed:
            self._dispatch.forecast.expect(size)
        self._wake()

    def pin(self, memory: memoryview) -> None:
        with self._changed:
            if not self._joined:
                self._memory.append(memory)
                return
        if self._waking.device is not None:
            self._waking.device.pin(memory)

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None) -> int:
        return self._run(
            _Task(
                f"{codec.name} encoding",
                len(chunk),
                fit_for_devices(codec.id, len(chunk), encode=True),
                lambda: self._cpu.encode(codec, chunk, out, digest),
                lambda device: device.encode_there(codec, chunk, out, digest),
                lambda device: device.encodes(codec, len(chunk)),
                lambda size: EncodeSample(codec, chunk, len(out), size),
            )
        )

    def decode(
        self, compressor_id: int, encoded: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> None:
        def on_cpu() -> int:
            self._cpu.decode(compressor_id, encoded, out, check)
            return len(out)

        self._run(
            _Task(
                f"{codec_by_id(compressor_id).name} decoding",
                len(out),
                fit_for_devices(compressor_id, len(out)),
                on_cpu,
                lambda device: (len(out), bool(device.decode_there(compressor_id, encoded, out, check))),
                lambda device: device.decodes(compressor_id, len(out)),
                lambda _: DecodeSample(compressor_id, encoded, out, check),
            )
        )

    def close(self) -> None:
        """Waits for the step on the way to the device that is under way; no further step begins."""
        self._stopped = True
        self._waking.close()

    # --- one chunk ----------------------------------------------------------------------------------------------------

    def _run(self, task: _Task) -> int:
        with self._placed(task, fit=task.fit) as ticket:
            if ticket.place is Place.DEVICE:
                done = self._on_device(task.on_device)
                ticket.failed = done is None
            else:
                done = task.on_cpu(), False
        if done is None:
            with self._placed(task, fit=False):
                done = task.on_cpu(), False
        result, on_device = done
        self._tally.add(task.size, device=on_device)
        if ticket.place is Place.CPU:
            self._try_with(task, result)
            self._wake()
        return result

    @contextmanager
    def _placed(self, task: _Task, *, fit: bool) -> Iterator[Ticket]:
        """Waits until the chunk has a place, and gives the place back after the block."""
        with self._changed:
            ticket = self._dispatch.arrive(task.kind, task.size, fit=fit, now=time.monotonic())
            self._changed.wait_for(lambda: self._dispatch.start(ticket, time.monotonic()))
            self._changed.notify_all()  # what one has, others wait for no longer
        try:
            yield ticket
        except BaseException:
            ticket.failed = True
            raise
        finally:
            with self._changed:
                self._dispatch.end(ticket, time.monotonic())
                self._changed.notify_all()

    def _on_device(self, work: Callable[[CudaBackend], T]) -> T | None:
        """Returns the result of `work` on the device; None if the device failed, now or before."""
        device = self._waking.device
        if self._failure or device is None:
            return None
        try:
            return work(device)
        except (DamagedError, MemoryError):
            raise  # the chunk is damaged, or this machine ran short of memory: no fault of the device
        except Exception as error:  # of any type: from the driver, or its libraries
            self._fail(reason(error))
        return None

    def _fail(self, reason: str) -> None:
        with self._changed:
            self._failure = self._failure or reason
            self._dispatch.drop()
            self._changed.notify_all()

    # --- beside the chunks --------------------------------------------------------------------------------------------

    def _go_on(self) -> bool:
        """Whether another step of waking or trying the device is worth it."""
        with self._changed:
            return not self._stopped and not self._failure and self._dispatch.forecast.worth_a_step(time.monotonic())

    def _wake(self) -> None:
        """Begins to open the device if enough is left to do."""
        with self._changed:
            if self._woken or not self._dispatch.forecast.worth_waking(time.monotonic()):
                return
            self._woken = True
        size, encode, decode = self._prepared
        self._waking.wake(lambda device: device.prepare(size, encode=encode, decode=decode))

    def _try_with(self, task: _Task, result: int) -> None:
        """Begins to try the device with a copy of this chunk, if it is the first large one of its kind."""
        with self._changed:
            device = self._waking.device
            if device is None or self._failure or self._waking.is_trying or task.kind in self._tried:
                return
            if _LARGE * task.size < self._prepared[0] or not task.possible(device):
                return
            self._waking.is_trying = True
            self._tried.add(task.kind)
        try:
            self._waking.begin_trial(device, task.kind, task.sample(result), self._judge)
        except (MemoryError, OSError) as error:  # the machine has no room for a copy
            self._fail(reason(error))

    def _judge(self, kind: str, size: int, seconds: float) -> None:
        """Lets the device have chunks of a kind, unless it was too slow."""
        device = self._waking.device
        with self._changed:
            if self._failure:
                return  # it failed with another chunk meanwhile
            if device is None or not self._dispatch.trust(kind, size, seconds):
                self._slow.append(kind)
                return
            if self._joined:
                return
            self._joined = True
            self._dispatch.attach(device.slots)
            self._changed.notify_all()
        for memory in self._memory:
            device.pin(memory)
        self._on_join(device.slots)
