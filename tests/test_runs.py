"""Ranking files: rankings are read back unchanged, whatever the names; unsupported names are refused."""

import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, NotFoundError, StorageError
from asmk_engine.escape import escape_name, is_awkward, list_names, unescape_name
from asmk_engine.evaluation.ground_truth import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import evaluate, evaluate_run
from asmk_engine.evaluation.runs import (
    jsonl_line,
    pair_lines,
    ranked_pair_lines,
    read_run,
    run_lines,
    trec_lines,
    write_run,
)


class Hit(NamedTuple):
    """As much of a hit as ranking files know."""

    name: str
    score: float


any_text = st.text(st.characters(exclude_categories=()))
names = st.text(st.characters(exclude_categories=()) | st.sampled_from('% \n\r\t\x85\u2028\ufeff#{"'), min_size=1)
plain_names = st.text("abcxyz/._-äß東", min_size=1)
scores = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def rankings(draw: st.DrawFn, name: st.SearchStrategy[str]) -> dict[str, list[Hit]]:
    """Query → hits with falling, often equal, scores."""
    found = {}
    for query in draw(st.lists(name, min_size=1, max_size=3, unique=True)):
        images = draw(st.lists(name, max_size=5, unique=True))
        values = sorted(draw(st.lists(scores | st.just(0.5), min_size=len(images), max_size=len(images))), reverse=True)
        found[query] = list(map(Hit, images, values))
    return found


def plain(found: dict[str, list[Hit]]) -> dict[str, list[str]]:
    return {query: [hit.name for hit in hits] for query, hits in found.items()}


@given(any_text)
def test_names_come_back_exactly(name: str) -> None:
    escaped = escape_name(name)
    assert escaped == naive.escape_name(name)
    assert unescape_name(escaped) == name
    assert not is_awkward(escaped)
    assert escaped.split() == ([escaped] if name else [])
    escaped.encode()


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("photos/Köln_東京-01.jpg", "photos/Köln_東京-01.jpg"),
        ("my photo.jpg", "my%20photo.jpg"),
        ("100%.jpg", "100%25.jpg"),
        ("a%20b", "a%2520b"),
        ("two\nlines", "two%0Alines"),
        ("no\u00a0break", "no%C2%A0break"),
        ("\x7f\x85\u2028", "%7F%C2%85%E2%80%A8"),
        ("\udcff", "%ED%B3%BF"),
        ("\ud83d\ude00", "%ED%A0%BD%ED%B8%80"),
        ("\U0001f600", "\U0001f600"),
        ("#a", "#a"),
    ],
)
def test_names_in_lines(name: str, escaped: str) -> None:
    assert escape_name(name) == escaped
    assert unescape_name(escaped) == name


@pytest.mark.parametrize("text", ["100%.jpg", "%", "a%2", "%zz", "%FF", "%C3a"])
def test_what_no_name_is_written_as_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="as %25"):
        unescape_name(text)


@given(any_text)
def test_reading_a_name_never_fails_otherwise(text: str) -> None:
    try:
        unescape_name(text)
    except InputError as error:
        assert "\n" not in str(error)


def test_many_names_in_a_message() -> None:
    assert list_names(["a", "b\n"]) == "'a', 'b\\n'"
    assert list_names(list("abcde")) == "'a', 'b', 'c' and 2 more"


@given(rankings(names))
def test_json_lines_come_back(tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Hit]]) -> None:
    path = tmp_path_factory.getbasetemp() / "run.jsonl"
    write_run(path, found, "jsonl")
    assert read_run(path) == plain(found)


@given(rankings(names))
def test_trec_runs_come_back(tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Hit]]) -> None:
    path = tmp_path_factory.getbasetemp() / "run.trec"
    write_run(path, found, "trec")
    expected = {query: images for query, images in plain(found).items() if images}
    if expected:
        assert read_run(path) == expected
        return
    with pytest.raises(FormatError, match="empty, expected a TREC run"):
        read_run(path)


def test_a_trec_run_in_full() -> None:
    hits = [Hit("a b.jpg", 1 / 3), Hit("c.jpg", 0.25), Hit("d.jpg", 0.25)]
    assert list(trec_lines("q 1", hits)) == [
        "q%201 Q0 a%20b.jpg 1 0.3333333333333333 asmk-engine",
        "q%201 Q0 c.jpg 2 0.25 asmk-engine",
        "q%201 Q0 d.jpg 3 0.25 asmk-engine",
    ]


def test_a_json_line_in_full() -> None:
    line = jsonl_line('q "1"', [Hit("Köln a.jpg", 0.1)])
    assert line == '{"query": "q \\"1\\"", "hits": [{"name": "Köln a.jpg", "score": 0.1}]}'
    assert jsonl_line("\u2028", []).isascii()


@given(rankings(plain_names))
def test_the_map_of_a_file_is_the_map_of_the_search(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Hit]]
) -> None:
    images = tuple({hit.name for hits in found.values() for hit in hits} | {"found nowhere"})
    queries = [
        GroundTruthQuery(query, None, frozenset(images[::3]), frozenset(images[1::3]), frozenset(images[2::3]), False)
        for query in found
    ]
    ground_truth = GroundTruth(images, tuple(queries))
    expected = evaluate(ground_truth, plain(found)).as_dict()
    for form in ("trec", "jsonl"):
        path = tmp_path_factory.getbasetemp() / f"map.{form}"
        write_run(path, found, form)
        if form == "jsonl" or any(found.values()):
            assert evaluate(ground_truth, read_run(path), allow_missing=True).as_dict() == expected


def test_a_run_of_other_folders_and_extensions_is_evaluated() -> None:
    ground_truth = GroundTruth(
        ("a", "b", "c"),
        (GroundTruthQuery("q", None, frozenset("a"), frozenset("b"), frozenset(), False),),
        frozenset("q"),
    )
    run = {"queries/q.jpg": ["jpg/q.jpg", "jpg/a.jpg", "jpg/x.jpg", "jpg/b.jpg"]}
    report = evaluate_run(ground_truth, run)
    assert report.per_query == {"easy": {"q": 1}, "medium": {"q": (2 + 1 / 2 + 2 / 3) / 4}, "hard": {"q": 1 / 4}}


def test_a_run_in_which_a_query_of_the_database_is_asked() -> None:
    ground_truth = GroundTruth(
        ("a", "b", "q"), (GroundTruthQuery("q", None, frozenset("a"), frozenset(), frozenset(), True),)
    )
    assert evaluate_run(ground_truth, {"p/q.jpg": ["p/q.jpg", "p/a.jpg"]}).per_query["easy"] == {"p/q.jpg": 1}
    assert evaluate_run(ground_truth, {"p/q.jpg": ["p/a.jpg"]}).per_query["easy"] == {"q": 1}


def test_a_run_of_other_images_is_refused() -> None:
    ground_truth = GroundTruth(("a",), (GroundTruthQuery("q", None, frozenset("a"), frozenset(), frozenset(), False),))
    with pytest.raises(NotFoundError, match="none of the 1 images of the ground truth was found"):
        evaluate_run(ground_truth, {"q": ["x"]})
    with pytest.raises(NotFoundError, match="1 of 1 queries have no ranking: 'q'"):
        evaluate_run(ground_truth, {"other": ["a"]})
    assert evaluate_run(ground_truth, {"q": []}).per_query["easy"] == {"q": 0}


def test_pairs_are_unordered_and_of_two() -> None:
    found = [("a", [Hit("b", 3), Hit("a", 2), Hit("c", 1)]), ("b", [Hit("a", 2), Hit("c", 1)])]
    assert list(pair_lines(found)) == ["a b", "a c", "b c"]


@given(rankings(plain_names))
def test_pairs_hold_each_pair_once(found: dict[str, list[Hit]]) -> None:
    lines = list(pair_lines(found.items()))
    pairs = [frozenset(line.split()) for line in lines]
    expected = {frozenset((query, hit.name)) for query, hits in found.items() for hit in hits if hit.name != query}
    assert set(pairs) == expected
    assert len(pairs) == len(expected)


@pytest.mark.parametrize("name", ["a b", "a\n", "a\u00a0b", "\x1c", "#a", "", "\udcff", "\ufeffa"])
def test_names_that_pairs_cannot_carry_are_refused(name: str) -> None:
    for query, image in itertools.permutations([name, "ok.jpg"]):
        with pytest.raises(InputError, match="--format jsonl") as caught:
            list(pair_lines([(query, [Hit(image, 1)])]))
        assert repr(name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'b' at rank 2 scores above the image before it.*jsonl"):
        list(trec_lines("q", [Hit("a", 1), Hit("b", 2)]))
    for form in ("trec", "jsonl"):
        with pytest.raises(InputError, match="a score is nan"):
            list(run_lines([("q", [Hit("a", math.nan)])], form))
    with pytest.raises(InputError, match="an empty name"):
        list(trec_lines("", [Hit("a", 1)]))
    with pytest.raises(InputError, match="'csv': expected one of trec, jsonl, pairs, gldv2"):
        write_run(tmp_path / "run", {}, "csv")


def test_a_run_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    write_run(path, {"q": [Hit("a", 1)]}, "trec")
    with pytest.raises(InputError):
        write_run(path, {"q": [Hit("b", 1), Hit("c", 2)]}, "trec")
    assert read_run(path) == {"q": ["a"]}
    assert [file.name for file in tmp_path.iterdir()] == ["run.trec"]


def read_bytes(folder: Path, data: bytes) -> dict[str, list[str]]:
    path = folder / "run"
    path.write_bytes(data)
    return read_run(path)


def test_trec_runs_of_others_are_ordered_by_score_then_rank(tmp_path: Path) -> None:
    data = b"1 Q0 low 1 0.5 x\r\n\r\n2 Q0 a 1 9 x\r\n1\t0\thigh\t2\t1e3\tx\r\n1 Q0 tie2 9 0.75 x\r\n1 Q0 tie1 4 0.75 x"
    assert read_bytes(tmp_path, data) == {"1": ["high", "tie1", "tie2", "low"], "2": ["a"]}


def test_json_lines_of_others_keep_their_order(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf\n{"hits":[{"name":"b"},{"name":"a","score":9,"inliers":4}],"query":"q"}\n\n'
    assert read_bytes(tmp_path, data) == {"q": ["b", "a"]}


@pytest.mark.parametrize("query", ["{a}", '{"query":"a"', "{", "\ufeffa"])
def test_queries_that_look_like_json_are_read_as_what_they_are(tmp_path: Path, query: str) -> None:
    path = tmp_path / "run"
    for form in ("trec", "jsonl"):
        write_run(path, {query: [Hit("a", 1)]}, form)
        assert read_run(path) == {query: ["a"]}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FormatError, "empty, expected"),
        (b"\n \n", FormatError, "empty, expected"),
        (b"a.jpg b.jpg c\n", FormatError, "the first line has 3 columns, expected a TREC run"),
        (b"a b\na\n", DamagedError, "line 2: 1 columns, expected the 2 of a pair"),
        (b"a b\nc b\na b", DamagedError, "line 3: 'b' for the second time under query 'a'"),
        (b"a b\na \xff", DamagedError, "line 2: a name that is not UTF-8"),
        (b"id,images\na,b\na,c\n", DamagedError, "line 3: the id 'a' is empty or repeated"),
        (b"id,images\na\n", DamagedError, "line 2: 1 columns, expected 2"),
        (b"id,images\na,\xff\n", DamagedError, "not text in UTF-8"),
        (b"\x80\x04\x95", FormatError, "the first line has 1 columns"),
        (b"q Q0 a 1 0.5 x\nq Q0 b 2 0.4\n", DamagedError, "line 2: 5 columns, expected the 6 of a TREC run"),
        (b"q Q0 a 1 0.5 x\nq Q0 a 2 0.4 x\n", DamagedError, "line 2: 'a' for the second time under query 'q'"),
        (b"q Q0 a one 0.5 x\n", DamagedError, "line 1: a rank or score that is not a number"),
        (b"q Q0 a 1 nan x\n", DamagedError, "line 1: a score that is not finite"),
        (b"q Q0 a 1 1e999 x\n", DamagedError, "line 1: a score that is not finite"),
        (b"q Q0 \xff 1 0.5 x\n", DamagedError, "line 1: .*not UTF-8"),
        (b"q Q0 100% 1 0.5 x\n", DamagedError, "line 1: .*write it as %25"),
        (b'{"query": "q", "hits": []}\n{"query": "q", "hits": []}', DamagedError, "line 2: query 'q' for the second"),
        (b'{"query": "q", "hits": [{"name": "a"}, {"name": "a"}]}', DamagedError, "line 1: 'a' for the second time"),
        (b'{"query": "q", "hits": []}\n{"query": "r", "hi', DamagedError, "line 2: not an object"),
        (b'{"query": 1, "hits": []}', DamagedError, "line 1: not an object"),
        (b'{"query": "q", "hits": [1]}', DamagedError, "line 1: not an object"),
        (b'{"query": "q", "hits": {"name": 1}}', DamagedError, "line 1: not an object"),
        (b"{" + b"[" * 100_000, DamagedError, "line 1: not an object"),
    ],
)
def test_broken_runs_are_refused(tmp_path: Path, data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        read_bytes(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


PIECES = [b"q", b"Q0", b"1", b" ", b"\n", b"{", b'"query"', b":", b"\xff"]


@given(st.binary() | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_reading_anything_fails_only_with_our_errors(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    try:
        found = read_bytes(tmp_path_factory.getbasetemp(), data)
    except AsmkError:
        return
    assert json.dumps(found)


simple_names = st.text("abcxyz-äß東", min_size=1)


@given(rankings(simple_names))
def test_pairs_and_submissions_come_back_and_are_evaluated_alike(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Hit]]
) -> None:
    images = tuple({hit.name for hits in found.values() for hit in hits} | {"found nowhere"})
    queries = [
        GroundTruthQuery(query, None, frozenset(images[::2]), frozenset(), frozenset(images[1::2]), query in images)
        for query in found
    ]
    ground_truth = GroundTruth(images, tuple(queries))
    expected = evaluate(ground_truth, plain(found)).as_dict()
    for form in ("pairs", "gldv2"):
        path = tmp_path_factory.getbasetemp() / f"simple.{form}"
        write_run(path, iter(found.items()), form)
        if any(hit.name != query for query, hits in found.items() for hit in hits):
            read = read_run(path)
            assert evaluate(ground_truth, read, allow_missing=True).as_dict() == expected
            if form == "gldv2":
                assert read == plain(found)


def test_a_submission_in_full() -> None:
    rankings = [("q/1.jpg", [Hit(f"a/{n:03d}.jpg", 1.0) for n in range(102)]), ("r", [])]
    lines = list(run_lines(rankings, "gldv2"))
    assert lines == ["id,images", f"1,{' '.join(f'{n:03d}' for n in range(100))}", "r,"]
    marked = [("q", [Hit("distractor1:x/a.jpg", 2), Hit("distractor2:a.jpg", 1), Hit("y/a.jpg", 1)])]
    assert list(run_lines(marked, "gldv2"))[1] == "q,distractor1:a distractor2:a a"
    for name in ("a b", "a,b", 'a"b', "x/.jpg"):
        with pytest.raises(InputError, match="use another format"):
            list(run_lines([(name, [])], "gldv2"))
    with pytest.raises(InputError, match="two images have the id 'a'; a submission needs distinct ids"):
        list(run_lines([("q", [Hit("x/a.jpg", 1), Hit("y/a.jpg", 1)])], "gldv2"))


def test_pairs_of_one_ranking_hold_both_directions() -> None:
    found = [("a", [Hit("b", 3), Hit("a", 2), Hit("c", 1)]), ("b", [Hit("a", 2), Hit("c", 1)])]
    assert list(ranked_pair_lines(found)) == ["a b", "a c", "b a", "b c"]


def test_distractors_in_a_run_are_taken_for_no_image_of_the_truth() -> None:
    ground_truth = GroundTruth(
        ("a", "b"), (GroundTruthQuery("q", None, frozenset("a"), frozenset("b"), frozenset(), False),)
    )
    run = {"q": ["distractor1:x/a.jpg", "distractor1:x/b.jpg", "b.jpg"]}
    assert evaluate_run(ground_truth, run).per_query == {
        "easy": {"q": 0},
        "medium": {"q": 1 / 12},
        "hard": {"q": 1 / 6},
    }


def test_runs_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file; expected a ranking file"):
        read_run(tmp_path / "no.trec")
    with pytest.raises(StorageError):
        write_run(tmp_path / "no folder" / "run.trec", {"q": [Hit("a", 1)]}, "trec")
