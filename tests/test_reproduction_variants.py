"""Several seeds and curves over the number of features: one extraction, and the same scores as of runs of their own."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSet
from asmk_engine.inverted.index import Index
from asmk_engine.reproduction.catalogue import open_experiment
from asmk_engine.reproduction.curve import CurvePoint, csv_text, draw, main_row, run_curve, with_features
from asmk_engine.reproduction.curve import as_dict as curve_as_dict
from asmk_engine.reproduction.datasets import Rehearsed
from asmk_engine.reproduction.evaluation import Measured
from asmk_engine.reproduction.experiment import parse_experiment
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.report import as_dict, as_markdown
from asmk_engine.reproduction.stages import run
from asmk_engine.reproduction.variants import Variant, combined, deviation
from disks import fast_disk
from rehearsals import Silent, drawn

EXPERIMENT = """
name = "drawn"
title = "RootSIFT of drawn photographs"
source = "nowhere"
kind = "local"
[[describe]]
extractor = "rootsift"
options = { max_features = 150, max_side = 320 }
[train]
dataset = "sfm120k"
[codebook]
rounds = 3
seed = 4
[[tests]]
dataset = "roxford5k"
published = { medium = 50.0 }
"""
ROW = parse_experiment(EXPERIMENT, "drawn.toml")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    return drawn(tmp_path_factory.mktemp("variants"))


def settings(work: Path, seeds: int = 1) -> Settings:
    return Settings(work, workers=0, seeds=seeds)


def of_seed(seed: int) -> Any:
    assert ROW.codebook is not None
    return replace(ROW, codebook=replace(ROW.codebook, seed=seed))


def test_every_seed_is_a_run_of_its_own(rehearsed: Rehearsed, tmp_path: Path) -> None:
    alone = run(ROW, rehearsed, settings(tmp_path / "work"), Silent())
    three = run(ROW, rehearsed, settings(tmp_path / "work", 3), Silent())  # goes on from the run with one
    assert alone.by_seed[0] == three.by_seed[0] and list(three.by_seed) == [0, 1, 2]
    for seed in (1, 2):
        apart = run(of_seed(4 + seed), rehearsed, settings(tmp_path / f"seed {seed}"), Silent())
        assert apart.measured == three.by_seed[seed]
    codebooks = [Codebook.open(path) for path in (tmp_path / "work").glob("learn-*/codebook.h5")]
    assert sorted(one.training["seed"] for one in codebooks) == [4, 5, 6]
    endings = ["-seed-1.index", "-seed-2.index", ".index"]
    indexes = sorted(path.name for path in (tmp_path / "work").glob("*.index"))
    assert indexes == [f"roxford5k-by-sfm120k{ending}" for ending in endings]
    values = [scores["roxford5k"]["medium"].value for scores in three.by_seed.values()]
    found = three.measured["roxford5k"]["medium"]
    assert found.value == pytest.approx(sum(values) / 3)
    spread = math.sqrt(sum((value - sum(values) / 3) ** 2 for value in values) / 2)
    assert three.deviation("roxford5k", "medium") == pytest.approx(spread, abs=1e-9)


def test_seeds_that_are_done_are_not_done_again(
    rehearsed: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(ROW, rehearsed, settings(tmp_path, 2), Silent())
    for place in ("stages.evaluate_task", "engines.Codebook.train"):
        monkeypatch.setattr(f"asmk_engine.reproduction.{place}", lambda *_, **__: pytest.fail("done again"))
    again = run(ROW, rehearsed, settings(tmp_path, 2), Silent())
    assert again.by_seed == whole.by_seed and repr(again.measured) == repr(whole.measured)
    assert run(ROW, rehearsed, settings(tmp_path), Silent()).measured == whole.by_seed[0]


def test_an_interrupted_seed_goes_on(rehearsed: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Silent):
        def say(self, message: str) -> None:
            if "search roxford5k, seed 1" in message:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(ROW, rehearsed, settings(tmp_path, 2), Stopped())
    monkeypatch.setattr(
        "asmk_engine.reproduction.engines.Codebook.train", lambda *_, **__: pytest.fail("learned again")
    )
    assert list(run(ROW, rehearsed, settings(tmp_path, 2), Silent()).by_seed) == [0, 1]


def test_mean_and_deviation_are_in_the_report(rehearsed: Rehearsed, tmp_path: Path) -> None:
    found = run(ROW, rehearsed, settings(tmp_path, 3), Silent())
    found = replace(found, by_seed={
        seed: {"roxford5k": {"medium": Measured(value, value - 2, value + 1, 4)}}
        for seed, value in enumerate((40.0, 41.0, 45.0))
    }, measured={"roxford5k": {"medium": combined([Measured(40, 38, 41, 4), Measured(41, 39, 42, 4),
                                                   Measured(45, 43, 46, 4)])}})  # fmt: skip
    text, content = as_markdown(found), as_dict(found)
    assert "Measured with 3 seeds" in text and "| roxford5k | medium | 50.0 | 42.0 ± 2.6 | 38.0 to 46.0 | 4 |" in text
    (line,) = content["lines"]
    assert content["seeds"] == 3 and line["by_seed"] == [40, 41, 45] and line["measured"] == 42
    assert line["deviation"] == pytest.approx(math.sqrt(7))
    (words,) = [one for one in content["totals"] if one["what"] == "words per image of roxford5k"]
    counts = [Index.open(tmp_path / f"roxford5k-by-sfm120k{Variant(seed).suffix}.index").postings for seed in range(3)]
    assert words["measured"] == pytest.approx(sum(counts) / 3 / 28)
    assert words["deviation"] == pytest.approx(statistics.stdev(counts) / 28)


def test_several_seeds_of_nothing_are_refused(rehearsed: Rehearsed, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gem-w learns nothing, so 2 seeds would all measure the same; leave --seeds"):
        run(open_experiment("gem-w"), rehearsed, settings(tmp_path, 2), Silent())


def test_one_seed_has_no_deviation() -> None:
    one = Measured(1.0, 0.0, 2.0, 3)
    assert combined([one]) is one and deviation([1.0]) is None and deviation([]) is None
    nothing = combined([one, Measured(math.nan, math.nan, math.nan, 0)])
    assert math.isnan(nothing.value) and math.isnan(deviation([1.0, math.nan]) or 0)
    for values in ([1.0, 1.0], [40.0, 41.0, 45.0], [0.1, -3.0, 7.5, 7.5]):
        assert deviation(values) == pytest.approx(statistics.stdev(values), abs=1e-12)


def test_a_curve_is_what_extracting_so_many_features_measures(rehearsed: Rehearsed, tmp_path: Path) -> None:
    points = run_curve(ROW, rehearsed, settings(tmp_path / "curve"), Silent(), [10, 150, 40, 40])
    assert [point.strongest for point in points] == [10, 40, 150]
    assert FeatureSet.open(tmp_path / "curve" / "roxford5k.features").recipe.options["max_features"] == 150
    assert (
        len(list((tmp_path / "curve").glob("learn-*"))) == 1 and len(list((tmp_path / "curve").glob("*.features"))) == 3
    )
    words = [point.words_per_image for point in points]
    assert words == sorted(words) and words[0] < words[-1]
    whole = run(ROW, rehearsed, settings(tmp_path / "whole"), Silent())
    assert points[-1].scores == whole.measured["roxford5k"]
    assert points[-1].words_per_image == Index.open(tmp_path / "whole" / "roxford5k-by-sfm120k.index").postings / 28
    # The same number of features extracted, with the same codebook.
    fewer = replace(with_features(ROW, 10), train=replace(ROW.train, options={"max_features": 150}))  # type: ignore[type-var]
    apart = run(fewer, rehearsed, settings(tmp_path / "fewer"), Silent())
    assert points[0].scores == apart.measured["roxford5k"]


def test_a_curve_over_seeds(rehearsed: Rehearsed, tmp_path: Path) -> None:
    first, second = run_curve(ROW, rehearsed, settings(tmp_path, 2), Silent(), [10, 150])
    whole = run(of_seed(5), rehearsed, settings(tmp_path / "whole"), Silent())
    alone = run(ROW, rehearsed, settings(tmp_path / "alone"), Silent())
    values = [one.measured["roxford5k"]["medium"].value for one in (alone, whole)]
    assert second.scores["medium"].value == pytest.approx(sum(values) / 2)
    assert second.deviations["medium"] == pytest.approx(statistics.stdev(values), abs=1e-9)
    assert first.deviations["medium"] is not None and math.isnan(first.deviations["hard"] or 0)
    json.dumps(curve_as_dict([first, second]), allow_nan=False)


def test_the_features_of_the_training_images_are_those_of_the_experiment() -> None:
    how, delf = open_experiment("how-r50-2000"), open_experiment("delf-asmk")
    assert (
        with_features(how, 300).train == how.train
        and with_features(how, 300).describe[0].options["max_features"] == 300
    )
    assert with_features(delf, 300).train.options == {"scales": [1.0], "max_features": 1000}  # type: ignore[union-attr]


@pytest.mark.parametrize("strongest", [[], [0], [5, -1]])
def test_a_curve_of_nothing_is_refused(rehearsed: Rehearsed, tmp_path: Path, strongest: list[int]) -> None:
    with pytest.raises(InputError, match="give one number or more, each 1 or more"):
        run_curve(ROW, rehearsed, settings(tmp_path), Silent(), strongest)


def test_a_curve_of_global_descriptors_is_refused(rehearsed: Rehearsed, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gem-w: one descriptor per image, a curve needs"):
        run_curve(open_experiment("gem-w"), rehearsed, settings(tmp_path), Silent())


def test_a_table_and_a_figure_of_a_curve() -> None:
    scores = {"easy": Measured(math.nan, math.nan, math.nan, 0), "medium": Measured(70.5, 60, 80, 70)}
    points = [
        CurvePoint("a", n, n / 2, scores, {"easy": None, "medium": spread}) for n, spread in ((4, None), (8, 0.25))
    ]
    assert csv_text(points, 1).splitlines() == [
        "test,row,strongest,words_per_image,score,low,high,deviation,seeds,queries",
        "a,easy,4,2.0000,,,,,1,0",
        "a,medium,4,2.0000,70.5000,60.0000,80.0000,,1,70",
        "a,easy,8,4.0000,,,,,1,0",
        "a,medium,8,4.0000,70.5000,60.0000,80.0000,0.2500,1,70",
    ]
    assert main_row(scores) == "medium" and main_row({"cls1": scores["easy"], "cls3": scores["easy"]}) == "cls3"
    pytest.importorskip("matplotlib")
    made = draw(points, "A title")
    assert made["png"].startswith(b"\x89PNG") and b"A title" in made["svg"] and made == draw(points, "A title")
    assert made != draw(points[:1], "A title")


def test_a_curve_on_the_command_line(rehearsed: Rehearsed, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "drawn.toml").write_text(EXPERIMENT)
    call = [
        "reproduce",
        tmp_path / "drawn.toml",
        "--rehearse",
        rehearsed.photos,
        "--ground-truth",
        rehearsed.ground_truth,
    ]
    call += ["-o", tmp_path / "work", "--workers", 0, "-q", "--curve", "--strongest", "10, 20"]
    done = CliRunner().invoke(commands, list(map(str, call)))
    assert done.exception is None, done.exception
    assert done.stdout == (tmp_path / "work" / "curve.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(one["strongest"], one["row"]) for one in rows if one["row"] == "medium"] == [
        ("10", "medium"),
        ("20", "medium"),
    ]
    assert (tmp_path / "work" / "curve.svg").stat().st_size and (tmp_path / "work" / "curve.png").stat().st_size
    shown = CliRunner().invoke(commands, list(map(str, [*call, "--json"])))
    points = json.loads(shown.stdout)
    assert [point["strongest"] for point in points] == [10, 20] and points[0]["deviations"]["medium"] is None


@pytest.mark.parametrize("strongest", ["", "0", "10,", "a", "10 20", "1000001"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, strongest: str) -> None:
    call = ["reproduce", "how-r18-1000", "--data", str(tmp_path), "--curve", "--strongest", strongest]
    wrong = CliRunner().invoke(commands, call)
    assert wrong.exit_code == 2 and "expected numbers from 1 to 1000000, such as 400,600,800" in wrong.stderr
    alone = CliRunner().invoke(commands, ["reproduce", "how-r18-1000", "--strongest", "10"])
    assert alone.exit_code == 2 and "--strongest is for --curve" in alone.stderr
