"""The best images of a query, gathered in any order and by any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import naive
from asmk_engine.indexes.ranking import Ranking, best_images
from asmk_engine.inverted.search import normalised
from asmk_engine.kernels.rank import normalise


class Names:
    """Stands for a segment whose images are called by their numbers."""

    def __init__(self, base: int) -> None:
        self.base = base

    def names_as_bytes(self, numbers: np.ndarray) -> list[bytes]:
        return [b"%06d" % (self.base + number) for number in numbers.tolist()]


def add(ranking: Ranking, place: int, begin: int, raw: np.ndarray, norms: np.ndarray, query_norm: float) -> None:
    ranking.add(place, begin, *normalised(raw, norms, query_norm, ranking.floor))


def candidates(ranking: Ranking, segments: list[Names], top: int | None) -> list[tuple[float, bytes]]:
    best = best_images(segments, ranking.parts(), top)
    return list(zip(best.scores.tolist(), best.names, strict=True))


# Few values, so that many scores are equal; images without a norm have no words.
WORTHS = st.sampled_from([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 1e-300])
NORMS = st.sampled_from([0.0, 1.0, 2.0])
IMAGES = st.lists(st.tuples(WORTHS, NORMS), max_size=40)


def arrays(images: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(images, np.float64).reshape(-1, 2)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


@given(IMAGES, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_normalising_collects_what_its_twin_does(images: list[tuple[float, float]], least: float) -> None:
    raw, norms = arrays(images)
    numbers, scores = np.full(len(raw) + 1, 77, np.uint32), np.full(len(raw) + 1, 7.0)
    count = normalise(raw, norms, 2.0, least, numbers, scores)
    wanted = sorted((n, score) for score, n in naive.best_images(raw, norms, 2.0, None) if score >= least)
    assert list(zip(numbers[:count].tolist(), scores[:count].tolist(), strict=True)) == wanted
    assert (numbers[count:] == 77).all() and (scores[count:] == 7.0).all()


@given(st.lists(IMAGES, min_size=1, max_size=6), st.none() | st.integers(1, 50), st.data())
def test_the_order_of_the_ranges_changes_nothing(
    ranges: list[list[tuple[float, float]]], top: int | None, data: st.DataObject
) -> None:
    begins = np.concatenate([[0], np.cumsum([len(images) for images in ranges])]).tolist()
    whole = arrays([image for images in ranges for image in images])
    wanted = [(score, b"%06d" % number) for score, number in naive.best_images(*whole, 3.0, top)]
    ranking = Ranking(top)
    order = data.draw(st.permutations(range(len(ranges))))
    for place in order:  # every range is a segment of its own
        add(ranking, place, 0, *arrays(ranges[place]), 3.0)
    assert candidates(ranking, [Names(begin) for begin in begins], top) == wanted
    one_segment = Ranking(top)
    for place in order:
        add(one_segment, 0, begins[place], *arrays(ranges[place]), 3.0)
    assert candidates(one_segment, [Names(0)], top) == wanted


def test_threads_gather_the_same() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 50, (64, 500)).astype(np.float64)
    norms = rng.integers(1, 4, (64, 500)).astype(np.float64)
    wanted = [(score, b"%06d" % n) for score, n in naive.best_images(raw.ravel(), norms.ravel(), 1.0, 40)]
    for threads in (1, 4):
        ranking = Ranking(40)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda r, into=ranking: add(into, 0, 500 * r, raw[r], norms[r], 1.0), range(64)))
        assert candidates(ranking, [Names(0)], 40) == wanted
