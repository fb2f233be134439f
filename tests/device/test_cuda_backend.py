"""The CUDA backend on a device, emulated or real: chunks for the device, chunks for the CPU, and failures."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import lz4.frame
import pytest
from support.devices import (
    cuda_device,
    deferred,
    emulated_device,
    only_try_devices,
    prefer_devices,
    use_for_jobs,
    wake_at_once,
)
from support.emulated_device import EmulatedDevice
from support.real_device import RecordedDevice
from support.snapshots import GOLDEN, assert_same_tree, pack_tree, restore_tree

from dumont_gpu.backends import AutoBackend, CpuBackend, DigestCheck, cuda, device_codecs, waking
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.backends.decode_slot import DecodeSlot
from dumont_gpu.backends.device import NoDeviceError
from dumont_gpu.backends.slots import SlotPool
from dumont_gpu.codecs import LZ4_HC, Codec, Lz4, ZipNN
from dumont_gpu.errors import DamagedError, DeviceError, DumontError
from dumont_gpu.jobs.options import PackOptions, RestoreOptions, VerifyOptions
from dumont_gpu.jobs.pack import plan_pack
from dumont_gpu.jobs.pack_stages import PackStages
from dumont_gpu.jobs.restore import plan_restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.snapshot.reader import Snapshot

rng = random.Random(4)
FP32 = struct.pack("<100000f", *(rng.gauss(0, 0.02) for _ in range(100_000)))
BF16 = b"".join(FP32[i + 2 : i + 4] for i in range(0, len(FP32), 4))
FP32_FROM_BF16 = b"".join(b"\0\0" + BF16[i : i + 2] for i in range(0, len(BF16), 2))
FP16 = struct.pack("<100000e", *struct.unpack("<100000f", FP32))
FP8 = bytes(rng.choices(range(256), weights=[1.05 ** -abs(i - 60) for i in range(256)], k=300_000))
TEXT = b"".join(b"epoch %d loss=%.4f\n" % (i, rng.random()) for i in range(12_000))
MIXED = TEXT + rng.randbytes(200_000) + TEXT  # some LZ4 blocks do not shrink

CHUNKS: list[tuple[Codec, bytes]] = [
    (ZipNN(Dtype.FP32), FP32),
    (ZipNN(Dtype.FP32), FP32_FROM_BF16),
    (ZipNN(Dtype.BF16), BF16),
    (ZipNN(Dtype.BF16), BF16[:-2]),
    (ZipNN(Dtype.FP16), FP16),
    (ZipNN(Dtype.FP8_E4M3), FP8),
    (ZipNN(Dtype.BF16), bytes(200_000)),
    (Lz4(), TEXT),
    (Lz4(), MIXED),
    (LZ4_HC, TEXT),
]


def encoded(codec: Codec, content: bytes) -> memoryview:
    out = memoryview(bytearray(2 * len(content)))
    size = codec.encode(memoryview(content), out)
    assert size
    return out[:size]


AnyDevice = EmulatedDevice | RecordedDevice


@pytest.fixture(params=["at once", "deferred"], autouse=True)
def double(request: pytest.FixtureRequest) -> Iterator[None]:
    """An emulated device works at once, or when somebody waits for it."""
    with deferred() if request.param == "deferred" else nullcontext():
        yield


@pytest.fixture
def device(double: None) -> AnyDevice:
    return cuda_device()


@pytest.fixture
def backend(device: AnyDevice) -> Iterator[CudaBackend]:
    backend = CudaBackend(device, minimum=0)
    backend.prepare(1 * MiB, decode=True)
    yield backend
    backend.close()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[AnyDevice], None]:
    """Makes jobs find this device, and send chunks of every size to it."""
    return lambda device: use_for_jobs(device, monkeypatch)


@pytest.mark.parametrize(("codec", "content"), CHUNKS)
def test_device_decodes_what_the_cpu_encoded(
    codec: Codec, content: bytes, backend: CudaBackend, device: AnyDevice
) -> None:
    out = memoryview(bytearray(len(content)))
    backend.decode(codec.id, encoded(codec, content), out)
    assert out == content
    assert device.launches
    assert backend.repeated == 0


def test_blocks_that_are_stored_are_copied_on_the_device(backend: CudaBackend, device: AnyDevice) -> None:
    backend.decode(Lz4().id, encoded(Lz4(), MIXED), memoryview(bytearray(len(MIXED))))
    assert set(device.launches) == {"lz4", "copy_stored"}


@pytest.mark.parametrize("codec", [Lz4(), ZipNN(Dtype.BF16)], ids=["lz4", "zipnn"])
def test_damaged_chunk_is_judged_by_the_cpu(codec: Codec, backend: CudaBackend) -> None:
    content = TEXT if codec.id == Lz4().id else BF16
    stored = encoded(codec, content)
    stored[len(stored) // 2 :] = bytes(reversed(stored[len(stored) // 2 :]))
    messages = []
    for place in (backend, CpuBackend()):
        with pytest.raises(DamagedError) as caught:
            place.decode(codec.id, stored, memoryview(bytearray(len(content))))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_small_and_oversized_chunks_stay_on_the_cpu(device: AnyDevice) -> None:
    backend = CudaBackend(device)
    backend.prepare(300 * KiB, decode=True)
    for content in (BF16[: 255 * KiB], BF16 + BF16[: 200 * KiB]):
        out = memoryview(bytearray(len(content)))
        backend.decode(3, encoded(ZipNN(Dtype.BF16), content), out)
        assert out == content
    assert device.launches == []
    backend.close()


def test_lz4_stays_on_the_cpu_without_a_decoder() -> None:
    device = emulated_device(has_lz4=False)
    backend = CudaBackend(device, minimum=0)
    backend.prepare(1 * MiB, decode=True)
    out = memoryview(bytearray(len(TEXT)))
    backend.decode(1, encoded(Lz4(), TEXT), out)
    assert out == TEXT
    assert device.launches == []
    backend.close()


@pytest.mark.parametrize("memory", [3 * MiB, 6 * MiB, 64 * MiB])
def test_slots_are_as_many_as_memory_allows(memory: int) -> None:
    device = emulated_device(memory=memory)
    backend = CudaBackend(device, memory=1 << 40, minimum=0)
    backend.prepare(1 * MiB, decode=True)
    out = memoryview(bytearray(len(BF16)))
    backend.decode(3, encoded(ZipNN(Dtype.BF16), BF16), out)
    assert out == BF16
    backend.close()


def test_device_without_room_for_one_chunk_is_an_error(device: AnyDevice) -> None:
    for limit in (1 * MiB, None):
        backend = CudaBackend(emulated_device(memory=1 * MiB), memory=limit)
        with pytest.raises(DeviceError, match="device memory"):
            backend.prepare(1 * MiB, decode=True)
        backend.close()


def test_launch_without_memory_goes_on_with_fewer_slots() -> None:
    device = emulated_device(short_at=frozenset({1, 2}))
    backend = CudaBackend(device, minimum=0)
    backend.prepare(1 * MiB, decode=True)
    out = memoryview(bytearray(len(BF16)))
    backend.decode(3, encoded(ZipNN(Dtype.BF16), BF16), out)
    assert out == BF16
    assert len(device.launches) == 3
    backend.close()


def test_launch_that_never_has_memory_is_an_error() -> None:
    device = emulated_device(short_at=frozenset(range(100)))
    backend = CudaBackend(device, minimum=0)
    backend.prepare(1 * MiB, decode=True)
    with pytest.raises(DeviceError, match="no memory left"):
        backend.decode(3, encoded(ZipNN(Dtype.BF16), BF16), memoryview(bytearray(len(BF16))))
    backend.close()


@pytest.fixture
def encoder(device: EmulatedDevice) -> Iterator[CudaBackend]:
    backend = CudaBackend(device, minimum=0)
    backend.prepare(1 * MiB, encode=True)
    yield backend
    backend.close()


@pytest.mark.parametrize(("codec", "content"), CHUNKS[:7])
def test_device_encodes_zipnn_to_the_same_bytes_as_the_cpu(codec: Codec, content: bytes, encoder: CudaBackend) -> None:
    out = memoryview(bytearray(2 * len(content)))
    size = encoder.encode(codec, memoryview(content), out)
    assert out[:size] == encoded(codec, content)


@pytest.mark.parametrize("content", [TEXT, MIXED, TEXT[:1], TEXT[: 64 * KiB], TEXT[: 64 * KiB + 1], b"\0" * MiB])
def test_device_encodes_lz4_to_a_standard_frame(content: bytes, encoder: CudaBackend, device: EmulatedDevice) -> None:
    out = memoryview(bytearray(2 * len(content) + 1000))
    size = encoder.encode(Lz4(), memoryview(content), out)
    assert lz4.frame.decompress(out[:size]) == content
    assert "lz4_write" in device.launches


@pytest.mark.parametrize("codec", [Lz4(), ZipNN(Dtype.BF16)], ids=["lz4", "zipnn"])
def test_what_does_not_fit_is_not_written(codec: Codec, encoder: CudaBackend) -> None:
    noise = rng.randbytes(300_000)
    out = memoryview(bytearray(b"\xa5" * 297_000))
    assert encoder.encode(codec, memoryview(noise), out) == 0
    assert set(out) == {0xA5}


def test_high_compression_is_encoded_on_the_cpu(encoder: CudaBackend, device: EmulatedDevice) -> None:
    assert encoder.encode(LZ4_HC, memoryview(TEXT), memoryview(bytearray(len(TEXT))))
    assert device.launches == []


# --- whole jobs -------------------------------------------------------------------------------------------------------


def fill(source: Path) -> None:
    for number, (codec, content) in enumerate(CHUNKS):
        (source / f"{number}-{codec.name}.{'txt' if codec.id in (1, 2) else 'bin'}").write_bytes(content)


METHODS = pytest.mark.parametrize("method", ["hybrid_v2", "hybrid_v3"])  # LZ4 or zstd beside floats


@METHODS
@pytest.mark.parametrize("device_option", ["0", "cuda:0", "auto"])
def test_tree_restored_through_a_device_is_the_same(
    device_option: str,
    method: str,
    source: Path,
    snapshot: Path,
    target: Path,
    use: Callable[[AnyDevice], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(source)
    only_try_devices(monkeypatch)
    pack_tree(source, snapshot, chunk_size=512 * KiB, method=method)
    use(device := cuda_device())
    result = restore_tree(snapshot, target, device=device_option, verify=True, jobs=1)
    assert_same_tree(source, target)
    assert {"zipnn_decode", *(["lz4"] if method == "hybrid_v2" else [])} <= set(device.launches)
    assert device.closed
    assert result.device.startswith("cuda:0") or device_option == "auto"


@METHODS
@pytest.mark.parametrize("device_option", ["0", "auto"])
def test_tree_packed_on_a_device_is_as_small_and_restores_the_same(
    device_option: str,
    method: str,
    source: Path,
    snapshot: Path,
    target: Path,
    use: Callable[[EmulatedDevice], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(source)
    only_try_devices(monkeypatch)
    expected = pack_tree(source, snapshot, chunk_size=512 * KiB, device="cpu", method=method)
    use(device := emulated_device())
    options = {"chunk_size": 512 * KiB, "method": method, "paranoid": True, "jobs": 1}
    result = pack_tree(source, snapshot, device=device_option, **options)
    assert device.closed
    of_lz4 = method == "hybrid_v2"
    assert {"zipnn_write", *(["lz4_write"] if of_lz4 else [])} <= set(device.launches)
    assert device_option == "auto" or {"zipnn_decode", *(["lz4"] if of_lz4 else [])} <= set(device.launches)
    assert of_lz4 or result.codec_bytes["zstd"] == expected.codec_bytes["zstd"]
    assert result.codec_bytes["zipnn"] == expected.codec_bytes["zipnn"]
    assert result.compressed_size <= 1.01 * expected.compressed_size
    restore_tree(snapshot, target, device="cpu", verify=True)
    assert_same_tree(source, target)


def test_paranoid_pack_stops_at_a_chunk_that_does_not_come_back(
    source: Path, snapshot: Path, use: Callable[[EmulatedDevice], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source)
    use(emulated_device())
    encode = CudaBackend.encode_there

    def wrong(
        self: CudaBackend, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None
    ) -> tuple[int, bool]:
        size, there = encode(self, codec, chunk, out, digest)
        out[size // 2] ^= 1
        return size, there

    monkeypatch.setattr(CudaBackend, "encode_there", wrong)
    with pytest.raises(DumontError, match="does not give back"):
        pack_tree(source, snapshot, device="0", paranoid=True)
    assert not snapshot.exists()


@pytest.mark.parametrize("operations", [0, 5, 9, 14, 30])
def test_device_lost_during_a_pack(
    operations: int, source: Path, snapshot: Path, target: Path, use: Callable[[EmulatedDevice], None]
) -> None:
    fill(source)
    use(emulated_device(lose_after=operations))
    with pytest.raises(DeviceError, match="lost"):
        pack_tree(source, snapshot, device="0", chunk_size=256 * KiB)
    assert not snapshot.exists()
    use(emulated_device(lose_after=operations))
    result = pack_tree(source, snapshot, device="auto", chunk_size=256 * KiB)
    assert result.device == "cpu (cuda:0: the device is lost)"
    restore_tree(snapshot, target, device="cpu", verify=True)
    assert_same_tree(source, target)


@pytest.mark.parametrize("archive", sorted(GOLDEN.glob("[!f]*.dumont")), ids=lambda path: path.stem)
def test_golden_archives_decode_on_a_device(archive: Path, tmp_path: Path, use: Callable[[AnyDevice], None]) -> None:
    restore_tree(archive, tmp_path / "cpu", device="cpu")
    use(cuda_device())
    restore_tree(archive, tmp_path / "device", device="0")
    assert_same_tree(tmp_path / "cpu", tmp_path / "device")


@pytest.mark.parametrize("operations", [0, 1, 5, 9, 12, 20, 30])
def test_lost_device_ends_an_explicit_job_and_not_an_automatic_one(
    operations: int, source: Path, snapshot: Path, tmp_path: Path, use: Callable[[AnyDevice], None]
) -> None:
    fill(source)
    pack_tree(source, snapshot, chunk_size=256 * KiB)
    use(device := emulated_device(lose_after=operations))
    with pytest.raises(DeviceError, match="lost"):
        restore_tree(snapshot, tmp_path / "explicit", device="0", jobs=2)
    assert device.closed
    use(device := emulated_device(lose_after=operations))
    result = restore_tree(snapshot, tmp_path / "auto", device="auto", jobs=2)
    assert_same_tree(source, tmp_path / "auto")
    assert result.device == "cpu (cuda:0: the device is lost)"
    assert device.closed


# --- auto -------------------------------------------------------------------------------------------------------------


def awake(monkeypatch: pytest.MonkeyPatch, backend: CudaBackend) -> AutoBackend:
    wake_at_once(monkeypatch)
    monkeypatch.setattr(device_codecs, "WORTH_THE_TRIP", 0)
    found = AutoBackend(lambda go_on: backend, cores=2)
    found.prepare(1 * MiB, encode=True, decode=True)
    found.expect(1 << 40)
    return found


def decode_twice(backend: AutoBackend) -> None:
    for _ in range(2):
        out = memoryview(bytearray(len(BF16)))
        backend.decode(3, encoded(ZipNN(Dtype.BF16), BF16), out)
        assert out == BF16


def test_a_device_that_was_right_gets_chunks(device: AnyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer_devices(monkeypatch)
    backend = awake(monkeypatch, CudaBackend(device, minimum=0))
    decode_twice(backend)
    assert backend.name == "cuda:0 195.3 KiB, cpu 195.3 KiB"
    out = memoryview(bytearray(len(FP32)))
    size = backend.encode(ZipNN(Dtype.FP32), memoryview(FP32), out)
    assert backend.encode(ZipNN(Dtype.FP32), memoryview(FP32), out) == size
    assert out[:size] == encoded(ZipNN(Dtype.FP32), FP32)
    assert backend.name == "cuda:0 585.9 KiB, cpu 585.9 KiB"
    backend.close()
    assert device.closed


@pytest.mark.parametrize(
    ("rate", "name"),
    [
        (1e10, "cuda:0 195.3 KiB, cpu 195.3 KiB"),
        (1.2e8, "cpu"),  # worth a chunk while every core is busy; none is
        (1e6, "cpu (cuda:0 is slower: zipnn decoding)"),
    ],
)
def test_a_chunk_goes_where_it_is_finished_first(rate: float, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In simulated time: a core decodes 100 MB/s, and the device copies `rate`, in and out."""
    device = emulated_device(rate=rate)
    decode = CpuBackend.decode

    def timed(
        self: CpuBackend, compressor_id: int, stored: memoryview, out: memoryview, check: DigestCheck | None
    ) -> None:
        decode(self, compressor_id, stored, out, check)
        device.clock.now += len(out) / 1e8

    monkeypatch.setattr(CpuBackend, "decode", timed)
    monkeypatch.setattr(time, "monotonic", lambda: device.clock.now)
    backend = awake(monkeypatch, CudaBackend(device, minimum=0))
    decode_twice(backend)
    assert backend.name == name
    backend.close()


@pytest.mark.parametrize("job", range(3))
def test_a_device_that_joins_a_job_with_many_threads(
    job: int, source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it joins, every byte is right."""
    fill(source)
    (source / "model.bin").write_bytes(FP16 * 40)
    use_for_jobs(cuda_device(), monkeypatch)
    prefer_devices(monkeypatch)
    monkeypatch.setattr(waking, "Thread", threading.Thread)
    pack_tree(source, snapshot, device="auto", chunk_size=128 * KiB, jobs=3, method="hybrid_v2", paranoid=True)
    use_for_jobs(cuda_device(), monkeypatch)
    monkeypatch.setattr(waking, "Thread", threading.Thread)
    restore_tree(snapshot, target, device="auto", jobs=3, verify=True)
    assert_same_tree(source, target)


class Wrong(CudaBackend):
    def decode_there(
        self, compressor_id: int, stored: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> bool:
        there = super().decode_there(compressor_id, stored, out, check)
        out[0] ^= 1
        return there

    def encode_there(
        self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None
    ) -> tuple[int, bool]:
        size, there = super().encode_there(codec, chunk, out, digest)
        out[size // 2] ^= 1
        return size, there


class Idle(CudaBackend):
    """Writes nothing."""

    def decode_there(
        self, compressor_id: int, stored: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> bool:
        return True

    def encode_there(
        self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None
    ) -> tuple[int, bool]:
        return 100_000, True


class Useless(CudaBackend):
    """Finds a fault in every chunk, and none that shrinks."""

    def decode_there(
        self, compressor_id: int, stored: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> bool:
        super().decode_there(compressor_id, stored, out, check)
        return False

    def encode_there(
        self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None
    ) -> tuple[int, bool]:
        return 0, True


@pytest.mark.parametrize("kind", [Wrong, Idle, Useless])
def test_a_device_that_gives_other_bytes_or_none_is_not_used(
    kind: type[CudaBackend], device: AnyDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer_devices(monkeypatch)
    backend = awake(monkeypatch, kind(device, minimum=0))
    decode_twice(backend)
    assert backend.name == "cpu (cuda:0 is not right: zipnn decoding gave other bytes)"
    backend.close()
    backend = awake(monkeypatch, kind(cuda_device(), minimum=0))
    for _ in range(2):
        out = memoryview(bytearray(len(BF16)))
        size = backend.encode(ZipNN(Dtype.BF16), memoryview(BF16), out)
        assert out[:size] == encoded(ZipNN(Dtype.BF16), BF16)
    assert backend.name == "cpu (cuda:0 is not right: zipnn encoding gave other bytes)"
    backend.close()


def test_a_device_may_leave_raw_what_the_processor_leaves_raw(
    device: AnyDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer_devices(monkeypatch)
    backend = awake(monkeypatch, CudaBackend(device, minimum=0))
    noise = memoryview(rng.randbytes(300_000))
    for _ in range(2):
        assert backend.encode(ZipNN(Dtype.BF16), noise, memoryview(bytearray(290_000))) == 0
    assert "not right" not in backend.name
    backend.close()


def test_the_device_is_tried_with_copies_and_no_chunk_waits_for_it(device: AnyDevice) -> None:
    """With threads of its own: the trial hangs until chunks have gone by."""
    gone_by = threading.Event()

    class Hanging(CudaBackend):
        def decode_there(
            self, compressor_id: int, stored: memoryview, out: memoryview, check: DigestCheck | None = None
        ) -> bool:
            assert gone_by.wait(60)
            return super().decode_there(compressor_id, stored, out, check)

    with pytest.MonkeyPatch.context() as patched:
        wake_at_once(patched)
        patched.setattr(waking, "Thread", threading.Thread)
        patched.setattr(device_codecs, "WORTH_THE_TRIP", 0)
        backend = AutoBackend(lambda go_on: Hanging(device, minimum=0), cores=2)
        backend.prepare(1 * MiB, decode=True)
        backend.expect(1 << 40)
        backend._waking._threads[0].join()  # the device is open
        for _ in range(3):
            decode_twice(backend)
        assert len(backend._waking._threads) == 2
        gone_by.set()
        backend.close()
    assert device.launches


def test_the_processor_works_while_cuda_opens(device: AnyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    wake_at_once(monkeypatch)
    monkeypatch.setattr(waking, "Thread", threading.Thread)
    gone_by, opened = threading.Event(), []

    def opening(go_on: Callable[[], bool]) -> CudaBackend:
        assert gone_by.wait(60)
        opened.append(True)
        return CudaBackend(device, minimum=0)

    backend = AutoBackend(opening, cores=2)
    backend.prepare(1 * MiB, decode=True)
    backend.expect(1 << 40)
    decode_twice(backend)
    assert not opened
    gone_by.set()
    backend.close()
    assert opened
    assert device.closed
    assert backend.name == "cpu"


class Latch:
    """Opens after `count` arrivals."""

    def __init__(self, count: int) -> None:
        self._missing, self._changed = count, threading.Condition()

    def arrive(self) -> None:
        with self._changed:
            self._missing -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._missing <= 0, timeout=60)


@pytest.mark.parametrize("job", ["pack", "pack in order", "restore", "verify"])
@pytest.mark.parametrize("memory", [0, 64 * MiB])
def test_a_job_with_one_core_fills_every_slot_of_a_device_that_joins(
    memory: int, job: str, source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "model.bin").write_bytes(FP16 * 20)
    pack_tree(source, snapshot, device="cpu", chunk_size=256 * KiB)
    prefer_devices(monkeypatch)
    use_for_jobs(device := cuda_device(), monkeypatch)
    full, joined = Latch(cuda.SLOTS), threading.Event()
    judge = AutoBackend._judge

    def judging(backend: AutoBackend, kind: str, size: int, seconds: float) -> None:
        judge(backend, kind, size, seconds)
        joined.set()

    def meeting(work: Callable[..., object]) -> Callable[..., object]:
        def meet(*arguments: object) -> object:
            if joined.is_set():
                full.arrive()
                full.wait()
            return work(*arguments)

        return meet

    monkeypatch.setattr(AutoBackend, "_judge", judging)
    for name in ("encode_there", "decode_there"):
        monkeypatch.setattr(CudaBackend, name, meeting(getattr(CudaBackend, name)))
    if job == "pack in order":  # as for a sink that takes parts
        stages = partial(PackStages.__init__, in_order=True)
        monkeypatch.setattr(
            PackStages, "__init__", lambda self, *given, in_order, **named: stages(self, *given, **named)
        )
    if job.startswith("pack"):
        used = pack_tree(source, target, device="auto", chunk_size=256 * KiB, jobs=1, memory=memory).device
        restore_tree(target, snapshot.parent / "t", device="cpu", verify=True)
    elif job == "restore":
        used = restore_tree(snapshot, target, device="auto", jobs=1, memory=memory).device
        assert_same_tree(source, target)
    else:
        used = verify(str(snapshot), VerifyOptions(device="auto", content=True, jobs=1, memory=memory)).device
    assert used.startswith("cuda:0 ")
    assert device.closed


def test_chunks_are_checked_while_every_slot_is_busy(
    source: Path, snapshot: Path, target: Path, use: Callable[[AnyDevice], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cores check two chunks more than the slots hold, where the CPU must check."""
    (source / "model.bin").write_bytes(FP16 * 20)
    pack_tree(source, snapshot, device="cpu", chunk_size=256 * KiB, digest="sha256")
    use(cuda_device())
    checked = Latch(cuda.SLOTS + 2)
    check, run = Snapshot.check_chunk, SlotPool.run

    def checking(self: Snapshot, number: int, encoded: memoryview) -> None:
        check(self, number, encoded)
        checked.arrive()

    def working(self: SlotPool[DecodeSlot], work: Callable[[DecodeSlot], object]) -> object:
        def wait_and_work(slot: DecodeSlot) -> object:
            checked.wait()
            return work(slot)

        return run(self, wait_and_work)

    monkeypatch.setattr(Snapshot, "check_chunk", checking)
    monkeypatch.setattr(SlotPool, "run", working)
    restore_tree(snapshot, target, device="0", jobs=2)
    assert_same_tree(source, target)


@pytest.mark.parametrize("device_option", ["auto", "cpu"])
def test_a_small_job_touches_nothing_of_cuda(
    device_option: str, source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*arguments: object, **named: object) -> None:
        raise AssertionError("a small job opened a device")

    monkeypatch.setattr("dumont_gpu.backends.open_device", touched)
    fill(source)
    assert plan_pack([str(source)], PackOptions(device=device_option)).num_files
    assert pack_tree(source, snapshot, device=device_option).device == "cpu"
    assert plan_restore(str(snapshot), RestoreOptions(device=device_option)).entries
    assert restore_tree(snapshot, target, device=device_option).device == "cpu"
    assert verify(str(snapshot), VerifyOptions(device=device_option, content=True)).device == "cpu"
    assert_same_tree(source, target)


# --- failures at every step -------------------------------------------------------------------------------------------

OPENING = {
    "a package is missing": NoDeviceError("nvCOMP is not installed"),
    "the driver fails": DeviceError("the NVIDIA driver does not start"),
    "CuPy breaks": ImportError("libcudart.so.12"),
}
DEVICES: dict[str, dict[str, object]] = {
    "no memory": {"memory": 1 << 16},
    "no pinned memory": {"pins": 0},
    "no compiler": {"compiles": False},
    "no nvCOMP": {"has_lz4": False},
    **{f"lost at {number}": {"lose_after": number} for number in (0, 1, 2, 4, 7, 11, 16, 25, 40)},
}
HARMLESS = ("no pinned memory", "no nvCOMP")


@pytest.mark.parametrize("failure", [*OPENING, *DEVICES])
def test_auto_finishes_every_job_whatever_fails(
    failure: str, source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source)
    prefer_devices(monkeypatch)

    def failing() -> EmulatedDevice | Exception:
        return OPENING[failure] if failure in OPENING else emulated_device(**DEVICES[failure])

    jobs = (
        lambda: pack_tree(source, snapshot, device="auto", chunk_size=256 * KiB, method="hybrid_v2", jobs=1),
        lambda: restore_tree(snapshot, target, device="auto", jobs=1),
        lambda: verify(str(snapshot), VerifyOptions(device="auto", content=True, jobs=1)),
    )
    for job in jobs:
        use_for_jobs(device := failing(), monkeypatch)
        used = job().device
        if failure in HARMLESS:
            assert used.startswith("cuda:0 ")
        elif failure == "a package is missing":
            assert used == "cpu"
        else:
            assert used.endswith(")") and "cpu" in used
        assert isinstance(device, Exception) or device.closed
    assert_same_tree(source, target)


@pytest.mark.parametrize("failure", [*OPENING, *DEVICES])
def test_a_device_that_was_asked_for_works_or_its_error_is_told(
    failure: str, source: Path, snapshot: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source)
    pack_tree(source, snapshot, device="cpu", chunk_size=256 * KiB, method="hybrid_v2")
    device = OPENING[failure] if failure in OPENING else emulated_device(**DEVICES[failure])
    use_for_jobs(device, monkeypatch)
    if failure in HARMLESS or failure == "no compiler":  # which the double has no need of
        assert restore_tree(snapshot, target, device="0", jobs=1).device.startswith("cuda:0")
        assert_same_tree(source, target)
    else:
        error = ImportError if failure == "CuPy breaks" else DeviceError
        with pytest.raises(error):
            restore_tree(snapshot, target, device="0", jobs=1)
    assert isinstance(device, Exception) or device.closed


def test_a_buffer_that_is_given_back_too_early_is_seen() -> None:
    device = emulated_device(deferred=True)
    stream, at = device.new_stream(), device.allocate(4096)
    host, back = memoryview(bytearray(b"chunk" * 10)), memoryview(bytearray(50))
    stream.copy_in(at, host)
    host[:5] = b"other"
    stream.copy_out(back, at)
    assert set(back) == {0xA5}
    stream.synchronize()
    assert back == b"other" + b"chunk" * 9
    device.free(at)
