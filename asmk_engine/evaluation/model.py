"""Ground truths in one form: which images a query should find, which are hard to find, and which do not count.

revisited   Revisited Oxford and Paris: easy and hard images, and junk
original    Oxford5k and Paris6k as first published: images to find, and junk; a query finds itself
how         the validation set of HOW: the same
gldv2       retrieval on Google Landmarks v2: images to find, the best hundred of an answer count
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
    """A label that a photograph was given, and how sure of it the classifier is."""

    label: str
    confidence: float


@dataclass(frozen=True)
class GroundTruthQuery:
    """One query and what is known of the database images; the images not named are negatives.

    box           x1, y1, x2, y2 in pixels of the original upright image, or None for all of it
    easy, hard    what it should find; protocols that know no difficulty have everything under easy
    junk          what counts neither way
    in_database   whether the query is itself one of the images
    finds_itself  whether it then counts as one of the images to find; else it is left out of its own ranking
    part          the part of the queries that it is reported with, where a protocol has parts
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
    """The names of the database images and the queries; InputError when they contradict each other.

    ignored   names that count in no ranking: the photographs of the queries, where the database is without them
    protocol  one of `PROTOCOLS`
    complete  whether `images` is all of the database in its published order, or only the images that queries name
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
        raise InputError(f"this {kind} stands twice in the ground truth: {list_names(twice)}; list each once")


def _check_query(query: GroundTruthQuery, images: set[str]) -> None:
    for one, other in (("easy", "hard"), ("easy", "junk"), ("hard", "junk")):
        if both := getattr(query, one) & getattr(query, other):
            raise InputError(
                f"query {query.name!r}: {list_names(sorted(both))} stands under {one} and {other}; keep one of them"
            )
    if unknown := (query.easy | query.hard | query.junk) - images:
        raise InputError(
            f"query {query.name!r}: {list_names(sorted(unknown))} is not one of the {len(images)} database images"
        )
    if query.in_database and query.name not in images:
        raise InputError(f"query {query.name!r} is said to be in the database and is not one of its images")
    if query.finds_itself and not (query.in_database and query.name in query.easy | query.hard):
        raise InputError(f"query {query.name!r} is said to find itself and is none of the images it should find")
