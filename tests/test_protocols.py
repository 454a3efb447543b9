"""The protocols other than Revisited Oxford and Paris, rankings of numbers, and the interval of a mean."""

import json
import math
import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
import naive_evaluation as twin
from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.metrics import average_precision_at, ranks_without
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.names import resolve
from asmk_engine.evaluation.protocol import Evaluator, depth_needed, evaluate
from asmk_engine.evaluation.ranks import evaluate_ranks

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not there")
IMAGES = tuple("abcdefghijklmno")

subsets = st.sets(st.sampled_from(IMAGES))
orders = st.lists(st.sampled_from(IMAGES), unique=True)


def query(name: str, found: str = "", junk: str = "", **more: Any) -> GroundTruthQuery:
    """A query without difficulties whose images are single letters."""
    more = {"in_database": False, **more}
    return GroundTruthQuery(name, None, frozenset(found), frozenset(), frozenset(junk), **more)


def write(folder: Path, text: str, name: str = "truth.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_ranks_fall_by_what_is_taken_out_above(places: set[int], taken_out: set[int]) -> None:
    places -= taken_out
    expected = [place - sum(other < place for other in taken_out) for place in sorted(places)]
    assert ranks_without(sorted(places), sorted(taken_out)).tolist() == expected


# name, ranks, positives, k, AP@k by hand
AVERAGE_PRECISION_AT = [
    ("perfect", [0, 1], 2, 100, Fraction(1)),
    ("none", [], 3, 100, Fraction(0)),
    ("at ranks 2 and 4", [1, 3], 2, 100, Fraction(1, 2)),  # (1 / 2 + 2 / 4) / 2
    ("a positive below k does not count", [0, 3], 2, 3, Fraction(1, 2)),
    ("more positives than fit", [0, 1], 5, 2, Fraction(1)),
    ("one of three", [2], 3, 100, Fraction(1, 9)),
]


@pytest.mark.parametrize(("name", "ranks", "positives", "k", "expected"), AVERAGE_PRECISION_AT)
def test_average_precision_at_by_hand(name: str, ranks: list[int], positives: int, k: int, expected: Fraction) -> None:
    assert average_precision_at(ranks, k, positives) == pytest.approx(float(expected), abs=1e-15)


def test_average_precision_at_where_it_means_nothing() -> None:
    assert math.isnan(average_precision_at([], 10, 0))
    with pytest.raises(InputError, match="k must be 1 or more"):
        average_precision_at([0], 0, 1)
    with pytest.raises(InputError, match="2 ranks of positives for 1"):
        average_precision_at([0, 1], 5, 1)


@given(st.lists(st.sampled_from(IMAGES)), st.sets(st.sampled_from(IMAGES), min_size=1))
def test_landmarks_equal_their_twin_duplicates_included(ranking: list[str], positives: set[str]) -> None:
    ground_truth = GroundTruth(
        IMAGES, (query("q", "".join(positives), part="public"),), protocol="gldv2", complete=False
    )
    found = evaluate(ground_truth, {"q": ranking}).per_query["public"]["q"]
    assert found == pytest.approx(twin.average_precision_at(ranking, positives, 100), abs=1e-12)


def test_landmarks_look_at_a_hundred_images_and_tell_parts_apart(tmp_path: Path) -> None:
    text = "id,images,Usage\nq1,a b,Public\nq2,c,Private\nq3,None,Ignored\nq4,d,Ignored\nq5,,Public\nq6,e,Private\n"
    ground_truth = read_ground_truth(write(tmp_path, text))
    assert (
        ground_truth.protocol == "gldv2" and ground_truth.images == ("a", "b", "c", "e") and not ground_truth.complete
    )
    assert [(one.name, one.part, set(one.easy)) for one in ground_truth.queries] == [
        ("q1", "public", {"a", "b"}),
        ("q2", "private", {"c"}),
        ("q6", "private", {"e"}),
    ]
    far = [f"x{number}" for number in range(99)]
    report = evaluate(ground_truth, {"q1": ["a", "x", "b"], "q2": [*far, "c"], "q6": [*far, "x", "e"]})
    assert report.as_dict() == {
        "private": {"mAP@100": 0.5, "queries": 2},
        "public": {"mAP@100": pytest.approx(100 * (1 + 2 / 3) / 2), "queries": 1},
    }
    assert report.main == "private" and depth_needed(ground_truth) == 100
    assert report.table().splitlines()[0].split() == ["mAP@100", "queries"]
    with pytest.raises(NotFoundError, match="2 of 3 queries have no ranking: 'q2', 'q6'"):
        evaluate(ground_truth, {"q1": ["a"]})
    assert evaluate(ground_truth, {"q1": ["a"]}, allow_missing=True).as_dict()["private"] == {
        "mAP@100": 0,
        "queries": 2,
    }


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("id,images,Usage\nq,a\n", DamagedError, "line 2: 2 columns, expected 3"),
        ("id,images\nq,a\nq,b\n", DamagedError, "line 3: the id 'q' is empty or repeated"),
        ('id,images\nq,"a\n', DamagedError, "line 2: unexpected end of data"),
        ("id,images,Usage\nq,None,Ignored\n", NotFoundError, "no query with images to find"),
        ("id,images\n", NotFoundError, "no query with images to find"),
    ],
)
def test_broken_solutions_are_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(error, match=message) as caught:
        read_ground_truth(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


ORIGINAL = {
    "imlist": ["a", "b", "c", "q"],
    "qimlist": ["q"],
    "gnd": [{"bbx": [1, 2, 30, 40], "ok": [0, 3], "junk": [2]}],
}
VALIDATION = {"cids": ["a", "b", "c", "q"], "qidx": [3], "gnd": [{"ok": [0], "junk": [2, 3]}]}


def test_the_original_layout(tmp_path: Path) -> None:
    ground_truth = read_ground_truth(write(tmp_path, json.dumps(ORIGINAL)))
    asked = query("q", "aq", "c", in_database=True, finds_itself=True)
    assert ground_truth == GroundTruth(tuple("abcq"), (replace(asked, box=(1, 2, 30, 40)),), protocol="original")
    report = evaluate(ground_truth, {"q": ["q", "c", "b", "a"]})
    # Without c: q b a, of which q and a are right.
    assert report.per_query == {"all": {"q": pytest.approx((1 + 1 + 1 / 2 + 2 / 3) / 4)}}
    assert report.as_dict()["all"].keys() == {"mAP", "mP@1", "mP@5", "mP@10", "queries"} and report.main == "all"


def test_named_queries_may_have_no_difficulty(tmp_path: Path) -> None:
    content = {"imlist": ["a", "b"], "queries": [{"query": "x", "ok": ["a"], "junk": []}]}
    ground_truth = read_ground_truth(write(tmp_path, json.dumps(content)))
    assert ground_truth.protocol == "original" and ground_truth.ignored == {"x"}
    assert evaluate(ground_truth, {"x": ["x", "b", "a"]}).per_query["all"] == {"x": 1 / 4}


def test_where_difficulties_are_known_no_query_finds_itself(tmp_path: Path) -> None:
    content = {"imlist": ["a", "q"], "queries": [{"query": "q", "easy": ["q", "a"], "hard": []}]}
    ground_truth = read_ground_truth(write(tmp_path, json.dumps(content)))
    assert ground_truth.queries[0].in_database and not ground_truth.queries[0].finds_itself
    assert (
        evaluate(ground_truth, {"q": ["q", "a"]}).per_query["easy"]
        == evaluate(ground_truth, {"q": ["a"]}).per_query["easy"]
    )
    assert evaluate(ground_truth, {"q": ["a"]}).per_query["easy"] == {"q": 1}


def test_the_validation_set_of_how(tmp_path: Path) -> None:
    path = tmp_path / "val.pkl"
    path.write_bytes(pickle.dumps({**VALIDATION, "qidx": np.array([3])}))
    ground_truth = read_ground_truth(path)
    assert (
        ground_truth.protocol == "how" and ground_truth.queries[0].name == "q" and ground_truth.queries[0].in_database
    )
    assert evaluate(ground_truth, {"q": ["q", "c", "a", "b"]}).per_query["all"] == {"q": 1}
    without = {**VALIDATION, "gnd": [{"ok": [0], "junk": []}]}  # a query that no list names is left out all the same
    assert evaluate(read_ground_truth(write(tmp_path, json.dumps(without))), {"q": ["q", "a"]}).per_query["all"] == {
        "q": 1
    }


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({**VALIDATION, "qidx": [4]}, DamagedError, "qidx holds the image number 4, expected 0 to 3"),
        ({**VALIDATION, "qidx": [3, 3]}, DamagedError, "2 names of queries and 1 queries in gnd"),
        ({**VALIDATION, "gnd": [{"easy": [], "hard": []}]}, FormatError, "where a validation set has ok and junk"),
        ({**ORIGINAL, "gnd": [{"ok": [2], "junk": [2]}]}, DamagedError, "'c' is listed under easy and junk"),
    ],
)
def test_broken_layouts_are_refused(tmp_path: Path, content: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_ground_truth(write(tmp_path, json.dumps(content)))


@given(orders, subsets, subsets)
def test_the_original_protocol_equals_oxfords_program(ranking: list[str], found: set[str], junk: set[str]) -> None:
    found = found - junk | {"a"}
    junk.discard("a")
    ground_truth = GroundTruth(
        IMAGES,
        (query("a", "".join(found), "".join(junk), in_database=True, finds_itself=True),),
        protocol="original",
    )
    expected = twin.oxford_average_precision(ranking, found, junk)
    report = evaluate(ground_truth, {"a": ranking})
    assert report.per_query["all"]["a"] == pytest.approx(expected, abs=1e-12)
    for k in (1, 5, 10):
        assert report.scores["all"].mean_precision[k] == naive.precision_at(ranking, found, junk, k)


def write_oxford(folder: Path, **changed: str | None) -> Path:
    texts: dict[str, str | None] = {
        "tower_1_query.txt": "oxc1_q 1.5 2 30 40\n",
        "tower_1_good.txt": "q\r\na\n\n",
        "tower_1_ok.txt": "b",
        "tower_1_junk.txt": "",
        "tower_2_query.txt": "r 1 2 3 4",
        "tower_2_good.txt": "",
        "tower_2_ok.txt": "r\n",
        "tower_2_junk.txt": "a\n",
    }
    for name, text in {**texts, **{f"{key}.txt": value for key, value in changed.items()}}.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_the_folder_of_text_files(tmp_path: Path) -> None:
    ground_truth = read_ground_truth(write_oxford(tmp_path))
    assert (
        ground_truth.images == ("a", "b", "q", "r")
        and ground_truth.protocol == "original"
        and not ground_truth.complete
    )
    assert [(one.name, one.box, set(one.easy), set(one.junk)) for one in ground_truth.queries] == [
        ("q", (1.5, 2, 30, 40), {"q", "a", "b"}, set()),
        ("r", (1, 2, 3, 4), {"r"}, {"a"}),
    ]
    assert all(one.in_database and one.finds_itself for one in ground_truth.queries)
    report = evaluate(ground_truth, {"q": ["q", "a", "x", "b"], "r": ["a", "x", "r"]})
    assert report.per_query["all"] == {"q": pytest.approx((4 + 2 / 3 + 3 / 4) / 6), "r": 1 / 4}
    named = [f"jpg/{name}.jpg" for name in ("a", "b", "q", "r", "elsewhere")]
    renamed = resolve(ground_truth, named).ground_truth
    assert renamed.queries[0].finds_itself and (renamed.protocol, renamed.complete) == ("original", False)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"tower_1_ok": None}, NotFoundError, "tower_1_ok.txt: no such file"),
        ({"tower_1_query": "q 1 2 3"}, DamagedError, "expected one line, the name of an image and the box"),
        ({"tower_1_query": "q 1 2 3 x"}, DamagedError, "the box '1 2 3 x' is not four numbers"),
        ({"tower_1_query": "q 3 2 1 4"}, DamagedError, "the box 3,2,1,4, expected x1 < x2"),
        ({"tower_1_junk": "a"}, DamagedError, "'a' is listed under easy and junk"),
        ({"tower_2_query": "q 1 2 3 4"}, DamagedError, "query is listed twice"),
    ],
)
def test_broken_folders_are_refused(
    tmp_path: Path, changed: dict[str, str | None], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_ground_truth(write_oxford(tmp_path, **changed))


def test_lists_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (write_oxford(tmp_path) / "tower_2_junk.txt").write_bytes(b"\xff")
    with pytest.raises(DamagedError, match=r"tower_2_junk\.txt: not text in UTF-8"):
        read_ground_truth(tmp_path)


@needs_shared
def test_the_published_folder_of_oxford5k() -> None:
    ground_truth = read_ground_truth(SHARED / "gnd" / "oxford5k_gt_txt")
    assert len(ground_truth.queries) == 55 and all(one.finds_itself for one in ground_truth.queries)
    assert ground_truth.queries[0].name == "all_souls_000013" and ground_truth.queries[0].box == (
        136.5,
        34.1,
        648.5,
        955.7,
    )
    assert len(ground_truth.images) == 845
    perfect = {one.name: sorted(one.easy) for one in ground_truth.queries}
    assert evaluate(ground_truth, perfect).as_dict()["all"]["mAP"] == 100
    revisited = read_ground_truth(SHARED / "gnd" / "gnd_roxford5k.pkl")
    named = {*revisited.images, *(one.name for one in revisited.queries)}
    assert len(set(ground_truth.images) - named) == 0


@needs_shared
@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_random_rankings_of_the_published_files_equal_the_twin(name: str) -> None:
    ground_truth = read_ground_truth(SHARED / "gnd" / f"gnd_{name}.pkl")
    ground_truth = replace(ground_truth, queries=ground_truth.queries[::14])
    rng = np.random.default_rng(0)
    count = len(ground_truth.images) + 500  # some of them distractors
    ranks = np.stack([rng.permutation(count) for _ in ground_truth.queries], axis=1)
    found = evaluate_ranks(ground_truth, ranks).per_query
    number = {image: place for place, image in enumerate(ground_truth.images)}
    for column, one in zip(ranks.T.tolist(), ground_truth.queries, strict=True):
        easy, hard, junk = ({number[image] for image in part} for part in (one.easy, one.hard, one.junk))
        rows = {"easy": (easy, junk | hard), "medium": (easy | hard, junk), "hard": (hard, junk | easy)}
        for row, (positives, out) in rows.items():
            if positives:
                expected = twin.published_average_precision(column, positives, out)
                assert found[row][one.name] == pytest.approx(expected, abs=1e-12)
            assert (one.name in found[row]) == bool(positives)


def test_what_no_protocol_knows_is_refused() -> None:
    with pytest.raises(InputError, match="protocol 'own': expected one of revisited, original, how, gldv2"):
        GroundTruth(("a",), (), protocol="own")
    with pytest.raises(InputError, match="'a' is marked as finding itself, but is not one of the images"):
        GroundTruth(("a", "b"), (query("a", "b", in_database=True, finds_itself=True),))


@given(st.permutations(range(20)), st.integers(0, 20), subsets, subsets, subsets)
def test_numbers_are_evaluated_as_names_are(
    numbers: list[int], length: int, easy: set[str], hard: set[str], junk: set[str]
) -> None:
    hard, junk = hard - easy, junk - easy - hard
    one = GroundTruthQuery("a", None, frozenset(easy), frozenset(hard), frozenset(junk), True)
    ground_truth = GroundTruth(IMAGES, (one,), frozenset())
    ranked = numbers[:length]
    evaluator = Evaluator(ground_truth, {image: number for number, image in enumerate(IMAGES)})
    evaluator.add_numbers("a", np.array(ranked + [-1] * (20 - length), np.int16))
    names = [IMAGES[n] if n < len(IMAGES) else f"distractor1:{n}" for n in ranked]
    found = evaluator.report()
    if set(names) & set(IMAGES) or not names:
        named = evaluate(ground_truth, {"a": names})
        assert found.as_dict() == named.as_dict() and found.per_query == named.per_query
    positives = {IMAGES.index(image) for image in (easy | hard) - {"a"}}
    if positives:
        out = {IMAGES.index(image) for image in junk | {"a"}}
        expected = twin.published_average_precision(ranked, positives, out)
        assert found.per_query["medium"]["a"] == pytest.approx(expected, abs=1e-12)


def test_numbers_that_stand_twice_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ground_truth = GroundTruth(("a", "b"), (query("q", "a"),))
    for most in (1 << 27, 2):
        monkeypatch.setattr("asmk_engine.evaluation.protocol._MOST_SEEN", most)
        with pytest.raises(InputError, match="'q' holds 'number 7' twice"):
            Evaluator(ground_truth, {"a": 0, "b": 1}).add_numbers("q", np.array([7, 0, 7]))
        evaluator = Evaluator(ground_truth, {"a": 0, "b": 1})
        evaluator.add_numbers("q", np.array([2**40, 0]))
        assert evaluator.report().per_query["easy"] == {"q": 1 / 4}


def test_a_query_is_evaluated_once() -> None:
    evaluator = Evaluator(GroundTruth(("a",), (query("q", "a"),)))
    evaluator.add("other", ["a"])
    evaluator.add("q", ["a"])
    with pytest.raises(InputError, match="'q' has two rankings"):
        evaluator.add("q", ["a"])


def test_rankings_of_other_data_are_refused_and_empty_ones_are_not() -> None:
    evaluator = Evaluator(GroundTruth(("a",), (query("q", "a"), query("r", "a"))))
    evaluator.add("q", [])
    evaluator.add("r", ["x"])
    with pytest.raises(MismatchError, match=r"no ranked image \('x', \.\.\.\)"):
        evaluator.report()


def test_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(3).normal(0.6, 0.2, 70).tolist()
    found = bootstrap(values)
    assert found == bootstrap(values) != bootstrap(values, seed=1)
    assert found.mean == pytest.approx(sum(values) / 70, abs=1e-15)
    error = np.std(values) / math.sqrt(70)  # for so many values the percentile interval is near the normal one
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.004)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.004)
    narrow = bootstrap(values, confidence=0.5)
    assert found.low < narrow.low < found.mean < narrow.high < found.high


def test_intervals_of_few_values_by_hand() -> None:
    assert bootstrap([0.25]) == bootstrap([0.25, 0.25]) == bootstrap([0.25], rounds=1)
    # The mean of two draws from {0, 1} is 0, 1/2, 1/2 or 1, so that a quarter lies at each end.
    assert (bootstrap([0, 1]).low, bootstrap([0, 1]).high) == (0, 1)
    assert (bootstrap([0, 1], confidence=0.4).low, bootstrap([0, 1], confidence=0.4).high) == (0.5, 0.5)
    assert all(map(math.isnan, vars(bootstrap([])).values()))


def test_chunks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(11).tolist()
    whole = bootstrap(values, rounds=100)
    monkeypatch.setattr("asmk_engine.evaluation.bootstrap._CHUNK", 50)
    assert bootstrap(values, rounds=100) == whole


@pytest.mark.parametrize(
    ("values", "options"),
    [([1], {"confidence": 1.0}), ([1], {"confidence": 0.0}), ([1], {"rounds": 0}), ([math.nan], {}), ([[1]], {})],
)
def test_intervals_of_nothing_sensible_are_refused(values: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        bootstrap(values, **options)


def test_a_report_tells_its_interval() -> None:
    ground_truth = GroundTruth(IMAGES, tuple(query(f"q{number}", "a") for number in range(4)))
    rankings = {f"q{number}": ["b"] * (number % 2) + ["a"] for number in range(4)}
    row = evaluate(ground_truth, rankings, interval=True).as_dict()["easy"]
    assert list(row) == ["mAP", "low", "high", "mP@1", "mP@5", "mP@10", "queries"]
    assert (row["low"], row["mAP"], row["high"]) == (25, 62.5, 100)
    hard = evaluate(ground_truth, rankings, interval=True).as_dict()["hard"]
    assert hard["low"] is None and hard["queries"] == 0
