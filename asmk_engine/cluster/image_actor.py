"""The actor that describes images on a node, with the worker processes that a run on one machine has."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from asmk_engine.cluster.connecting import check_versions
from asmk_engine.errors import InputError
from asmk_engine.extraction.attempts import Extractor, Origin, Outcome, file_stamp
from asmk_engine.extraction.pools import LocalPool
from asmk_engine.images.listing import ImageFile
from asmk_engine.images.objects import ObjectImage
from asmk_engine.images.stored import StoredImage


@dataclass(frozen=True)
class ContentImage:
    """An image whose content came with it."""

    data: bytes
    size: int
    mtime: int

    def read(self) -> bytes:
        """Return its content."""
        return self.data


@dataclass(frozen=True)
class ImageOrder:
    """An image to describe on a node.

    path    the file, on the machine that gives the order; of an object its name
    stamp   size and time of the file; None if it could not be read there either
    stored  where its content is if it is no file of the node
    """

    path: str
    stamp: tuple[int, int] | None = None
    stored: StoredImage | None = None


@dataclass(frozen=True)
class ActorOptions:
    """How an actor makes its extractor.

    origin    of the extractor; its option `weights`, if there is one, is the name of a file in `files`
    files     contents by name
    workers   worker processes
    batches   whether the actor itself describes batches on a GPU, rather than its worker processes
    seconds   time limit per image
    versions  those of the program that gives the orders
    """

    origin: Origin
    files: Mapping[str, bytes]
    workers: int
    batches: bool
    seconds: float
    versions: Mapping[str, str]


@dataclass(frozen=True)
class _OriginAlone:
    """What stands for an extractor where only worker processes make one."""

    origin: Origin


class ImageActor:
    """Describes images in order, a few at a time; Ray makes one in a process of a node."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._pool: LocalPool | None = None

    def prepare(self, options: ActorOptions) -> int:
        """Prepare for the images of a run; returns how many are described at a time. Raises what prevents it.

        Not the constructor, whose errors would come back as a long text.
        """
        check_versions(dict(options.versions), os.uname().nodename)
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="asmk-engine-"))
        origin = _placed(options, Path(folder))
        extractor = cast(Extractor, origin.make() if options.batches else _OriginAlone(origin))
        self._pool = self._open.enter_context(LocalPool(extractor, options.workers, options.seconds))
        return int(getattr(extractor, "batch_size", 1))

    def close(self) -> None:
        """End the worker processes and remove the files of the extractor."""
        self._open.close()
        self._pool = None

    def attempt(self, orders: Sequence[ImageOrder]) -> list[Outcome | None]:
        """Return the outcome of each image, None for a file that this node does not have or has otherwise."""
        pool = self._pool
        if pool is None:
            raise InputError("the actor was asked for images before it was prepared")
        images = [_image(order) for order in orders]
        outcomes = pool.attempt_all([image for image in images if image is not None])
        found: list[Outcome | None] = [None if image is None else next(outcomes) for image in images]
        return found


def _placed(options: ActorOptions, folder: Path) -> Origin:
    """Return the origin with the network file where it is on this node."""
    named = dict(options.origin.options)
    for name, content in options.files.items():
        (folder / name).write_bytes(content)
        named["weights"] = str(folder / name)
    return Origin(options.origin.function, named)


def _image(order: ImageOrder) -> ImageFile | None:
    path = Path(order.path)
    if order.stored is not None:
        return ImageFile(order.path, path, stored=order.stored)
    try:
        is_there = order.stamp is None or file_stamp(path) == order.stamp
    except OSError:
        is_there = False
    return ImageFile(order.path, path) if is_there else None


def order_of(image: ImageFile, *, whole: bool) -> ImageOrder:
    """Return the order for an image.

    whole  whether the content comes with it, because the node does not see it
    """
    if image.stored is not None:
        stored = image.stored
        is_seen = isinstance(stored, ObjectImage) and stored.is_shared and not whole
        return ImageOrder(str(image.path), None, stored if is_seen else _content(stored))
    try:
        stamp = file_stamp(image.path)
        if not whole:
            return ImageOrder(str(image.path), stamp)
        return ImageOrder(str(image.path), stamp, ContentImage(image.path.read_bytes(), *stamp))
    except (OSError, ValueError):  # the attempt will tell the reason
        return ImageOrder(str(image.path))


def _content(stored: StoredImage) -> StoredImage:
    return ContentImage(stored.read(), stored.size, stored.mtime)


def actor_options(extractor: Extractor, workers: int, seconds: float, gpus: float, versions: dict[str, str]) -> Any:
    """Return the options of actors for an extractor; its network file goes with them, and its device follows `gpus`."""
    origin, files = extractor.origin, {}
    named = dict(origin.options)
    weights = named.get("weights")
    if weights and os.path.isfile(str(weights)):
        files[Path(str(weights)).name] = Path(str(weights)).read_bytes()
    if named.get("device") == "auto":
        named["device"] = "cuda" if gpus else "cpu"
    return ActorOptions(Origin(origin.function, named), files, workers, gpus > 0, seconds, versions)
