"""Readers of arguments for which `pickletools` is unsuitable; they raise ValueError or KeyError for invalid ones."""

from __future__ import annotations

import pickletools
import re
from typing import BinaryIO

_MOST_BITS = 14_000  # larger numbers cannot be printed, not even in an error message
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"'}


def quoted(file: BinaryIO) -> str:
    """Read a quoted string of Python 2 and undo its escapes, as latin-1; pickletools accepts only ASCII."""
    line = _line(file)
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a string has no quotes")
    found = re.sub(
        rb"\\(x[0-9a-fA-F]{2}|.)",
        lambda match: bytes.fromhex(match[1][1:].decode()) if len(match[1]) == 3 else _ESCAPES[match[1]],
        line[1:-1],
    )
    return found.decode("latin1")


def long_number(file: BinaryIO) -> int:
    """Read a number of any size that can be printed."""
    number: int = pickletools.read_long4(file)
    if number.bit_length() > _MOST_BITS:
        raise ValueError("a number has too many digits")
    return number


def name(file: BinaryIO) -> tuple[str, str]:
    """Read the module and the name of a global unchanged; pickletools would undo escapes in them."""
    return _line(file).decode(), _line(file).decode()


def _line(file: BinaryIO) -> bytes:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise ValueError("a line has no end")
    return line[:-1]
