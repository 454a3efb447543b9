"""Several indexes searched as one, without copying: databases, and distractor sets that were indexed once.

A joint index combines the segments of all of them in one snapshot, so that scores, inverse document frequencies and
ties are those of one index with all the images. The names of distractors get a prefix, `distractor1:` for the first set
and so on, so that none can be confused with an image of a database.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_names
from asmk_engine.extractors import Extractor
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND, KIND
from asmk_engine.indexes.photographs import extractor_of
from asmk_engine.indexes.snapshot import Commit, Identity
from asmk_engine.recipes import Recipe

View = TypeVar("View", bound=Commit[Any, Any])

# How to build two indexes with the same encoder.
_CURES = {
    KIND: "make this one with `index --codebook` and that codebook",
    GLOBAL_KIND: "make both with the same options and the same features for `index --train-on`",
    FUSED_KIND: "copy an index, and delete and add images in the copy",
}
_MARK = re.compile(r"distractor[1-9][0-9]*:")


def is_distractor(name: str) -> bool:
    """Return whether a name has the prefix of a distractor set."""
    return _MARK.match(name) is not None


def split_mark(name: str) -> tuple[str, str]:
    """Split a name into the distractor prefix, empty for a database image, and the name in its own index."""
    mark = _MARK.match(name)
    return (mark[0], name[mark.end() :]) if mark else ("", name)


class JointIndex(Generic[View]):
    """A read-only view of several indexes that a searcher treats as one.

    Additions and deletions made through the given objects are visible at once. Raises MismatchError if the codebooks or
    codecs differ, and InputError if a name is in two databases or has the prefix of a distractor.

    indexes      one or more databases, whose images keep their names
    distractors  indexes whose images get a prefix
    """

    def __init__(
        self, indexes: Sequence[Collection[View, Any]], distractors: Sequence[Collection[View, Any]] = ()
    ) -> None:
        if not indexes:
            raise InputError("no index to search: give one or more")
        self._indexes, self._distractors = tuple(indexes), tuple(distractors)
        self._seen: tuple[View, ...] = ()
        self._joint: View | None = None
        _ = self.snapshot

    @property
    def path(self) -> Path:
        """The path of the first database, used in messages."""
        return self._indexes[0].path

    @property
    def recipe(self) -> Recipe:
        """The recipe of the descriptors of all indexes."""
        return self._indexes[0].recipe

    @property
    def network(self) -> Path | None:
        """The network file in the first index that contains one, or None."""
        found = (index.network for index in (*self._indexes, *self._distractors))
        return next((path for path in found if path), None)

    @functools.cached_property
    def extractor(self) -> Extractor:
        """The extractor that describes a photograph as those of the indexes were described; see `Index.extractor`."""
        return extractor_of(self.recipe, self.network, self.feature_places)

    @property
    def snapshot(self) -> View:
        """The current commits of all indexes combined, which a search runs on."""
        views = tuple(index.snapshot for index in (*self._indexes, *self._distractors))
        if self._joint is None or any(one is not other for one, other in zip(views, self._seen, strict=True)):
            _check_encoders([*self._indexes, *self._distractors])
            databases, distractors = views[: len(self._indexes)], views[len(self._indexes) :]
            _check_names(self._indexes)
            self._joint, self._seen = _join(databases, distractors), views
        return self._joint

    @property
    def images(self) -> int:
        """Number of live images in the databases, without distractors."""
        return sum(index.images for index in self._indexes)

    @property
    def distractors(self) -> int:
        """Number of live images in the distractor sets."""
        return sum(index.images for index in self._distractors)

    @property
    def names(self) -> list[str]:
        """The names of the images of the databases, in byte order."""
        return sorted((name for index in self._indexes for name in index.names), key=str.encode)

    def __contains__(self, name: object) -> bool:
        return any(name in index for index in self._indexes)

    def identity(self, name: str) -> Identity | None:
        """Return root and fingerprint of the image with this name, or None if no database has it."""
        return next((known for index in self._indexes if (known := index.identity(name))), None)

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """The possible paths of each feature set that was added to a database."""
        return [places for index in self._indexes for places in index.feature_places]

    @property
    def photograph_folders(self) -> list[Path]:
        """The image folders recorded in the databases."""
        return list(dict.fromkeys(folder for index in self._indexes for folder in index.photograph_folders))

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of the image file with this name, first those of the database that has it."""
        for index in sorted(self._indexes, key=lambda index: name not in index):
            yield from index.photograph_places(name)

    def __len__(self) -> int:
        return self.images

    def preload(self) -> None:
        """Read all indexes into memory now, see `Index.preload`."""
        for index in (*self._indexes, *self._distractors):
            index.preload()

    def refresh(self) -> None:
        """Switch to the last commits, including those of other processes."""
        for index in (*self._indexes, *self._distractors):
            index.refresh()


def _join(databases: Sequence[View], distractors: Sequence[View]) -> View:
    first = databases[0]
    marked = [
        segment.with_prefix(f"distractor{number}:".encode())
        for number, view in enumerate(distractors, start=1)
        for segment in view.segments
    ]
    segments = (*(segment for view in databases for segment in view.segments), *marked)
    return replace(first, manifest=replace(first.manifest, roots=()), segments=segments)  # each index has its own roots


def _check_encoders(indexes: Sequence[Collection[Any, Any]]) -> None:
    first = indexes[0]
    for index in indexes[1:]:
        if type(index) is not type(first):
            raise MismatchError(f"{index.path}: not the same kind of index as {first.path}; give indexes of one kind")
        one, other = first.snapshot.encoder.fingerprint, index.snapshot.encoder.fingerprint
        if one != other:
            name = first.snapshot.manifest.encoder_name
            raise MismatchError(
                f"{index.path}: its {name} is {other[:12]}, that of {first.path} is {one[:12]}; indexes that are "
                f"searched together need the same {name}: {_CURES[first.kind]}"
            )
        _check_regions(index, first)


def _check_regions(index: Collection[Any, Any], first: Collection[Any, Any]) -> None:
    """Raise MismatchError if only one of two indexes has regions, or both have them in another way."""
    modes = [one.snapshot.manifest.regions and one.snapshot.manifest.regions.mode for one in (index, first)]
    if modes[0] != modes[1]:
        raise MismatchError(
            f"{index.path}: has {_regions(modes[0])}, {first.path} has {_regions(modes[1])}, and their scores do not "
            "compare; index the images of one of them again with the same --regions"
        )


def _regions(mode: str | None) -> str:
    return f"regions ({mode})" if mode else "no regions"


def _check_names(indexes: Sequence[Collection[Any, Any]]) -> None:
    for place, index in enumerate(indexes):
        for segment in index.snapshot.segments:
            if name := _first_marked(segment):
                raise InputError(
                    f"{index.path}: the name {name!r} has the prefix of a distractor; rename the image, or give the "
                    "index as distractors"
                )
        for other in indexes[place + 1 :]:
            if both := [*index.snapshot.find_all(other.names)]:
                raise InputError(
                    f"{other.path}: also in {index.path}: {list_names(both)}; names must be unique across databases"
                )


def _first_marked(segment: ImageTable) -> str | None:
    """Return a live name of the segment that has a distractor prefix, or None."""
    order = segment.name_order
    stop = len(order)
    begin = bisect.bisect_left(order, b"distractor", key=lambda number: segment.name_as_bytes(int(number)))
    for place in range(begin, stop):
        number = int(order[place])
        name = segment.name_as_bytes(number).decode(errors="replace")
        if not name.startswith("distractor"):
            return None
        if is_distractor(name) and (segment.deleted is None or not segment.deleted[number]):
            return name
    return None
