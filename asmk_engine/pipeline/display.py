"""Where a run shows messages and progress: nowhere, on a terminal, or in a function of the caller."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asmk_engine.errors import InputError
from asmk_engine.iteration import Bar, Display, Silent

StageProgress = Callable[[str, int, int], None]
"""Called with the name of a stage, how many of its units are done, and how many there are in all."""


class Console:
    """Messages and progress bars on standard error; none if `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, message: str) -> None:
        """Print one line for the user."""
        if not self.quiet and sys.stderr is not None:
            print(message, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, what: str, unit: str, *, by_last: bool = False) -> Iterator[Bar]:
        """Show a progress bar with rate and ETA, on terminals only; yields a callback (done, total).

        by_last  estimate the remaining time from the last unit alone, because the first units take longer
        """
        from tqdm import tqdm

        hidden, smoothing = self.quiet or None, 1.0 if by_last else 0.3
        with tqdm(
            desc=what, unit=f" {unit}", disable=hidden, smoothing=smoothing, file=sys.stderr, dynamic_ncols=True
        ) as bar:

            def advance(done: int, total: int, failed: int = 0) -> None:
                bar.total = total
                if failed:
                    bar.set_postfix(skipped=failed, refresh=False)
                bar.update(done - bar.n)

            yield advance


class Forwarding(Silent):
    """Passes the progress of each stage on to a function; shows no messages.

    An exception of the function ends the run as an interruption does: what was committed is kept. The function may be
    called from another thread than that of the caller, but never from two at a time.
    """

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress

    @contextmanager
    def bar(self, what: str, unit: str, *, by_last: bool = False) -> Iterator[Bar]:
        """Yield a callback that names the stage."""
        yield lambda done, total, failed=0: self._progress(what, done, total)


def display_of(progress: StageProgress | bool | None) -> Display:
    """The display that is meant by the argument `progress` of a public function; InputError for anything else."""
    if progress is None or progress is False:
        return Silent()
    if progress is True:
        return Console()
    if callable(progress):
        return Forwarding(progress)
    raise InputError(
        f"progress is {progress!r}; give True for messages and bars on standard error, or a function that takes "
        "(stage, done, total)"
    )
