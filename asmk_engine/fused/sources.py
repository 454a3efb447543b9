"""Several sources of features, one for each kind, as one source of images that all of them describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asmk_engine.features import IdentifiedSource, Identities, Source, fingerprint_bytes
from asmk_engine.images.roots import UNKNOWN, Root


def joint_fingerprint(fingerprints: Sequence[int | None]) -> int:
    """Return the fingerprint of an image without a file, from those of its features of each kind, None for none."""
    return fingerprint_bytes(*((value or 0).to_bytes(8, "little") for value in fingerprints))


class FusedSource:
    """The images of several sources of features; an image may be in some of them only.

    An image has the file, root and fingerprint that the first source with a known root says. Another source that read
    another file of this name counts as one without the image, see `other`. Images without a file are identified by
    their features of all kinds.

    sources  for each kind its source
    other    names → the numbers of the kinds whose features are of another file
    """

    path: Path | None = None

    def __init__(self, sources: Sequence[IdentifiedSource]) -> None:
        self.sources = tuple(sources)
        self.other: dict[str, list[int]] = {}
        self._holders: dict[str, list[int]] = {}
        self._sources: dict[str, Source] = {}
        self._roots: dict[str, Root] = {}
        for number, source in enumerate(self.sources):
            for name in source.names:
                self._holders.setdefault(name, []).append(number)
        for name, holders in self._holders.items():
            self._identify(name, holders)

    def _identify(self, name: str, holders: list[int]) -> None:
        roots = {number: self.sources[number].root(name) for number in holders}
        sources = {number: self.sources[number].source(name) for number in holders}
        first = next((number for number in holders if roots[number].is_known), None)
        if first is None:
            prints = [sources[number].fingerprint if number in sources else None for number in range(len(self.sources))]
            self._sources[name], self._roots[name] = Source(0, 0, joint_fingerprint(prints)), UNKNOWN
            return
        self._sources[name], self._roots[name] = sources[first], roots[first]
        wrong = [
            number
            for number in holders
            if roots[number].is_known and sources[number].fingerprint != sources[first].fingerprint
        ]
        if wrong:
            self.other[name] = wrong
            holders[:] = [number for number in holders if number not in wrong]

    def __str__(self) -> str:
        return " and ".join(str(source) for source in self.sources)

    @property
    def paths(self) -> list[Path]:
        """The folders of the feature sets among the sources."""
        return [source.path for source in self.sources if source.path is not None]

    @property
    def names(self) -> list[str]:
        """The names of all images, in byte order."""
        return sorted(self._holders, key=str.encode)

    def holders(self, name: str) -> list[int]:
        """Return the numbers of the kinds that have an image, with or without features."""
        return self._holders[name]

    def kinds_of(self, name: str) -> list[int]:
        """Return the numbers of the kinds that have features of an image."""
        return [number for number in self._holders[name] if self.sources[number].count(name)]

    def held(self, number: int, names: Sequence[str]) -> frozenset[str]:
        """Return which of the images a kind has."""
        return frozenset(name for name in names if number in self._holders[name])

    def count(self, name: str) -> int:
        """Return the number of features of an image, of all kinds together."""
        return sum(self.sources[number].count(name) for number in self._holders[name])

    def identities(self, names: Sequence[str]) -> Identities:
        """Return fingerprints and roots of some images, in the order of `names`."""
        table = {UNKNOWN: 0}
        numbers = [table.setdefault(self._roots[name], len(table)) for name in names]
        prints = np.array([self._sources[name].fingerprint for name in names], np.uint64)
        return Identities(prints, tuple(table), np.array(numbers, np.int64))

    def source(self, name: str) -> Source:
        """Return the file of an image, with a fingerprint of its features if there is none."""
        return self._sources[name]

    def root(self, name: str) -> Root:
        """Return the root of an image, `roots.UNKNOWN` if it has none."""
        return self._roots[name]

    def roots(self) -> tuple[Root, ...]:
        """Return all known roots of images, in the order in which the sources name them."""
        known = dict.fromkeys(root for source in self.sources for root in source.roots())
        return tuple(known)
