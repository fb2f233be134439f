"""Gives names to the tensors of nested containers: "optimizer.state.0.exp_avg"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dumont_gpu.format.paths import shown
from dumont_gpu.tensors.faults import RefusedError
from dumont_gpu.tensors.record import SINGLE, TensorRecord, TensorRef, TensorTable, TorchDevice, TorchDtype
from dumont_gpu.tensors.torch_objects import Storage, View

MAX_DEPTH: Final = 100  # containers in containers: deeper than any checkpoint, and recursion is fine down to there
_MAX_VALUES: Final = 4_000_000  # a container that is in several places counts in each
_TENSOR_VALUES: Final = 16  # what a tensor counts: its record and name take more memory than a number
_MAX_NAME: Final = 1024  # characters
_LEAVES: Final = frozenset(
    {str, bytes, bytearray, int, float, complex, bool, type(None), set, frozenset, TorchDtype, TorchDevice}
)
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
    names = _Names(record)
    structure = names.visit(root)
    return TensorTable(list(names.records.values()), structure=structure)


class _Names:
    def __init__(self, record: Callable[[str, View], TensorRecord]) -> None:
        self.records: dict[str, TensorRecord] = {}
        self._record = record
        self._path: list[object] = []
        self._left = _MAX_VALUES

    def visit(self, value: object) -> object:
        """Returns a value with a TensorRef for each tensor in it, and records the tensors."""
        self._spend(1)
        kind = type(value)
        if kind in _LEAVES:
            return value
        if isinstance(value, View):
            return self._reference(value)
        if len(self._path) >= MAX_DEPTH:
            raise RefusedError(f"holds containers that are nested more than {MAX_DEPTH} deep, or that hold themselves")
        if isinstance(value, dict):
            return {key: self._inner(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._inner(index, item) for index, item in enumerate(value)]
        if kind is tuple and isinstance(value, tuple):
            return tuple([self._inner(index, item) for index, item in enumerate(value)])
        what = "a storage without a tensor" if isinstance(value, Storage) else "a class or function as a value"
        raise RefusedError(f"holds {what}, which is not plain data")

    def _inner(self, key: object, value: object) -> object:
        self._path.append(key)
        found = self.visit(value)
        self._path.pop()
        return found

    def _reference(self, view: View) -> TensorRef:
        self._spend(_TENSOR_VALUES)
        name = self._name()
        if name in self.records:
            raise RefusedError(f"holds two tensors that would both be called {shown(name)}")
        self.records[name] = self._record(name, view)
        return TensorRef(name)

    def _name(self) -> str:
        if not self._path:
            return SINGLE
        parts = []
        for key in self._path:
            if not isinstance(key, _NAMED_BY):
                raise RefusedError(
                    f"holds a tensor under a key that is neither text nor a number: {type(key).__name__}"
                )
            parts.append(key if isinstance(key, str) else str(key))
            if sum(map(len, parts)) > _MAX_NAME:
                raise RefusedError(f"holds a tensor whose name has more than {_MAX_NAME} characters")
        return ".".join(parts)

    def _spend(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise RefusedError("holds a pickle of more than 4 million values")
