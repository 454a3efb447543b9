"""How right are the verdicts? Precision and recall on one half of labelled photographs, by what the other half teaches.

    python benchmarks/verdicts.py A.index A/gnd.json B.index B/gnd.json [--images 300] [--distractors _distractors/]

Both indexes have the same kinds of local features, and no photograph in common. The first 50 answers to each query of
the ground truth are verified; positives are those that are easy or hard, junk is left out, all others are negatives.
Each half is judged by

    own       a calibration without labels on the same photographs (`asmk-engine calibrate`; it is stored in the index)
    other     one on the other half
    constant  the constants of the package, which were learned with the labels of both halves
    labels    thresholds learned with the labels of the other half

A line has the least evidence, precision and recall of a match, and of a match or maybe; then how many distractors, as
queries, find a match, and a match or a maybe. At the end stand constants that both halves' labels give.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import FusedIndex, FusedSearcher, Searcher, open_index
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.names import resolve
from asmk_engine.search.calibrating import calibrate, sampled_names
from asmk_engine.verification.verdict import (
    MATCH,
    MAYBE,
    WRONG,
    Calibration,
    constants_of,
    evidence_of,
    probabilities_of,
    threshold,
)

VERIFIED = 50
DISTRACTORS = 200
KNOTS = 8


@dataclass(frozen=True)
class Half:
    """What was measured on one half.

    evidence     [n] float64, of the labelled answers, and whether each is a positive [n] bool
    distractors  for each distractor the most evidence of an answer, and the answer's name
    calibration  learned from it without labels
    """

    name: str
    evidence: np.ndarray
    is_positive: np.ndarray
    distractors: list[tuple[str, float, str]]
    calibration: Calibration
    constants: Calibration


def main() -> None:
    """Parse the arguments, measure both halves, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("halves", type=Path, nargs=4)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--distractors", default="_distractors/", help="how the names of distractors begin")
    parser.add_argument("--show", type=int, default=0, help="list so many of the distractors with the most evidence")
    options = parser.parse_args()
    given = options.halves
    halves = [measured(*pair, options) for pair in ((given[0], given[1]), (given[2], given[3]))]
    for half, other in (halves, halves[::-1]):
        taught = labelled([other], half.constants)
        for way, calibration in (("own", half.calibration), ("other", other.calibration),
                                 ("constant", half.constants), ("labels", taught)):  # fmt: skip
            print(line(half, way, calibration))
        for name, evidence, answer in sorted(half.distractors, key=lambda one: -one[1])[: options.show]:
            print(f"    {evidence:6.2f}  {name}  {answer}")
    print(thinned(labelled(halves, halves[0].constants)))


def measured(path: Path, ground_truth: Path, options: argparse.Namespace) -> Half:
    """Verify the answers to the queries of a half and to distractors, and calibrate its index."""
    index: Any = open_index(path)
    searcher: Any = (FusedSearcher if isinstance(index, FusedIndex) else Searcher)(index)
    evidence, is_positive = [], []
    for query in resolve(read_ground_truth(ground_truth), index.names).ground_truth.queries:
        for name, found in answers(searcher, query.name):
            if name not in query.junk:
                evidence.append(found)
                is_positive.append(name in {*query.easy, *query.hard})
    queries = sampled_names((name for name in index.names if name.startswith(options.distractors)), DISTRACTORS)
    best = [
        (name, *max([(found, other) for other, found in answers(searcher, name)] or [(0.0, "")])) for name in queries
    ]
    constants = constants_of(searcher.local_extractors(index.snapshot))
    calibration = calibrate(index, options.images).calibration
    return Half(path.stem, np.array(evidence), np.array(is_positive), best, calibration, constants)


def answers(searcher: Any, name: str) -> list[tuple[str, float]]:
    """Return the names and the evidence of the verified answers to an indexed image, but for itself."""
    hits = searcher.search_name(name, VERIFIED + 1, rerank=VERIFIED + 1)
    return [(hit.name, evidence_of(hit.matches)) for hit in hits if hit.name != name][:VERIFIED]


def labelled(halves: list[Half], constants: Calibration) -> Calibration:
    """Return what the labels of halves teach."""
    evidence = np.concatenate([half.evidence for half in halves])
    negative = np.sort(np.concatenate([half.evidence[~half.is_positive] for half in halves]))
    match, maybe = (threshold(evidence, negative, 1.0, WRONG[verdict]) or constants.match for verdict in (MATCH, MAYBE))
    knots = probabilities_of(evidence, negative, 1.0)
    return replace(constants, match=match, maybe=maybe, evidences=knots[0], probabilities=knots[1])


def thinned(calibration: Calibration) -> str:
    """Return the constants as in `verdict.CONSTANTS`, with few of the probabilities."""
    knots = np.array([calibration.evidences, calibration.probabilities])
    middles, levels = (knots[:, 0::2] + knots[:, 1::2])[0] / 2, knots[1, ::2]
    middles[[0, -1]] = knots[0, [1, -2]]  # of the first block the end, and of the last one the beginning
    rows = sorted({int(np.argmin(abs(levels - share))) for share in np.linspace(levels[0], levels[-1], KNOTS)})
    evidences, probabilities = (tuple(round(float(value), 3) for value in kept[rows]) for kept in (middles, levels))
    return f"Calibration({calibration.match:.3f}, {calibration.maybe:.3f}, {evidences}, {probabilities})"


def line(half: Half, way: str, calibration: Calibration) -> str:
    """Return the line of a half and a way to judge it."""
    words = [f"{half.name:<14} {way:<8} {'learned' if calibration.is_learned else 'set':<7}"]
    for least in (calibration.match, calibration.maybe):
        said = half.evidence >= least
        precision = 100 * half.is_positive[said].mean() if said.any() else float("nan")
        recall = 100 * said[half.is_positive].mean()
        finding = sum(evidence >= least for _, evidence, _ in half.distractors)
        words.append(f"{least:.3f}: {precision:5.1f} {recall:5.1f}, {finding:3d} of {len(half.distractors)}")
    wrong = brier(half, calibration)
    return f"{'   '.join(words)}   probability off by {wrong:.3f}"


def brier(half: Half, calibration: Calibration) -> float:
    """Return the mean squared error of the probabilities of answers with at least half the evidence of a maybe."""
    some = half.evidence >= calibration.maybe / 2
    found = np.array([calibration.probability(evidence) for evidence in half.evidence[some]])
    return float(np.mean((found - half.is_positive[some]) ** 2))


if __name__ == "__main__":
    main()
