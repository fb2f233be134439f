"""A failing driver, or a missing package: no GPU, because …; never a crash, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.devices import prefer_devices, wake_at_once
from support.emulated_device import EmulatedDevice
from support.hostile import Ran, command
from support.snapshots import GOLDEN

from dumont_gpu.backends import AutoBackend, device_codecs, driver, open_device, select_backend, waking
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.backends.device import NoDeviceError
from dumont_gpu.backends.driver import Driver
from dumont_gpu.codecs import Lz4
from dumont_gpu.errors import DamagedError

WORKS = """
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int size, int device) { name[0] = 'X'; name[1] = 0; return 0; }
"""
CRASH = "*(volatile int *)0 = 1;"
BROKEN = {
    "int nothing_of_a_driver;": "has no cuInit",
    f"int cuInit(int flags) {{ {CRASH} return 0; }} {WORKS}": "crashes (SIGSEGV)",
    f"#include <stdlib.h>\nint cuInit(int flags) {{ abort(); }} {WORKS}": "crashes (SIGABRT)",
    f"#include <stdlib.h>\nint cuInit(int flags) {{ exit(3); }} {WORKS}": "cannot be asked (exit code 3)",
    f"int cuInit(int flags) {{ return 999; }} {WORKS}": "does not start (cuInit returned 999)",
    f"int cuInit(int flags) {{ return -1; }} {WORKS}": "does not start (cuInit returned -1)",
    "int cuInit(int flags) { return 0; }": "has no cuDriverGetVersion",
    "int cuInit(int flags) { return 0; }" + WORKS.replace("*count = 1; return 0", "return 1"): "how many devices",
    "int cuInit(int flags) { return 0; }" + WORKS.replace("*count = 1", "*count = -5"): "how many devices",
    "int cuInit(int flags) { return 0; }" + WORKS.replace("*count = 1", "*count = 2147483647"): "how many devices",
    "int cuInit(int flags) { return 0; }" + WORKS.replace("name[1] = 0", CRASH): "crashes (SIGSEGV)",
}
GOOD = "int cuInit(int flags) { return 0; }" + WORKS


def build(folder: Path, code: str) -> None:
    """Makes a libcuda.so.1 of C code, or skips where there is no compiler."""
    (folder / "driver.c").write_text(code)
    try:
        line = ["gcc", "-w", "-shared", "-fPIC", "driver.c", "-o", "libcuda.so.1"]
        subprocess.run(line, cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs gcc")


def install_cupy(folder: Path, code: str) -> None:
    """Makes a CuPy that the list of installed packages contains."""
    (folder / "cupy.py").write_text(code)
    about = folder / "cupy_cuda12x-14.0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cupy-cuda12x\nVersion: 14.0.1\n")


def on_machine(folder: Path, *arguments: str | Path) -> Ran:
    """Runs the command line where `folder` holds the driver and Python packages."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    return command(*arguments, env=environment)


def doctor(folder: Path) -> dict[str, tuple[bool, str]]:
    ran = on_machine(folder, "doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    findings = [json.loads(line) for line in ran.out.splitlines()]
    return {finding["what"]: (finding["found"], finding["detail"]) for finding in findings}


def device_used(folder: Path) -> str:
    """Says what `auto` makes of the machine, once there is enough to do."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    code = (
        "from dumont_gpu.backends import forecast, select_backend;"
        "forecast.WORTH_WAKING, forecast.WAKING_SECONDS, forecast.STEP_SECONDS = 0, 0, 0;"
        "backend = select_backend('auto'); backend.prepare(1 << 20, decode=True); backend.expect(1);"
        "[thread.join() for thread in backend._waking._threads]; backend.close(); print(backend.name)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    return ran.stdout.rstrip("\n")


@pytest.mark.parametrize("code", BROKEN, ids=BROKEN.values())
def test_a_driver_that_fails_is_no_gpu_and_why_is_said(code: str, tmp_path: Path) -> None:
    build(tmp_path, code)
    found, detail = doctor(tmp_path)["NVIDIA driver"]
    assert not found
    assert detail.startswith("the NVIDIA driver ") and BROKEN[code] in detail
    assert device_used(tmp_path) == "cpu"  # without CuPy, nobody wants a device
    install_cupy(tmp_path, "")
    assert device_used(tmp_path) == (
        f"cpu (no GPU: CUDA device 0 cannot be used: {detail}; --device auto goes on without one)"
    )
    ran = on_machine(tmp_path, "restore", GOLDEN / "example.dumont", tmp_path / "t", "--device", "0")
    assert ran.code == 7
    assert ran.error
    assert not (tmp_path / "t").exists()


def test_a_file_that_is_no_library_is_said(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("a stub of an image that was built without a driver")
    found, detail = doctor(tmp_path)["NVIDIA driver"]
    assert not found
    assert detail.startswith("the NVIDIA driver cannot be loaded: ")
    assert device_used(tmp_path) == "cpu"


def test_a_driver_that_works_is_shown(tmp_path: Path) -> None:
    build(tmp_path, GOOD)
    found = doctor(tmp_path)
    assert found["NVIDIA driver"] == (True, "CUDA 12.4")
    assert found["CUDA device 0"] == (True, "X")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A driver is there, and does not answer."""
    monkeypatch.setattr(driver, "_QUESTION", "import time; print('init 0', flush=True); time.sleep(60)")
    monkeypatch.setattr(driver, "_loading_error", lambda: "")
    driver._asked.cache_clear()
    yield
    asked = driver._asked()
    assert not isinstance(asked, OSError)
    asked.kill()
    asked.communicate()
    driver._asked.cache_clear()


@pytest.mark.parametrize("first", [driver.begin_asking, lambda: driver.wait_for_answer(lambda: True)])
def test_a_driver_that_hangs_is_not_waited_for(
    first: Callable[[], None], hanging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_PATIENCE", 0.1)
    first()
    assert driver._interpreted(*driver._answer()) == Driver(True, "the NVIDIA driver does not answer within 0 s")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('libcudart.so.12: cannot open')", "CuPy does not load: libcudart.so.12: cannot open"),
        ("raise ValueError('numpy.dtype size changed')", "CuPy does not load: numpy.dtype size changed"),
        ("1 / 0", "CuPy does not load: division by zero"),
        ("import warnings; warnings.warn('two CuPys')", "has no attribute 'cuda'"),
        ("class cuda:\n    class runtime:\n        pass", "has no attribute 'getDevice'"),
    ],
)
def test_a_cupy_that_fails_is_no_gpu_and_why_is_said(code: str, said: str, tmp_path: Path) -> None:
    build(tmp_path, GOOD)
    install_cupy(tmp_path, code)
    used = device_used(tmp_path)
    assert used.startswith("cpu (no GPU: ")
    assert said in used


def test_nvcomp_that_does_not_load_is_told_by_doctor(tmp_path: Path) -> None:
    build(tmp_path, GOOD)
    install_cupy(tmp_path, "")
    assert doctor(tmp_path)["CUDA kernels"] == (False, f"nvCOMP is {doctor(tmp_path)['nvCOMP'][1]}")


class NoKernels(EmulatedDevice):
    def load_kernels(self) -> None: ...


class Odd(CudaBackend):
    """A backend whose libraries raise unexpected errors."""

    def __init__(self, error: Exception) -> None:
        super().__init__(NoKernels(), minimum=0)
        self.error = error

    def prepare(self, *arguments: object, **named: object) -> None: ...

    def encodes(self, *arguments: object) -> bool:
        return True

    def encode_there(self, *arguments: object) -> tuple[int, bool]:
        raise self.error


def encode_on(backend: AutoBackend) -> None:
    chunk, out = memoryview(b"again and " * 1000), memoryview(bytearray(10_000))
    assert backend.encode(Lz4(), chunk, out) > 0


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], AutoBackend]:
    def odd(error: Exception) -> AutoBackend:
        wake_at_once(monkeypatch)
        monkeypatch.setattr(device_codecs, "WORTH_THE_TRIP", 0)
        backend = AutoBackend(lambda go_on: Odd(error), 1)
        backend.prepare(10_000, encode=True)
        backend.expect(1 << 40)
        return backend

    return odd


@pytest.mark.parametrize(
    "error", [AttributeError("no such call"), ValueError("odd"), KeyError(1), OSError(5, "driver")]
)
def test_whatever_a_device_raises_the_processor_finishes_the_job(
    error: Exception, odd: Callable[[Exception], AutoBackend]
) -> None:
    backend = odd(error)
    encode_on(backend)
    backend.close()
    assert backend.name == f"cpu (cuda:0: {type(error).__name__}: {error})"


def test_damage_is_not_blamed_on_the_device(
    odd: Callable[[Exception], AutoBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer_devices(monkeypatch)
    monkeypatch.setattr(waking, "try_device", lambda *arguments: 0.0)
    monkeypatch.setattr(Odd, "slots", 4)
    backend = odd(DamagedError("malformed"))
    encode_on(backend)
    with pytest.raises(DamagedError):
        encode_on(backend)
    assert backend.name == "cpu"
    backend.close()


def test_a_machine_without_a_driver_says_nothing_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wake_at_once(monkeypatch)
    monkeypatch.setattr("dumont_gpu.backends.requirements.driver_is_there", lambda: False)
    backend = select_backend("auto")
    backend.expect(1 << 40)
    backend.close()
    assert backend.name == "cpu"


def test_a_job_that_ends_does_not_wait_for_a_driver_that_hangs(hanging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = iter([True, True, False, False])
    monkeypatch.setattr("dumont_gpu.backends.requirements.missing_packages", lambda needs_lz4: "")
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace())
    with pytest.raises(NoDeviceError, match="not wanted any more"):
        open_device(0, go_on=lambda: next(wanted))
