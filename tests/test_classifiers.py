"""Classification by search: votes by hand and against the twin, labels in CSVs, and their evaluation."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive_evaluation as twin
from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, NotFoundError
from asmk_engine.evaluation.classifiers import (
    CLASSIFIERS,
    Classifier,
    Labels,
    check_weights,
    classify,
    resolve_labels,
)
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.landmarks import (
    is_recognition,
    read_guesses,
    read_labels,
    read_recognition,
    read_submission,
)
from asmk_engine.evaluation.metrics import micro_average_precision
from asmk_engine.evaluation.model import Prediction
from asmk_engine.evaluation.recognition import evaluate_labels, evaluate_recognition, submission_lines


class Hit(NamedTuple):
    """As much of a hit as a vote needs."""

    name: str
    score: float


NAMES = "abcdefghijkl"
LABELS = Labels({"a": "tower", "b": "bridge", "c": "bridge", "d": "gate", "e": "gate", "f": "gate"})
HITS = [Hit("a", 0.5), Hit("x", 0.45), Hit("b", 0.4), Hit("c", 0.3), Hit("d", 0.2)]


def write(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_votes_by_hand() -> None:
    assert classify(HITS, LABELS, CLASSIFIERS["cls1"]) == [Prediction("tower", 0.5)]
    assert classify(HITS, LABELS, CLASSIFIERS["cls2"]) == [
        Prediction("bridge", pytest.approx(0.7)),
        Prediction("tower", 0.5),
        Prediction("gate", 0.2),
    ]
    # Three labels with 1, 2 and 3 of six images, frequencies 1/6, 1/3 and 1/2: weights ln 18, ln 9 and ln 6.
    assert classify(HITS, LABELS, CLASSIFIERS["cls3"]) == [
        Prediction("bridge", pytest.approx(2.5931163040, abs=1e-9)),  # 2.1972245773 * (0.6324555320 + 0.5477225575)
        Prediction("tower", pytest.approx(2.0438014702, abs=1e-9)),  # 2.8903717579 * 0.7071067812
        Prediction("gate", pytest.approx(0.8012991945, abs=1e-9)),  # 1.7917594692 * 0.4472135955
    ]
    assert classify(HITS, LABELS, Classifier(2)) == [Prediction("tower", 0.5), Prediction("bridge", 0.4)]


def test_the_weights_of_the_set_of_the_paper() -> None:
    """Tiny-GLD2: 50 landmarks with 200 images each, so each has a frequency of 1/50, and 50 / (1/50) = 2500."""
    labels = Labels({f"{landmark} {number}": str(landmark) for landmark in range(50) for number in range(200)})
    assert [labels.weight(label) for label in labels.counts] == pytest.approx([7.8240460109] * 50, abs=1e-9)  # ln 2500
    hits = [Hit("3 0", 0.25), Hit("4 0", 0.16), Hit("4 1", 0.09)]
    assert classify(hits, labels, CLASSIFIERS["cls3"]) == [
        Prediction("4", pytest.approx(0.7 * 7.8240460109)),
        Prediction("3", pytest.approx(0.5 * 7.8240460109)),
    ]


def test_a_very_frequent_label_still_counts() -> None:
    labels = Labels({**{f"common {number}": "common" for number in range(9)}, "rare": "rare"})
    # 2 labels with frequencies 9/10 and 1/10: ln(20/9) and ln 20.
    assert labels.weight("common") == pytest.approx(0.7985076962, abs=1e-9)
    assert labels.weight("rare") == pytest.approx(2.9957322736, abs=1e-9)


@given(st.dictionaries(st.text(max_size=3), st.sampled_from("abcd"), min_size=1))
def test_rarer_labels_weigh_more_and_only_a_single_one_nothing(of: dict[str, str]) -> None:
    labels = Labels(of)
    weights = {label: labels.weight(label) for label in labels.counts}
    assert all((weight == 0) == (len(labels.counts) == 1) and weight >= 0 for weight in weights.values())
    for one, other in zip(labels.counts, list(labels.counts)[1:], strict=False):
        assert (weights[one] > weights[other]) == (labels.counts[one] < labels.counts[other])


def test_nothing_found_is_no_label() -> None:
    assert classify([], LABELS, CLASSIFIERS["cls2"]) == classify([Hit("x", 1)], LABELS, CLASSIFIERS["cls1"]) == []


def test_ties_are_in_the_order_of_labels() -> None:
    found = classify([Hit("d", 0.5), Hit("a", 0.5)], LABELS, Classifier(10))
    assert [one.label for one in found] == ["gate", "tower"]


def test_similarities_below_zero_are_worth_nothing() -> None:
    assert classify([Hit("a", -0.5)], LABELS, CLASSIFIERS["cls3"]) == [Prediction("tower", 0.0)]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["one", "two", "three", "four"]), min_size=1),
    st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0, 1)), unique_by=lambda hit: hit[0]),
    st.integers(1, 12),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.booleans(),
)
def test_votes_equal_their_twin(
    labels: dict[str, str], hits: list[tuple[str, float]], neighbours: int, power: float, weighted: bool
) -> None:
    found = classify([Hit(*hit) for hit in hits], Labels(labels), Classifier(neighbours, power, weighted))
    expected = twin.vote(hits, labels, neighbours, power, weighted)
    assert {one.label: one.confidence for one in found} == pytest.approx(expected, abs=1e-12)
    assert [one.confidence for one in found] == sorted((one.confidence for one in found), reverse=True)


@pytest.mark.parametrize(("neighbours", "power"), [(0, 1.0), (1, 0.0), (1, math.nan)])
def test_classifiers_that_mean_nothing_are_refused(neighbours: int, power: float) -> None:
    with pytest.raises(InputError, match="give 1 neighbour or more and a power above 0"):
        Classifier(neighbours, power)


def test_a_single_label_cannot_be_weighted() -> None:
    labels = Labels(dict.fromkeys(NAMES, "all"))
    with pytest.raises(InputError, match=r"1 label, .all., for all 12 labelled images, expected 2 .*cls1 or") as no:
        check_weights(labels, CLASSIFIERS["cls3"])
    assert "\n" not in str(no.value)
    check_weights(labels, CLASSIFIERS["cls2"])
    check_weights(LABELS, CLASSIFIERS["cls3"])
    check_weights(Labels({name: "left" if name < "g" else "right" for name in NAMES}), CLASSIFIERS["cls3"])
    check_weights(Labels({}), CLASSIFIERS["cls3"])


def test_labels_are_told_in_the_names_of_the_index() -> None:
    labels = {"a": "tower", "b": "bridge", "elsewhere": "gate"}
    assert resolve_labels(labels, ["x/a.jpg", "x/b.jpg"]).of == {"x/a.jpg": "tower", "x/b.jpg": "bridge"}
    with pytest.raises(NotFoundError, match=r"1 of 3 indexed images have no label: 'x/c\.jpg'; add their labels, or"):
        resolve_labels(labels, ["x/a.jpg", "x/b.jpg", "x/c.jpg"])
    allowed = resolve_labels(labels, ["x/a.jpg", "x/b.jpg", "x/c.jpg"], allow_missing=True)
    assert allowed.of == {"x/a.jpg": "tower", "x/b.jpg": "bridge"} and allowed.counts == {"tower": 1, "bridge": 1}
    with pytest.raises(NotFoundError, match="2 of 2 indexed images have no label: 'y', 'z'; give their labels"):
        resolve_labels(labels, ["y", "z"], allow_missing=True)
    assert resolve_labels(labels, []).of == {}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na b.jpg,tower\nc.jpg,gate\n",
        "\ufeffLabel , NAME\r\ntower,a b.jpg\r\n\r\ngate,c.jpg\r\n",
        'id,url,landmark_id\n"a b.jpg","http://x, y",tower\nc.jpg,,gate\n',
        "image,label\na b.jpg,tower\na b.jpg,tower\nc.jpg,gate",
    ],
)
def test_labels_in_a_row_for_each_image(tmp_path: Path, text: str) -> None:
    assert read_labels(write(tmp_path, text)) == {"a b.jpg": "tower", "c.jpg": "gate"}


def test_labels_in_a_row_for_each_label(tmp_path: Path) -> None:
    path = write(tmp_path, "landmark_id,images\n7,a b\n9,c\n")
    assert read_labels(path) == {"a": "7", "b": "7", "c": "9"}


def test_a_label_may_have_very_many_images(tmp_path: Path) -> None:
    images = [f"{number:016x}" for number in range(10_000)]
    assert read_labels(write(tmp_path, f"landmark_id,images\n7,{' '.join(images)}\n")) == dict.fromkeys(images, "7")


HEADERS = [b"image,label\n", b"landmark_id,images\n", b"id,landmarks,Usage\n", b"id,images\n", b"\xef\xbb\xbf", b""]
PIECES = [b"a", b"1", b",", b" ", b"\n", b"\r", b'"', b"None", b"\x00", b"\xff", b"0.5", b"nan"]


@given(st.sampled_from(HEADERS), st.binary(max_size=40) | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_reading_anything_fails_only_with_our_errors(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.csv"
    path.write_bytes(header + data)
    for read in (read_labels, read_recognition, read_guesses, read_submission, read_ground_truth):
        try:
            read(path)
        except AsmkError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", FormatError, "its columns are ; one must be named image or images or"),
        ("image,colour\n", FormatError, "its columns are image, colour; one must be named label or landmark_id"),
        ("image,label\na\n", DamagedError, "line 2: 1 columns, expected 2"),
        ("image,label\na,\n", DamagedError, "line 2: an image or a label is empty"),
        ("image,label\n,x\n", DamagedError, "line 2: an image or a label is empty"),
        ("image,label\na,x\nb,x\na,y\n", DamagedError, "line 4: 'a' has the label 'y' here and 'x' above; keep one"),
    ],
)
def test_broken_labels_are_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(error, match=message) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_labels_that_are_not_there_or_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file; expected a CSV of labels"):
        read_labels(tmp_path / "no.csv")
    path = tmp_path / "file.csv"
    path.write_bytes(b"image,label\n\xff,x\n")
    with pytest.raises(DamagedError, match="not text in UTF-8"):
        read_labels(path)


@pytest.mark.parametrize(
    ("correct", "answerable", "expected"),
    [
        ([True, True], 2, 1.0),
        ([False, True], 1, 1 / 2),
        ([True, False, True], 3, (1 + 2 / 3) / 3),
        ([], 4, 0.0),
        ([False, False], 2, 0.0),
    ],
)
def test_micro_average_precision_by_hand(correct: list[bool], answerable: int, expected: float) -> None:
    assert micro_average_precision(correct, answerable) == pytest.approx(expected, abs=1e-15)


def test_micro_average_precision_where_it_means_nothing() -> None:
    assert math.isnan(micro_average_precision([False], 0))
    with pytest.raises(InputError, match="2 correct predictions for 1 images with a label"):
        micro_average_precision([True, True], 1)


@given(
    st.dictionaries(st.sampled_from(NAMES), st.frozensets(st.sampled_from("123"), max_size=2), min_size=1),
    st.dictionaries(st.sampled_from(NAMES), st.tuples(st.sampled_from("123"), st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
)
def test_all_predictions_together_equal_their_twin(
    ground_truth: dict[str, frozenset[str]], guesses: dict[str, tuple[str, float]]
) -> None:
    guesses = {image: guess for image, guess in guesses.items() if image in ground_truth}
    found = evaluate_labels(ground_truth, {image: Prediction(*guess) for image, guess in guesses.items()})
    if any(ground_truth.values()):
        expected = twin.micro_average_precision(ground_truth, guesses)
        assert found.micro_average_precision == pytest.approx(expected, abs=1e-12)
        right = sum(label in ground_truth[image] for image, (label, _) in guesses.items())
        assert found.accuracy == right / sum(map(bool, ground_truth.values()))
    else:
        assert math.isnan(found.micro_average_precision) and math.isnan(found.accuracy)


SOLUTION = "id,landmarks,Usage\np1,7 8,Private\np2,,Private\np3,9,Private\nu1,None,Public\nx1,7,Ignored\n"


def test_a_submission_is_evaluated_by_parts(tmp_path: Path) -> None:
    ground_truth = read_recognition(write(tmp_path, SOLUTION))
    assert ground_truth.parts["private"] == {"p1": {"7", "8"}, "p2": frozenset(), "p3": {"9"}}
    assert ground_truth.parts["public"] == {"u1": frozenset()} and ground_truth.ignored == {"x1"}
    guesses = read_guesses(write(tmp_path, "id,landmarks\np1,8 0.5\np2,7 0.9\np3,\nu1,7 1e-3\nx1,7 2\n"))
    report = evaluate_recognition(ground_truth, guesses)
    # Private: p2 is wrong and first, p1 is right at 2; two images have a landmark.
    assert report.as_dict() == {
        "private": {"µAP": 25.0, "accuracy": 50.0, "labelled": 2, "images": 3},
        "public": {"µAP": None, "accuracy": None, "labelled": 0, "images": 1},
    }
    assert report.table().splitlines()[2].split() == ["public", "-", "-", "0", "1"]


def test_submissions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ground_truth = read_recognition(write(tmp_path, SOLUTION))
    whole: dict[str, Prediction | None] = dict.fromkeys(["p1", "p2", "p3", "u1"])
    with pytest.raises(NotFoundError, match=r"1 of 4 images of the solution are not in the submission: 'p2'; classify"):
        evaluate_recognition(ground_truth, {key: value for key, value in whole.items() if key != "p2"})
    assert (
        evaluate_recognition(ground_truth, {"p1": Prediction("7", 1)}, allow_missing=True).scores["private"].accuracy
        == 0.5
    )
    with pytest.raises(NotFoundError, match="4 of 4 images"):
        evaluate_recognition(ground_truth, {"x1": None}, allow_missing=True)
    with pytest.raises(InputError, match="1 images of the submission are not in the solution: 'z'"):
        evaluate_recognition(ground_truth, {**whole, "z": None})


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("id,images\n", FormatError, "its columns are id, images, expected id, landmarks first"),
        ("id,landmarks\na,7\n", DamagedError, "line 2: '7', expected a landmark and a finite confidence"),
        ("id,landmarks\na,7 x\n", DamagedError, "line 2: '7 x', expected"),
        ("id,landmarks\na,7 nan\n", DamagedError, "line 2: '7 nan', expected"),
        ("id,landmarks\na,7 1 8\n", DamagedError, "line 2: '7 1 8', expected"),
        ("id,landmarks\na,\na,\n", DamagedError, "line 3: the id 'a' is empty or repeated"),
    ],
)
def test_broken_submissions_are_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_guesses(write(tmp_path, text))


def test_solutions_are_told_from_other_files(tmp_path: Path) -> None:
    assert is_recognition(write(tmp_path, SOLUTION)) and is_recognition(write(tmp_path, "\ufeffid,landmarks\n"))
    assert not is_recognition(write(tmp_path, "id,images\n")) and not is_recognition(tmp_path)
    with pytest.raises(NotFoundError, match="no image to be recognised"):
        read_recognition(write(tmp_path, "id,landmarks,Usage\nx,1,Ignored\n"))


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.floats(0, 10)), unique_by=lambda one: one[0]))
def test_submissions_come_back(tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, float]]) -> None:
    predictions = [(f"folder/{name}.jpg", [Prediction("7", score), Prediction("8", 0)]) for name, score in found]
    path = tmp_path_factory.getbasetemp() / "submission.csv"
    path.write_text("\n".join(submission_lines([*predictions, ("none.jpg", [])])))
    expected: dict[str, Any] = {name: Prediction("7", score) for name, score in found}
    assert read_guesses(path) == {**expected, "none": None}


def test_what_a_submission_cannot_carry_is_refused() -> None:
    with pytest.raises(InputError, match=r"the id 'a' of 'y/a\.jpg' is used twice"):
        list(submission_lines([("x/a.jpg", []), ("y/a.jpg", [])]))
    for label in ("two words", "a,b", ""):
        with pytest.raises(InputError, match=r"the label .* use another format"):
            list(submission_lines([("a", [Prediction(label, 1)])]))
    with pytest.raises(InputError, match="the id 'a b' is empty or has white space"):
        list(submission_lines([("a b.jpg", [])]))
