"""Ground truths: the published files, our own layout, contradictions, and how names are found among others."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine.errors import DamagedError, FormatError, InputError, NotFoundError
from asmk_engine.evaluation.ground_truth import GroundTruth, GroundTruthQuery, read_ground_truth
from asmk_engine.evaluation.names import match_names, resolve
from asmk_engine.evaluation.protocol import evaluate

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not there")

OURS = {
    "imlist": ["a.jpg", "b.jpg", "c.jpg", "q.jpg"],
    "queries": [
        {"query": "q.jpg", "bbox": None, "easy": ["a.jpg"], "hard": ["b.jpg"], "junk": ["c.jpg"], "kind": "toy"},
        {"query": "outside.jpg", "bbox": [1, 2, 30.5, 40], "easy": ["q.jpg"], "hard": []},
    ],
}
PUBLISHED = {
    "imlist": ["a", "b", "c"],
    "qimlist": ["q"],
    "gnd": [{"bbx": [1, 2.5, 30, 40], "easy": [0], "hard": [2], "junk": [1]}],
}


def write_json(folder: Path, content: object) -> Path:
    path = folder / "truth.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_pickle(folder: Path, content: object) -> Path:
    path = folder / "truth.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def changed(content: Any, *keys: Any, to: Any) -> Any:
    """A deep copy with one value changed."""
    copy = json.loads(json.dumps(content))
    target = copy
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = to
    return copy


def labels(ground_truth: GroundTruth) -> list[int]:
    """Images, queries, and how many are easy, hard and junk over all queries."""
    totals = [sum(len(getattr(query, label)) for query in ground_truth.queries) for label in ("easy", "hard", "junk")]
    return [len(ground_truth.images), len(ground_truth.queries), *totals]


@needs_shared
@pytest.mark.parametrize(
    ("name", "expected", "without_easy"),
    [("roxford5k", [4993, 70, 3029, 2497, 1356], 2), ("rparis6k", [6322, 70, 6874, 10350, 7153], 0)],
)
def test_the_published_files_are_read_right(name: str, expected: list[int], without_easy: int) -> None:
    ground_truth = read_ground_truth(SHARED / "gnd" / f"gnd_{name}.pkl")
    assert labels(ground_truth) == expected
    assert sum(not query.easy for query in ground_truth.queries) == without_easy
    assert not any(query.in_database for query in ground_truth.queries)
    assert ground_truth.ignored == {query.name for query in ground_truth.queries}
    assert all(query.hard for query in ground_truth.queries)


@needs_shared
def test_a_query_of_the_published_file_in_full() -> None:
    with open(SHARED / "gnd" / "gnd_roxford5k.pkl", "rb") as file:
        content = pickle.load(file, encoding="latin1")
    query = read_ground_truth(SHARED / "gnd" / "gnd_roxford5k.pkl").queries[0]
    assert query.name == "all_souls_000013"
    assert query.box == (136.5, 34.1, 648.5, 955.7)
    assert query.easy == {content["imlist"][number] for number in content["gnd"][0]["easy"]}


@needs_shared
def test_the_truth_of_the_shared_photographs() -> None:
    ground_truth = read_ground_truth(SHARED / "photos" / "gnd.json")
    assert labels(ground_truth)[:2] == [1462, 169]
    assert all(query.in_database and query.box is None for query in ground_truth.queries)
    assert ground_truth.ignored == frozenset()
    perfect = {query.name: [query.name, *query.easy, *query.hard] for query in ground_truth.queries}
    report = evaluate(ground_truth, perfect)
    assert [report.scores[difficulty].queries for difficulty in ("easy", "medium", "hard")] == [120, 169, 79]
    assert report.as_dict()["medium"]["mAP"] == 100


def test_our_layout(tmp_path: Path) -> None:
    ground_truth = read_ground_truth(write_json(tmp_path, OURS))
    everything = GroundTruthQuery("q.jpg", None, frozenset(["a.jpg"]), frozenset(["b.jpg"]), frozenset(["c.jpg"]), True)
    outside = GroundTruthQuery("outside.jpg", (1, 2, 30.5, 40), frozenset(["q.jpg"]), frozenset(), frozenset(), False)
    assert ground_truth == GroundTruth(tuple(OURS["imlist"]), (everything, outside), frozenset(["outside.jpg"]))


def test_the_published_layout(tmp_path: Path) -> None:
    query = GroundTruthQuery("q", (1, 2.5, 30, 40), frozenset("a"), frozenset("c"), frozenset("b"), False)
    expected = GroundTruth(("a", "b", "c"), (query,), frozenset("q"))
    assert read_ground_truth(write_pickle(tmp_path, PUBLISHED)) == expected
    assert read_ground_truth(write_json(tmp_path, PUBLISHED)) == expected


def test_numbers_in_arrays_are_read_as_well(tmp_path: Path) -> None:
    entry = {"bbx": np.array([1, 2.5, 30, 40]), "easy": np.array([0]), "hard": [np.int64(2)], "junk": np.array([1])}
    content = {**PUBLISHED, "imlist": np.array(["a", "b", "c"]), "gnd": [entry]}
    assert read_ground_truth(write_pickle(tmp_path, content)) == read_ground_truth(write_json(tmp_path, PUBLISHED))


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(OURS), encoding="utf-8-sig")
    assert len(read_ground_truth(path).queries) == 2


BROKEN = [
    (changed(OURS, "queries", 0, "easy", to=["x.jpg"]), DamagedError, "'x.jpg' is not one of the 4 database images"),
    (changed(OURS, "queries", 0, "hard", to=["a.jpg"]), DamagedError, "'a.jpg' is listed under easy and hard"),
    (
        changed(OURS, "queries", 1, "query", to="q.jpg"),
        DamagedError,
        "query is listed twice in the ground truth: 'q.jpg'",
    ),
    (changed(OURS, "imlist", 1, to="a.jpg"), DamagedError, "this image is listed twice in the ground truth: 'a.jpg'"),
    (changed(OURS, "imlist", 1, to=7), DamagedError, "imlist holds a value that is not a name"),
    (changed(OURS, "imlist", to="abc"), DamagedError, "imlist is not a list"),
    (changed(OURS, "queries", 0, "query", to=None), DamagedError, r"queries\[0\] has no name under the key query"),
    (changed(OURS, "queries", 0, to=[]), DamagedError, r"queries\[0\] is not an object"),
    (changed(OURS, "queries", 0, "bbox", to=[1, 2, 3]), DamagedError, "the four numbers x1, y1, x2, y2"),
    (changed(OURS, "queries", 0, "bbox", to=[1, 2, "3", 4]), DamagedError, "the four numbers x1, y1, x2, y2"),
    (changed(OURS, "queries", 0, "bbox", to=[1, 2, 10**400, 4]), DamagedError, "the four numbers x1, y1, x2, y2"),
    (changed(OURS, "queries", 0, "bbox", to=[5, 2, 3, 4]), DamagedError, "the box 5,2,3,4, expected x1 < x2"),
    (changed(PUBLISHED, "gnd", 0, "easy", to=[3]), DamagedError, "holds the image number 3, expected 0 to 2"),
    (changed(PUBLISHED, "gnd", 0, "easy", to=[-1]), DamagedError, "holds the image number -1, expected 0 to"),
    (changed(PUBLISHED, "gnd", 0, "easy", to=[True]), DamagedError, "holds a value that is not the number of an image"),
    (changed(PUBLISHED, "gnd", 0, "easy", to=0), DamagedError, "is not a list"),
    (changed(PUBLISHED, "gnd", to=[]), DamagedError, "1 names of queries and 0 queries in gnd"),
    (changed(PUBLISHED, "gnd", 0, to={"ok": [0], "easy": []}), FormatError, r"gnd\[0\] lacks the key easy or hard"),
    (changed(OURS, "queries", 0, to={"query": "q.jpg", "ok": []}), DamagedError, "one has ok, one has easy and hard"),
    (changed(PUBLISHED, "gnd", 0, to={"easy": [0]}), FormatError, r"gnd\[0\] lacks the key easy or hard"),
    ({"imlist": []}, FormatError, "neither the key queries nor the keys qimlist and gnd"),
    ([1, 2], FormatError, "not an object with the key imlist; .*gnd_roxford5k.pkl"),
]


@pytest.mark.parametrize(("content", "error", "message"), BROKEN)
@pytest.mark.parametrize("write", [write_json, write_pickle])
def test_broken_truths_are_refused(
    tmp_path: Path, write: Callable[[Path, object], Path], content: object, error: type[Exception], message: str
) -> None:
    path = write(tmp_path, content)
    if write is write_pickle and content == [1, 2]:
        message = "not an object"
    with pytest.raises(error, match=message) as caught:
        read_ground_truth(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b'{"imlist": [', DamagedError, "not valid JSON"),
        (b'{"imlist": ' + b"[" * 100_000, DamagedError, "not valid JSON"),
        (b'{"imlist": ["\xff"]}', DamagedError, "not valid JSON"),
        (b"MATLAB 5.0 MAT-file", FormatError, "neither JSON nor a pickle; supported ground truths are"),
        (b"", FormatError, "neither JSON nor a pickle"),
        (b"\x80\x04", DamagedError, "truncated or altered"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, data: bytes, error: type[Exception], message: str) -> None:
    path = tmp_path / "truth"
    path.write_bytes(data)
    with pytest.raises(error, match=message):
        read_ground_truth(path)


def test_what_is_not_there_or_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no\.json: no such file; expected a ground truth"):
        read_ground_truth(tmp_path / "no.json")
    with pytest.raises(InputError, match="a folder, expected a ground truth"):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "available", "expected"),
    [
        ("a.jpg", ["a.jpg", "a.png"], "a.jpg"),
        ("a.jpg", ["a.PNG"], "a.PNG"),
        ("all_souls_000013", ["jpg/all_souls_000013.jpg"], "jpg/all_souls_000013.jpg"),
        ("all_souls_000013", ["all_souls_000013"], "all_souls_000013"),
        ("images/x/00.jpg", ["x/00.jpg", "y/00.jpg"], "x/00.jpg"),
        ("x/00", ["a/x/00.jpg", "x/00.jpg"], "x/00.jpg"),
        ("x/00", ["00.jpg", "a/x/00.jpg"], "a/x/00.jpg"),
        ("one/a.jpg", ["other/a.jpg"], "other/a.jpg"),
        ("one/x/a.jpg", ["two/x/a.jpg", "x/y/a.jpg"], "two/x/a.jpg"),
        ("v1.2", ["v1.2.jpg"], "v1.2.jpg"),
        ("v1.2", ["v1.jpg"], None),
        ("a", ["ba.jpg", "a/b.jpg"], None),
    ],
)
def test_a_name_is_found_among_others(wanted: str, available: list[str], expected: str | None) -> None:
    assert match_names([wanted], available).get(wanted) == expected


def test_an_ambiguous_name_is_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"'a' matches both 'x/a\.jpg' and 'y/a\.jpg'"):
        match_names(["a"], ["y/a.jpg", "x/a.jpg"])
    with pytest.raises(InputError, match=r"'a' matches both 'a\.jpg' and 'a\.png'"):
        match_names(["a"], ["a.jpg", "a.png"])


def test_two_names_for_one_image_are_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"'x/a' and 'y/a' both match 'a\.jpg'"):
        match_names(["x/a", "y/a"], ["a.jpg"])


def test_a_name_that_stands_there_belongs_to_itself() -> None:
    assert match_names(["a.jpg", "a.png"], ["a.jpg"]) == {"a.jpg": "a.jpg"}


def test_the_last_part_alone_is_enough_only_where_it_is_unique() -> None:
    assert match_names(["one/a", "two/a"], ["three/a"]) == {}
    assert match_names(["one/a"], ["three/a"], whole_ends=True) == {}


@given(st.sets(st.from_regex(r"[a-c]{1,2}(/[a-c]{1,2}){0,2}", fullmatch=True)), st.sampled_from(["", ".jpg", ".PNG"]))
def test_names_that_lost_their_extension_are_all_found(names: set[str], extension: str) -> None:
    found = match_names(names, {name + extension for name in names})
    assert found == {name: name + extension for name in names}


@given(st.sets(st.from_regex(r"[a-c]{1,2}(/[a-c]{1,2}){0,2}", fullmatch=True)))
def test_names_below_another_folder_are_all_found(names: set[str]) -> None:
    lasts = [name.rpartition("/")[2] for name in names]
    if len(set(lasts)) == len(lasts):
        assert match_names(names, {f"photos/{name}.jpg" for name in names}) == {n: f"photos/{n}.jpg" for n in names}


@pytest.mark.parametrize(
    "changes",
    [{"bbx": [0.0, 0.0, 1 << 20_000, 1.0]}, {"bbx": [0.0, 0.0, np.complex64(1 + 2j), 1.0]}, {"easy": [1 << 20_000]}],
)
def test_numbers_beyond_all_sense_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    content = {**PUBLISHED, "gnd": [{**PUBLISHED["gnd"][0], **changes}]}
    with pytest.raises(DamagedError) as caught:
        read_ground_truth(write_pickle(tmp_path, content))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truth_is_told_in_the_names_of_the_index(tmp_path: Path) -> None:
    ground_truth = read_ground_truth(write_pickle(tmp_path, PUBLISHED))
    resolved = resolve(ground_truth, ["jpg/a.jpg", "jpg/b.jpg", "jpg/c.jpg", "jpg/q.jpg", "more/z.jpg"])
    query = resolved.ground_truth.queries[0]
    assert resolved.ground_truth.images == ("jpg/a.jpg", "jpg/b.jpg", "jpg/c.jpg")
    assert (query.name, query.easy, query.hard, query.junk) == ("q", {"jpg/a.jpg"}, {"jpg/c.jpg"}, {"jpg/b.jpg"})
    assert resolved.ground_truth.ignored == {"jpg/q.jpg"}
    assert resolved.missing == ()


def test_a_query_of_the_database_takes_the_name_of_the_index(tmp_path: Path) -> None:
    resolved = resolve(read_ground_truth(write_json(tmp_path, OURS)), [f"photos/{name}" for name in OURS["imlist"]])
    assert [query.name for query in resolved.ground_truth.queries] == ["photos/q.jpg", "outside.jpg"]
    assert resolved.ground_truth.ignored == frozenset()


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    ground_truth = read_ground_truth(write_json(tmp_path, OURS))
    with pytest.raises(NotFoundError, match=r"2 of 4 images of the ground truth are missing: 'a\.jpg', 'b\.jpg';"):
        resolve(ground_truth, ["c.jpg", "q.jpg"])
    resolved = resolve(ground_truth, ["c.jpg", "q.jpg"], allow_missing=True)
    assert resolved.missing == ("a.jpg", "b.jpg")
    assert resolved.ground_truth == GroundTruth(ground_truth.images, ground_truth.queries, frozenset())


def test_a_truth_of_other_images_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    ground_truth = read_ground_truth(write_json(tmp_path, OURS))
    with pytest.raises(NotFoundError, match=r"none of the 4 images of the ground truth was found: .* and 1 more"):
        resolve(ground_truth, ["x.jpg"], allow_missing=True)


def test_missing_positives_count_as_not_found(tmp_path: Path) -> None:
    ground_truth = resolve(
        read_ground_truth(write_json(tmp_path, OURS)), ["a.jpg", "q.jpg"], allow_missing=True
    ).ground_truth
    report = evaluate(ground_truth, {"q.jpg": ["a.jpg"], "outside.jpg": ["q.jpg"]})
    assert report.per_query["medium"] == {"q.jpg": 1 / 2, "outside.jpg": 1}


def test_a_query_said_to_be_in_the_database_must_be_there() -> None:
    with pytest.raises(InputError, match="'q' is marked as in the database, but is not one of its images"):
        GroundTruth(("a",), (GroundTruthQuery("q", None, frozenset("a"), frozenset(), frozenset(), True),))
