"""Classification by search: the labels of the nearest images vote for the label of a query image.

    cls1   the label of the nearest image
    cls2   the ten nearest, sum of similarities per label
    cls3   the ten nearest, sum of square roots of similarities, weighted by ln(labels / frequency of the label)

The frequency of a label is the number of its images divided by that of all labelled images, so the weight is
ln(labels * labelled images / images of the label): positive as soon as there are two labels.

Source: Tolias, Jenicek, Chum, "Learning and aggregating deep local descriptors for instance-level recognition", ECCV
2020, section 5.1: "the logarithm of the number of classes divided by the class frequency". The frequency has to be the
relative one: divided by the number of images, the logarithm would be negative for most of the labels of the database
of that paper, 50 landmarks with about 200 images each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.model import Prediction
from asmk_engine.evaluation.names import match_names
from asmk_engine.evaluation.runs import Scored


@dataclass(frozen=True)
class Classifier:
    """How the votes of the nearest images are counted.

    neighbours  number of best ranked labelled images that vote
    power       a vote counts as the similarity to this power; similarities below 0 count as 0
    weighted    multiply by ln(labels * labelled images / images of the label), so that frequent labels count less
    """

    neighbours: int = 10
    power: float = 1.0
    weighted: bool = False

    def __post_init__(self) -> None:
        if self.neighbours < 1 or not (math.isfinite(self.power) and self.power > 0):
            raise InputError(
                f"{self.neighbours} neighbours and power {self.power}: give 1 neighbour or more and a power above 0"
            )


CLASSIFIERS = {"cls1": Classifier(1), "cls2": Classifier(10), "cls3": Classifier(10, 0.5, weighted=True)}


@dataclass(frozen=True)
class Labels:
    """The labels of indexed images, by name; images without a label do not vote."""

    of: Mapping[str, str]
    counts: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", Counter(self.of.values()))

    def weight(self, label: str) -> float:
        """Return ln(labels * labelled images / images of the label): at least 0, and 0 only for a single label."""
        return math.log(len(self.counts) * len(self.of) / self.counts[label])


def resolve_labels(labels: Mapping[str, str], available: Iterable[str], *, allow_missing: bool = False) -> Labels:
    """Match labels to the names of indexed images, whose folders and extensions may differ; see `names.match_names`.

    raises  NotFoundError if no indexed image has a label, or, without `allow_missing`, if any has none;
            InputError for ambiguous names
    """
    available = list(available)
    found = {match: labels[name] for name, match in match_names(labels, available).items()}
    missing = [name for name in available if name not in found]
    if missing and (not found or not allow_missing):
        raise NotFoundError(
            f"{len(missing)} of {len(available)} indexed images have no label: {list_names(missing)}; "
            + ("add their labels, or allow missing ones, which then do not vote" if found else "give their labels")
        )
    return Labels(found)


def check_weights(labels: Labels, classifier: Classifier) -> None:
    """Raise InputError if a weighted classifier has a single label, whose weight is 0: no confidence would differ."""
    if classifier.weighted and len(labels.counts) == 1:
        ((label, count),) = labels.counts.items()
        raise InputError(
            f"1 label, {label!r}, for all {count} labelled images, expected 2 or more: the weight of a single label is "
            "ln 1 = 0; use cls1 or cls2, or give images of other labels"
        )


def classify(hits: Iterable[Scored], labels: Labels, classifier: Classifier) -> list[Prediction]:
    """Return all labels that got a vote, the most confident first, ties in the order of the labels.

    hits     ranking for the query image, best first, deep enough to include the neighbours; images without a label
             are skipped
    returns  empty if no image with a label was found
    """
    votes: dict[str, list[float]] = {}
    left = classifier.neighbours
    for hit in hits:
        if left and (label := labels.of.get(hit.name)) is not None:
            left -= 1
            weight = labels.weight(label) if classifier.weighted else 1.0
            votes.setdefault(label, []).append(weight * max(hit.score, 0.0) ** classifier.power)
    predictions = [Prediction(label, math.fsum(each)) for label, each in votes.items()]
    return sorted(predictions, key=lambda one: (-one.confidence, one.label))
