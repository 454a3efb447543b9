"""Queries of a fused index: features of each kind, described by the extractors of the index or found by name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.extractors import Extractor
from asmk_engine.features import Features, FeatureSet
from asmk_engine.features.model import fingerprint_features
from asmk_engine.fused.snapshot import FusedSnapshot
from asmk_engine.fused.sources import joint_fingerprint
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.indexes.photographs import Photograph, described
from asmk_engine.indexes.snapshot import Commit, Identity
from asmk_engine.inverted.signatures import Signature
from asmk_engine.recipes import Recipe

Description = Callable[[], Features]


@dataclass(frozen=True, eq=False)
class FusedFeatures:
    """The features of one query of a fused index.

    Parameters
    ----------
    parts : tuple of Features, Signature or None
        For each kind of the index, in its order; None, or no features, leaves the score to the other kinds.
    fingerprint : int, default 0
        Fingerprint of the content of the photograph, by which the query itself is recognised in the index; 0 if there
        is none or it is unknown.
    """

    parts: tuple[Features | Signature | None, ...]
    fingerprint: int = 0

    @classmethod
    def of_arrays(cls, parts: Sequence[Features | np.ndarray | None]) -> FusedFeatures:
        """Take the descriptors [n, D] or features of each kind, as they were given to `FusedIndex.add`.

        Parameters
        ----------
        parts : sequence of Features, ndarray or None
            For each kind of the index, in its order.

        Returns
        -------
        FusedFeatures
            With the fingerprint that an image of these features has in the index.
        """
        taken = [Features.from_descriptors(part) if isinstance(part, np.ndarray) else part for part in parts]
        prints = [None if part is None else fingerprint_features(part) for part in taken]
        return cls(tuple(taken), joint_fingerprint(prints))


class SearchedKinds(Protocol):
    """What `KindView` needs of a fused index, or of several searched as one."""

    @property
    def path(self) -> Path:
        """The path of the index."""

    @property
    def snapshot(self) -> FusedSnapshot:
        """The current commit."""

    @property
    def extractor(self) -> FusedExtractor:
        """The extractors of all kinds."""

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """The possible paths of each feature set that was added."""

    @property
    def photograph_folders(self) -> list[Path]:
        """The recorded image folders."""

    def __contains__(self, name: object) -> bool:
        """Return whether an image is in a database."""

    def identity(self, name: str) -> Identity | None:
        """Return root and fingerprint of an image."""

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of an image file."""

    def kind_network(self, number: int) -> Path | None:
        """Return the network file of a kind."""


class KindView:
    """One kind of features of a fused index, as an index of its own that can be searched and asked for features."""

    def __init__(self, index: SearchedKinds, number: int) -> None:
        self._index, self._number = index, number

    @property
    def path(self) -> Path:
        """The path of the index."""
        return self._index.path

    @property
    def snapshot(self) -> Commit[Any, Any]:
        """The current commit of this kind."""
        return self._index.snapshot.views[self._number]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the features of this kind."""
        return self._index.snapshot.encoder.kinds[self._number].recipe

    @property
    def network(self) -> Path | None:
        """The network file of this kind, or None."""
        return self._index.kind_network(self._number)

    @property
    def extractor(self) -> Extractor:
        """The extractor of this kind."""
        return self._index.extractor.extractors[self._number]

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """The possible paths of the feature sets of all kinds; those of this kind are told by their recipes."""
        return self._index.feature_places

    @property
    def photograph_folders(self) -> list[Path]:
        """The recorded image folders."""
        return self._index.photograph_folders

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of an image file."""
        return self._index.photograph_places(name)

    def identity(self, name: str) -> Identity | None:
        """Return root and fingerprint of an image."""
        return self._index.identity(name)

    def __contains__(self, name: object) -> bool:
        return name in self._index


@dataclass(frozen=True)
class FusedExtractor:
    """Describes a photograph by the extractors of all kinds."""

    extractors: tuple[Extractor, ...]

    def extract(self, image: Photograph, box: Box | None = None) -> FusedFeatures:
        """Describe an image or a region of it; a kind whose extractor cannot use it is left out.

        Raises as the extractors: InputError only if none of them can use the image.
        """
        each = [functools.partial(described, image, extractor, box) for extractor in self.extractors]
        return gathered(each, content_of(image))


def content_of(image: Photograph) -> int:
    """Return the fingerprint of the content of a file; 0 for pixels and what cannot be read."""
    if not isinstance(image, str | os.PathLike):
        return 0
    try:
        return file_fingerprint(Path(image))
    except OSError:
        return 0


def gathered(each: Sequence[Description | None], fingerprint: int) -> FusedFeatures:
    """Return the features of a query of each kind; those that raise InputError are left out, unless all do.

    each  for each kind a function that returns its features, or None for no features
    """
    parts: list[Features | None] = []
    errors: list[InputError] = []
    for describe in each:
        try:
            parts.append(None if describe is None else describe())
        except InputError as error:
            parts.append(None)
            errors.append(error)
    if errors and all(part is None for part in parts):
        raise errors[0]
    return FusedFeatures(tuple(parts), fingerprint)


class FusedNamedImages:
    """Finds or extracts the features of queries for each kind, see `NamedImages`.

    features      a feature set of one of the kinds, which replaces the recorded ones of this kind
    images_roots  folders of the indexed photographs; by default those recorded in the index
    """

    source: ClassVar[type[NamedImages]] = NamedImages

    def __init__(
        self, index: Any, *, features: Path | str | None = None, images_roots: Sequence[Path | str] = ()
    ) -> None:
        self.index = index
        given = None if features is None else FeatureSet.open(features).recipe
        views = [KindView(index, number) for number in range(len(index.snapshot.encoder.kinds))]
        if given is not None and all(view.recipe != given for view in views):
            raise MismatchError(
                f"{features}: features of [{given}], which is no kind of the index {index.path}; give a feature set "
                "that the index was made from"
            )
        self.sources = [
            self.source(view, features=features if view.recipe == given else None, images_roots=images_roots)
            for view in views
        ]

    def indexed_name(self, query: str) -> str | None:
        """Return the name of the indexed image that a query denotes, see `NamedImages.indexed_name`."""
        return self.sources[0].indexed_name(query)

    def features(self, query: str, box: Box | None = None) -> tuple[FusedFeatures, bool]:
        """Return the features of a query, and whether it is the name of an indexed image."""
        name = self.indexed_name(query)
        if name is not None:
            return self.named(name, box), True
        self.sources[0].check_file(query)
        extractors = [source.extractor for source in self.sources]  # an index that cannot describe photographs says so
        return FusedExtractor(tuple(extractors)).extract(query, box), False

    def named(self, name: str, box: Box | None = None) -> FusedFeatures:
        """Return the features of the indexed image of exactly this name, of the kinds that the index has of it."""
        place = self.index.snapshot.find(name) if name in self.index else None
        if place is None:
            self.sources[0].named(name, box)  # raises NotFoundError
        lacking = self.index.snapshot.lacking(place)
        known = self.index.identity(name)
        each = [
            None if lacks and box is None else functools.partial(source.named, name, box)
            for lacks, source in zip(lacking, self.sources, strict=True)
        ]
        return gathered(each, known.fingerprint if known else 0)

    @property
    def folders(self) -> list[Path]:
        """The folders of photographs."""
        return self.sources[0].folders

    def likely_path(self, name: str) -> Path:
        """Return the actual or expected path of a photograph, for a contact sheet."""
        return self.sources[0].likely_path(name)

    def image_path(self, name: str) -> Path:
        """Return the path of the photograph of an indexed image, or the file that a query names."""
        return self.sources[0].image_path(name)
