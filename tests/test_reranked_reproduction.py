"""Re-ranking as a stage of experiments: its part of the files, its networks, and its scores against loops."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import naive
import naive_reranking
from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, DamagedError, InputError
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.joint import JointIndex, split_mark
from asmk_engine.networks.reranking.checkpoints import open_rerank_network
from asmk_engine.networks.reranking.image_tokens import image_tokens
from asmk_engine.networks.reranking.stand_in import save_cvnet_stand_in, save_small_stand_in, save_transformer_stand_in
from asmk_engine.networks.reranking.transformer_files import open_transformer
from asmk_engine.networks.reranking.transformer_pairs import PairTransformer
from asmk_engine.networks.stand_in import save_stand_in
from asmk_engine.reproduction.catalogue import experiment_names, open_experiment
from asmk_engine.reproduction.comparison import rerank_obstacles
from asmk_engine.reproduction.datasets import Published, Rehearsed
from asmk_engine.reproduction.drawings import draw_photographs
from asmk_engine.reproduction.experiment import parse_experiment
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.files import needs
from asmk_engine.reproduction.kept_scores import KeptScorer
from asmk_engine.reproduction.papers import open_table, open_tables
from asmk_engine.reproduction.report import as_dict, write_report
from asmk_engine.reproduction.rerank_plan import (
    Rerank,
    chosen,
    networks_of,
    numbers_of_images,
    place_of,
    reranked_row,
    split_row,
)
from asmk_engine.reproduction.rerank_stage import RankedTest, RerankedTest
from asmk_engine.reproduction.results import result_place
from asmk_engine.reproduction.side_by_side import side_by_side
from asmk_engine.reproduction.stages import run
from asmk_engine.reranking.by_features import unit_of
from asmk_engine.reranking.cvnet import CvnetScorer, CvnetScoring
from asmk_engine.verification.affine_ransac import ransac_match
from disks import fast_disk
from rehearsals import Silent

SMALL = """
name = "small"
title = "Small networks"
source = "nowhere"
kind = "global"
[[describe]]
extractor = "delg"
[[rerank]]
by = "cvnet"
counts = [2, 4]
weights = "cvnet-resnet50"
[[rerank]]
by = "cvnet"
name = "cvnet-8-bit"
counts = [4]
bits = 8
weights = "cvnet-resnet50"
[[rerank]]
by = "gv"
counts = [4]
extractor = "delg-local"
[[rerank]]
by = "rrt"
counts = [3, 5]
extractor = "delg-local"
own_network = true
[[tests]]
dataset = "roxford5k"
published = { medium = 50.0, "medium, gv 4" = 60.0 }
[[tests]]
dataset = "roxford5k"
distractors = "revisitop1m"
"""
ROW = parse_experiment(SMALL, "small.toml")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    return draw_photographs(tmp_path_factory.mktemp("drawn") / "photographs")


def settings_of(work: Path, *rerank: str, **others: Any) -> Settings:
    return Settings(work, workers=0, threads=1, device="cpu", rerank=rerank, **others)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(commands, ["reproduce", *map(str, arguments)])


# ---- the file

REFUSED = [
    ('by = "gv"', 'by = "sp"', "by 'sp', expected one of cvnet, gv, rrt"),
    ("counts = [2, 4]", "counts = []", "counts [], expected numbers of 1 or more"),
    ("counts = [2, 4]", "counts = [0]", "counts [0]"),
    ("counts = [2, 4]", "counts = [2.5]", "counts [2.5]"),
    ("counts = [2, 4]\n", "", "'counts' is missing"),
    ("bits = 8", "bits = 4", "bits 4"),
    ("bits = 8", 'precision = "fp64"', "precision 'fp64'"),
    ("bits = 8", "side = 8", "side 8"),
    ("bits = 8", "weight = -1.0", "weight -1.0"),
    ("bits = 8", "sides = 8", "'sides' is not a key"),
    ('name = "cvnet-8-bit"\n', "", "two parts are called 'cvnet'"),
    ('name = "cvnet-8-bit"', 'name = "all"', "a name has small letters"),
    ('name = "cvnet-8-bit"', 'name = "8 bit"', "a name has small letters"),
    ('extractor = "delg-local"\n', "", "extractor ''; write extractor"),
    ("bits = 8", 'extractor = "delg-local"', "extractor 'delg-local'; leave extractor out"),
    ("bits = 8", "own_network = true", "own_network and options are of an extractor"),
    ('by = "gv"', 'by = "gv"\nweights = "cvnet-resnet50"', "gv has no network"),
    ('by = "gv"', 'by = "gv"\nthresholds = "mine"', "thresholds 'mine', expected delg or detect-to-retrieve"),
    ('"medium, gv 4"', '"medium, gv 5"', "published medium, gv 5 = 60.0"),
    ('"medium, gv 4"', '"cls1, gv 4"', "published cls1, gv 4 = 60.0"),
    ("[[rerank]]", "[[rerank]]\n[rerank.options]\n[[rerank]]", "'by' is missing"),
]


def test_the_parts_are_read() -> None:
    assert [part.title for part in ROW.rerank] == ["cvnet", "cvnet-8-bit", "gv", "rrt"]
    assert ROW.rerank[0] == Rerank("cvnet", (2, 4), weights="cvnet-resnet50") and ROW.rerank[3].own_network
    assert ROW.fingerprint == parse_experiment(SMALL.replace("counts = [4]", "counts = [3, 4]"), "other").fingerprint
    assert ROW.fingerprint == replace(ROW, rerank=()).fingerprint != replace(ROW, title="other").fingerprint


@pytest.mark.parametrize(("old", "new", "message"), REFUSED)
def test_a_wrong_part_is_refused_in_one_line(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(DamagedError, match=re.escape(message)) as caught:
        parse_experiment(SMALL.replace(old, new, 1), "small.toml")
    assert str(caught.value).startswith("small.toml") and "\n" not in str(caught.value)


def test_rows_and_their_names() -> None:
    part = Rerank("cvnet", (100,), "cvnet-8-bit")
    row = reranked_row("medium", part, 100)
    assert row == "medium, cvnet-8-bit 100" and split_row(row) == ("medium", "cvnet-8-bit", 100)
    assert split_row("hard mP@10") == ("hard mP@10", "", 0)
    table = open_table("s002-4d").rows[2]
    assert table.reranker == ("cvnet-8-bit", 100)
    assert table.row_of("roxford5k+revisitop1m hard") == ("roxford5k+revisitop1m", "hard, cvnet-8-bit 100")


def test_networks_are_asked_for_once_in_the_order_of_weights() -> None:
    found = networks_of(ROW.rerank)
    assert [(one.kind, one.weights) for one in found] == [("cvnet", "cvnet-resnet50"), ("local", ""), ("rrt", "")]
    assert [place_of(ROW.rerank, part, part.by) for part in ROW.rerank] == [0, 0, None, 2]
    assert [place_of(ROW.rerank, part, "local") for part in ROW.rerank] == [None, None, None, 1]
    own = chosen(open_experiment("cvnet-r50-gldv2").rerank, ("all",), "x")
    assert [one.rerank.title for one in networks_of(own)] == [
        "cvnet", "cvnet-1-scale", "cvnet-random-negatives", "cvnet-shown-whole", "gv", "rrt"]  # fmt: skip
    assert [part.title for part in chosen(own, ("rrt", "gv"), "x")] == ["gv", "rrt"] and chosen(own, (), "x") == ()
    with pytest.raises(InputError, match="small has no re-ranking 'sp'; it has cvnet, cvnet-8-bit, gv, rrt"):
        chosen(ROW.rerank, ("sp",), "small")
    with pytest.raises(InputError, match="gem has no re-ranking 'gv'; it ranks nothing anew"):
        chosen((), ("gv",), "gem")


def test_few_photographs_are_ranked_anew_by_fewer() -> None:
    part = Rerank("cvnet", (100, 200, 400))
    assert numbers_of_images(part, 12) == {100: 1, 200: 3, 400: 6}
    assert numbers_of_images(part, 400) == {100: 100, 200: 200, 400: 400}
    assert numbers_of_images(part, 1) == {100: 1, 200: 1, 400: 1}


def test_every_part_of_the_package_is_named_by_a_row_or_a_score() -> None:
    for name in experiment_names():
        row = open_experiment(name)
        known = {split_row(key)[1:] for test in row.tests for key in test.published}
        assert {(part.title, count) for part in row.rerank for count in part.counts} <= known, name


# ---- networks of rehearsals


def test_stand_ins_are_official_checkpoints(tmp_path: Path) -> None:
    for number, seed in enumerate((0, 0, 1)):
        save_cvnet_stand_in(tmp_path / f"{number}.pyth", seed)
        save_transformer_stand_in(tmp_path / f"{number}.pt", 16, 8, seed)
        save_small_stand_in(tmp_path / f"{number}.safetensors", seed)
    networks = [open_rerank_network(tmp_path / f"{number}.pyth") for number in range(3)]
    assert networks[0][1] == {"file": "0.pyth", "format": "CVNet"}
    assert (networks[0][0].options.width, networks[0][0].options.levels) == (8, 3)
    assert open_transformer(tmp_path / "0.pt")[0].options.global_dim == 16
    assert open_rerank_network(tmp_path / "0.safetensors")[0].options.backbone == "squeezenet1_1"
    for opened in (open_rerank_network, open_transformer):
        suffix = "pyth" if opened is open_rerank_network else "pt"
        first, same, other = (opened(tmp_path / f"{n}.{suffix}")[0].state_dict() for n in range(3))  # type: ignore[operator]
        key = next(key for key in first if key.endswith("weight") and first[key].ndim > 1)
        assert bool((first[key] == same[key]).all()) and not bool((first[key] == other[key]).all())


# ---- scores that are kept


class Counting:
    """Scores a pair by the length of its names, and counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def scores(self, query: str, box: Box | None, candidates: Sequence[str]) -> np.ndarray:
        self.asked += [(query, name) for name in candidates]
        return np.array([float(len(query) * len(name)) for name in candidates])

    def spent(self) -> dict[str, float]:
        return {"pairs": float(len(self.asked)), "seconds": 0.5 * len(self.asked)}


def test_a_pair_is_compared_once(tmp_path: Path) -> None:
    counting = Counting()
    scorer = KeptScorer(counting, tmp_path, counting.spent)
    assert scorer.scores("q", None, ["a", "bb"]).tolist() == [1, 2] and scorer.costs() == {"pairs": 2, "seconds": 1}
    assert scorer.scores("q", None, ["ccc", "bb", "a"]).tolist() == [3, 2, 1]
    assert scorer.scores("qq", None, ["a"]).tolist() == [2] and scorer.scores("qq", None, []).tolist() == []
    assert len(counting.asked) == 4 and scorer.costs() == {"pairs": 4, "seconds": 2}
    again = Counting()
    later = KeptScorer(again, tmp_path, again.spent)
    assert later.scores("q", None, ["a", "ccc"]).tolist() == [1, 3] and again.asked == []
    assert later.costs() == {"pairs": 3, "seconds": 1.5}
    assert later.scores("q", None, ["dddd"]).tolist() == [4] and again.asked == [("q", "dddd")]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"query": "q"}', '{"query": "q", "scores": 3, "costs": {}}'])
def test_kept_scores_that_cannot_be_read_are_computed_again(tmp_path: Path, content: str) -> None:
    first = Counting()
    KeptScorer(first, tmp_path, first.spent).scores("q", None, ["a"])
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    again = Counting()
    assert KeptScorer(again, tmp_path, again.spent).scores("q", None, ["a"]).tolist() == [1]
    assert again.asked == [("q", "a")]


# ---- the stage


@pytest.fixture(scope="module")
def rehearsed(photographs: Rehearsed, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The work folder and the result of a run with every part, without and with distractors."""
    work = tmp_path_factory.mktemp("work") / "work"
    with pytest.MonkeyPatch.context() as patch:
        fast_disk(patch)
        return work, run(ROW, photographs, settings_of(work, "all", distractors=True), Silent())


class Twin:
    """The scores of pairs and rankings of a test, from the photographs and the files in the work folder."""

    def __init__(self, work: Path, photographs: Rehearsed) -> None:
        self.folder, self.work = photographs.photos, work
        self.task = photographs.task("roxford5k", False)
        self.whole = FeatureSet.open(work / "roxford5k.queries.features")
        self._known: dict[tuple[str, str], dict[str, float]] = {}
        self.local = {True: work / "network-1.safetensors", False: work / "rerank-local-delg-local.safetensors"}

    def ranking(self, query: Any, among: bool) -> list[tuple[str, float]]:
        index: Any = GlobalIndex.open(self.work / "roxford5k.index")
        if among:
            index = JointIndex([index], [GlobalIndex.open(self.work / "revisitop1m.index")])
        hits = GlobalSearcher(index).search(self.whole.read(query.name), None)
        return [(hit.name, hit.score) for hit in hits]

    def pairs(self, part: Rerank, query: Any, names: list[str]) -> dict[str, float]:
        paths = {name: self.folder / split_mark(name)[1] for name in names}
        if part.by == "cvnet":
            scoring = CvnetScoring(self.work / "rerank-cvnet-cvnet-resnet50.pyth", 16384, device="cpu")
            scorer = CvnetScorer(scoring, lambda name: paths.get(name, self.folder / query.name))
            return dict(zip(names, scorer.scores(query.name, query.box, names).tolist(), strict=True))
        extractor = load_extractor("delg-local", weights=str(self.local[not part.own_network]), device="cpu")
        asked = extractor.extract(self.folder / query.name, box=query.box)
        others = {name: extractor.extract(path) for name, path in paths.items()}
        if part.by == "gv":
            return {name: float(ransac_match(asked, other).inliers) for name, other in others.items()}
        whole, unit = load_extractor("delg", weights=str(self.local[True]), device="cpu"), unit_of(extractor)
        one = image_tokens(whole.extract(self.folder / query.name, box=query.box), asked, unit, 500)
        tokens = [image_tokens(whole.extract(paths[name]), other, unit, 500) for name, other in others.items()]
        network = PairTransformer(self.work / "rerank-rrt-rrt.pt", "cpu")
        return dict(zip(names, network.logits(one, tokens).tolist(), strict=True))

    def mean_average_precision(self, part: Rerank, count: int, row: str, among: bool) -> float:
        truth, found = self.task.ground_truth, []
        assert truth is not None
        for query in truth.queries:
            right = {"easy": query.easy, "hard": query.hard, "medium": query.easy | query.hard}[row]
            junk = (query.easy | query.hard | query.junk) - right
            ranking = self.ranking(query, among)
            key = (part.title, query.name)
            if key not in self._known:
                self._known[key] = self.pairs(part, query, [name for name, _ in ranking][: part.most + 3])
            pairs = self._known[key]
            weights = (0.5, 1.0) if part.by == "cvnet" else (1.0, 0.0)
            names = naive_reranking.reranked(ranking, pairs, count, *weights, junk)
            found.append(naive.trapezoid_average_precision(names, right, junk))
        return 100 * sum(found) / len(found)


@pytest.mark.parametrize(("title", "among"), [("cvnet", False), ("gv", False), ("gv", True), ("rrt", False)])
def test_scores_are_those_of_loops(
    rehearsed: tuple[Path, Any], photographs: Rehearsed, title: str, among: bool
) -> None:
    work, outcome = rehearsed
    (part,) = chosen(ROW.rerank, (title,), "small")
    found = outcome.measured["roxford5k+revisitop1m" if among else "roxford5k"]
    twin = Twin(work, photographs)
    for count, row in zip((part.counts[0], part.counts[-1]), ("medium", "hard"), strict=True):
        expected = twin.mean_average_precision(part, count, row, among)
        assert found[f"{row}, {title} {count}"].value == pytest.approx(expected), (count, row)


def test_what_is_measured_and_what_it_costs(rehearsed: tuple[Path, Any]) -> None:
    work, outcome = rehearsed
    rows = [f"{row}, {name}" for name in ("cvnet 2", "cvnet 4", "cvnet-8-bit 4", "gv 4", "rrt 3", "rrt 5")
            for row in ("easy", "medium", "hard")]  # fmt: skip
    for scores in outcome.measured.values():
        assert list(scores) == ["easy", "medium", "hard", *rows] and all(one.queries == 4 for one in scores.values())
    facts = {key.removeprefix("re-ranking of roxford5k by "): value for key, value in outcome.facts.items()}
    assert all(facts[name]["pairs"] >= 16 and facts[name]["pair milliseconds"] > 0 for name in ("cvnet", "gv", "rrt"))
    places = 4 * 3 + 3 * 2 + 2 * 2  # of 64 × 48 pixels, then by 1/√2 and 1/2, rounded
    assert facts["cvnet"]["bytes an image"] == 4 * 8 * places
    assert facts["cvnet-8-bit"]["bytes an image"] == 8 * places
    assert facts["gv"]["bytes an image"] > 0 and facts["gv"]["image milliseconds"] > 0
    described = FeatureSet.open(work / "roxford5k.delg-local.features")
    assert 0 < len(described) <= 12 and (work / "levels").is_dir()
    assert all(reasons for name, reasons in outcome.obstacles.items() if ", " in name)


def test_more_reranking_goes_on_in_the_same_folder(
    photographs: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(ROW, photographs, settings_of(tmp_path), Silent())
    assert list(plain.measured["roxford5k"]) == ["easy", "medium", "hard"]
    asked: list[str] = []
    original = CvnetScorer.scores

    def stopping(self: Any, query: str, box: Any, candidates: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(query)
        return original(self, query, box, candidates)

    monkeypatch.setattr(CvnetScorer, "scores", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(ROW, photographs, settings_of(tmp_path, "cvnet"), Silent())
    monkeypatch.setattr(CvnetScorer, "scores", lambda *given: asked.append(given[1]) or original(*given))
    found = run(ROW, photographs, settings_of(tmp_path, "cvnet"), Silent())
    assert len(asked) == len(set(asked)) == 4  # none of the first two again
    again = run(ROW, photographs, settings_of(tmp_path, "cvnet"), Silent())
    assert len(asked) == 4 and again.measured == found.measured
    assert found.measured["roxford5k"]["medium"] == plain.measured["roxford5k"]["medium"]


def test_a_photograph_that_is_damaged_scores_nothing_and_is_told(
    photographs: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = "subject-1-view-2.png"
    folder = tmp_path / "photographs"
    shutil.copytree(photographs.photos, folder)
    run(ROW, Rehearsed(folder, folder / "gnd.json"), settings_of(tmp_path / "work"), Silent())
    shown = CvnetScorer._levels

    def levels(self: Any, path: Path, box: Any) -> Any:
        if path.name == damaged:
            raise InputError(f"{path}: cannot be decoded")
        return shown(self, path, box)

    monkeypatch.setattr(CvnetScorer, "_levels", levels)
    wide = replace(ROW, rerank=(Rerank("cvnet", (12,), weights="cvnet-resnet50"),))
    found = run(wide, Rehearsed(folder, folder / "gnd.json"), settings_of(tmp_path / "work", "cvnet"), Silent())
    (note,) = [note for note in found.notes if damaged in note]
    assert note.startswith(f"{damaged}: not compared, scores 0: ") and "\n" not in note
    assert found.measured["roxford5k"]["medium, cvnet 12"].queries == 4


def test_an_injected_failure_is_one_line(
    photographs: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise InputError("the network cannot be used")

    monkeypatch.setattr(RerankedTest, "run", broken)
    toml = tmp_path / "small.toml"
    toml.write_text(SMALL)
    given = (toml, "--rehearse", photographs.photos, "--ground-truth", photographs.ground_truth, "--workers", 0)
    done = invoke(*given, "--rerank", "gv", "-o", tmp_path / "work", "-q")
    assert isinstance(done.exception, InputError) and str(done.exception) == "the network cannot be used"
    unknown = invoke(*given, "--rerank", "sp", "-o", tmp_path / "work", "-q")
    assert isinstance(unknown.exception, InputError) and "has no re-ranking 'sp'" in str(unknown.exception)
    labels: Any = RankedTest(photographs.task("gldv2", True), None, None, {}, {})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a test of labels has no rankings"):
        labels.compared(3)


# ---- on data of one's own


def published_data(photographs: Rehearsed, folder: Path) -> Path:
    shutil.copytree(photographs.photos, folder / "roxford5k" / "jpg")
    (folder / "roxford5k" / "jpg" / "gnd.json").rename(folder / "roxford5k" / "gnd_roxford5k.pkl")
    return folder


def test_networks_of_ones_own_are_told_and_missing_ones_too(photographs: Rehearsed, tmp_path: Path) -> None:
    data = published_data(photographs, tmp_path / "data")
    save_stand_in(tmp_path / "delg.safetensors", "delg")
    save_small_stand_in(tmp_path / "mine.safetensors")
    (data / "weights").mkdir()
    save_cvnet_stand_in(data / "weights" / "CVNet-R50.pyth")
    given = (tmp_path / "delg.safetensors", tmp_path / "mine.safetensors")
    row = replace(ROW, tests=ROW.tests[:1])
    with pytest.raises(AsmkError, match=r"small: no network of rrt is published; give a network of delg .*number 2"):
        run(row, Published(data), settings_of(tmp_path / "a", "rrt", data=data, weights=given[:1]), Silent())
    settings = settings_of(tmp_path / "a", "cvnet", "gv", data=data, weights=given)
    found = run(row, Published(data), settings, Silent())
    assert found.obstacles["roxford5k, cvnet"] == ("a network of your own for cvnet, mine.safetensors",)
    assert found.obstacles["roxford5k, gv"] == ()
    assert rerank_obstacles(row, row.rerank[0], replace(settings, weights=given[:1])) == ()
    lines = {line["row"]: line for line in as_dict(found, "cpu")["lines"]}
    assert lines["medium, gv 4"]["published"] == 60.0 and lines["medium, gv 4"]["measured"] is not None


def test_what_is_needed_is_listed(tmp_path: Path) -> None:
    row = open_experiment("cvnet-r50-gldv2")
    plain, more = (needs(row, tmp_path, rerank=rerank) for rerank in ((), ("cvnet", "cvnet-8-bit", "rrt")))
    assert [need.name for need in more[len(plain) :]] == ["weights for --rerank rrt"] * 2
    assert [need.note for need in more[len(plain) :]] == [
        "give a network of delg with a trained local branch, as --weights number 3",
        "give a network of train-rrt, or a checkpoint of the RRT code, as --weights number 4",
    ]
    own = needs(row, tmp_path, weights=[tmp_path / "own.pyth"], rerank=("cvnet",))
    assert own[-1].name == "weights/CVNet-R50.pyth" and "CVNet-R50.pyth" in plain[-1].name
    told = invoke("delg-r50-gldv2", "--rerank", "gv").stdout
    assert "--rerank gv: the first 100 or 200 images anew, by gv" in told and "names no thresholds" in told
    many = invoke("delg-r50-gldv2", "--rerank", "gv", "--weights", "a", "--weights", "b")
    assert many.exit_code == 2 and "takes 1 --weights at most" in many.stderr
    assert invoke("--table", "s002-3", "--rerank", "gv").exit_code == 2


# ---- tables


def test_measured_beside_published(photographs: Rehearsed, tmp_path: Path) -> None:
    name = "cvnet-r50-gldv2"
    folder = tmp_path / f"{name}.reproduction"
    found = run(open_experiment(name), photographs, settings_of(folder, "cvnet", "cvnet-8-bit"), Silent())
    write_report(found, folder, "cpu")
    assert any("images ranked anew by cvnet: 1 instead of 100" in note for note in found.notes)
    lines = side_by_side(open_table("s002-3"), tmp_path).lines
    measured = [line for line in lines if line.numbers == "rehearsal"]
    assert [line.row for line in measured] == ["CVNet-Global", *(f"{n}, CVNet-Rerank" for n in (100, 200, 400))]
    scores = found.measured["roxford5k"]
    assert measured[2].scores["roxford5k medium"] == scores["medium, cvnet 200"].value
    assert measured[2].query_milliseconds > measured[1].query_milliseconds > measured[0].query_milliseconds  # type: ignore[operator]
    costs = [line for line in side_by_side(open_table("s002-4e"), tmp_path).lines if line.numbers == "rehearsal"]
    assert [line.row for line in costs] == ["CVNet", "CVNet^Q"]
    content = json.loads(result_place(tmp_path, name).read_text())
    fact = content["facts"]["re-ranking of roxford5k by cvnet"]
    each = fact["bytes an image"] + content["facts"]["index of roxford5k"]["bytes"] / 12
    assert costs[0].scores["roxford5k GB"] == pytest.approx(each * 4993 / 1e9)
    assert costs[0].scores["local ms"] == pytest.approx(fact["image milliseconds"])
    assert costs[0].scores["total ms"] == pytest.approx(costs[0].scores["global ms"] + fact["image milliseconds"])
    assert costs[1].scores["roxford5k GB"] < costs[0].scores["roxford5k GB"]


def test_a_table_of_parts_is_printed_as_a_whole() -> None:
    assert [table.name for table in open_tables("s002-4")] == [f"s002-4{part}" for part in "abcde"]
    assert [table.name for table in open_tables("s002-4e")] == ["s002-4e"]
    text = invoke("--table", "s002-4").stdout
    assert text.count("Verification for Image Retrieval, CVPR 2022, Table 4") == 5
    (line,) = [line for line in text.splitlines() if line.startswith("CVNet^Q")]
    assert "24.0       1.7      25.7     15.6     6.88     8.52" in line
    content = json.loads(invoke("--table", "s002-4", "--json").stdout)
    assert [one["table"] for one in content] == [f"s002-4{part}" for part in "abcde"]
    assert json.loads(invoke("--table", "s002-4e", "--json").stdout)["rows"][0]["roxford5k GB"] == 4.25


def test_the_rows_of_other_tables_that_are_ranked_anew() -> None:
    named = {(table, row.row): (row.experiment, row.rerank) for table in ("s000-5", "s003-1")
             for row in open_table(table).rows if row.rerank}  # fmt: skip
    assert named["s000-5", "HesAff-rSIFT-ASMK⋆+SP [34]"] == ("rootsift-asmk", "gv 100")
    assert named["s000-5", "DELF-ASMK⋆+SP [34]"] == ("delf-quoted", "gv 100")
    again = [row for row in open_table("s002-1").rows if row.rerank]
    assert [row.rerank for row in again] == [
        "gv 100", "gv 100", "gv 200", "rrt 100", "rrt 200", "gv 100", "rrt 100",
        *(f"cvnet {count}" for count in (100, 200, 400) * 2)]  # fmt: skip
    assert [row.experiment for row in again] == [
        "delf-quoted", *["delg-r50-gldv2"] * 4, *["delg-r101-gldv2"] * 2, *["cvnet-r50-gldv2"] * 3,
        *["cvnet-r101-gldv2"] * 3]  # fmt: skip


def test_a_row_of_an_unknown_part_is_refused() -> None:
    from asmk_engine.reproduction.papers import parse_paper

    text = """
name = "p1"
title = "A paper"
[[experiments]]
name = "one"
title = "One network"
extractor = "gem"
trained_on = "SfM-120k"
[[experiments.rerank]]
by = "cvnet"
counts = [100]
[[tables]]
number = 3
caption = "Numbers"
columns = ["roxford5k medium"]
[[tables.rows]]
row = "first"
experiment = "one"
rerank = "cvnet 100"
scores = [50.5]
"""
    assert parse_paper(text, "p1.toml").tables[0].rows[0].rerank == "cvnet 100"
    for old, new, message in (
        ('"cvnet 100"', '"cvnet 200"', "one has no re-ranking 'cvnet 200'"),
        ('"cvnet 100"', '"cvnet"', "rerank 'cvnet', expected 'cvnet 100'"),
        ('"roxford5k medium"', '"pair ms"', "rerank 'cvnet 100', expected 'cvnet'"),
        ("counts = [100]", "counts = [-1]", "one: rerank cvnet: counts [-1]"),
        ('by = "cvnet"', 'by = "rrt"', "extractor ''; write extractor"),
    ):
        with pytest.raises(DamagedError, match=re.escape(message)) as caught:
            parse_paper(text.replace(old, new, 1), "p1.toml")
        assert "\n" not in str(caught.value)


def test_a_local_experiment_verifies_its_own_features(photographs: Rehearsed, tmp_path: Path) -> None:
    row = open_experiment("rootsift-asmk")
    found = run(row, photographs, settings_of(tmp_path, "gv"), Silent())
    assert list(found.measured["roxford5k"]) == [
        *("easy", "medium", "hard"), *(f"{one}, gv 100" for one in ("easy", "medium", "hard"))]  # fmt: skip
    assert not list(tmp_path.glob("*.delg-local.features"))
    assert found.facts["re-ranking of roxford5k by gv"]["image milliseconds"] == 0
    assert "images ranked anew by gv: 6 instead of 100" in found.notes
    lines = {line["row"]: line["published"] for line in as_dict(found, "cpu")["lines"]}
    assert lines["medium, gv 100"] == 60.6 and lines["easy, gv 100"] is None
