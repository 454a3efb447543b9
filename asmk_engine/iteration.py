"""Helpers for loops over many items: progress reports and evenly spaced samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[int, int], None]
"""Receives progress as (done, total), in the unit of the function; a total of 0 means unknown."""
FailureProgress = Callable[[int, int, int], None]
"""Receives progress as (done, total, failed); `failed` counts among `done`."""
Bar = Callable[..., None]
"""A progress bar; it can be called as either of the two above."""


def counted(items: Iterable[Item], total: int, progress: Progress | None) -> Iterator[Item]:
    """Yield the items and report progress after each."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress:
            progress(done, total)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` of the items, evenly spaced over the sequence."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]
