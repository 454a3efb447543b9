"""One failure affects only itself: broken queries, unreadable folders, missing photographs, failing contact sheets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asmk_engine.features import FeatureSet
from asmk_engine.inverted.index import Index
from asmk_engine.search.query_features import QuerySource
from samples import ENVIRONMENT, as_ordinary_user
from test_identity import FEATURES, best, call, fill, index, names, paint


def hits_of(out: str) -> dict[str, list[str]]:
    """The hits of each query in JSON lines."""
    entries = [json.loads(line) for line in out.splitlines()]
    return {entry["query"]: [hit["name"] for hit in entry["hits"]] for entry in entries}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with photographs and their index."""
    fill(tmp_path / "photos", {f"{number}.jpg": number for number in range(10)})
    index(tmp_path / "photos", to=tmp_path / "i.index", options=("--words", "32"))
    return tmp_path


# ----------------------------------------------------------------------------------------------------- C. queries


def test_a_broken_query_costs_itself_only(world: Path) -> None:
    photos, to = world / "photos", world / "i.index"
    (world / "broken.jpg").write_bytes(b"no image")
    asked = [photos / "1.jpg", world / "broken.jpg", photos / "2.jpg", world / "missing.jpg", "3.jpg"]
    for form in ("jsonl", "table", "trec", "pairs"):
        told = call("query", to, *asked, "--format", form, code=1)
        assert "2 errors; the first: " in told and "broken.jpg" in told and "missing.jpg" in told
    told = call("query", to, *asked, "--format", "jsonl", code=1)
    found = hits_of(told.out)
    assert list(found) == [str(photos / "1.jpg"), str(photos / "2.jpg"), "3.jpg"]
    assert found[str(photos / "2.jpg")][0] == "2.jpg"
    assert call("query", to, world / "broken.jpg", code=1).out == ""


def test_one_lost_photograph_of_all_costs_itself_only(world: Path) -> None:
    to = world / "i.index"
    for part in (world / "i.features").glob("part-*"):
        part.unlink()
    (world / "i.features").rename(world / "away")
    (world / "photos/4.jpg").unlink()
    paint(world / "photos/5.jpg", 99)
    told = call("query", to, "--all", "--format", "jsonl", code=1)
    found = hits_of(told.out)
    assert sorted(found) == sorted(f"{number}.jpg" for number in range(10) if number not in (4, 5))
    assert "'4.jpg'" in told and "not the photograph that was indexed as '5.jpg'" in told


def test_fused_queries_go_on_too(world: Path) -> None:
    to = world / "i.index"
    (world / "broken.jpg").write_bytes(b"no image")
    told = call("query", to, world / "broken.jpg", "1.jpg", "--fuse", to, "--format", "jsonl", code=1)
    assert list(hits_of(told.out)) == ["1.jpg"] and "broken.jpg" in told


def test_classification_goes_on_too(world: Path) -> None:
    labels = world / "labels.csv"
    labels.write_text("id,landmark_id\n" + "".join(f"{number},{number % 2}\n" for number in range(10)))
    (world / "broken.jpg").write_bytes(b"no image")
    told = call("classify", world / "i.index", world / "broken.jpg", "1.jpg", "--labels", labels, "--format", "jsonl",
                code=1)  # fmt: skip
    assert [json.loads(line)["query"] for line in told.out.splitlines()] == ["1.jpg"] and "broken.jpg" in told


def test_evaluation_goes_on_where_photographs_may_be_missing(world: Path) -> None:
    paint(world / "queries/q.jpg", 1)
    (world / "queries/bad.jpg").write_bytes(b"no image")
    queries = [{"query": name, "easy": [f"{number}.jpg"], "hard": [], "junk": [], "bbox": [5, 5, 200, 200]}
               for number, name in enumerate(["lost", "q", "bad"])]  # fmt: skip
    ground_truth = world / "gnd.json"
    ground_truth.write_text(json.dumps({"imlist": [f"{number}.jpg" for number in range(10)], "queries": queries}))
    images = ("--images", world / "photos", "--images", world / "queries")
    assert "'lost'" in call("evaluate", world / "i.index", "--ground-truth", ground_truth, *images, code=1)
    told = call("evaluate", world / "i.index", "--ground-truth", ground_truth, "--allow-missing", "--json", *images)
    report = json.loads(told.out)
    assert sorted(report["unranked"]) == ["bad", "lost"] and report["per_query"]["medium"]["q"] == 100
    assert "'lost'" in told and "bad.jpg" in told
    ground_truth.write_text(json.dumps({"imlist": [f"{number}.jpg" for number in range(10)], "queries": queries[:1]}))
    assert "'lost'" in call(
        "evaluate", world / "i.index", "--ground-truth", ground_truth, "--allow-missing", *images, code=1
    )


def test_a_sheet_that_fails_withholds_no_answer(world: Path) -> None:
    (world / "file").write_text("in the way")
    for sheet in (world / "file/sheet.png", world / "sheet.jpg"):
        told = call("query", world / "i.index", "1.jpg", "--format", "jsonl", "--contact-sheet", sheet, code=1)
        assert list(hits_of(told.out)) == ["1.jpg"] and str(sheet.parent) in told
    (world / "photos/2.jpg").write_bytes(b"changed and broken")
    call("query", world / "i.index", "1.jpg", "--contact-sheet", world / "sheet.png")
    assert (world / "sheet.png").stat().st_size > 1000


# -------------------------------------------------------------------------------------------- permissions and names


@pytest.mark.parametrize("mode", [0o000, 0o600, 0o400])
def test_locked_folders_and_links_into_them_cost_themselves_only(tmp_path: Path, mode: int) -> None:
    photos = fill(tmp_path / "photos", {"1.jpg": 1, "2.jpg": 2, "locked/3.jpg": 3, "4.jpg": 4})
    secret = fill(tmp_path / "secret", {"5.jpg": 5})
    (photos / "link").symlink_to(secret / "inner")
    (photos / "link.jpg").symlink_to(secret / "5.jpg")
    index(photos, to=tmp_path / "i.index", options=("--workers", "0"), code=0)
    for folder in (photos / "locked", secret):
        folder.chmod(mode)
    paint(photos / "new.jpg", 6)
    arguments = ["index", photos, "-o", tmp_path / "i.index", *FEATURES, "--prune"]
    done = as_ordinary_user([sys.executable, "-m", "asmk_engine", *map(str, arguments)])
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "1 added" in done.stderr and "0 removed" in done.stderr and "locked" in done.stderr
    for folder in (photos / "locked", secret):
        folder.chmod(0o755)
    assert names(tmp_path / "i.index") == ["1.jpg", "2.jpg", "4.jpg", "link.jpg", "locked/3.jpg", "new.jpg"]
    assert len(FeatureSet.open(tmp_path / "i.features")) == 6


def test_a_locked_folder_among_several_costs_itself_only(tmp_path: Path) -> None:
    locked, open_ = fill(tmp_path / "locked", {"1.jpg": 1}), fill(tmp_path / "open", {"2.jpg": 2})
    locked.chmod(0o000)
    command = [sys.executable, "-m", "asmk_engine", "index", str(locked), str(open_), "-o", str(tmp_path / "i.index")]
    done = as_ordinary_user([*command, *FEATURES, "--words", "4"])
    locked.chmod(0o755)
    assert done.returncode == 1 and "1 added" in done.stderr and str(locked) in done.stderr, done.stderr
    assert names(tmp_path / "i.index") == ["2.jpg"]


def test_sheets_and_regions_of_locked_photographs(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", {"1.jpg": 1, "locked/2.jpg": 2})
    index(photos, to=tmp_path / "i.index")
    (photos / "locked").chmod(0o000)
    command = [sys.executable, "-m", "asmk_engine", "query", str(tmp_path / "i.index"), "1.jpg"]
    done = as_ordinary_user([*command, "--contact-sheet", str(tmp_path / "sheet.png"), "--format", "jsonl"])
    assert done.returncode == 0 and list(hits_of(done.stdout)) == ["1.jpg"], done.stderr
    done = as_ordinary_user([*command, "locked/2.jpg", "--box", "5,5,200,200", "--format", "jsonl"])
    (photos / "locked").chmod(0o755)
    assert done.returncode == 1 and list(hits_of(done.stdout)) == ["1.jpg"] and "Traceback" not in done.stderr
    assert "locked/2.jpg" in done.stderr


def test_a_folder_whose_name_is_not_utf8_goes_the_whole_way(tmp_path: Path) -> None:
    photos = fill(tmp_path / "plain", {"1.jpg": 1, "2.jpg": 2}).rename(Path(os.fsdecode(bytes(tmp_path) + b"/ph\xff")))
    to = tmp_path / "i.index"
    call("index", photos, "-o", to, *FEATURES, "--words", "4")
    assert best(to, "1.jpg") == "2.jpg"
    assert call("info", to).code == 0 and json.loads(call("info", to, "--json").out)["roots"][0]["images"] == 2
    assert QuerySource(Index.open(to)).image_path("1.jpg") == photos / "1.jpg"
    assert "2 already indexed" in index(photos, to=to) and call("check", to).code == 0
    done = subprocess.run([sys.executable, "-m", "asmk_engine", "info", to], capture_output=True, env=ENVIRONMENT,
                          check=True)  # fmt: skip
    assert b"images from" in done.stdout
    assert call("extract", photos, "-o", photos.with_name(photos.name + ".features"), *FEATURES).code == 0


# ------------------------------------------------------------------------------------------------------ D. silence


def test_photographs_without_features_are_named_and_listed(world: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(world / "photos/flat.png"), np.full((200, 200, 3), 128, np.uint8))
    cv2.imwrite(str(world / "photos/also flat.png"), np.full((200, 200, 3), 12, np.uint8))
    told = index(world / "photos", to=world / "i.index")
    assert "2 photographs without features" in told and "'flat.png'" in told and "--without-features" in told
    for place in (world / "i.index", world / "i.features"):
        assert call("info", place, "--without-features").out.splitlines() == ["also%20flat.png", "flat.png"]
    listed = json.loads(call("info", world / "i.index", "--without-features", "--json").out)
    assert listed["without_features"] == ["also flat.png", "flat.png"]
    call("info", world / "i.index", "--names", "--without-features", code=2)


def test_files_that_are_passed_over_are_counted_by_kind(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", {"1.jpg": 1, "2.jpg": 2, "3.jpg": 3})
    (photos / "2.jpg").rename(photos / "2")
    (photos / "3.jpg").rename(photos / "3.jfif")
    for name in ("a.mov", "b.mov", "c.pdf", ".hidden.jpg"):
        (photos / name).write_bytes(b"something")
    told = index(photos, to=tmp_path / "i.index")
    assert "2 .mov, 1 .pdf, 1 no extension" in told and "--all-files" in told
    assert names(tmp_path / "i.index") == ["1.jpg", "3.jfif"]
    index(photos, to=tmp_path / "i.index", options=("--all-files",))
    assert names(tmp_path / "i.index") == ["1.jpg", "2", "3.jfif"]


def test_ground_truths_find_photographs_without_an_extension(world: Path) -> None:
    paint(world / "queries/abc.jpg", 1).rename(world / "queries/abc")
    found = QuerySource(Index.open(world / "i.index"), images_roots=[world / "queries"])._photograph("abc")
    assert found == world / "queries/abc"


def test_names_and_files_of_one_name_are_told_apart(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(world / "here/1.jpg", 2)
    monkeypatch.chdir(world / "here")
    told = call("query", world / "i.index", "1.jpg", "--format", "jsonl")
    assert "'1.jpg' is the indexed image" in told and "./1.jpg" in told
    assert "1.jpg" not in hits_of(told.out)["1.jpg"]
    told = call("query", world / "i.index", "./1.jpg", "--format", "jsonl")
    assert told.err == "" and hits_of(told.out)["./1.jpg"][0] == "2.jpg"
    monkeypatch.chdir(world)
    assert call("query", world / "i.index", "1.jpg").err == ""


def test_names_are_taken_as_they_are_printed_and_in_every_form_of_unicode(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9 1.jpg", "cafe\u0301 2.jpg"
    photos = fill(tmp_path / "photos", {composed: 1, apart: 2, "100%25.jpg": 3})
    to = tmp_path / "i.index"
    index(photos, to=to)
    for asked, name in {"caf\u00e9%201.jpg": composed, "cafe\u0301 1.jpg": composed, "caf\u00e9 2.jpg": apart,
                        "caf\u00e9%202.jpg": apart, "100%25.jpg": "100%25.jpg"}.items():  # fmt: skip
        source = QuerySource(Index.open(to))
        assert source.indexed_name(asked) == name
        found = hits_of(call("query", to, asked, "--format", "jsonl").out)
        assert list(found) == [name] and name not in found[name]
    assert QuerySource(Index.open(to)).indexed_name("100%.jpg") is None
    printed = [line.split()[-1] for line in call("query", to, composed).out.splitlines()[1:]]
    assert {QuerySource(Index.open(to)).indexed_name(name) for name in printed} == {apart, "100%25.jpg"}
    assert "another Unicode form" in call("delete", to, "cafe\u0301 1.jpg", code=1)
    assert len(names(to)) == 3
    call("delete", to, "caf\u00e9%201.jpg")
    assert composed not in names(to)


def test_pair_names_are_refused_in_one_fixed_order(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", {"b 2.jpg": 1, "a 1.jpg": 2, "#c.jpg": 3, "d 4.jpg": 4, "good.jpg": 5})
    index(photos, to=tmp_path / "i.index")
    told = call("query", tmp_path / "i.index", "good.jpg", "--format", "pairs", code=1)
    assert "'#c.jpg', 'a 1.jpg', 'b 2.jpg' and 1 more" in told and told.out == ""


def test_failures_are_escaped_once(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", {"1.jpg": 1})
    for name in (b"a b.jpg", b"5%.jpg", b"x\xff.jpg"):
        (Path(os.fsdecode(bytes(photos) + b"/" + name))).write_bytes(b"no image")
    call("extract", photos, "-o", tmp_path / "f", *FEATURES)
    listed = [line.split("\t")[0] for line in call("info", tmp_path / "f", "--failures").out.splitlines()]
    assert listed == ["5%25.jpg", "a%20b.jpg", "x%ED%B3%BF.jpg"]


def test_odd_outputs_and_queries_give_one_clear_line(world: Path) -> None:
    (world / "dangling").symlink_to(world / "nowhere/at/all")
    for command in (("index", world / "photos"), ("extract", world / "photos")):
        told = call(*command, "-o", world / "dangling", *FEATURES, code=1)
        assert "link" in told and str(world / "dangling") in told
    assert "is a folder" in call("query", world / "i.index", world / "photos", code=1)


def test_an_index_of_imported_features_says_what_it_can_be_asked_with(tmp_path: Path) -> None:
    from asmk_engine.recipes import Recipe
    from samples import random_codebook, random_images, write_features

    recipe = Recipe("imported", {"features": "superpoint", "dim": 24})
    made = Index.create(tmp_path / "i", random_codebook(8, 24, recipe=recipe))
    made.add(write_features(tmp_path / "f", random_images(3, 24), recipe=recipe))
    told = call("query", tmp_path / "i", paint(tmp_path / "x.jpg", 1), code=1)
    assert told.err.count("Error") == 1 and "--features" in told and "superpoint" in told
