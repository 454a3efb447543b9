"""Feature sets: the raw local features of many images, as a folder of part files."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.errors import FormatError, MismatchError, NotFoundError
from asmk_engine.features.model import Features, Source
from asmk_engine.features.parts import OpenedPart, Part, images_of_part, part_names, read_features, read_part, root_of
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.recipes import Recipe


@dataclass(frozen=True)
class Identities:
    """Which photographs some images are: fingerprints [n] uint64, and numbers [n] in a table of roots, 0 for none."""

    fingerprints: np.ndarray
    roots: tuple[Root, ...]
    numbers: np.ndarray


@dataclass(frozen=True)
class _Location:
    part: int
    row: int


class FeatureSet:
    """The features of many images, read from a folder of part files."""

    def __init__(self, path: Path, parts: list[Part]) -> None:
        self.path = path
        self._parts = parts
        self._places: dict[str, _Location] = {}
        self._moved: dict[str, Root] = {}
        self._spoken: dict[str, int] = {}
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
        self._spoken |= dict.fromkeys(part.moved, number)
        for name, reason in part.failures.items():
            self._forget(name)
            self.failures[name] = reason
            self._failed_below[name] = part.failed_below.get(name, UNKNOWN)

    def _forget(self, name: str) -> None:
        for table in (self._places, self._moved, self._spoken, self.failures, self._failed_below):
            table.pop(name, None)

    @classmethod
    def open(cls, path: Path | str) -> FeatureSet:
        """Open the set in the folder `path`; NotFoundError, FormatError or DamagedError name what is wrong with it."""
        path = Path(path)
        if not path.exists():
            raise NotFoundError(f"{path}: no such feature set; make one with `asmk-engine extract IMAGES -o {path}`")
        parts = [read_part(path / name) for name in part_names(path)]
        if not parts:
            raise FormatError(f"{path}: not a feature set: it holds no part-000000.h5; expected a folder from extract")
        for part in parts:
            _check_agreement(parts[0], part)
        return cls(path, parts)

    def selected(self, names: Iterable[str]) -> FeatureSet:
        """The same set as if it held only these images, where it does hold them; the failures stay."""
        found = copy.copy(self)
        found._places = {name: self._places[name] for name in names if name in self._places}
        return found

    @property
    def recipe(self) -> Recipe:
        """What made the descriptors."""
        return self._parts[0].recipe

    def identities(self, names: Sequence[str]) -> Identities:
        """Which photographs some images are; as fast as arrays, for sets of a million. NotFoundError as `read`."""
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
        """How many images came from each root, where it is known."""
        found = self.identities(list(self._places))
        counts = np.bincount(found.numbers, minlength=len(found.roots)).tolist()
        return {root: count for root, count in zip(found.roots, counts, strict=True) if root.is_known and count}

    def roots(self) -> tuple[Root, ...]:
        """All roots that images came from."""
        return tuple(self.root_counts())

    def failed_below(self, name: str) -> Root:
        """Where an image that could not be extracted came from; `roots.UNKNOWN` when nobody knows."""
        return self._failed_below.get(name, UNKNOWN)

    def root(self, name: str) -> Root:
        """Where this image came from; `roots.UNKNOWN` when nobody knows."""
        place = self._place(name)
        part = self._parts[place.part]
        return self._moved.get(name) or root_of(part.roots, int(part.root_numbers[place.row]))

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor."""
        return self._parts[0].dim

    @property
    def names(self) -> list[str]:
        """Names of the images, in byte order."""
        return sorted(self._places, key=str.encode)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def descriptor_count(self) -> int:
        """Descriptors in the whole set."""
        return sum(self.count(name) for name in self._places)

    @property
    def bytes(self) -> int:
        """Bytes of the part files."""
        return sum(part.path.stat().st_size for part in self._parts)

    def count(self, name: str) -> int:
        """Features of one image."""
        place = self._place(name)
        offsets = self._parts[place.part].offsets
        return int(offsets[place.row + 1] - offsets[place.row])

    def source(self, name: str) -> Source:
        """The file the image was read from."""
        place = self._place(name)
        return Source(*(int(value) for value in self._parts[place.part].sources[place.row]))

    def spoken_at(self, name: str) -> int:
        """When the last part was written that speaks of this image, in ns: when its file was last looked at."""
        number = self._spoken.get(name, self._place(name).part)
        if number not in self._written:
            self._written[number] = self._parts[number].path.stat().st_mtime_ns
        return self._written[number]

    def read(self, name: str) -> Features:
        """The features of one image; NotFoundError for an unknown name."""
        place = self._place(name)
        part = self._parts[place.part]
        with OpenedPart(part.path) as file:
            return read_features(part, place.row, file["descriptors"], file["keypoints"], file["strengths"], 0)

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        """Names and features, part by part in the order of extraction; only those in `names` when it is given."""
        wanted = None if names is None else set(names)
        for number, part in enumerate(self._parts):
            rows = [
                (name, row)
                for row, name in enumerate(part.names)
                if (wanted is None or name in wanted) and self._places.get(name) == _Location(number, row)
            ]
            if rows:
                yield from images_of_part(part, rows)

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
