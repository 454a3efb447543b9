"""From the answers of people to the classes that are removed.

Per query the class that is most frequent among its confirmed images is removed whole (RGLDv2-clean, CVPR 2024, section
3); of equally frequent ones all, since the paper says nothing of them. A class counts for the first test set that
removes it, so that the counts of the sets add up as in the table of the paper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asmk_engine.audit.judgements import SAME, Judgements
from asmk_engine.audit.model import AuditPair, Questions

TEXT = "text"
"""What removes a class that was confirmed for its name, in place of a test set."""


@dataclass(frozen=True)
class QueryCounts:
    """What became of a query: its pairs by state, its confirmed classes with their images, and those removed."""

    query: str
    test_set: str
    states: dict[str, int]
    classes: dict[str, int]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class RemovedClass:
    """A class that is removed: its label, its number of images, and the test set that removes it, or `text`."""

    label: str
    images: int
    by: str


@dataclass(frozen=True, eq=False)
class Decision:
    """What the answers so far remove.

    queries  what became of each query that has a pair
    removed  the classes, in the order of the queries, those of the text path last
    states   number of questions by state: same, different, unsure, open
    """

    queries: tuple[QueryCounts, ...]
    removed: tuple[RemovedClass, ...]
    states: dict[str, int]

    @property
    def labels(self) -> frozenset[str]:
        """The labels of the removed classes."""
        return frozenset(one.label for one in self.removed)

    @property
    def images(self) -> int:
        """Number of removed images."""
        return sum(one.images for one in self.removed)

    def overlapping(self, test_set: str) -> int:
        """Return the number of queries of a test set with a confirmed image."""
        return sum(1 for one in self.queries if one.test_set == test_set and one.classes)

    def removed_by(self, by: str) -> list[RemovedClass]:
        """Return the classes that a test set, or the text path, removes."""
        return [one for one in self.removed if one.by == by]


def decide(
    questions: Questions, judgements: Judgements, counts: Mapping[str, int], *, every_class: bool = False
) -> Decision:
    """Decide which classes are removed.

    counts       number of images of each class of the training set
    every_class  remove all confirmed classes of a query, and not only the most frequent one
    """
    queries = [_query_counts(pairs, judgements, counts, every_class) for pairs in _by_query(questions.pairs).values()]
    removed: dict[str, str] = {}
    for one in queries:
        for label in one.removed:
            removed.setdefault(label, one.test_set)
    for named in questions.named:
        if judgements.state(named.key) == SAME and named.label in counts:
            removed.setdefault(named.label, TEXT)
    states = Counter(judgements.state(key) for key in questions.keys)
    classes = tuple(RemovedClass(label, counts[label], by) for label, by in removed.items())
    return Decision(tuple(queries), classes, dict(states))


def _by_query(pairs: Iterable[AuditPair]) -> dict[str, list[AuditPair]]:
    found: dict[str, list[AuditPair]] = {}
    for pair in pairs:
        found.setdefault(pair.query, []).append(pair)
    return found


def _query_counts(
    pairs: list[AuditPair], judgements: Judgements, counts: Mapping[str, int], every_class: bool
) -> QueryCounts:
    states = Counter(judgements.state(pair.key) for pair in pairs)
    known = (pair.label for pair in pairs if judgements.state(pair.key) == SAME and pair.label in counts)
    classes = Counter(known)
    return QueryCounts(pairs[0].query, pairs[0].test_set, dict(states), dict(classes), frequent(classes, every_class))


def frequent(classes: Mapping[str, int], every_class: bool = False) -> tuple[str, ...]:
    """Return the most frequent classes of confirmed images, several where they are equally frequent, or all."""
    most = max(classes.values(), default=0)
    return tuple(label for label, count in classes.items() if every_class or count == most)
