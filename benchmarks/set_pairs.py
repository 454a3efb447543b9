"""Rankings whose first images are compared with the query, neighbour by neighbour, for `set_reranking.py`.

Of each pair the mutual neighbours are kept, the most similar first, and what `compare` finds: the input of a network.
Each ranking is a file that is written at once, so what was stopped goes on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from halves import instance

from asmk_engine import Codebook, FeatureSet, Index, Searcher
from asmk_engine.errors import AsmkError
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.evaluation.names import resolve
from asmk_engine.features import Features
from asmk_engine.images.decoding import view_image
from asmk_engine.indexes.photographs import described
from asmk_engine.search.query_features import query_source
from asmk_engine.training.augmented_pairs import ViewOptions, random_view
from asmk_engine.verification.match import Match
from asmk_engine.verification.mutual import ImageVectors, compare, image_vectors, mutual_neighbours
from asmk_engine.verification.reranking import Reranking, reranked

JUNK, NEGATIVE, EASY, HARD = range(4)
IMAGES = 50  # of a ranking that are compared with the query
TOKENS = 48  # mutual neighbours of a pair that are kept
TOKEN, FACTS = 14, 8
ABSENT = 13  # the number of a token whose sign tells whether it is one
FARTHEST = 20.0
DISTRACTORS = "_distractors"
BOTH = Reranking.by_both(IMAGES)
VIEWS = ViewOptions(least_area=0.35, tilt=0.18, colour=0.25)
VIEW_SIDE = 800
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LabelledQuery:
    """A query and the labels of images; images without a label are negatives."""

    name: str
    features: Callable[[], Features]
    easy: frozenset[str]
    hard: frozenset[str] = NOTHING
    junk: frozenset[str] = NOTHING

    def label(self, image: str) -> int:
        """Return the label of an image; that of the query itself is junk."""
        if image in self.junk or image == self.name:
            return JUNK
        return EASY if image in self.easy else HARD if image in self.hard else NEGATIVE


@dataclass(frozen=True)
class RankedPairs:
    """The ranking of a query, of whose n images the first k were compared with it.

    names   [n] str, in the order of the search
    labels  [n] int8
    totals  [n] float64, the scores of `Reranking.by_both` in this order
    tokens  [k, TOKENS, TOKEN] float16, see `tokens_of`
    facts   [k, FACTS] float32, see `facts_of`
    """

    query: str
    names: np.ndarray
    labels: np.ndarray
    totals: np.ndarray
    tokens: np.ndarray
    facts: np.ndarray

    @property
    def first_labels(self) -> np.ndarray:
        """The labels of the images that were compared."""
        return self.labels[: len(self.facts)]

    def ranking(self, added: np.ndarray) -> list[str]:
        """Return the names in the order of the totals, with something added to those of the first images."""
        totals = self.totals.copy()
        totals[: len(added)] += added
        found: list[str] = self.names[np.argsort(-totals, kind="stable")].tolist()
        return found

    def write(self, path: Path) -> None:
        """Write a file at once, so that it is whole or not there."""
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.savez(file, query=self.query, **{name: getattr(self, name) for name in ARRAYS})
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> RankedPairs:
        """Read a file."""
        with np.load(path, allow_pickle=False) as found:
            return cls(str(found["query"]), *(found[name] for name in ARRAYS))


ARRAYS = ("names", "labels", "totals", "tokens", "facts")


@dataclass
class SearchedHalf:
    """One half of the photographs by one kind of features, indexed with the codebook of a seed.

    folder  has `gnd.json` and `KIND.features`
    work    keeps the index and the rankings
    """

    folder: Path
    kind: str
    seed: int
    work: Path
    words: int = 4096
    kept: dict[str, Features] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What files of this half begin with."""
        return f"{self.folder.name}.{self.kind}.{self.words}.{self.seed}"

    @cached_property
    def features(self) -> FeatureSet:
        """The features of the half."""
        return FeatureSet.open(self.folder / f"{self.kind}.features")

    @cached_property
    def index(self) -> Any:
        """The ASMK index, which is made if it is not there."""
        path = self.work / f"{self.title}.index"
        if not path.exists():
            unfinished = self.work / f"{self.title}.unfinished-{len(list(self.work.glob('*.unfinished-*')))}"
            codebook = Codebook.train(
                self.features, self.words, seed=self.seed, rounds=6, training_per_word=60, assignment="exact"
            )
            made = Index.create(unfinished, codebook)
            made.add(self.features)
            unfinished.rename(path)
        return Index.open(path)

    @cached_property
    def searcher(self) -> Searcher:
        """What ranks the images, with one thread."""
        return Searcher(self.index, threads=1)

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """The queries, with the names of the index."""
        return resolve(read_ground_truth(self.folder / "gnd.json"), self.index.names).ground_truth

    @cached_property
    def source(self) -> Any:
        """What finds the features and photographs of images by name."""
        return query_source(self.index)

    def asked(self, query: Any) -> Features:
        """Return the features of a query of the ground truth, of its region."""
        if query.name not in self.kept:
            self.kept[query.name] = self.source.ground_truth_features(query.name, query.box)
        return self.kept[query.name]

    def queries(self) -> list[LabelledQuery]:
        """Return the queries of the ground truth."""
        return [
            LabelledQuery(one.name, functools.partial(self.asked, one), one.easy, one.hard, one.junk)
            for one in self.ground_truth.queries
        ]

    def whole_images(self) -> list[LabelledQuery]:
        """Return every image of an instance as a query, for which the others of its instance are positives."""
        of_instance: dict[str, list[str]] = {}
        for name in self.index.names:
            if instance(name) != DISTRACTORS:
                of_instance.setdefault(instance(name), []).append(name)
        return [
            LabelledQuery(name, functools.partial(self.features.read, name), frozenset(names) - {name})
            for names in of_instance.values()
            if len(names) > 1
            for name in names
        ]

    def self_made(self, count: int) -> list[LabelledQuery]:
        """Return so many views of distractors as queries that find their photographs; none without an extractor."""
        try:
            _ = self.index.extractor
        except AsmkError as error:
            print(f"{self.title}: no self-made pairs, {error}", file=sys.stderr, flush=True)
            return []
        names = [name for name in self.index.names if instance(name) == DISTRACTORS]
        np.random.default_rng(0).shuffle(names)
        chosen = [names[number % len(names)] for number in range(count if names else 0)]
        return [
            LabelledQuery(f"view {number}", functools.partial(self.view, number, name, names), frozenset({name}))
            for number, name in enumerate(chosen)
        ]

    def view(self, number: int, name: str, others: Sequence[str]) -> Features:
        """Return the features of a view of a photograph: warped, recoloured, half of the time pasted, compressed."""
        draws = np.random.default_rng(number)
        pixels = random_view(self.pixels(name), draws, VIEWS)
        if draws.random() < 0.5:
            pixels = pasted(pixels, self.pixels(others[draws.integers(len(others))]), draws)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(draws.integers(30, 92))]
        _, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], quality)
        decoded = np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[:, :, ::-1])
        return described(decoded, self.index.extractor, None)

    def pixels(self, name: str) -> np.ndarray:
        """Return the photograph of an image, no longer than `VIEW_SIDE`."""
        return view_image(self.source.ground_truth_photograph(name), VIEW_SIDE).pixels

    def pairs(self, part: str, queries: Sequence[LabelledQuery]) -> Iterator[RankedPairs]:
        """Rank and compare for each query, or read what was kept."""
        folder = self.work / f"{self.title}.{part}"
        folder.mkdir(exist_ok=True)
        for number, query in enumerate(queries):
            path = folder / f"{number:05d}.npz"
            if not path.exists():
                self.compared(query).write(path)
                if number % 50 == 0 or number + 1 == len(queries):
                    print(f"{self.title}: {part} {number + 1} of {len(queries)}", file=sys.stderr, flush=True)
            yield RankedPairs.read(path)

    def compared(self, query: LabelledQuery) -> RankedPairs:
        """Rank the images for a query and compare the first of them."""
        features = query.features()
        hits = self.searcher.search(features, None)
        one = image_vectors(features, self.index.codebook)
        others = [image_vectors(self.features.read(hit.name), self.index.codebook) for hit in hits[:IMAGES]]
        matches = [compare(one, other, BOTH.verification) for other in others]  # type: ignore[arg-type]
        order, scores = reranked(np.array([hit.score for hit in hits], np.float64), [matches], BOTH)
        totals = np.empty(len(hits))
        totals[order] = scores
        tokens = [tokens_of(one, other, match) for other, match in zip(others, matches, strict=True)]
        facts = [facts_of(one, other, match) for other, match in zip(others, matches, strict=True)]
        return RankedPairs(
            query.name,
            np.array([hit.name for hit in hits], np.str_),
            np.array([query.label(hit.name) for hit in hits], np.int8),
            totals,
            np.array(tokens, np.float16).reshape(-1, TOKENS, TOKEN),
            np.array(facts, np.float32).reshape(-1, FACTS),
        )


def tokens_of(query: ImageVectors, other: ImageVectors, match: Match) -> np.ndarray:
    """Return the mutual neighbours of two images, [TOKENS, TOKEN] float32, the most similar first.

    Columns: cosine; by how much it exceeds that of the second neighbour, from either side; ranks of the features by
    strength, from 0 to 1; places from the middle of the query, 2, and of the other image, 2, in longer sides; the
    logarithms of the scales in longer sides, 2; whether the map of the match explains the pair, and how far from its
    place it is mapped, in tolerances; the number of the neighbour, -1 where there is none.
    """
    tokens = np.zeros((TOKENS, TOKEN), np.float32)
    tokens[:, ABSENT] = -1
    ones, others = mutual_neighbours(query.vectors, other.vectors)
    cosines = np.einsum("ij,ij->i", query.vectors[ones], other.vectors[others], dtype=np.float64)
    first = np.argsort(-cosines, kind="stable")[:TOKENS]
    ones, others, cosines = ones[first], others[first], cosines[first]
    columns = [
        cosines,
        cosines - second_best(query.vectors[ones], other.vectors, others),
        cosines - second_best(other.vectors[others], query.vectors, ones),
        ones / max(1, len(query)),
        others / max(1, len(other)),
        *middled(query, ones).T,
        *middled(other, others).T,
        np.log(query.places[ones, 2] / longer_side(query)),
        np.log(other.places[others, 2] / longer_side(other)),
        np.isin(ones, match.query_features),
        residuals(query.places[ones], other.places[others], match, longer_side(other)),
        np.arange(len(ones)),
    ]
    tokens[: len(ones)] = np.column_stack(columns)
    return tokens


def second_best(some: np.ndarray, all_others: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the largest cosine of each vector with the others but its best one, [m]; -1 if there is no other."""
    cosines = some @ all_others.T
    cosines[np.arange(len(best)), best] = -1.0
    return cosines.max(axis=1, initial=-1.0)


def middled(image: ImageVectors, rows: np.ndarray) -> np.ndarray:
    """Return places [m, 2] from the middle of an image, in longer sides."""
    return (image.places[rows, :2] - np.array(image.image_size) / 2) / longer_side(image)


def longer_side(image: ImageVectors) -> int:
    """Return the longer side of an image in pixels, 1 if it is unknown."""
    return max(1, *image.image_size)


def residuals(places: np.ndarray, other_places: np.ndarray, match: Match, side: int) -> np.ndarray:
    """Return how far from their places features are mapped by a match, [m], in tolerances, at most `FARTHEST`."""
    options = BOTH.verification.places  # type: ignore[union-attr]
    mapped = places[:, :2] @ match.affine[:, :2].T + match.affine[:, 2]
    far = np.linalg.norm(mapped - other_places[:, :2], axis=1)
    return np.minimum(far / (options.reach * other_places[:, 2] + options.slack * side), FARTHEST)


def facts_of(query: ImageVectors, other: ImageVectors, match: Match) -> tuple[float, ...]:
    """Return the FACTS of a whole pair: what `compare` found, and the numbers of features."""
    found = (match.places, match.places_weight, match.inliers, match.weight, match.pairs, match.mass)
    return (*found, len(query), len(other))


def pasted(view: np.ndarray, background: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return a background that shows a view somewhere, smaller than itself."""
    height, width = background.shape[:2]
    factor = draws.uniform(0.35, 0.75) * min(width / view.shape[1], height / view.shape[0])
    shape = [max(1, int(factor * side)) for side in view.shape[:2]]
    top, left = (int(draws.integers(0, whole - part + 1)) for whole, part in zip((height, width), shape, strict=True))
    made = background.copy()
    made[top : top + shape[0], left : left + shape[1]] = cv2.resize(view, shape[::-1], interpolation=cv2.INTER_AREA)
    return made
