"""Re-ranked rows of the trade-off benchmark, time as a second axis, and global networks with a head as sources."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.text import Text

import naive
import naive_tradeoff
from asmk_engine.cli import commands
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.evaluation.bootstrap import Interval
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.features import Features, FeatureSet, FeatureWriter, Source
from asmk_engine.flat.codec import CodecOptions
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.images.roots import Root
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.recipes import Recipe
from asmk_engine.tradeoff import figure, labels, measure, page, reranked_stages, stages, table
from asmk_engine.tradeoff.configurations import (
    Configuration,
    FusedConfiguration,
    GlobalConfiguration,
    LocalConfiguration,
    RerankedConfiguration,
    Supply,
    Sweep,
    plan,
)
from asmk_engine.tradeoff.fusion import FusionPart, SourceFusion
from asmk_engine.tradeoff.point_names import point_name, point_names
from asmk_engine.tradeoff.results import Result, bytes_of, milliseconds_of, pareto_front
from asmk_engine.tradeoff.run import TradeoffResult, run
from asmk_engine.tradeoff.sources import SourcePaths
from asmk_engine.verification.reranking import Reranking

IMAGES, GROUP, FEATURES, KEPT, ANSWERS = 20, 4, 24, 16, 6
NAMES = [f"thing {number // GROUP}/{number % GROUP}.jpg" for number in range(IMAGES)]
WEIGHTS, ROOT = "0" * 64, Root("/photos")
RECIPES = {
    "sift": Recipe("rootsift", {}),
    "cvnet": Recipe("cvnet", {"backbone": "resnet50"}, WEIGHTS),
    "dolg": Recipe("dolg", {"backbone": "resnet50"}, WEIGHTS),
}
DIMS = {"sift": 16, "cvnet": 12, "dolg": 10}
SWEEP = Sweep((KEPT,), (), (8,), (2,), seeds=2, rounds=3, rerank=(ANSWERS,), rerank_by=("places", "descriptors"))
BOTH = SourceFusion("both", (FusionPart("sift"), FusionPart("cvnet")), (1.0, 3.0))
GLOBAL = SourceFusion("global", (FusionPart("cvnet"), FusionPart("dolg")))


@pytest.fixture(autouse=True)
def _few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "COPIED_IMAGES", 100)
    monkeypatch.setattr(measure, "REPEATS", 1)
    monkeypatch.setattr(measure, "TIMED_QUERIES", 2)


def views(count: int, dim: int, noise: float, seed: int) -> dict[str, Features]:
    """Images in groups: like descriptors, at places that one map moves from one image of a group to the next."""
    images = {}
    for number, name in enumerate(NAMES):
        group, own = np.random.default_rng([number // GROUP, seed]), np.random.default_rng([number, seed, 9])
        base, places = group.normal(size=(count, dim)), group.uniform(50, 400, (count, 2))
        scale = own.uniform(0.7, 1.2)
        keypoints = np.c_[scale * places + own.uniform(0, 60, 2), np.full(count, 8 * scale)]
        descriptors = base + noise * own.normal(size=base.shape)
        images[name] = Features.from_descriptors(
            descriptors.astype(np.float32), keypoints.astype(np.float32), image_size=(640, 600)
        )
    return images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set of local features, the descriptors of two networks with a head, and a ground truth."""
    folder = tmp_path_factory.mktemp("sources")
    for seed, (name, recipe) in enumerate(RECIPES.items()):
        images = views(1 if recipe.is_global else FEATURES, DIMS[name], 1.2, seed)
        with FeatureWriter(folder / name, recipe, DIMS[name]) as writer:
            for number, (image, features) in enumerate(images.items(), start=1):
                writer.add(image, features, Source(1, 1, number), ROOT)  # one photograph in each set
    queries = [
        {"query": name, "bbox": None, "easy": [other for other in group if other != name], "hard": [], "junk": []}
        for group in (NAMES[begin : begin + GROUP] for begin in range(0, IMAGES, GROUP))
        for name in group[:2]
    ]
    (folder / "gnd.json").write_text(json.dumps({"imlist": NAMES, "queries": queries}))
    return folder


def run_in(place: Path, work: Path, sweep: Sweep = SWEEP) -> TradeoffResult:
    paths = [SourcePaths(name, place / name) for name in RECIPES]
    return run(paths, read_ground_truth(place / "gnd.json"), sweep, work, None, [BOTH, GLOBAL])


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TradeoffResult]:
    """A finished run: its work folder, and what came of it."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "COPIED_IMAGES", 100)
        patch.setattr(measure, "REPEATS", 1)
        patch.setattr(measure, "TIMED_QUERIES", 2)
        return work, run_in(place, work)


def of(outcome: TradeoffResult, source: str) -> list[Result]:
    """The results of a source: plain, by places, by descriptors."""
    return [one for one in outcome.results if one.configuration.source.partition("=")[0] == source]


def by_hand(place: Path, folder: Path, seed: int) -> tuple[Searcher, FusedSearcher, list[Any], list[Any]]:
    """Searchers of indexes with geometry, of a set of the strongest features, and queries for both."""
    whole, vectors = FeatureSet.open(place / "sift"), FeatureSet.open(place / "cvnet")
    strongest = {name: image.strongest(KEPT) for name, image in whole.images()}
    with FeatureWriter(folder / f"kept-{seed}", whole.recipe, whole.dim) as writer:
        for name, image in strongest.items():
            writer.add(name, image, whole.source(name), ROOT)
    kept = FeatureSet.open(folder / f"kept-{seed}")
    codebook = Codebook.train(whole, 8, seed=seed, rounds=3)
    index = Index.create(folder / f"one-{seed}", codebook, geometry="all")
    index.add(kept)
    kinds = {"sift": codebook, "cvnet": train_codec(vectors, CodecOptions())}
    fused = FusedIndex.create(folder / f"both-{seed}", kinds, [1.0, 3.0], geometry="all")
    fused.add({"sift": kept, "cvnet": vectors})
    asked = [query.name for query in read_ground_truth(place / "gnd.json").queries]
    joined = []
    for name in asked:
        known = fused.identity(name)
        assert known is not None
        joined.append(FusedFeatures((strongest[name], vectors.read(name)), known.fingerprint))
    local = [strongest[name] for name in asked]
    two = {"multiple_assignment": 2}
    return Searcher(index, None, **two), FusedSearcher(fused, None, **two), local, joined


def test_precision_is_that_of_searches_by_hand(place: Path, done: tuple[Path, TradeoffResult], tmp_path: Path) -> None:
    """With the twin's average precision, averaged over queries and two seeds."""
    truth = read_ground_truth(place / "gnd.json").queries
    found: dict[str, list[float]] = {}
    for seed in range(2):
        one, both, local, joined = by_hand(place, tmp_path, seed)
        for source, searcher, queries in (("sift", one, local), ("both", both, joined)):
            for reranking in (None, Reranking(ANSWERS), Reranking.by_descriptors(ANSWERS)):
                key = f"{source} {reranking.verification if reranking else ''}"
                for asked, query in zip(queries, truth, strict=True):
                    ranking = [hit.name for hit in searcher.search(asked, None, rerank=reranking)]
                    precision = naive.trapezoid_average_precision(ranking, query.easy, {query.name})
                    found.setdefault(key, []).append(precision)
    expected = [np.mean(values) for values in found.values()]
    measured = [one.precision.mean for one in (*of(done[1], "sift"), *of(done[1], "both"))]
    assert measured == pytest.approx(expected)
    assert len(set(measured)) == 6 and max(measured) < 1  # so a wrong score would be noticed


def test_rows_follow_the_plain_ones_and_vectors_have_none(done: tuple[Path, TradeoffResult]) -> None:
    outcome = done[1]
    assert not outcome.failures
    counts = {name: len(of(outcome, name)) for name in ("sift", "cvnet", "dolg", "both", "global")}
    assert counts == {"sift": 3, "cvnet": 1, "dolg": 1, "both": 3, "global": 1}
    plain, places, descriptors = (one.configuration for one in of(outcome, "sift"))
    assert str(places) == f"{plain} rerank=6" and str(descriptors) == f"{plain} rerank=6 by descriptors"
    kinds = [one.configuration.kind for one in outcome.results]
    fused = ["fused", "reranked", "described"]
    assert kinds == ["asmk", *fused[1:], "flat", "flat", *fused, "fused"]
    assert [one.seeds for one in outcome.results] == [2, 2, 2, 1, 1, 2, 2, 2, 1]
    assert {one.queries for one in outcome.results} == {2 * IMAGES // GROUP}


@pytest.mark.parametrize("source", ["sift", "both"])
def test_bytes_are_those_of_all_files_that_a_search_reads(source: str, done: tuple[Path, TradeoffResult]) -> None:
    work, outcome = done
    plain, places, descriptors = of(outcome, source)
    kinds = {"sift": "asmk", "both": "fused"}[source]
    sizes: dict[str, list[float]] = {"placed": [], "described": []}
    geometries = []
    for stage, found in sizes.items():
        for index in work.glob(f"{stage}-*/index"):
            if (kinds == "fused") == any(index.glob("segment-*-1.safetensors")):
                files = [*index.glob("segment-*"), *index.glob("geometry-*")]
                found.append(sum(path.stat().st_size for path in files) / IMAGES)
                geometries += [sum(path.stat().st_size for path in index.glob("geometry-*")) / IMAGES]
    copies = list(work.glob("strongest-*/features/part-*.h5"))
    assert len(copies) == 1  # of both sources and seeds
    copied = copies[0].stat().st_size / IMAGES
    assert [len(found) for found in sizes.values()] == [2, 2] and np.count_nonzero(geometries) == 2
    assert places.bytes_per_image == pytest.approx(np.median(sizes["placed"]))
    assert places.reranking_bytes_per_image == pytest.approx(places.bytes_per_image - plain.bytes_per_image)
    assert places.reranking_bytes_per_image == pytest.approx(max(geometries))
    assert descriptors.bytes_per_image == pytest.approx(np.median(sizes["described"]) + copied)
    assert descriptors.reranking_bytes_per_image == pytest.approx(copied) and plain.reranking_bytes_per_image == 0
    assert copied > KEPT * 2 * DIMS["sift"]  # descriptors of 16 bits, and more


def test_the_copied_features_are_those_of_the_row(place: Path, done: tuple[Path, TradeoffResult]) -> None:
    whole, copied = FeatureSet.open(place / "sift"), FeatureSet.open(next(done[0].glob("strongest-*/features")))
    assert copied.recipe == whole.recipe and copied.names == whole.names
    for name in NAMES:
        assert np.array_equal(copied.read(name).descriptors, whole.read(name).descriptors[:KEPT])
        assert copied.source(name) == whole.source(name)


@pytest.mark.parametrize("source", ["sift", "both"])
def test_times_include_the_verification(source: str, done: tuple[Path, TradeoffResult]) -> None:
    plain, *reranked = of(done[1], source)
    assert plain.verification_milliseconds == 0
    assert plain.query_milliseconds == pytest.approx(plain.assignment_milliseconds + plain.scoring_milliseconds)
    for one in reranked:
        assert one.verification_milliseconds > 0 and one.build_seconds > 0
        shared = [(row.assignment_milliseconds, row.scoring_milliseconds, row.learning_seconds) for row in (plain, one)]
        assert shared[0] == shared[1]  # what does not differ was measured once
        assert one.query_milliseconds == pytest.approx(plain.query_milliseconds + one.verification_milliseconds)
        for large, larger in zip(plain.extrapolated, one.extrapolated, strict=True):
            added = one.verification_milliseconds, one.reranking_bytes_per_image * large.images
            assert larger.milliseconds == pytest.approx(large.milliseconds + added[0])
            assert larger.bytes == pytest.approx(large.bytes + added[1])


def test_a_second_run_takes_all_from_the_work_folder_and_other_numbers_need_no_other_index(
    place: Path, done: tuple[Path, TradeoffResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, outcome = done
    monkeypatch.setattr(reranked_stages, "_made", None)  # an index
    before = {path.name for path in work.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(stages, "evaluate_index", None)
        patch.setattr(measure, "verification_milliseconds", None)
        assert run_in(place, work) == outcome
    assert {path.name for path in work.iterdir()} == before
    more = run_in(place, work, replace(SWEEP, rerank=(ANSWERS, 3)))
    assert not more.failures and [one for one in more.results if one in outcome.results] == list(outcome.results)
    plain = run_in(place, work, replace(SWEEP, rerank=()))
    assert plain.results == tuple(
        one for one in outcome.results if not isinstance(one.configuration, RerankedConfiguration)
    )


def test_verification_is_timed_with_a_new_searcher_in_each_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the verification of the first images advances: 5, 3 and 4 ms, then 9, 2 and 8."""
    now, waits, made = 0.0, iter([5, 3, 4, 9, 2, 8]), []

    class Searcher:
        index = SimpleNamespace(snapshot="commit")

        def __init__(self) -> None:
            self.compared: list[list[int]] = []
            made.append(self)

        def best_of(self, snapshot: str, queries: Sequence[str], top: int, threads: int) -> list[Any]:
            assert (snapshot, queries, top, threads) == ("commit", [queries[0]], measure.TOP, 1)
            numbers = np.arange(8)
            return [SimpleNamespace(segments=0 * numbers, numbers=numbers, scores=1.0 - numbers / 10)]

        def matches_of(self, snapshot: str, query: str, images: Any, options: Any, threads: int) -> list[list[None]]:
            nonlocal now
            self.compared.append(images[1].tolist())
            if len(self.compared) == 2:
                now += next(waits) / 1000
            return [[None] * len(images[0])]

    monkeypatch.setattr(measure, "REPEATS", 3)
    monkeypatch.setattr(measure.time, "process_time", lambda: now)
    make: Any = Searcher
    assert measure.verification_milliseconds(make, ["a", "b"], Reranking(3)) == pytest.approx((3 + 2) / 2)
    assert [one.compared for one in made] == [[[7], [0, 1, 2]]] * 6 and next(waits, None) is None


def test_the_plan_adds_every_number_and_way_to_every_local_row() -> None:
    supplies = {"sift": Supply(False, 128, 900), "gem": Supply(True, 512, 1), "mac": Supply(True, 512, 1)}
    fusions = [
        SourceFusion("a", (FusionPart("sift"), FusionPart("gem"))),
        SourceFusion("b", (FusionPart("gem"), FusionPart("mac"))),
    ]
    sweep = Sweep((500, 300), (), (8, 4), (5,), pq=(8,), one_at_a_time=True)
    plain = plan(sweep, supplies, fusions)
    found = plan(replace(sweep, rerank=(50, 20), rerank_by=("places", "descriptors")), supplies, fusions)
    expected: list[Configuration] = []
    for one in plain:
        expected.append(one)
        is_local = isinstance(one, LocalConfiguration)
        if is_local or (isinstance(one, FusedConfiguration) and one.source.startswith("a")):
            ways = [(50, "places"), (20, "places"), (50, "descriptors"), (20, "descriptors")]
            expected += [RerankedConfiguration(one, images, by) for images, by in ways]
    assert found == expected and len(found) > len(plain) and len(set(found)) == len(found)
    assert [one.reranking for one in found[1:3]] == [Reranking(50), Reranking(20)]
    assert found[3].reranking == Reranking.by_descriptors(50)


@pytest.mark.parametrize("wrong", [{"rerank": (0,)}, {"rerank_by": ()}, {"rerank_by": ("colour",)}])
def test_a_sweep_that_reranks_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sweep(**wrong)


def test_global_descriptors_alone_cannot_be_ranked_anew(place: Path, tmp_path: Path) -> None:
    words = [f"cvnet={place / 'cvnet'}", "--ground-truth", str(place / "gnd.json"), "-o", str(tmp_path / "work")]
    with pytest.raises(InputError, match="no source has local features, so nothing can be verified; leave --rerank"):
        CliRunner().invoke(commands, ["benchmark", *words, "--rerank", "50"], catch_exceptions=False)
    with pytest.raises(InputError, match="--rerank-by needs --rerank; add --rerank 50"):
        CliRunner().invoke(commands, ["benchmark", *words, "--rerank-by", "descriptors"], catch_exceptions=False)


def test_the_command_writes_reranked_rows(place: Path, tmp_path: Path) -> None:
    words = [f"sift={place / 'sift'}", "--ground-truth", str(place / "gnd.json"), "-o", str(tmp_path)]
    words += ["--n", "16", "--words", "8", "--assignments", "2", "--seeds", "1", "--rounds", "3", "--rerank", "6,3"]
    done = CliRunner().invoke(commands, ["benchmark", *words], catch_exceptions=False)
    assert done.exit_code == 0
    assert (
        "[3/3] sift n=16 words=8 bits=16 assignments=2 rerank=3: mAP" in done.stderr and "ms per query" in done.stderr
    )
    rows = list(csv.DictReader((tmp_path / "tradeoff.csv").read_text().splitlines()))
    assert [(row["method"], row["rerank"], row["rerank_by"]) for row in rows] == [
        ("sift", "", ""),
        ("sift", "6", "places"),
        ("sift", "3", "places"),
    ]
    assert float(rows[1]["verification_ms"]) > 0 and float(rows[0]["reranking_bytes_per_image"]) == 0
    for form in ("html", "md"):
        text = (tmp_path / f"tradeoff.{form}").read_text()
        assert "rerank 6" in text and "made with `--geometry`" in text and "By descriptors" not in text


# --- tables and figures of many methods -------------------------------------------------------------------------------


def make_result(
    configuration: Configuration, size: float, precision: float, milliseconds: float, verification: float = 0.0
) -> Result:
    interval = Interval(precision, precision - 0.05, precision + 0.05)
    return Result(
        configuration, "medium", interval, {}, 0.01, 3, 700, 87, size, 4096, None, milliseconds / 2, milliseconds / 2,
        3.0, 4.0, (), verification, 100.0 if verification else 0.0,
    )  # fmt: skip


def local_results(name: str, size: float, precision: float) -> list[Result]:
    plain = LocalConfiguration(name, 1000, 128, 4096, 5)
    return [
        make_result(plain, size, precision, 17.0),
        make_result(RerankedConfiguration(plain, 50), 5 * size, precision + 0.03, 17.0, 17.0),
        make_result(RerankedConfiguration(plain, 50, "descriptors"), 60 * size, precision + 0.02, 17.0, 220.0),
    ]


def many_results() -> list[Result]:
    """Three local sources, twelve global ones and a fused one, with product quantisation and re-ranking."""
    rng = np.random.default_rng(5)
    found = [
        *local_results("rootsift", 13_000, 0.76),
        *local_results("deep", 3900, 0.9),
        *local_results("how", 3600, 0.85),
    ]
    names = ["gem", "agem", "cider", "cvnet", "delg", "dolg", "dplg", "gem-ap", "glam", "solar", "token", "rmac"]
    for name in names:
        precision, size = float(rng.uniform(0.78, 0.88)), 55 + 4 * int(rng.choice([512, 2048]))
        flat = GlobalConfiguration(name)
        found.append(make_result(flat, size, precision, size / 5000))
        found.append(make_result(replace(flat, pq=8), size / 25, precision - 0.03, size / 7000))
    fused = FusedConfiguration(
        "deep-gem=deep+gem", (LocalConfiguration("deep", 1000, 128, 4096, 5), GlobalConfiguration("gem")), (0.5, 0.5)
    )
    return [
        *found,
        make_result(fused, 6000, 0.913, 18.0),
        make_result(RerankedConfiguration(fused, 50), 28_000, 0.935, 18.0, 17.0),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_over_time_is_that_of_the_twin(seed: int) -> None:
    values = np.random.default_rng(seed).integers(1, 8, (10, 3))
    results = [
        make_result(GlobalConfiguration("gem", number + 1), float(size), value / 8, float(time))
        for number, (size, value, time) in enumerate(values)
    ]
    for cost, column in ((bytes_of, 0), (milliseconds_of, 2)):
        points = [(float(row[column]), row[1] / 8) for row in values]
        front = [one.configuration for one in pareto_front(results, cost)]
        assert set(front) == {GlobalConfiguration("gem", number + 1) for number in naive_tradeoff.front(points)}
    marked = [(row["pareto"], row["pareto_time"]) for row in table.rows(results)]
    fronts = pareto_front(results), pareto_front(results, milliseconds_of)
    assert marked == [tuple(str(int(one in front)) for front in fronts) for one in results]
    marks = [(str(int("★" in row["mAP"])), str(int("◆" in row["mAP"]))) for row in table.short_rows(results)]
    assert marks == marked


def test_columns_of_reranking_are_there_where_a_row_is_reranked() -> None:
    results = local_results("deep", 3900, 0.9)
    rows = table.short_rows(results)
    assert [row["setting"].split(", ")[4:] for row in rows] == [[], ["rerank 50"], ["rerank 50 by descriptors"]]
    assert [(row["verify ms"], row["query ms"]) for row in rows] == [
        ("0.000", "17.000"),
        ("17.000", "34.000"),
        ("220.000", "237.000"),
    ]
    assert rows[1]["of these re-ranking"] == "100.0"
    plain = table.short_rows(results[:1])[0]
    assert "query ms" in plain and not {"verify ms", "of these re-ranking"} & set(plain)
    assert [name for name in table.rows(results)[0] if not name.startswith("extra")] == list(table.CSV_NOTES)


def test_the_page_says_what_is_read() -> None:
    told = page.Circumstances("command", "machine", "2026-01-01")
    both, places = (" ".join(page.notes(told, local_results("deep", 3900, 0.9)[:count])) for count in (3, 2))
    assert "By places: the index" in both and "By descriptors: they are read from the feature set" in both
    assert "By places: the index" in places and "By descriptors" not in places
    assert "re-ranked" not in " ".join(page.notes(told, local_results("deep", 3900, 0.9)[:1]))


def test_names_are_those_of_each_source_each_way_and_the_front() -> None:
    results = many_results()
    for cost in (bytes_of, milliseconds_of):
        named = point_names(results, cost)
        names = [name for _, name in named]
        assert len(set(names)) == len(names)
        assert {one.configuration.source.partition("=")[0] for one in results} <= set(names)
        assert {"deep, rerank 50", "deep, rerank 50 desc.", "deep-gem, rerank 50"} <= set(names)
        assert {point_name(one.configuration) for one in pareto_front(results, cost)} <= set(names)
        assert all(point_name(one.configuration) == name for one, name in named)
    assert point_name(GlobalConfiguration("gem", 64, 8)) == "gem, PCA 64, PQ 8"


def test_panels_show_bytes_and_milliseconds_with_their_fronts() -> None:
    results = many_results()
    drawn = figure._figure(results, "title")
    assert len(drawn.axes) == 2
    for axes, cost in zip(drawn.axes, (bytes_of, milliseconds_of), strict=True):
        points = {
            tuple(line.get_xydata()[0].tolist()) for line in axes.lines if line.get_marker() in figure.MARKERS.values()
        }
        assert points == {(cost(one), 100 * one.precision.mean) for one in results}
        front = next(line for line in axes.lines if line.get_label() == "Pareto front")
        best = pareto_front(results, cost)
        assert front.get_xydata().tolist() == [[cost(one), 100 * one.precision.mean] for one in best]
        assert axes.get_xscale() == "log" and front.get_drawstyle() == "steps-post"
    told = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert {"re-ranked by places", "re-ranked by descriptors", "deep-gem=deep+gem"} <= told


def test_no_name_covers_another_or_a_point_or_leaves_its_panel() -> None:
    results = many_results()
    drawn = figure._figure(results, "title")
    for axes, cost in zip(drawn.axes, (bytes_of, milliseconds_of), strict=True):
        points = axes.transData.transform([(cost(one), 100 * one.precision.mean) for one in results])
        texts = [text for text in axes.texts if text.get_text()]
        assert len(texts) == len(point_names(results, cost)) >= 20
        boxes = []
        for text in texts:
            text.get_window_extent()  # moves the letters to where they are
            boxes.append(np.array(Text.get_window_extent(text).extents))  # of the letters without the line
        left, bottom, right, top = axes.get_window_extent().extents
        for number, (x0, y0, x1, y1) in enumerate(boxes):
            name = texts[number].get_text()
            assert left <= x0 and bottom <= y0 and x1 <= right and y1 <= top, name
            covered = [(x, y) for x, y in points if x0 < x < x1 and y0 < y < y1]
            assert not covered, name
            others = [
                other for other in boxes[:number] if x0 < other[2] and other[0] < x1 and y0 < other[3] and other[1] < y1
            ]
            assert not others, name


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (12, 2), (12, 3)])
def test_labels_find_places_of_their_own(count: int, seed: int) -> None:
    """By pairs of boxes, one by one: none overlap, none covers a point, all are in the frame."""
    rng = np.random.default_rng(seed)
    points, sizes = rng.uniform(60, 540, (count, 2)), rng.uniform((20, 8), (80, 11), (count, 2))
    offsets = labels.placed(points, sizes, points, np.array([0.0, 0.0, 600.0, 600.0]), np.empty((0, 2)))
    low, high = points + offsets - sizes / 2, points + offsets + sizes / 2
    assert offsets.shape == (count, 2) and (low > 0).all() and (high < 600).all()
    for one in range(count):
        for other in range(count):
            apart = any(high[one][axis] <= low[other][axis] or high[other][axis] <= low[one][axis] for axis in (0, 1))
            assert one == other or apart
            assert not all(low[one][axis] < points[other][axis] < high[one][axis] for axis in (0, 1))


def test_a_label_leaves_a_line_free_where_there_is_room() -> None:
    """Above and to the right is a line; without it, the label of a lone point is at the first place of all."""
    point, size, frame = np.array([[100.0, 100.0]]), np.array([[40.0, 10.0]]), np.array([0.0, 0.0, 200.0, 200.0])
    free = labels.placed(point, size, point, frame, np.empty((0, 2)))[0]
    line = labels.along_lines([np.array([[20.0, 112.0], [180.0, 112.0]]), np.array([[112.0, 20.0], [112.0, 180.0]])])
    steps = np.linalg.norm(np.diff(line[line[:, 1] == 112.0], axis=0), axis=1)
    assert steps.max() <= labels.STEP and line[0].tolist() == [20.0, 112.0] and line[-1].tolist() == [112.0, 180.0]
    moved = labels.placed(point, size, point, frame, line)[0]
    covered = [(np.abs(place - point[0] - moved) < size[0] / 2).all() for place in line]
    assert not any(covered) and np.hypot(*moved) < 40
    assert np.hypot(*free) <= np.hypot(*moved) and labels.along_lines([]).shape == (0, 2)
