"""The verdict on a verified answer: does it show what the query shows, and how sure is that?

The evidence of an answer is what its matches add to its score with the default weights, see `Reranking`. What it means
is learned from a collection without labels, target against decoy (Elias and Gygi, Nature Methods 4, 2007): answers of
indexed images are verified twice, as they are (targets) and with the query mirrored left to right (decoys). The map of
a mirrored query would be mirrored, which is refused, so only chance is left.

    F(e) = n / u * (1 + number of the u decoys with evidence >= e)      answers that chance lets reach e
    T(e) = number of the n targets with evidence >= e
    match   from the least e with F(e) / T(e) <= 1 %, maybe from the least e with F(e) / T(e) <= 10 %

Two photographs of one thing agree in an upright strip even if one of them is mirrored, since a map can move the strip
to where it was. So the u decoys are those of answers that are hardly the same thing, below the constant of the package
for `maybe`. The probability is 1 - dF(e) / dT(e), monotone in e: the share of decoys among decoys and targets is fitted
by isotonic regression (Ayer et al., Annals of Mathematical Statistics 26, 1955).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asmk_engine.verification.match import Match, Verification
from asmk_engine.verification.reranking import Comparison, Reranking

MATCH, MAYBE, NO = "match", "maybe", "no"
MOST = 0.999
"""The greatest probability that is given."""
WRONG = {MATCH: 0.01, MAYBE: 0.1}
"""Largest share of wrong ones among the answers that are matches, and among those that are matches or maybes."""
MIRRORED_LOSS = 1.15
"""Mirroring also takes away that sky is above and ground below: unrelated photographs as they are reach so much more.

Chosen of 1, 1.15 and 1.3 by the precision of the matches on both halves of the shared photographs (docs/halves.md).
"""
RARE = 1000
"""Constants are raised, if need be, to what one decoy of so many reaches."""
_WEIGHTS, _COMPARED = Reranking(), Verification()


@dataclass(frozen=True)
class Calibration:
    """What evidence means.

    Attributes
    ----------
    match, maybe : float
        Least evidence of a match, and of a maybe, which is no more.
    evidences, probabilities : tuple of float
        The probability at some values of the evidence, both increasing; linear in between, constant outside.
    is_learned : bool
        Whether it was learned from a collection; else it is a constant of the package.
    features : str
        The features whose constants were used, or would have been: `rootsift`, `learned` or `several` kinds.
    images, answers : int
        Numbers of images that were queries, and of their answers that were verified; 0 for a constant.
    """

    match: float
    maybe: float
    evidences: tuple[float, ...]
    probabilities: tuple[float, ...]
    is_learned: bool = False
    features: str = "learned"
    images: int = 0
    answers: int = 0

    def probability(self, evidence: float) -> float:
        """Return the probability that an answer with this evidence shows what the query shows, at most 0.999."""
        return float(np.interp(evidence, self.evidences, self.probabilities))

    def verdict(self, evidence: float) -> str:
        """Return `match`, `maybe` or `no`."""
        return MATCH if evidence >= self.match else MAYBE if evidence >= self.maybe else NO

    def judged(self, matches: Iterable[Match | None]) -> tuple[str, float]:
        """Return verdict and probability of an answer, whose matches are of all kinds of local features."""
        evidence = evidence_of(matches)
        return self.verdict(evidence), round(self.probability(evidence), 4)

    def raised(self, factor: float) -> Calibration:
        """Return a calibration that needs so many times the evidence."""
        return replace(
            self,
            match=self.match * factor,
            maybe=self.maybe * factor,
            evidences=tuple(evidence * factor for evidence in self.evidences),
        )


def evidence_of(matches: Iterable[Match | None]) -> float:
    """Return the evidence of an answer: what its matches add to its score with the default weights, 0 for None."""
    return math.fsum(_WEIGHTS.evidence(match) for match in matches)


def is_judged(comparison: Comparison) -> bool:
    """Return whether answers that were compared this way get a verdict: only by places, with default options."""
    return comparison == _COMPARED


# Learned with the labels of both halves of the shared photographs, see benchmarks/verdicts.py and docs/halves.md.
CONSTANTS = {
    "learned": Calibration(
        0.861,
        0.450,
        (0.072, 0.327, 0.369, 0.484, 0.587, 0.713, 0.843, 0.941),
        (0.0, 0.133, 0.222, 0.438, 0.625, 0.75, 0.8, 0.998),
    ),
    "rootsift": Calibration(
        0.317,
        0.142,
        (0.04, 0.128, 0.147, 0.183, 0.217, 0.286, 0.439),
        (0.0, 0.182, 0.198, 0.52, 0.75, 0.857, 0.998),
    ),
    "several": Calibration(
        0.996,
        0.505,
        (0.143, 0.434, 0.5, 0.581, 0.645, 0.812, 1.028, 1.058),
        (0.0, 0.091, 0.218, 0.385, 0.524, 0.674, 0.857, 0.998),
    ),
}


def constants_of(extractors: Sequence[str]) -> Calibration:
    """Return the constants for the local features of an index.

    extractors  the name of the extractor of each kind of local features, as in its recipe
    """
    features = "several" if len(extractors) > 1 else "rootsift" if [*extractors] == ["rootsift"] else "learned"
    return replace(CONSTANTS[features], features=features)


def learned(targets: np.ndarray, decoys: np.ndarray, constants: Calibration, images: int = 0) -> Calibration:
    """Learn what evidence means from answers that are verified as they are, and with the query mirrored.

    Where too few answers match to prove a match, this returns the constants, raised to what one decoy in a thousand
    reaches.

    targets    [n] float64, the evidence of the answers
    decoys     [n] float64, their evidence with the query mirrored
    constants  what is known of such features
    images     number of images that were queries
    """
    is_unrelated = targets < constants.maybe
    chance = np.sort(decoys[is_unrelated]) * MIRRORED_LOSS
    weight = len(targets) / len(chance) if len(chance) else 1.0
    found = replace(constants, images=images, answers=len(targets))
    match, maybe = (threshold(targets, chance, weight, wrong) for wrong in (WRONG[MATCH], WRONG[MAYBE]))
    if match is None or maybe is None:
        rare = float(chance[-1 - len(chance) // RARE]) if len(chance) >= RARE else 0.0
        return found.raised(max(1.0, rare / constants.match))
    evidences, probabilities = probabilities_of(targets, chance, weight)
    return replace(found, match=match, maybe=maybe, evidences=evidences, probabilities=probabilities, is_learned=True)


def threshold(targets: np.ndarray, chance: np.ndarray, weight: float, wrong: float) -> float | None:
    """Return the least evidence where at most this share of the targets is there by chance; None if there is none.

    targets  [n] float64
    chance   [u] float64, increasing
    weight   number of answers that each value of `chance` stands for
    """
    levels, counts = np.unique(targets[targets > 0], return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1]
    false = weight * (1 + len(chance) - np.searchsorted(chance, levels))
    enough = np.flatnonzero(false <= wrong * reached)
    return float(levels[enough[0]]) if len(enough) else None


def probabilities_of(
    targets: np.ndarray, chance: np.ndarray, weight: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return values of the evidence, increasing, and the probability at each, not decreasing.

    One more decoy has the greatest evidence, so that nothing is more certain than the number of targets allows.

    targets, chance, weight  as for `threshold`
    """
    top = max(targets.max(initial=0.0), chance.max(initial=0.0))
    evidence = np.concatenate([targets, chance, [top]])
    is_target = np.arange(len(evidence)) < len(targets)
    levels, at = np.unique(evidence, return_inverse=True)
    wholes = np.bincount(at, np.where(is_target, 1.0, weight))
    shares, firsts, lasts = isotonic(np.bincount(at, is_target) / wholes, wholes)
    odds = np.divide(1 - shares, shares, out=np.ones_like(shares), where=shares > 0)
    found = np.repeat(np.clip(1 - odds, 0.0, MOST), 2)
    knots = levels[np.column_stack([firsts, lasts]).ravel()]
    return tuple(np.round(knots, 6).tolist()), tuple(np.round(found, 6).tolist())


def isotonic(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the levels of the isotonic regression, increasing, and the first and last value that has each.

    By pooling adjacent violators. values, weights  [n] float64, n > 0
    """
    blocks: list[tuple[float, float, int]] = []  # sums of weights and of weighted values, and the first value
    for place, (value, weight) in enumerate(zip(values.tolist(), weights.tolist(), strict=True)):
        block = (weight, weight * value, place)
        while blocks and blocks[-1][1] * block[0] >= block[1] * blocks[-1][0]:
            last = blocks.pop()
            block = (block[0] + last[0], block[1] + last[1], last[2])
        blocks.append(block)
    total, valued, firsts = np.array(blocks).T
    firsts = firsts.astype(np.int64)
    return valued / total, firsts, np.append(firsts[1:], len(values)) - 1
