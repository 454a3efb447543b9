"""The audit of overlap: both sides read, candidates, verification, answers of people, decision, report."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import naive_audit
from asmk_engine.audit import AuditInputs, AuditOptions, TrainingSource, report_again, run_audit
from asmk_engine.audit.class_names import category_of, named_classes, read_class_names
from asmk_engine.audit.decision import decide, frequent
from asmk_engine.audit.judgements import NAME, Judgement, JudgementJournal, Judgements, read_judgements
from asmk_engine.audit.model import AuditPair, NamedClass, Questions, SetCounts
from asmk_engine.audit.overview import AuditReport
from asmk_engine.audit.sets import read_test_sets, read_training_set
from asmk_engine.audit.sift import sift_matches
from asmk_engine.audit.state import STATE, AuditState, read_state, write_state
from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, NotFoundError, StorageError
from asmk_engine.evaluation.landmarks import read_labels
from asmk_engine.extractors.rootsift import RootSift
from asmk_engine.training.class_selection import read_class_list, without_classes
from asmk_engine.training.instance_layouts import read_instances
from audit_samples import EXTRACTION, Sides, drawn_sides, photographed_sides, recall
from disks import CountedDisk, fast_disk
from scenes import has_shared
from skimage_pairs import astronaut, coffee, turned

ANSWERS = ("same", "different", "unsure")
COUNTS = SetCounts("train", 10, 5, {"test": 3}, 30, 4, 2, 0)


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return drawn_sides(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def audited(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    return audit(sides, tmp_path_factory.mktemp("audit"))


def audit(sides: Sides, folder: Path, options: AuditOptions | None = None) -> AuditReport:
    inputs = AuditInputs(TrainingSource(sides.train), (sides.test,))
    return run_audit(inputs, folder, options or AuditOptions(top=20), extraction=EXTRACTION)


def answer_truly(report: AuditReport, sides: Sides, judges: tuple[str, ...] = ("one",)) -> None:
    """Let judges answer who know the truth; but for the last, all but one say that they are unsure."""
    with JudgementJournal(report.folder) as journal:
        for pair in report.questions.pairs:
            is_same = sides.truth[pair.query.removeprefix("test/")] == pair.label
            for place, judge in enumerate(judges):
                sure = place == len(judges) - 1
                journal.add(pair.key, judge, ("same" if is_same else "different") if sure else "unsure")


def pair(query: str, image: str, label: str, test_set: str = "test") -> AuditPair:
    return AuditPair(query, test_set, image, label, 0.5, 1.0, 20, 10)


# ----------------------------------------------------------------------------------------------------- decision


@pytest.mark.parametrize("seed", range(25))
def test_the_decision_is_that_of_the_paper(seed: int) -> None:
    rng = random.Random(seed)
    pairs = [pair(f"test/{rng.randrange(4)}", f"i{number}", f"c{rng.randrange(4)}") for number in range(14)]
    pairs.sort(key=lambda one: one.query)
    given = {one.key: [(f"j{rng.randrange(3)}", rng.choice(ANSWERS)) for _ in range(rng.randrange(4))] for one in pairs}
    judgements = Judgements(Judgement(key, *one) for key, answers in given.items() for one in answers)
    counts = Counter(f"c{number}" for number in range(4))
    every = seed % 2 == 0
    found = decide(Questions(COUNTS, (), tuple(pairs), ()), judgements, counts, every_class=every)
    expected = naive_audit.removed_classes([(one.query, one.label, given[one.key]) for one in pairs], all_of_them=every)
    assert {one.label for one in found.removed} == set(expected)
    assert {one.query for one in found.queries if one.classes} == {
        one.query for one in pairs if naive_audit.confirmed(given[one.key])
    }


def test_a_class_counts_for_the_first_set_that_removes_it() -> None:
    pairs = [pair("a/1", "x", "c", "a"), pair("b/1", "x", "c", "b"), pair("b/2", "y", "d", "b")]
    named = (NamedClass("c", "Paris", 7), NamedClass("e", "Oxford", 2), NamedClass("gone", "Oxford", 2))
    judgements = Judgements(Judgement(one.key, "j", "same") for one in (*pairs, *named))
    found = decide(Questions(COUNTS, (), tuple(pairs), named), judgements, {"c": 7, "d": 3, "e": 2})
    assert [(one.label, one.images, one.by) for one in found.removed] == [
        ("c", 7, "a"),
        ("d", 3, "b"),
        ("e", 2, "text"),
    ]
    assert (found.images, found.overlapping("a"), found.overlapping("b")) == (12, 1, 2)


def test_nothing_is_removed_without_a_yes() -> None:
    one = pair("a/1", "x", "c")
    for answers in ([], ["different"], ["unsure"], ["different", "unsure"]):
        judgements = Judgements(Judgement(one.key, f"j{place}", answer) for place, answer in enumerate(answers))
        assert decide(Questions(COUNTS, (), (one,), ()), judgements, {"c": 7}).removed == ()
    assert frequent({}) == ()
    assert frequent({"a": 2, "b": 2, "c": 1}) == ("a", "b")
    assert frequent({"a": 2, "c": 1}, every_class=True) == ("a", "c")


# --------------------------------------------------------------------------------------------------- judgements


def test_an_answer_is_there_when_it_was_taken(tmp_path: Path) -> None:
    with JudgementJournal(tmp_path) as journal:
        journal.add("k", "Ann", "different")
        assert [one.answer for one in read_judgements(tmp_path)] == ["different"]
        journal.add("k", "Ann", "same")
        journal.add("k", " Bob ", "unsure")
    with JudgementJournal(tmp_path) as journal:
        assert journal.judgements.of("k") == {"Ann": "same", "Bob": "unsure"}
        assert journal.judgements.state("k") == "same"
        assert journal.judgements.state("other") == "open"
        assert journal.judgements.judges(["k", "other"]) == {"Ann": 1, "Bob": 1}


def test_a_journal_cut_anywhere_keeps_every_whole_line(tmp_path: Path) -> None:
    with JudgementJournal(tmp_path) as journal:
        for number in range(3):
            journal.add(f"k{number}", "Änn 图", "same")
    whole = (tmp_path / NAME).read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / NAME).write_bytes(whole[:length])
        kept = whole[:length].count(b"\n")
        assert len(read_judgements(tmp_path)) == kept
        with JudgementJournal(tmp_path) as journal:
            journal.add("new", "Bob", "unsure")
        assert [one.key for one in read_judgements(tmp_path)] == [*(f"k{n}" for n in range(kept)), "new"]


def test_an_altered_journal_is_refused(tmp_path: Path) -> None:
    for line in (b"nothing", b"[]", b"{}", b'{"key": "k", "judge": "j", "answer": "yes", "at": ""}'):
        (tmp_path / NAME).write_bytes(line + b"\n")
        with pytest.raises(DamagedError, match="line 1 is no judgement"), JudgementJournal(tmp_path):
            pass


def test_wrong_answers_are_refused_and_one_process_writes(tmp_path: Path) -> None:
    with JudgementJournal(tmp_path) as journal:
        for judge, answer in (("", "same"), ("  ", "same"), ("a" * 81, "same"), ("a\nb", "same"), ("a", "yes")):
            with pytest.raises(InputError):
                journal.add("k", judge, answer)
        with pytest.raises(StorageError, match="another process"), JudgementJournal(tmp_path):
            pass
    assert read_judgements(tmp_path) == []


# ------------------------------------------------------------------------------------------------------- inputs


def test_test_sets_of_all_kinds(sides: Sides, tmp_path: Path) -> None:
    names = sorted(sides.truth)
    found = read_test_sets([sides.test])
    assert [query.name for query in found.queries] == [f"test/{name}" for name in names]
    (tmp_path / "list.txt").write_text("\n".join(str(sides.test / name) for name in names[:3]))
    assert len(read_test_sets([tmp_path / "list.txt"]).queries) == 3
    truth = {"imlist": [], "queries": [{"query": Path(names[0]).stem, "bbox": [1, 2, 30, 40], "ok": [], "junk": []},
                                       {"query": "nowhere", "bbox": None, "ok": [], "junk": []}]}  # fmt: skip
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    both = read_test_sets([tmp_path / "gnd.json", sides.test], [sides.test])
    assert (both.queries[0].name, both.queries[0].box) == (f"gnd/{Path(names[0]).stem}", (1, 2, 30, 40))
    assert list(both.missing) == ["gnd/nowhere"]
    assert both.labels == ["gnd", "test"]
    table = "image,instance\n" + "\n".join(f"{name},{sides.truth[name] or ''}" for name in names)
    (tmp_path / "table.csv").write_text(table)
    assert len(read_test_sets([tmp_path / "table.csv"], [sides.test]).queries) == len(names)
    assert read_test_sets([sides.test, sides.test]).labels == ["test", "test-2"]


def test_wrong_sets_are_told(sides: Sides, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such test set"):
        read_test_sets([tmp_path / "nothing"])
    (tmp_path / "gnd.json").write_text('{"imlist": [], "queries": [{"query": "a", "ok": [], "junk": []}]}')
    with pytest.raises(NotFoundError, match="--test-images"):
        read_test_sets([tmp_path / "gnd.json"])
    for wrong in ({"top": 0}, {"verification": "x"}, {"evidence": 0}, {"evidence": -1}, {"words": (" ",)}):
        with pytest.raises(InputError):
            AuditOptions(**wrong)


def test_names_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text(
        "landmark_id,category\n1,http://commons.wikimedia.org/wiki/Category:H%C3%B4tel_des_Invalides,_Paris\n2,Rome\n"
    )
    with pytest.raises(FormatError):
        (tmp_path / "one.csv").write_text("landmark_id\n1\n")
        read_class_names(tmp_path / "one.csv")
    path.write_text(path.read_text().replace("Invalides,_", "Invalides_"))
    names = read_class_names(path)
    assert names == {"1": "Hôtel des Invalides Paris", "2": "Rome"}
    assert category_of(" Oxford ") == "Oxford"
    found = named_classes({"1": 4, "2": 5, "paris-3": 6}, names, ["PARIS"])
    assert [(one.label, one.name, one.images) for one in found] == [
        ("1", "Hôtel des Invalides Paris", 4), ("paris-3", "paris-3", 6)
    ]  # fmt: skip
    assert named_classes({"1": 4}, names, []) == ()


# --------------------------------------------------------------------------------------------- SIFT and RANSAC


def test_sift_finds_the_map_and_nothing_else() -> None:
    extractor = RootSift(max_features=600)
    one, other, foreign = (extractor.extract(pixels) for pixels in (astronaut(), turned(), coffee()))
    found, mirrored = sift_matches(one, other)
    assert found.inliers > 80
    truth = cv2.getRotationMatrix2D((256, 256), 12, 0.8)
    there = found.query_points @ truth[:, :2].T + truth[:, 2]
    distances = np.linalg.norm(there - found.points, axis=1)
    assert np.mean(distances < 0.01 * 512) > 0.95  # within the slack of the verification
    assert len(set(found.features.tolist())) == len(set(found.query_features.tolist())) == found.inliers
    assert mirrored.inliers < 12
    assert sift_matches(one, foreign)[0].inliers < 12
    again, _ = sift_matches(one, other)
    np.testing.assert_array_equal(again.query_features, found.query_features)


def test_sift_of_almost_nothing() -> None:
    extractor = RootSift(max_features=600)
    grey, whole = extractor.extract(np.full((64, 64, 3), 99, np.uint8)), extractor.extract(coffee())
    for one, other in ((grey, grey), (grey, whole), (whole, grey)):
        assert [match.inliers for match in sift_matches(one, other)] == [0, 0]


# -------------------------------------------------------------------------------------------------- the whole way


def test_the_overlap_of_drawn_rooms_is_found(audited: AuditReport, sides: Sides) -> None:
    assert recall(audited, sides) >= 0.95
    counts = audited.questions.counts
    assert counts.images == 10
    assert counts.classes == 5
    assert counts.queries == {"test": len(sides.truth)}
    assert counts.pairs == len(sides.truth) * 10
    assert counts.found == len(audited.questions.pairs)
    assert audited.decision.removed == ()
    drawn = {path.name for path in (audited.folder / "pictures").iterdir()}
    assert {f"{one.key}{what}.jpg" for one in audited.questions.pairs for what in ("", "-match")} < drawn


def test_people_leave_no_false_class(sides: Sides, tmp_path: Path) -> None:
    report = audit(sides, tmp_path / "audit")
    answer_truly(report, sides, ("Ann", "Bob", "Eve"))
    before = {path.name: path.read_bytes() for path in report.folder.iterdir() if path.is_file()}
    report = audit(sides, tmp_path / "audit")
    assert {one.label for one in report.decision.removed} == set(sides.overlapping.values())
    assert report.judges == dict.fromkeys(("Ann", "Bob", "Eve"), len(report.questions.pairs))
    assert (report.images_left, report.classes_left) == (4, 2)
    assert [(row.name, row.overlapping, row.classes, row.images) for row in report.rows] == [
        ("test", len(sides.overlapping), 3, 6)
    ]  # fmt: skip
    _check_files(report, sides)
    assert (report.folder / STATE).read_bytes() == before[STATE]  # the questions do not depend on the answers


def _check_files(report: AuditReport, sides: Sides) -> None:
    labels = read_labels(report.folder / "cleaned.csv")
    assert set(labels.values()) == {"other-0", "other-1"}
    excluded = read_class_list(report.folder / "removed.txt")
    left = without_classes(read_instances(sides.train), excluded, "removed.txt")
    assert {image.name for image in left.images} == set(labels)
    again = read_training_set(report.folder / "cleaned-images.csv", "csv", sides.train)
    assert dict(zip((image.name for image in again.images), again.classes, strict=True)) == labels
    with open(report.folder / "queries.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["query"] for row in rows if int(row["same"])} == {f"test/{name}" for name in sides.overlapping}
    content = json.loads((report.folder / "report.json").read_text())
    assert content == json.loads(json.dumps(report.as_dict()))
    page = (report.folder / "report.html").read_text()
    assert "<script" not in page
    assert all(f"<h3>{one.label}</h3>" in page for one in report.decision.removed)
    assert report_again(report.folder).as_dict() == report.as_dict()


class _StoppedError(BaseException):
    """What a stop at some request of the disk is, which nothing catches."""


def test_a_run_that_is_stopped_again_and_again_ends_as_one(
    sides: Sides, audited: AuditReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = 0
    for at in range(20, 1000, 35):  # later each time, so that every run gets further than the one before

        def react(count: int, at: int = at) -> None:
            if count >= at:
                raise _StoppedError

        with monkeypatch.context() as patch:
            CountedDisk(patch, react)
            try:
                report = audit(sides, tmp_path / "audit")
                break
            except _StoppedError:
                stops += 1
    assert stops > 2
    assert report.as_dict() == audited.as_dict()
    drawn, expected = ({path.name: path.read_bytes() for path in (one.folder / "pictures").iterdir()
                        if path.suffix == ".jpg"} for one in (report, audited))  # fmt: skip
    assert drawn == expected


def test_sift_and_ransac_find_it_too(audited: AuditReport, sides: Sides) -> None:
    report = audit(sides, audited.folder, AuditOptions(top=20, verification="sift"))
    assert recall(report, sides) >= 0.95
    assert all(one.evidence == one.inliers >= 12 for one in report.questions.pairs)
    audit(sides, audited.folder)


def test_controls_classes_by_name_and_images_without_a_class(sides: Sides, tmp_path: Path) -> None:
    train, control = tmp_path / "train", tmp_path / "control"
    for name in ("other-0", "other-1"):
        (control / name).parent.mkdir(parents=True, exist_ok=True)
        (control / name).symlink_to(sides.train / name)
    train.mkdir()
    for place in sides.train.iterdir():
        (train / place.name).symlink_to(place)
    (train / "loose image.jpg").write_bytes((sides.test / "room-0-view.jpg").read_bytes())
    inputs = AuditInputs(TrainingSource(train), (sides.test,), controls=(control,))
    options = AuditOptions(top=5, words=("OTHER-1",), every_class=True)
    report = run_audit(inputs, tmp_path / "audit", options, extraction=EXTRACTION)
    [counted] = report.questions.controls
    assert (counted.images, counted.classes) == (4, 2)
    assert counted.found_queries <= 1
    [named] = report.questions.named
    assert named.label == "other-1"
    answer_truly(report, sides)
    with JudgementJournal(report.folder) as journal:
        journal.add(named.key, "Ann", "same")
        for one in report.questions.pairs:
            if one.label == "loose image.jpg":
                journal.add(one.key, "Ann", "same")
    report = report_again(report.folder)
    assert {one.label for one in report.decision.removed} == {
        *set(sides.overlapping.values()), "other-1", "loose image.jpg"
    }  # fmt: skip
    assert [one.label for one in report.decision.removed_by("text")] == ["other-1"]


def test_a_name_with_a_space_has_no_landmark_form(sides: Sides, tmp_path: Path) -> None:
    (tmp_path / "train" / "a class").mkdir(parents=True)
    (tmp_path / "train" / "a class" / "x.jpg").write_bytes((sides.train / "room-0" / "2.jpg").read_bytes())
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "train" / "b" / "x.jpg").write_bytes((sides.train / "room-1" / "2.jpg").read_bytes())
    (tmp_path / "train" / "b" / "broken.jpg").write_bytes(b"no photograph")
    inputs = AuditInputs(TrainingSource(tmp_path / "train"), (sides.test,))
    report = run_audit(inputs, tmp_path / "audit", AuditOptions(top=5), extraction=EXTRACTION)
    assert not report.is_in_landmark_form
    assert not (tmp_path / "audit" / "cleaned.csv").exists()
    assert "b/broken.jpg" in report.questions.unread
    assert "b/broken.jpg" in (tmp_path / "audit" / "report.html").read_text()
    assert len(read_training_set(tmp_path / "audit" / "cleaned-images.csv", "csv", tmp_path / "train").images) == 3


def test_a_state_that_was_altered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="asmk-engine audit TRAIN TEST"):
        read_state(tmp_path)
    questions = Questions(COUNTS, (COUNTS,), (pair("a/1", "x", "c"),), (NamedClass("c", "Paris", 7),), {"x": "why"})
    write_state(tmp_path, AuditState(TrainingSource(tmp_path), AuditOptions(words=("Paris",)), questions))
    found = read_state(tmp_path)
    assert (found.questions.as_dict(), found.options) == (questions.as_dict(), AuditOptions(words=("Paris",)))
    whole = (tmp_path / STATE).read_text()
    for altered in ("{", "[]", "{}", whole.replace('"top": 100', '"top": 0'), whole.replace('"pairs"', '"peers"')):
        (tmp_path / STATE).write_text(altered)
        with pytest.raises(AsmkError, match=r"audit\.json"):
            read_state(tmp_path)


@pytest.mark.skipif(not has_shared(), reason="the shared photographs are not there")
def test_the_overlap_of_photographs_is_found(tmp_path: Path) -> None:
    sides = photographed_sides(tmp_path, 8, 40)
    report = audit(sides, tmp_path / "audit", AuditOptions(top=20))
    assert recall(report, sides) >= 0.95
    answer_truly(report, sides)
    report = report_again(report.folder)
    assert {one.label for one in report.decision.removed} == set(sides.overlapping.values())
