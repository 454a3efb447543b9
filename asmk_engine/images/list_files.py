"""List files: their encoding, the paths in their lines, and the files these refer to.

A list has one path per line, relative to the folder of the list or absolute; empty lines are skipped, and there are no
comments. If any line is outside that folder, all names are absolute paths without the leading slash.
"""

from __future__ import annotations

import codecs
import errno
import os
import posixpath
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from asmk_engine.errors import InputError
from asmk_engine.escape import escape_name

FileKey = tuple[int, int]
"""Identifies a file independently of its name: device and inode number."""

# UTF-32 first: its mark starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")
_NOT_UTF8 = "the line is not UTF-8 and no file has exactly these bytes as its name; save the list as UTF-8"
_LEADS_OUT = "the path leads out of the folder of the list; write it as an absolute path"
_IS_FOLDER = "is a folder, but a list names files; give the folder as another input"
_IS_DEVICE = "is a pipe or a device, but a list names files; remove the line"
_IS_MISPLACED = "not next to the list, but below the current folder; move the list there, or write absolute paths"


class Entry(NamedTuple):
    """A file that may be an image.

    name       path below its root, without the prefix of the call
    key        None if its status could not be read; it then equals no other
    is_linked  whether a link leads to it: the file itself, or in a folder, a folder on the path
    """

    name: str
    path: Path
    key: FileKey | None
    is_linked: bool


@dataclass
class Listed:
    """The content of a list: files, unusable lines by name, and unreadable folders by path."""

    folder: Path
    entries: list[Entry] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    unlisted: dict[str, str] = field(default_factory=dict)


def read_list(content: bytes, folder: Path) -> Listed:
    """Parse the bytes of a list in this folder; the folder of the result is the one that the names are relative to.

    UTF-8, or as a byte order mark says. Raises InputError if the list names nothing, is mostly not such text, or if all
    its files are below the current folder instead; the message lacks the path of the list.
    """
    lines = [line for line in (line.removesuffix("\r") for line in _text(content).split("\n")) if line.strip()]
    if not lines:
        raise InputError("the list names no image; expected one path per line")
    _check_text(lines, folder)
    listed = Listed(folder)
    names = dict.fromkeys(name for line in lines if (name := _name(line, folder, listed.failures)))
    if any(os.path.isabs(name) for name in names):
        listed.folder = Path(Path(os.path.abspath(folder)).anchor)
        places = {line: Path(os.path.abspath(folder / line)) for line in names}
        named = {_below_anchor(path): (line, path) for line, path in places.items()}
    else:
        named = {line: (line, folder / line) for line in names}
    misplaced = [name for name, (line, path) in named.items() if not _sort_line(listed, name, path, line)]
    _check_places(misplaced, listed)
    return listed


def leads_nowhere(error: OSError) -> bool:
    """Return whether an error means that a path does not exist, rather than that it cannot be examined."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def storable(name: str) -> str:
    """Return the name, escaped by `escape_name` if it is not valid Unicode and cannot be the name of an image."""
    return escape_name(name) if _UNSTORABLE.search(name) else name


def _text(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding, "surrogateescape" if mark == codecs.BOM_UTF8 else "strict")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"the list starts as {encoding.upper()} but is invalid at byte {error.start}; save it as UTF-8"
                ) from None
    return content.decode("utf-8", "surrogateescape")


def _check_text(lines: list[str], folder: Path) -> None:
    """Raise one InputError if most lines are not text, instead of one failure per line."""
    if sum("\0" in line for line in lines) * 2 > len(lines):
        raise InputError(
            "the list contains zero bytes, like UTF-16 without its byte order mark; save it as UTF-8, one path per line"
        )
    broken = [number for number, line in enumerate(lines, start=1) if _is_broken(line, folder)]
    if len(broken) * 2 > len(lines):
        raise InputError(
            f"{len(broken)} of the {len(lines)} lines of the list, first line {broken[0]}, are not UTF-8; "
            "save it as UTF-8, one path per line"
        )


def _is_broken(line: str, folder: Path) -> bool:
    """Return whether a line is not UTF-8 and no file has these bytes as its name."""
    return storable(line) != line and not os.path.lexists(folder / line)


def _name(line: str, folder: Path, failures: dict[str, str]) -> str | None:
    """Return the normalised path in a line, relative to the folder of the list if it is below it."""
    name = posixpath.normpath(PurePath(line).as_posix())
    if storable(name) != name:
        is_broken = "\0" not in name and _is_broken(line, folder)
        failures[storable(name)] = _NOT_UTF8 if is_broken else "the name is not valid Unicode; rename the file"
        return None
    if os.path.isabs(name):
        below = PurePath(os.path.abspath(folder))
        return PurePath(name).relative_to(below).as_posix() if PurePath(name).is_relative_to(below) else name
    if name == ".." or name.startswith("../"):
        failures[name] = _LEADS_OUT
        return None
    return name


def _sort_line(listed: Listed, name: str, path: Path, line: str) -> bool:
    """Add the file of a line to the entries or failures; return False if it is below the current folder instead.

    A missing file stays an entry: its reader reports it, and knows whether it existed before.
    """
    try:
        status, is_linked = _status(path)
    except OSError as error:
        if leads_nowhere(error):
            listed.entries.append(Entry(name, path, None, False))
            return os.path.isabs(line) or os.path.lexists(path) or not os.path.isfile(line)
        if isinstance(error, PermissionError):
            listed.unlisted[str(path.parent)] = f"files of the list in it cannot be examined: {error.strerror}"
        else:
            listed.failures[storable(name)] = f"cannot be examined: {error.strerror}; correct the line"
        return True
    if stat.S_ISREG(status.st_mode):
        listed.entries.append(Entry(name, path, (status.st_dev, status.st_ino), is_linked))
    else:
        listed.failures[storable(name)] = _IS_FOLDER if stat.S_ISDIR(status.st_mode) else _IS_DEVICE
    return True


def _status(path: Path) -> tuple[os.stat_result, bool]:
    """Return the status of a path's target, and whether the path is a link."""
    status = os.lstat(path)
    return (os.stat(path), True) if stat.S_ISLNK(status.st_mode) else (status, False)


def _check_places(misplaced: list[str], listed: Listed) -> None:
    """Turn files below the current folder into failures. Raises InputError if the list names no others."""
    if not misplaced:
        return
    if len(misplaced) == len(listed.entries) and not listed.failures and not listed.unlisted:
        raise InputError(
            f"its paths are relative to the current folder, not to that of the list: {misplaced[0]!r} is in the former "
            "only; move the list to the current folder, or write absolute paths"
        )
    names = set(misplaced)
    listed.entries = [entry for entry in listed.entries if entry.name not in names]
    listed.failures |= {storable(name): _IS_MISPLACED for name in misplaced}


def _below_anchor(path: Path) -> str:
    return path.as_posix().removeprefix(PurePath(path.anchor).as_posix())
