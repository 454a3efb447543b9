"""Listing of images in folders, single files and list files, with the names that users see.

The name of an image is its POSIX path below the given folder; for a single file, its file name; for a line of a list
file, the path in that line. A given prefix precedes it. The root of the image locates its file.
"""

from __future__ import annotations

import filecmp
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from asmk_engine.errors import InputError, NotFoundError, StorageError
from asmk_engine.escape import escape_name, list_first
from asmk_engine.images.kinds import HEIF_SUFFIXES, SUFFIXES_READ, heif_is_readable, looks_like_image
from asmk_engine.images.list_files import Entry, FileKey, leads_nowhere, read_list, storable
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.images.stored import StoredImage

LIST_SUFFIX = ".txt"
NO_EXTENSION = "no extension"
NO_FILE = "pipe or device"

_ALWAYS_READ = frozenset(SUFFIXES_READ)
_CLASHES_SHOWN = 3
_NOT_UNICODE = "the name is not valid Unicode; rename the file"

PathLike = str | Path
Kind = Literal["folder", "list", "file", "locked"]


LEADS_NOWHERE = "a broken link"
"""The reason why a link was not followed, perhaps because its disk is not mounted."""


@dataclass(frozen=True)
class ImageFile:
    """An image to read: its name, its file, and the root that its name is relative to, which follows from both.

    stored  where its content is if it is no file here; `path` then only tells its suffix
    """

    name: str
    path: Path
    root: Root = field(default=UNKNOWN, compare=False)
    stored: StoredImage | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ImageList:
    """What was found: images to read, failures, and files left out.

    root         the folder that the names are relative to, as given; empty for several folders or with a prefix
    failures     reasons by name; a name that is not valid Unicode is escaped by `escape_name`
    roots        of every given folder and list, in order; not those of single files
    unlisted     reasons by path, as shown in messages: folders, and links perhaps to folders, that could not be read;
                 their contents are unknown
    same         duplicates: name of a file that is not among the images → name of the image that is the same file
    passed_over  number of files in the folders that are no images, by kind: suffixes, NO_EXTENSION, NO_FILE
    """

    images: list[ImageFile]
    root: str
    failures: dict[str, str]
    roots: tuple[Root, ...] = ()
    unlisted: dict[str, str] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)


def find_images(inputs: PathLike | Iterable[PathLike], *, prefix: str = "", every_file: bool = False) -> ImageList:
    """Find the images in folders (with their subfolders), single image files and list files (`.txt`).

    prefix      prefix of all names; `card2` and `card2/` both mean `card2/`
    every_file  in folders, also accept files with another or no suffix if their first bytes are those of an image

    Folders are read in byte order of the names. Hidden files and folders are skipped. Links are followed, and each
    folder and each file is listed once: under its own name rather than that of a link, and under that of the input
    given first. `list_files` describes the list files. Raises NotFoundError if an input does not exist; InputError if
    an input contains no image, if nothing could be read, if two different files would have the same name, and for an
    invalid prefix.
    """
    listed = [Path(inputs)] if isinstance(inputs, PathLike) else [Path(item) for item in inputs]
    if not listed:
        raise InputError("no images given; give a folder, image files, or a .txt file with one path per line")
    search = _Listing(_checked_prefix(prefix), every_file)
    for path, (kind, key) in [(path, _kind_and_key(path)) for path in listed]:
        search.add(path, kind, key)
    search.follow_links()
    return search.result()


def shown(path: object) -> str:
    """Return a path or name as shown in messages: on one line, whatever it contains."""
    text = str(path)
    return text if text.isprintable() else escape_name(text)


def _checked_prefix(prefix: str) -> str:
    whole = prefix and f"{prefix.removesuffix('/')}/"
    if whole and (storable(whole) != whole or not {"", ".", ".."}.isdisjoint(whole.split("/")[:-1])):
        raise InputError(
            f"the prefix {shown(prefix)!r} cannot start the name of an image; expected a path such as card2 or "
            "2024/card2, without leading slash, '.' or '..'"
        )
    return whole


def _kind_and_key(path: Path) -> tuple[Kind, FileKey | None]:
    """Return the kind and the file key of an input. Raises the errors of `find_images` for an unusable one."""
    try:
        status = os.stat(path)
    except PermissionError:
        return "locked", None
    except (OSError, ValueError) as error:  # ValueError: a zero byte, which no file name has
        if os.path.islink(path):
            raise NotFoundError(
                f"{shown(path)}: a broken link to {shown(os.readlink(path))}; correct it or mount the disk"
            ) from None
        if isinstance(error, OSError) and not leads_nowhere(error):
            raise StorageError(f"{shown(path)}: cannot be examined: {error.strerror}; check the path") from None
        raise NotFoundError(
            f"{shown(path)}: no such folder or file; give a folder, image files, or a .txt list"
        ) from None
    key = (status.st_dev, status.st_ino)
    if stat.S_ISDIR(status.st_mode):
        return "folder", key
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)}: a pipe or a device; give a folder, image files, or a .txt list")
    return ("list" if path.suffix.lower() == LIST_SUFFIX else "file"), key


@dataclass
class _Input:
    """The content of one input.

    given      the folder that its names are relative to, as given
    entries    possible images
    names      its names, without the prefix of the call → name of the image chosen for each
    leads_elsewhere  whether a link in it leads to something listed elsewhere
    """

    given: str
    root: Root
    kind: Kind
    entries: list[Entry] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unlisted: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    leads_elsewhere: bool = False


class _InputFolder(NamedTuple):
    """A folder below an input; `start` is the prefix of the names in it, empty or ending in a slash."""

    part: _Input
    start: str
    path: Path
    is_linked: bool


class _Listing:
    """One call: its inputs, and the folders that were listed."""

    def __init__(self, prefix: str, every_file: bool) -> None:
        self._prefix, self._every_file = prefix, every_file
        self._parts: list[_Input] = []
        self._listed: dict[FileKey | str, _InputFolder] = {}
        self._links: list[_InputFolder] = []
        self._again: list[tuple[_InputFolder, _InputFolder]] = []
        self._is_readable = cache(heif_is_readable)

    def add(self, path: Path, kind: Kind, key: FileKey | None) -> None:
        """Add an input; links to folders in it wait for `follow_links`."""
        folder = path if kind == "folder" else path.parent
        part = _Input(str(folder), Root.of(folder, self._prefix), kind)
        self._parts.append(part)
        if kind == "folder":
            self._walk(_InputFolder(part, "", path, False))
        elif kind == "list":
            self._read_list(part, path)
        elif kind == "locked":
            part.unlisted[shown(path)] = "cannot be examined: Permission denied"
        else:
            part.entries.append(Entry(path.name, path, key, path.is_symlink()))

    def follow_links(self) -> None:
        """Walk the folders behind links, in rounds: first those reached through fewer links."""
        while self._links:
            order = {id(part): number for number, part in enumerate(self._parts)}
            links = sorted(self._links, key=lambda link: (order[id(link.part)], os.fsencode(link.start)))
            self._links = []
            for link in links:
                self._walk(link)

    def result(self) -> ImageList:
        """Return the images of all inputs, each file once."""
        chosen = self._chosen()
        for place, first in self._again:
            for name, taken in list(first.part.names.items()):
                if name.startswith(first.start):
                    place.part.names.setdefault(place.start + name[len(first.start) :], taken)
        failures = {name: why for part in self._parts for name, why in part.failures.items() if name not in chosen}
        unlisted = {path: why for part in self._parts for path, why in part.unlisted.items()}
        self._check_any(bool(chosen or failures), unlisted)
        roots = dict.fromkeys(part.root for part in self._parts if part.kind in ("folder", "list"))
        passed_over = sum((part.passed_over for part in self._parts), Counter[str]())
        return ImageList(
            list(chosen.values()),
            self._common_folder(),
            failures,
            tuple(roots),
            unlisted,
            dict(self._same(chosen)),
            dict(sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))),
        )

    def _walk(self, top: _InputFolder) -> None:
        """Sort everything in and below a folder, except links."""
        waiting = [top]
        while waiting:
            place = waiting.pop()
            unlisted = place.part.unlisted
            try:
                device, entries = self._opened(place)
            except OSError as error:
                unlisted[shown(place.path)] = f"the folder cannot be listed: {error.strerror}"
                continue
            for entry in entries:
                try:
                    if not entry.name.startswith("."):
                        self._sort(place, entry, device, waiting)
                except OSError as error:
                    reason = f"cannot be examined: {error.strerror}"
                    unlisted[shown(place.path / entry.name)] = LEADS_NOWHERE if leads_nowhere(error) else reason

    def _opened(self, place: _InputFolder) -> tuple[int, list[os.DirEntry[str]]]:
        """Return the device of a folder and its entries; no entries if it was listed before."""
        # The dot requires permission to enter the folder; without it, files would be listed but could not be opened.
        status = os.stat(os.path.join(place.path, os.curdir))
        key = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(place.path)
        first = self._listed.setdefault(key, place)
        if first is not place:
            place.part.leads_elsewhere = True
            if not place.is_linked:
                self._again.append((place, first))
            return status.st_dev, []
        with os.scandir(place.path) as entries:
            return status.st_dev, list(entries)

    def _sort(self, place: _InputFolder, entry: os.DirEntry[str], device: int, waiting: list[_InputFolder]) -> None:
        if entry.is_symlink():
            self._sort_link(place, entry)
        elif entry.is_dir(follow_symlinks=False):
            waiting.append(place._replace(start=f"{place.start}{entry.name}/", path=place.path / entry.name))
        elif entry.is_file(follow_symlinks=False):
            # The inode number of the entry saves a stat of each file.
            self._sort_file(place, entry, (device, entry.inode()), place.is_linked)
        else:
            place.part.passed_over[NO_FILE] += 1

    def _sort_link(self, place: _InputFolder, entry: os.DirEntry[str]) -> None:
        try:
            status = os.stat(entry.path)
        except OSError as error:
            # With the name of an image it is an unreadable image; anything else may be a folder on an unmounted disk.
            if not leads_nowhere(error) or not self._is_image(entry):
                raise
            place.part.entries.append(Entry(place.start + entry.name, place.path / entry.name, None, True))
            return
        if stat.S_ISDIR(status.st_mode):
            self._links.append(_InputFolder(place.part, f"{place.start}{entry.name}/", place.path / entry.name, True))
        elif stat.S_ISREG(status.st_mode):
            self._sort_file(place, entry, (status.st_dev, status.st_ino), True)
        else:
            place.part.passed_over[NO_FILE] += 1

    def _sort_file(self, place: _InputFolder, entry: os.DirEntry[str], key: FileKey, is_linked: bool) -> None:
        if self._is_image(entry):
            known = key if key[1] else None  # some file systems have no inode numbers
            place.part.entries.append(Entry(place.start + entry.name, place.path / entry.name, known, is_linked))
        else:
            place.part.passed_over[shown(_suffix(entry.name)) or NO_EXTENSION] += 1

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        suffix = _suffix(entry.name)
        if suffix in HEIF_SUFFIXES:
            return self._is_readable(suffix)
        return suffix in _ALWAYS_READ or (self._every_file and looks_like_image(entry.path))

    def _read_list(self, part: _Input, path: Path) -> None:
        try:
            listed = read_list(path.read_bytes(), path.parent)
        except OSError as error:
            raise StorageError(
                f"{shown(path)}: the list cannot be read: {error.strerror}; check its permissions"
            ) from None
        except InputError as error:
            raise InputError(f"{shown(path)}: {error}") from None
        part.given, part.root = str(listed.folder), Root.of(listed.folder, self._prefix)
        part.entries += listed.entries
        part.failures |= {storable(self._prefix + name): why for name, why in listed.failures.items()}
        part.unlisted |= {shown(folder): why for folder, why in listed.unlisted.items()}

    def _chosen(self) -> dict[str, ImageFile]:
        """Choose the images by name, in order; each input learns which image was chosen for each of its names."""
        choice, order = _Choice(), {}
        for number, place, part, entry in self._ordered_entries():
            name = self._prefix + entry.name
            if storable(name) != name:
                part.failures[storable(name)] = _NOT_UNICODE
                continue
            image = ImageFile(name, entry.path, part.root)
            taken = choice.take(image, entry.key)
            part.names[entry.name] = taken.name
            if taken is image:
                order[name] = (number, place)
        choice.check_names()
        return {name: choice.by_name[name] for name in sorted(order, key=order.__getitem__)}

    def _ordered_entries(self) -> Iterator[tuple[int, int, _Input, Entry]]:
        """Yield all entries in the order of choice, links last, with the number of the input and the position in it."""
        for part in self._parts:
            if part.kind == "folder":
                part.entries.sort(key=lambda entry: os.fsencode(entry.name))
        for is_linked in (False, True):
            for number, part in enumerate(self._parts):
                for place, entry in enumerate(part.entries):
                    if entry.is_linked == is_linked:
                        yield number, place, part, entry

    def _same(self, chosen: dict[str, ImageFile]) -> Iterator[tuple[str, str]]:
        for part in self._parts:
            for below, taken in part.names.items():
                name = self._prefix + below
                if name not in chosen and storable(name) == name:
                    yield name, taken

    def _common_folder(self) -> str:
        folders = {part.given for part in self._parts if part.kind != "locked"}
        return folders.pop() if len(folders) == 1 and not self._prefix else ""

    def _check_any(self, any_found: bool, unlisted: dict[str, str]) -> None:
        """Raise InputError for a folder without images, and if nothing was found at all."""
        for part in self._parts:
            found = part.names or part.failures or part.unlisted or part.leads_elsewhere
            if part.kind == "folder" and not found:
                raise InputError(_no_images_message(part, self._every_file))
        if not any_found and unlisted:
            path, reason = next(iter(unlisted.items()))
            more = f" (and {len(unlisted) - 1} more)" if len(unlisted) > 1 else ""
            raise InputError(f"{path}: no images found: {reason}{more}; check permissions and disks")
        if not any_found:
            raise InputError(_no_images_message(self._parts[0], self._every_file))


class _Choice:
    """The image chosen for each file and for each name: the first one."""

    def __init__(self) -> None:
        self.by_name: dict[str, ImageFile] = {}
        self._by_key: dict[FileKey, ImageFile] = {}
        self._clashes: list[tuple[ImageFile, ImageFile]] = []

    def take(self, image: ImageFile, key: FileKey | None) -> ImageFile:
        """Return the image itself, or the one chosen earlier for the same file or name."""
        if key is not None:
            first = self._by_key.setdefault(key, image)
            if first is not image and _is_same_file(first.path, image.path):
                return first
        other = self.by_name.setdefault(image.name, image)
        if other is not image and not _is_equal_file(other.path, image.path):
            self._clashes.append((other, image))
        return other

    def check_names(self) -> None:
        """Raise InputError if two different files have the same name."""
        if not self._clashes:
            return
        first = [
            f"{shown(one.path)} and {shown(other.path)} would both be named {shown(one.name)!r}"
            for one, other in self._clashes[:_CLASHES_SHOWN]
        ]
        raise InputError(
            f"{list_first(first, len(self._clashes))}; index the folders one after the other, the second "
            "with --prefix NAME, to keep both"
        )


def _is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths with the same key are the same file."""
    try:
        first, second = os.stat(one), os.stat(other)
    except OSError:
        return False
    # Overlay and network file systems may repeat inode numbers.
    is_alike = (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)
    return is_alike and os.path.samestat(first, second)


def _is_equal_file(one: Path, other: Path) -> bool:
    """Return whether two files with the same name have the same content."""
    if os.path.abspath(one) == os.path.abspath(other):
        return True
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _suffix(name: str) -> str:
    """Return the suffix in lower case; empty if there is none, as in `photo` and `photo.`."""
    stem, _, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and suffix else ""


def _no_images_message(part: _Input, every_file: bool) -> str:
    """Return the message for an input without images, with a cure that fits its files."""
    counts = part.passed_over
    cures = []
    heif = [_counted(counts[kind], f"{kind} file") for kind in HEIF_SUFFIXES if counts[kind]]
    if heif:
        cures.append(f"{', '.join(heif)}: pip install 'asmk-engine[heif]' reads them")
    if counts[NO_EXTENSION] and not every_file:
        files = _counted(counts[NO_EXTENSION], "file")
        cures.append(f"{files} without an extension: --all-files accepts those that are images")
    if cures:
        return f"{shown(part.given)}: no images found; it holds {', and '.join(cures)}"
    others = [f"{count} {kind}" for kind, count in counts.most_common(3)]
    holds = f"; it holds {', '.join(others)}{' and others' if len(counts) > len(others) else ''}" if others else ""
    return f"{shown(part.given)}: no images found; expected files ending in {' '.join(SUFFIXES_READ)}{holds}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
