"""Several sources of features, one for each kind, as one source of images that all of them describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
    names    names of all images, in byte order
    other    names → the numbers of the kinds whose features are of another file
    """

    path: Path | None = None

    def __init__(self, sources: Sequence[IdentifiedSource]) -> None:
        self.sources = tuple(sources)
        self.names = sorted({name for source in sources for name in source.names}, key=str.encode)
        self._rows = {name: row for row, name in enumerate(self.names)}
        shape = len(self.sources), len(self.names)
        self._held, prints, roots = np.zeros(shape, bool), np.zeros(shape, np.uint64), np.zeros(shape, np.int64)
        table = {UNKNOWN: 0}
        for number, source in enumerate(self.sources):
            names = list(source.names)
            rows, found = [self._rows[name] for name in names], source.identities(names)
            own = np.array([table.setdefault(root, len(table)) for root in found.roots], np.int64)
            self._held[number, rows] = True
            prints[number, rows], roots[number, rows] = found.fingerprints, own[found.numbers]
        self._table = tuple(table)
        self._identify(prints, roots)

    def _identify(self, prints: np.ndarray, roots: np.ndarray) -> None:
        """Decide root and fingerprint of each image from those of each kind, [kinds, images], 0 for no root."""
        every = np.arange(len(self.names))
        self._first = np.argmax(roots > 0, axis=0) if len(self.sources) else every
        self._numbers, self._prints = roots[self._first, every], prints[self._first, every]
        wrong = (roots > 0) & (prints != self._prints)
        self.other = {self.names[row]: np.flatnonzero(wrong[:, row]).tolist() for row in np.flatnonzero(wrong.any(0))}
        self._held &= ~wrong
        for row in np.flatnonzero(self._numbers == 0).tolist():
            pairs = zip(prints[:, row].tolist(), self._held[:, row].tolist(), strict=True)
            self._prints[row] = joint_fingerprint([value if held else None for value, held in pairs])

    def __str__(self) -> str:
        return " and ".join(str(source) for source in self.sources)

    @property
    def paths(self) -> list[Path]:
        """The folders of the feature sets among the sources."""
        return [source.path for source in self.sources if source.path is not None]

    def holders(self, name: str) -> list[int]:
        """Return the numbers of the kinds that have an image, with or without features."""
        found: list[int] = np.flatnonzero(self._held[:, self._rows[name]]).tolist()
        return found

    def kinds_of(self, name: str) -> list[int]:
        """Return the numbers of the kinds that have features of an image."""
        return [number for number in self.holders(name) if self.sources[number].count(name)]

    def held(self, number: int, names: Sequence[str]) -> frozenset[str]:
        """Return which of the images a kind has."""
        return frozenset(name for name in names if self._held[number, self._rows[name]])

    def count(self, name: str) -> int:
        """Return the number of features of an image, of all kinds together."""
        return sum(self.sources[number].count(name) for number in self.holders(name))

    def identities(self, names: Sequence[str]) -> Identities:
        """Return fingerprints and roots of some images, in the order of `names`."""
        rows = [self._rows[name] for name in names]
        return Identities(self._prints[rows], self._table, self._numbers[rows])

    def source(self, name: str) -> Source:
        """Return the file of an image, with a fingerprint of its features if there is none."""
        row = self._rows[name]
        fingerprint = int(self._prints[row])
        if not self._numbers[row]:
            return Source(0, 0, fingerprint)
        return replace(self.sources[int(self._first[row])].source(name), fingerprint=fingerprint)

    def root(self, name: str) -> Root:
        """Return the root of an image, `roots.UNKNOWN` if it has none."""
        return self._table[int(self._numbers[self._rows[name]])]

    def roots(self) -> tuple[Root, ...]:
        """Return all known roots of images, in the order in which the sources name them."""
        return tuple(dict.fromkeys(root for source in self.sources for root in source.roots()))
