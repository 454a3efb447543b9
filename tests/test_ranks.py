"""The array of rankings: written, read back, evaluated as the search is, and refused where it does not fit."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import evaluate
from asmk_engine.evaluation.ranks import evaluate_ranks, is_ranks, read_ranks, write_ranks

IMAGES = tuple("abcdefgh")
OTHERS = ("q0", "distractor1:a", "distractor1:x", "stranger")


class Hit(NamedTuple):
    """As much of a hit as ranking files know."""

    name: str
    score: float = 1.0


def truth_of(queries: int) -> GroundTruth:
    """Queries q0, q1, ... outside the database and, last, the image h."""
    found = [
        GroundTruthQuery(f"q{n}", None, frozenset(IMAGES[n : n + 2]), frozenset(IMAGES[n + 2]), frozenset(), False)
        for n in range(queries)
    ]
    own = GroundTruthQuery("h", None, frozenset("ah"), frozenset("b"), frozenset("c"), True)
    return GroundTruth(IMAGES, (*found, own), frozenset(one.name for one in found))


def hits(rankings: dict[str, list[str]]) -> Iterator[tuple[str, Iterable[Hit]]]:
    return ((query, [Hit(name) for name in ranking]) for query, ranking in rankings.items())


@given(st.lists(st.lists(st.sampled_from([*IMAGES, *OTHERS]), unique=True), min_size=4, max_size=4))
def test_the_map_of_an_array_is_the_map_of_the_search(
    tmp_path_factory: pytest.TempPathFactory, rankings: list[list[str]]
) -> None:
    ground_truth = truth_of(3)
    named = dict(zip([query.name for query in ground_truth.queries], rankings, strict=True))
    path = tmp_path_factory.getbasetemp() / "search.npy"
    write_ranks(path, ground_truth, hits(named), len(IMAGES) + len(OTHERS))
    ranks = read_ranks(path, ground_truth)
    assert ranks.shape == (12, 4) and is_ranks(path)
    if any(name in IMAGES for ranking in rankings for name in ranking) or not any(rankings):
        expected = evaluate(ground_truth, named)
        for form in (ranks, np.ascontiguousarray(ranks), np.asfortranarray(ranks).astype(np.int64)):
            found = evaluate_ranks(ground_truth, form)
            assert found.as_dict() == expected.as_dict() and found.per_query == expected.per_query


def test_an_array_in_full(tmp_path: Path) -> None:
    path = tmp_path / "ranks.npy"
    rankings = {"q0": ["b", "distractor1:a", "q1", "a"], "h": ["stranger", "h", "distractor1:a"]}
    write_ranks(path, truth_of(2), hits(rankings), 4)
    # q1 is the photograph of a query and is not written; the ranking of q1 was left out; strangers are numbered.
    assert np.load(path).T.tolist() == [[1, 8, 0, -1], [-1] * 4, [9, 7, 8, -1]]


def test_many_columns_and_rows_are_turned_right() -> None:
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(5000) for _ in range(37)], axis=1)
    images = tuple(map(str, range(5000)))
    queries = tuple(
        GroundTruthQuery(f"q{n}", None, frozenset([str(n)]), frozenset(), frozenset(), False) for n in range(37)
    )
    found = evaluate_ranks(GroundTruth(images, queries), ranks).per_query["easy"]
    for number in range(37):
        rank = int(np.flatnonzero(ranks[:, number] == number)[0])
        assert found[f"q{number}"] == ((1 if rank == 0 else 0) + 1 / (rank + 1)) / 2


def test_intervals_are_told_of_arrays_too() -> None:
    ranks = np.array([[0, 1, 2], [1, 0, 0]])
    assert evaluate_ranks(truth_of(2), ranks, interval=True).scores["medium"].interval is not None
    assert evaluate_ranks(truth_of(2), np.empty((0, 3), int)).as_dict()["medium"]["mAP"] == 0


@pytest.mark.parametrize(
    ("rankings", "depth", "error", "message"),
    [
        ({"h": [], "q0": []}, 9, NotFoundError, "'q0' is not one of the remaining queries; rank the queries in"),
        ({"x": []}, 9, NotFoundError, "query 'x' is not one of the remaining queries"),
        ({"q0": ["a", "b"]}, 1, InputError, "query 'q0': 2 ranked images, expected 1 at most"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, rankings: dict[str, list[str]], depth: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_ranks(tmp_path / "ranks.npy", truth_of(2), hits(rankings), depth)
    assert not list(tmp_path.iterdir())


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ground_truth, path = truth_of(2), tmp_path / "ranks.npy"
    with pytest.raises(NotFoundError, match="expected an array of rankings"):
        read_ranks(path, ground_truth)
    for array, error, message in (
        (np.zeros((3, 4), int), MismatchError, "4 columns, but the ground truth has 3 queries"),
        (np.zeros((3, 3)), FormatError, "an array of float64 and shape"),
        (np.zeros(3, int), FormatError, "invalid header"),
        (np.array([[{}]], object), FormatError, "an array of object"),
        (np.zeros((3, 3), [("a", "i4")]), FormatError, "expected a .npy array of integers"),
    ):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(error, match=message) as caught:
            read_ranks(path, ground_truth)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    np.save(path, np.zeros((3, 3), np.int32))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(DamagedError, match="163 bytes are too few for 3 × 3 numbers"):
        read_ranks(path, ground_truth)
    path.write_bytes(b"1 Q0 a 1 2 x")
    with pytest.raises(FormatError, match=r"not a \.npy file"):
        read_ranks(path, ground_truth)
    with pytest.raises(InputError, match="does not list its database images in order"):
        read_ranks(path, GroundTruth(("a",), (), complete=False))
    with pytest.raises(MismatchError, match="expected a column for each of 3 queries"):
        evaluate_ranks(ground_truth, np.zeros((3, 2), int))
    with pytest.raises(InputError, match="query 'q0': the number -2, expected -1 for none"):
        evaluate_ranks(ground_truth, np.full((1, 3), -2))
    with pytest.raises(InputError, match="'q1' holds 'number 5' twice"):
        evaluate_ranks(ground_truth, np.array([[1, 5, 1], [2, 5, 2]]))


def test_damaged_files_fail_only_with_our_errors(tmp_path: Path) -> None:
    ground_truth, path = truth_of(1), tmp_path / "ranks.npy"
    write_ranks(path, ground_truth, hits({"q0": ["a", "c"], "h": ["b"]}), 3)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(len(whole)), *range(12)]:
        for data in (whole[:place], whole[:place] + bytes([rng.integers(256)]) + whole[place + 1 :]):
            path.write_bytes(data)
            try:
                evaluate_ranks(ground_truth, read_ranks(path, ground_truth))
            except AsmkError as error:
                assert "\n" not in str(error)
    assert not is_ranks(tmp_path) and not is_ranks(tmp_path / "nothing")
