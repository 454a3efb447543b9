"""How names of images are written where white space or control characters would break the format or the line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from itertools import islice

from asmk_engine.errors import InputError

_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")


def escape_name(name: str) -> str:
    """The name with each character that a line format cannot carry as %XX, one per byte of its UTF-8 form.

    White space, control characters, lone surrogates and the percent sign are encoded and nothing else, so ordinary
    names, those with letters of any script included, stay as they are. `unescape_name` inverts it exactly.
    """
    if name.isascii() and name.isprintable() and not any(mark in name for mark in " %"):
        return name
    return "".join(_encoded(mark) if mark == "%" or is_awkward(mark) else mark for mark in name)


def unescape_name(text: str) -> str:
    """The name that `escape_name` was given; InputError where a percent sign does not begin an encoded character."""
    if "%" not in text:
        return text
    if _STRAY.search(text):
        raise InputError(f"the name {text!r} has a percent sign without two hexadecimal digits: write it as %25")
    try:
        return _ENCODED.sub(_decoded, text)
    except UnicodeDecodeError:
        raise InputError(
            f"the %XX in the name {text!r} are not UTF-8: encode the name in UTF-8, a percent sign itself as %25"
        ) from None


def is_awkward(character: str) -> bool:
    """Whether a character is white space, a control character or a lone surrogate, which no line format carries."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cs")


def list_names(names: Collection[str], limit: int = 3) -> str:
    """The first few names for a message of one line, quoted, and how many more there are."""
    more = len(names) - limit
    return ", ".join(map(repr, islice(names, limit))) + (f" and {more} more" if more > 0 else "")


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _decoded(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")
