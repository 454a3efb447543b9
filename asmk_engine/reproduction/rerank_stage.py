"""The stage that ranks the first images of each ranking of a test anew, and evaluates the new rankings.

Each row of the protocol is ranked by itself, without its junk, as in the codes of DELG, RRT and CVNet. A pair that
several rows or numbers of images need is compared once. Local features of an extractor of its own are those of the
images that are compared, not of the whole database.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import Evaluator, depth_needed, junk_by_row
from asmk_engine.features import Features, FeatureSet
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.images.boxes import Box
from asmk_engine.images.listing import ImageFile, ImageList
from asmk_engine.indexes.answers import Hit
from asmk_engine.indexes.joint import split_mark
from asmk_engine.iteration import Display
from asmk_engine.reproduction.datasets import RetrievalTask
from asmk_engine.reproduction.evaluation import Measured, QueryFeatures, percent
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.kept_scores import KeptScorer
from asmk_engine.reproduction.rerank_networks import RerankFiles
from asmk_engine.reproduction.rerank_plan import DELG, DETECT_TO_RETRIEVE, Rerank, numbers_of_images, reranked_row
from asmk_engine.reranking.affine_ransac_scorer import AffineRansacScorer, by_inliers
from asmk_engine.reranking.by_features import unit_of
from asmk_engine.reranking.cvnet import CvnetScorer, CvnetScoring
from asmk_engine.reranking.described import AnyFeatures, Kinds, PairImages
from asmk_engine.reranking.pair_scorer import PairScorer
from asmk_engine.reranking.ranking import PairReranker, PairReranking
from asmk_engine.reranking.transformer_scorer import TransformerScorer, by_logits
from asmk_engine.verification.affine_ransac import AffineRansac

PAIRS, PAIR_SECONDS = "pairs", "pair seconds"
DESCRIBED, DESCRIBE_SECONDS = "described", "describe seconds"
IMAGES, BYTES = "images", "bytes"
DISTRACTORS = "distractor1:"
"""The mark of the names of distractors, see `indexes.joint`."""
LEVELS = "levels"
"""Folder of the levels in 8 bits, within that of the run."""


@dataclass(frozen=True)
class RankedTest:
    """A test whose images are indexed.

    searcher  ranks the images of its database, and of its distractors under names with a mark
    queries   the features of its queries
    images    mark of the names → the photographs, "" for those of the database
    features  mark → the features that are indexed
    """

    task: RetrievalTask
    searcher: Any
    queries: QueryFeatures
    images: Mapping[str, ImageList]
    features: Mapping[str, QueryFeatures]

    @property
    def ground_truth(self) -> GroundTruth:
        """What each query should find; raises InputError for a test of labels."""
        if self.task.ground_truth is None:
            raise InputError("a test of labels has no rankings that could be ranked anew; leave --rerank out")
        return self.task.ground_truth

    def hits(self, query: GroundTruthQuery, top: int | None) -> list[Hit]:
        """Return the ranking of a query."""
        found: list[Hit] = self.searcher.search(self.queries.read(query.name), top)
        return found

    def compared(self, most: int) -> dict[str, list[ImageFile]]:
        """Return mark → the photographs that are among the first `most` of any row of any query."""
        wanted: dict[str, set[str]] = {mark: set() for mark in self.images}
        for query in self.ground_truth.queries:
            junk = junk_by_row(query, self.ground_truth)
            for hit in self.hits(query, most + max((len(one) for one in junk.values()), default=0)):
                mark, name = split_mark(hit.name)
                wanted[mark].add(name)
        return {mark: [one for one in found.images if one.name in wanted[mark]] for mark, found in self.images.items()}


@dataclass(frozen=True)
class ComparedFeatures:
    """The local features that are compared: those of queries, and by mark those of images.

    extractor  that described them
    """

    extractor: Any
    queries: QueryFeatures
    images: Mapping[str, QueryFeatures]


def images_of(ranked: RankedTest, part: Rerank, settings: Settings) -> dict[int, int]:
    """Return count of a part → how many images are ranked anew for it: fewer in a rehearsal on few photographs."""
    if settings.rehearsal:
        return numbers_of_images(part, len(ranked.images[""].images))
    return {count: count for count in part.counts}


class RerankedTest:
    """Ranks one test anew by one part of its experiment.

    files     the networks of the part
    local     the local features that it compares; None for `cvnet`
    settings  of the run: its folder, device and threads
    """

    def __init__(
        self,
        ranked: RankedTest,
        part: Rerank,
        files: RerankFiles,
        local: ComparedFeatures | None,
        settings: Settings,
    ) -> None:
        self.ranked, self.part, self.files, self.local, self.settings = ranked, part, files, local, settings
        self.numbers = images_of(ranked, part, settings)
        self._photographs = {query.name: query.path for query in ranked.task.queries}
        self._listed = {mark: {one.name: one.path for one in found.images} for mark, found in ranked.images.items()}

    def run(self, kept: Path, display: Display) -> tuple[dict[str, Measured], dict[str, float], list[str]]:
        """Return the scores by row, what they cost in sums, and notes: why images were not compared.

        kept  folder of the scores of pairs, which are not computed again
        """
        spent = _Spent()
        scorer = self._scorer(spent)
        once = KeptScorer(scorer, kept, spent.sums)
        with display.bar("re-rank", "queries") as progress:
            scores = self._evaluated(once, progress)
        failed = getattr(scorer, "failed", {})
        notes = [f"{name}: not compared, scores 0: {reason}" for name, reason in failed.items()]
        return scores, once.costs(), [*self._adaptations(), *notes]

    def _adaptations(self) -> Iterator[str]:
        if changed := [f"{images} instead of {count}" for count, images in self.numbers.items() if images != count]:
            yield f"images ranked anew by {self.part.title}: {', '.join(changed)}"

    def _evaluated(self, scorer: PairScorer, progress: Any) -> dict[str, Measured]:
        truth, depth = self.ranked.ground_truth, depth_needed(self.ranked.ground_truth)
        most = None if depth is None else max(depth, *self.numbers.values())
        evaluators = {count: Evaluator(truth) for count in sorted(self.part.counts, reverse=True)}
        for done, query in enumerate(truth.queries, start=1):
            hits, junk = self.ranked.hits(query, most), junk_by_row(query, truth)
            for count, evaluator in evaluators.items():
                rule = self._rule(self.numbers[count])
                rows = PairReranker(scorer, rule).rerank_rows(query.name, query.box, hits, junk)
                evaluator.add_rows(query.name, {row: [hit.name for hit in found] for row, found in rows.items()})
            progress(done, len(truth.queries))
        return dict(self._rows(evaluators))

    def _rows(self, evaluators: Mapping[int, Evaluator]) -> Iterator[tuple[str, Measured]]:
        for count in self.part.counts:
            report = evaluators[count].report()
            for row, one in report.per_query.items():
                yield reranked_row(row, self.part, count), percent(list(one.values()), report.scores[row].queries)

    def _rule(self, images: int) -> PairReranking:
        if self.part.by == "gv":
            return by_inliers(images)
        return by_logits(images) if self.part.by == "rrt" else PairReranking(images, self.part.weight)

    def _scorer(self, spent: _Spent) -> PairScorer:
        if self.local is None:
            return spent.of_cvnet(self._cvnet())
        by_features = PairImages(self._query, self._named)
        if self.part.by == "gv":
            scorer: PairScorer = AffineRansacScorer(
                by_features, Kinds(0, None), THRESHOLDS[self.part.thresholds], self.settings.threads
            )
        else:
            from asmk_engine.networks.reranking.transformer_pairs import PairTransformer

            network = PairTransformer(self.files.pairs or "", self.settings.device)
            scorer = TransformerScorer(network, by_features, Kinds(0, 1), unit_of(self.local.extractor))
        return _Timed(scorer, spent)

    def _cvnet(self) -> CvnetScorer:
        part, settings = self.part, self.settings
        cache = settings.work / LEVELS if part.bits == 8 else None
        weights = self.files.pairs or Path()
        return CvnetScorer(CvnetScoring(weights, part.side, cache, None, part.precision, settings.device), self._locate)

    def _locate(self, name: str) -> Path:
        if name in self._photographs:
            return self._photographs[name]
        mark, own = split_mark(name)
        return self._listed[mark][own]

    def _query(self, name: str, box: Box | None) -> AnyFeatures:
        return self._joined(self._local.queries, self.ranked.queries, name)

    def _named(self, name: str, box: Box | None) -> AnyFeatures:
        mark, own = split_mark(name)
        return self._joined(self._local.images[mark], self.ranked.features[mark], own)

    @property
    def _local(self) -> ComparedFeatures:
        if self.local is None:
            raise ValueError("cvnet compares no features")
        return self.local

    def _joined(self, local: QueryFeatures, whole: QueryFeatures, name: str) -> AnyFeatures:
        """Return the local features of an image, none for one that could not be described, and its global one."""
        found = local.read(name) if name in local else Features.from_descriptors(np.empty((0, local.dim), np.float32))
        return found if self.part.by == "gv" else FusedFeatures((found, whole.read(name)))


THRESHOLDS = {DELG: AffineRansac(), DETECT_TO_RETRIEVE: AffineRansac.detect_to_retrieve()}


class _Spent:
    """What comparing has cost so far, by name: sums that only grow."""

    def __init__(self) -> None:
        self.pairs, self.seconds = 0, 0.0
        self._cvnet: CvnetScorer | None = None

    def of_cvnet(self, scorer: CvnetScorer) -> CvnetScorer:
        """Take the sums from a scorer that measures its stages itself."""
        self._cvnet = scorer
        return scorer

    def sums(self) -> dict[str, float]:
        """Return the sums."""
        if self._cvnet is None:
            return {PAIRS: self.pairs, PAIR_SECONDS: self.seconds}
        times, sizes = self._cvnet.times, self._cvnet.level_bytes
        return {
            PAIRS: times.counts["pair"],
            PAIR_SECONDS: times.seconds["pair"],
            DESCRIBED: times.counts["pyramid"],
            DESCRIBE_SECONDS: times.seconds["local map"] + times.seconds["pyramid"],
            IMAGES: len(sizes),
            BYTES: sum(sizes.values()),
        }


@dataclass(frozen=True)
class _Timed:
    """A scorer whose pairs and seconds are counted, with the reading of features."""

    scorer: PairScorer
    spent: _Spent

    def scores(self, query: str, box: Box | None, candidates: Sequence[str]) -> np.ndarray:
        begun = time.perf_counter()
        found = self.scorer.scores(query, box, candidates)
        self.spent.seconds += time.perf_counter() - begun
        self.spent.pairs += len(candidates)
        return found


def measured_costs(sums: Mapping[str, float], features: Iterable[QueryFeatures], seconds: float) -> dict[str, float]:
    """Return what re-ranking costs, as the report has it: bytes of an image, milliseconds of an image and of a pair.

    sums      of `RerankedTest.run`
    features  feature sets of the images that are compared, of an extractor of its own or the indexed ones
    seconds   that it took to describe these, 0 if they are the indexed ones
    """
    sets = list(features)
    if sets:
        count = sum(len(FeatureSet.open(one.path)) for one in sets)
        stored = sum(path.stat().st_size for one in sets for path in one.path.glob("part-*.h5"))
        sums = {**sums, DESCRIBED: count, DESCRIBE_SECONDS: seconds, IMAGES: count, BYTES: stored}
    return {
        "pairs": sums.get(PAIRS, 0),
        "bytes an image": _ratio(sums, BYTES, IMAGES),
        "image milliseconds": 1000 * _ratio(sums, DESCRIBE_SECONDS, DESCRIBED),
        "pair milliseconds": 1000 * _ratio(sums, PAIR_SECONDS, PAIRS),
    }


def _ratio(sums: Mapping[str, float], over: str, under: str) -> float:
    return sums.get(over, 0.0) / sums[under] if sums.get(under) else 0.0


def listed(images: ImageList, chosen: list[ImageFile]) -> ImageList:
    """Return some of the images of a list, as a list with the same root."""
    return replace(images, images=chosen, failures={})
