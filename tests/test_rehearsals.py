"""Rehearsals of the experiments of published tables, and the stages that they need and others do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import official_files
from asmk_engine.cli import commands
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.protocol import evaluate
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.networks.composed.table import NETWORKS
from asmk_engine.networks.registry import WEIGHTS
from asmk_engine.networks.stand_in import save_stand_in
from asmk_engine.reproduction import rehearsal
from asmk_engine.reproduction.catalogue import open_experiment
from asmk_engine.reproduction.datasets import Published, Rehearsed
from asmk_engine.reproduction.drawings import draw, draw_photographs
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.files import check_there, needs
from asmk_engine.reproduction.papers import open_table, table_experiments
from asmk_engine.reproduction.rehearsal import rehearse, rehearsed_names
from asmk_engine.reproduction.results import result_place
from asmk_engine.reproduction.stages import run
from disks import fast_disk
from rehearsals import Silent

ONE_EACH = ("cider-ft-sfm120k", "dir-sfm120k", "gem-ap-gldv1", "gem-arcface-landmarks")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    return draw_photographs(tmp_path_factory.mktemp("drawn") / "photographs")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(commands, ["reproduce", *map(str, arguments)])


def check_report(folder: Path, name: str) -> None:
    content = json.loads(result_place(folder, name).read_text(encoding="utf-8"))
    measured = {line["row"] for line in content["lines"]}
    assert content["rehearsal"] and {"easy", "medium", "hard"} <= measured
    tests = {test.name: test for test in open_experiment(name).tests}
    for line in content["lines"]:
        assert 0 <= line["measured"] <= 100 and line["published_inside"] is None
        assert line["row"].endswith("mP@10") <= tests[line["test"]].has_precision
    assert len({line["test"] for line in content["lines"]}) == 1 + any(test.distractors for test in tests.values())


def rehearse_and_check(names: list[str], photographs: Rehearsed, folder: Path) -> None:
    done = list(rehearse(names, photographs, folder, Silent()))
    assert [(one.experiment, one.error) for one in done] == [(name, None) for name in names]
    for name in names:
        check_report(folder, name)


def test_some_experiments_are_rehearsed(photographs: Rehearsed, tmp_path: Path) -> None:
    rehearse_and_check(list(ONE_EACH), photographs, tmp_path)


@pytest.mark.slow
def test_all_experiments_of_tables_are_rehearsed(photographs: Rehearsed, tmp_path: Path) -> None:
    rehearse_and_check(list(table_experiments()), photographs, tmp_path)


def test_what_is_rehearsed() -> None:
    assert rehearsed_names() == list(table_experiments())
    names = rehearsed_names([open_table("s003-1")])
    assert names == ["gem-gldv1", "solar-gldv1", "delg-r50-retrained", "dolg-r50-gldv2", "dplg-r50-gldv2"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_stand_in(name: str, tmp_path: Path) -> None:
    one, again, other = (save_stand_in(tmp_path / f"{n}.safetensors", name, seed) for n, seed in enumerate((0, 0, 1)))
    assert one == again != other
    extractor = load_extractor(name, weights=str(tmp_path / "0.safetensors"))
    found = extractor.extract(draw(0, 0))
    assert found.descriptors.shape == (1, extractor.dim) and np.isclose(np.linalg.norm(found.descriptors), 1)
    assert "untrained_seed" not in extractor.recipe.options


def test_the_drawn_photographs(photographs: Rehearsed, tmp_path: Path) -> None:
    task = photographs.task("roxford5k", False)
    assert len(task.queries) == 4 and len(task.database.images) == 12
    again = draw_photographs(tmp_path / "again")
    same = [path.read_bytes() == (again.photos / path.name).read_bytes() for path in photographs.photos.iterdir()]
    assert all(same) and len(same) == 17


def test_a_failure_is_told_and_the_others_go_on(
    photographs: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = rehearsal.run

    def some_fail(row: Any, *others: Any) -> Any:
        if row.name == "gem-gldv1":
            raise InputError("no way")
        return original(row, *others)

    monkeypatch.setattr(rehearsal, "run", some_fail)
    monkeypatch.setattr(rehearsal, "table_experiments", lambda: {"gem-gldv1": 0, "gem-arcface-landmarks": 0})
    done = invoke(
        "--rehearse", photographs.photos, "--ground-truth", photographs.ground_truth, "-o", tmp_path, "--json", "-q"
    )
    assert isinstance(done.exception, InputError) and str(done.exception) == "gem-gldv1: no way"
    first, second = json.loads(done.stdout)
    assert (first["experiment"], first["error"]) == ("gem-gldv1", "no way") and second["error"] == ""
    check_report(tmp_path, "gem-arcface-landmarks")


def test_one_experiment_on_drawn_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("gem-gldv1", "--rehearse", "--workers", 0, "--json", "-q")
    assert done.exception is None and json.loads(done.stdout)["rehearsal"]
    assert [path.name for path in tmp_path.iterdir()] == ["gem-gldv1.reproduction"]
    told = invoke("--table", "s003-1").stdout
    assert told.count("  rehearsal  ") == 1 and "R101-GeM (GLD) [5]" in told


def test_a_table_rehearsed_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearsal, "table_experiments", lambda: {"gem-gldv1": 0})
    done = invoke("--table", "s003-1", "--rehearse", "--format", "csv")
    assert done.exception is None and done.stdout.count(",rehearsal,") == 1 and not list(tmp_path.iterdir())
    assert "gem-gldv1  done" in done.stderr and "1 experiment rehearsed" in done.stderr


# ---- precision, and the data sets that only these tables have


def test_precision_is_that_of_the_protocol(photographs: Rehearsed, tmp_path: Path) -> None:
    found = run(open_experiment("cider-sfm120k"), photographs, Settings(tmp_path, workers=0), Silent())
    truth = photographs.task("roxford5k", False).ground_truth
    assert truth is not None
    index = GlobalIndex.open(tmp_path / "roxford5k.index")
    searcher, described = GlobalSearcher(index), found.measured["roxford5k"]
    queries = FeatureSet.open(tmp_path / "roxford5k.queries.features")
    rankings = {one.name: [hit.name for hit in searcher.search(queries.read(one.name), None)] for one in truth.queries}
    report = evaluate(truth, rankings)
    for row in ("easy", "medium", "hard"):
        assert described[row].value == pytest.approx(100 * report.scores[row].mean_average_precision)
        assert described[f"{row} mP@10"].value == pytest.approx(100 * report.scores[row].mean_precision[10])
        assert described[f"{row} mP@10"].low <= described[f"{row} mP@10"].value <= described[f"{row} mP@10"].high


def test_an_experiment_without_published_precision_measures_none(photographs: Rehearsed, tmp_path: Path) -> None:
    found = run(open_experiment("gem-gldv1"), photographs, Settings(tmp_path, workers=0), Silent())
    assert found.measured["roxford5k"].keys() == {"easy", "medium", "hard"}


def test_the_original_oxford_as_it_is_published(photographs: Rehearsed, tmp_path: Path) -> None:
    folder = tmp_path / "oxford5k"
    shutil.copytree(photographs.photos, folder / "jpg")
    (folder / "jpg" / "gnd.json").unlink()
    (folder / "gt").mkdir()
    texts = {"query": "oxc1_subject-0-view-0 2 2 60 44\n", "good": "subject-0-view-0\nsubject-0-view-1\n",
             "ok": "subject-0-view-2\n", "junk": "subject-0-view-3\n"}  # fmt: skip
    for ending, text in texts.items():
        (folder / "gt" / f"all_souls_1_{ending}.txt").write_text(text)
    task = Published(tmp_path).task("oxford5k", False)
    assert len(task.database.images) == 16  # every image, its queries too
    assert [(query.path.name, query.box) for query in task.queries] == [("subject-0-view-0.png", (2, 2, 60, 44))]
    truth = task.ground_truth
    assert truth is not None and read_ground_truth(folder / "gt").protocol == truth.protocol == "original"
    assert truth.queries[0].finds_itself and truth.queries[0].easy == {f"subject-0-view-{n}.png" for n in (0, 1, 2)}
    assert len(Published(tmp_path).photographs("oxford5k").images) == 16
    (folder / "jpg" / "subject-0-view-3.png").unlink()
    with pytest.raises(NotFoundError, match="subject-0-view-3"):
        Published(tmp_path).task("oxford5k", False)


def test_official_weights_of_a_composed_network_are_used_as_they_are(photographs: Rehearsed, tmp_path: Path) -> None:
    """SOLAR's file, on ResNet-18 so that it is small, with random weights, under the name of the published one."""
    generator = torch.Generator().manual_seed(0)
    content = official_files.content("SOLAR", official_files.solar("resnet18"))
    for name, tensor in content["state_dict"].items():
        if tensor.ndim > 1:
            spread = (2 / tensor[0].numel()) ** 0.5
            content["state_dict"][name] = spread * torch.randn(tensor.shape, generator=generator)
    for name in ("roxford5k", "rparis6k"):
        shutil.copytree(photographs.photos, tmp_path / name / "jpg")
        (tmp_path / name / "jpg" / "gnd.json").rename(tmp_path / name / f"gnd_{name}.pkl")
    place = tmp_path / "weights" / WEIGHTS["solar-resnet101"].file
    place.parent.mkdir()
    torch.save(content, place)
    row = open_experiment("solar-gldv1")
    check_there(row, needs(row, tmp_path))
    found = run(row, Published(tmp_path), Settings(tmp_path / "work", tmp_path, workers=0), Silent())
    assert found.obstacles["roxford5k"] == ("12 of the 4993 images of roxford5k",)
    assert found.measured["rparis6k"]["hard"].queries == 4
    assert "untrained_seed" not in found.facts["features"][0]


def save_landmarks(folder: Path, usage: str) -> None:
    for part, names in {"index": ["abc1", "abd2", "bcd3"], "test": ["xyz1", "xyz2", "yzx3"]}.items():
        for number, name in enumerate(names):
            path = folder / part / name[0] / name[1] / name[2] / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imencode(".jpg", draw(number, 0))[1].tofile(path)
    rows = f"id,images,Usage\nxyz1,abc1 bcd3,{usage}\nxyz2,None,Ignored\nyzx3,abd2,Public\n"
    (folder / "retrieval_solution_v2.1.csv").write_text(rows)


def test_retrieval_of_landmarks_as_it_is_published(tmp_path: Path) -> None:
    save_landmarks(tmp_path / "gldv2-retrieval", "Private")
    task = Published(tmp_path).task("gldv2-retrieval", False)
    assert [image.name for image in task.database.images] == ["a/b/c/abc1.jpg", "a/b/d/abd2.jpg", "b/c/d/bcd3.jpg"]
    assert [query.name for query in task.queries] == ["xyz1"] and task.queries[0].path.name == "xyz1.jpg"
    assert task.ground_truth is not None and task.ground_truth.queries[0].easy == {"a/b/c/abc1.jpg", "b/c/d/bcd3.jpg"}
    save_stand_in(tmp_path / "gem.safetensors", "gem")
    settings = Settings(tmp_path / "work", tmp_path, weights=(tmp_path / "gem.safetensors",), workers=0)
    found = run(open_experiment("gem-arcface-landmarks"), Published(tmp_path), settings, Silent())
    private = found.measured["gldv2-retrieval"]["private"]
    assert private.queries == 1 and 0 < private.value <= 100
    assert "3 of the 761757 images of gldv2-retrieval" in found.obstacles["gldv2-retrieval"]
    (tmp_path / "gldv2-retrieval" / "test" / "x" / "y" / "z" / "xyz1.jpg").unlink()
    with pytest.raises(NotFoundError, match=r"1 photographs are missing, such as .*xyz1\.jpg"):
        Published(tmp_path).task("gldv2-retrieval", False)
    save_landmarks(tmp_path / "public" / "gldv2-retrieval", "Public")
    with pytest.raises(NotFoundError, match="the retrieval solution has no private images"):
        Published(tmp_path / "public").task("gldv2-retrieval", False)
