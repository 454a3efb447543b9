"""Features in memory: arrays of descriptors as a source of features, without a feature set on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.features.model import Features, Source, check_features, check_name, float_matrix
from asmk_engine.features.model import fingerprint_features as fingerprint_of
from asmk_engine.features.source import FeatureSource, Identities, label, without_roots
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.recipes import ARRAYS, Recipe

NamedArrays = Iterable[tuple[str, np.ndarray | Features]]
"""Names of images, each with its descriptors [n, D] or its features."""
ImageArrays = np.ndarray | Iterable[np.ndarray | Features]
"""The descriptors [n, D] of one image, or of one image each."""


class ArrayFeatures:
    """A source of features in memory, see `FeatureSource`.

    images  features by name, checked by the caller
    dim     dimension of their descriptors
    """

    path: Path | None = None

    def __init__(self, images: Mapping[str, Features], recipe: Recipe, dim: int) -> None:
        self.recipe, self.dim = recipe, dim
        self._images = images
        self._prints: dict[str, int] = {}

    @classmethod
    def of_images(cls, images: NamedArrays, recipe: Recipe, dim: int = 1) -> ArrayFeatures:
        """Take named arrays [n, D] or features, which stay in memory.

        Raises InputError for a name that is given twice or cannot be stored, and for an array that is no matrix of
        finite floating-point numbers; MismatchError if dimensions differ.

        dim  the dimension if there is no image
        """
        found: dict[str, Features] = {}
        for item in _iterated(images, "(name, array) pairs, such as zip(names, arrays)"):
            name, features = _checked_pair(item)
            if name in found:
                raise InputError(f"image {name!r} was given twice; names must be unique")
            _check(name, features, found)
            found[name] = features
        return cls(found, recipe, _dim(found, dim))

    @classmethod
    def of_descriptors(cls, descriptors: ImageArrays, recipe: Recipe) -> ArrayFeatures:
        """Take the descriptors [n, D] of one image, or an array [images, n, D] or iterable of those of several.

        Raises InputError if there is none, and as `of_images`.
        """
        is_one = hasattr(descriptors, "__array__") and getattr(descriptors, "ndim", 2) != 3
        given = [descriptors] if is_one else _iterated(descriptors, "arrays [n, D]")
        found: dict[str, Features] = {}
        for number, one in enumerate(given):
            name = f"array {number:09d}"
            features = _as_features(name, one)
            _check(name, features, found)
            found[name] = features
        if not found:
            raise InputError("no array of descriptors was given; expected one [n, D], or an iterable of them")
        return cls(found, recipe, _dim(found, 1))

    @classmethod
    def of_matrix(cls, names: Sequence[str] | None, matrix: np.ndarray, recipe: Recipe) -> ArrayFeatures:
        """Take one descriptor for each image: the rows of a matrix [n, D], in the order of the names.

        Raises InputError for another number of names, and as `of_images`.

        names  numbers if None
        """
        rows = float_matrix(matrix, "the matrix")
        listed = [f"row {row:09d}" for row in range(len(rows))] if names is None else list(names)
        if len(listed) != len(rows):
            raise InputError(f"{len(listed)} names for a matrix of {len(rows)} rows; give one name for each row")
        numbers = {_checked_name(name): row for row, name in enumerate(listed)}
        if len(numbers) < len(rows):
            twice = next(name for row, name in enumerate(listed) if numbers[name] != row)
            raise InputError(f"image {twice!r} was given twice; names must be unique")
        return cls(_Rows(numbers, rows), recipe, rows.shape[1])

    def __str__(self) -> str:
        return "the arrays"

    @property
    def names(self) -> list[str]:
        """The names of the images, in byte order."""
        return sorted(self._images, key=str.encode)

    def count(self, name: str) -> int:
        """Return the number of features of an image."""
        return len(self._images[name])

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        """Iterate over names and features, in the order in which they were given."""
        wanted = None if names is None else set(names)
        return ((name, self._images[name]) for name in self._images if wanted is None or name in wanted)

    def identities(self, names: Sequence[str]) -> Identities:
        """Return the fingerprints of the features; no root is known."""
        return without_roots([self._fingerprint(name) for name in names])

    def source(self, name: str) -> Source:
        """Return a source that has only a fingerprint, that of the features, as in a feature set without files."""
        return Source(0, 0, self._fingerprint(name))

    def root(self, name: str) -> Root:
        """Return the unknown root."""
        return UNKNOWN

    def roots(self) -> tuple[Root, ...]:
        """Return no root."""
        return ()

    def _fingerprint(self, name: str) -> int:
        if name not in self._prints:
            self._prints[name] = fingerprint_of(self._images[name])
        return self._prints[name]


class _Rows(Mapping[str, Features]):
    """The rows of a matrix as features of one descriptor, made when they are read."""

    def __init__(self, numbers: Mapping[str, int], matrix: np.ndarray) -> None:
        self._numbers, self._matrix = numbers, matrix

    def __getitem__(self, name: str) -> Features:
        row = self._numbers[name]
        return Features.from_descriptors(self._matrix[row : row + 1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def source_of_images(
    images: FeatureSource | NamedArrays, recipe: Recipe | str | None, extractor: str = ARRAYS, dim: int = 1
) -> FeatureSource:
    """Return a source of features as it is, and named arrays as a source of this recipe; raises as `of_images`.

    recipe     recipe of the arrays, see `recipe_of_arrays`; raises InputError if the source has its own
    extractor  `ARRAYS` or `GLOBAL_ARRAYS`
    dim        the dimension if there is no image
    """
    if isinstance(images, FeatureSource):
        _check_no_recipe(images, recipe)
        return images
    return ArrayFeatures.of_images(images, recipe_of_arrays(recipe, extractor), dim)


def source_of_descriptors(descriptors: FeatureSource | ImageArrays, recipe: Recipe | str | None) -> FeatureSource:
    """Return a source of features as it is, and arrays as a source of this recipe; raises as `of_descriptors`."""
    if isinstance(descriptors, FeatureSource):
        _check_no_recipe(descriptors, recipe)
        return descriptors
    return ArrayFeatures.of_descriptors(descriptors, recipe_of_arrays(recipe, ARRAYS))


def recipe_of_arrays(recipe: Recipe | str | None, extractor: str) -> Recipe:
    """Return the recipe of arrays: a given one, one that has this text as its name, or that of arrays without a name.

    An array does not say how it was made, so nothing but the caller's word keeps two kinds of descriptors apart. A text
    never gives the recipe of an extractor: `Recipe` itself has to be given for that.
    """
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe(extractor, {} if recipe is None else {"name": str(recipe)})


def _check_no_recipe(features: FeatureSource, recipe: Recipe | str | None) -> None:
    if recipe is not None:
        raise InputError(f"{label(features)}: has its own recipe [{features.recipe}]; leave out the one for arrays")


def _iterated(given: Iterable[object], expected: str) -> Iterator[object]:
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__iter__"):
        raise InputError(f"found {_described(given)}; expected a feature set, or an iterable of {expected}")
    return iter(given)


def _checked_pair(item: object) -> tuple[str, Features]:
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise InputError(f"found {_described(item)}; expected (name, array) pairs, such as zip(names, arrays)")
    name = _checked_name(item[0])
    return name, _as_features(name, item[1])


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise InputError(f"the name of an image is {_described(name)}; expected a str")
    return check_name(str(name))


def _as_features(name: str, given: object) -> Features:
    return given if isinstance(given, Features) else Features.from_descriptors(float_matrix(given, name))


def _check(name: str, features: Features, before: Mapping[str, Features]) -> None:
    check_features(name, features, _dim(before, features.descriptors.shape[-1]))


def _dim(images: Mapping[str, Features], otherwise: int) -> int:
    first = next(iter(images.values()), None)
    return otherwise if first is None else int(first.descriptors.shape[1])


def _described(given: object) -> str:
    shape = f" {given.dtype} {given.shape}" if isinstance(given, np.ndarray) else ""
    return f"a {type(given).__name__}{shape}"
