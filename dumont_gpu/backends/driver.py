"""Asks the NVIDIA driver for its devices, in a separate process: a driver may crash, hang, or lack functions."""

from __future__ import annotations

import ctypes
import functools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess

LIBRARY: Final = "libcuda.so.1"
_PATIENCE: Final = 60.0  # seconds; a machine with many sleeping devices takes 10
_POLL: Final = 0.01  # seconds
_MAX_DEVICES: Final = 64
_NOT_THERE: Final = "No such file or directory"

# Prints a line for each fact, so that facts from before a crash count.
_QUESTION: Final = f"""
import ctypes, resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
cuda = ctypes.CDLL("{LIBRARY}")
for call in ("cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGetName"):
    if not hasattr(cuda, call):
        print("lacks", call, flush=True)
        raise SystemExit
print("init", cuda.cuInit(0), flush=True)
number = ctypes.c_int()
if not cuda.cuDriverGetVersion(ctypes.byref(number)):
    print("version", number.value, flush=True)
number = ctypes.c_int()
print("count", cuda.cuDeviceGetCount(ctypes.byref(number)) and -1 or number.value, flush=True)
for device in range(min(number.value, {_MAX_DEVICES})):
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    print("device", ascii(name.value.decode(errors="replace"))[1:-1], flush=True)
print("done", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver's answer."""

    there: bool  # the driver's library is installed
    failure: str = ""  # why no device can be used although the driver is there; empty if the driver works
    version: int = 0  # CUDA version: 1000 * major + 10 * minor
    devices: tuple[str, ...] = ()  # names, by number


def driver_is_there() -> bool:
    """Whether the driver's library is installed; does not wake the driver."""
    return _loading_error() != _NOT_THERE


@functools.cache
def ask_driver() -> Driver:
    """Asks the driver, once in this process."""
    error = _loading_error()
    if error == _NOT_THERE:
        return Driver(there=False)
    if error:
        return Driver(there=True, failure=f"the NVIDIA driver cannot be loaded: {error}")
    return _interpreted(*_answer())


@functools.cache
def _loading_error() -> str:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        return _NOT_THERE if _NOT_THERE in str(error) else str(error)
    return ""


def begin_asking() -> None:
    """Wakes the driver while the caller goes on; a later `ask_driver` then waits for less time."""
    if not _loading_error():
        _asked()


def wait_for_answer(go_on: Callable[[], bool]) -> None:
    """Waits, after `begin_asking`, until `ask_driver` knows the answer, or `go_on` says no."""
    asked = None if _loading_error() else _asked()
    deadline = time.monotonic() + _PATIENCE
    while asked is not None and not isinstance(asked, OSError) and go_on():
        if asked.poll() is not None:
            return
        if time.monotonic() > deadline:
            asked.kill()
            return
        time.sleep(_POLL)


@functools.cache
def _asked() -> subprocess.Popen[bytes] | OSError:
    import subprocess  # takes 10 ms, which only machines with a driver pay

    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        return error


def _answer() -> tuple[str, str]:
    """Returns the output of the question, and how its process failed; empty after success."""
    asked = _asked()
    if isinstance(asked, OSError):
        return "", f"cannot be asked: {asked.strerror}"
    import subprocess

    hangs = f"does not answer within {_PATIENCE:.0f} s"
    try:
        printed, _ = asked.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        asked.kill()
        return "", hangs
    if asked.returncode == -signal.SIGKILL:  # by `wait_for_answer`
        return "", hangs
    said = printed.decode("ascii", "replace")
    if asked.returncode < 0:
        return said, f"crashes ({_signal_name(-asked.returncode)})"
    return said, f"cannot be asked (exit code {asked.returncode})" if asked.returncode else ""


def _interpreted(said: str, failure: str) -> Driver:
    facts: dict[str, str] = {}
    devices = []
    for line in said.splitlines():
        fact, _, value = line.partition(" ")
        if fact == "device":
            devices.append(value)
        facts[fact] = value
    if "lacks" in facts:
        failure = f"has no {facts['lacks']}"
    elif facts.get("init", "0") != "0":
        failure = f"does not start (cuInit returned {facts['init']})"
    elif not failure and not 0 <= int(facts.get("count", "-1")) <= _MAX_DEVICES:
        failure = "does not say how many devices there are"
    if failure:
        return Driver(there=True, failure=f"the NVIDIA driver {failure}")
    return Driver(there=True, version=int(facts.get("version", "0")), devices=tuple(devices))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
