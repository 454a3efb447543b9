"""An interpreter of pickle opcodes, all protocols, limited to plain values and numpy arrays.

A pickle is a program for a stack machine. This machine gives it access to nothing except the functions of `arrays`:
it looks up no class, imports nothing and sets no attribute. Numbers, bytes and text are read by `pickletools`, which
never reads more than the file has.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from asmk_engine.errors import AsmkError, DamagedError, FormatError
from asmk_engine.storage.pickles import arrays as replacements
from asmk_engine.storage.pickles import text

_MOST_ALIKE = 64
"""Maximum keys with one hash; 1.5, 1.5 * 2**61, 1.5 * 2**-61, ... are 34 legitimate ones."""
SCALARS = (type(None), bool, int, float, str, bytes)
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): replacements.NdarrayName(),
    ("numpy", "dtype"): replacements.make_dtype,
    **{(module, "_reconstruct"): replacements.announce_array for module in _MULTIARRAY},
    **{(module, "scalar"): replacements.scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): replacements.array_from_buffer for module in _NUMERIC},
    ("_codecs", "encode"): replacements.encode_text,
    **{(module, "bytes"): replacements.empty_bytes for module in ("builtins", "__builtin__")},
}


class Machine:
    """The stack, the marks and the memo of a pickle, with a limit on the bytes that it may copy."""

    def __init__(self, data: bytes) -> None:
        self.file, self.size = io.BytesIO(data), len(data)
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.keys: dict[int, set[Any]] = {}
        # Bytes stored as text and then made an array are copied twice; more copies of the same bytes are an attack.
        self.allowance = 2 * len(data) + 4096

    def run(self) -> Any:
        """Return the value of the pickle. Raises DamagedError, FormatError, or what an invalid operation raises."""
        while (code := self.file.read(1)) != b".":
            if code not in _STEPS:
                raise self.refusal(code)
            read, act = _STEPS[code]
            act(self, self.argument(read) if read else None)
        return self.stack.pop()

    def argument(self, read: _Reader) -> Any:
        """Read the argument of an opcode."""
        begin = self.file.tell()
        try:
            return read(self.file)
        except ValueError:
            raise self.cut(begin) from None

    def refusal(self, code: bytes) -> AsmkError:
        """Return the error for an opcode that is not supported."""
        begin = self.file.tell() - len(code)
        if not code:
            return self.cut(begin)
        if not begin:
            return FormatError("not a pickle: name a file that pickle.dump wrote")
        if code in _REFUSED:
            return FormatError(f"uses {_REFUSED[code]}; {replacements.READABLE}")
        return DamagedError(f"byte {begin} is not a pickle opcode")

    def cut(self, position: int) -> DamagedError:
        """Return the error for a file that is truncated or invalid at a position."""
        return DamagedError(f"not a valid pickle: truncated or altered at byte {position} of {self.size}")

    def push(self, value: Any) -> None:
        """Push a value onto the stack."""
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        """Pop everything above the last mark."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def remember(self, key: int) -> None:
        """Store the top value in the memo."""
        value = self.stack[-1]
        if isinstance(value, replacements.PendingArray):
            value.memo_key = key
        self.memo[key] = value

    def spend(self, value: Any) -> None:
        """Subtract a copy of bytes from the allowance. Raises DamagedError if it is used up."""
        is_array = isinstance(value, np.ndarray | np.generic)
        self.allowance -= value.nbytes if is_array else len(value) if isinstance(value, bytes) else 0
        if self.allowance < 0:
            raise DamagedError("needs more memory than a file of its size can justify")

    def top(self, kind: type) -> Any:
        """Return the top value, which must be a container of this kind."""
        if type(self.stack[-1]) is not kind:
            raise DamagedError(f"adds items to something that is not a {kind.__name__}")
        return self.stack[-1]

    def key(self, key: Any) -> Any:
        """Return a key if it is cheap to hash and to look up: a scalar, or a flat tuple of scalars.

        Hashing nested tuples takes unbounded time and stack. The hashes of numbers, unlike those of text, are not
        salted, so that a file can hold many keys with one hash, each compared with all the others.
        """
        if not all(type(part) in SCALARS for part in (key if type(key) is tuple else (key,))):
            raise FormatError("has keys other than text, numbers or flat tuples of them; save it as lists instead")
        if type(key) not in (str, bytes) and hash(key) != key:
            alike = self.keys.setdefault(hash(key), set())
            alike.add(key)
            if len(alike) > _MOST_ALIKE:
                raise DamagedError("has too many keys with the same hash")
        return key


def _mark(machine: Machine, _: None) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


def _global(machine: Machine, name: tuple[Any, Any]) -> None:
    if name not in _GLOBALS:
        found = repr(f"{name[0]}.{name[1]}"[:80])
        raise FormatError(f"needs {found}; {replacements.READABLE}")
    machine.push(_GLOBALS[name])


def _global_from_stack(machine: Machine, _: None) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DamagedError("the name of a class is not text")
    _global(machine, (module, name))


def _instance(machine: Machine, name: tuple[Any, Any]) -> None:
    _global(machine, name)
    raise DamagedError("makes an instance of something that is not a class")


def _reduce(machine: Machine, _: None) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    if not any(function is known for known in _GLOBALS.values()) or type(arguments) is not tuple:
        raise DamagedError("calls something that is not a function")
    machine.push(function(*arguments))
    machine.spend(machine.stack[-1])


def _build(machine: Machine, _: None) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, replacements.PlainDtype):
        target.build(state)
    elif isinstance(target, replacements.PendingArray):
        array = machine.stack[-1] = replacements.fill_array(state)
        machine.spend(array)
        if target.memo_key is not None:
            machine.memo[target.memo_key] = array
    else:
        raise FormatError(f"sets attributes; {replacements.READABLE}")


def _set_items(machine: Machine, items: list[Any]) -> None:
    target = machine.top(dict)
    if len(items) % 2:
        raise DamagedError("a key has no value")
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
            raise DamagedError("a tuple needs more values than the stack holds")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return action


def _ignore(machine: Machine, _: object) -> None:
    """Ignore protocol and frames: all opcodes of every protocol are known, and the whole file is in memory."""


_Reader = Callable[[BinaryIO], Any]
_Action = Callable[[Machine, Any], object]

_VALUES = """
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
"""
_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "FRAME"), _ignore),
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
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "buffers outside the file"),
}
_KNOWN = {opcode.name: (opcode.code.encode("latin1"), opcode.arg) for opcode in pickletools.opcodes}
_READERS: dict[str, _Reader] = {
    **{name: argument.reader for name, (_, argument) in _KNOWN.items() if argument is not None},
    **{"STRING": text.quoted, "LONG4": text.long_number, "GLOBAL": text.name, "INST": text.name},
}
_STEPS = {_KNOWN[name][0]: (_READERS.get(name), action) for name, action in _ACTIONS.items()}
_REFUSED = {_KNOWN[name][0]: why for name, why in _WHY_NOT.items()}
