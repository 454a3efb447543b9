"""What a client is told: a status, one line, and when to come again."""

from __future__ import annotations

from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError

BUSY_SECONDS = 2
_STATUS = ((NotFoundError, 404), (MismatchError, 409), (DamagedError, 500), (FormatError, 400), (InputError, 400))


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
    return Refusal(status, " ".join(str(error).split()))
