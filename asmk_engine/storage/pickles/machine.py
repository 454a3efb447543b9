"""The opcodes of pickles, all protocols, as far as plain values and numpy arrays need them.

A pickle is a program for a stack machine. This one runs it with nothing within its reach but the functions of
`pickled_arrays`: no class is ever looked up, no import is made, no attribute is set.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkError, DamagedError, FormatError
from asmk_engine.storage.pickles import arrays as stand_in
from asmk_engine.storage.pickles import text

SCALARS = (type(None), bool, int, float, str, bytes)
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): stand_in.NdarrayName(),
    ("numpy", "dtype"): stand_in.make_dtype,
    **{(module, "_reconstruct"): stand_in.announce_array for module in _MULTIARRAY},
    **{(module, "scalar"): stand_in.scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): stand_in.array_from_buffer for module in _NUMERIC},
    ("_codecs", "encode"): stand_in.encode_text,
    **{(module, "bytes"): stand_in.empty_bytes for module in ("builtins", "__builtin__")},
}


class Machine:
    """The stack, the marks and the memo of a pickle, with an allowance for the bytes that it may copy."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # Bytes written as text and then made an array are copied twice; the same ones again and again are a bomb.
        self.allowance = 2 * len(data) + 4096

    def run(self) -> Any:
        """The value of the pickle, or DamagedError, FormatError, or whatever a false step raises."""
        while (code := self.take(1)) != b".":
            action = _ACTIONS.get(code)
            if action is None:
                raise self.refusal(code)
            action(self)
        return self.stack.pop()

    def refusal(self, code: bytes) -> AsmkError:
        """Why the opcode just read is not followed."""
        if self.position == 1:
            return FormatError("not a pickle: name a file that pickle.dump wrote")
        if code in _REFUSED:
            return FormatError(f"uses {_REFUSED[code]}; {stand_in.READABLE}")
        return DamagedError(f"byte {self.position - 1} is no opcode of a pickle")

    def take(self, count: int) -> bytes:
        """The next bytes, never more than there are."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise DamagedError(f"cut or altered at byte {self.position} of {len(self.data)}")
        begin, self.position = self.position, end
        return self.data[begin:end]

    def number(self, layout: str) -> Any:
        """The next number, in the notation of struct."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> bytes:
        """The bytes up to the next newline."""
        end = self.data.find(b"\n", self.position)
        return self.take(end + 1 - self.position if end >= 0 else len(self.data))[:-1]

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        """Take everything above the last mark from the stack."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def remember(self, key: int) -> None:
        """Put the value on top into the memo."""
        value = self.stack[-1]
        if isinstance(value, stand_in.PendingArray):
            value.memo_key = key
        self.memo[key] = value

    def spend(self, value: Any) -> None:
        """Charge a copy of bytes that the pickle asked for."""
        is_array = isinstance(value, np.ndarray | np.generic)
        self.allowance -= value.nbytes if is_array else len(value) if isinstance(value, bytes) else 0
        if self.allowance < 0:
            raise DamagedError("asks for more memory than a file of its size can need")

    def top(self, kind: type) -> Any:
        """The value on top, which must be a container of the kind."""
        if type(self.stack[-1]) is not kind:
            raise DamagedError(f"a {kind.__name__} is filled that is none")
        return self.stack[-1]


def _mark(machine: Machine) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


def _look_up(machine: Machine, module: Any, name: Any) -> None:
    if (module, name) not in _GLOBALS:
        found = repr(f"{module}.{name}"[:80])
        raise FormatError(f"asks for {found}; {stand_in.READABLE}")
    machine.push(_GLOBALS[module, name])


def _global(machine: Machine) -> None:
    _look_up(machine, machine.line().decode(), machine.line().decode())


def _instance(machine: Machine) -> None:
    _global(machine)
    raise DamagedError("makes an instance of something that is no class")


def _global_from_stack(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DamagedError("a class whose name is no text")
    _look_up(machine, module, name)


def _reduce(machine: Machine) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    if not any(function is known for known in _GLOBALS.values()) or type(arguments) is not tuple:
        raise DamagedError("calls something that is no function")
    machine.push(function(*arguments))
    machine.spend(machine.stack[-1])


def _build(machine: Machine) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, stand_in.PlainDtype):
        target.build(state)
    elif isinstance(target, stand_in.PendingArray):
        array = machine.stack[-1] = stand_in.fill_array(state)
        machine.spend(array)
        if target.memo_key is not None:
            machine.memo[target.memo_key] = array
    else:
        raise FormatError(f"sets attributes; {stand_in.READABLE}")


def _set_items(machine: Machine, items: list[Any]) -> None:
    target = machine.top(dict)
    if len(items) % 2:
        raise DamagedError("a key without its value")
    target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def _dict(machine: Machine) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    _set_items(machine, items)


def _append(machine: Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _add(machine: Machine) -> None:
    items = machine.pop_to_mark()
    machine.top(set).update(map(_key, items))


def _key(key: Any) -> Any:
    """Only scalars and flat tuples of them: the hash of nested tuples takes time, and stack, without bound."""
    if not all(type(part) in SCALARS for part in (key if type(key) is tuple else (key,))):
        raise FormatError("has keys that are not text, numbers or flat tuples of them; save it as lists instead")
    return key


_Action = Callable[[Machine], object]


def _constant(value: Any) -> _Action:
    return lambda machine: machine.push(value)


def _number(layout: str) -> _Action:
    return lambda machine: machine.push(machine.number(layout))


def _counted(layout: str, decode: Callable[[bytes], Any]) -> _Action:
    return lambda machine: machine.push(decode(machine.take(machine.number(layout))))


def _line(decode: Callable[[bytes], Any]) -> _Action:
    return lambda machine: machine.push(decode(machine.line()))


def _tuple(count: int) -> _Action:
    def action(machine: Machine) -> None:
        if len(machine.stack) < count:
            raise DamagedError("a tuple of more than there is")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return action


_ACTIONS: dict[bytes, _Action] = {
    b"\x80": lambda machine: machine.number("<B"),  # the protocol: every opcode of each is known here
    b"\x95": lambda machine: machine.number("<Q"),  # a frame, of use only to those who read piece by piece
    b"(": _mark,
    b"0": lambda machine: machine.stack.pop(),
    b"1": lambda machine: machine.pop_to_mark(),
    b"2": lambda machine: machine.push(machine.stack[-1]),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"K": _number("<B"),
    b"M": _number("<H"),
    b"J": _number("<i"),
    b"G": _number(">d"),
    b"I": _line(text.integer),
    b"L": _line(text.long_integer),
    b"F": _line(float),
    b"\x8a": _counted("<B", text.little_endian),
    b"\x8b": _counted("<i", text.little_endian),
    b"S": _line(text.quoted),
    b"V": _line(text.escaped),
    b"T": _counted("<i", text.latin1),
    b"U": _counted("<B", text.latin1),
    b"X": _counted("<I", text.utf8),
    b"\x8c": _counted("<B", text.utf8),
    b"\x8d": _counted("<Q", text.utf8),
    b"B": _counted("<I", bytes),
    b"C": _counted("<B", bytes),
    b"\x8e": _counted("<Q", bytes),
    b"\x96": _counted("<Q", bytearray),
    b"]": lambda machine: machine.push([]),
    b"l": lambda machine: machine.push(machine.pop_to_mark()),
    b"a": lambda machine: _append(machine, [machine.stack.pop()]),
    b"e": lambda machine: _append(machine, machine.pop_to_mark()),
    b")": _constant(()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda machine: machine.push(tuple(machine.pop_to_mark())),
    b"}": lambda machine: machine.push({}),
    b"d": _dict,
    b"s": lambda machine: _set_items(machine, [machine.stack.pop(), machine.stack.pop()][::-1]),
    b"u": lambda machine: _set_items(machine, machine.pop_to_mark()),
    b"\x8f": lambda machine: machine.push(set()),
    b"\x90": _add,
    b"\x91": lambda machine: machine.push(frozenset(map(_key, machine.pop_to_mark()))),
    b"g": lambda machine: machine.push(machine.memo[int(machine.line())]),
    b"h": lambda machine: machine.push(machine.memo[machine.number("<B")]),
    b"j": lambda machine: machine.push(machine.memo[machine.number("<I")]),
    b"p": lambda machine: machine.remember(int(machine.line())),
    b"q": lambda machine: machine.remember(machine.number("<B")),
    b"r": lambda machine: machine.remember(machine.number("<I")),
    b"\x94": lambda machine: machine.remember(len(machine.memo)),
    b"c": _global,
    b"i": _instance,
    b"\x93": _global_from_stack,
    b"R": _reduce,
    b"b": _build,
}
_REFUSED = {
    **dict.fromkeys((b"P", b"Q"), "persistent ids"),
    **dict.fromkeys((b"\x82", b"\x83", b"\x84"), "extension codes"),
    **dict.fromkeys((b"o", b"\x81", b"\x92"), "classes"),
    **dict.fromkeys((b"\x97", b"\x98"), "buffers outside of the file"),
}
