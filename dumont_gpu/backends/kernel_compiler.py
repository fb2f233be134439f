"""Compiles kernels with NVRTC, through CuPy, where the cache does not have them."""

from __future__ import annotations

import hashlib
import importlib.metadata
from typing import Any, Final

from dumont_gpu.backends.kernel_cache import KernelCache
from dumont_gpu.backends.kernel_sources import KernelSources
from dumont_gpu.errors import DeviceError

_OPTIONS: Final = ("--std=c++17", "-ftz=true")
_NVRTC: Final = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


class KernelCompiler:
    """Args:
    cupy: the package.
    architecture: the device's compute capability, such as "90".
    cache: keeps what is compiled; None: nothing does.
    """

    def __init__(self, cupy: Any, architecture: str, cache: KernelCache | None) -> None:
        self._cupy, self._architecture, self._cache = cupy, architecture, cache
        self._sources = KernelSources.find()
        self._digest = self._sources.digest()

    def code(self, source: str, *options: str) -> bytes:
        """Returns the code of one `.cu` file, for the device's architecture. NVRTC is loaded only if it must be.

        Raises:
            DeviceError: the file does not compile.
        """
        key = self._key(source, options)
        code = self._cache.load(key) if self._cache is not None else None
        if code is None:
            code = self._compile(source, options)
            if self._cache is not None:
                self._cache.store(key, code)
        return code

    def _key(self, source: str, options: tuple[str, ...]) -> str:
        facts = (
            source,
            self._digest,
            self._architecture,
            self._cupy.__version__,
            _nvrtc_version(),
            *_OPTIONS,
            *options,
        )
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()

    def _compile(self, source: str, options: tuple[str, ...]) -> bytes:
        nvrtc = self._cupy.cuda.nvrtc
        known = [int(number) for number in nvrtc.getSupportedArchs()]
        newest = max(number for number in known if number <= int(self._architecture))
        exact = newest == int(self._architecture)
        # A device that is newer than the compiler: its driver makes code of PTX.
        target = f"-arch={'sm' if exact else 'compute'}_{newest}"
        program = nvrtc.createProgram(self._sources.read(source), source, (), ())
        try:
            nvrtc.compileProgram(program, (*_OPTIONS, *options, *self._sources.include_options(), target))
            code = nvrtc.getCUBIN(program) if exact else nvrtc.getPTX(program)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise DeviceError(f"{source} does not compile: {' '.join((log or str(error)).split())[:300]}") from error
        finally:
            nvrtc.destroyProgram(program)
        return code if isinstance(code, bytes) else code.encode()


def _nvrtc_version() -> str:
    """Returns the version of the installed package, without loading the compiler."""
    for name in _NVRTC:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of the system"
