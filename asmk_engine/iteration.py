"""Going through many things: telling how far one has come, and taking some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are in all, in the unit of the function; 0 in all means unknown."""
FailureProgress = Callable[[int, int, int], None]
"""Called with how many are done, how many there are in all, and how many of those done failed."""
Bar = Callable[..., None]
"""Both of them: the bar of a display, called with or without failures."""


def counted(items: Iterable[Item], total: int, progress: Progress | None) -> Iterator[Item]:
    """The items, with progress told after each."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress:
            progress(done, total)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, at even distances, so that every part of them is seen."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]
