"""An audit from its two sides to its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asmk_engine.audit.class_names import named_classes, read_class_names
from asmk_engine.audit.finding import AuditStage, Verified, VerifiedCandidate, find_pairs
from asmk_engine.audit.model import AuditPair, Questions, SetCounts, key_of
from asmk_engine.audit.options import AuditOptions
from asmk_engine.audit.overview import AuditReport
from asmk_engine.audit.pictures import SHOWN_QUERIES, class_drawings, pair_drawings, write_pictures
from asmk_engine.audit.refusals import refuse_extractors
from asmk_engine.audit.report import write_report
from asmk_engine.audit.sets import AuditedSet, AuditQuery, QuerySets, read_test_sets, read_training_set
from asmk_engine.audit.state import PICTURES, WORK, AuditState, TrainingSource, write_state
from asmk_engine.errors import InputError
from asmk_engine.images.listing import PathLike
from asmk_engine.iteration import Display, Silent, evenly
from asmk_engine.pipeline.extractor_choice import ExtractionOptions
from asmk_engine.threads import thread_count


@dataclass(frozen=True)
class AuditInputs:
    """What is audited.

    Parameters
    ----------
    training : TrainingSource
        The training set.
    tests : tuple of pathlib.Path
        The test sets, see `read_test_sets`.
    test_images : tuple of pathlib.Path
        Folders of the photographs of test sets that are tables or ground truths.
    controls : tuple of pathlib.Path
        Other training sets, in layouts that are recognised, which are only counted.
    """

    training: TrainingSource
    tests: tuple[Path, ...]
    test_images: tuple[Path, ...] = ()
    controls: tuple[Path, ...] = field(default=())


def run_audit(
    inputs: AuditInputs,
    output: PathLike,
    options: AuditOptions | None = None,
    *,
    extraction: ExtractionOptions | None = None,
    local: ExtractionOptions | None = None,
    threads: int | None = None,
    display: Display | None = None,
) -> AuditReport:
    """Find which classes of a training set the queries of test sets show, and write the report with the answers so far.

    Every stage goes on where a run that was killed stopped, and judgements are kept whatever the options.

    Parameters
    ----------
    inputs : AuditInputs
        The training set and the test sets.
    output : path-like
        Folder of the audit, see `asmk_engine.audit.state`.
    options : AuditOptions, optional
        Candidates, verification, and what is removed.
    extraction : ExtractionOptions, optional
        How images are described to find candidates: local features or global descriptors; the default extractor.
    local : ExtractionOptions, optional
        How candidates of global descriptors are described to verify them; the default extractor.
    threads : int, optional
        Threads, all available by default; the result does not depend on them.
    display : Display, optional
        Where messages and progress are shown; nowhere by default.

    Returns
    -------
    AuditReport

    Raises
    ------
    InputError
        For training sets, test sets and options that cannot be used.
    NotFoundError
        If a file or folder does not exist, or no query can be described.
    DamagedError
        If a table, a ground truth, or the journal of the judgements is damaged.
    StorageError
        If the folder cannot be written, or another run is writing there.
    """
    options, shown, folder = options or AuditOptions(), display or Silent(), Path(output)
    extraction, local, source = extraction or ExtractionOptions(), local or ExtractionOptions(), inputs.training
    refuse_extractors(options, extraction, local)
    training = read_training_set(source.data, source.layout, source.images)
    tests = read_test_sets(inputs.tests, inputs.test_images)
    stage = AuditStage(training, tests.queries, options, extraction, local, folder / WORK, threads, shown)
    found = find_pairs(stage)
    controls = tuple(_control(path, stage, tests) for path in _different(inputs.controls))
    questions = _questions(source, stage, tests, found, controls)
    _draw(folder / PICTURES, questions, stage, found)
    state = AuditState(source, options, questions)
    write_state(folder, state)
    return write_report(folder, state, training)


def _different(paths: Sequence[Path]) -> Sequence[Path]:
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("a control is given twice; give each training set once")
    return paths


def _control(path: Path, stage: AuditStage, tests: QuerySets) -> SetCounts:
    """Count what the same stages find in another training set."""
    training, name = read_training_set(path), path.resolve()
    work = stage.work / f"control-{key_of(str(name))}"
    control = replace(stage, training=training, work=work)
    stage.display.say(f"control {path}")
    return _counts(str(path), control, tests, find_pairs(control))


def _counts(name: str, stage: AuditStage, tests: QuerySets, found: Verified) -> SetCounts:
    queries = Counter(query.test_set for query in tests.queries)
    queries.update(name.split("/")[0] for name in tests.missing)
    return SetCounts(
        name, len(stage.training.images), len(stage.training.counts), {label: queries[label] for label in tests.labels},
        found.verified, len(found.pairs), len({pair.query for pair in found.pairs}), found.chance,
    )  # fmt: skip


def _questions(
    source: TrainingSource, stage: AuditStage, tests: QuerySets, found: Verified, controls: tuple[SetCounts, ...]
) -> Questions:
    names = read_class_names(source.class_names) if source.class_names else {}
    return Questions(
        _counts(str(source.data), stage, tests, found),
        controls,
        tuple(_pair(one, stage.queries, stage.training) for one in found.pairs),
        named_classes(stage.training.counts, names, stage.options.words),
        tests.missing | found.unread,
    )


def _pair(found: VerifiedCandidate, queries: Sequence[AuditQuery], training: AuditedSet) -> AuditPair:
    query = queries[found.query]
    return AuditPair(
        query.name, query.test_set, training.images[found.image].name, training.classes[found.image],
        round(found.score, 6), round(found.evidence, 4), found.match.inliers, found.match.places,
    )  # fmt: skip


def _draw(folder: Path, questions: Questions, stage: AuditStage, found: Verified) -> None:
    both = zip(questions.pairs, found.pairs, strict=True)
    drawings = pair_drawings(both, stage.queries, stage.training)
    drawings += class_drawings(questions.named, stage.training, evenly(stage.queries, SHOWN_QUERIES))
    how = f"{stage.options.verification}, {stage.digest}"
    write_pictures(folder, drawings, how, stage.display, thread_count(stage.threads))
