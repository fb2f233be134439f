"""A CUDA device through CuPy: the only module that knows CuPy."""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from dumont_gpu import native
from dumont_gpu.backends.device import DeviceMemoryError, Lz4Batch
from dumont_gpu.backends.kernel_cache import KernelCache
from dumont_gpu.backends.kernel_compiler import KernelCompiler
from dumont_gpu.backends.kernel_options import kernel_options
from dumont_gpu.backends.kernels import KERNELS
from dumont_gpu.backends.nvcomp import decode_lz4, encode_lz4, load_nvcomp, lz4_encode_scratch
from dumont_gpu.errors import DeviceError

_HOST_TO_DEVICE: Final = 1  # cudaMemcpyKind
_DEVICE_TO_HOST: Final = 2
_WITHIN_DEVICE: Final = 3
_OUT_OF_MEMORY: Final = 2  # cudaErrorMemoryAllocation, and CUDA_ERROR_OUT_OF_MEMORY
_SHARED_MEMORY_OPTIN: Final = 97  # cudaDevAttrMaxSharedMemoryPerBlockOptin
_CAPABILITY: Final = 75, 76  # cudaDevAttrComputeCapabilityMajor, -Minor
_DEFAULT_SHARED: Final = 48 * 1024  # bytes that a kernel gets without asking for more


class CupyDevice:
    """CUDA device `number` of this machine; see `device.Device`."""

    def __init__(self, number: int) -> None:
        self._cupy, self._number = import_cupy(), number
        self._bound = threading.local()  # CUDA's current device, and its context, belong to a thread
        self._loading = threading.Lock()
        self._loaded: dict[str, Any] = {}
        self._lz4 = load_nvcomp()
        with self._errors() as runtime:
            self.shared_limit: int = runtime.deviceGetAttribute(_SHARED_MEMORY_OPTIN, number)

    @property
    def name(self) -> str:
        return f"cuda:{self._number}"

    @property
    def capability(self) -> str:
        """The compute capability, such as "9.0"."""
        with self._errors() as runtime:
            return ".".join(str(runtime.deviceGetAttribute(which, self._number)) for which in _CAPABILITY)

    @property
    def has_lz4(self) -> bool:
        return self._lz4 is not None

    def lz4_encode_scratch(self, blocks: int, block_size: int) -> int:
        if self._lz4 is None:
            return 0
        size = lz4_encode_scratch(self._lz4, blocks, block_size)
        if size is None:
            raise DeviceError(f"{self.name}: nvCOMP does not say how much memory LZ4 takes")
        return size

    def free_memory(self) -> int:
        with self._errors() as runtime:
            free: int = runtime.memGetInfo()[0]
        return free

    def allocate(self, size: int) -> int:
        with self._errors() as runtime:
            address: int = runtime.malloc(size)
        return address

    def free(self, address: int) -> None:
        with self._errors() as runtime:
            runtime.free(address)

    def pin(self, memory: memoryview) -> None:
        try:
            with self._errors() as runtime:
                runtime.hostRegister(native.address_of(memory), len(memory), 0)
        except DeviceMemoryError as error:  # CUDA has one status for device memory and host memory
            raise DeviceError(f"{self.name}: no more host memory can be pinned") from error

    def unpin(self, memory: memoryview) -> None:
        with self._errors() as runtime:
            runtime.hostUnregister(native.address_of(memory))

    def new_stream(self) -> CupyStream:
        with self._errors():
            cuda = self._cupy.cuda
            return CupyStream(self, cuda.Stream(non_blocking=True), cuda.Event(block=True, disable_timing=True))

    def close(self) -> None:
        pass  # the context is CuPy's, and other code of this process may use it

    def kernel(self, name: str) -> Any:
        self.load_kernels()
        return self._loaded[name]

    def load_kernels(self) -> None:
        """Takes the kernels from our cache on disk; compiles them the first time, which takes seconds."""
        if self._loaded:
            return
        with self._loading:  # or every thread with a chunk would compile the kernels
            if not self._loaded:
                self._loaded = self._load_all()

    def compile(self, source: str, names: Iterable[str], *options: str) -> dict[str, Any]:
        """Returns kernels of one `.cu` file by name, compiled with further options unless our cache has them."""
        kernels = {}
        with self._errors(), tempfile.TemporaryDirectory(prefix="dumont-gpu-") as folder:
            compiler = KernelCompiler(self._cupy, self.capability.replace(".", ""), KernelCache.of_user())
            # A file of our own: what is in the cache now was not necessarily what we checked.
            path = Path(folder) / f"{source}.cubin"
            path.write_bytes(compiler.code(source, *options))
            module = self._cupy.RawModule(path=str(path))
            for name in names:
                kernel = kernels[name] = module.get_function(name)
                kernel.compile()  # loads the module, while its file is there
                if self.shared_limit > _DEFAULT_SHARED:  # shared memory that the kernel itself declares counts, too
                    kernel.max_dynamic_shared_size_bytes = self.shared_limit - kernel.shared_size_bytes
        return kernels

    def _load_all(self) -> dict[str, Any]:
        kernels: dict[str, Any] = {}
        for source in sorted({kernel.source for kernel in KERNELS.values()}):
            names = [name for name, kernel in KERNELS.items() if kernel.source == source]
            kernels |= self.compile(source, names, *kernel_options(source, self.capability))
        return kernels

    @contextmanager
    def _errors(self) -> Iterator[Any]:
        """Makes the device current, yields CuPy's runtime, and turns its errors into ours.

        The thread may be a caller's, who chose another device before, and finds it again.
        """
        before = None
        try:
            runtime = self._cupy.cuda.runtime
            before = runtime.getDevice()
            if before != self._number or not getattr(self._bound, "done", False):
                runtime.setDevice(self._number)  # the first time in a thread, this also gives it the device's context
                self._bound.done = True
            yield runtime
        except DeviceError:
            raise
        except Exception as error:  # of CUDA, or of CuPy, which may miss NVRTC, a function or a header at first use
            if getattr(error, "status", None) == _OUT_OF_MEMORY:
                raise DeviceMemoryError(f"{self.name}: too little free device memory") from error
            raise DeviceError(f"{self.name}: {' '.join(str(error).split())[:300]}") from error
        finally:
            if before not in (None, self._number):
                with suppress(Exception):  # of a lost device, which has been reported
                    self._cupy.cuda.runtime.setDevice(before)


class CupyStream:
    def __init__(self, device: CupyDevice, stream: Any, done: Any) -> None:
        self._device, self._done = device, done
        self.cupy_stream = stream  # public for benchmarks

    def copy_in(self, to: int, source: memoryview) -> None:
        self._copy(to, native.address_of(source), len(source), _HOST_TO_DEVICE)

    def copy_out(self, to: memoryview, source: int) -> None:
        self._copy(native.address_of(to), source, len(to), _DEVICE_TO_HOST)

    def copy(self, to: int, source: int, size: int) -> None:
        self._copy(to, source, size, _WITHIN_DEVICE)

    def clear(self, address: int, size: int) -> None:
        if size:
            with self._device._errors() as runtime:
                runtime.memsetAsync(address, 0, size, self.cupy_stream.ptr)

    def launch(self, kernel: str, grid: int, block: int, shared: int, arguments: Sequence[int]) -> None:
        function = self._device.kernel(kernel)
        with self._device._errors():
            function((grid,), (block,), tuple(arguments), shared_mem=shared, stream=self.cupy_stream)

    def decode_lz4(self, batch: Lz4Batch) -> None:
        library = self._device._lz4
        if library is None:
            raise DeviceError(f"{self._device.name}: there is no nvCOMP")
        with self._device._errors():
            status = decode_lz4(library, batch, self.cupy_stream.ptr)
        self._check(status)

    def encode_lz4(self, batch: Lz4Batch, block_size: int, scratch: int) -> None:
        library = self._device._lz4
        if library is None:
            raise DeviceError(f"{self._device.name}: there is no nvCOMP")
        scratch_size = self._device.lz4_encode_scratch(batch.count, block_size)
        with self._device._errors():
            status = encode_lz4(library, batch, block_size, scratch, scratch_size, self.cupy_stream.ptr)
        self._check(status)

    def _check(self, status: int) -> None:
        if status:
            raise DeviceError(f"{self._device.name}: nvCOMP refuses a batch of LZ4 blocks (status {status})")

    def synchronize(self) -> None:
        # Waits for an event that blocks: waiting for the stream would spin, on a core that hashing needs.
        with self._device._errors():
            self._done.record(self.cupy_stream)
            self._done.synchronize()

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        if size:
            with self._device._errors() as runtime:
                runtime.memcpyAsync(to, source, size, kind, self.cupy_stream.ptr)


# ---------------------------------------------------------------------------------------------------------------
# CuPy.


def import_cupy() -> Any:
    """Imports CuPy; gives CuPy a cache for compiled kernels if the home directory cannot hold the cache.

    Raises:
        DeviceError: CuPy is not installed, or does not load.
    """
    if "CUPY_CACHE_DIR" not in os.environ and not _cache_is_writable():
        os.environ["CUPY_CACHE_DIR"] = _private_cache().name
    try:
        import cupy
    except Exception as error:  # of CuPy, of a package that it imports, or of a broken installation
        raise DeviceError(f"CuPy does not load: {' '.join(str(error).split())[:300]}") from error
    return cupy


@functools.cache
def _private_cache() -> tempfile.TemporaryDirectory[str]:
    """Returns a folder that is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="dumont-gpu-kernels-", ignore_cleanup_errors=True)


def _cache_is_writable() -> bool:
    try:
        folder = Path("~/.cupy/kernel_cache").expanduser()  # CuPy's default, made when CuPy is imported
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return False
    return os.access(folder, os.W_OK | os.X_OK)
