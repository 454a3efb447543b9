"""Iteration: progress callbacks, and items at even distances."""

from __future__ import annotations

import pytest

from asmk_engine.iteration import counted, evenly


@pytest.mark.parametrize(
    ("items", "most", "expected"),
    [(0, 3, []), (2, 3, [0, 1]), (9, 3, [0, 3, 6]), (10, 1, [0]), (10, 4, [0, 2, 5, 7])],
)
def test_some_are_taken_at_even_distances(items: int, most: int, expected: list[int]) -> None:
    assert evenly(range(items), most) == expected


def test_all_are_taken_where_there_are_no_more() -> None:
    items = list("abcdefghij")
    assert evenly(items, 10) == evenly(items, 99) == items


def test_progress_is_told_after_each_item() -> None:
    told: list[tuple[int, int]] = []
    found = counted("ab", 2, lambda done, total: told.append((done, total)))
    assert next(found) == "a" and told == []
    assert list(found) == ["b"] and told == [(1, 2), (2, 2)]
    assert list(counted("ab", 2, None)) == ["a", "b"]
