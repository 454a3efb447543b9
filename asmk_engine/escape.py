"""Escape image names for line formats, in which white space and control characters would break the format or the line.

Characters that an output encoding lacks are escaped in the same way: see `register_escapes`.
"""

from __future__ import annotations

import codecs
import contextlib
import encodings.ascii
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from asmk_engine.errors import InputError

# White space, control characters, lone surrogates, which have no UTF-8 form, and the byte order mark.
_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_TO_ENCODE = re.compile(rf"%|{_UNSAFE.pattern}")
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

ESCAPES = "asmk-escapes"  # the error handler of codecs
# ASCII under another name: click treats a stream of plain `ascii` as misconfigured, and writes UTF-8 to it.
PLAIN_ASCII = "plain-ascii"


def escape_name(name: str) -> str:
    """Return the name with each character that a line format cannot carry as %XX, one for each byte of its UTF-8 form.

    White space, control characters, lone surrogates, the byte order mark and the percent sign are encoded; ordinary
    names, including letters of any script, stay unchanged. `unescape_name` is the exact inverse.
    """
    return _TO_ENCODE.sub(_encoded, name)


def unescape_name(text: str) -> str:
    """Return the name that `escape_name` was given. Raises InputError if a percent sign starts no escape."""
    if _LONE_PERCENT.search(text):
        raise InputError(f"the name {text!r} has a percent sign without two hexadecimal digits: write it as %25")
    try:
        return _ENCODED.sub(_decoded, text)
    except UnicodeDecodeError:
        raise InputError(
            f"the %XX in the name {text!r} are not UTF-8: encode the name in UTF-8, a percent sign itself as %25"
        ) from None


def register_escapes() -> None:
    """Register the codec error handler ESCAPES and the encoding PLAIN_ASCII.

    The handler writes what an encoding lacks, including lone surrogates, as `escape_name` does, so that a printed name
    can be given back as input.
    """
    codecs.register_error(ESCAPES, _escape_unencodable)
    codecs.register(_find_plain_ascii)


def unencodable(names: Iterable[str], encoding: str) -> list[str]:
    """Return the names that an encoding cannot write unchanged, in byte order."""
    return sorted((name for name in names if not _is_encodable(name, encoding)), key=_as_bytes)


def spellings(text: str) -> Iterator[str]:
    """Yield possible originals of a printed, copied or unpacked name: itself, unescaped, and in Unicode normal forms.

    File systems and archives convert accented letters between one code point and two, which look the same.
    """
    names = {text: None}
    with contextlib.suppress(InputError):
        names[unescape_name(text)] = None
    yield from names
    for name in names:
        yield from (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))


def is_awkward(name: str) -> bool:
    """Return whether a name holds a character that no line format can carry: white space, a control character, etc."""
    return _UNSAFE.search(name) is not None


def list_names(names: Collection[str], limit: int = 3) -> str:
    """Return the first few names, quoted, and the number of others, for a one-line message: `'a', 'b' and 7 more`."""
    return list_first(list(map(repr, islice(names, limit))), len(names))


def list_first(first: Sequence[str], count: int, joint: str = ", ") -> str:
    """Return the first of `count` texts and the number of others, for a one-line message.

    joint  the separator; a semicolon, for long texts, is also written before `and`
    """
    more = count - len(first)
    return joint.join(first) + (f"{joint.rstrip(', ')} and {more} more" if more > 0 else "")


def _encoded(match: re.Match[str]) -> str:
    return _escaped(match[0])


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in _as_bytes(text))


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _escaped(error.object[error.start : error.end]), error.end


def _find_plain_ascii(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != PLAIN_ASCII:
        return None
    ascii_itself = encodings.ascii.getregentry()
    return codecs.CodecInfo(
        ascii_itself.encode,
        ascii_itself.decode,
        incrementalencoder=ascii_itself.incrementalencoder,
        incrementaldecoder=ascii_itself.incrementaldecoder,
        name=PLAIN_ASCII,
    )


def _is_encodable(name: str, encoding: str) -> bool:
    try:
        name.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
