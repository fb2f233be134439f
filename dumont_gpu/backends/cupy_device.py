"""A CUDA device through CuPy, with nvCOMP for LZ4: the only module that knows either."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dumont_gpu import native
from dumont_gpu.backends.device import KERNELS, DeviceMemoryError, Lz4Batch
from dumont_gpu.backends.kernel_sources import KernelSources
from dumont_gpu.backends.requirements import NVCOMP
from dumont_gpu.errors import DeviceError

_HOST_TO_DEVICE: Final = 1  # cudaMemcpyKind
_DEVICE_TO_HOST: Final = 2
_OUT_OF_MEMORY: Final = 2  # cudaErrorMemoryAllocation, and CUDA_ERROR_OUT_OF_MEMORY
_SHARED_MEMORY_OPTIN: Final = 97  # cudaDevAttrMaxSharedMemoryPerBlockOptin
_DEFAULT_SHARED: Final = 48 * 1024  # what a kernel may have without asking
_CUDA_BACKEND: Final = 2  # NVCOMP_DECOMPRESS_BACKEND_CUDA: Blackwell's engine reports success whatever it decodes


class CupyDevice:
    """CUDA device `number` of this machine; see `device.Device`."""

    def __init__(self, number: int) -> None:
        self._cupy, self._number = import_cupy(), number
        self._current = threading.local()  # CUDA's current device belongs to a thread
        self._loading = threading.Lock()
        self._loaded: dict[str, Any] = {}
        self._lz4 = load_nvcomp()
        with self._errors() as runtime:
            self.shared_limit: int = runtime.deviceGetAttribute(_SHARED_MEMORY_OPTIN, number)

    @property
    def name(self) -> str:
        return f"cuda:{self._number}"

    @property
    def has_lz4(self) -> bool:
        return self._lz4 is not None

    def lz4_encode_scratch(self, blocks: int, block_size: int) -> int:
        if self._lz4 is None:
            return 0
        size = ctypes.c_size_t()
        query = _scratch_query(self._lz4)
        if query(blocks, block_size, _EncodeOptions(), ctypes.byref(size), blocks * block_size, None):
            raise DeviceError(f"{self.name}: nvCOMP does not say how much memory LZ4 takes")
        return size.value

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
        except DeviceMemoryError as error:  # CUDA has one status for its own memory and the host's
            raise DeviceError(f"{self.name}: no more host memory can be pinned") from error

    def unpin(self, memory: memoryview) -> None:
        with self._errors() as runtime:
            runtime.hostUnregister(native.address_of(memory))

    def new_stream(self) -> CupyStream:
        with self._errors():
            return CupyStream(self, self._cupy.cuda.Stream(non_blocking=True))

    def close(self) -> None:
        pass  # the context is CuPy's, and may have other users in this process

    def kernel(self, name: str) -> Any:
        self.load_kernels()
        return self._loaded[name]

    def load_kernels(self) -> None:
        """Compiles every kernel, or takes it from CuPy's cache on disk: seconds the first time, then milliseconds."""
        if self._loaded:
            return
        with self._loading:  # or each thread with a chunk would compile
            if not self._loaded:
                self._loaded = self._load_all()

    def _load_all(self) -> dict[str, Any]:
        kernels = {}
        with self._errors():
            modules = {source: self._compile(source) for source in sorted(set(KERNELS.values()))}
            for name, source in KERNELS.items():
                kernel = kernels[name] = modules[source].get_function(name)
                kernel.compile()  # or the first launch would
                if self.shared_limit > _DEFAULT_SHARED:  # for what it declares itself and what a launch adds
                    kernel.max_dynamic_shared_size_bytes = self.shared_limit - kernel.shared_size_bytes
        return kernels

    def _compile(self, source: str) -> Any:
        # CuPy's cache knows the source and the options, not the headers: their digest is one of the options.
        sources = KernelSources.find()
        options = ("--std=c++17", *sources.include_options(), f"-DDUMONT_HEADERS={sources.digest_of_headers()}")
        return self._cupy.RawModule(code=sources.read(source), options=options, backend="nvrtc")

    @contextmanager
    def _errors(self) -> Iterator[Any]:
        """Makes the device current in this thread, yields CuPy's runtime, and turns its errors into ours."""
        try:
            cuda = self._cupy.cuda
            if not getattr(self._current, "set", False):
                cuda.runtime.setDevice(self._number)
                self._current.set = True
            yield cuda.runtime
        except DeviceError:
            raise
        except Exception as error:  # CUDA's own, and what CuPy finds missing at its first use: NVRTC, a call, a header
            if getattr(error, "status", None) == _OUT_OF_MEMORY:
                raise DeviceMemoryError(f"{self.name}: too little free device memory") from error
            raise DeviceError(f"{self.name}: {' '.join(str(error).split())[:300]}") from error


class CupyStream:
    def __init__(self, device: CupyDevice, stream: Any) -> None:
        self._device = device
        self.cupy_stream = stream  # for who measures

    def copy_in(self, to: int, source: memoryview) -> None:
        self._copy(to, native.address_of(source), len(source), _HOST_TO_DEVICE)

    def copy_out(self, to: memoryview, source: int) -> None:
        self._copy(native.address_of(to), source, len(to), _DEVICE_TO_HOST)

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
            status = library.nvcompBatchedLZ4DecompressAsync(
                batch.inputs, batch.input_sizes, batch.output_rooms, batch.output_sizes, batch.count, None, 0,
                batch.outputs, _DecodeOptions(backend=_CUDA_BACKEND), batch.statuses, self.cupy_stream.ptr,
            )  # fmt: skip
        self._check(status)

    def encode_lz4(self, batch: Lz4Batch, block_size: int, scratch: int) -> None:
        library = self._device._lz4
        if library is None:
            raise DeviceError(f"{self._device.name}: there is no nvCOMP")
        scratch_size = self._device.lz4_encode_scratch(batch.count, block_size)
        with self._device._errors():
            status = library.nvcompBatchedLZ4CompressAsync(
                batch.inputs, batch.input_sizes, block_size, batch.count, scratch, scratch_size, batch.outputs,
                batch.output_sizes, _EncodeOptions(), batch.statuses, self.cupy_stream.ptr,
            )  # fmt: skip
        self._check(status)

    def _check(self, status: int) -> None:
        if status:
            raise DeviceError(f"{self._device.name}: nvCOMP refuses a batch of LZ4 blocks (status {status})")

    def synchronize(self) -> None:
        with self._device._errors() as runtime:
            runtime.streamSynchronize(self.cupy_stream.ptr)

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        if size:
            with self._device._errors() as runtime:
                runtime.memcpyAsync(to, source, size, kind, self.cupy_stream.ptr)


# ---------------------------------------------------------------------------------------------------------------
# CuPy.


def import_cupy() -> Any:
    """Imports CuPy, with a place for its compiled kernels also where the home directory cannot be written to.

    Raises:
        DeviceError: it is not there, or does not load.
    """
    if "CUPY_CACHE_DIR" not in os.environ and not _cache_is_writable():
        os.environ["CUPY_CACHE_DIR"] = _private_cache().name
    try:
        import cupy
    except Exception as error:  # its own, those of what it imports, and what a broken installation makes of them
        raise DeviceError(f"CuPy does not load: {' '.join(str(error).split())[:300]}") from error
    return cupy


@functools.cache
def _private_cache() -> tempfile.TemporaryDirectory[str]:
    """A folder that is there until the process ends."""
    return tempfile.TemporaryDirectory(prefix="dumont-gpu-kernels-", ignore_cleanup_errors=True)


def _cache_is_writable() -> bool:
    try:
        folder = Path("~/.cupy/kernel_cache").expanduser()  # CuPy's default, made when it is imported
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter: there is no home
        return False
    return os.access(folder, os.W_OK | os.X_OK)


# ---------------------------------------------------------------------------------------------------------------
# nvCOMP's C library. Its Python binding decodes lists of arrays, an object for each block of 64 KiB; the batched call
# takes the tables that the host has made anyway.


class _EncodeOptions(ctypes.Structure):
    """nvcompBatchedLZ4CompressOpts_t: plain bytes, so all zero."""

    _fields_ = (("data_type", ctypes.c_int), ("bitshuffle_mode", ctypes.c_int), ("reserved", ctypes.c_char * 56))


class _DecodeOptions(ctypes.Structure):
    """nvcompBatchedLZ4DecompressOpts_t of nvCOMP 5.1 to 6; what 5.1 lacks is reserved there and 0 here."""

    _fields_ = (
        ("backend", ctypes.c_int), ("sort_before_hw_decompress", ctypes.c_int), ("data_type", ctypes.c_int),
        ("bitshuffle_mode", ctypes.c_int), ("reserved", ctypes.c_char * 48),
    )  # fmt: skip


@functools.cache
def load_nvcomp() -> ctypes.CDLL | None:
    """Returns nvCOMP with the calls declared, or None if there is none that decodes LZ4 blocks where they lie."""
    path = nvcomp_path()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        decode, encode = library.nvcompBatchedLZ4DecompressAsync, library.nvcompBatchedLZ4CompressAsync
        alignments = library.nvcompBatchedLZ4DecompressGetRequiredAlignments
        scratch = _scratch_query(library)
    except (OSError, AttributeError):
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    decode.argtypes = [
        pointer,
        pointer,
        pointer,
        pointer,
        size,
        pointer,
        size,
        pointer,
        _DecodeOptions,
        pointer,
        pointer,
    ]
    encode.argtypes = [pointer, pointer, size, size, pointer, size, pointer, pointer, _EncodeOptions, pointer, pointer]
    scratch.argtypes = [size, size, _EncodeOptions, pointer, size, pointer]
    alignments.argtypes = [_DecodeOptions, pointer]
    required = (size * 3)()  # of stored bytes, original bytes and temporary memory, of which LZ4 needs none
    if alignments(_DecodeOptions(backend=_CUDA_BACKEND), required) or required[0] != 1:
        return None  # blocks of a frame lie at any address
    return library


def _scratch_query(library: ctypes.CDLL) -> Any:
    """nvCOMP 6 renamed it and gave it a stream, which 5 ignores: one argument more does no harm there."""
    try:
        return library.nvcompBatchedLZ4CompressGetTempSize
    except AttributeError:
        return library.nvcompBatchedLZ4CompressGetTempSizeAsync


def nvcomp_path() -> Path | None:
    """Returns nvCOMP's library, as the wheels nvidia-libnvcomp-cu12 and -cu13 install it."""
    # Not by importing `nvidia`: where one of its many packages has an `__init__.py`, the others' folders are not seen.
    for name in NVCOMP:
        try:
            folder = Path(str(importlib.metadata.distribution(name).locate_file("nvidia/libnvcomp")))
        except importlib.metadata.PackageNotFoundError:
            continue
        if found := max(folder.glob("lib*/libnvcomp.so.*"), default=None):
            return found
    return None
