"""How many of the nearest words the graph finds, measured on held-out descriptors, and the beam that suffices.

Recall@1 is the share of descriptors whose nearest word comes first, recall@5 the share of the five nearest words that
are among the five found, at any position. With fewer than five words, all of them take the place of the five.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from asmk_engine.codebooks.assign import nearest_words
from asmk_engine.codebooks.graph import BEAM, MOST_IN_VIEW, SPREAD, WIDER, Graph, Navigator
from asmk_engine.errors import DamagedError
from asmk_engine.threads import thread_count

LEAST_AT_1, LEAST_AT_5 = 0.99, 0.98
DEPTH = 5  # words of a query descriptor, as in the paper
HELD_OUT = 10_000  # descriptors to measure with: the standard error of a recall of 0.99 is 0.001
HELD_OUT_SHARE = 20  # at most one in so many descriptors is held out
LEAST_BEAM = WIDER * DEPTH  # a narrower beam would be widened to this for DEPTH words
# The largest beam takes as long as comparing a descriptor with all words, on one thread: with 16 384 words and 128
# dimensions, a beam of 128 took 0.8 (spread 1.25) to 1.1 times that, a beam of 256 twice.
WORDS_PER_BEAM = 128
# With the usual spread, searches among many equally far words end too early: 0.863 at any beam where 2 reached 0.992.
SPREADS = (SPREAD, 1.25, 2.0)
RERANKED = 2  # words compared in double precision for each of the DEPTH words
BLOCK = 512  # descriptors compared in double precision at a time


@dataclass(frozen=True)
class GraphRecall:
    """The recall of a graph, as measured.

    beam, spread   with which it was measured
    descriptors    number of descriptors it was measured on
    recall_at_1    in [0, 1]
    recall_at_5    in [0, 1]
    """

    beam: int
    spread: float
    descriptors: int
    recall_at_1: float
    recall_at_5: float

    @property
    def is_enough(self) -> bool:
        """Whether both recalls reach LEAST_AT_1 and LEAST_AT_5."""
        return self.recall_at_1 >= LEAST_AT_1 and self.recall_at_5 >= LEAST_AT_5

    def __str__(self) -> str:
        least = "" if self.is_enough else f"; expected at least {LEAST_AT_1:.3f} and {LEAST_AT_5:.3f}"
        return (
            f"recall@1 {self.recall_at_1:.4f}, recall@5 {self.recall_at_5:.4f} "
            f"at beam {self.beam} on {self.descriptors} descriptors{least}"
        )

    def to_json(self) -> str:
        """Return the measurement as one line of JSON."""
        return json.dumps(asdict(self))


def recall_from_json(text: str | None, where: object) -> GraphRecall | None:
    """Read a stored measurement, None if there is none; raises DamagedError if it is not valid."""
    if text is None:
        return None
    try:
        found = GraphRecall(**json.loads(text))
        counts = all(isinstance(value, int) and value >= 1 for value in (found.beam, found.descriptors))
        valid = counts and all(0 <= float(value) <= 1 for value in (found.recall_at_1, found.recall_at_5))
        valid = valid and 1 <= float(found.spread) < math.inf
    except (ValueError, TypeError):
        valid = False
    if not valid:
        raise DamagedError(f"{where}: the recall of its graph is not readable: {text[:80]!r}; the file was altered")
    return found


def choose_beam(
    centroids: np.ndarray, graph: Graph, projected: np.ndarray, *, workers: int | None = None
) -> tuple[Graph, GraphRecall]:
    """Return the graph with the smallest beam that finds enough of the nearest words, and the recall measured with it.

    The beams of `beams` are tried in increasing order, each with the spreads of SPREADS. If none finds enough, the
    largest is returned, of which `is_enough` is false. The result does not depend on the number of threads.

    centroids  [K, D] float32
    projected  [n, D] float32, n >= 1, descriptors that the centroids were not trained on
    """
    projected = np.ascontiguousarray(projected, np.float32)
    exact, count = true_nearest(projected, centroids), thread_count(workers)
    navigator = Navigator(centroids, graph)

    def measured(beam: int, spread: float) -> GraphRecall:
        navigator.graph = replace(graph, beam=beam, spread=spread)
        found = navigator.nearest(projected, exact.shape[1], workers=count)
        return GraphRecall(beam, spread, len(projected), *recalls(exact, found))

    for beam in beams(len(centroids)):
        best = measured(beam, SPREADS[-1])
        if best.is_enough:  # only then can a smaller spread find enough
            best = next((one for spread in SPREADS[:-1] if (one := measured(beam, spread)).is_enough), best)
            break
    return replace(graph, beam=best.beam, spread=best.spread), best


def beams(words: int) -> Iterator[int]:
    """Yield the beams to try: multiples of 8, in steps of an eighth or less, up to BEAM or a share of the words."""
    beam, most = LEAST_BEAM, min(max(BEAM, words // WORDS_PER_BEAM), MOST_IN_VIEW)
    while beam <= most:
        yield beam
        beam += max(8, beam // 64 * 8)


def recalls(exact: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Return recall@1, and the recall of all k words, of the words found [n, k] int32; n >= 1."""
    shared = sum(int((exact == found[:, [place]]).sum()) for place in range(found.shape[1]))
    return float((exact[:, 0] == found[:, 0]).mean()), shared / exact.size


def true_nearest(projected: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the nearest words, [n, min(DEPTH, K)] int32, nearest first; ties go to the lower word.

    The best of a comparison in single precision, whose last bits may depend on the threads, are compared in double
    precision.
    """
    depth = min(DEPTH, len(centroids))
    near = np.sort(nearest_words(projected, centroids, min(RERANKED * depth, len(centroids))), axis=1)
    words = np.empty((len(projected), depth), np.int32)
    for begin in range(0, len(projected), BLOCK):
        rows = slice(begin, begin + BLOCK)
        differences = centroids[near[rows]] - projected[rows, None].astype(np.float64)
        order = np.argsort((differences**2).sum(axis=2), axis=1, kind="stable")[:, :depth]
        words[rows] = np.take_along_axis(near[rows], order, axis=1)
    return words


def spaced(sample: np.ndarray) -> np.ndarray:
    """Return at most HELD_OUT rows of a sample, at even distances."""
    if len(sample) <= HELD_OUT:
        return sample
    return sample[np.arange(HELD_OUT) * len(sample) // HELD_OUT]
