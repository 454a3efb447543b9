"""How names of images are written where white space or control characters would break the format or the line."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import islice

from asmk_engine.errors import InputError

# White space, control characters, lone surrogates, which have no UTF-8 form, and the byte order mark.
_AWKWARD = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_TO_ENCODE = re.compile(rf"%|{_AWKWARD.pattern}")
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")


def escape_name(name: str) -> str:
    """The name with each character that a line format cannot carry as %XX, one for each byte of its UTF-8 form.

    White space, control characters, lone surrogates, the byte order mark and the percent sign are encoded and nothing
    else, so ordinary names, those with letters of any script included, stay as they are. `unescape_name` inverts it
    exactly.
    """
    return _TO_ENCODE.sub(_encoded, name)


def unescape_name(text: str) -> str:
    """The name that `escape_name` was given; InputError where a percent sign does not begin an encoded character."""
    if _STRAY.search(text):
        raise InputError(f"the name {text!r} has a percent sign without two hexadecimal digits: write it as %25")
    try:
        return _ENCODED.sub(_decoded, text)
    except UnicodeDecodeError:
        raise InputError(
            f"the %XX in the name {text!r} are not UTF-8: encode the name in UTF-8, a percent sign itself as %25"
        ) from None


def is_awkward(name: str) -> bool:
    """Whether a name holds a character that no line format carries: white space, a control character and the like."""
    return _AWKWARD.search(name) is not None


def list_names(names: Collection[str], limit: int = 3) -> str:
    """The first few names for a message of one line, quoted, and how many more there are."""
    more = len(names) - limit
    return ", ".join(map(repr, islice(names, limit))) + (f" and {more} more" if more > 0 else "")


def _encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _decoded(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")
