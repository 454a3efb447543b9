"""The class of each image: from a ground truth, whose queries name what belongs together, or from the folders."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery

POSITIVES = ("easy", "medium", "hard")


def classes_of_ground_truth(ground_truth: GroundTruth, row: str = "medium") -> dict[str, str]:
    """Return the class of each positive of a ground truth, and of the queries that are images of it.

    Parameters
    ----------
    ground_truth : GroundTruth
        The queries and their positives.
    row : {"easy", "medium", "hard"}, default "medium"
        Which positives have a class: the easy ones, the hard ones, or both.

    Returns
    -------
    dict
        Name of an image → name of its class. Queries that share a positive, of any row, or of which one is a positive
        of another, are of one class, as the five queries of a landmark of Oxford5k are. A class is called what the
        names of its queries and positives begin with, or, where that is nothing or taken, like its first query.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for group in _groups(ground_truth.queries):
        positives = frozenset[str]().union(*(_positives(query, row) for query in group))
        title = _title([*(query.name for query in group), *frozenset[str]().union(*map(_related, group))])
        members = positives | {query.name for query in group if query.in_database}
        title = group[0].name if not title or title in taken else title
        taken.add(title := f"{title} ({len(taken) + 1})" if title in taken else title)
        found |= dict.fromkeys(members, title)
    return found


def _positives(query: GroundTruthQuery, row: str) -> frozenset[str]:
    return (query.easy if row != "hard" else frozenset()) | (query.hard if row != "easy" else frozenset())


def _related(query: GroundTruthQuery) -> frozenset[str]:
    return query.easy | query.hard


def _groups(queries: Sequence[GroundTruthQuery]) -> list[list[GroundTruthQuery]]:
    """Return the queries that belong together, each group and all groups in the order of the ground truth."""
    first: dict[str, int] = {}
    parents = list(range(len(queries)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for number, query in enumerate(queries):
        for name in {query.name, *_related(query)}:
            other = root(first.setdefault(name, number))
            own = root(number)
            parents[max(own, other)] = min(own, other)
    found: dict[int, list[GroundTruthQuery]] = {}
    for number, query in enumerate(queries):
        found.setdefault(root(number), []).append(query)
    return list(found.values())


def _title(names: Sequence[str]) -> str:
    """Return what the names begin with, without a number or a mark at the end."""
    first, last = min(names), max(names)  # what these begin with, all names between them begin with too
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = "".join(sign for sign, _ in pairs)
    if "/" in common:
        return common.rpartition("/")[0]
    return common.rstrip("0123456789_-. ") if len(names) > 1 else common


def classes_of_folders(names: Iterable[str]) -> dict[str, str]:
    """Return the folder of each image as its class; images outside of folders have none."""
    return {name: name.rpartition("/")[0] for name in names if "/" in name}
