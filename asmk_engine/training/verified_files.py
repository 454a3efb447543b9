"""Files of verified matches, told by their content.

a list of pairs   the names of two images on each line, and perhaps more columns, which are not read: as `asmk-engine
                  pairs` writes them, and as the lists of Google Landmarks v2
groups.json       of `asmk-engine groups`: its matches
groups.csv        of `asmk-engine groups`, which lists no matches: the images of each group
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError, FormatError
from asmk_engine.images.listing import shown
from asmk_engine.storage.user_files import read_file

MOST_BYTES = 2**31
JSON = "groups.json"
_KIND = "asmk-engine groups"
_COLUMNS = ("image", "group", "kind", "matches")
_GET = "write it again with `asmk-engine groups`"
_OBJECT = re.compile(rb'\s*\{\s*"')
Link = tuple[int, str, str]
"""Line of the file, 0 if it is unknown, and the names of two images that belong together."""


@dataclass(frozen=True)
class VerifiedFile:
    """What a file says.

    path     the file
    links    images that belong together
    joins    whether all images that links connect, directly or through others, show the same thing; else only those
             of a link do
    """

    path: Path
    links: list[Link]
    joins: bool = False


def read_verified(path: Path) -> VerifiedFile:
    """Read a file of verified matches, or `groups.json` in a folder.

    Raises FormatError for a file without matches or a line without two names, DamagedError for a file of groups that
    cannot be read, both with the number of the line, and what `read_file` raises.
    """
    path = path / JSON if path.is_dir() else path
    content = read_file(path, "a list of pairs, groups.json or groups.csv", MOST_BYTES)
    if _OBJECT.match(content):
        found = VerifiedFile(path, list(_matches(_text(content, path), path)))
    elif set(_COLUMNS) <= set(content.partition(b"\n")[0].decode("utf-8-sig", "replace").strip().split(",")):
        found = VerifiedFile(path, list(_grouped(_text(content, path), path)), joins=True)
    else:
        found = VerifiedFile(path, list(_listed(content.decode(errors="replace"), path)))
    if not found.links:
        raise FormatError(f"{shown(path)}: contains no pairs; expected the names of two images on each line, or groups")
    return found


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DamagedError(f"{shown(path)}: line {line} is not UTF-8; {_GET}") from None


def _listed(text: str, path: Path) -> Iterator[Link]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise FormatError(f"{shown(path)}: line {number} is {line[:80]!r}; expected the names of two images")
        yield number, words[0], words[1]


def _grouped(text: str, path: Path) -> Iterator[Link]:
    """Yield each image of a group with the first one of the group."""
    reader, first = csv.DictReader(io.StringIO(text, newline=""), strict=True), dict[str, str]()
    try:
        for row in reader:
            name, group = row["image"], row["group"]
            if not name or group is None or not (group.isdecimal() or group == ""):
                raise DamagedError(
                    f"{shown(path)}: line {reader.line_num} has image {name!r} and group {group!r}; expected a name "
                    f"and the number of a group, or none; {_GET}"
                )
            if group and first.setdefault(group, name) != name:
                yield reader.line_num, first[group], name
    except csv.Error as error:
        where = f"{shown(path)}: line {reader.reader.line_num}"
        raise DamagedError(f"{where} is not readable as CSV ({error}); {_GET}") from None


def _matches(text: str, path: Path) -> Iterator[Link]:
    """Yield the matches of all groups."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{shown(path)}: line {error.lineno}"
        raise DamagedError(f"{where} is not readable as JSON ({error.msg}); {_GET}") from None
    except RecursionError:
        raise DamagedError(f"{shown(path)}: too deeply nested; {_GET}") from None
    groups, kind = content.get("groups"), content.get("kind")
    if kind != _KIND or not isinstance(groups, list):
        raise FormatError(f"{shown(path)}: line 1: JSON of the kind {kind!r}, expected {_KIND!r}; {_GET}")
    for place, (line, group) in enumerate(zip(_lines_of(groups, text), groups, strict=True), start=1):
        for names in _edges_of(group, place, line, path):
            yield line, *names


def _lines_of(groups: list[Any], text: str) -> Iterator[int]:
    """Yield the line of each group, as `groups` writes them; 0 in a file that another program laid out."""
    at, line = 0, 1
    for group in groups:
        found = text.find(json.dumps(group), at) if line else -1
        line = line + text.count("\n", at, found) if found >= 0 else 0
        at = max(at, found)
        yield line


def _edges_of(group: Any, place: int, line: int, path: Path) -> Iterator[tuple[str, str]]:
    try:
        for edge in group["edges"]:
            one, other = edge["images"]
            if not (isinstance(one, str) and isinstance(other, str)):
                raise TypeError("a name that is no text")
            yield one, other
    except (KeyError, TypeError, ValueError) as error:
        where = f"line {line}, " if line else ""
        raise DamagedError(f"{shown(path)}: {where}group {place} has no readable matches ({error!r}); {_GET}") from None
