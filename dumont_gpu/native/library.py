"""Loads the library of compiled CPU kernels (kernels/cpu) and binds its C functions.

ctypes releases the GIL for every call, and one library serves all Python versions. The other modules of this package
declare the functions that they call; each declaration stands above the Python function that uses the declaration.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, Final

from dumont_gpu.errors import DumontError
from dumont_gpu.shortages import shortage

_ABI_VERSION: Final = 5

POINTER: Final = ctypes.c_void_p
TEXT: Final = ctypes.c_char_p
I32: Final = ctypes.c_int32
I64: Final = ctypes.c_int64
U32: Final = ctypes.c_uint32
U64: Final = ctypes.c_uint64

# Negative results: DumontStatus of dumont_cpu.h.
UNSUPPORTED: Final = -2
NO_MEMORY: Final = -4


class Function:
    """A C function of the library, which is loaded at the first call of any function.

    Args:
        name: the symbol.
        result: the ctypes type of the result; None for void.
        arguments: the ctypes types of the arguments.
    """

    def __init__(self, name: str, result: Any, *arguments: Any) -> None:
        self.name, self.result, self.arguments = name, result, arguments

    def __call__(self, *values: Any) -> Any:
        return bind(self)(*values)


@functools.cache
def bind(function: Function) -> Any:
    """Returns the ctypes function for a declaration."""
    bound = load()[function.name]
    bound.restype, bound.argtypes = function.result, function.arguments
    return bound


@functools.cache
def load() -> ctypes.CDLL:
    """Returns the library.

    Raises:
        DumontError: the library is missing, cannot be loaded, or belongs to another version of the package.
    """
    import dumont_gpu

    paths = [Path(folder) / "libdumont_cpu.so" for folder in dumont_gpu.__path__]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        if (paths[0].parent.parent / "kernels" / "cpu").is_dir():  # Python looks in the current folder first
            folder = paths[0].parent
            raise DumontError(f"{folder} is a checkout, without compiled kernels: start Python in another folder")
        raise DumontError("the compiled CPU kernels are missing: install dumont-gpu with `pip install .`")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:  # must not pass for an error of the file that the caller is reading
        short = shortage(ImportError(str(error)))
        raise DumontError(short or f"the compiled CPU kernels do not load: {error}") from None
    library.dumont_abi_version.restype = U32
    if library.dumont_abi_version() != _ABI_VERSION:
        raise DumontError(f"{path} belongs to another dumont-gpu: install again")
    return library
