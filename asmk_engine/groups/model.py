"""The groups of a collection: which images belong together, why, and what is doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.groups.kinds import kinds_of
from asmk_engine.groups.notices import CommonWord
from asmk_engine.groups.options import Grouping


@dataclass(frozen=True, eq=False)
class Edge:
    """Two images that belong together, and what speaks for it.

    Attributes
    ----------
    one, other : str
        Their names.
    kind : str
        `copy`, `crop`, `mirrored` or `view`: files of one photograph, whole or cut, or two photographs of one thing.
    score : float
        Their similarity in the index.
    inliers, places : int
        Pairs of features that one map explains, and their distinct places; the smaller number of both directions.
    weight : float
        Sum of the weights of the inliers, each place and each word counted once.
    share : float
        Share of the features in the part that both show that are inliers.
    agreement : float or None
        Correlation of the pixels of both, aligned; None where that was not needed or a photograph is gone.
    affine : ndarray of shape (2, 3), float64
        (u, v, 1) in `one`, mirrored left to right if the kind is `mirrored`, is at affine @ (u, v, 1) in `other`.
    """

    one: str
    other: str
    kind: str
    score: float
    inliers: int
    places: int
    weight: float
    share: float
    agreement: float | None
    affine: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """Return the edge as plain values for JSON, numbers rounded."""
        return {
            "images": [self.one, self.other],
            "kind": self.kind,
            "score": round(self.score, 6),
            "inliers": self.inliers,
            "places": self.places,
            "weight": round(self.weight, 4),
            "share": round(self.share, 4),
            "agreement": None if self.agreement is None else round(self.agreement, 4),
            "affine": [[round(value, 6) for value in row] for row in self.affine.tolist()],
        }


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """Images that belong together, because pairs of them match.

    Attributes
    ----------
    images : tuple of str
        Their names in byte order.
    communities : tuple of tuple of str
        The same, divided where few pairs join them; the largest first.
    photographs : tuple of tuple of str
        The same, divided into photographs, each with its copies: the largest image first. In the order of their names.
    rows : ndarray of EVIDENCE, see `asmk_engine.groups.comparison`
        The pairs that match.
    names : dict
        Number in the index → name.
    """

    images: tuple[str, ...]
    communities: tuple[tuple[str, ...], ...]
    photographs: tuple[tuple[str, ...], ...]
    rows: np.ndarray
    names: dict[int, str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def edges(self) -> Iterator[Edge]:
        """The pairs that match, in the order of the index."""
        for row, kind in zip(self.rows, kinds_of(self.rows), strict=True):
            yield Edge(
                one=self.names[int(row["one"])],
                other=self.names[int(row["other"])],
                kind=kind,
                score=float(row["score"]),
                inliers=int(row["inliers"]),
                places=int(row["places"]),
                weight=float(row["weight"]),
                share=float(row["share"]),
                agreement=None if np.isnan(row["agreement"]) else float(row["agreement"]),
                affine=row["affine"].reshape(2, 3),
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the group as plain values for JSON."""
        return {
            "images": list(self.images),
            "communities": [list(one) for one in self.communities],
            "photographs": [list(one) for one in self.photographs],
            "edges": [edge.as_dict() for edge in self.edges],
        }


@dataclass(frozen=True)
class Notice:
    """What the reader of the groups should know about an image or a pair.

    Attributes
    ----------
    kind : str
        `overlay`, `hub`, `unverified` or `single pair`.
    images : tuple of str
        One name, or two.
    text : str
        What was found, in a sentence without the names.
    score : float
        Of a pair the similarity in the index, of an image how many it matches; the greatest first.
    """

    kind: str
    images: tuple[str, ...]
    text: str
    score: float

    def __str__(self) -> str:
        return f"{' and '.join(map(repr, self.images))}: {self.text}"

    def as_dict(self) -> dict[str, Any]:
        """Return the notice as plain values for JSON."""
        return {"kind": self.kind, "images": list(self.images), "text": self.text, "score": round(self.score, 6)}


@dataclass(frozen=True, eq=False)
class Groups:
    """What `find_groups` found.

    Attributes
    ----------
    path : pathlib.Path
        The index.
    commit : int
        Its commit.
    options : Grouping
        The options of the run.
    images : int
        Number of images of the index.
    groups : tuple of ImageGroup
        The groups of two images or more, the largest first, equal ones in byte order of their first names.
    alone : tuple of str
        The images in no group, in byte order.
    notices : tuple of Notice
        What is doubtful: overlays and hubs, then pairs.
    words : tuple of CommonWord
        Visual words that most images have.
    unplaced : int
        Number of images that have features, but whose geometry is neither in the index nor in its feature set.
    unread : dict of str to str
        Name → why a photograph could not be read, so that its copies were told by features, or not mirrored.
    """

    path: Path
    commit: int
    options: Grouping
    images: int
    groups: tuple[ImageGroup, ...]
    alone: tuple[str, ...]
    notices: tuple[Notice, ...]
    words: tuple[CommonWord, ...]
    unplaced: int
    unread: dict[str, str]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[ImageGroup]:
        return iter(self.groups)
