"""What do several photographs of one thing find, as one question? Ways to combine their answers, question by question.

    python benchmarks/several.py INDEX gnd.json [--photographs 2,3,5] [--draws 3] [--images 50] [--seed 0]

INDEX is an ASMK index. A question is a query of the ground truth and some of its positives, drawn at random; the others
are to be found, and all photographs of the question are junk. The ways are

    single      the photographs one by one: the mean of their average precisions
    best        the one of them with the greatest average precision, which nobody knows beforehand
    mean        the mean of their scores, 0 where one does not find an image
    max         the best of their scores
    joined      one signature of the local features of all of them

each without and with re-ranking; the joined signature has no places, so an image gets the most evidence that a single
photograph gives it. A line has the number of photographs, mAP in percent, the differences from `single` and `best` with
their 95 % bootstrap intervals over the queries, each with the mean over its draws. With re-ranking follow the verdicts
`match` of negatives a question, the share of positives with one, and their precision: of one photograph on average, and
the most favourable of all.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import Features, Index, Searcher
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.metrics import average_precision, ranks_without
from asmk_engine.evaluation.names import resolve
from asmk_engine.search.query_features import query_source
from asmk_engine.verification.verdict import MATCH, evidence_of

WAYS = ("single", "best", "mean", "max", "joined")
Scores = dict[str, float]


@dataclass(frozen=True)
class Question:
    """Photographs of one thing, the images to find, and those that do not count."""

    photographs: tuple[str, ...]
    positives: frozenset[str]
    junk: frozenset[str]


@dataclass(frozen=True)
class Answers:
    """What one query finds: plain scores, scores after re-ranking, and of the verified images evidence and verdict."""

    plain: Scores
    reranked: Scores
    evidence: Scores
    matches: frozenset[str]


class Asker:
    """Searches for single photographs, each once, and for joined ones."""

    def __init__(self, index: Any, images: int) -> None:
        self.searcher, self.source, self.images = Searcher(index), query_source(index), images
        self._known: dict[str, Answers] = {}

    def single(self, name: str) -> Answers:
        """Return the answers to one photograph of the index."""
        if name not in self._known:
            features = self.source.named(name, None)
            hits = self.searcher.search(features, None, rerank=self.images)
            self._known[name] = Answers(
                {hit.name: hit.score for hit in self.searcher.search(features, None)},
                {hit.name: hit.score for hit in hits},
                {hit.name: evidence_of(hit.matches) for hit in hits if hit.matches},
                frozenset(hit.name for hit in hits if hit.verdict == MATCH),
            )
        return self._known[name]

    def joined(self, names: tuple[str, ...]) -> tuple[Scores, Scores]:
        """Return plain and re-ranked scores of the joined local features of photographs."""
        parts: list[Any] = [self.source.named(name, None) for name in names]
        arrays = [
            np.concatenate([getattr(part, key) for part in parts]) for key in ("descriptors", "keypoints", "scores")
        ]
        signature = self.searcher.sign(Features(*arrays, parts[0].image_size))
        plain = {hit.name: hit.score for hit in self.searcher.search(signature, None)}
        most = max((score for name, score in plain.items() if name not in names), default=1.0)
        each = [self.single(name).evidence for name in names]
        first = [*plain][: self.images]
        evidence = {name: max(one.get(name, 0.0) for one in each) for name in first}
        return plain, {name: score / most + evidence.get(name, 0.0) for name, score in plain.items()}


def main() -> None:
    """Parse the arguments, search, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("ground_truth", type=Path)
    parser.add_argument("--photographs", default="2,3,5")
    parser.add_argument("--draws", type=int, default=3, help="questions of each query")
    parser.add_argument("--images", type=int, default=50, help="number of images that are ranked anew")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    index = Index.open(options.index)
    ground_truth = resolve(read_ground_truth(options.ground_truth), index.names).ground_truth
    asker = Asker(index, options.images)
    for count in map(int, options.photographs.split(",")):
        asked = [[*questions(query, count, options)] for query in ground_truth.queries]
        report(asker, count, [draws for draws in asked if draws])


def questions(query: Any, count: int, options: argparse.Namespace) -> Iterator[Question]:
    """Yield the questions of a query, none if too few positives would be left to find."""
    positives = sorted({*query.easy, *query.hard} - {query.name})
    chance = random.Random(f"{options.seed} {query.name} {count}")
    for _ in range(options.draws if len(positives) >= count else 0):
        photographs = (query.name, *chance.sample(positives, count - 1))
        yield Question(photographs, frozenset(positives) - {*photographs}, frozenset(query.junk) | {*photographs})


def report(asker: Asker, count: int, asked: list[list[Question]]) -> None:
    """Print the lines of all ways with so many photographs."""
    for is_reranked in (False, True):
        each = [mean_of([precisions(asker, question, is_reranked) for question in draws]) for draws in asked]
        for way in WAYS:
            found = [one[way] for one in each]
            gains = "   ".join(gain(found, [one[other] for one in each]) for other in ("single", "best"))
            name = f"{way}{' reranked' if is_reranked else ''}"
            print(f"{count}  {name:<16} {100 * np.mean(found):5.1f}   {gains}", flush=True)
    singles, several = zip(*(verdicts(asker, question) for draws in asked for question in draws), strict=True)
    for name, rows in (("one", np.array(singles)), ("several", np.array(several))):
        false, true, positives = rows.mean(axis=0)
        print(
            f"{count}  verdicts {name:<8} {false:.3f} false, {true / positives:.3f} found, "
            f"{true / (true + false):.4f} right"
        )
    print(f"{count}  {len(asked)} queries, {len(singles)} questions", flush=True)


def precisions(asker: Asker, question: Question, is_reranked: bool) -> Scores:
    """Return the average precision of each way, in the order of the fused scores."""
    answers = [asker.single(name) for name in question.photographs]
    scores = [one.reranked if is_reranked else one.plain for one in answers]
    each = [precision(one, question) for one in scores]
    names = dict.fromkeys(name for one in scores for name in one)
    mean = {name: sum(one.get(name, 0.0) for one in scores) / len(scores) for name in names}
    most = {name: max(one.get(name, 0.0) for one in scores) for name in names}
    joined = asker.joined(question.photographs)[is_reranked]
    combined = {"mean": mean, "max": most, "joined": joined}
    found = {way: precision(one, question) for way, one in combined.items()}
    return {"single": float(np.mean(each)), "best": max(each), **found}


def precision(scores: Scores, question: Question) -> float:
    """Return the average precision of images ranked by score."""
    ranking = sorted(scores, key=lambda name: (-scores[name], name.encode()))
    places, junk = (
        [place for place, name in enumerate(ranking) if name in wanted]
        for wanted in (question.positives, question.junk)
    )
    return average_precision(ranks_without(places, junk), len(question.positives))


def verdicts(asker: Asker, question: Question) -> tuple[tuple[float, float, int], tuple[float, float, int]]:
    """Return the numbers of false and of right matches, and of positives: of one photograph on average, and of all."""
    each = [asker.single(name).matches for name in question.photographs]

    def counted(matches: frozenset[str]) -> tuple[float, float, int]:
        right = len(matches & question.positives)
        return float(len(matches - question.positives - question.junk)), float(right), len(question.positives)

    false, right, positives = np.mean([counted(one) for one in each], axis=0)
    return (float(false), float(right), int(positives)), counted(frozenset().union(*each))


def mean_of(draws: list[Scores]) -> Scores:
    """Return the mean of each way over the draws."""
    return {way: float(np.mean([one[way] for one in draws])) for way in WAYS}


def gain(found: list[float], other: list[float]) -> str:
    """Return the difference in percent, and its interval."""
    interval = bootstrap([100 * (one - two) for one, two in zip(found, other, strict=True)])
    return f"{interval.mean:+.1f} ({interval.low:.1f} to {interval.high:.1f})"


if __name__ == "__main__":
    main()
