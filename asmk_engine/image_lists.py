"""Which images: those in folders, single files and list files, each with the name that users see.

The name of an image is its POSIX path below the folder that was given; of a single file, its file name; of a line in a
list file, the path in that line. Wherever all images share one root, `root / name` is the file.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from asmk_engine.errors import InputError, NotFoundError, StorageError
from asmk_engine.escape import escape_name

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
LIST_SUFFIX = ".txt"

PathLike = str | Path


@dataclass(frozen=True)
class ImageFile:
    """An image to read: its name and its file."""

    name: str
    path: Path


@dataclass(frozen=True)
class ImageList:
    """What was found: images to read, and what cannot be used.

    root      the folder that the names are relative to, as it was given; empty when there are several
    failures  reasons by name; a name that is not valid Unicode stands here in the form of `escape_name`
    """

    images: list[ImageFile]
    root: str
    failures: dict[str, str]


def find_images(inputs: PathLike | Iterable[PathLike]) -> ImageList:
    """The images in folders (with their subfolders), single image files and list files (`.txt`); none is opened.

    Folders are read in byte order of the names. Hidden files and folders are skipped. Linked folders are followed,
    except back into a folder they lie in. A list file holds one path per line, relative to its own folder or absolute;
    empty lines are skipped, and there are no comments. As soon as one line lies outside that folder, all the names of
    the list are absolute paths without the leading slash. NotFoundError when an input does not exist; InputError when
    one names no image, or when two files would bear the same name.
    """
    listed = [inputs] if isinstance(inputs, PathLike) else list(inputs)
    if not listed:
        raise InputError("no images given; give a folder, image files, or a .txt file with one path per line")
    found = [_find(Path(item)) for item in listed]
    images = _unique(image for part in found for image in part.images)
    names = {image.name for image in images}
    failures = {name: why for part in found for name, why in part.failures.items() if name not in names}
    roots = {part.root for part in found}
    return ImageList(images, roots.pop() if len(roots) == 1 else "", failures)


def shown(path: object) -> str:
    """A path or name as it is written in a message: on one line, whatever it holds."""
    text = str(path)
    return text if text.isprintable() else escape_name(text)


def _find(path: Path) -> ImageList:
    if path.is_dir():
        return _in_folder(path)
    if not os.path.lexists(path):
        raise NotFoundError(f"{shown(path)}: no such folder or file; give a folder, image files, or a .txt list")
    if path.suffix.lower() == LIST_SUFFIX:
        return _in_list(path)
    return _checked([(path.name, path)], str(path.parent), {})


def _in_folder(folder: Path) -> ImageList:
    failures: dict[str, str] = {}
    entries = sorted(_walk(folder, "", frozenset(), failures), key=lambda entry: os.fsencode(entry[0]))
    if not entries and not failures:
        raise InputError(f"{shown(folder)}: no images found; expected files ending in {' '.join(SUFFIXES)}")
    return _checked(entries, str(folder), failures)


def _walk(
    folder: Path, prefix: str, above: frozenset[tuple[int, int]], failures: dict[str, str]
) -> Iterator[tuple[str, Path]]:
    """Names and paths of the images in a folder; `above` identifies the folders it lies in."""
    try:
        status, entries = os.stat(folder), list(os.scandir(folder))
    except OSError as error:
        failures[_storable(prefix) or "."] = f"the folder cannot be listed: {error.strerror}"
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {here}, failures)
        elif PurePath(entry.name).suffix.lower() in SUFFIXES:
            yield f"{prefix}{entry.name}", folder / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one; `entry.is_dir()` alone raises for a link to itself."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _in_list(path: Path) -> ImageList:
    lines = _lines(path)
    if not lines:
        raise InputError(f"{shown(path)}: the list names no image; expected one path per line")
    failures: dict[str, str] = {}
    folder = path.parent
    names = [name for line in lines if (name := _listed_name(line, folder, failures))]
    if not any(os.path.isabs(name) for name in names):
        return _checked([(name, folder / name) for name in names], str(folder), failures)
    files = [Path(os.path.abspath(folder / name)) for name in names]
    return _checked([(_below_anchor(file), file) for file in files], Path(os.path.abspath(folder)).anchor, failures)


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{shown(path)}: the list cannot be read: {error.strerror}; check its permissions") from None
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return [line for line in (line.removesuffix("\r") for line in text.split("\n")) if line.strip()]


def _listed_name(line: str, folder: Path, failures: dict[str, str]) -> str | None:
    """The path in a line, normalised; relative to the folder of the list where it lies below it."""
    name = posixpath.normpath(PurePath(line).as_posix())
    if os.path.isabs(name):
        below = PurePath(os.path.abspath(folder))
        return PurePath(name).relative_to(below).as_posix() if PurePath(name).is_relative_to(below) else name
    if name == ".." or name.startswith("../"):
        failures[_storable(name)] = "the path leads out of the folder of the list; write it as an absolute path"
        return None
    return name


def _below_anchor(file: Path) -> str:
    return file.as_posix().removeprefix(PurePath(file.anchor).as_posix())


def _checked(entries: Iterable[tuple[str, Path]], root: str, failures: dict[str, str]) -> ImageList:
    """The entries as images; names that cannot be stored become failures under an escaped form."""
    images = []
    for name, path in entries:
        if _storable(name) == name:
            images.append(ImageFile(name, path))
        else:
            failures[_storable(name)] = "the name is not valid Unicode; rename the file"
    return ImageList(images, root, failures)


def _storable(name: str) -> str:
    storable = "\0" not in name and not any("\ud800" <= mark <= "\udfff" for mark in name)
    return name if storable else escape_name(name)


def _unique(images: Iterable[ImageFile]) -> list[ImageFile]:
    """The images without repetitions; InputError when two different files bear one name."""
    found: dict[str, ImageFile] = {}
    for image in images:
        other = found.setdefault(image.name, image)
        if other.path != image.path and os.path.abspath(other.path) != os.path.abspath(image.path):
            raise InputError(
                f"{shown(other.path)} and {shown(image.path)} would both be named {shown(image.name)!r}; "
                "give the folder that holds both"
            )
    return list(found.values())
