"""How pickles write text and numbers: from bytes to the value, ValueError or KeyError where they are none."""

from __future__ import annotations

import re

from asmk_engine.errors import DamagedError

_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"'}


def integer(line: bytes) -> int | bool:
    """A decimal number, or a truth value as protocols 0 and 1 write it."""
    return line == b"01" if line in (b"00", b"01") else int(line)


def quoted(line: bytes) -> str:
    """A string of Python 2 in quotes, its escapes undone, as latin-1."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise DamagedError("a string without its quotes")
    found = re.sub(
        rb"\\(x[0-9a-fA-F]{2}|.)",
        lambda match: bytes.fromhex(match[1][1:].decode()) if len(match[1]) == 3 else _ESCAPES[match[1]],
        line[1:-1],
    )
    return found.decode("latin1")


def utf8(data: bytes) -> str:
    """Text; lone surrogates are kept, as Python writes them."""
    return data.decode("utf-8", "surrogatepass")


def latin1(data: bytes) -> str:
    """A string of Python 2 as latin-1."""
    return data.decode("latin1")


def little_endian(data: bytes) -> int:
    """A little-endian number of any size, in two's complement."""
    return int.from_bytes(data, "little", signed=True)


def long_integer(line: bytes) -> int:
    """A decimal number with the L of Python 2."""
    return int(line.removesuffix(b"L"))


def escaped(line: bytes) -> str:
    """Text of protocol 0, with \\u for all that is not latin-1."""
    return line.decode("raw-unicode-escape")
