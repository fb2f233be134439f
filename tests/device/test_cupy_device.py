"""How the device answers when CuPy, its compiler or its cache fail: with a CuPy made for the test, without a GPU."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dumont_gpu.backends.cupy_device import CupyDevice, import_cupy
from dumont_gpu.backends.device import DeviceMemoryError
from dumont_gpu.backends.kernels import KERNELS
from dumont_gpu.backends.nvcomp import nvcomp_path
from dumont_gpu.errors import DeviceError


class CudaError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


class CompileError(Exception):
    pass


class Kernel:
    max_dynamic_shared_size_bytes = 0
    shared_size_bytes = 1024

    def compile(self) -> None:
        pass


def cupy_with(compiling: Callable[..., Any], runtime: dict[str, Any]) -> Any:
    calls = {"setDevice": lambda number: None, "deviceGetAttribute": lambda which, number: 100 * 1024} | runtime
    return SimpleNamespace(
        RawModule=compiling,
        cuda=SimpleNamespace(runtime=SimpleNamespace(**calls), compiler=SimpleNamespace(CompileException=CompileError)),
    )


@pytest.fixture
def open_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CupyDevice]:
    def open_with(compiling: Callable[..., Any] = SimpleNamespace, **runtime: Any) -> CupyDevice:
        monkeypatch.setitem(sys.modules, "cupy", cupy_with(compiling, runtime))
        return CupyDevice(0)

    return open_with


def test_kernels_are_compiled_once_however_many_threads_ask(open_with: Callable[..., CupyDevice]) -> None:
    compiled = []

    def compiling(**options: Any) -> Any:
        compiled.append(threading.get_ident())
        time.sleep(0.05)
        return SimpleNamespace(get_function=lambda name: Kernel())

    device = open_with(compiling)
    with ThreadPoolExecutor(8) as pool:
        kernels = list(pool.map(device.kernel, ["zipnn_decode"] * 8))
    assert len(compiled) == len({kernel.source for kernel in KERNELS.values()})
    assert set(kernels) == {kernels[0]}
    assert kernels[0].max_dynamic_shared_size_bytes == 99 * 1024  # CUDA counts the kernel's own declarations, too


@pytest.mark.parametrize(
    "error",
    [CompileError("no"), RuntimeError("CuPy failed to load libnvrtc.so"), PermissionError(13, "cache"), CudaError(1)],
)
def test_kernels_that_cannot_be_made_are_a_device_error(error: Exception, open_with: Callable[..., CupyDevice]) -> None:
    def compiling(**options: Any) -> Any:
        raise error

    with pytest.raises(DeviceError, match="cuda:0: "):
        open_with(compiling).load_kernels()


def test_memory_that_runs_short_has_an_error_of_its_own(open_with: Callable[..., CupyDevice]) -> None:
    def malloc(size: int) -> int:
        raise CudaError(2 if size > 1000 else 700)

    device = open_with(malloc=malloc)
    with pytest.raises(DeviceMemoryError):
        device.allocate(2000)
    with pytest.raises(DeviceError) as caught:
        device.allocate(1)
    assert not isinstance(caught.value, DeviceMemoryError)


@pytest.mark.parametrize("is_there", [False, True])
def test_cupy_that_does_not_load_is_a_device_error(
    is_there: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if is_there:
        (tmp_path / "cupy.py").write_text("raise RuntimeError('built for another NumPy')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match="does not load"):
        import_cupy()


def test_kernel_cache_goes_elsewhere_where_the_home_cannot_hold_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CUPY_CACHE_DIR", "mine")
    import_cupy()
    assert os.environ["CUPY_CACHE_DIR"] == "mine"
    monkeypatch.delenv("CUPY_CACHE_DIR")
    import_cupy()
    assert "CUPY_CACHE_DIR" not in os.environ
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    (tmp_path / "file").write_text("")
    import_cupy()
    assert Path(os.environ["CUPY_CACHE_DIR"]).is_dir()
    monkeypatch.delenv("CUPY_CACHE_DIR")


def test_nvcomp_is_found_though_another_package_hides_the_namespace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "b" / "nvidia" / "libnvcomp" / "lib64" / "libnvcomp.so.6"
    for file in (library, tmp_path / "a" / "nvidia" / "__init__.py"):
        file.parent.mkdir(parents=True)
        file.write_text("")
    info = tmp_path / "b" / "nvidia_libnvcomp_cu13-6.0.0.dist-info" / "METADATA"
    info.parent.mkdir()
    info.write_text("Metadata-Version: 2.1\nName: nvidia-libnvcomp-cu13\nVersion: 6.0.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b"), *sys.path])
    assert nvcomp_path() == library
