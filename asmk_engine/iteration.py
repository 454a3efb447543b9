"""Helpers for loops over many items: progress reports, displays of them, and evenly spaced samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")

Progress = Callable[[int, int], None]
"""Receives progress as (done, total), in the unit of the function; a total of 0 means unknown."""
FailureProgress = Callable[[int, int, int], None]
"""Receives progress as (done, total, failed); `failed` counts among `done`."""
Bar = Callable[..., None]
"""A progress bar; it can be called as either of the two above."""


class Display(Protocol):
    """Where a run shows messages and progress; the ones that there are stand in `pipeline.display`."""

    def say(self, message: str) -> None:
        """Show one line of text."""
        ...

    def bar(self, what: str, unit: str, *, by_last: bool = False) -> AbstractContextManager[Bar]:
        """Show the progress of a stage, which the callback receives as (done, total) or (done, total, failed).

        by_last  estimate the remaining time from the last unit alone, because the first units take longer
        """
        ...


class Silent:
    """A display that shows nothing."""

    def say(self, message: str) -> None:
        """Do nothing."""

    @contextmanager
    def bar(self, what: str, unit: str, *, by_last: bool = False) -> Iterator[Bar]:
        """Yield a callback that does nothing."""
        yield lambda done, total, failed=0: None


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
