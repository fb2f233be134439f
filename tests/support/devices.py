"""The CUDA device that tests run on, real or emulated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import dumont_gpu.backends as backends
from dumont_gpu.backends import auto, device_codecs, dispatch, forecast, open_device, waking
from dumont_gpu.backends.cuda import CudaBackend
from support.emulated_device import EmulatedDevice
from support.ptx_machine import missing
from support.real_device import RecordedDevice


def cuda_device() -> EmulatedDevice | RecordedDevice:
    """A CUDA device: the real device whose number is in DUMONT_TEST_DEVICE, else an emulated device."""
    number = os.environ.get("DUMONT_TEST_DEVICE")
    return RecordedDevice(open_device(int(number))) if number else emulated_device()


@contextmanager
def deferred() -> Iterator[None]:
    """Makes every emulated device do nothing before somebody waits for it."""
    _DEFAULTS["deferred"] = True
    try:
        yield
    finally:
        _DEFAULTS.clear()


_DEFAULTS: dict[str, Any] = {}


def emulated_device(**faults: Any) -> EmulatedDevice:
    """A CUDA device run by the PTX machine, or a skip where that cannot be built."""
    if reason := missing():
        pytest.skip(reason)
    return EmulatedDevice(**_DEFAULTS | faults)


class AtOnce:
    """In place of a thread: does the work where it is started, so that a test knows what was done when."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target

    def start(self) -> None:
        self._target()

    def join(self) -> None:
        pass


def use_for_jobs(device: EmulatedDevice | RecordedDevice | Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes jobs find this device, or this error, and send chunks of every size to it.

    `auto` wakes the device before the first chunk, and tries it as soon as there is a chunk to try.
    """

    def found(number: int, **needs: object) -> Any:
        if isinstance(device, Exception):
            raise device
        return device

    monkeypatch.setattr(backends, "open_device", found)
    monkeypatch.setattr(device_codecs, "WORTH_THE_TRIP", 0)
    monkeypatch.setattr(CudaBackend.__init__, "__defaults__", (None, 0))
    wake_at_once(monkeypatch)


def wake_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "WORTH_WAKING", 0)
    monkeypatch.setattr(forecast, "WAKING_SECONDS", 0.0)
    monkeypatch.setattr(forecast, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(auto, "_LARGE", 1 << 40)
    monkeypatch.setattr(waking, "Thread", AtOnce)


def prefer_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every device seem faster than the processor."""
    monkeypatch.setattr(dispatch.Dispatch, "_device_seconds", lambda *arguments: -1.0)
    trust = dispatch.Dispatch.trust
    monkeypatch.setattr(dispatch.Dispatch, "trust", lambda self, kind, size, seconds: trust(self, kind, size, 0.0))


def only_try_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every device seem slower than the processor: each kind of chunk is tried, and no thread joins."""
    monkeypatch.setattr(dispatch.Dispatch, "trust", lambda *arguments: False)
