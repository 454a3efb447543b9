"""Several indexes searched as one, without copying: a database, and sets of distractors that were indexed once.

A joint index maps the segments of all of them into one snapshot, so that scores, inverse document frequencies and ties
are those of one index with all the images. The names of distractors are marked, `distractor1:` for the first set and so
on, whatever the photographs are called; so none can be mistaken for an image of the database.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_names
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.manifest import GLOBAL_KIND, KIND
from asmk_engine.indexes.snapshot import Commit, Identity
from asmk_engine.recipes import Recipe

View = TypeVar("View", bound=Commit[Any, Any])

# How indexes come by one and the same encoder.
_CURES = {
    KIND: "make this one with `index --codebook` and that codebook",
    GLOBAL_KIND: "make both with the same options and the same features for `index --train-on`",
}
_MARK = re.compile(r"distractor[1-9][0-9]*:")


def is_distractor(name: str) -> bool:
    """Whether a name carries the mark of a set of distractors."""
    return _MARK.match(name) is not None


def split_mark(name: str) -> tuple[str, str]:
    """The mark of a name, empty for an image of a database, and the name in its own index."""
    mark = _MARK.match(name)
    return (mark[0], name[mark.end() :]) if mark else ("", name)


class JointIndex(Generic[View]):
    """Indexes that a searcher takes for one; it can be read only.

    indexes      one or more databases, whose images keep their names; no name may stand in two of them
    distractors  indexes whose images are marked
    All must have the same codebook or codec, none may hold a name with a mark: MismatchError and InputError say which.
    Additions and deletions made through the objects given are seen at once.
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
        """The path of the first database, for messages."""
        return self._indexes[0].path

    @property
    def recipe(self) -> Recipe:
        """What makes the descriptors that all of them take."""
        return self._indexes[0].recipe

    @property
    def network(self) -> Path | None:
        """The file of the network that the first of them to carry one carries, or None."""
        found = (index.network for index in (*self._indexes, *self._distractors))
        return next((path for path in found if path), None)

    @property
    def snapshot(self) -> View:
        """What a search runs on: the commits of all of them as one."""
        views = tuple(index.snapshot for index in (*self._indexes, *self._distractors))
        if self._joint is None or any(one is not other for one, other in zip(views, self._seen, strict=True)):
            _check_encoders([*self._indexes, *self._distractors])
            databases, distractors = views[: len(self._indexes)], views[len(self._indexes) :]
            _check_names(self._indexes)
            self._joint, self._seen = _join(databases, distractors), views
        return self._joint

    @property
    def images(self) -> int:
        """Images of the databases that are not deleted; distractors are counted by `distractors`."""
        return sum(index.images for index in self._indexes)

    @property
    def distractors(self) -> int:
        """Images of the sets of distractors that are not deleted."""
        return sum(index.images for index in self._distractors)

    @property
    def names(self) -> list[str]:
        """Names of the images of the databases, in byte order."""
        return sorted((name for index in self._indexes for name in index.names), key=str.encode)

    def __contains__(self, name: object) -> bool:
        return any(name in index for index in self._indexes)

    def identity(self, name: str) -> Identity | None:
        """Which photograph the image of this name is, or None where no database has such an image."""
        return next((known for index in self._indexes if (known := index.identity(name))), None)

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """For each feature set that was indexed into a database: where it may be."""
        return [places for index in self._indexes for places in index.feature_places]

    @property
    def photograph_folders(self) -> list[Path]:
        """The folders of photographs that the databases remember."""
        return list(dict.fromkeys(folder for index in self._indexes for folder in index.photograph_folders))

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Where the photograph of this name may be; first where the database that has it remembers it."""
        for index in sorted(self._indexes, key=lambda index: name not in index):
            yield from index.photograph_places(name)

    def __len__(self) -> int:
        return self.images

    def preload(self) -> None:
        """Read all of them into memory now, see `Index.preload`."""
        for index in (*self._indexes, *self._distractors):
            index.preload()

    def refresh(self) -> None:
        """See the last commits, also when other processes made them."""
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
    return replace(first, manifest=replace(first.manifest, roots=()), segments=segments)  # each has a table of its own


def _check_encoders(indexes: Sequence[Collection[Any, Any]]) -> None:
    first = indexes[0]
    for index in indexes[1:]:
        if type(index) is not type(first):
            raise MismatchError(f"{index.path}: an index of another kind than {first.path}; give indexes of one kind")
        one, other = first.snapshot.encoder.fingerprint, index.snapshot.encoder.fingerprint
        if one != other:
            name = first.snapshot.manifest.encoder_name
            raise MismatchError(
                f"{index.path}: its {name} is {other[:12]}, that of {first.path} is {one[:12]}; indexes that are "
                f"searched together need one {name}: {_CURES[first.kind]}"
            )


def _check_names(indexes: Sequence[Collection[Any, Any]]) -> None:
    for place, index in enumerate(indexes):
        for segment in index.snapshot.segments:
            if name := _first_marked(segment):
                raise InputError(
                    f"{index.path}: the name {name!r} begins as those of distractors do; rename the image, or give the "
                    "index as distractors"
                )
        for other in indexes[place + 1 :]:
            if both := [*index.snapshot.find_all(other.names)]:
                raise InputError(
                    f"{other.path}: {list_names(both)} stands in {index.path} too; names must be unique in all of them"
                )


def _first_marked(segment: ImageTable) -> str | None:
    """A live name of the segment that begins with a mark, or None."""
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
