"""Host memory that cannot be pinned, as under WSL2 and in some containers: a job goes on, and says so once."""

from __future__ import annotations

import mmap
import random
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.devices import emulated_device, only_try_devices, prefer_devices, use_for_jobs, wake_at_once
from support.emulated_device import EmulatedDevice
from support.snapshots import assert_same_tree, pack_tree, restore_tree

from dumont_gpu import native
from dumont_gpu.backends import AutoBackend
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.backends.cupy_device import CupyDevice
from dumont_gpu.backends.device import DeviceMemoryError
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.buffers import BufferPool
from dumont_gpu.cli import examination
from dumont_gpu.codecs import ZipNN
from dumont_gpu.errors import DeviceError
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB

REMARK = ", without pinned host memory (no more host memory can be pinned)"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[EmulatedDevice], None]:
    """Makes jobs find this device, and send chunks of every size to it."""
    prefer_devices(monkeypatch)
    return lambda device: use_for_jobs(device, monkeypatch)


def weights(count: int) -> bytes:
    draw = random.Random(3)
    floats = struct.pack(f"<{count}f", *(draw.gauss(0, 0.02) for _ in range(count)))
    return b"".join(floats[at + 2 : at + 4] for at in range(0, len(floats), 4))


def fill(source: Path) -> None:
    (source / "model.bin").write_bytes(weights(100_000) * 4)
    (source / "log").write_bytes(b"".join(b"epoch %d\n" % number for number in range(60_000)))


@pytest.mark.parametrize("pins", [0, 1])
@pytest.mark.parametrize("option", ["0", "auto"])
def test_job_goes_on_unpinned_and_its_result_says_so(
    option: str, pins: int, source: Path, snapshot: Path, target: Path, use: Callable[[EmulatedDevice], None]
) -> None:
    fill(source)
    use(device := emulated_device(pins=pins))
    packed = pack_tree(source, snapshot, chunk_size=256 * KiB, method="hybrid_v2", device=option, jobs=1)
    assert packed.device.startswith("cuda:0")
    assert packed.device.endswith(REMARK)
    assert "zipnn_write" in device.launches
    assert device.closed
    use(device := emulated_device(pins=pins))
    restored = restore_tree(snapshot, target, device=option, jobs=1)
    assert restored.device.endswith(REMARK)
    assert "zipnn_decode" in device.launches
    assert device.closed
    assert_same_tree(source, target)


def test_every_slot_is_there_without_pinned_memory() -> None:
    counts = []
    for pins in (None, 0):
        device = emulated_device(pins=pins)
        backend = CudaBackend(device, minimum=0)
        backend.prepare(1 * MiB, decode=True, encode=True)
        counts.append(len(device._blocks))
        backend.close()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("option", ["0", "auto"])
def test_memory_that_stays_pinned_ends_no_job(
    option: str, source: Path, snapshot: Path, target: Path, use: Callable[[EmulatedDevice], None]
) -> None:
    fill(source)
    use(device := emulated_device(unpins=False))
    packed = pack_tree(source, snapshot, chunk_size=256 * KiB, method="hybrid_v2", device=option, jobs=1)
    assert packed.device.startswith("cuda:0")
    assert device.closed
    use(device := emulated_device(unpins=False, short_at=frozenset({1})))  # the pool gives up a slot in between
    assert restore_tree(snapshot, target, device=option, jobs=1).device.startswith("cuda:0")
    assert device.closed
    assert_same_tree(source, target)


def buffers(count: int) -> list[memoryview]:
    return [memoryview(mmap.mmap(-1, 4096)) for _ in range(count)]


class SlowToPin(EmulatedDevice):
    """Pins when the test says so."""

    def pin(self, memory: memoryview) -> None:
        assert self.may_pin.acquire(timeout=60)
        super().pin(memory)


def slow_to_pin() -> SlowToPin:
    device = SlowToPin()
    device.may_pin = threading.Semaphore(0)
    return device


def test_nobody_waits_for_pinning() -> None:
    """A pool calls `pin` while it holds the lock of a stage's items."""
    device = slow_to_pin()
    backend, memory = CudaBackend(device), buffers(3)
    pool = BufferPool(3, 4096, backend.pin)
    held = [pool.acquire() for _ in memory]
    assert not device.pinned
    device.may_pin.release(3)
    backend.pinning.wait()
    assert sorted(device.pinned) == sorted(native.address_of(buffer.view) for buffer in held)
    backend.close()


def test_memory_is_not_pinned_while_the_device_uses_it() -> None:
    device = slow_to_pin()
    pinning, (first, second) = Pinning(device), buffers(2)
    with pinning.in_use(first[100:200]):
        pinning.pin_later(first)
        pinning.pin_later(second)
        device.may_pin.release()
        while native.address_of(second) not in device.pinned:
            time.sleep(0.001)
        assert native.address_of(first) not in device.pinned
    device.may_pin.release()
    pinning.wait()
    assert native.address_of(first) in device.pinned
    pinning.close()
    device.close()


def test_the_device_waits_for_memory_that_is_being_pinned() -> None:
    device = slow_to_pin()
    pinning, (memory, other) = Pinning(device), buffers(2)
    pinning.pin_later(memory)
    order: list[str] = []

    def use_it() -> None:
        with pinning.in_use(memory):
            order.append("used, pinned" if device.pinned else "used")

    user = threading.Thread(target=use_it)
    user.start()
    with pinning.in_use(other):  # nobody waits for other memory
        order.append("other")
    device.may_pin.release()
    user.join()
    pinning.close()
    assert order in (["other", "used, pinned"], ["used", "other"])  # "used" came before pinning began
    device.close()


def test_auto_pins_nothing_for_a_device_that_gets_no_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    wake_at_once(monkeypatch)
    only_try_devices(monkeypatch)
    device = emulated_device()
    backend = AutoBackend(lambda go_on: CudaBackend(device, minimum=0), cores=1)
    content = memoryview(bytearray(weights(200_000)))
    backend.prepare(len(content), encode=True)
    for memory in buffers(3):
        backend.pin(memory)
    backend.expect(1 << 40)
    own = device.pin_attempts  # of the slots
    backend.encode(ZipNN(Dtype.BF16), content, memoryview(bytearray(2 * len(content))))
    assert "zipnn_write" in device.launches
    assert device.pin_attempts == own
    assert "pinned" not in backend.name
    backend.close()


def test_without_a_thread_memory_is_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    device = emulated_device()
    pinning = Pinning(device)
    pinning.pin_later(buffers(1)[0])
    pinning.wait()
    assert pinning.refusal == "there is no thread for it"
    pinning.close()
    device.close()


def test_doctor_says_that_memory_cannot_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "missing_for_cuda", lambda number: "")
    monkeypatch.setattr(examination, "open_device", lambda number: emulated_device(pins=0))
    finding = examination._kernels()
    assert finding.found
    assert "without pinned host memory (no more host memory can be pinned)" in finding.detail
    monkeypatch.setattr(examination, "open_device", lambda number: emulated_device())
    assert "pinned" not in examination._kernels().detail


def test_one_refusal_is_enough() -> None:
    device = emulated_device(pins=2)
    pinning, memory = Pinning(device), [memoryview(mmap.mmap(-1, 4096)) for _ in range(6)]
    for each in memory:
        pinning.pin(each)
    assert device.pin_attempts == 3
    for each in memory:
        pinning.unpin(each)
    assert device.pinned == {}
    device.close()


def test_one_refusal_is_enough_in_the_background() -> None:
    device = emulated_device(pins=2)
    pinning, memory = Pinning(device), buffers(6)
    for each in memory:
        pinning.pin_later(each)
    pinning.wait()
    assert device.pin_attempts == 3
    assert pinning.refusal == "no more host memory can be pinned"
    pinning.close()
    assert device.pinned == {}
    device.close()


def test_memory_is_unpinned_once() -> None:
    device = emulated_device()
    pinning, memory = Pinning(device), [memoryview(mmap.mmap(-1, 4096)) for _ in range(3)]
    for each in memory:
        pinning.pin(each)
    pinning.unpin(memory[1])
    pinning.unpin(memory[1])
    assert set(device.pinned) == {native.address_of(memory[0]), native.address_of(memory[2])}
    pinning.close()
    pinning.close()
    assert device.pinned == {}
    device.close()


def test_refused_pin_is_not_taken_for_a_full_device() -> None:
    """CUDA says "out of memory" for both; the latter would cost slots."""

    class OutOfMemoryError(RuntimeError):
        status = 2

    def refuse(address: int, size: int, flags: int) -> None:
        raise OutOfMemoryError("cudaErrorMemoryAllocation: out of memory")

    device = CupyDevice.__new__(CupyDevice)
    runtime = SimpleNamespace(hostRegister=refuse, getDevice=lambda: 0, setDevice=lambda number: None)
    compiler = SimpleNamespace(CompileException=type("CompileException", (Exception,), {}))
    device._cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, compiler=compiler))
    device._number, device._bound = 0, SimpleNamespace()
    with pytest.raises(DeviceError, match="no more host memory can be pinned") as caught:
        device.pin(memoryview(bytearray(16)))
    assert not isinstance(caught.value, DeviceMemoryError)
