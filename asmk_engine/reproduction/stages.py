"""The stages of an experiment; each writes to the work folder what the next one needs, so an interrupted run resumes.

    network        network-1.safetensors
    learn          DATASET.training.features, learn-<16 hex>/
    describe       DATASET.features, DATASET.queries.features
    index          DATASET-by-DATASET.index
    search         search-<16 hex>/

Feature sets and indexes are updated image by image in every run; codebooks, codecs and scores are kept by a
`StageCache`. Times, notes and facts for the report are in `journal.json`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.features import FeatureSet
from asmk_engine.iteration import Display
from asmk_engine.reproduction.datasets import Datasets, Published, Rehearsed, RetrievalTask
from asmk_engine.reproduction.engines import Engine, make_engine
from asmk_engine.reproduction.evaluation import Measured, evaluate_task
from asmk_engine.reproduction.experiment import PublishedRow, Test
from asmk_engine.reproduction.extraction import (
    Describer,
    Settings,
    describe_images,
    describe_queries,
    make_describer,
)
from asmk_engine.reproduction.files import chosen_tests, dataset_of
from asmk_engine.reproduction.journal import Journal
from asmk_engine.storage.folder import WriterLock
from asmk_engine.storage.stage_cache import StageCache
from asmk_engine.storage.user_files import file_sha256


@dataclass(frozen=True)
class ReproductionResult:
    """The result of a run.

    measured  test → row → score
    seconds   stage → seconds, summed over all runs into this folder
    notes     deviations from the experiment, and images that could not be read
    facts     recipes of features, codebooks, sizes of indexes
    """

    row: PublishedRow
    rehearsal: bool
    tests: tuple[Test, ...]
    measured: dict[str, dict[str, Measured]]
    seconds: dict[str, float]
    notes: tuple[str, ...]
    facts: dict[str, Any]


def run(row: PublishedRow, datasets: Datasets, settings: Settings, display: Display) -> ReproductionResult:
    """Run every stage of an experiment that is not done yet.

    raises  MismatchError if the folder belongs to another run, StorageError if another process works in it, and
            the errors of the stages: see `extract_images`, `Codebook.train`, `Index.add`
    """
    key = _key(row, datasets, settings)
    journal = Journal(settings.work, key, [{**key, "recipe": fingerprint} for fingerprint in row.earlier])
    with WriterLock(settings.work):
        return _ReproductionRun(row, datasets, settings, display, journal).all()


def _key(row: PublishedRow, datasets: Datasets, settings: Settings) -> dict[str, Any]:
    """Return what a work folder belongs to, under the names that its journal stores."""
    if isinstance(datasets, Rehearsed):
        place = [str(datasets.photos.resolve()), str(datasets.ground_truth.resolve())]
    else:
        place = [str(datasets.data.resolve())] if isinstance(datasets, Published) else []
    weights = [file_sha256(path) for path in settings.weights]
    return {"recipe": row.fingerprint, "folder of photographs": place, "file of weights": weights}


class _ReproductionRun:
    """A run in progress."""

    def __init__(
        self, row: PublishedRow, datasets: Datasets, settings: Settings, display: Display, journal: Journal
    ) -> None:
        self.row, self.datasets, self.settings, self.display = row, datasets, settings, display
        self.journal, self.cache = journal, StageCache(settings.work)
        self._tasks: dict[str, RetrievalTask] = {}

    def all(self) -> ReproductionResult:
        """Run every stage, and return the result."""
        with self._stage("network"):
            describer = make_describer(self.row, self.settings, self._training_images, self.display)
        self._note_describer(describer)
        engine = make_engine(self.row, describer, self.settings, self.display)
        tests = chosen_tests(self.row, self.settings.distractors, self.settings.rehearsal)
        measured = {test.name: self._test(test, describer, engine) for test in tests}
        journal = self.journal
        self.journal.write()
        return ReproductionResult(self.row, self.settings.rehearsal, tests, measured, dict(journal.seconds),
                       tuple(journal.notes), dict(journal.facts))  # fmt: skip

    def _stage(self, name: str) -> Any:
        self.display.say(f"{self.row.name}: {name}")
        return self.journal.stage(name)

    def _note_describer(self, describer: Describer) -> None:
        self.journal.facts["features"] = [str(part.recipe) for part in describer.parts]
        if describer.stand_ins:
            self.journal.note("networks with random weights, made for this rehearsal")

    def _training_images(self) -> Any:
        train = self.row.train
        names = [train.dataset if train else self.row.tests[0].dataset]
        return self.datasets.photographs(names[0], train.images if train else 0)

    def _test(self, test: Test, describer: Describer, engine: Engine) -> dict[str, Measured]:
        learned = self._learned(test, engine)
        kept = self._learn(learned, describer, engine) if learned else None
        for dataset in filter(None, (test.dataset, test.distractors)):
            self._index(dataset, learned, kept, describer, engine)
        with self._stage(f"describe the queries of {test.dataset}"):
            place = self.settings.work / f"{test.dataset}.queries.features"
            queries = describe_queries(describer.whole, self._task(test.dataset).queries, place, self.display)
        with self._stage(f"search {test.name}"):
            return self._evaluated(test, learned, queries, engine)

    def _learned(self, test: Test, engine: Engine) -> str:
        """Return the name of the dataset to learn from, or an empty string."""
        if not engine.learns or self.row.train is None:
            return ""
        return test.train or self.row.train.dataset

    def _learn(self, learned: str, describer: Describer, engine: Engine) -> Path:
        """Return the folder of the codebook or codec learned from a dataset."""

        def make(folder: Path) -> dict[str, Any]:
            if not engine.take_over(learned, folder):
                engine.learn(self._training_features(learned, describer), folder)
            return {"facts": engine.facts(folder), "notes": engine.adaptations}

        with self._stage(f"learn from {learned}"):
            done = self.cache.stage("learn", {"run": self.journal.key, "dataset": learned}, make)
            self.journal.note(*done.numbers["notes"])
            self.journal.facts[f"learned from {learned}"] = done.numbers["facts"]
        return done.path

    def _training_features(self, learned: str, describer: Describer) -> FeatureSet:
        train = self.row.train
        images = self.datasets.photographs(learned, train.images if train else 0)
        parts = [describer.training] if describer.training else describer.parts
        place = self.settings.work / f"{learned}.training.features"
        features, failed = describe_images(parts, images, place, self.settings.workers, self.display)
        self._note_failed(learned, failed)
        return features

    def _index(self, dataset: str, learned: str, kept: Path | None, describer: Describer, engine: Engine) -> None:
        with self._stage(f"describe {dataset}"):
            images = self._database(dataset)
            place = self.settings.work / f"{dataset}.features"
            features, failed = describe_images(describer.parts, images, place, self.settings.workers, self.display)
            self._note_failed(dataset, failed)
        with self._stage(f"index {dataset}"):
            self.journal.facts[f"index of {dataset}"] = engine.index(features, dataset, learned, kept)

    def _note_failed(self, dataset: str, failed: dict[str, str]) -> None:
        if failed:
            name, reason = next(iter(failed.items()))
            self.journal.note(f"{dataset}: {len(failed)} photographs could not be read, such as {name!r}: {reason}")

    def _database(self, dataset: str) -> Any:
        if any(test.dataset == dataset for test in self.row.tests):
            return self._task(dataset).database
        return self.datasets.photographs(dataset)

    def _task(self, dataset: str) -> RetrievalTask:
        if dataset not in self._tasks:
            self._tasks[dataset] = self.datasets.task(dataset, dataset_of(dataset).kind == "landmarks")
        return self._tasks[dataset]

    def _evaluated(self, test: Test, learned: str, queries: FeatureSet, engine: Engine) -> dict[str, Measured]:
        def make(folder: Path) -> dict[str, Any]:
            searcher = engine.open(test.dataset, test.distractors, learned)
            with self.display.bar("search", "queries") as progress:
                return _as_json(evaluate_task(self._task(test.dataset), queries, searcher, progress))

        places = [engine.place(dataset, learned) for dataset in filter(None, (test.dataset, test.distractors))]
        inputs = {
            "run": self.journal.key,
            "test": test.name,
            "indexes": [_commit(place) for place in places],
            "queries": [[name, queries.source(name).fingerprint] for name in queries.names],
        }
        return _from_json(self.cache.stage("search", inputs, make).numbers)


def _commit(place: Path) -> tuple[str, int]:
    """Return the identity of an index and the number of its last commit."""
    from asmk_engine.search.opening import open_index

    manifest = open_index(place).snapshot.manifest
    return manifest.identity, manifest.commit


def _as_json(found: dict[str, Measured]) -> dict[str, list[float | None]]:
    """Return scores as JSON values, with None for NaN."""
    return {
        row: [None if math.isnan(value) else value for value in dataclasses.astuple(one)] for row, one in found.items()
    }


def _from_json(rows: dict[str, list[Any]]) -> dict[str, Measured]:
    def number(value: Any) -> Any:
        return math.nan if value is None else value

    return {row: Measured(*map(number, values)) for row, values in rows.items()}
