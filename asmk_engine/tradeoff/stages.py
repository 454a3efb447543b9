"""The stages of a configuration: learn, index, search, evaluate; the work folder keeps each by a key of its inputs.

    local features       codebook ──▶ index ──▶ search ──▶ evaluation
    global descriptors              vectors ──▶ search ──▶ evaluation    (the codec is learned with the index)
    fused       codebook or vectors of each part ──▶ fused ──▶ search ──▶ evaluation       (see `fused_stages`)

`search` measures the cost of a query, `evaluation` the accuracy. Configurations share common stages: one codebook is
used for every n and every number of assignments.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from asmk_engine.codebooks import Codebook, choose_words
from asmk_engine.codebooks.graph import is_linked_for
from asmk_engine.codebooks.kmeans import kmeans
from asmk_engine.codebooks.recall import HELD_OUT
from asmk_engine.codebooks.sample import sample_and_hold_out
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.features import Features, FeatureSet, FeatureSource, descriptor_count, label
from asmk_engine.flat.codec import CodecOptions
from asmk_engine.flat.codec_training import learn_projection, train_codec
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.signatures import Signature
from asmk_engine.iteration import evenly
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.storage.stage_cache import Stage, StageCache
from asmk_engine.tradeoff import measure
from asmk_engine.tradeoff.configurations import GlobalConfiguration, LocalConfiguration, PartConfiguration, Sweep
from asmk_engine.tradeoff.extrapolate import dense_bytes_per_image
from asmk_engine.tradeoff.sources import FeatureSupply, StrongestFeatures, ground_truth_key, queries_key

VERSION = 3  # of the measurements
CODEBOOK, INDEX, COPIES = "codebook.h5", "index", "copies"

SearcherType = TypeVar("SearcherType")
FeaturesType = TypeVar("FeaturesType")
QueryType = TypeVar("QueryType")


@dataclass(frozen=True)
class Measurement:
    """A configuration measured with one seed: seconds of learning, and the numbers of index, search and evaluation."""

    learning_seconds: float
    index: dict[str, Any]
    search: dict[str, Any]
    evaluation: dict[str, Any]


@dataclass(frozen=True)
class PreparedQueries(Generic[SearcherType, FeaturesType, QueryType]):
    """The searcher of a configuration, and the features and the input of the searcher for each query."""

    searcher: SearcherType
    features: list[FeaturesType]
    inputs: list[QueryType]


def measure_configuration(
    cache: StageCache, source: FeatureSupply, configuration: PartConfiguration, sweep: Sweep, seed: int
) -> Measurement:
    """Run the stages of a configuration of one source with one seed; if a stage raises, those before it are kept."""
    if isinstance(configuration, LocalConfiguration):
        learned = codebook_stage(cache, source, configuration, sweep, seed)
        index = _index(cache, source, configuration, learned)
        signed = functools.cache(functools.partial(_signed, source, configuration, index))
        search = _search(cache, source, configuration, index, signed)
        evaluation = evaluation_stage(cache, source.ground_truth, search, signed)
        seconds = learned.numbers["seconds"]
    else:
        index = vectors_stage(cache, source, configuration, seed)
        described = functools.cache(functools.partial(_described, source, index))
        search = _vector_search(cache, source, index, described)
        evaluation = evaluation_stage(cache, source.ground_truth, search, described)
        seconds = index.numbers["learning_seconds"]
    return Measurement(seconds, index.numbers, search.numbers, evaluation.numbers)


def codebook_stage(
    cache: StageCache, source: FeatureSupply, configuration: LocalConfiguration, sweep: Sweep, seed: int
) -> Stage:
    """Train the codebook of a configuration."""
    inputs = {
        "features": source.learn_key,
        "words": configuration.words,
        "bits": configuration.bits,
        "rounds": sweep.rounds,
        "training_per_word": sweep.training_per_word,
        "seed": seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        features = FeatureSet.open(source.learn_on)
        codebook, seconds = measure.timed(
            lambda: train_codebook(features, configuration.words, configuration.bits, seed, sweep)
        )
        codebook.save(folder / CODEBOOK)
        return {"seconds": seconds, **codebook.training}

    return cache.stage("codebook", inputs, make)


def train_codebook(features: FeatureSource, words: int, bits: int, seed: int, sweep: Sweep) -> Codebook:
    """Train a codebook for codes of `bits` bits, after projection on as many principal directions of the descriptors.

    Raw descriptors are whitened, as in `Codebook.train`; descriptors that a network has reduced are only rotated, and
    unchanged if there are as many bits as dimensions.
    """
    if bits == features.dim:
        rounds, per_word = sweep.rounds, sweep.training_per_word
        return Codebook.train(features, words, seed=seed, rounds=rounds, training_per_word=per_word)
    count = choose_words(words, descriptor_count(features), label(features))
    apart = HELD_OUT if is_linked_for("auto", count) else 0
    rng = np.random.default_rng(seed)
    sample, held_out = sample_and_hold_out(features, count * sweep.training_per_word, apart, rng)
    mean, projection = learn_projection(sample, bits, whiten=not features.recipe.is_reduced)
    projected = np.ascontiguousarray((sample - mean) @ projection.T)
    centroids, history = kmeans(projected, count, rounds=sweep.rounds, seed=seed)
    training = {"descriptors": len(sample), "seed": seed, "distortion": history[-1].distortion}
    return Codebook(mean, projection, centroids, features.recipe, training).with_assignment("auto", held_out)


def _index(cache: StageCache, source: FeatureSupply, configuration: LocalConfiguration, learned: Stage) -> Stage:
    inputs = {"codebook": learned.key, "features": source.key, "strongest": configuration.strongest}

    def make(folder: Path) -> dict[str, Any]:
        index = Index.create(folder / INDEX, Codebook.open(learned.path / CODEBOOK))
        features = StrongestFeatures.of(source.paths.features, configuration.strongest)
        _, seconds = measure.timed(lambda: (index.add(features), index.merge()))
        segment = index.snapshot.segments[0]
        return {
            "seconds": seconds,
            "images": index.images,
            "bytes": measure.disk_bytes(index),
            "words_per_image": segment.postings / segment.images,
            "dense_bytes_per_image": dense_bytes_per_image(segment),
        }

    return cache.stage("index", inputs, make)


def vectors_stage(cache: StageCache, source: FeatureSupply, configuration: GlobalConfiguration, seed: int) -> Stage:
    """Learn the codec of a configuration and index the vectors."""
    options = CodecOptions(pca=configuration.pca, pq=configuration.pq, seed=seed if configuration.needs_seeds else 0)
    inputs = {
        "features": source.key,
        "learned": source.learn_key,
        "pca": configuration.pca,
        "pq": configuration.pq,
        "seed": options.seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        codec, learning = measure.timed(lambda: train_codec(FeatureSet.open(source.learn_on), options))
        index = GlobalIndex.create(folder / INDEX, codec)
        features = FeatureSet.open(source.paths.features)
        _, seconds = measure.timed(lambda: (index.add(features), index.merge()))
        sizes = measure.disk_bytes(index)
        return {
            "seconds": seconds,
            "learning_seconds": learning,
            "images": index.images,
            "bytes": sizes,
            "words_per_image": None,
            "dense_bytes_per_image": sizes["segments"] / index.images,
        }

    return cache.stage("vectors", inputs, make)


def _signed(
    source: FeatureSupply, configuration: LocalConfiguration, index: Stage
) -> PreparedQueries[Searcher, Features, Signature]:
    searcher = Searcher(Index.open(index.path / INDEX), multiple_assignment=configuration.multiple_assignment)
    features = [found for _, found in source.queries(configuration.strongest)]
    return PreparedQueries(searcher, features, [searcher.sign(one) for one in features])


def _described(source: FeatureSupply, index: Stage) -> PreparedQueries[GlobalSearcher, Features, Features]:
    features = [found for _, found in source.queries(1)]
    return PreparedQueries(GlobalSearcher(GlobalIndex.open(index.path / INDEX)), features, features)


def _search(
    cache: StageCache,
    source: FeatureSupply,
    configuration: LocalConfiguration,
    index: Stage,
    signed: Callable[[], PreparedQueries[Searcher, Features, Signature]],
) -> Stage:
    inputs = {"index": index.key, "queries": queries_key(source), "assignments": configuration.multiple_assignment}

    def make(folder: Path) -> dict[str, Any]:
        queries, opened = signed(), Index.open(index.path / INDEX)
        timed = evenly(queries.inputs, measure.TIMED_QUERIES)
        signing = [
            functools.partial(queries.searcher.sign, features)
            for features in evenly(queries.features, measure.TIMED_QUERIES)
        ]
        copied, copies = measure.copied_index(folder / COPIES, opened)
        many = measure.scoring_milliseconds(
            Searcher(copied, multiple_assignment=configuration.multiple_assignment), timed
        )
        shutil.rmtree(folder / COPIES)
        postings = measure.touched(opened, timed)
        return {
            "queries": len(queries.inputs),
            "assignment_milliseconds": measure.milliseconds(signing),
            "scoring_milliseconds": measure.scoring_milliseconds(queries.searcher, timed),
            "words_per_query": float(np.mean([len(one) for one in queries.inputs])),
            "postings_per_query": postings,
            "nanoseconds_per_posting": 1e6 * many / max(copies * postings, 1),
            "nanoseconds_per_image": 1e6 * many / copied.images,
        }

    return cache.stage("search", inputs, make)


def _vector_search(
    cache: StageCache,
    source: FeatureSupply,
    index: Stage,
    described: Callable[[], PreparedQueries[GlobalSearcher, Features, Features]],
) -> Stage:
    inputs = {"vectors": index.key, "queries": queries_key(source)}

    def make(folder: Path) -> dict[str, Any]:
        queries, opened = described(), GlobalIndex.open(index.path / INDEX)
        descriptors = [features.descriptors for features in evenly(queries.features, measure.TIMED_QUERIES)]
        vectors = opened.codec.apply(np.concatenate(descriptors))
        copied, _ = measure.copied_vectors(folder / COPIES, opened)
        many = measure.vector_milliseconds(GlobalSearcher(copied), vectors)
        shutil.rmtree(folder / COPIES)
        return {
            "queries": len(queries.features),
            "assignment_milliseconds": measure.codec_milliseconds(opened.codec, descriptors),
            "scoring_milliseconds": measure.vector_milliseconds(queries.searcher, vectors),
            "nanoseconds_per_image": 1e6 * many / copied.images,
        }

    return cache.stage("search", inputs, make)


def evaluation_stage(
    cache: StageCache, ground_truth: GroundTruth, search: Stage, prepare: Callable[[], PreparedQueries[Any, Any, Any]]
) -> Stage:
    """Evaluate the rankings of all queries."""
    inputs = {"search": search.key, "truth": ground_truth_key(ground_truth), "rows": "all"}

    def make(folder: Path) -> dict[str, Any]:
        queries = prepare()
        names = (query.name for query in ground_truth.queries)
        inputs_by_name = dict(zip(names, queries.inputs, strict=True))
        report = evaluate_index(ground_truth, queries.searcher, lambda query: inputs_by_name[query.name])
        row = report.main
        means = {name: one.mean_average_precision for name, one in report.scores.items() if one.queries}
        return {"row": row, "rows": means, "per_query": report.per_query[row]}

    return cache.stage("evaluation", inputs, make)
