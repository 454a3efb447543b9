"""Average precision, precision at k and the protocol: hand-computed cases, and the slow twins on random ones."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

import naive
from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.evaluation.ground_truth import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.metrics import average_precision, precision_at, ranks_without
from asmk_engine.evaluation.protocol import evaluate

# name, ranks of the positives once junk is gone, positives, AP by hand
AVERAGE_PRECISION = [
    ("perfect", [0, 1, 2], 3, Fraction(1)),
    ("one at the top", [0], 1, Fraction(1)),
    ("one at rank 1", [1], 1, Fraction(1, 4)),  # (0 / 1 + 1 / 2) / 2
    ("one at rank 9", [9], 1, Fraction(1, 20)),  # (0 / 9 + 1 / 10) / 2
    ("one of two missing", [0], 2, Fraction(1, 2)),
    ("all missing", [], 4, Fraction(0)),
    # (1 + 1) / 4 for rank 0, (1 / 3 + 2 / 4) / 4 for rank 3
    ("first and fourth", [0, 3], 2, Fraction(17, 24)),
    # (0 / 1 + 1 / 2 + 1 / 2 + 2 / 3) / 4
    ("second and third", [1, 2], 2, Fraction(5, 12)),
]

# name, ranks, positives, k, precision by hand
PRECISION = [
    ("perfect", [0, 1, 2], 3, 1, Fraction(1)),
    ("last positive above k divides by its rank", [0, 1, 2], 3, 10, Fraction(1)),
    ("last positive at rank 4 of 5", [0, 3], 2, 5, Fraction(2, 4)),
    ("last positive at k", [0, 4], 2, 5, Fraction(2, 5)),
    ("last positive below k", [0, 9], 2, 5, Fraction(1, 5)),
    ("a missing positive stands below everything", [0, 1], 3, 5, Fraction(2, 5)),
    ("all missing", [], 2, 5, Fraction(0)),
    ("first missed", [1], 1, 1, Fraction(0)),
]


@pytest.mark.parametrize(("name", "ranks", "positives", "expected"), AVERAGE_PRECISION)
def test_average_precision_by_hand(name: str, ranks: list[int], positives: int, expected: Fraction) -> None:
    assert average_precision(ranks, positives) == pytest.approx(float(expected), abs=1e-15)


@pytest.mark.parametrize(("name", "ranks", "positives", "k", "expected"), PRECISION)
def test_precision_by_hand(name: str, ranks: list[int], positives: int, k: int, expected: Fraction) -> None:
    assert precision_at(ranks, k, positives) == float(expected)


def test_without_positives_nothing_is_defined() -> None:
    assert math.isnan(average_precision([], 0))
    assert math.isnan(precision_at([], 10, 0))


def ranks_of(positive: ArrayLike, junk: ArrayLike) -> NDArray[np.int64]:
    """Ranks of the positives without the junk, from a flag of each for every place."""
    positive, junk = np.asarray(positive, bool), np.asarray(junk, bool)
    return ranks_without(np.flatnonzero(positive & ~junk), np.flatnonzero(junk))


@pytest.mark.parametrize(
    ("positive", "junk", "expected"),
    [
        ([0, 1, 0, 1], [0, 0, 0, 0], [1, 3]),
        ([0, 0, 1], [1, 1, 0], [0]),  # junk above
        ([1, 0, 1, 0, 1], [0, 1, 0, 0, 0], [0, 1, 3]),  # junk between
        ([1, 0], [0, 1], [0]),  # junk below
        ([1, 1], [1, 0], [0]),  # what is both is junk
        ([0, 0], [1, 1], []),
        ([], [], []),
    ],
)
def test_junk_is_taken_out_of_the_ranking(positive: list[int], junk: list[int], expected: list[int]) -> None:
    ranks = ranks_of(positive, junk)
    assert ranks.tolist() == expected
    assert ranks.dtype == np.int64


@pytest.mark.parametrize(
    ("ranks", "positives", "message"),
    [
        ([2, 1], 2, "increasing"),
        ([1, 1], 2, "increasing"),
        ([-1], 1, "of 0 or more"),
        ([[0]], 1, "list"),
        ([0, 1], 1, "repeats an image"),
    ],
)
def test_impossible_ranks_are_refused(ranks: list[int], positives: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        average_precision(ranks, positives)
    with pytest.raises(InputError, match=message):
        precision_at(ranks, 5, positives)


def test_impossible_depths_are_refused() -> None:
    with pytest.raises(InputError, match="k must be 1"):
        precision_at([0], 0, 1)


IMAGES = tuple("abcdefghijklmnopqrst")


@st.composite
def evaluated_rankings(draw: st.DrawFn) -> tuple[list[str], set[str], set[str], set[str]]:
    """A ranking of some of the images, and disjoint easy, hard and junk."""
    ranking = draw(st.lists(st.sampled_from(IMAGES), unique=True))
    labels = draw(st.lists(st.integers(0, 3), min_size=len(IMAGES), max_size=len(IMAGES)))
    easy, hard, junk = ({image for image, label in zip(IMAGES, labels, strict=True) if label == n} for n in (1, 2, 3))
    return ranking, easy, hard, junk


@given(evaluated_rankings(), st.integers(1, 25))
def test_metrics_equal_their_twins(evaluated: tuple[list[str], set[str], set[str], set[str]], k: int) -> None:
    ranking, positives, _, junk = evaluated
    if positives:
        ranks = ranks_of([image in positives for image in ranking], [image in junk for image in ranking])
        expected = naive.trapezoid_average_precision(ranking, positives, junk)
        assert average_precision(ranks, len(positives)) == pytest.approx(expected, abs=1e-12)
        assert precision_at(ranks, k, len(positives)) == naive.precision_at(ranking, positives, junk, k)


@given(evaluated_rankings(), st.integers(1, 25), st.integers(0, 20))
def test_a_shorter_ranking_is_never_better(
    evaluated: tuple[list[str], set[str], set[str], set[str]], k: int, length: int
) -> None:
    ranking, positives, _, _ = evaluated
    if positives:
        whole = np.flatnonzero([image in positives for image in ranking])
        cut = whole[whole < length]
        assert average_precision(cut, len(positives)) <= average_precision(whole, len(positives)) + 1e-15
        assert precision_at(cut, k, len(positives)) <= precision_at(whole, k, len(positives))


def test_a_million_images_take_no_time() -> None:
    positive = np.zeros(1_000_000, dtype=bool)
    positive[999_999] = True
    ranks = ranks_of(positive, np.roll(positive, 1))
    assert average_precision(ranks, 1) == pytest.approx(1 / 999_999 / 2)


def query(name: str, easy: str = "", hard: str = "", junk: str = "", in_database: bool = False) -> GroundTruthQuery:
    """A query whose images are single letters."""
    return GroundTruthQuery(name, None, frozenset(easy), frozenset(hard), frozenset(junk), in_database)


@given(st.dictionaries(st.sampled_from(["one", "two", "three"]), evaluated_rankings(), min_size=1))
def test_the_protocol_equals_its_twin(cases: dict[str, tuple[list[str], set[str], set[str], set[str]]]) -> None:
    queries = [GroundTruthQuery(name, None, *map(frozenset, case[1:]), False) for name, case in cases.items()]
    rankings = {name: case[0] for name, case in cases.items()}
    report = evaluate(GroundTruth(IMAGES, tuple(queries)), rankings)
    expected = naive.revisited({name: case[1:] for name, case in cases.items()}, rankings)
    for difficulty, (mean, precision, count) in expected.items():
        scores = report.scores[difficulty]
        assert scores.queries == count == len(report.per_query[difficulty])
        assert scores.mean_average_precision == pytest.approx(mean, abs=1e-12, nan_ok=True)
        assert scores.mean_precision == pytest.approx(precision, abs=1e-12, nan_ok=True)


def test_the_three_difficulties_by_hand() -> None:
    ground_truth = GroundTruth(IMAGES, (query("q", easy="a", hard="b", junk="c"),))
    report = evaluate(ground_truth, {"q": ["c", "b", "d", "a"]})
    # Easy without b and c: d a. Medium without c: b d a. Hard without a and c: b d.
    assert report.scores["easy"].mean_average_precision == 1 / 4
    assert report.scores["medium"].mean_average_precision == pytest.approx((2 + 1 / 2 + 2 / 3) / 4)
    assert report.scores["hard"].mean_average_precision == 1
    assert report.scores["medium"].mean_precision == {1: 1, 5: 2 / 3, 10: 2 / 3}


def test_a_query_in_the_database_is_left_out_of_its_own_ranking() -> None:
    ground_truth = GroundTruth(IMAGES, (query("q", easy="qa", in_database=True),))
    report = evaluate(ground_truth, {"q": ["q", "a"]})
    assert report.as_dict()["easy"] == {"mAP": 100, "mP@1": 100, "mP@5": 100, "mP@10": 100, "queries": 1}
    assert evaluate(ground_truth, {"q": ["a"]}) == report


def test_photographs_of_queries_outside_the_database_do_not_count() -> None:
    ground_truth = GroundTruth(("a", "b"), (query("q", easy="a"), query("r", easy="b")), ignored=frozenset(["q", "r"]))
    report = evaluate(ground_truth, {"q": ["q", "r", "a"], "r": ["q", "r", "b"]})
    assert report.scores["easy"].mean_average_precision == 1


def test_images_that_the_truth_does_not_know_are_negatives() -> None:
    report = evaluate(GroundTruth(("a",), (query("q", easy="a"),)), {"q": ["distractor", "a"]})
    assert report.scores["easy"].mean_average_precision == 1 / 4


def test_queries_without_positives_are_in_no_mean() -> None:
    ground_truth = GroundTruth(IMAGES, (query("q", easy="a"), query("r", hard="b")))
    report = evaluate(ground_truth, {"q": ["a"], "r": ["a", "b"]})
    assert {difficulty: scores.queries for difficulty, scores in report.scores.items()} == {
        "easy": 1,
        "medium": 2,
        "hard": 1,
    }
    assert report.per_query == {"easy": {"q": 1}, "medium": {"q": 1, "r": 1 / 4}, "hard": {"r": 1 / 4}}


def test_a_query_without_a_ranking_is_named_or_counts_as_finding_nothing() -> None:
    ground_truth = GroundTruth(IMAGES, (query("q", easy="a"), query("r", easy="b")))
    with pytest.raises(NotFoundError, match=r"1 of 2 queries have no ranking: 'r'"):
        evaluate(ground_truth, {"q": ["a"]})
    report = evaluate(ground_truth, {"q": ["a"]}, allow_missing=True)
    assert report.scores["easy"].mean_average_precision == 1 / 2
    assert report.unranked == ("r",)


def test_an_image_twice_in_a_ranking_is_refused() -> None:
    with pytest.raises(InputError, match=r"'q' holds 'b' twice"):
        evaluate(GroundTruth(IMAGES, (query("q", easy="a"),)), {"q": ["a", "b", "c", "b"]})


def test_rankings_of_another_collection_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"no ranked image \('x\.jpg', \.\.\.\) is one of the 20"):
        evaluate(GroundTruth(IMAGES, (query("q", easy="a"),)), {"q": ["x.jpg"]})


def test_rankings_that_found_nothing_score_nothing() -> None:
    report = evaluate(GroundTruth(IMAGES, (query("q", easy="a"),)), {"q": []})
    assert report.scores["easy"].mean_average_precision == 0


def test_the_report_as_text_and_as_numbers() -> None:
    ground_truth = GroundTruth(IMAGES, (query("q", easy="a"), query("r", easy="bc")))
    report = evaluate(ground_truth, {"q": ["b", "a"], "r": ["b"]})
    assert report.as_dict()["easy"] == {"mAP": 37.5, "mP@1": 50, "mP@5": 35, "mP@10": 30, "queries": 2}
    assert report.as_dict()["hard"] == {"mAP": None, "mP@1": None, "mP@5": None, "mP@10": None, "queries": 0}
    lines = report.table().splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["mAP", "mP@1", "mP@5", "mP@10", "queries"],
        ["easy", "37.50", "50.00", "35.00", "30.00", "2"],
    ]
    assert lines[3].split() == ["hard", "-", "-", "-", "-", "0"]
    assert report.worst("easy", 1) == [("q", 1 / 4)]
    assert report.worst("easy") == [("q", 1 / 4), ("r", 1 / 2)]
