"""Who hashes a chunk's encoded bytes: the device that decodes or encodes them, or the CPU; and what a wrong digest does."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from support.devices import cuda_device, emulated_device, wake_at_once
from support.emulated_device import EmulatedDevice
from support.real_device import RecordedDevice
from support.snapshots import assert_same_tree, pack_tree, restore_tree

import dumont_gpu.backends as backends
from dumont_gpu.backends import AutoBackend, CpuBackend, DigestCheck, device_codecs
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.backends.slot_digest import SlotDigest
from dumont_gpu.codecs import LZ4_HC, Codec, Lz4, ZipNN
from dumont_gpu.errors import DamagedError, DeviceError
from dumont_gpu.jobs.options import VerifyOptions
from dumont_gpu.jobs.verify import verify
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.snapshot.reader import Snapshot

AnyDevice = EmulatedDevice | RecordedDevice

rng = random.Random(6)
FP32 = struct.pack("<100000f", *(rng.gauss(0, 0.02) for _ in range(100_000)))
BF16 = b"".join(FP32[i + 2 : i + 4] for i in range(0, len(FP32), 4))
TEXT = b"".join(b"epoch %d loss=%.4f\n" % (i, rng.random()) for i in range(12_000))
CHUNKS: list[tuple[Codec, bytes]] = [
    (ZipNN(Dtype.FP32), FP32),
    (ZipNN(Dtype.BF16), BF16),
    (ZipNN(Dtype.BF16), bytes(200_000)),
    (Lz4(), TEXT),
    (Lz4(), TEXT + rng.randbytes(200_000) + TEXT),
    (Lz4(), TEXT[:1]),
]
of_each_codec = pytest.mark.parametrize(("codec", "content"), [CHUNKS[1], CHUNKS[3]], ids=["zipnn", "lz4"])
KERNELS = {"blake3_groups", "blake3_roots"}


def encoded(codec: Codec, content: bytes) -> memoryview:
    out = memoryview(bytearray(2 * len(content) + 1000))
    return out[: codec.encode(memoryview(content), out)]


class Expected:
    """The check of bytes that must have a digest; counts how often the CPU makes it.

    Args:
        right: what `stored` must be.
        stored: what there is.
        fetched: whether the right bytes are fetched when these are found to be wrong.
    """

    def __init__(self, right: bytes, stored: memoryview, *, fetched: bool = False) -> None:
        self.calls = 0
        self._right, self._stored, self._fetched = right, stored, fetched

    def of(self, *, blake3_known: bool = True) -> DigestCheck:
        return DigestCheck(blake3(self._right).digest() if blake3_known else None, self._on_cpu)

    def _on_cpu(self) -> None:
        self.calls += 1
        if self._stored != self._right:
            if not self._fetched:
                raise DamagedError("not the bytes that were packed")
            self._stored[:] = self._right


def flipped(stored: memoryview, at: int) -> memoryview:
    damaged = memoryview(bytearray(stored))
    damaged[at] ^= 1
    return damaged


@pytest.fixture
def device() -> AnyDevice:
    return cuda_device()


@pytest.fixture
def backend(device: AnyDevice) -> Iterator[CudaBackend]:
    backend = CudaBackend(device, minimum=0)
    backend.prepare(1 * MiB, encode=True, decode=True)
    yield backend
    backend.close()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[AnyDevice], None]:
    """Makes jobs find this device, and send chunks of every size to it."""

    def use(device: AnyDevice) -> None:
        monkeypatch.setattr(backends, "open_device", lambda number, **needs: device)
        monkeypatch.setattr(CudaBackend.__init__, "__defaults__", (None, 0))

    return use


@pytest.fixture
def hashes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotDigest, "found", property(lambda self: bytes(32)))


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "content"), CHUNKS)
def test_device_checks_what_it_decodes(codec: Codec, content: bytes, backend: CudaBackend, device: AnyDevice) -> None:
    stored, out = encoded(codec, content), memoryview(bytearray(len(content)))
    check = Expected(bytes(stored), stored)
    backend.decode(codec.id, stored, out, check.of())
    assert out == content
    assert set(device.launches) >= KERNELS
    assert (check.calls, backend.repeated) == (0, 0)


@of_each_codec
@pytest.mark.parametrize("at", [0, 40, -1])
def test_damaged_bytes_are_refused_in_the_words_of_the_cpu(
    at: int, codec: Codec, content: bytes, backend: CudaBackend
) -> None:
    stored = flipped(encoded(codec, content), at)
    for place in (backend, CpuBackend()):
        check = Expected(bytes(encoded(codec, content)), stored)
        with pytest.raises(DamagedError, match="not the bytes that were packed"):
            place.decode(codec.id, stored, memoryview(bytearray(len(content))), check.of())
        assert check.calls == 1


@of_each_codec
def test_bytes_that_decode_well_are_refused_if_they_are_others(
    codec: Codec, content: bytes, backend: CudaBackend
) -> None:
    other = encoded(codec, content[::-1])
    check = Expected(bytes(encoded(codec, content)), other)
    with pytest.raises(DamagedError, match="not the bytes that were packed"):
        backend.decode(codec.id, other, memoryview(bytearray(len(content))), check.of())


@of_each_codec
def test_no_decoder_sees_bytes_that_have_another_digest(
    codec: Codec, content: bytes, backend: CudaBackend, device: AnyDevice
) -> None:
    stored = flipped(encoded(codec, content), 100)
    check = Expected(bytes(encoded(codec, content)), stored)
    with pytest.raises(DamagedError):
        backend.decode(codec.id, stored, memoryview(bytearray(len(content))), check.of())
    assert set(device.launches) == KERNELS


@of_each_codec
def test_bytes_that_are_fetched_again_are_decoded(codec: Codec, content: bytes, backend: CudaBackend) -> None:
    right = bytes(encoded(codec, content))
    stored, out = flipped(encoded(codec, content), 50), memoryview(bytearray(len(content)))
    backend.decode(codec.id, stored, out, Expected(right, stored, fetched=True).of())
    assert out == content


@of_each_codec
@pytest.mark.usefixtures("hashes_wrongly")
def test_device_that_hashes_wrongly_damages_no_good_chunk(codec: Codec, content: bytes, backend: CudaBackend) -> None:
    stored, out = encoded(codec, content), memoryview(bytearray(len(content)))
    check = Expected(bytes(stored), stored)
    backend.decode(codec.id, stored, out, check.of())
    assert out == content
    assert (check.calls, backend.repeated) == (1, 1)


@of_each_codec
def test_cpu_checks_before_the_device_decodes_if_the_digest_is_no_blake3(
    codec: Codec, content: bytes, backend: CudaBackend, device: AnyDevice
) -> None:
    stored, out = encoded(codec, content), memoryview(bytearray(len(content)))
    check = Expected(bytes(stored), stored)
    backend.decode(codec.id, stored, out, check.of(blake3_known=False))
    assert out == content
    assert check.calls == 1
    assert device.launches
    assert not set(device.launches) & KERNELS
    damaged, launched = flipped(stored, 60), len(device.launches)
    with pytest.raises(DamagedError, match="not the bytes that were packed"):
        backend.decode(codec.id, damaged, out, Expected(bytes(stored), damaged).of(blake3_known=False))
    assert len(device.launches) == launched


def test_chunk_that_the_device_leaves_to_the_cpu_is_checked_there(device: AnyDevice) -> None:
    backend = CudaBackend(device)
    backend.prepare(64 * KiB, decode=True)
    stored, out = encoded(Lz4(), TEXT), memoryview(bytearray(len(TEXT)))
    check = Expected(bytes(stored), stored)
    backend.decode(Lz4().id, stored, out, check.of())
    assert out == TEXT
    assert check.calls == 1
    backend.close()


# --- encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "content"), CHUNKS)
def test_device_hashes_what_it_encodes(codec: Codec, content: bytes, backend: CudaBackend) -> None:
    out, digest = memoryview(bytearray(2 * len(content) + 1000)), bytearray(b"of another chunk")
    size = backend.encode(codec, memoryview(content), out, digest)
    assert digest == blake3(out[:size]).digest()
    assert out[:size] == encoded(codec, content) or codec.id == Lz4().id


@pytest.mark.parametrize(("codec", "room"), [(ZipNN(Dtype.BF16), 100), (Lz4(), 100), (LZ4_HC, 400_000)])
def test_there_is_no_digest_of_what_does_not_fit_nor_of_what_the_cpu_encodes(
    codec: Codec, room: int, backend: CudaBackend
) -> None:
    content = BF16 if codec.id == ZipNN(Dtype.BF16).id else TEXT
    digest = bytearray(b"of another chunk")
    assert bool(backend.encode(codec, memoryview(content), memoryview(bytearray(room)), digest)) == (codec is LZ4_HC)
    assert digest == b""


@of_each_codec
@pytest.mark.usefixtures("hashes_wrongly")
def test_device_whose_first_digest_is_wrong_is_not_used_to_encode(
    codec: Codec, content: bytes, backend: CudaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, digest = memoryview(bytearray(2 * len(content))), bytearray()
    with pytest.raises(DeviceError, match="cuda:0 is not right: it gave another digest"):
        backend.encode(codec, memoryview(content), out, digest)
    wake_at_once(monkeypatch)
    monkeypatch.setattr(device_codecs, "WORTH_THE_TRIP", 0)
    auto = AutoBackend(lambda go_on: CudaBackend(cuda_device(), minimum=0), cores=2)
    auto.prepare(1 * MiB, encode=True)
    auto.expect(1 << 40)
    for _ in range(2):
        size = auto.encode(codec, memoryview(content), out, digest)
        assert out[:size] == encoded(codec, content)
        assert digest == b""
    assert "another digest" in auto.name
    auto.close()


@of_each_codec
@pytest.mark.usefixtures("hashes_wrongly")
def test_device_whose_digest_is_wrong_in_a_trial_is_not_used_to_decode(
    codec: Codec, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake_at_once(monkeypatch)
    monkeypatch.setattr(device_codecs, "WORTH_THE_TRIP", 0)
    auto = AutoBackend(lambda go_on: CudaBackend(cuda_device(), minimum=0), cores=2)
    auto.prepare(1 * MiB, decode=True)
    auto.expect(1 << 40)
    stored, out = encoded(codec, content), memoryview(bytearray(len(content)))
    for _ in range(2):
        auto.decode(codec.id, stored, out, Expected(bytes(stored), stored).of())
        assert out == content
    assert "is not right" in auto.name
    auto.close()


# --- whole jobs -------------------------------------------------------------------------------------------------------


def fill(source: Path) -> None:
    (source / "model.bin").write_bytes(BF16 * 5)
    (source / "log.txt").write_bytes(TEXT * 3)
    (source / "noise").write_bytes(rng.randbytes(300_000))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the chunks that the CPU checks."""
    numbers: list[int] = []
    check_chunk = Snapshot.check_chunk

    def spy(self: Snapshot, number: int, encoded: memoryview) -> None:
        numbers.append(number)
        check_chunk(self, number, encoded)

    monkeypatch.setattr(Snapshot, "check_chunk", spy)
    return numbers


@pytest.mark.parametrize("digest", ["blake3", "sha256"])
def test_jobs_leave_blake3_of_a_devices_chunks_to_the_device(
    digest: str, source: Path, snapshot: Path, target: Path, use: Callable[[AnyDevice], None], hashed: list[int]
) -> None:
    fill(source)
    use(device := emulated_device())
    packed = pack_tree(source, snapshot, device="0", chunk_size=256 * KiB, method="hybrid_v2", digest=digest)
    assert (set(device.launches) >= KERNELS) == (digest == "blake3")
    verify(str(snapshot), VerifyOptions(device="cpu", content=True))
    assert len(hashed) == packed.num_chunks
    del hashed[:]
    use(device := emulated_device())
    restore_tree(snapshot, target, device="0", verify=True)
    assert_same_tree(source, target)
    assert (set(device.launches) >= KERNELS) == (digest == "blake3")
    assert (len(hashed) < packed.num_chunks) == (digest == "blake3")
    del hashed[:]
    use(emulated_device())
    verify(str(snapshot), VerifyOptions(device="0", content=True))
    assert (len(hashed) < packed.num_chunks) == (digest == "blake3")


def test_paranoid_pack_has_the_cpu_hash_every_chunk(
    source: Path, snapshot: Path, use: Callable[[AnyDevice], None]
) -> None:
    fill(source)
    use(device := emulated_device())
    pack_tree(source, snapshot, device="0", chunk_size=256 * KiB, method="hybrid_v2", paranoid=True)
    assert not set(device.launches) & KERNELS


def test_damaged_snapshot_is_refused_in_the_same_words_on_every_device(
    source: Path, snapshot: Path, tmp_path: Path, use: Callable[[AnyDevice], None]
) -> None:
    (source / "model.bin").write_bytes(BF16)
    pack_tree(source, snapshot)
    data = bytearray(snapshot.read_bytes())
    data[4096 + 50_000] ^= 1
    snapshot.write_bytes(data)
    messages = []
    for number, device in enumerate(("cpu", "0")):
        use(emulated_device())
        with pytest.raises(DamagedError) as caught:
            restore_tree(snapshot, tmp_path / str(number), device=device)
        messages.append(str(caught.value))
        use(emulated_device())
        with pytest.raises(DamagedError) as caught:
            verify(str(snapshot), VerifyOptions(device=device, content=True))
        messages.append(str(caught.value))
    assert messages[:2] == messages[2:]
    assert "digest" in messages[0]
