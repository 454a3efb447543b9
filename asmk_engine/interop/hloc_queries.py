"""What asks an index for pairs: its own images, photographs, a feature set, or a file of hloc's local features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from asmk_engine.errors import MismatchError, NotFoundError
from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.features import Features, FeatureSet, part_names
from asmk_engine.images.listing import find_images, shown
from asmk_engine.indexes.base import Collection
from asmk_engine.interop import hloc_reader
from asmk_engine.recipes import IMPORTED
from asmk_engine.search.query_features import query_source

AnyIndex = Collection[Any, Any]


class Queries(Protocol):
    """Images by name, as far as pairs need them."""

    @property
    def names(self) -> list[str]:
        """All there are, in a fixed order."""

    def features(self, name: str) -> Any:
        """The features of one of them."""


@contextlib.contextmanager
def open_queries(descriptors: Path | str | None, index: AnyIndex, name: str | None) -> Iterator[Queries]:
    """The images of the index (None), the photographs of a folder, a feature set, or the images of an HDF5 file.

    name  what made the features of the file, as `import_hloc` takes it
    NotFoundError where there is nothing, MismatchError for features that do not go with the index, and what reading
    raises.
    """
    if descriptors is None:
        yield _IndexedImages(index)
        return
    path = Path(descriptors)
    if not path.exists():
        raise NotFoundError(
            f"{path}: no such file or folder; give hloc's file of local features, photographs, or a feature set"
        )
    if path.is_dir():
        yield _FeaturesOnDisk(path, index) if part_names(path) else _Photographs(path, index)
        return
    with hloc_reader.open_hloc(path) as file:
        yield _LocalFeatures(file, path, index, path.stem if name is None else name)


class _IndexedImages:
    """The images of an index, with the features that it was made from."""

    def __init__(self, index: AnyIndex) -> None:
        self.names = index.names
        self._source = query_source(index)

    def features(self, name: str) -> Any:
        return self._source.features(name)[0]


class _Photographs:
    """The photographs below a folder; those that are indexed have features already."""

    def __init__(self, folder: Path, index: AnyIndex) -> None:
        self._paths = {image.name: image.path for image in find_images(folder).images}
        self._index, self._source = index, query_source(index, images_roots=[folder])
        self.names = list(self._paths)

    def features(self, name: str) -> Any:
        path = self._paths[name]
        known = self._index.identity(name)
        if known is None:
            return self._source.extractor.extract(path)
        if known.root.is_known and known.fingerprint not in (0, file_fingerprint(path)):
            raise MismatchError(
                f"{shown(path)}: another photograph than the one {self._index.path} holds as {name!r}; bring the index "
                "up to date with `asmk-engine index --update`, or name one of them otherwise"
            )
        return self._source.features(name)[0]


class _FeaturesOnDisk:
    """A feature set made as that of the index was."""

    def __init__(self, folder: Path, index: AnyIndex) -> None:
        self._features = FeatureSet.open(folder)
        if self._features.recipe != index.recipe:
            raise MismatchError(
                f"{folder}: features of [{self._features.recipe}], but {index.path} holds those of [{index.recipe}]; "
                "extract the queries as the images of the index were"
            )
        self.names = self._features.names

    def features(self, name: str) -> Features:
        return self._features.read(name)


class _LocalFeatures:
    """Local features in a file of hloc; `label` is what they are called in the recipe of imported ones."""

    def __init__(self, file: h5py.File, path: Path, index: AnyIndex, label: str) -> None:
        self._file, self._path = file, path
        outlines = hloc_reader.outline_images(file, path)
        self._dim = hloc_reader.common_dim(outlines, path)
        self._outlines = {outline.name: outline for outline in outlines}
        self.names = list(self._outlines)
        recipe = index.recipe
        if recipe.extractor != IMPORTED:
            raise MismatchError(
                f"{path}: local features of hloc, but {index.path} holds features of [{recipe}]; give the photographs, "
                f"or index the features: `asmk-engine import {path} -o NAME.features`, then `asmk-engine index`"
            )
        if (label, self._dim) != (recipe.options.get("features"), recipe.options.get("dim")):
            raise MismatchError(
                f"{path}: features called {label!r} of {self._dim} dimensions, but {index.path} holds [{recipe}]; "
                "where the same program made both, say so with name="
            )

    def features(self, name: str) -> Features:
        return hloc_reader.read_image(self._file, self._outlines[name], self._dim, np.dtype(np.float32), self._path)
