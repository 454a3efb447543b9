"""What a client is told: a status, one line, and when to come again."""

from __future__ import annotations

import re

from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError

BUSY_SECONDS = 2
_STATUS = ((NotFoundError, 404), (MismatchError, 409), (DamagedError, 500), (FormatError, 400), (InputError, 400))
# From the start of an absolute path to its last slash; where a path ends is known by what messages put after it.
_FOLDERS = re.compile(r"""(?<![^\s'"`(\[=])(?:[A-Za-z]:)?[/\\](?:(?!: |; |, | \(|['"`\[\]]).)*[/\\]""")


class Refusal(AsmkError):
    """A request that is not answered.

    status  of HTTP
    retry   seconds after which another attempt may succeed, None if it will not
    """

    def __init__(self, status: int, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry = status, retry


def busy(what: str) -> Refusal:
    """Return the refusal for a queue that is full."""
    return Refusal(429, f"too many {what} are waiting; try again in {BUSY_SECONDS} seconds", BUSY_SECONDS)


def refusal_of(error: AsmkError) -> Refusal:
    """Return what a client is told of an error of the engine."""
    if isinstance(error, Refusal):
        return error
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return Refusal(status, told(error))


def told(error: AsmkError) -> str:
    """Return the message of an error of the engine as clients may read it: on one line, without folders."""
    return discreet(str(error))


def discreet(text: str) -> str:
    """Return a text on one line, of absolute paths only their last parts: where files lie is nobody else's business."""
    return _FOLDERS.sub("", " ".join(text.split()))
