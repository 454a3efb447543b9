"""The opcodes of pickles, all protocols, as far as plain values and numpy arrays need them.

A pickle is a program for a stack machine. This one runs it with nothing within its reach but the functions of `arrays`:
no class is ever looked up, no import is made, no attribute is set. Numbers, bytes and text are read by `pickletools`,
which never takes more than the file has.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from asmk_engine.errors import AsmkError, DamagedError, FormatError
from asmk_engine.storage.pickles import arrays as stand_in
from asmk_engine.storage.pickles import text

_MOST_ALIKE = 64
"""Keys of one hash: 1.5, 1.5 * 2**61, 1.5 * 2**-61, ... are 34."""
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
        self.file, self.size = io.BytesIO(data), len(data)
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.keys: dict[int, set[Any]] = {}
        # Bytes written as text and then made an array are copied twice; the same ones again and again are a bomb.
        self.allowance = 2 * len(data) + 4096

    def run(self) -> Any:
        """The value of the pickle, or DamagedError, FormatError, or whatever a false step raises."""
        while (code := self.file.read(1)) != b".":
            if code not in _STEPS:
                raise self.refusal(code)
            read, act = _STEPS[code]
            act(self, self.argument(read) if read else None)
        return self.stack.pop()

    def argument(self, read: _Reader) -> Any:
        """What stands behind an opcode."""
        begin = self.file.tell()
        try:
            return read(self.file)
        except ValueError:
            raise self.cut(begin) from None

    def refusal(self, code: bytes) -> AsmkError:
        """Why the opcode just read is not followed."""
        begin = self.file.tell() - len(code)
        if not code:
            return self.cut(begin)
        if not begin:
            return FormatError("not a pickle: name a file that pickle.dump wrote")
        if code in _REFUSED:
            return FormatError(f"uses {_REFUSED[code]}; {stand_in.READABLE}")
        return DamagedError(f"byte {begin} is no opcode of a pickle")

    def cut(self, position: int) -> DamagedError:
        """The error of a file that ends too early, or says at a position what cannot stand there."""
        return DamagedError(f"not a sound pickle: cut or altered at byte {position} of {self.size}")

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

    def key(self, key: Any) -> Any:
        """A key, if it is cheap to hash and to look up: a scalar, or a flat tuple of them.

        The hash of nested tuples takes time, and stack, without bound. Numbers, unlike text, have no secret in their
        hashes, so that a file can hold any number of keys of one hash, each compared with all the others.
        """
        if not all(type(part) in SCALARS for part in (key if type(key) is tuple else (key,))):
            raise FormatError("has keys that are not text, numbers or flat tuples of them; save it as lists instead")
        if type(key) not in (str, bytes) and hash(key) != key:
            alike = self.keys.setdefault(hash(key), set())
            alike.add(key)
            if len(alike) > _MOST_ALIKE:
                raise DamagedError("has keys that were chosen to take time")
        return key


def _mark(machine: Machine, _: None) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


def _global(machine: Machine, name: tuple[Any, Any]) -> None:
    if name not in _GLOBALS:
        found = repr(f"{name[0]}.{name[1]}"[:80])
        raise FormatError(f"asks for {found}; {stand_in.READABLE}")
    machine.push(_GLOBALS[name])


def _global_from_stack(machine: Machine, _: None) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DamagedError("a class whose name is no text")
    _global(machine, (module, name))


def _instance(machine: Machine, name: tuple[Any, Any]) -> None:
    _global(machine, name)
    raise DamagedError("makes an instance of something that is no class")


def _reduce(machine: Machine, _: None) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    if not any(function is known for known in _GLOBALS.values()) or type(arguments) is not tuple:
        raise DamagedError("calls something that is no function")
    machine.push(function(*arguments))
    machine.spend(machine.stack[-1])


def _build(machine: Machine, _: None) -> None:
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
    target.update((machine.key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def _dict(machine: Machine, _: None) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    _set_items(machine, items)


def _append(machine: Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _add(machine: Machine, _: None) -> None:
    items = machine.pop_to_mark()
    machine.top(set).update(map(machine.key, items))


def _tuple(count: int) -> _Action:
    def action(machine: Machine, _: None) -> None:
        if len(machine.stack) < count:
            raise DamagedError("a tuple of more than there is")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return action


def _nothing(machine: Machine, _: object) -> None:
    """Protocol and frames: every opcode of each protocol is known, and the whole file is at hand."""


_Reader = Callable[[BinaryIO], Any]
_Action = Callable[[Machine, Any], object]

_VALUES = """
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
"""
_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(_VALUES.split(), Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": _dict,
    "SETITEM": lambda machine, _: _set_items(machine, [machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_to_mark()),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "ADDITEMS": _add,
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(machine.key, machine.pop_to_mark()))),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.push(machine.memo[key])),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.remember),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _global_from_stack,
    "INST": _instance,
    "REDUCE": _reduce,
    "BUILD": _build,
}
_WHY_NOT = {
    **dict.fromkeys(("PERSID", "BINPERSID"), "persistent ids"),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "extension codes"),
    **dict.fromkeys(("OBJ", "NEWOBJ", "NEWOBJ_EX"), "classes"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "buffers outside of the file"),
}
_KNOWN = {opcode.name: (opcode.code.encode("latin1"), opcode.arg) for opcode in pickletools.opcodes}
_READERS: dict[str, _Reader] = {
    **{name: argument.reader for name, (_, argument) in _KNOWN.items() if argument is not None},
    **{"STRING": text.quoted, "LONG4": text.long_number, "GLOBAL": text.name, "INST": text.name},
}
_STEPS = {_KNOWN[name][0]: (_READERS.get(name), action) for name, action in _ACTIONS.items()}
_REFUSED = {_KNOWN[name][0]: why for name, why in _WHY_NOT.items()}
