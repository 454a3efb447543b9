"""What an audit found so far, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asmk_engine.audit.decision import Decision
from asmk_engine.audit.model import Questions


@dataclass(frozen=True)
class OverlapRow:
    """A line of the table of the report: a test set, or `text` of which no queries are counted.

    Attributes
    ----------
    name : str
        Label of the test set.
    queries, overlapping : int
        Queries of the set, and those with a confirmed image.
    classes, images : int
        Classes that the set removes and no set before it, and their images.
    """

    name: str
    queries: int
    overlapping: int
    classes: int
    images: int


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found so far.

    Attributes
    ----------
    folder : pathlib.Path
        Folder of the audit, which has the files of the report.
    questions : Questions
        What the automatic stages found.
    decision : Decision
        What the answers of people remove.
    judges : dict of str to int
        Judge → number of answered questions.
    rows : tuple of OverlapRow
        The table: each test set, then the text path if words were given.
    images_left, classes_left : int
        What is left of the training set.
    is_in_landmark_form : bool
        Whether `cleaned.csv` could be written: no name of an image has a space.
    """

    folder: Path
    questions: Questions
    decision: Decision
    judges: dict[str, int]
    rows: tuple[OverlapRow, ...]
    images_left: int
    classes_left: int
    is_in_landmark_form: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON; the pairs without their pictures."""
        states = self.decision.states
        return {
            "kind": "asmk-engine audit report",
            "format": 1,
            "training": asdict(self.questions.counts),
            "controls": [asdict(one) for one in self.questions.controls],
            "table": [asdict(row) for row in self.rows],
            "questions": len(self.questions.keys),
            "states": {state: states.get(state, 0) for state in ("same", "different", "unsure", "open")},
            "judges": self.judges,
            "removed": [asdict(one) for one in self.decision.removed],
            "images_removed": self.decision.images,
            "images_left": self.images_left,
            "classes_left": self.classes_left,
            "queries": [asdict(one) for one in self.decision.queries],
            "unread": self.questions.unread,
        }
