"""Names of files made from names of images: safe on every file system, never twice, never in another folder."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 60
_OTHER = re.compile(r"[^A-Za-z0-9_-]+")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # reserved on Windows


def file_stem(name: str) -> str:
    """Return a name of ASCII letters, digits, `_` and `-` that is most like the name of an image, without extension.

    It is never empty or longer than LONGEST, has no dot and no separator of folders, and is no reserved name; of a
    longer name the end is kept.
    """
    plain = unicodedata.normalize("NFKD", _EXTENSION.sub("", name)).encode("ascii", "ignore").decode()
    stem = _OTHER.sub("-", plain).strip("-")[-LONGEST:].strip("-")
    return f"image-{stem}" if _DEVICES.fullmatch(stem) else stem or "image"


class UnusedNames:
    """Gives names that it has not given before, also where letters of either case count as equal."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def take(self, stem: str) -> str:
        """Return the name, with the first number from 2 that makes it a new one if it was given before."""
        found, number = stem, 2
        while found.lower() in self._used:
            found, number = f"{stem}-{number}", number + 1
        self._used.add(found.lower())
        return found
