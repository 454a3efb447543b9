"""What a run could not do, collected so that the rest of it still runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asmk_engine.errors import AsmkError, InputError, StorageError


class Failures:
    """Errors of parts of a run, collected so that the other parts still run and are reported."""

    def __init__(self) -> None:
        self._errors: dict[str, AsmkError] = {}

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Record an error of this package or of the system raised inside the block, and suppress it."""
        try:
            yield
        except AsmkError as error:
            self._errors[what] = error
        except OSError as error:
            self._errors[what] = StorageError(f"{error.filename or what}: {error.strerror or error}")

    def add(self, reason: str) -> None:
        """Record a reason."""
        self._errors[reason] = InputError(reason)

    def __len__(self) -> int:
        return len(self._errors)

    @property
    def reasons(self) -> list[str]:
        """The messages of the errors, in their order."""
        return [str(error) for error in self._errors.values()]

    def check(self) -> None:
        """Raise the error, if there is one; for several raise InputError, with each of them in a note of its own."""
        if len(self) == 1:
            raise next(iter(self._errors.values()))
        if self._errors:
            error = InputError(f"{len(self)} errors; the first: {self.reasons[0]}")
            for reason in self.reasons:
                error.add_note(reason)
            raise error
