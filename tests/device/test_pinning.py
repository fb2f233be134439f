"""Host memory that cannot be pinned, as under WSL2 and in some containers: a job goes on, and says so once."""

from __future__ import annotations

import mmap
import random
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.devices import emulated_device
from support.emulated_device import EmulatedDevice
from support.snapshots import assert_same_tree, pack_tree, restore_tree

import dumont_gpu.backends as backends
from dumont_gpu import native
from dumont_gpu.backends import AutoBackend, CudaBackend, auto
from dumont_gpu.backends.cupy_device import CupyDevice
from dumont_gpu.backends.device import DeviceMemoryError
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.cli import examination
from dumont_gpu.codecs import ZipNN
from dumont_gpu.errors import DeviceError
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB

REMARK = ", without pinned host memory (no more host memory can be pinned)"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[EmulatedDevice], None]:
    """Makes jobs find this device, and send chunks of every size to it."""

    def use(device: EmulatedDevice) -> None:
        monkeypatch.setattr(backends, "open_device", lambda number, **needs: device)
        monkeypatch.setattr(CudaBackend.__init__, "__defaults__", (None, 0))
        monkeypatch.setattr(auto._Trial, "favours_device", lambda trial, threads: True)

    return use


def weights(count: int) -> bytes:
    draw = random.Random(3)
    floats = struct.pack(f"<{count}f", *(draw.gauss(0, 0.02) for _ in range(count)))
    return b"".join(floats[at + 2 : at + 4] for at in range(0, len(floats), 4))


def fill(source: Path) -> None:
    (source / "model.bin").write_bytes(weights(100_000) * 4)
    (source / "log").write_bytes(b"".join(b"epoch %d\n" % number for number in range(60_000)))


@pytest.mark.parametrize("pins", [0, 1, 9])
@pytest.mark.parametrize("option", ["0", "auto"])
def test_job_goes_on_unpinned_and_its_result_says_so(
    option: str, pins: int, source: Path, snapshot: Path, target: Path, use: Callable[[EmulatedDevice], None]
) -> None:
    fill(source)
    use(device := emulated_device(pins=pins))
    packed = pack_tree(source, snapshot, chunk_size=256 * KiB, method="hybrid_v2", device=option)
    assert packed.device == "cuda:0" + REMARK
    assert {"zipnn_write", "lz4 encode"} <= set(device.launches)
    assert device.closed
    use(device := emulated_device(pins=pins))
    restored = restore_tree(snapshot, target, device=option)
    assert restored.device == "cuda:0" + REMARK
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
    assert pack_tree(source, snapshot, chunk_size=256 * KiB, method="hybrid_v2", device=option).device == "cuda:0"
    assert device.closed
    use(device := emulated_device(unpins=False, short_at=frozenset({1})))  # the pool gives up a slot in between
    assert restore_tree(snapshot, target, device=option, jobs=1).device == "cuda:0"
    assert device.closed
    assert_same_tree(source, target)


def test_auto_says_it_where_only_some_codecs_are_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = AutoBackend(CudaBackend(emulated_device(pins=0), minimum=0), threads=1)
    backend.prepare(1 * MiB, encode=True, decode=True)
    content = memoryview(bytearray(weights(100_000)))
    stored, out = memoryview(bytearray(2 * len(content))), memoryview(bytearray(len(content)))
    monkeypatch.setattr(auto._Trial, "favours_device", lambda trial, threads: trial is not None)
    size = backend.encode(ZipNN(Dtype.BF16), content, stored)
    backend.decode(ZipNN().id, stored[:size], out)
    first = next(iter(backend._trials.values()))
    monkeypatch.setattr(auto._Trial, "favours_device", lambda trial, threads: trial is first)
    assert backend.name == f"cuda:0{REMARK} (zipnn decoding on cpu, zipnn encoding on cuda:0)"
    monkeypatch.setattr(auto._Trial, "favours_device", lambda trial, threads: False)
    assert "pinned" not in backend.name
    backend.close()


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
    runtime = SimpleNamespace(hostRegister=refuse, setDevice=lambda number: None)
    compiler = SimpleNamespace(CompileException=type("CompileException", (Exception,), {}))
    device._cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, compiler=compiler))
    device._number, device._current = 0, SimpleNamespace()
    with pytest.raises(DeviceError, match="no more host memory can be pinned") as caught:
        device.pin(memoryview(bytearray(16)))
    assert not isinstance(caught.value, DeviceMemoryError)
