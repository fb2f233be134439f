"""How the device answers when CuPy, its compiler or its cache fail: with a CuPy made for the test, without a GPU."""
# ruff: noqa: N802  # the names of NVRTC

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from dumont_gpu.backends import kernel_compiler
from dumont_gpu.backends.cupy_device import CupyDevice, import_cupy
from dumont_gpu.backends.device import DeviceMemoryError
from dumont_gpu.backends.kernel_sources import KernelSources
from dumont_gpu.backends.kernels import KERNELS
from dumont_gpu.backends.nvcomp import nvcomp_path
from dumont_gpu.errors import DeviceError


class CudaError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


class Kernel:
    max_dynamic_shared_size_bytes = 0
    shared_size_bytes = 1024

    def compile(self) -> None:
        pass


class NvrtcError(RuntimeError):
    pass


class Nvrtc:
    """A compiler made for the test: counts what it compiles, and fails with `error`."""

    NVRTCError = NvrtcError

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.compiled: list[tuple[str, tuple[str, ...]]] = []
        self.programs = 0

    def getSupportedArchs(self) -> list[int]:
        return [75, 80, 90]

    def createProgram(self, source: str, name: str, headers: tuple[str, ...], include_names: tuple[str, ...]) -> str:
        self.programs += 1
        return name

    def compileProgram(self, program: str, options: tuple[str, ...]) -> None:
        time.sleep(0.01)
        if self.error is not None:
            raise self.error
        self.compiled.append((program, options))

    def getCUBIN(self, program: str) -> bytes:
        return f"cubin of {program}".encode()

    def getPTX(self, program: str) -> bytes:
        return f"ptx of {program}".encode()

    def getProgramLog(self, program: str) -> str:
        return "error: expected a ;"

    def destroyProgram(self, program: str) -> None:
        self.programs -= 1


class Event:
    """Notes how it was made and used."""

    made: ClassVar[list[Event]] = []

    def __init__(self, *, block: bool, disable_timing: bool) -> None:
        self.calls: list[object] = [(block, disable_timing)]
        self.made.append(self)

    def record(self, stream: object) -> None:
        self.calls.append(stream)

    def synchronize(self) -> None:
        self.calls.append("synchronize")


class Module:
    """Loads a file, as CuPy does, when its first kernel is asked to `compile`."""

    loaded: ClassVar[list[bytes]] = []

    def __init__(self, *, path: str) -> None:
        self.path = path

    def get_function(self, name: str) -> Kernel:
        kernel = Kernel()
        kernel.compile = lambda: self.loaded.append(Path(self.path).read_bytes())  # type: ignore[method-assign]
        return kernel


def cupy_with(nvrtc: Nvrtc, architecture: str, runtime: dict[str, Any]) -> Any:
    attributes = {75: int(architecture[:-1]), 76: int(architecture[-1]), 97: 100 * 1024}
    calls = {
        "getDevice": lambda: 0,
        "setDevice": lambda number: None,
        "deviceGetAttribute": lambda which, number: attributes[which],
    } | runtime
    return SimpleNamespace(
        __version__="14.0.1",
        RawModule=Module,
        cuda=SimpleNamespace(
            runtime=SimpleNamespace(**calls),
            nvrtc=nvrtc,
            Stream=lambda **options: SimpleNamespace(ptr=1),
            Event=Event,
        ),
    )


@pytest.fixture
def open_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., CupyDevice]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(Module, "loaded", [])
    monkeypatch.setattr(Event, "made", [])

    def open_with(nvrtc: Nvrtc | None = None, architecture: str = "90", **runtime: Any) -> CupyDevice:
        monkeypatch.setitem(sys.modules, "cupy", cupy_with(nvrtc or Nvrtc(), architecture, runtime))
        return CupyDevice(0)

    return open_with


SOURCES = sorted({kernel.source for kernel in KERNELS.values()})


def test_kernels_are_compiled_once_however_many_threads_ask(open_with: Callable[..., CupyDevice]) -> None:
    device = open_with(nvrtc := Nvrtc())
    with ThreadPoolExecutor(8) as pool:
        kernels = list(pool.map(device.kernel, ["zipnn_decode"] * 8))
    assert [name for name, _ in nvrtc.compiled] == SOURCES
    assert all("-arch=sm_90" in options for _, options in nvrtc.compiled)
    assert nvrtc.programs == 0
    assert set(kernels) == {kernels[0]}
    assert kernels[0].max_dynamic_shared_size_bytes == 99 * 1024  # CUDA counts the kernel's own declarations, too


def test_the_second_start_loads_no_compiler(open_with: Callable[..., CupyDevice]) -> None:
    open_with().load_kernels()
    first = sorted(Module.loaded)
    Module.loaded.clear()
    device = open_with(Nvrtc(AssertionError("the compiler was loaded")))
    del device._cupy.cuda.nvrtc
    device.load_kernels()
    assert sorted(Module.loaded) == first
    assert set(first) == {f"cubin of {name}".encode() for name in SOURCES}


@pytest.mark.parametrize("changed", ["architecture", "compiler", "sources", "cupy"])
def test_what_was_compiled_for_something_else_is_not_taken(
    changed: str, open_with: Callable[..., CupyDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_with().load_kernels()
    device = open_with(nvrtc := Nvrtc(), architecture="80" if changed == "architecture" else "90")
    if changed == "compiler":
        monkeypatch.setattr(kernel_compiler, "_nvrtc_version", lambda: "99.0")
    elif changed == "sources":
        monkeypatch.setattr(KernelSources, "digest", lambda sources: "changed")
    elif changed == "cupy":
        device._cupy.__version__ = "15.0"
    device.load_kernels()
    assert [name for name, _ in nvrtc.compiled] == SOURCES


def test_a_device_newer_than_the_compiler_gets_what_its_driver_can_compile(
    open_with: Callable[..., CupyDevice],
) -> None:
    open_with(nvrtc := Nvrtc(), architecture="100").load_kernels()
    assert all("-arch=compute_90" in options for _, options in nvrtc.compiled)
    assert set(Module.loaded) == {f"ptx of {name}".encode() for name in SOURCES}


def test_waiting_blocks_and_does_not_spin(open_with: Callable[..., CupyDevice]) -> None:
    stream = open_with().new_stream()
    for _ in range(2):
        stream.synchronize()
    (event,) = Event.made
    assert event.calls == [(True, True), *[stream.cupy_stream, "synchronize"] * 2]


@pytest.mark.parametrize(
    "error",
    [NvrtcError("no"), RuntimeError("CuPy failed to load libnvrtc.so"), PermissionError(13, "cache"), CudaError(1)],
)
def test_kernels_that_cannot_be_made_are_a_device_error(error: Exception, open_with: Callable[..., CupyDevice]) -> None:
    with pytest.raises(DeviceError, match="cuda:0: |does not compile: error: expected"):
        open_with(nvrtc := Nvrtc(error)).load_kernels()
    assert nvrtc.programs == 0


def test_memory_that_runs_short_has_an_error_of_its_own(open_with: Callable[..., CupyDevice]) -> None:
    def malloc(size: int) -> int:
        raise CudaError(2 if size > 1000 else 700)

    device = open_with(malloc=malloc)
    with pytest.raises(DeviceMemoryError):
        device.allocate(2000)
    with pytest.raises(DeviceError) as caught:
        device.allocate(1)
    assert not isinstance(caught.value, DeviceMemoryError)


def test_a_caller_finds_the_device_that_it_chose_again(open_with: Callable[..., CupyDevice]) -> None:
    current = [3]
    malloc_on: list[int] = []

    def malloc(size: int) -> int:
        malloc_on.append(current[0])
        if size > 1000:
            raise CudaError(2)
        return 256

    device = open_with(
        getDevice=lambda: current[0], setDevice=lambda number: current.__setitem__(0, number), malloc=malloc
    )
    device.allocate(1)
    assert current == [3]
    current[0] = 5  # the caller goes to another device between two calls
    device.allocate(1)
    with pytest.raises(DeviceMemoryError):
        device.allocate(2000)
    assert (current, malloc_on) == ([5], [0, 0, 0])


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
