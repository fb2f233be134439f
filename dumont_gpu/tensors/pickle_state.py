"""The state of a pickle that is being read: its bytes, stack, marks and memo, and what its reading has cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dumont_gpu.tensors.faults import MalformedError, RefusedError

# A checkpoint has 30 opcodes a tensor, and one for each number of a log that it carries. Hostile ones of 8 million
# steps end within seconds.
MAX_STEPS: Final = 8_000_000
MAX_NAME: Final = 1024  # bytes of a module's or class's name
SET_STEPS: Final = 4  # what a set costs: it takes four times the memory of another object
_MAX_KEY_TUPLES: Final = 100  # nested in a key: their hash is computed by recursion
_KEY_TUPLE_STEPS: Final = 1000  # hashes of tuples can be made to collide, each with all before it
_KEY_TYPES: Final = frozenset({str, bytes, bool, float, type(None), tuple})
_KEY_NUMBERS: Final = range(-(1 << 63), 1 << 64)  # hashes of larger ints can be made to collide


@dataclass(frozen=True, slots=True)
class Builder:
    """A name of the table that makes data when a pickle calls it.

    Args:
        name: as the pickle has it, with its module.
        build: gets the interpreter, for `spend`, and the pickle's arguments; raises TypeError or ValueError, or a
            fault of its own, for what it does not take.
    """

    name: str
    build: Callable[..., object]


class Stateful(ABC):
    """Data that takes a state after it is made."""

    __slots__ = ()

    @abstractmethod
    def set_state(self, state: object) -> None:
        """Takes the state. Raises MalformedError or RefusedError for a state that it does not take."""


class Interpreter:
    """The state of a pickle that is being read.

    Args:
        data: the pickle.
        names: the closed table: a Builder, or the data that a name stands for, by the name with its module.
        persistent: makes data of a persistent id: a reference to bytes outside the pickle.
    """

    def __init__(self, data: bytes, names: Mapping[str, object], persistent: Callable[[object], object]) -> None:
        self.names = names
        self.persistent = persistent
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self._outer: list[list[object]] = []  # stacks below the marks
        self._data = data
        self._at = 0
        self._steps = MAX_STEPS

    def opcode(self) -> int:
        """Takes a step: returns the next byte of the pickle."""
        self.spend(1)
        if self._at >= len(self._data):
            raise MalformedError("a pickle that ends early")
        self._at += 1
        return self._data[self._at - 1]

    def spend(self, steps: int) -> None:
        """Pays for work.

        Raises:
            RefusedError: the pickle has asked for more than MAX_STEPS.
        """
        self._steps -= steps
        if self._steps < 0:
            raise RefusedError("holds a pickle of more than 8 million steps")

    def read(self, count: int) -> bytes:
        """Returns the next `count` bytes of the pickle."""
        end = self._at + count
        if end > len(self._data):
            raise MalformedError("a pickle that ends early")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, width: int) -> int:
        """Returns an unsigned number of `width` bytes."""
        return int.from_bytes(self.read(width), "little")

    def line(self) -> str:
        """Returns the text up to the next newline, which is left out."""
        end = self._data.find(b"\n", self._at, self._at + MAX_NAME)
        if end < 0:
            raise MalformedError("a pickle with a name that does not end")
        return text(self.read(end + 1 - self._at)[:-1])

    def pop(self) -> object:
        """Takes the top of the stack, down to the last mark."""
        if not self.stack:
            raise MalformedError("a pickle that takes from an empty stack")
        return self.stack.pop()

    def top(self, kind: type[object]) -> object:
        """Returns the top of the stack, which must be of exactly this type."""
        if not self.stack or type(self.stack[-1]) is not kind:
            raise MalformedError(f"a pickle that fills something that is no {kind.__name__}")
        return self.stack[-1]

    def mark(self) -> None:
        """Begins a stack above the present one."""
        self._outer.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[object]:
        """Takes all that is above the last mark, and the mark."""
        if not self._outer:
            raise MalformedError("a pickle without a mark")
        items, self.stack = self.stack, self._outer.pop()
        return items

    def check_key(self, key: object) -> None:
        """Raises RefusedError unless a key is plain: hashed in bounded time, without recursion that hurts."""
        todo, tuples = [key], 0
        while todo:
            value = todo.pop()
            if type(value) is tuple:
                tuples += 1
                self.spend(_KEY_TUPLE_STEPS + len(value))
                todo += value
            plain = type(value) in _KEY_TYPES or (type(value) is int and value in _KEY_NUMBERS)
            if tuples > _MAX_KEY_TUPLES or not plain:
                raise RefusedError("holds a dict or a set with a key that is no text, number or tuple of them")


def text(data: bytes) -> str:
    """Returns a pickle's text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("a pickle with text that is not Unicode") from error
