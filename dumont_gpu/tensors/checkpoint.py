"""Gives names to the tensors of nested containers: "optimizer.state.0.exp_avg"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from dumont_gpu.format.paths import shown
from dumont_gpu.tensors.faults import RefusedError
from dumont_gpu.tensors.record import SINGLE, TensorRecord, TensorRef, TensorTable, TorchDevice, TorchDtype
from dumont_gpu.tensors.torch_objects import Storage, View

MAX_DEPTH: Final = 100  # containers in containers: deeper than any checkpoint; who gets the structure may recurse
_MAX_VALUES: Final = 4_000_000  # a container that is in several places counts in each
_CONTAINER_VALUES: Final = 4  # what a container counts, which is copied
_TENSOR_VALUES: Final = 16  # what a tensor counts: its record and name take more memory than a number
_MAX_NAME: Final = 1024  # characters
_LEAVES: Final = frozenset(
    {str, bytes, bytearray, int, float, complex, bool, type(None), set, frozenset, TorchDtype, TorchDevice}
)
_CONTAINERS: Final = frozenset({dict, list, tuple})
_NAMED_BY: Final = (str, int, float, bool, type(None))  # keys of dicts that a tensor's name can have in it


def table(root: object, record: Callable[[str, View], TensorRecord]) -> TensorTable:
    """Returns the tensors of a checkpoint, and its structure.

    A tensor's name joins the keys and list positions that lead to it; a tensor that is the whole checkpoint is SINGLE.

    Args:
        root: what the checkpoint's pickle holds.
        record: makes a record of a name and a view.

    Raises:
        RefusedError: something in it is not plain data, or there is too much of it; or two tensors have one name.
    """
    walk = _Walk(record)
    structure = walk.run(root)
    return TensorTable(list(walk.records.values()), structure=structure)


class _Open:
    """A container that is being walked through.

    Args:
        key: where it is in the container around it.
        value: a dict, list or tuple.
    """

    __slots__ = ("done", "key", "rest", "value")

    def __init__(self, key: object, value: object) -> None:
        self.key = key
        self.value = value
        self.rest: Iterator[tuple[object, object]] = iter(())
        self.done: list[object] = []
        if isinstance(value, dict):
            self.rest = iter(value.items())
        elif isinstance(value, (list, tuple)):
            self.rest = iter(enumerate(value))

    def copy(self) -> object:
        """Returns a container of the same kind with what has become of its values."""
        if isinstance(self.value, dict):
            return dict(zip(self.value, self.done, strict=True))
        return tuple(self.done) if isinstance(self.value, tuple) else self.done


class _Walk:
    """Goes through a checkpoint without recursion, and gives each tensor a record."""

    def __init__(self, record: Callable[[str, View], TensorRecord]) -> None:
        self.records: dict[str, TensorRecord] = {}
        self._record = record
        self._left = _MAX_VALUES

    def run(self, root: object) -> object:
        """Returns the root with a TensorRef for each tensor in it, and records the tensors."""
        path = [_Open(None, [root])]
        while True:
            inner = path[-1]
            for key, value in inner.rest:
                self._spend(1)
                if type(value) in _CONTAINERS:
                    path.append(self._open(key, value, len(path)))
                    break
                inner.done.append(value if type(value) in _LEAVES else self._reference(value, path, key))
            else:
                path.pop()
                if not path:
                    return inner.done[0]
                path[-1].done.append(inner.copy())

    def _open(self, key: object, value: object, depth: int) -> _Open:
        self._spend(_CONTAINER_VALUES)
        if depth > MAX_DEPTH:
            raise RefusedError(f"holds containers that are nested more than {MAX_DEPTH} deep, or that hold themselves")
        return _Open(key, value)

    def _reference(self, value: object, path: Sequence[_Open], key: object) -> TensorRef:
        if not isinstance(value, View):
            what = "a storage without a tensor" if isinstance(value, Storage) else "a class or function as a value"
            raise RefusedError(f"holds {what}, which is not plain data")
        self._spend(_TENSOR_VALUES)
        # The first list holds the root alone, and its key is no part of a name.
        name = _name([inner.key for inner in path[2:]] + [key]) if len(path) > 1 else SINGLE
        if name in self.records:
            raise RefusedError(f"holds two tensors that would both be called {shown(name)}")
        self.records[name] = self._record(name, value)
        return TensorRef(name)

    def _spend(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise RefusedError("holds a pickle of more than 4 million values")


def _name(keys: list[object]) -> str:
    parts = []
    for key in keys:
        if not isinstance(key, _NAMED_BY):
            raise RefusedError(f"holds a tensor under a key that is neither text nor a number: {type(key).__name__}")
        parts.append(key if isinstance(key, str) else str(key))
        if sum(map(len, parts)) > _MAX_NAME:
            raise RefusedError(f"holds a tensor whose name has more than {_MAX_NAME} characters")
    return ".".join(parts)
