"""The opcodes of pickles that push values and fill containers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.pickle_state import SET_STEPS, Interpreter

_PROTOCOLS: Final = range(2, 6)
_MAX_NUMBER: Final = 1024  # bytes of an int


# --- what pushes a value ----------------------------------------------------------------------------------------------


def protocol(machine: Interpreter) -> None:
    version = machine.number(1)
    if version not in _PROTOCOLS:
        raise RefusedError(f"holds a pickle of protocol {version}; 2 to 5 are known")


def frame(machine: Interpreter) -> None:
    machine.read(8)  # how far a reader may read ahead: everything is here


def constant(value: object) -> Callable[[Interpreter], None]:
    return lambda machine: machine.stack.append(value)


def unsigned(width: int) -> Callable[[Interpreter], None]:
    return lambda machine: machine.stack.append(machine.number(width))


def signed(machine: Interpreter) -> None:
    machine.stack.append(int.from_bytes(machine.read(4), "little", signed=True))


def sized_int(width: int) -> Callable[[Interpreter], None]:
    """An int whose size comes before it, in `width` bytes."""

    def push(machine: Interpreter) -> None:
        size = machine.number(width)
        if size > _MAX_NUMBER:
            raise RefusedError("holds a number of more than 1024 bytes")
        machine.stack.append(int.from_bytes(machine.read(size), "little", signed=True))

    return push


def double(machine: Interpreter) -> None:
    machine.stack.extend(struct.unpack(">d", machine.read(8)))


def sized(width: int, make: Callable[[bytes], object]) -> Callable[[Interpreter], None]:
    """Text or bytes, whose size comes before them, in `width` bytes."""
    return lambda machine: machine.stack.append(make(machine.read(machine.number(width))))


def empty(kind: type[object], steps: int = 0) -> Callable[[Interpreter], None]:
    def push(machine: Interpreter) -> None:
        machine.spend(steps)
        machine.stack.append(kind())

    return push


# --- containers -------------------------------------------------------------------------------------------------------


def tuple_of(count: int) -> Callable[[Interpreter], None]:
    def push(machine: Interpreter) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return push


def push_tuple(machine: Interpreter) -> None:
    items = machine.pop_to_mark()
    machine.stack.append(tuple(items))


def push_list(machine: Interpreter) -> None:
    items = machine.pop_to_mark()
    machine.stack.append(items)


def push_frozenset(machine: Interpreter) -> None:
    items = machine.pop_to_mark()
    machine.spend(SET_STEPS)
    machine.stack.append(frozenset(_keys(machine, items)))


def append(machine: Interpreter) -> None:
    _extend(machine, [machine.pop()])


def appends(machine: Interpreter) -> None:
    _extend(machine, machine.pop_to_mark())


def _extend(machine: Interpreter, items: list[object]) -> None:
    target = machine.top(list)
    assert isinstance(target, list)
    target += items


def set_item(machine: Interpreter) -> None:
    value = machine.pop()
    _update(machine, [machine.pop(), value])


def set_items(machine: Interpreter) -> None:
    _update(machine, machine.pop_to_mark())


def push_dict(machine: Interpreter) -> None:
    items = machine.pop_to_mark()
    machine.stack.append({})
    _update(machine, items)


def _update(machine: Interpreter, items: list[object]) -> None:
    target = machine.top(dict)
    assert isinstance(target, dict)
    if len(items) % 2:
        raise MalformedError("a pickle with a key without a value")
    target.update(zip(_keys(machine, items[::2]), items[1::2], strict=True))


def add_items(machine: Interpreter) -> None:
    items = _keys(machine, machine.pop_to_mark())
    target = machine.top(set)
    assert isinstance(target, set)
    target.update(items)


def _keys(machine: Interpreter, items: list[object]) -> list[object]:
    for item in items:
        if type(item) is not str:
            machine.check_key(item)
    return items
