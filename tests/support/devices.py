"""The CUDA device that tests run on, real or emulated."""

from __future__ import annotations

import os
from typing import Any

import pytest

from dumont_gpu.backends import open_device
from support.emulated_device import EmulatedDevice
from support.ptx_machine import missing
from support.real_device import RecordedDevice


def cuda_device() -> EmulatedDevice | RecordedDevice:
    """A CUDA device: the real device whose number is in DUMONT_TEST_DEVICE, else an emulated device."""
    number = os.environ.get("DUMONT_TEST_DEVICE")
    return RecordedDevice(open_device(int(number))) if number else emulated_device()


def emulated_device(**faults: Any) -> EmulatedDevice:
    """A CUDA device run by the PTX machine, or a skip where that cannot be built."""
    if reason := missing():
        pytest.skip(reason)
    return EmulatedDevice(**faults)
