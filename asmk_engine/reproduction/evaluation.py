"""Evaluation of a task: mAP over queries, or µAP over labels, each with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.evaluation.bootstrap import CONFIDENCE, bootstrap
from asmk_engine.evaluation.classifiers import CLASSIFIERS, Labels, check_weights, classify
from asmk_engine.evaluation.model import Prediction
from asmk_engine.features import FeatureSet
from asmk_engine.iteration import Bar
from asmk_engine.reproduction.datasets import RetrievalTask
from asmk_engine.reproduction.experiment import PRECISION
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.tradeoff.sources import StrongestFeatures

BATCH = 32
QueryFeatures = FeatureSet | StrongestFeatures
ROUNDS = 2000
CHUNK = 1 << 22  # drawn images in memory at a time


@dataclass(frozen=True)
class Measured:
    """A score in percent, its 95 % confidence interval, and the number of queries; NaN without queries."""

    value: float
    low: float
    high: float
    queries: int


def evaluate_ranking(
    task: RetrievalTask, features: QueryFeatures, searcher: Any, progress: Bar, precision: bool = False
) -> dict[str, Measured]:
    """Return mAP by row of the protocol, from full rankings of the database for every query.

    precision  also mP@10, under `medium mP@10` and so on
    """
    if task.ground_truth is None:
        raise ValueError("a task without a ground truth has no rankings to evaluate")
    report = evaluate_index(task.ground_truth, searcher, lambda query: features.read(query.name), progress=progress)
    found = {row: percent(list(one.values()), report.scores[row].queries) for row, one in report.per_query.items()}
    if not precision:
        return found
    at_ten = {row: list(one[10].values()) for row, one in report.precisions.items() if 10 in one}
    return found | {f"{row} {PRECISION}": percent(values, len(values)) for row, values in at_ten.items()}


def percent(values: list[float], queries: int) -> Measured:
    """Return the mean of the scores of queries, 0 to 1, with its interval, in percent."""
    found = bootstrap(values)
    return Measured(100 * found.mean, 100 * found.low, 100 * found.high, queries)


def evaluate_labels(task: RetrievalTask, features: QueryFeatures, searcher: Any, progress: Bar) -> dict[str, Measured]:
    """Return µAP by classifier, `cls1` to `cls3`, of the labels predicted from the nearest images of every query.

    raises  InputError if all images have one label, which `cls3` cannot weigh
    """
    labels, ground_truth = Labels(task.labels or {}), task.answers or {}
    for classifier in CLASSIFIERS.values():
        check_weights(labels, classifier)
    guesses: dict[str, dict[str, Prediction | None]] = {name: {} for name in CLASSIFIERS}
    depth = max(classifier.neighbours for classifier in CLASSIFIERS.values())
    for name, hits in _found(task, features, searcher, depth, progress):
        for key, classifier in CLASSIFIERS.items():
            predictions = classify(hits, labels, classifier)
            guesses[key][name] = predictions[0] if predictions else None
    return {key: micro_interval(ground_truth, found) for key, found in guesses.items()}


def _found(
    task: RetrievalTask, features: QueryFeatures, searcher: Any, depth: int, progress: Bar
) -> Iterator[tuple[str, list[Any]]]:
    """Yield queries and their nearest images, without the query itself."""
    for begin in range(0, len(task.queries), BATCH):
        group = task.queries[begin : begin + BATCH]
        found = searcher.search([features.read(query.name) for query in group], depth + 1)
        for query, hits in zip(group, found, strict=True):
            yield query.name, [hit for hit in hits if hit.name != query.name][:depth]
        progress(begin + len(group), len(task.queries))


def micro_interval(
    ground_truth: Mapping[str, frozenset[str]],
    guesses: Mapping[str, Prediction | None],
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Measured:
    """Return µAP in percent and its percentile interval, from `rounds` bootstrap samples of the images.

    µAP is not a mean over images, so each sample is ranked and evaluated as a whole. The order is that of
    `recognition.evaluate_labels`: by confidence, then by name.
    """
    names = sorted(ground_truth, key=lambda name: (-_confidence(guesses.get(name)), name))
    correct = np.array([_is_right(guesses.get(name), ground_truth[name]) for name in names], bool)
    labelled = np.array([bool(ground_truth[name]) for name in names], bool)
    if not labelled.any():
        return Measured(math.nan, math.nan, math.nan, len(names))
    whole = np.arange(len(names))[None]
    value = float(_micro(whole, correct, labelled)[0])
    generator, chunk = np.random.Generator(np.random.PCG64(seed)), max(1, CHUNK // len(names))
    parts = [
        _micro(np.sort(generator.integers(0, len(names), (count, len(names))), axis=1), correct, labelled)
        for count in (min(chunk, rounds - begin) for begin in range(0, rounds, chunk))
    ]
    found = np.concatenate(parts)
    low, high = np.nanquantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Measured(100 * value, 100 * float(low), 100 * float(high), len(names))


def _confidence(guess: Prediction | None) -> float:
    return -math.inf if guess is None else guess.confidence


def _is_right(guess: Prediction | None, labels: frozenset[str]) -> bool:
    return guess is not None and guess.label in labels


def _micro(draws: np.ndarray, correct: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return µAP [R] of samples [R, n] of images, best first, without prediction last; NaN if none has a label."""
    right = correct[draws]
    precision = np.cumsum(right, axis=1) / np.arange(1, draws.shape[1] + 1)
    count = labelled[draws].sum(axis=1)
    gained = (precision * right).sum(axis=1)
    return np.divide(gained, count, out=np.full(len(draws), math.nan), where=count > 0)


def evaluate_task(
    task: RetrievalTask, features: QueryFeatures, searcher: Any, progress: Bar, precision: bool = False
) -> dict[str, Measured]:
    """Return the scores of a task by row: mAP for retrieval, with mP@10 if asked for, or µAP for recognition."""
    if task.ground_truth is None:
        return evaluate_labels(task, features, searcher, progress)
    return evaluate_ranking(task, features, searcher, progress, precision)
