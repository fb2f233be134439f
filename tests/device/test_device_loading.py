"""Tensors into device memory, on a device, emulated or real: the chunks for the device, and those for the CPU."""

from __future__ import annotations

import gc
import json
import random
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.cupy_double import ArrayOnDevice, cupy_on
from support.devices import deferred, emulated_device
from support.emulated_device import EmulatedDevice
from support.snapshots import pack_tree

from dumont_gpu.backends.decode_slot import DecodeSlot
from dumont_gpu.backends.device import DeviceMemoryError, DeviceRegion
from dumont_gpu.codecs import ZipNN
from dumont_gpu.errors import DamagedError, DeviceError, UsageError
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.loading import device_decoder, device_loader, on_device
from dumont_gpu.loading.calls import load
from dumont_gpu.loading.chunk_loader import ChunkLoader
from dumont_gpu.loading.device_loader import DeviceLoader
from dumont_gpu.loading.device_memory import CupyMemory, TorchMemory
from dumont_gpu.loading.frameworks import NumPy
from dumont_gpu.loading.host_memory import check_target
from dumont_gpu.loading.opened import OpenedSnapshot
from dumont_gpu.loading.tensor_files import TensorFiles
from dumont_gpu.loading.tensor_load import TensorLoads
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.tensors.record import TensorRecord

rng = random.Random(19)
FP32 = struct.pack("<300000f", *(rng.gauss(0, 0.02) for _ in range(300_000)))
BF16 = b"".join(FP32[at + 2 : at + 4] for at in range(0, len(FP32), 4))
FP8 = bytes(rng.choices(range(256), weights=[1.05 ** -abs(i - 60) for i in range(256)], k=500_000))
TEXT = b"".join(b"%d," % rng.randrange(1000) for _ in range(100_000))
# In this order in the file: large ones have chunks of their own, small ones share some, odd ones shift what follows.
TENSORS = {
    "bf16": ("BF16", (300, 1000), BF16),
    "fp32": ("F32", (300_000,), FP32),
    "odd": ("U8", (3,), b"odd"),
    "fp8": ("F8_E4M3", (500, 1000), FP8),
    "noise": ("U8", (400_000,), rng.randbytes(400_000)),
    "text": ("U8", (len(TEXT),), TEXT),
    **{f"small.{n}": ("BF16", (n, 37), BF16[n * 1000 : n * 1000 + 74 * n]) for n in range(1, 40)},
    "zeros": ("F32", (100_000,), bytes(400_000)),
    "empty": ("F32", (0, 4), b""),
    "scalar": ("F32", (), FP32[:4]),
}


@dataclass
class ArraysOnDevice:
    """Device memory as NumPy's arrays, which only an emulated device allows.

    Args:
        shift: bytes from an address that is aligned to 256 to the first element of every tensor.
    """

    device: EmulatedDevice
    shift: int = 0
    held: list[int] = field(default_factory=list)

    def allocate(self, size: int, lead: int, *, zeros: bool) -> Any:
        address = self.device.allocate(size + lead + 512)
        self.held.append(address)
        start = address + lead + self.shift - lead % 256 + 256
        memory = _bytes_at(start - lead if start - lead >= address else start, size)
        if zeros:
            memory[:] = 0
        return memory

    def place(self, memory: Any) -> DeviceRegion:
        return DeviceRegion(memory.ctypes.data, memory.size)

    def lead(self, memory: Any, size: int) -> bytes:
        return bytes(memory[:size])

    def take(self, memory: Any, start: int) -> Any:
        return memory[start:]

    def given(self, content: bytes) -> Any:
        memory = self.allocate(len(content), 0, zeros=False)
        memory[:] = bytearray(content)
        return memory

    def of_target(self, target: Any, record: TensorRecord) -> Any:
        check_target(record, target.shape, record.dtype)
        return target.reshape(-1).view(np.uint8)

    def free(self) -> None:
        for address in self.held:
            self.device.free(address)


def _bytes_at(address: int, size: int) -> Any:
    import ctypes

    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)) if size else np.empty(0, np.uint8)


@pytest.fixture(params=["at once", "deferred"])
def device(request: pytest.FixtureRequest) -> Iterator[EmulatedDevice]:
    with deferred() if request.param == "deferred" else nullcontext():
        yield emulated_device()


def write_tensors(path: Path) -> None:
    header, at = {}, 0
    for name, (dtype, shape, content) in TENSORS.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(content for _, _, content in TENSORS.values()))


@pytest.fixture(params=["hybrid_v3", "hybrid_v2", "lz4", "none"])
def packed(request: pytest.FixtureRequest, source: Path, snapshot: Path) -> Path:
    write_tensors(source / "model.safetensors")
    pack_tree(source, snapshot, method=request.param, chunk_size=1 * MiB, jobs=1)
    return snapshot


OpenOn = Callable[..., TensorFiles]


@pytest.fixture
def opened(device: EmulatedDevice) -> Iterator[OpenOn]:
    """Opens the tensors of a snapshot on the device; gives everything back in the end."""
    files: list[TensorFiles] = []
    memories: list[ArraysOnDevice] = []

    def open_on(
        snapshot: Path, *, shift: int = 0, verify: bool = False, paths: Any = "model.safetensors", **options: Any
    ) -> TensorFiles:
        found = OpenedSnapshot(str(snapshot), ReadOptions(jobs=2, **options))
        memory = ArraysOnDevice(device, shift)
        memories.append(memory)

        def loader() -> DeviceLoader:
            return DeviceLoader(found.snapshot, found.options, device, verify=verify)

        own = loader()
        found.at_close(own.close)
        reader = ChunkLoader(found.snapshot, found.options, verify=verify)
        files.append(TensorFiles(found, paths, TensorLoads(own, memory, NumPy()), loader, reader))
        return files[-1]

    yield open_on
    for each in files:
        each.close()
    for memory in memories:
        memory.free()
    device.close()


def content_of(array: Any) -> bytes:
    return bytes(np.ascontiguousarray(array).tobytes())


def assert_all_right(files: TensorFiles) -> None:
    arrays = files.get_tensors()
    assert {name: content_of(array) for name, array in arrays.items()} == {
        name: content for name, (_, _, content) in TENSORS.items()
    }
    assert {name: array.shape for name, array in arrays.items()} == {name: each[1] for name, each in TENSORS.items()}


def test_tensors_are_what_was_packed(packed: Path, opened: OpenOn, device: EmulatedDevice) -> None:
    assert_all_right(opened(packed))


def test_the_device_decodes_into_the_final_place(
    source: Path, snapshot: Path, opened: OpenOn, device: EmulatedDevice
) -> None:
    write_tensors(source / "model.safetensors")
    pack_tree(source, snapshot, chunk_size=256 * KiB)
    files = opened(snapshot)
    assert content_of(files.get_tensor("bf16")) == BF16
    assert "zipnn_decode" in device.launches


@pytest.mark.parametrize("shift", [1, 2, 3, 7, 8, 15, 16, 100, 255])
def test_memory_at_any_address(shift: int, source: Path, snapshot: Path, opened: OpenOn) -> None:
    write_tensors(source / "model.safetensors")
    pack_tree(source, snapshot, chunk_size=256 * KiB)
    files = opened(snapshot, shift=shift)
    for name in ("bf16", "fp32", "fp8", "text"):
        load = files.get_tensor(name)
        assert content_of(load) == TENSORS[name][2]


def test_content_is_verified_on_the_device(packed: Path, opened: OpenOn) -> None:
    assert_all_right(opened(packed, verify=True))


def test_slices(packed: Path, opened: OpenOn) -> None:
    rows = opened(packed).get_slice("bf16")
    assert content_of(rows[17:219]) == BF16[17 * 2000 : 219 * 2000]
    assert content_of(rows[3, 5:7]) == BF16[3 * 2000 + 10 : 3 * 2000 + 14]


def test_prefetch_in_little_memory(packed: Path, opened: OpenOn) -> None:
    with opened(packed).prefetch(limit=300_000) as ready:
        found = {name: content_of(ready.take(name)) for name in ready.names()}
    assert found == {name: content for name, (_, _, content) in TENSORS.items()}


def test_load_into_memory_of_the_caller(packed: Path, opened: OpenOn, device: EmulatedDevice) -> None:
    files = opened(packed)
    memory = ArraysOnDevice(device)
    targets = {}
    for name, (_, shape, content) in TENSORS.items():
        elements = memory.allocate(len(content), 0, zeros=False)
        targets[name] = elements.view(f"u{len(content) // max(1, int(np.prod(shape)))}" if content else "f4").reshape(
            shape
        )
    files.load_into(targets)
    assert {name: content_of(array) for name, array in targets.items()} == {
        name: content for name, (_, _, content) in TENSORS.items()
    }
    memory.free()


def test_a_slot_keeps_a_chunk_that_tensors_share(
    source: Path, snapshot: Path, opened: OpenOn, device: EmulatedDevice
) -> None:
    write_tensors(source / "model.safetensors")
    pack_tree(source, snapshot, method="hybrid_v2")
    files = opened(snapshot)
    for number in range(1, 40):
        assert content_of(files.get_tensor(f"small.{number}")) == TENSORS[f"small.{number}"][2]
    assert device.launches.count("zipnn_decode") <= 2


def test_a_flipped_bit_is_never_a_tensor(packed: Path, opened: OpenOn) -> None:
    with OpenedSnapshot(str(packed), ReadOptions()) as found:
        offsets = [(chunk.offset, chunk.size_compressed) for chunk in found.snapshot.chunks]
        held = {extent.chunk for extent in found.file("model.safetensors").extents if extent.file_offset > 0}
    offset, size = offsets[max(held)]
    data = bytearray(packed.read_bytes())
    data[offset + size // 2] ^= 4
    packed.write_bytes(data)
    files = opened(packed)
    wrong, right = 0, 0
    for name, (_, _, content) in TENSORS.items():
        try:
            assert content_of(files.get_tensor(name)) == content
            right += 1
        except DamagedError as error:
            assert "chunk" in str(error)
            wrong += 1
    assert wrong and right


def test_what_a_device_takes_for_a_fault_the_cpu_decides(
    packed: Path, opened: OpenOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DecodeSlot, "load", lambda *arguments: False)
    assert_all_right(opened(packed))


def test_a_device_that_is_lost_is_an_error(packed: Path, opened: OpenOn, device: EmulatedDevice) -> None:
    files = opened(packed)
    device.lose_after = device.operations + 40
    with pytest.raises(DeviceError, match="lost"):
        for name in TENSORS:
            files.get_tensor(name)
    device.lose_after = None


def test_nothing_is_queued_or_pinned_after_a_failure(
    source: Path, snapshot: Path, opened: OpenOn, device: EmulatedDevice
) -> None:
    """The caller frees the places then: what waits in a stream must not write there later."""
    write_tensors(source / "model.safetensors")
    pack_tree(source, snapshot, chunk_size=256 * KiB)
    files = opened(snapshot)
    files.get_tensor("bf16")
    free = device.free_memory()
    device.short_at = frozenset(range(len(device.launches) + 1, len(device.launches) + 100))
    with pytest.raises(DeviceMemoryError):
        files.get_tensors()
    assert device.pending == 0
    assert device.pinned == {}
    assert device.free_memory() > free - 8 * MiB  # places of tensors; the slots were given back
    device.short_at = frozenset()
    assert_all_right(files)


def test_content_in_a_slot_is_verified_for_every_file_that_asks(
    source: Path, snapshot: Path, opened: OpenOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    monkeypatch.setattr(
        device_decoder, "check_extents", lambda chunk, digest_of: checked.extend(path for _, path in chunk.extents)
    )
    write_tensors(source / "model.safetensors")
    content = b"".join(content for _, _, content in TENSORS.values())[:200_000]
    header = json.dumps({"other": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    (source / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + content)
    (source / "b.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header.replace(b"other", b"third") + content[::-1]
    )
    pack_tree(source, snapshot, method="hybrid_v2", jobs=1)
    files = opened(snapshot, paths=["model.safetensors", "b.safetensors"], verify=True)
    for name in ("other", "third"):
        files.get_tensor(name)
    assert set(checked) == {"model.safetensors", "b.safetensors"}


def test_a_loader_says_what_the_device_decoded(packed: Path, opened: OpenOn, monkeypatch: pytest.MonkeyPatch) -> None:
    files = opened(packed)
    files.get_tensors()
    tally = files.loader.tally
    with OpenedSnapshot(str(packed), ReadOptions()) as found:
        total = sum(chunk.size_original for chunk in found.snapshot.chunks)
        coded = any(chunk.compressor_id == ZipNN().id for chunk in found.snapshot.chunks)
    assert tally.repeated == 0
    assert tally.on_device + tally.on_cpu <= total
    assert bool(tally.on_device) >= coded
    monkeypatch.setattr(DecodeSlot, "load", lambda *arguments: False)
    files = opened(packed)
    files.get_tensors()
    assert files.loader.tally.on_device == 0
    assert bool(files.loader.tally.repeated) >= coded


def test_a_tensor_in_one_chunk_needs_no_threads(
    source: Path, snapshot: Path, opened: OpenOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tensors(source / "model.safetensors")
    pack_tree(source, snapshot, method="hybrid_v2")
    files = opened(snapshot)
    monkeypatch.setattr(device_loader, "Pipeline", None)
    for name in ("bf16", "fp32", "noise", "small.7"):
        assert content_of(files.get_tensor(name)) == TENSORS[name][2]


@pytest.mark.parametrize(("threads", "readers"), [(1, 1), (2, 1), (16, 8), (64, 8)])
def test_several_threads_fetch_from_a_local_file(threads: int, readers: int) -> None:
    assert device_loader.local_readers(threads) == readers


def test_files_close_after_the_call_that_is_loading(source: Path, snapshot: Path, opened: OpenOn) -> None:
    write_tensors(source / "model.safetensors")
    pack_tree(source, snapshot, chunk_size=256 * KiB)
    files = opened(snapshot)
    begun, go_on = threading.Event(), threading.Event()
    fetch = files.loader._fetch

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return fetch(*arguments)

    files.loader._fetch = slow
    arrays: dict[str, Any] = {}
    loading = threading.Thread(target=lambda: arrays.update(files.get_tensors(["bf16"])))
    loading.start()
    assert begun.wait(30)
    closing = threading.Thread(target=files.loader.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go_on.set()
    loading.join()
    closing.join()
    assert content_of(arrays["bf16"]) == BF16


def test_cupy_waits_for_the_whole_device_before_memory_is_written(device: EmulatedDevice) -> None:
    """What the memory was before may still be read on any stream of the caller's."""
    waited: list[str] = []
    cupy = cupy_on(device)
    cupy.cuda.runtime.deviceSynchronize = lambda: waited.append("device")
    memory = CupyMemory(cupy, 0)
    array = memory.allocate(1000, 10, zeros=True)
    assert waited == ["device"]
    assert (memory.place(array).address + 10) % 256 == 0
    assert memory.lead(array, 10) == bytes(10)
    memory.of_target(array, TensorRecord("x", "U8", 1, (1000,), 0))
    assert waited == ["device", "device"]
    del array
    cupy.get_default_memory_pool().free_all_blocks()
    device.close()


def test_pytorch_is_told_which_stream_uses_a_tensor() -> None:
    noted: list[object] = []
    torch = SimpleNamespace(
        device=lambda kind, number: f"{kind}:{number}",
        cuda=SimpleNamespace(current_stream=lambda device: f"the caller's on {device}"),
    )
    tensor: Any = type("Tensor", (bytes,), {"record_stream": lambda tensor, stream: noted.append(stream)})(b"abc")
    assert TorchMemory(torch, 2).take(tensor, 1) == b"bc"
    assert noted == ["the caller's on cuda:2"]


def test_load_makes_arrays_of_cupy_on_the_device(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole call, with a stand-in for CuPy."""
    device = emulated_device()
    close, device.close = device.close, lambda: None  # type: ignore[method-assign]  # arrays outlive the call
    monkeypatch.setattr(on_device, "open_device", lambda number, **needs: device)
    cupy = cupy_on(device)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    arrays = load(str(packed), "model.safetensors", framework="cupy")
    assert all(isinstance(array, ArrayOnDevice) for array in arrays.values())
    assert {name: content_of(array) for name, array in arrays.items()} == {
        name: content for name, (_, _, content) in TENSORS.items()
    }
    arrays.clear()
    cupy.get_default_memory_pool().free_all_blocks()
    close()


def test_what_nobody_closes_is_closed_with_its_last_user(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = emulated_device()
    monkeypatch.setattr(on_device, "open_device", lambda number, **needs: device)
    monkeypatch.setattr(on_device, "device_memory", lambda framework, number: ArraysOnDevice(device))
    opened = OpenedSnapshot(str(packed), ReadOptions())
    reader = ChunkLoader(opened.snapshot, opened.options, verify=False)
    files = on_device.open_on_device(opened, ["model.safetensors"], NumPy(), 0, reader, verify=False)
    assert len(files) == len(TENSORS)
    del opened, reader, files
    gc.collect()
    assert device.closed


def test_too_little_device_memory_is_an_error(packed: Path, opened: OpenOn) -> None:
    with pytest.raises(DeviceMemoryError, match="a chunk needs"):
        opened(packed, gpu_memory=1000).get_tensors()


@pytest.mark.parametrize("framework", ["np", "numpy"])
def test_numpy_has_no_arrays_on_a_device(framework: str, snapshot: Path) -> None:
    with pytest.raises(UsageError, match="framework pt, cupy or jax"):
        load(snapshot, "x", framework=framework, device=0)


@pytest.mark.parametrize(
    ("framework", "device", "number"),
    [("pt", None, None), ("cupy", None, 0), ("pt", "cuda", 0), ("pt", "cuda:3", 3), ("jax", 1, 1), ("np", "cpu", None)],
)
def test_names_of_devices(framework: str, device: object, number: int | None) -> None:
    assert on_device.device_number(framework, device) == number


@pytest.mark.parametrize("device", ["gpu", "cuda:x", -1, "cuda:cuda:0", ""])
def test_what_names_no_device(device: object) -> None:
    with pytest.raises(UsageError, match="device must be"):
        on_device.device_number("pt", device)
