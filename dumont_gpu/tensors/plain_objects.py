"""What pickles may name besides tensors: things of Python, NumPy and PyTorch that become plain data."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.pickle_state import SET_STEPS, Builder, Interpreter, Stateful
from dumont_gpu.tensors.record import TorchDevice
from dumont_gpu.tensors.shapes import checked_shape, is_count

_BYTES_PER_STEP: Final = 64  # copied


class NumpyType(Stateful):
    """The element type of a NumPy scalar; a pickle says the order of its bytes after it has made it."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"

    def set_state(self, state: object) -> None:
        """Takes the order of bytes: the state is (version, order, …)."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise MalformedError("a pickle with an element type of NumPy without an order of bytes")
        self.order = "<" if state[1] in "|=" else state[1]


def _ordered_dict(machine: Interpreter) -> dict[object, object]:
    return {}


def _counter(machine: Interpreter, counts: object = None) -> dict[object, object]:
    if counts is not None and type(counts) is not dict:
        raise TypeError
    machine.spend(len(counts or {}))
    return dict(counts or {})


def _size(machine: Interpreter, lengths: object) -> tuple[int, ...]:
    return checked_shape(lengths, 1)


def _device(machine: Interpreter, kind: object, index: object = None) -> TorchDevice:
    if type(kind) is not str or len(kind) > 64 or not (index is None or is_count(index)):
        raise TypeError
    return TorchDevice(kind if index is None else f"{kind}:{index}")


def _items(machine: Interpreter, items: object) -> list[object]:
    """Checks the items of a set that is about to be made of a list."""
    if type(items) is not list:
        raise TypeError
    machine.spend(SET_STEPS + len(items))
    for item in items:
        machine.check_key(item)
    return items


def _complex(machine: Interpreter, real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise TypeError
    return complex(real, imaginary)


def _encoded(machine: Interpreter, text: object, encoding: object) -> bytes:
    """Bytes, as protocol 2 writes them: the text that has the same numbers in Latin-1."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise TypeError
    machine.spend(len(text) // _BYTES_PER_STEP)
    return text.encode("latin-1")


def _bytearray(machine: Interpreter, content: object = b"", encoding: object = "latin-1") -> bytearray:
    data = _encoded(machine, content, encoding) if type(content) is str else content
    if type(data) is not bytes:
        raise TypeError
    machine.spend(len(data) // _BYTES_PER_STEP)
    return bytearray(data)


_NUMPY_SCALARS: Final = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip


def _numpy_type(machine: Interpreter, code: object, align: object = False, copy: object = True) -> NumpyType:
    if type(code) is not str or code not in _NUMPY_SCALARS:
        raise RefusedError("holds a value of NumPy that is no number")
    return NumpyType(_NUMPY_SCALARS[code])


def _numpy_scalar(machine: Interpreter, kind: object, content: object) -> object:
    """A number of Python in place of NumPy's."""
    if type(kind) is not NumpyType or type(content) is not bytes:
        raise TypeError
    try:
        (value,) = struct.unpack(kind.order + kind.code, content)
    except struct.error as error:
        raise MalformedError("a pickle with a number of NumPy that has another size") from error
    return value


_PLAIN: Final[Mapping[str, Callable[..., object]]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
_BUILTINS: Final[Mapping[str, Callable[..., object]]] = {
    "set": lambda machine, items: set(_items(machine, items)),
    "frozenset": lambda machine, items: frozenset(_items(machine, items)),
    "complex": _complex,
    "bytearray": _bytearray,
    "bytes": lambda machine: b"",
}

NAMES: Final[Mapping[str, object]] = {name: Builder(name, build) for name, build in _PLAIN.items()} | {
    f"{module}.{name}": Builder(name, build)
    for module in ("builtins", "__builtin__")  # protocol 2 has the name of Python 2
    for name, build in _BUILTINS.items()
}
