"""The report of an audit: what was found, what people answered, and the training set that is left.

report.html         counts, controls and pictures, for people
report.json         all of it, for programs
queries.csv         a line for each query with pairs: how many by state, and its confirmed classes
removed.txt         the removed classes, one a line, as `--exclude` of the trainings takes them
cleaned.csv         what is left, `landmark_id,images` as in `train_clean.csv` of Google Landmarks v2
cleaned-images.csv  the same as `image,instance`, unless the training set is of Google Landmarks
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asmk_engine.audit.decision import TEXT, Decision, decide
from asmk_engine.audit.judgements import Judgements, read_judgements
from asmk_engine.audit.overview import AuditReport, OverlapRow
from asmk_engine.audit.report_page import page_chunks
from asmk_engine.audit.sets import AuditedSet, read_training_set
from asmk_engine.audit.state import AuditState, read_state
from asmk_engine.evaluation.landmarks import header
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import first_bytes

PAGE, JSON, QUERIES, REMOVED = "report.html", "report.json", "queries.csv", "removed.txt"
CLEANED, CLEANED_IMAGES = "cleaned.csv", "cleaned-images.csv"
HEADER_BYTES, LINES_TOGETHER = 4096, 10_000


def report_again(folder: Path) -> AuditReport:
    """Write the report of an audit again, with the answers that there are now; raises what reading its files does."""
    state = read_state(folder)
    source = state.source
    return write_report(folder, state, read_training_set(source.data, source.layout, source.images))


def write_report(folder: Path, state: AuditState, training: AuditedSet) -> AuditReport:
    """Write all files of the report, each whole or not at all; raises DamagedError for judgements, and StorageError."""
    judgements = Judgements(read_judgements(folder))
    found = decide(state.questions, judgements, training.counts, every_class=state.options.every_class)
    kept = [name for name, label in _images(training) if label not in found.labels]
    spaced = any(name.split() != [name] for name in kept)
    report = AuditReport(
        folder, state.questions, found, judgements.judges(state.questions.keys), _rows(state, found),
        len(kept), len(training.counts) - len(found.removed), not spaced,
    )  # fmt: skip
    target = Folder(folder)
    target.write(REMOVED, [f"{one.label}\n".encode() for one in found.removed], "the removed classes")
    target.write(QUERIES, [_query_table(found)], "the counts of the queries")
    _write_cleaned(target, state, training, found, spaced)
    target.write(JSON, [json.dumps(report.as_dict(), indent=1).encode(), b"\n"], "the report")
    target.write(PAGE, page_chunks(report, judgements), "the report")
    target.sync()
    return report


def _images(training: AuditedSet) -> Iterator[tuple[str, str]]:
    return ((image.name, label) for image, label in zip(training.images, training.classes, strict=True))


def _rows(state: AuditState, found: Decision) -> tuple[OverlapRow, ...]:
    of_sets = state.questions.counts.queries.items()
    sets = [(label, queries, found.overlapping(label)) for label, queries in of_sets]
    text = [(TEXT, 0, 0)] if state.options.words else []
    return tuple(
        OverlapRow(name, queries, overlapping, len(removed), sum(one.images for one in removed))
        for name, queries, overlapping in [*sets, *text]
        for removed in [found.removed_by(name)]
    )


def _query_table(found: Decision) -> bytes:
    columns = ("query", "test_set", "same", "different", "unsure", "open", "classes", "removed")
    rows = [
        [one.query, one.test_set, *(one.states.get(state, 0) for state in columns[2:6]),
         " ".join(f"{label}:{count}" for label, count in one.classes.items()), " ".join(one.removed)]
        for one in found.queries
    ]  # fmt: skip
    return _csv([list(columns), *rows])


def _write_cleaned(target: Folder, state: AuditState, training: AuditedSet, found: Decision, spaced: bool) -> None:
    """Write what is left in both forms, and remove a form that does not fit the names."""
    if spaced:
        target.remove(CLEANED)
    else:
        target.write(CLEANED, _landmark_form(training, found.labels), "the cleaned list")
    if "landmark_id" in header(first_bytes(state.source.data, HEADER_BYTES)):
        target.remove(CLEANED_IMAGES)
    else:
        target.write(CLEANED_IMAGES, _image_form(training, found.labels), "the cleaned list")


def _landmark_form(training: AuditedSet, removed: frozenset[str]) -> Iterator[bytes]:
    of_class: dict[str, list[str]] = {}
    for (name, label), labelled in zip(_images(training), training.labelled, strict=True):
        if labelled and label not in removed:
            of_class.setdefault(label, []).append(name)
    rows = ([label, " ".join(names)] for label, names in of_class.items())
    yield from _tables(["landmark_id", "images"], rows)


def _image_form(training: AuditedSet, removed: frozenset[str]) -> Iterator[bytes]:
    rows = (
        [name, label if labelled else ""]
        for (name, label), labelled in zip(_images(training), training.labelled, strict=True)
        if label not in removed
    )
    yield from _tables(["image", "instance"], rows)


def _tables(columns: list[str], rows: Iterable[list[str]]) -> Iterator[bytes]:
    some = [columns]
    for row in rows:
        some.append(row)
        if len(some) >= LINES_TOGETHER:
            yield _csv(some)
            some = []
    yield _csv(some)


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")
