"""The stages of an experiment; each writes to the work folder what the next one needs, so an interrupted run resumes.

    network        network-1.safetensors
    learn          DATASET.training.features, learn-<16 hex>/
    describe       DATASET.features, DATASET.queries.features
    index          DATASET-by-DATASET.index
    search         search-<16 hex>/
    re-rank        DATASET.EXTRACTOR.features, DATASET.queries.EXTRACTOR.features, pairs-<16 hex>/, rerank-<16 hex>/

Further seeds and numbers of strongest features have their own folders (`DATASET-by-DATASET-seed-1.index`) and share the
feature sets.

Feature sets and indexes are updated image by image in every run; codebooks, codecs and scores are kept by a
`StageCache`. Times, notes and facts for the report are in `journal.json`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.iteration import Display
from asmk_engine.reproduction.comparison import obstacles, rerank_obstacles
from asmk_engine.reproduction.datasets import Datasets, Published, Rehearsed, RetrievalTask
from asmk_engine.reproduction.engines import Engine, make_engine
from asmk_engine.reproduction.evaluation import Measured, QueryFeatures, evaluate_task
from asmk_engine.reproduction.experiment import PublishedRow, Test
from asmk_engine.reproduction.extraction import (
    Describer,
    Settings,
    describe_images,
    describe_queries,
    make_describer,
)
from asmk_engine.reproduction.files import chosen_tests, is_recognition
from asmk_engine.reproduction.journal import Journal
from asmk_engine.reproduction.rerank_networks import RerankFiles, local_extractor, rerank_files, reranked_parts
from asmk_engine.reproduction.rerank_plan import Rerank
from asmk_engine.reproduction.rerank_stage import (
    DISTRACTORS,
    ComparedFeatures,
    RankedTest,
    RerankedTest,
    images_of,
    listed,
    measured_costs,
)
from asmk_engine.reproduction.variants import Variant, combined, deviation
from asmk_engine.storage.folder import WriterLock
from asmk_engine.storage.stage_cache import StageCache, key_of
from asmk_engine.storage.user_files import file_sha256
from asmk_engine.tradeoff.sources import StrongestFeatures


@dataclass(frozen=True)
class ReproductionResult:
    """The result of a run.

    measured  test → row → score, the mean of all seeds
    seconds   stage → seconds, summed over all runs into this folder
    notes     deviations from the experiment, and images that could not be read
    facts     recipes of features, codebooks, sizes of indexes
    by_seed   the scores of every seed, 0 for that of the experiment
    obstacles  test, or `test, reranker` for what re-ranking adds → why its scores are not compared with the published
               ones; empty if they are
    """

    row: PublishedRow
    rehearsal: bool
    tests: tuple[Test, ...]
    measured: dict[str, dict[str, Measured]]
    seconds: dict[str, float]
    notes: tuple[str, ...]
    facts: dict[str, Any]
    obstacles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_seed: dict[int, dict[str, dict[str, Measured]]] = field(default_factory=dict)

    def deviation(self, test: str, row: str) -> float | None:
        """Return the sample standard deviation of a score over the seeds; None for one seed."""
        return deviation([scores[test][row].value for scores in self.by_seed.values()])


def run(row: PublishedRow, datasets: Datasets, settings: Settings, display: Display) -> ReproductionResult:
    """Run every stage of an experiment that is not done yet.

    raises  MismatchError if the folder belongs to another run, StorageError if another process works in it,
            InputError for several seeds where nothing is learned, and the errors of the stages: see `extract_images`,
            `Codebook.train`, `Index.add`
    """
    with started(row, datasets, settings, display) as going:
        return going.all()


@contextmanager
def started(row: PublishedRow, datasets: Datasets, settings: Settings, display: Display) -> Iterator[ReproductionRun]:
    """Open the work folder of a run, for this process only; raises as `run`."""
    journal = Journal(
        settings.work,
        _key(row, datasets, settings),
        [{**_key(row, datasets, settings), "recipe": fingerprint} for fingerprint in row.earlier],
    )
    with WriterLock(settings.work):
        yield ReproductionRun(row, datasets, settings, display, journal)


def _key(row: PublishedRow, datasets: Datasets, settings: Settings) -> dict[str, Any]:
    """Return what a work folder belongs to, under the names that its journal stores."""
    if isinstance(datasets, Rehearsed):
        place = [str(datasets.photos.resolve()), str(datasets.ground_truth.resolve())]
    else:
        place = [str(datasets.data.resolve())] if isinstance(datasets, Published) else []
    weights = [file_sha256(path) for path in settings.weights[: len(row.describe)]]  # not those of re-ranking
    return {"recipe": row.fingerprint, "folder of photographs": place, "file of weights": weights}


class ReproductionRun:
    """A run in progress."""

    def __init__(
        self, row: PublishedRow, datasets: Datasets, settings: Settings, display: Display, journal: Journal
    ) -> None:
        self.row, self.datasets, self.settings, self.display = row, datasets, settings, display
        self.journal, self.cache = journal, StageCache(settings.work)
        self._tasks: dict[str, RetrievalTask] = {}

        self._features: dict[str, FeatureSet] = {}

    @functools.cached_property
    def describer(self) -> Describer:
        """The extractors, with their networks."""
        with self._stage("network"):
            describer = make_describer(self.row, self.settings, self._training_images, self.display)
        self._note_describer(describer)
        return describer

    @property
    def tests(self) -> tuple[Test, ...]:
        """The tests to run."""
        return chosen_tests(self.row, self.settings.distractors, self.settings.rehearsal)

    def all(self) -> ReproductionResult:
        """Run every stage with every seed, and return the result."""
        self._check_seeds()
        reranked_parts(self.row, self.settings)  # an unknown name is told before any work
        by_seed = {seed: self.scores(Variant(seed)) for seed in range(self.settings.seeds)}
        measured = {
            test: {row: combined([scores[test][row] for scores in by_seed.values()]) for row in rows}
            for test, rows in by_seed[0].items()
        }
        self.journal.write()
        facts = dict(self.journal.facts)
        return ReproductionResult(
            self.row,
            self.settings.rehearsal,
            self.tests,
            measured,
            dict(self.journal.seconds),
            tuple(self.journal.notes),
            facts,
            {
                **{test.name: obstacles(self.row, test, self.settings, facts) for test in self.tests},
                **{
                    f"{test.name}, {part.title}": rerank_obstacles(self.row, part, self.settings)
                    for test in self.tests
                    for part in reranked_parts(self.row, self.settings)
                },
            },
            by_seed,
        )

    def _check_seeds(self) -> None:
        if self.settings.seeds > 1 and not self.engine(Variant()).learns:
            raise InputError(
                f"{self.row.name} learns nothing, so {self.settings.seeds} seeds would all measure the same; "
                "leave --seeds out"
            )

    def engine(self, variant: Variant) -> Engine:
        """Return the engine of a variant."""
        return make_engine(self.row, self.describer, self.settings, self.display, variant)

    def scores(self, variant: Variant) -> dict[str, dict[str, Measured]]:
        """Return test → row → score of one variant, after the stages before it."""
        engine = self.engine(variant)
        return {test.name: self._test(test, engine) for test in self.tests}

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

    def _test(self, test: Test, engine: Engine) -> dict[str, Measured]:
        learned = self.learned(test, engine)
        kept = self._learn(learned, engine) if learned else None
        for dataset in filter(None, (test.dataset, test.distractors)):
            self._index(dataset, learned, kept, engine)
        with self._stage(f"describe the queries of {test.dataset}"):
            place = self.settings.work / f"{test.dataset}.queries.features"
            queries = describe_queries(self.describer.whole, self._task(test.dataset).queries, place, self.display)
        with self._stage(f"search {test.name}{engine.variant.words}"):
            found = self._evaluated(test, learned, _strongest(queries, engine.variant), engine)
        for part in reranked_parts(self.row, self.settings):
            found |= self._reranked(test, learned, queries, engine, part)
        return found

    def learned(self, test: Test, engine: Engine) -> str:
        """Return the name of the dataset to learn from, or an empty string."""
        if not engine.learns or self.row.train is None:
            return ""
        return test.train or self.row.train.dataset

    def _learn(self, learned: str, engine: Engine) -> Path:
        """Return the folder of the codebook or codec learned from a dataset."""
        seed = engine.variant.seed
        inputs = {"run": self.journal.key, "dataset": learned, **({"seed": seed} if seed else {})}
        name = f"learned from {learned}{engine.variant.of_seed(', seed ')}"

        def make(folder: Path) -> dict[str, Any]:
            if seed or not engine.take_over(learned, folder):
                engine.learn(self._training_features(learned), folder)
            return {"facts": engine.facts(folder), "notes": engine.adaptations}

        with self._stage(name.replace("learned", "learn")):
            done = self.cache.stage("learn", inputs, make)
            self.journal.note(*done.numbers["notes"])
            self.journal.facts[name] = done.numbers["facts"]
        place = self._training_place(learned)
        if part_names(place):  # not where the codebook is that of an earlier version
            self.journal.facts[f"images of {learned} to learn from"] = len(FeatureSet.open(place))
        return done.path

    def _training_place(self, learned: str) -> Path:
        return self.settings.work / f"{learned}.training.features"

    def _training_features(self, learned: str) -> FeatureSet:
        train, describer = self.row.train, self.describer
        images = self.datasets.photographs(learned, train.images if train else 0)
        parts = [describer.training] if describer.training else describer.parts
        place = self._training_place(learned)
        features, failed = describe_images(parts, images, place, self.settings.workers, self.display)
        self._note_failed(learned, failed)
        return features

    def _described(self, dataset: str) -> FeatureSet:
        """Return the features of the images of a dataset, extracting missing ones; once in a run."""
        if dataset not in self._features:
            with self._stage(f"describe {dataset}"):
                images, place = self._database(dataset), self.settings.work / f"{dataset}.features"
                parts, workers = self.describer.parts, self.settings.workers
                self._features[dataset], failed = describe_images(parts, images, place, workers, self.display)
                self._note_failed(dataset, failed)
        return self._features[dataset]

    def _index(self, dataset: str, learned: str, kept: Path | None, engine: Engine) -> None:
        features, words = self._described(dataset), engine.variant.words
        with self._stage(f"index {dataset}{words}"):
            facts = engine.index(_strongest(features, engine.variant), dataset, learned, kept)
            self.journal.facts[f"index of {dataset}{words}"] = facts

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
            self._tasks[dataset] = self.datasets.task(dataset, is_recognition(dataset))
        return self._tasks[dataset]

    def _reranked(
        self, test: Test, learned: str, queries: FeatureSet, engine: Engine, part: Rerank
    ) -> dict[str, Measured]:
        """Return the scores of a test whose rankings are ranked anew by a part of the experiment."""
        files = rerank_files(self.row, part, self.settings, self.describer)
        names = {"": test.dataset} | ({DISTRACTORS: test.distractors} if test.distractors else {})
        task, features = self._task(test.dataset), {mark: self._described(name) for mark, name in names.items()}
        images = {mark: self._database(name) for mark, name in names.items()}
        ranked = RankedTest(task, engine.open(test, learned), queries, images, features)
        local = self._local_features(ranked, part, files, names)
        inputs = self._search_inputs(test, learned, queries, engine) | {
            "rerank": dataclasses.asdict(part) | {"incomparable": []},
            "networks": files.sums,
        }

        def make(folder: Path) -> dict[str, Any]:
            kept = self.settings.work / f"pairs-{key_of(inputs)}"
            scores, costs, failed = RerankedTest(ranked, part, files, local, self.settings).run(kept, self.display)
            return {"scores": _as_json(scores), "costs": costs, "failed": failed}

        what = f"{test.name}{engine.variant.words} by {part.title}"
        with self._stage(f"re-rank {what}"):
            done = self.cache.stage("rerank", inputs, make).numbers
        self.journal.note(*done["failed"])
        self.journal.facts[f"re-ranking of {what}"] = self._rerank_costs(done["costs"], part, local, names)
        return _from_json(done["scores"])

    def _local_features(
        self, ranked: RankedTest, part: Rerank, files: RerankFiles, names: Mapping[str, str]
    ) -> ComparedFeatures | None:
        """Describe the queries of a test, and the images that are compared with them, where a part needs it."""
        if part.by == "cvnet":
            return None
        extractor = local_extractor(part, files, self.settings)
        if extractor is None:
            return ComparedFeatures(self.describer.whole, ranked.queries, ranked.features)
        most = max(images_of(ranked, part, self.settings).values())
        work, compared, found = self.settings.work, ranked.compared(most), {}
        for mark, dataset in names.items():
            with self._stage(f"describe {dataset} by {part.extractor}"):
                place, wanted = work / f"{dataset}.{part.extractor}.features", compared[mark]
                images = listed(ranked.images[mark], wanted)
                found[mark], failed = describe_images(
                    [extractor], images, place, self.settings.workers, self.display, allow_none=True
                )
                self._note_failed(dataset, failed)
        with self._stage(f"describe the queries of {names['']} by {part.extractor}"):
            place = work / f"{names['']}.queries.{part.extractor}.features"
            queries = describe_queries(extractor, ranked.task.queries, place, self.display)
        return ComparedFeatures(extractor, queries, found)

    def _rerank_costs(
        self, sums: Mapping[str, float], part: Rerank, local: ComparedFeatures | None, names: Mapping[str, str]
    ) -> dict[str, float]:
        stages = [f"describe {dataset} by {part.extractor}" for dataset in names.values()] if part.extractor else []
        seconds = sum(self.journal.seconds.get(stage, 0.0) for stage in stages)
        return measured_costs(sums, local.images.values() if local else (), seconds)

    def _evaluated(self, test: Test, learned: str, queries: QueryFeatures, engine: Engine) -> dict[str, Measured]:
        def make(folder: Path) -> dict[str, Any]:
            searcher = engine.open(test, learned)
            with self.display.bar("search", "queries") as progress:
                task = self._task(test.dataset)
                return _as_json(evaluate_task(task, queries, searcher, progress, test.has_precision))

        inputs = self._search_inputs(test, learned, queries, engine)
        if self._task(test.dataset).labels is not None:  # scores that were kept before had other weights in cls3
            inputs["frequency of a label"] = "relative"
        if test.has_precision:
            inputs["precision"] = "mP@10"
        return _from_json(self.cache.stage("search", inputs, make).numbers)

    def _search_inputs(self, test: Test, learned: str, queries: QueryFeatures, engine: Engine) -> dict[str, Any]:
        """Return what the rankings of a test depend on."""
        places = [engine.place(dataset, learned) for dataset in filter(None, (test.dataset, test.distractors))]
        return {
            "run": self.journal.key,
            "test": test.name,
            "indexes": [_commit(place) for place in places],
            "queries": [[name, queries.source(name).fingerprint] for name in queries.names],
        }


def _strongest(features: FeatureSet, variant: Variant) -> QueryFeatures:
    """Return the strongest features of the same images, or all for a variant without a limit."""
    if not variant.strongest:
        return features
    return StrongestFeatures(features, variant.strongest)


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
