"""Reads a pickle as data, by an interpreter of its own: nothing is imported, and nothing of the file is called.

A name in a pickle ("collections.OrderedDict") is looked up in a closed table of what may stand there: data, or one of
our own functions that make data of data. Any other name is refused as soon as it is read. So is every opcode that is
not for data, and those for data as text, of protocols 0 and 1, which nothing that writes tensors uses.

Time and memory are bounded by the pickle's size and by a number of steps: an opcode is a step, and what copies or
compares more than one value pays for it. There is no recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dumont_gpu.format.paths import shown
from dumont_gpu.tensors import pickle_values
from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.pickle_state import MAX_NAME, SET_STEPS, Builder, Interpreter, Stateful, text


def load(data: bytes, names: Mapping[str, object], persistent: Callable[[object], object]) -> object:
    """Returns what a pickle holds.

    Args:
        data: the pickle.
        names: the closed table: a Builder, or the data that a name stands for, by the name with its module.
        persistent: makes data of a persistent id: a reference to bytes outside the pickle.

    Raises:
        MalformedError: the pickle is not sound.
        RefusedError: the pickle has what is not plain data, or too much of it.
    """
    machine = Interpreter(data, names, persistent)
    while True:
        code = machine.opcode()
        if code == _STOP:
            return machine.pop()
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise RefusedError(f"holds a pickle with opcode 0x{code:02x}, which is not for plain data")
        operation(machine)


# --- stack and memo ---------------------------------------------------------------------------------------------------


def _duplicate(machine: Interpreter) -> None:
    item = machine.pop()
    machine.stack += [item, item]


def _pop(machine: Interpreter) -> None:
    machine.pop()


def _put(width: int) -> Callable[[Interpreter], None]:
    def put(machine: Interpreter) -> None:
        _memoize(machine, machine.number(width))

    return put


def _memoize(machine: Interpreter, index: int) -> None:
    if not machine.stack:
        raise MalformedError("a pickle that remembers something of an empty stack")
    machine.memo[index] = machine.stack[-1]


def _get(width: int) -> Callable[[Interpreter], None]:
    def get(machine: Interpreter) -> None:
        index = machine.number(width)
        if index not in machine.memo:
            raise MalformedError("a pickle that refers to something that it has not remembered")
        machine.stack.append(machine.memo[index])

    return get


# --- names and calls --------------------------------------------------------------------------------------------------


def _global(machine: Interpreter) -> None:
    module = machine.line()
    _look_up(machine, module, machine.line())


def _stack_global(machine: Interpreter) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise MalformedError("a pickle with a name that is no text")
    _look_up(machine, module, name)


def _look_up(machine: Interpreter, module: str, name: str) -> None:
    full = f"{module[:MAX_NAME]}.{name[:MAX_NAME]}"
    if full not in machine.names:
        raise RefusedError(f"holds {shown(full)}, which is not plain data: dumont-gpu runs nothing from a file")
    machine.stack.append(machine.names[full])


def _call(machine: Interpreter) -> None:
    """Both a function with its arguments and a class with those of its new object."""
    arguments, builder = machine.pop(), machine.pop()
    if type(builder) is not Builder or type(arguments) is not tuple:
        raise RefusedError("holds a call of something that makes no plain data")
    machine.spend(len(arguments))
    try:
        machine.stack.append(builder.build(machine, *arguments))
    except (TypeError, ValueError) as error:
        raise MalformedError(f"a pickle that calls {builder.name} with what it does not take") from error


def _build(machine: Interpreter) -> None:
    """Gives an object its attributes: a dict's own are left out, as PyTorch's versions of state dicts are."""
    state = machine.pop()
    target = machine.stack[-1] if machine.stack else None
    if isinstance(target, Stateful):
        target.set_state(state)
    elif type(target) is not dict or type(state) is not dict:
        raise RefusedError("holds an object with a state of its own, which is not plain data")


def _persistent(machine: Interpreter) -> None:
    machine.stack.append(machine.persistent(machine.pop()))


_STOP: Final = ord(".")
_OPERATIONS: Final[Mapping[int, Callable[[Interpreter], None]]] = {
    0x80: pickle_values.protocol,
    0x95: pickle_values.frame,
    ord("N"): pickle_values.constant(None),
    0x88: pickle_values.constant(True),
    0x89: pickle_values.constant(False),
    ord("K"): pickle_values.unsigned(1),
    ord("M"): pickle_values.unsigned(2),
    ord("J"): pickle_values.signed,
    0x8A: pickle_values.sized_int(1),
    0x8B: pickle_values.sized_int(4),
    ord("G"): pickle_values.double,
    0x8C: pickle_values.sized(1, text),
    ord("X"): pickle_values.sized(4, text),
    0x8D: pickle_values.sized(8, text),
    ord("C"): pickle_values.sized(1, bytes),
    ord("B"): pickle_values.sized(4, bytes),
    0x8E: pickle_values.sized(8, bytes),
    0x96: pickle_values.sized(8, bytearray),
    ord(")"): pickle_values.constant(()),
    ord("]"): pickle_values.empty(list),
    ord("}"): pickle_values.empty(dict),
    0x8F: pickle_values.empty(set, SET_STEPS),
    0x85: pickle_values.tuple_of(1),
    0x86: pickle_values.tuple_of(2),
    0x87: pickle_values.tuple_of(3),
    ord("t"): pickle_values.push_tuple,
    ord("l"): pickle_values.push_list,
    ord("d"): pickle_values.push_dict,
    0x91: pickle_values.push_frozenset,
    ord("a"): pickle_values.append,
    ord("e"): pickle_values.appends,
    ord("s"): pickle_values.set_item,
    ord("u"): pickle_values.set_items,
    0x90: pickle_values.add_items,
    ord("("): Interpreter.mark,
    ord("0"): _pop,
    ord("1"): lambda machine: machine.pop_to_mark().clear(),
    ord("2"): _duplicate,
    ord("q"): _put(1),
    ord("r"): _put(4),
    0x94: lambda machine: _memoize(machine, len(machine.memo)),
    ord("h"): _get(1),
    ord("j"): _get(4),
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _call,
    0x81: _call,
    ord("b"): _build,
    ord("Q"): _persistent,
}
