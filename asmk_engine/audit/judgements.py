"""What people answered: a journal to which each answer is appended as a line of JSON, and synced before it counts.

    {"key": "…", "judge": "…", "answer": "same", "at": "2026-01-31T12:00:00Z"}

A judge may answer again, and the last answer counts. A line that was cut off when the machine stopped is no answer.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.storage.folder import LockedFolder, storage_errors

NAME = "judgements.jsonl"
SAME, DIFFERENT, UNSURE, OPEN = "same", "different", "unsure", "open"
ANSWERS = (SAME, DIFFERENT, UNSURE)
LONGEST_JUDGE = 80


@dataclass(frozen=True)
class Judgement:
    """The answer of one judge to the question of a key."""

    key: str
    judge: str
    answer: str
    at: str = ""

    def __post_init__(self) -> None:
        if self.answer not in ANSWERS:
            raise InputError(f"answer is {self.answer[:50]!r}; give one of {', '.join(ANSWERS)}")
        if not (0 < len(self.judge.strip()) <= LONGEST_JUDGE and self.judge.isprintable()):
            raise InputError(f"a judge is called {self.judge[:100]!r}; give a name of 1 to {LONGEST_JUDGE} letters")


class Judgements:
    """The answers so far: key → judge → answer, where the last one counts."""

    def __init__(self, judgements: Iterable[Judgement] = ()) -> None:
        self._of: dict[str, dict[str, str]] = {}
        for one in judgements:
            self.add(one)

    def add(self, one: Judgement) -> None:
        """Take an answer in place of an earlier one of the same judge."""
        self._of.setdefault(one.key, {})[one.judge] = one.answer

    def of(self, key: str) -> Mapping[str, str]:
        """Return the answer of each judge to a question."""
        return self._of.get(key, {})

    def state(self, key: str) -> str:
        """Return `same` if at least one judge says so, else `different`, else `unsure`, else `open`."""
        answers = self.of(key).values()
        return next((answer for answer in ANSWERS if answer in answers), OPEN)

    def judges(self, keys: Iterable[str]) -> dict[str, int]:
        """Return how many of the questions each judge answered, the judges in byte order."""
        counts: dict[str, int] = {}
        for key in keys:
            for judge in self.of(key):
                counts[judge] = counts.get(judge, 0) + 1
        return dict(sorted(counts.items()))


def read_judgements(folder: Path) -> list[Judgement]:
    """Return all answers in the order in which they were given; none if there is no journal.

    A last line without an end is left out. Raises DamagedError for any other line that is no answer.
    """
    path = folder / NAME
    if not path.exists():
        return []
    with storage_errors(path, "read the judgements"):
        lines = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(Judgement(**json.loads(line)))
        except (ValueError, TypeError, AttributeError, RecursionError, InputError):
            raise DamagedError(
                f"{path}: line {number} is no judgement, so the file was altered; restore it, or delete the line"
            ) from None
    return found


class JudgementJournal(LockedFolder):
    """The journal of an audit, open for one process; threads may use it together.

    folder  the folder of the audit, which is locked meanwhile
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._held = threading.Lock()
        self.judgements = Judgements()

    def _open(self) -> None:
        self.judgements = Judgements(read_judgements(self._folder.path))
        self._end_last_line()

    def _end_last_line(self) -> None:
        """Cut off what a process that was killed left of a line, so that the next answer begins a new one."""
        path = self._folder.path / NAME
        with storage_errors(path, "open the judgements"), open(path, "ab+") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            os.fsync(file.fileno())
        self._folder.sync()

    def add(self, key: str, judge: str, answer: str) -> None:
        """Append an answer, which is on disk when this returns; raises InputError for a wrong one, and StorageError."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        one = Judgement(key, judge.strip(), answer, now)
        line = json.dumps({"key": one.key, "judge": one.judge, "answer": one.answer, "at": one.at}).encode() + b"\n"
        path = self._folder.path / NAME
        with self._held:
            with storage_errors(path, "write the judgement"), open(path, "ab") as file:
                begin = file.tell()
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(path, begin)  # else the next answer would continue this line
                    raise
            self.judgements.add(one)
