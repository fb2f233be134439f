"""Makes a framework's arrays of bytes in memory. A framework is imported when a caller asks for its arrays."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from dumont_gpu.errors import DumontError, UnsupportedError, UsageError
from dumont_gpu.format.paths import shown
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES
from dumont_gpu.tensors.record import TensorRecord, TorchDevice, TorchDtype


class Framework(Protocol):
    """Makes arrays of a tensor's bytes."""

    def array(self, memory: Any, record: TensorRecord) -> Any:
        """Returns the tensor whose bytes, from its first element to its last, are in `memory`: without a copy.

        Args:
            memory: a flat NumPy array of bytes, or, of a device, what `device_memory` returned.
            record: element type, shape and strides.

        Raises:
            UnsupportedError: the framework has no such element type.
        """

    def plain(self, value: object) -> object:
        """Returns plain data of a checkpoint as the framework has it: element types and devices of PyTorch."""


class NumPy:
    """Arrays of NumPy. Element types that NumPy lacks are those of `ml_dtypes` if that is installed, else raw words."""

    def array(self, memory: Any, record: TensorRecord) -> Any:
        dtype = numpy_dtype(record.dtype)
        if not dtype.itemsize:  # text of no characters: NumPy cannot see it in bytes
            import numpy as np

            return np.zeros(record.shape, dtype)
        return _shaped(memory.view(dtype), record)

    def plain(self, value: object) -> object:
        return value


class Torch:
    """Tensors of PyTorch."""

    def __init__(self) -> None:
        self.torch = _imported("torch", "pt")

    def array(self, memory: Any, record: TensorRecord) -> Any:
        torch = self.torch
        element = ELEMENT_TYPES.get(record.dtype)
        dtype = getattr(torch, element.torch, None) if element is not None else None
        if dtype is None:
            raise UnsupportedError(
                f"{shown(record.name)}: PyTorch has no element type {record.dtype}; NumPy's arrays may"
            )
        if not record.count:
            return torch.empty(record.shape, dtype=dtype, device=getattr(memory, "device", "cpu"))
        flat = memory if isinstance(memory, torch.Tensor) else torch.from_dlpack(memory)
        elements = flat.view(dtype)
        if record.strides is None:
            return elements.view(record.shape)
        return elements.as_strided(record.shape, record.strides)

    def plain(self, value: object) -> object:
        if isinstance(value, TorchDtype):
            return getattr(self.torch, value.name, value)
        return self.torch.device(value.name) if isinstance(value, TorchDevice) else value


class Jax:
    """Arrays of JAX, whose 64-bit types need `jax_enable_x64`."""

    def __init__(self) -> None:
        self.jax = _imported("jax", "jax")
        self._numpy = NumPy()

    def array(self, memory: Any, record: TensorRecord) -> Any:
        element = ELEMENT_TYPES.get(record.dtype)
        if element is None or element.size == 16:
            raise UnsupportedError(f"{shown(record.name)}: JAX has no element type {record.dtype}; NumPy's arrays may")
        wide = element.size == 8 and record.dtype != "C64"
        if wide and not self.jax.config.jax_enable_x64:
            raise UnsupportedError(f"{shown(record.name)}: JAX has no {record.dtype} before jax_enable_x64 is set")
        import numpy as np

        if not isinstance(memory, np.ndarray):
            return self._on_device(memory, record)
        array = np.asarray(self._numpy.array(memory, record), order="C")  # JAX has no strides
        return self.jax.numpy.asarray(array)

    def plain(self, value: object) -> object:
        return value

    def _on_device(self, memory: Any, record: TensorRecord) -> Any:
        """Returns an array of CuPy's memory."""
        numpy = self.jax.numpy
        words = CuPy().array(memory, record)
        array = self.jax.dlpack.from_dlpack(words if words.flags.c_contiguous else words.copy())
        element = ELEMENT_TYPES[record.dtype]
        if element.ml_dtypes is None:
            return array
        return self.jax.lax.bitcast_convert_type(array, getattr(numpy, element.ml_dtypes))


class CuPy:
    """Arrays of CuPy, in the memory of a device. Element types that CuPy lacks are raw words."""

    def __init__(self) -> None:
        self.cupy = _imported("cupy", "cupy")

    def array(self, memory: Any, record: TensorRecord) -> Any:
        element = ELEMENT_TYPES.get(record.dtype)
        if element is None:
            raise UnsupportedError(f"{shown(record.name)}: CuPy has no element type {record.dtype}; NumPy's arrays may")
        return _shaped(memory.view(element.numpy or element.words), record, self.cupy)

    def plain(self, value: object) -> object:
        return value


FRAMEWORKS: Final[dict[str, Callable[[], Framework]]] = {
    "np": NumPy,
    "numpy": NumPy,
    "pt": Torch,
    "torch": Torch,
    "jax": Jax,
    "cupy": CuPy,
}


def select_framework(name: str) -> Framework:
    """Returns a framework by its name, as safetensors has it.

    Raises:
        UsageError: there is none of that name.
        DumontError: it is not installed.
    """
    if not isinstance(name, str) or name not in FRAMEWORKS:
        raise UsageError(f"framework must be np, pt, jax or cupy, not {str(name)[:40]!r}")
    return FRAMEWORKS[name]()


def _shaped(elements: Any, record: TensorRecord, numpy: Any = None) -> Any:
    if record.strides is None or not record.count:
        return elements[: record.count].reshape(record.shape)
    if numpy is None:
        import numpy
    strides = tuple(stride * elements.itemsize for stride in record.strides)
    return numpy.lib.stride_tricks.as_strided(elements, record.shape, strides)


def numpy_dtype(name: str) -> Any:
    """Returns the element type, of the record's dtype `name`, that arrays of NumPy have."""
    import numpy as np

    element = ELEMENT_TYPES.get(name)
    if element is None:
        # NumPy's own description of a type that only NumPy has
        return np.lib.format.descr_to_dtype(ast.literal_eval(name)) if name.startswith("[") else np.dtype(name)
    if element.numpy is not None:
        return np.dtype(element.numpy)
    if element.ml_dtypes is not None:
        try:
            import ml_dtypes
        except ImportError:
            pass
        else:
            return np.dtype(getattr(ml_dtypes, element.ml_dtypes))
    return np.dtype(element.words)


def _imported(module: str, framework: str) -> Any:
    try:
        return sys.modules.get(module) or importlib.import_module(module)
    except ImportError as error:
        raise DumontError(f"framework {framework!r} needs the package {module}: {error}") from None
