"""Compares a device with the processor on a copy of one chunk, so that no chunk of a job waits for the device."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from dumont_gpu import native
from dumont_gpu.backends.base import DigestCheck
from dumont_gpu.backends.cpu import CpuBackend
from dumont_gpu.codecs import Codec
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.digests import digest_function

if TYPE_CHECKING:
    from dumont_gpu.backends.cuda import CudaBackend

_LITTLE: Final = 16  # what an encoder saves of a chunk counts from this part on
_RUNS: Final = 3  # the first warms the device up, and the faster of the others counts


class WrongBytesError(Exception):
    """The device's result differs from the processor's."""


class Sample(Protocol):
    """A copy of a chunk that the processor has worked on."""

    size: int  # raw bytes
    room: int  # for the result

    def run(self, device: CudaBackend, out: memoryview) -> int:
        """Works on the chunk with the device; returns the size of the result."""

    def is_right(self, out: memoryview) -> bool:
        """Whether a result of the device is worth as much as the processor's."""


class DecodeSample:
    """Args:
    check: of the encoded bytes, which have passed it; a device that finds another digest is not right.
    """

    def __init__(
        self, compressor_id: int, encoded: memoryview, decoded: memoryview, check: DigestCheck | None = None
    ) -> None:
        self.size = self.room = len(decoded)
        self._compressor_id, self._encoded = compressor_id, _copy(encoded)
        self._check = DigestCheck(check.blake3, _found_wrong) if check is not None and check.blake3 else None
        self._digest = digest_function("blake3")(decoded)

    def run(self, device: CudaBackend, out: memoryview) -> int:
        if device.decode_there(self._compressor_id, self._encoded, out, self._check) is False:
            raise WrongBytesError  # it found a fault in a chunk that has none
        return self.size

    def is_right(self, out: memoryview) -> bool:
        return digest_function("blake3")(out) == self._digest


class EncodeSample:
    """Args:
    encoded_size: the processor's result; 0 if the chunk stays raw.
    """

    def __init__(self, codec: Codec, chunk: memoryview, room: int, encoded_size: int) -> None:
        self.size, self.room = len(chunk), room
        self._saved = self._saved_by(encoded_size)
        self._codec, self._chunk = codec, _copy(chunk)

    def run(self, device: CudaBackend, out: memoryview) -> int:
        return device.encode_there(self._codec, self._chunk, out, bytearray())[0]  # with its digest, as in a job

    def is_right(self, out: memoryview) -> bool:
        """Whether the chunk comes back, and is about as small as the processor's: encoders may differ."""
        if self._saved > self.size // _LITTLE and 2 * self._saved_by(len(out)) < self._saved:
            return False
        if not out:
            return True
        decoded = memoryview(mmap.mmap(-1, self.size))
        with suppress(DamagedError):
            CpuBackend().decode(self._codec.id, out, decoded)
            digest = digest_function("blake3")  # comparing views would hold the GIL
            return digest(decoded) == digest(self._chunk)
        return False

    def _saved_by(self, encoded_size: int) -> int:
        return self.size - encoded_size if encoded_size else 0


def try_device(sample: Sample, device: CudaBackend, go_on: Callable[[], bool]) -> float | None:
    """Returns the seconds that the device takes for the sample; None if `go_on`, asked before each run, says no.

    Raises:
        WrongBytesError: what the device gives is not right.
        DeviceError: the device failed.
    """
    out = memoryview(mmap.mmap(-1, sample.room))
    times = []
    for _ in range(_RUNS):
        if not go_on():
            return None
        native.spoil(out)  # or a device that writes nothing could seem right the second time
        started = time.monotonic()
        size = sample.run(device, out)
        times.append(time.monotonic() - started)
        if not sample.is_right(out[:size]):
            raise WrongBytesError
    return min(times[1:])


def _found_wrong() -> None:
    raise WrongBytesError


def _copy(content: memoryview) -> memoryview:
    copy = memoryview(mmap.mmap(-1, len(content)))
    native.copy(copy, content)
    return copy
