"""How names of images are written where white space or control characters would break the format or the line.

The characters that the encoding of an output lacks are written in the same way: see `register_escapes`.
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
_AWKWARD = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_TO_ENCODE = re.compile(rf"%|{_AWKWARD.pattern}")
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")

ESCAPES = "asmk-escapes"  # the error handler of codecs
# ASCII by another name: click takes a stream of plain `ascii` for a mistake, and writes UTF-8 into it.
PLAIN_ASCII = "plain-ascii"


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


def register_escapes() -> None:
    """Make known to codecs the error handler ESCAPES and the encoding PLAIN_ASCII.

    What an encoding lacks, lone surrogates included, the handler writes as `escape_name` writes others, so that a name
    that was printed can be given back.
    """
    codecs.register_error(ESCAPES, _escape_unencodable)
    codecs.register(_find_plain_ascii)


def unencodable(names: Iterable[str], encoding: str) -> list[str]:
    """Those of the names that an encoding cannot write as they are, in byte order."""
    return sorted((name for name in names if not _is_encodable(name, encoding)), key=_as_bytes)


def spellings(text: str) -> Iterator[str]:
    """What a name may have been before it was printed, copied or unpacked: itself, unescaped, and in Unicode's forms.

    File systems and archives change letters with accents from one letter to two and back, which look the same.
    """
    names = {text: None}
    with contextlib.suppress(InputError):
        names[unescape_name(text)] = None
    yield from names
    for name in names:
        yield from (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))


def is_awkward(name: str) -> bool:
    """Whether a name holds a character that no line format carries: white space, a control character and the like."""
    return _AWKWARD.search(name) is not None


def list_names(names: Collection[str], limit: int = 3) -> str:
    """The first few names for a message of one line, quoted, and how many more there are: `'a', 'b' and 7 more`."""
    return list_first(list(map(repr, islice(names, limit))), len(names))


def list_first(first: Sequence[str], count: int, joint: str = ", ") -> str:
    """The first of `count` texts for a message of one line, and how many more there are.

    joint  what stands between them; a semicolon, for texts that are long, stands before `and` too
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
