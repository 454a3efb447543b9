"""Validation of networks that compare pairs: the mAP of a ranking by global descriptors, and after its first images
were ranked anew by the network, for each row of a protocol without its junk, as `evaluate --reranker` does.

The training does not change the global descriptors, so they are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.names import match_names, resolve
from asmk_engine.evaluation.protocol import Report
from asmk_engine.features import Features, FeatureSet
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.images.decoding import view_image
from asmk_engine.indexes.answers import Hit, RankedImages
from asmk_engine.iteration import Display
from asmk_engine.networks.reranking.image_tokens import ScaleUnit
from asmk_engine.networks.reranking.transformer_pairs import PairTransformer
from asmk_engine.reranking.cvnet import CvnetScorer, CvnetScoring
from asmk_engine.reranking.described import Kinds, PairImages
from asmk_engine.reranking.evaluation import evaluate_reranked
from asmk_engine.reranking.ranking import PairReranker, PairReranking
from asmk_engine.reranking.transformer_scorer import TransformerScorer, by_logits
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.training.rerank_trainee import RerankTrainee
from asmk_engine.training.validation import main_score
from asmk_engine.training.validation_images import ValidationImages, check_positives, digest_of

Describe = Callable[[Display], tuple[np.ndarray, np.ndarray]]
"""Returns the unit vectors [n, D] of the images of a ground truth, and those [q, D] of its queries, in their order."""


class VectorRanker:
    """Ranks images by the inner products of vectors; equal ones are in byte order of the names.

    names    of the images
    vectors  [n, D] float32, of the images
    """

    def __init__(self, names: Sequence[str], vectors: np.ndarray) -> None:
        order = sorted(range(len(names)), key=lambda number: names[number].encode("utf-8", "surrogatepass"))
        self._names, self._vectors = [names[number] for number in order], vectors[order]

    def rank(self, query: np.ndarray) -> RankedImages:
        """Return all images as numbers for the vector [D] of a query, the best first."""
        scores = (self._vectors @ query).astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        return RankedImages(order, scores[order])

    def search(self, query: np.ndarray, top: int | None) -> list[Hit]:
        """Return the `top` best images, all if None."""
        found = self.rank(query)
        pairs = zip(found.numbers[:top].tolist(), found.scores[:top].tolist(), strict=True)
        return [Hit(self._names[number], score) for number, score in pairs]

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Return name → number as used by `rank`, for those names that are images."""
        numbers = {name: number for number, name in enumerate(self._names)}
        return {name: numbers[name] for name in names if name in numbers}


class PairValidation:
    """A validation of a training, see `task.EpochValidation`, by pairs.

    ground_truth  with the names of the images
    describe      computes the vectors before the first epoch
    reranker      makes of a network file what ranks the first images anew
    about         what else determines the scores, as JSON values
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        describe: Describe,
        reranker: Callable[[Path], PairReranker],
        about: dict[str, Any],
    ) -> None:
        self.ground_truth, self._describe, self._reranker, self._about = ground_truth, describe, reranker, about
        self._ranker: VectorRanker | None = None
        self._queries: dict[str, np.ndarray] = {}
        self._before: float | None = None

    def described(self) -> dict[str, Any]:
        """Return what determines the scores, with the sha256 of the ground truth."""
        return {**self._about, "ground_truth": digest_of(self.ground_truth)}

    def report(self, weights: Path, name: str, reporter: Display) -> Report:
        """Evaluate the rankings whose first images the network of a file has ranked anew."""
        ranker, reranker = self._prepared(reporter), self._reranker(weights)
        with reporter.bar("validate", "queries") as progress:
            return evaluate_reranked(self.ground_truth, ranker, self._query, reranker=reranker, progress=progress)

    def global_score(self, weights: Path, reporter: Display) -> float | None:
        """Return the mAP of the global descriptors alone, which is the same in every epoch."""
        ranker = self._prepared(reporter)
        if self._before is None:
            self._before = main_score(evaluate_index(self.ground_truth, ranker, self._query))
        return self._before

    def _query(self, query: GroundTruthQuery) -> np.ndarray:
        return self._queries[query.name]

    def _prepared(self, reporter: Display) -> VectorRanker:
        if self._ranker is None:
            images, queries = self._describe(reporter)
            names = [query.name for query in self.ground_truth.queries]
            self._ranker = VectorRanker(self.ground_truth.images, images)
            self._queries = dict(zip(names, queries, strict=True))
        return self._ranker


@dataclass(frozen=True)
class PhotographPairs:
    """How photographs are compared in a validation; the score of a pair is that of `evaluate --reranker cvnet`.

    max_side   larger images are shrunk until their longer side is this many pixels
    first      number of images from the first that are ranked anew
    precision  of the networks
    device     name of `choose_device`
    """

    max_side: int = 1024
    first: int = 100
    precision: str = "fp32"
    device: str = "auto"


def photograph_validation(images: ValidationImages, trainee: RerankTrainee, options: PhotographPairs) -> PairValidation:
    """Return the validation of CVNet-Rerank on photographs; queries are cut to their regions.

    trainee  describes images by what also chooses hard negatives
    """

    def describe(reporter: Display) -> tuple[np.ndarray, np.ndarray]:
        regions: list[tuple[str, Any]] = [(name, None) for name in images.ground_truth.images]
        regions += [(query.name, query.box) for query in images.ground_truth.queries]
        vectors = []
        with reporter.bar("describe for validation", "images") as progress:
            for done, (name, box) in enumerate(regions, start=1):
                pixels = view_image(images.path(name), options.max_side, box).pixels
                vectors.append(trainee.vector(pixels, options.precision).cpu().numpy())
                progress(done, len(regions))
        whole = np.array(vectors, np.float32)
        return whole[: len(images.ground_truth.images)], whole[len(images.ground_truth.images) :]

    def reranker(weights: Path) -> PairReranker:
        scoring = CvnetScoring(weights, options.max_side, precision=options.precision, device=options.device)
        return PairReranker(CvnetScorer(scoring, images.path), PairReranking(options.first))

    about = {"max_side": options.max_side, "rerank": options.first, "precision": options.precision}
    return PairValidation(images.ground_truth, describe, reranker, about)


def feature_validation(
    path: Path, local: FeatureSet, whole: FeatureSet, unit: ScaleUnit, first: int = 100, device: str = "auto"
) -> PairValidation:
    """Return the validation of a re-ranking transformer on feature sets.

    path          of a ground truth, see `read_ground_truth`
    local, whole  local features and global descriptors of its images and, under their names, of its queries: of their
                  regions, if they were described so
    unit          how scales of features in pixels become scale numbers
    first         number of images from the first that are ranked anew

    Raises NotFoundError for images that a set lacks, InputError for a ground truth without positives.
    """
    truth = resolve(read_ground_truth(path), whole.names).ground_truth
    check_positives(truth, path)
    wanted = list(dict.fromkeys([*truth.images, *(query.name for query in truth.queries)]))
    places = [_places(features, wanted) for features in (local, whole)]

    def found(name: str, box: object) -> FusedFeatures:
        parts = (features.read(names[name]) for features, names in zip((local, whole), places, strict=True))
        return FusedFeatures(tuple(parts))

    def describe(reporter: Display) -> tuple[np.ndarray, np.ndarray]:
        names = [query.name for query in truth.queries]
        return _unit_vectors(whole, places[1], truth.images), _unit_vectors(whole, places[1], names)

    def reranker(weights: Path) -> PairReranker:
        scorer = TransformerScorer(PairTransformer(weights, device), PairImages(found, found), Kinds(0, 1), unit)
        return PairReranker(scorer, by_logits(first))

    about = {"local": local.recipe.to_json(), "global": whole.recipe.to_json(), "rerank": first}
    return PairValidation(truth, describe, reranker, about)


def _places(features: FeatureSet, names: Sequence[str]) -> dict[str, str]:
    found = match_names(names, features.names)
    if missing := [name for name in names if name not in found]:
        raise NotFoundError(
            f"{features.path}: lacks {len(missing)} of {len(names)} images and queries of the validation: "
            f"{list_names(missing)}; extract their features first"
        )
    return found


def _unit_vectors(whole: FeatureSet, places: dict[str, str], names: Sequence[str]) -> np.ndarray:
    vectors = np.array([_vector(whole.read(places[name]), name) for name in names], np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.where(lengths > 0, lengths, 1.0)
    return unit


def _vector(features: Features, name: str) -> np.ndarray:
    if len(features) != 1:
        raise InputError(f"{name}: has {len(features)} global descriptors; expected one")
    return features.descriptors[0].astype(np.float32)
