"""The model of a ground truth: per query, which images are positives, easy or hard, and which are ignored.

revisited   Revisited Oxford and Paris: easy and hard positives, and junk
original    Oxford5k and Paris6k as first published: positives and junk; a query finds itself
how         HOW's validation set: like `original`
gldv2       retrieval on Google Landmarks v2: positives; the first hundred of a ranking count
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from asmk_engine.errors import InputError
from asmk_engine.escape import list_names
from asmk_engine.images.boxes import Box

PROTOCOLS = ("revisited", "original", "how", "gldv2")


@dataclass(frozen=True)
class Prediction:
    """A predicted label and its confidence."""

    label: str
    confidence: float


@dataclass(frozen=True)
class GroundTruthQuery:
    """One query and the labels of database images; images without a label are negatives.

    box           x1, y1, x2, y2 in pixels of the original upright image, or None for the whole image
    easy, hard    positives; all of them are easy in protocols without difficulty
    junk          ignored images
    in_database   whether the query is itself a database image
    finds_itself  whether it then counts as a positive; otherwise it is removed from its own ranking
    part          part of the queries that it is reported with, if the protocol has parts
    """

    name: str
    box: Box | None
    easy: frozenset[str]
    hard: frozenset[str]
    junk: frozenset[str]
    in_database: bool
    finds_itself: bool = False
    part: str = ""


@dataclass(frozen=True)
class GroundTruth:
    """The names of the database images, and the queries; raises InputError if they contradict each other.

    ignored   names that are ignored in every ranking: the query images, if the database does not include them
    protocol  one of `PROTOCOLS`
    complete  whether `images` is the whole database in its published order, or only the images that queries name
    """

    images: tuple[str, ...]
    queries: tuple[GroundTruthQuery, ...]
    ignored: frozenset[str] = frozenset()
    protocol: str = "revisited"
    complete: bool = True

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"protocol {self.protocol!r}: expected one of {', '.join(PROTOCOLS)}")
        _check_unique("image", self.images)
        _check_unique("query", [query.name for query in self.queries])
        images = set(self.images)
        for query in self.queries:
            _check_query(query, images)


def _check_unique(kind: str, names: tuple[str, ...] | list[str]) -> None:
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise InputError(f"this {kind} is listed twice in the ground truth: {list_names(twice)}; list each once")


def _check_query(query: GroundTruthQuery, images: set[str]) -> None:
    for one, other in (("easy", "hard"), ("easy", "junk"), ("hard", "junk")):
        if both := getattr(query, one) & getattr(query, other):
            raise InputError(
                f"query {query.name!r}: {list_names(sorted(both))} is listed under {one} and {other}; keep one of them"
            )
    if unknown := (query.easy | query.hard | query.junk) - images:
        raise InputError(
            f"query {query.name!r}: {list_names(sorted(unknown))} is not one of the {len(images)} database images"
        )
    if query.in_database and query.name not in images:
        raise InputError(f"query {query.name!r} is marked as in the database, but is not one of its images")
    if query.finds_itself and not (query.in_database and query.name in query.easy | query.hard):
        raise InputError(
            f"query {query.name!r} is marked as finding itself, but is not one of the images it should find"
        )
