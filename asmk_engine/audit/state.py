"""The folder of an audit: what was asked for, and the questions that the automatic stages found.

audit.json        what was asked for, and the questions
judgements.jsonl  the answers of people
pictures/         a picture of each question
work/             features, indexes and pieces, which a run goes on from
report.html …     the report, see `asmk_engine.audit.report`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.audit.model import Questions
from asmk_engine.audit.options import AuditOptions
from asmk_engine.errors import DamagedError, FormatError, NotFoundError
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import read_file

STATE, PICTURES, WORK = "audit.json", "pictures", "work"
KIND, FORMAT, MAX_BYTES = "asmk-engine audit", 1, 2**32


@dataclass(frozen=True)
class TrainingSource:
    """Where a training set is.

    Parameters
    ----------
    data : pathlib.Path
        A folder or a table.
    layout : str, default "auto"
        One of the layouts of a training.
    images : pathlib.Path, optional
        Folder of the photographs of a table.
    class_names : pathlib.Path, optional
        CSV with the name of each class, for the text path.
    """

    data: Path
    layout: str = "auto"
    images: Path | None = None
    class_names: Path | None = None

    def as_dict(self) -> dict[str, str]:
        """Return the absolute paths as plain values for JSON."""
        given = {"data": self.data, "images": self.images, "class_names": self.class_names}
        return {"layout": self.layout, **{key: str(path.resolve()) for key, path in given.items() if path is not None}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingSource:
        """Return the source of `as_dict`."""
        paths = {key: Path(value) for key, value in content.items() if key != "layout"}
        return cls(layout=content["layout"], **paths)


@dataclass(frozen=True, eq=False)
class AuditState:
    """An audit after its automatic stages: the training set, the options, and the questions."""

    source: TrainingSource
    options: AuditOptions
    questions: Questions


def write_state(folder: Path, state: AuditState) -> None:
    """Write `audit.json`, whole or not at all; raises StorageError."""
    content = {
        "kind": KIND,
        "format": FORMAT,
        "training": state.source.as_dict(),
        "options": state.options.as_dict(),
        **state.questions.as_dict(),
    }
    target = Folder(folder)
    target.make()
    target.write(STATE, [json.dumps(content, indent=1).encode()], "the questions")
    target.sync()


def read_state(folder: Path) -> AuditState:
    """Read `audit.json`; raises NotFoundError, FormatError for another file, DamagedError for one that was altered."""
    path = folder / STATE
    if not path.exists():
        raise NotFoundError(f"{path}: no such file; begin with `asmk-engine audit TRAIN TEST -o {folder}`")
    try:
        content = json.loads(read_file(path, "the questions of an audit", MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: not valid JSON ({error}); run the audit again") from None
    if not isinstance(content, dict) or (content.get("kind"), content.get("format")) != (KIND, FORMAT):
        raise FormatError(f"{path}: not the questions of an audit of format {FORMAT}; run the audit again")
    try:
        source = TrainingSource.from_dict(content["training"])
        return AuditState(source, AuditOptions.from_dict(content["options"]), Questions.from_dict(content))
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: incomplete ({error}); run the audit again") from None
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from None
