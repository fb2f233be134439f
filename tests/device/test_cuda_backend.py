"""The CUDA backend on a device, emulated or real: chunks for the device, chunks for the CPU, and failures."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
import pytest
from support.devices import cuda_device, emulated_device
from support.emulated_device import EmulatedDevice
from support.real_device import RecordedDevice
from support.snapshots import GOLDEN, assert_same_tree, pack_tree, restore_tree

import dumont_gpu.backends as backends
from dumont_gpu.backends import AutoBackend, CpuBackend, CudaBackend, DigestCheck, auto
from dumont_gpu.codecs import LZ4_HC, Codec, Lz4, ZipNN
from dumont_gpu.errors import DamagedError, DeviceError, DumontError
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB

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


@pytest.fixture
def device() -> AnyDevice:
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

    def use(device: AnyDevice) -> None:
        monkeypatch.setattr(backends, "open_device", lambda number, **needs: device)
        monkeypatch.setattr(backends.cuda, "_WORTH_THE_TRIP", 0)
        monkeypatch.setattr(CudaBackend.__init__, "__defaults__", (None, 0))

    return use


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
    device_option: str, method: str, source: Path, snapshot: Path, target: Path, use: Callable[[AnyDevice], None]
) -> None:
    fill(source)
    pack_tree(source, snapshot, chunk_size=512 * KiB, method=method)
    use(device := cuda_device())
    result = restore_tree(snapshot, target, device=device_option, verify=True)
    assert_same_tree(source, target)
    assert {"zipnn_decode", *(["lz4"] if method == "hybrid_v2" else [])} <= set(device.launches)
    assert device.closed
    assert result.device == "cuda:0" or device_option == "auto"


@METHODS
@pytest.mark.parametrize("device_option", ["0", "auto"])
def test_tree_packed_on_a_device_is_as_small_and_restores_the_same(
    device_option: str, method: str, source: Path, snapshot: Path, target: Path, use: Callable[[EmulatedDevice], None]
) -> None:
    fill(source)
    expected = pack_tree(source, snapshot, chunk_size=512 * KiB, device="cpu", method=method)
    use(device := emulated_device())
    result = pack_tree(source, snapshot, chunk_size=512 * KiB, device=device_option, method=method, paranoid=True)
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
    encode = CudaBackend.encode

    def wrong(
        self: CudaBackend, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None
    ) -> int:
        size = encode(self, codec, chunk, out, digest)
        out[size // 2] ^= 1
        return size

    monkeypatch.setattr(CudaBackend, "encode", wrong)
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


@pytest.mark.parametrize("operations", [0, 1, 5, 9, 12, 20, 24])
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


def scripted(monkeypatch: pytest.MonkeyPatch, cpu: float, device: float) -> None:
    """Makes every trial take these seconds."""
    readings = [0.0]
    for step in (cpu, 0.0, device, 0.0, device, 0.0) * 10:
        readings.append(readings[-1] + step)
    clock = iter(readings)
    monkeypatch.setattr(auto.time, "perf_counter", lambda: next(clock))


@pytest.mark.parametrize(("cpu", "device_seconds", "there"), [(4.0, 1.0, True), (1.0, 1.0, False), (4.0, 2.1, False)])
def test_auto_goes_where_it_was_faster(
    cpu: float, device_seconds: float, there: bool, device: AnyDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = AutoBackend(CudaBackend(device, minimum=0), threads=2)
    backend.prepare(1 * MiB, decode=True)
    scripted(monkeypatch, cpu, device_seconds)
    stored, out = encoded(ZipNN(Dtype.BF16), BF16), memoryview(bytearray(len(BF16)))
    backend.decode(3, stored, out)
    tried = len(device.launches)
    out[:] = bytes(len(out))
    backend.decode(3, stored, out)
    assert out == BF16
    assert (len(device.launches) > tried) == there
    assert backend.name == ("cuda:0" if there else "cpu (zipnn decoding on cpu)")
    backend.close()


def test_device_that_decodes_to_other_bytes_is_not_used(device: AnyDevice) -> None:
    class Wrong(CudaBackend):
        def decode(
            self, compressor_id: int, stored: memoryview, out: memoryview, check: DigestCheck | None = None
        ) -> None:
            super().decode(compressor_id, stored, out, check)
            out[0] ^= 1

    backend = AutoBackend(Wrong(device, minimum=0), threads=2)
    backend.prepare(1 * MiB, decode=True)
    for _ in range(2):
        out = memoryview(bytearray(len(BF16)))
        backend.decode(3, encoded(ZipNN(Dtype.BF16), BF16), out)
        assert out == BF16
    assert "other bytes" in backend.name
    backend.close()


def test_device_that_writes_nothing_does_not_seem_to_agree(device: EmulatedDevice) -> None:
    """The CPU's bytes lie in the output already when a trial asks the device."""

    class Idle(CudaBackend):
        def decode(
            self, compressor_id: int, stored: memoryview, out: memoryview, check: DigestCheck | None = None
        ) -> None:
            pass

    backend = AutoBackend(Idle(device, minimum=0), threads=2)
    backend.prepare(1 * MiB, decode=True)
    for _ in range(2):
        out = memoryview(bytearray(len(BF16)))
        backend.decode(3, encoded(ZipNN(Dtype.BF16), BF16), out)
        assert out == BF16
    assert "other bytes" in backend.name
    backend.close()
