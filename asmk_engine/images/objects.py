"""Images in object storage, by their URLs, through fsspec: s3://, gs://, memory:// and what else it knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from asmk_engine.errors import DependencyError, InputError, NotFoundError, StorageError
from asmk_engine.images.kinds import SUFFIXES_READ
from asmk_engine.images.list_files import storable
from asmk_engine.images.listing import ImageFile, ImageList, PathLike, find_images

_URL = re.compile(r"[a-z][a-z0-9+]*(?:::[a-z][a-z0-9+]*)*://")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
_LIST_SUFFIX = ".txt"
_LOCAL = ("memory", "file", "local")


@dataclass(frozen=True)
class ObjectImage:
    """An object of object storage: its URL, its size in bytes, and when it was stored, in ns since 1970."""

    url: str
    size: int
    mtime: int

    @property
    def is_shared(self) -> bool:
        """Whether other machines find the same object at its URL."""
        return self.url.split("://")[0] not in _LOCAL

    def read(self) -> bytes:
        """Return its content. Raises StorageError if it cannot be read, DependencyError without the package for it."""
        return read_object(self.url)


def is_url(place: object) -> bool:
    """Return whether something that a user gave is a URL, such as s3://bucket/photos."""
    return isinstance(place, str) and _URL.match(place) is not None


def find_anywhere(inputs: PathLike | Iterable[PathLike], *, prefix: str = "", every_file: bool = False) -> ImageList:
    """Find the images in folders, files and lists as `find_images`, or below URLs, in lists (`.txt`) of URLs, or one.

    The name of an image is its path below the URL, or in a list what follows the part that all lines share. Raises
    InputError if URLs are mixed with paths, or there is no image; NotFoundError, StorageError and DependencyError if
    the storage has no such object, cannot be read, or needs a package.
    """
    given = [inputs] if isinstance(inputs, PathLike) else list(inputs)
    urls = [str(one) for one in given if is_url(one)]
    if not urls:
        return find_images(given, prefix=prefix, every_file=every_file)
    if len(urls) < len(given):
        raise InputError(f"{urls[0]}: URLs and folders were given together; describe them one after the other")
    start = prefix and f"{prefix.removesuffix('/')}/"
    images: dict[str, ImageFile] = {}
    for url in urls:
        for name, found in sorted(_listed(url, every_file), key=lambda pair: pair[0].encode(errors="surrogatepass")):
            _add(images, start + name, found)
    if not images:
        raise InputError(f"{urls[0]}: no images found; expected objects ending in {' '.join(SUFFIXES_READ)}")
    return ImageList(list(images.values()), "", {})


def _add(images: dict[str, ImageFile], name: str, found: ObjectImage) -> None:
    name = storable(name)
    known = images.setdefault(name, ImageFile(name, Path(PurePosixPath(name).name), stored=found))
    if known.stored != found:
        raise InputError(
            f"{found.url}: its name {name!r} is that of another image of this run; describe the URLs one after the "
            "other, the second with --prefix NAME"
        )


def _listed(url: str, every_file: bool) -> list[tuple[str, ObjectImage]]:
    """Return names and objects of the images of one URL: below it, itself, or listed in it."""
    system, path = file_system(url)
    with _readable(url):
        found = system.find(path, detail=True)
    scheme = url.split("://")[0]
    if not found:
        raise NotFoundError(f"{url}: no such object, and none below it; give the URL of a folder or of an image")
    if list(found) == [path] and path.endswith(_LIST_SUFFIX):
        return _of_list(url)
    top = path.rstrip("/")
    listed = []
    for place, facts in found.items():
        name = PurePosixPath(place).name if place == path else place.removeprefix(top).lstrip("/")
        if every_file or PurePosixPath(name).suffix.lower() in SUFFIXES_READ:
            listed.append((name, ObjectImage(f"{scheme}://{place.lstrip('/')}", int(facts["size"] or 0), _time(facts))))
    return listed


def _of_list(url: str) -> list[tuple[str, ObjectImage]]:
    """Return the images that a list of URLs names."""
    try:
        lines = [line.strip() for line in read_object(url).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{url}: the list is invalid at byte {error.start}; save it as UTF-8") from None
    if others := [line for line in lines if not is_url(line)]:
        raise InputError(f"{url}: {others[0]!r} is no URL; expected one URL of an image per line")
    shared = _shared_folder(lines)
    listed = []
    for line in lines:
        system, path = file_system(line)
        with _readable(line):
            facts = system.info(path)
        listed.append((line.removeprefix(shared), ObjectImage(line, int(facts["size"] or 0), _time(facts))))
    return listed


def _shared_folder(urls: list[str]) -> str:
    """Return the part that all URLs begin with, up to a slash."""
    first, last = min(urls), max(urls)
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("/", 0, same) + 1]


def read_object(url: str) -> bytes:
    """Return the content of an object. Raises as `ObjectImage.read`."""
    system, path = file_system(url)
    with _readable(url):
        content: bytes = system.cat_file(path)
        return content


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a URL, and the path in it; DependencyError without the package for it."""
    try:
        import fsspec
    except ImportError:
        raise DependencyError(f"{url}: fsspec is not installed; `pip install 'asmk-engine[ray]'`") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DependencyError(f"{url}: {_one_line(error)}") from None
    except ValueError as error:
        raise InputError(f"{url}: {_one_line(error)}; give a URL such as s3://bucket/photos") from None
    return system, str(path)


@contextmanager
def _readable(url: str) -> Iterator[None]:
    """Turn what a file system of fsspec raises within the block into a NotFoundError or a StorageError."""
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError(f"{url}: no such object; check the URL") from None
    except Exception as error:  # each storage has exceptions of its own, without a common class
        raise StorageError(
            f"{url}: the storage cannot be read ({type(error).__name__}: {_one_line(error)[:200]}); check its address "
            "and credentials"
        ) from None


def _time(facts: dict[str, Any]) -> int:
    """Return when an object was stored, in ns; 0 if the storage does not say."""
    value = next((facts[key] for key in _TIMES if facts.get(key)), 0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        since = (value if value.tzinfo else value.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds) * 1000
    return round(float(value) * 1e6) * 1000  # more digits than microseconds are rounding of the float


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
