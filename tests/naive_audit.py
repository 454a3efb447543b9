"""The decision of an audit, written from section 3 of "On Train-Test Class Overlap and Detection" (CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence

Answers = Sequence[tuple[str, str]]
"""Judge and answer, in the order in which they were given."""


def confirmed(answers: Answers) -> bool:
    """A match stays if at least one of the people confirms it; the last answer of each counts."""
    last: dict[str, str] = {}
    for judge, answer in answers:
        last[judge] = answer
    return any(answer == "same" for answer in last.values())


def removed_classes(pairs: Sequence[tuple[str, str, Answers]], *, all_of_them: bool) -> list[str]:
    """The classes that are removed whole: of each query the one that appears most among its confirmed images.

    pairs  query, class of the image, and the answers
    """
    removed: list[str] = []
    queries: list[str] = []
    for query, _, _ in pairs:
        if query not in queries:
            queries.append(query)
    for query in queries:
        votes: list[tuple[str, int]] = []
        for one, label, answers in pairs:
            if one == query and confirmed(answers):
                before = [count for name, count in votes if name == label]
                votes = [(name, count) for name, count in votes if name != label]
                votes.append((label, sum(before) + 1))
        for label, count in votes:
            wins = all_of_them or all(count >= other for _, other in votes)
            if wins and label not in removed:
                removed.append(label)
    return removed
