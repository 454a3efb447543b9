"""Reading of feature sets."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.errors import FormatError, MismatchError, NotFoundError
from asmk_engine.features.model import Features, Source
from asmk_engine.features.parts import OpenedPart, Part, images_of_part, part_names, read_features, read_part, root_of
from asmk_engine.features.source import Identities
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.recipes import Recipe


@dataclass(frozen=True)
class _Location:
    part: int
    row: int


class FeatureSet:
    """The features of many images, read from a folder of part files.

    Use `FeatureSet.open` to create one.

    Parameters
    ----------
    path : pathlib.Path
        The folder.
    parts : list of Part
        Its part files, oldest first.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    failures : dict of str to str
        Reasons by name of images that could not be extracted.

    Notes
    -----
    `len(features)` is the number of images, and `name in features` tests for an image. If a name occurs in several
    parts, the last one counts.
    """

    def __init__(self, path: Path, parts: list[Part]) -> None:
        self.path = path
        self._parts = parts
        self._places: dict[str, _Location] = {}
        self._moved: dict[str, Root] = {}
        self._last_mention: dict[str, int] = {}
        self._written: dict[int, int] = {}
        self.failures: dict[str, str] = {}
        self._failed_below: dict[str, Root] = {}
        for number, part in enumerate(parts):
            self._take(number, part)

    def _take(self, number: int, part: Part) -> None:
        for name in part.removed:
            self._forget(name)
        if self._moved or self.failures:
            for name in part.names:
                self._forget(name)
        self._places |= {name: _Location(number, row) for row, name in enumerate(part.names)}
        self._moved |= part.moved
        self._last_mention |= dict.fromkeys(part.moved, number)
        for name, reason in part.failures.items():
            self._forget(name)
            self.failures[name] = reason
            self._failed_below[name] = part.failed_below.get(name, UNKNOWN)

    def _forget(self, name: str) -> None:
        for table in (self._places, self._moved, self._last_mention, self.failures, self._failed_below):
            table.pop(name, None)

    @classmethod
    def open(cls, path: Path | str) -> FeatureSet:
        """Open a feature set.

        Parameters
        ----------
        path : pathlib.Path or str
            The folder, made by `asmk-engine extract` or `asmk-engine import`.

        Returns
        -------
        FeatureSet
            The opened set; descriptors are read on demand.

        Raises
        ------
        NotFoundError
            If the folder does not exist.
        FormatError
            If it is not a feature set, or of another format version.
        InputError
            If a part holds links, or filters that are not built into HDF5.
        MismatchError
            If its parts have different recipes or dimensions.
        DamagedError
            If a part is damaged.
        """
        path = Path(path)
        if not path.exists():
            raise NotFoundError(f"{path}: no such feature set; make one with `asmk-engine extract IMAGES -o {path}`")
        parts = [read_part(path / name) for name in part_names(path)]
        if not parts:
            raise FormatError(f"{path}: not a feature set: no part-000000.h5 in it; expected a folder made by extract")
        for part in parts:
            _check_agreement(parts[0], part)
        return cls(path, parts)

    def selected(self, names: Iterable[str]) -> FeatureSet:
        """Return a view of the set restricted to some images; the failures stay.

        Parameters
        ----------
        names : iterable of str
            Names of images; those that the set does not contain are ignored.

        Returns
        -------
        FeatureSet
            The restricted set.
        """
        found = copy.copy(self)
        found._places = {name: self._places[name] for name in names if name in self._places}
        return found

    @property
    def recipe(self) -> Recipe:
        """The recipe (`Recipe`) of the descriptors."""
        return self._parts[0].recipe

    def identities(self, names: Sequence[str]) -> Identities:
        """Return fingerprints and roots of some images, as arrays for speed with millions of images.

        Parameters
        ----------
        names : sequence of str
            Names of images.

        Returns
        -------
        Identities
            Fingerprints and root numbers in the order of `names`, and the table of roots.

        Raises
        ------
        NotFoundError
            For an unknown name.
        """
        places = [self._place(name) for name in names]
        parts = np.fromiter((place.part for place in places), np.int64, len(places))
        rows = np.fromiter((place.row for place in places), np.int64, len(places))
        fingerprints, numbers = np.zeros(len(names), np.uint64), np.zeros(len(names), np.int64)
        table = {UNKNOWN: 0}
        for number in np.unique(parts).tolist():
            part, here = self._parts[number], parts == number
            fingerprints[here] = part.sources[rows[here], 2]
            own = np.array([table.setdefault(root, len(table)) for root in (UNKNOWN, *part.roots)])
            numbers[here] = own[part.root_numbers[rows[here]]]
        for place, name in enumerate(names if self._moved else ()):
            if name in self._moved:
                numbers[place] = table.setdefault(self._moved[name], len(table))
        return Identities(fingerprints, tuple(table), numbers)

    def root_counts(self) -> dict[Root, int]:
        """Return the number of images below each known root.

        Returns
        -------
        dict of Root to int
            Number of images by root; unknown roots are left out.
        """
        found = self.identities(list(self._places))
        counts = np.bincount(found.numbers, minlength=len(found.roots)).tolist()
        return {root: count for root, count in zip(found.roots, counts, strict=True) if root.is_known and count}

    def roots(self) -> tuple[Root, ...]:
        """Return all known roots of images.

        Returns
        -------
        tuple of Root
            The roots.
        """
        return tuple(self.root_counts())

    def failed_below(self, name: str) -> Root:
        """Return the root of an image that could not be extracted.

        Parameters
        ----------
        name : str
            Name of the image.

        Returns
        -------
        Root
            Its root; `roots.UNKNOWN` if unknown.
        """
        return self._failed_below.get(name, UNKNOWN)

    def root(self, name: str) -> Root:
        """Return the root of an image.

        Parameters
        ----------
        name : str
            Name of the image.

        Returns
        -------
        Root
            Its root; `roots.UNKNOWN` if unknown.

        Raises
        ------
        NotFoundError
            For an unknown name.
        """
        place = self._place(name)
        part = self._parts[place.part]
        return self._moved.get(name) or root_of(part.roots, int(part.root_numbers[place.row]))

    @property
    def dim(self) -> int:
        """The dimension of a descriptor (int)."""
        return self._parts[0].dim

    @property
    def names(self) -> list[str]:
        """The names of the images (list of str), in byte order."""
        return sorted(self._places, key=str.encode)

    def __str__(self) -> str:
        return str(self.path)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def descriptor_count(self) -> int:
        """The number of descriptors of all images (int)."""
        return sum(self.count(name) for name in self._places)

    @property
    def bytes(self) -> int:
        """The size of all part files in bytes (int)."""
        return sum(part.path.stat().st_size for part in self._parts)

    def count(self, name: str) -> int:
        """Return the number of features of an image.

        Parameters
        ----------
        name : str
            Name of the image.

        Returns
        -------
        int
            The number of features.

        Raises
        ------
        NotFoundError
            For an unknown name.
        """
        place = self._place(name)
        offsets = self._parts[place.part].offsets
        return int(offsets[place.row + 1] - offsets[place.row])

    def source(self, name: str) -> Source:
        """Return the file that an image was read from.

        Parameters
        ----------
        name : str
            Name of the image.

        Returns
        -------
        Source
            Its size, modification time and fingerprint when it was read.

        Raises
        ------
        NotFoundError
            For an unknown name.
        """
        place = self._place(name)
        return Source(*(int(value) for value in self._parts[place.part].sources[place.row]))

    def spoken_at(self, name: str) -> int:
        """Return when the last part that mentions an image was written, which is when its file was last examined.

        Parameters
        ----------
        name : str
            Name of the image.

        Returns
        -------
        int
            The modification time of that part in ns.

        Raises
        ------
        NotFoundError
            For an unknown name.
        """
        number = self._last_mention.get(name, self._place(name).part)
        if number not in self._written:
            self._written[number] = self._parts[number].path.stat().st_mtime_ns
        return self._written[number]

    def read(self, name: str) -> Features:
        """Read the features of an image.

        Parameters
        ----------
        name : str
            Name of the image.

        Returns
        -------
        Features
            Its features, strongest first.

        Raises
        ------
        NotFoundError
            For an unknown name.
        DamagedError
            If its part is damaged.
        """
        place = self._place(name)
        part = self._parts[place.part]
        with OpenedPart(part.path) as file:
            return read_features(part, place.row, file["descriptors"], file["keypoints"], file["strengths"], 0)

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        """Iterate over images, part by part in the order of extraction.

        Parameters
        ----------
        names : iterable of str, optional
            Only these images; by default all.

        Yields
        ------
        name : str
            Name of the image.
        features : Features
            Its features, strongest first.

        Raises
        ------
        DamagedError
            If a part is damaged.
        """
        wanted = None if names is None else set(names)
        for number, part in enumerate(self._parts):
            rows = [
                (name, row)
                for row, name in enumerate(part.names)
                if (wanted is None or name in wanted) and self._places.get(name) == _Location(number, row)
            ]
            if rows:
                yield from images_of_part(part, rows)

    def parts_of(self, names: Iterable[str]) -> list[tuple[Path, list[str]]]:
        """Return which parts hold some images, for readers in other processes.

        Parameters
        ----------
        names : iterable of str
            Names of images; those that the set does not contain are ignored.

        Returns
        -------
        list of (pathlib.Path, list of str)
            The file of each part, and the names in it, in the order in which `images` yields them.
        """
        rows: dict[int, list[tuple[int, str]]] = {}
        for name in names:
            if (place := self._places.get(name)) is not None:
                rows.setdefault(place.part, []).append((place.row, name))
        return [(self._parts[part].path, [name for _, name in sorted(rows[part])]) for part in sorted(rows)]

    def _place(self, name: str) -> _Location:
        try:
            return self._places[name]
        except KeyError:
            reason = self.failures.get(name)
            why = f" (it was skipped: {reason})" if reason else ""
            raise NotFoundError(f"{self.path}: no image named {name!r}{why}") from None


def _check_agreement(first: Part, part: Part) -> None:
    if part.recipe != first.recipe or part.dim != first.dim:
        raise MismatchError(
            f"{part.path}: made by [{part.recipe}], {part.dim}-D, but {first.path.name} by [{first.recipe}], "
            f"{first.dim}-D; keep features of one recipe in one folder"
        )
