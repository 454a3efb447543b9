"""Features of queries that are names of indexed images: from a feature set, or from the photograph itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from asmk_engine.errors import AsmkError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.escape import spellings
from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.extractors import Extractor
from asmk_engine.features import Features, FeatureSet
from asmk_engine.images.boxes import Box
from asmk_engine.images.listing import shown
from asmk_engine.indexes.photographs import extractor_of
from asmk_engine.indexes.snapshot import Identity
from asmk_engine.recipes import Recipe


class QueriedIndex(Protocol):
    """What is asked for the features of its images: an index, several as one, or one kind of features of an index."""

    @property
    def path(self) -> Path:
        """The path of the index."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of its features."""

    @property
    def network(self) -> Path | None:
        """The network file in it, or None."""

    @property
    def extractor(self) -> Extractor:
        """The extractor that describes a photograph as those of the index were described."""

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """The possible paths of each feature set that was added, the last one first."""

    @property
    def photograph_folders(self) -> list[Path]:
        """The recorded image folders, the last one first."""

    def __contains__(self, name: object) -> bool:
        """Return whether there is an image of this name."""

    def identity(self, name: str) -> Identity | None:
        """Return root and fingerprint of an image."""

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of an image file."""


class NamedImages:
    """Finds or extracts the features of indexed images by their names, and those of files.

    Features of a query are never derived from stored codes, which have one assignment per descriptor, and never taken
    from another photograph of the same name: the fingerprints of the contents are compared.

    features      the feature set of named queries; by default those recorded in the index
    images_roots  folders of the indexed photographs; by default those recorded in the index
    """

    def __init__(
        self,
        index: QueriedIndex,
        *,
        features: Path | str | None = None,
        images_roots: Sequence[Path | str] = (),
    ) -> None:
        self.index = index
        self._roots = [Path(root) for root in images_roots]
        self._given = Path(features) if features else None
        self._sets: tuple[list[tuple[Path, int]], list[FeatureSet]] | None = None
        self._extractor: Extractor | None = None

    def indexed_name(self, query: str) -> str | None:
        """Return the name of the indexed image that a query denotes, or None if it is a file or neither.

        A query is tried as a name, as a file, as an escaped name (`%XX`), and in the other canonically equivalent forms
        of Unicode, between which file systems and archives convert.
        """
        if query in self.index:
            return query
        if os.path.lexists(query):
            return None
        return next((name for name in spellings(query) if name in self.index), None)

    def features(self, query: str, box: Box | None = None) -> tuple[Features, bool]:
        """Return the features of a query, and whether it is the name of an indexed image.

        A region is always extracted from the photograph itself. Raises NotFoundError, with the folders searched, if
        there are neither features nor a photograph.
        """
        name = self.indexed_name(query)
        if name is None:
            return self._of_file(query, box), False
        return self.named(name, box), True

    def named(self, name: str, box: Box | None = None) -> Features:
        """Return the features of the indexed image of exactly this name; raises NotFoundError if there is none."""
        if name not in self.index:
            raise NotFoundError(f"{self.index.path}: no image named {name!r}; a photograph is searched as a file")
        if box is None and (found := self.of_set(name)) is not None:
            return found
        return self.extractor.extract(self.image_path(name), box=box)

    @property
    def folders(self) -> list[Path]:
        """The given folders of photographs, or else those recorded in the index."""
        return self._roots or self.index.photograph_folders

    def check_file(self, query: str) -> None:
        """Raise NotFoundError or InputError unless a query that is no name of an indexed image is a file."""
        if os.path.isdir(query):
            raise InputError(f"{shown(query)}: is a folder; a query is one photograph: give the files in it one by one")
        if not os.path.lexists(query):
            raise NotFoundError(
                f"{query!r} is neither an image of {self.index.path} nor a file; "
                f"`asmk-engine info {self.index.path} --names` lists the images"
            )

    def _of_file(self, query: str, box: Box | None) -> Features:
        self.check_file(query)
        return self.extractor.extract(Path(query), box=box)

    def of_set(self, name: str) -> Features | None:
        """Return the features of this photograph from a feature set, or None.

        Raises MismatchError if the given set has features of another photograph of this name.
        """
        known = self.index.identity(name)
        for features in self._opened():
            if name not in features:
                continue
            if known is None or known.fingerprint in (0, features.source(name).fingerprint):
                return features.read(name)
            # The fingerprint of imported features is computed from the features, which may differ.
            if self._given and not (known.root.is_known and features.root(name).is_known):
                return features.read(name)
            if self._given:
                raise MismatchError(
                    f"{features.path}: has another photograph named {name!r} than {self.index.path}; give the "
                    "feature set the index was made from"
                )
        return None

    def _opened(self) -> list[FeatureSet]:
        """Open the feature sets that exist; again once the index remembers another one, or one has changed."""
        state = [(path, _changed(path)) for places in self._places for path in places]
        known = self._sets
        if known is None or known[0] != state:
            opened = (self._open(places[0]) if self._given else self._remembered(places) for places in self._places)
            self._sets = known = state, [features for features in opened if features is not None]
        return known[1]

    @property
    def _places(self) -> list[tuple[Path, ...]]:
        """The possible paths of each feature set."""
        return [(self._given,)] if self._given else self.index.feature_places

    def _remembered(self, places: Sequence[Path]) -> FeatureSet | None:
        """Open a recorded feature set at the first possible path with a set of the same recipe, or return None."""
        for path in places:
            with contextlib.suppress(NotFoundError, FormatError, MismatchError):
                return self._open(path)
        return None

    def _open(self, path: Path) -> FeatureSet:
        features, recipe = FeatureSet.open(path), self.index.recipe
        if features.recipe != recipe:
            raise MismatchError(
                f"{path}: features of [{features.recipe}], but the index {self.index.path} has features of "
                f"[{recipe}]; give the feature set the index was made from"
            )
        return features

    @property
    def extractor(self) -> Extractor:
        """The extractor that made the indexed features."""
        if self._extractor is None:
            given = extractor_of(self.index.recipe, self.index.network, self._places) if self._given else None
            self._extractor = given or self.index.extractor
        return self._extractor

    def likely_path(self, name: str) -> Path:
        """Return the actual or expected path of the photograph of an indexed image or a query, for a contact sheet."""
        indexed = self.indexed_name(name)
        if indexed is None:
            return Path(name)
        try:
            return self.image_path(indexed)
        except MismatchError:
            return Path(f"{indexed} (changed since it was indexed)")
        except AsmkError:
            return next(self._candidates(indexed), Path(indexed))

    def image_path(self, name: str) -> Path:
        """Return the path of the photograph of an indexed image, or the file that a query names.

        Raises MismatchError if the file at its path is another photograph, and NotFoundError, with the folders
        searched, if there is none.
        """
        known = self.index.identity(name)
        if known is None:
            return Path(name)
        there = [path for path in self._candidates(name) if os.path.isfile(path)]
        found = next((path for path in there if _holds(path, known)), None)
        if found is not None:
            return found
        if there and not known.root.is_known:  # its fingerprint may be that of features, so it proves nothing
            return there[0]
        if there:
            raise MismatchError(
                f"{shown(there[0])}: not the photograph that was indexed as {name!r}; index it again with "
                "`asmk-engine index --update`, or give the folder of the old one with --images"
            )
        raise NotFoundError(
            f"the photograph of {name!r} is not {looked_in(self.folders)}; "
            "give its folder with --images, or a feature set with --features"
        )

    def _candidates(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of the photograph of an indexed image."""
        known = self.index.identity(name)
        prefix = known.root.prefix if known else ""
        for root in self._roots:
            yield from dict.fromkeys([root / name, root / name.removeprefix(prefix)])
        if not self._roots:
            yield from self.index.photograph_places(name)


def _changed(path: Path) -> int:
    """Return when a file was last added to a folder, in ns, -1 if there is no folder."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _holds(path: Path, known: Identity) -> bool:
    """Return whether a file has the indexed content, or that content is unknown."""
    try:
        return known.fingerprint == 0 or file_fingerprint(path) == known.fingerprint
    except OSError:
        return False


def looked_in(roots: Sequence[Path]) -> str:
    """Return the words for the folders in which a photograph was not found."""
    return f"below {', '.join(map(shown, roots))}" if roots else "in any folder recorded in the index"
