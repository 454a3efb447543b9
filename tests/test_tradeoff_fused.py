"""Fused rows of the trade-off benchmark: how they are written, planned, measured and shown."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import naive
import naive_tradeoff
import samples
from asmk_engine.cli import commands
from asmk_engine.cli.benchmark import divided
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.features import Features, FeatureSet, Source
from asmk_engine.flat.codec import CodecOptions
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.kinds import GlobalKind
from asmk_engine.images.roots import Root
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.recipes import Recipe
from asmk_engine.tradeoff import extrapolate, figure, fused_stages, measure, stages, table
from asmk_engine.tradeoff.configurations import (
    FusedConfiguration,
    GlobalConfiguration,
    LocalConfiguration,
    Supply,
    Sweep,
    plan,
)
from asmk_engine.tradeoff.fusion import FusionPart, SourceFusion
from asmk_engine.tradeoff.run import TradeoffResult, run
from asmk_engine.tradeoff.sources import SourcePaths

IMAGES, GROUP, FEATURES = 24, 4, 20
NAMES = [f"thing {number // GROUP}/{number % GROUP}.jpg" for number in range(IMAGES)]
RECIPES = {"deep": Recipe("how", {}, "1" * 64), "sift": Recipe("rootsift", {}), "gem": Recipe("gem", {}, "0" * 64)}
DIMS = {"deep": 16, "sift": 24, "gem": 12}
SWEEP = Sweep((8,), (), (8,), (2,), seeds=2, rounds=3)
BOTH = SourceFusion("both", (FusionPart("deep"), FusionPart("sift")))
ALL = SourceFusion("all", (FusionPart("gem"), FusionPart("deep", 5), FusionPart("sift")), (2.0, 1.0, 1.0))
SUPPLIES = {"deep": Supply(False, 128, 900), "sift": Supply(False, 64, 3000), "gem": Supply(True, 512, 1)}


@pytest.fixture(autouse=True)
def _few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "COPIED_IMAGES", 100)
    monkeypatch.setattr(measure, "REPEATS", 1)


def group_images(count: int, dim: int, noise: float, seed: int) -> dict[str, Features]:
    """Images in groups of like descriptors."""
    images = {}
    for number, name in enumerate(NAMES):
        base = np.random.default_rng([number // GROUP, seed]).normal(size=(count, dim))
        images[name] = samples.make_features(
            base + noise * np.random.default_rng([number, seed, 9]).normal(size=base.shape)
        )
    return images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three feature sets and a ground truth."""
    folder = tmp_path_factory.mktemp("sources")
    for seed, (name, recipe) in enumerate(RECIPES.items()):
        images = group_images(1 if recipe.is_global else FEATURES, DIMS[name], 1.6, seed)
        samples.write_features(folder / name, images, recipe=recipe)
    queries = [
        {"query": name, "bbox": None, "easy": [other for other in group if other != name], "hard": [], "junk": []}
        for group in (NAMES[begin : begin + GROUP] for begin in range(0, IMAGES, GROUP))
        for name in group[:2]
    ]
    (folder / "gnd.json").write_text(json.dumps({"imlist": NAMES, "queries": queries}))
    return folder


def run_in(
    place: Path, work: Path, fusions: Sequence[SourceFusion] = (BOTH, ALL), sweep: Sweep = SWEEP
) -> TradeoffResult:
    paths = [SourcePaths(name, place / name) for name in RECIPES]
    return run(paths, read_ground_truth(place / "gnd.json"), sweep, work, None, fusions)


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TradeoffResult]:
    """A finished run of three sources and two fused ones: its work folder, and what came of it."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "COPIED_IMAGES", 100)
        return work, run_in(place, work)


def twin_precision(place: Path, folder: Path, own_n: dict[str, int], weights: dict[str, float]) -> float:
    """The mean average precision of the sum of the score matrices of each part alone, over two seeds."""
    truth = read_ground_truth(place / "gnd.json")
    itself = np.array([[name == query.name for name in NAMES] for query in truth.queries])
    precisions = []
    for seed in range(2):
        total = np.zeros(itself.shape)
        for name, weight in weights.items():
            scores = part_scores(place / name, folder / f"{name}-{seed}", own_n.get(name, 8), seed, truth.queries)
            best = np.where(itself, -np.inf, scores).max(axis=1, keepdims=True)
            total += weight * scores / np.where(best > 0, best, 1.0)
        for query, row in zip(truth.queries, total, strict=True):
            ranking = [NAMES[place] for place in np.lexsort((np.arange(IMAGES), -row))]
            precisions.append(naive.trapezoid_average_precision(ranking, query.easy, {query.name}))
    return float(np.mean(precisions))


def part_scores(features: Path, folder: Path, most: int, seed: int, queries: Sequence) -> np.ndarray:
    """The scores [queries, images] of an index of one kind of features alone."""
    opened = FeatureSet.open(features)
    strongest = {name: image.strongest(most) for name, image in opened.images()}
    if opened.recipe.is_global:
        vectors = GlobalIndex.create(folder, train_codec(opened, CodecOptions()))
        vectors.add(opened)
        searcher = GlobalSearcher(vectors)
    else:
        index = Index.create(folder, Codebook.train(opened, 8, seed=seed, rounds=3))
        index.add(samples.write_features(folder.with_suffix(".features"), strongest, recipe=opened.recipe))
        searcher = Searcher(index, multiple_assignment=2)
    found = [searcher.scores(strongest[query.name]) for query in queries]
    return np.array([[scores[name] for name in NAMES] for scores in found])


def test_precision_is_that_of_the_score_matrices_of_the_parts(
    place: Path, done: tuple[Path, TradeoffResult], tmp_path: Path
) -> None:
    both, everything = done[1].results[3:]
    halves = twin_precision(place, tmp_path / "both", {}, {"deep": 0.5, "sift": 0.5})
    weighed = twin_precision(place, tmp_path / "all", {"deep": 5}, {"gem": 0.5, "deep": 0.25, "sift": 0.25})
    assert (both.precision.mean, everything.precision.mean) == (pytest.approx(halves), pytest.approx(weighed))
    values = [one.precision.mean for one in done[1].results]
    assert len(set(values)) == 5 and max(values) < 1  # nothing is perfect, so a wrong score would be noticed


def test_sizes_are_those_of_one_table_and_the_parts(done: tuple[Path, TradeoffResult]) -> None:
    work, outcome = done
    deep, sift, gem, both, everything = outcome.results
    assert not outcome.failures
    assert [str(one.configuration) for one in outcome.results[3:]] == [
        "both=deep+sift (deep n=8 words=8 bits=16 assignments=2; sift n=8 words=8 bits=24 assignments=2)",
        "all=gem+deep+sift@2,1,1 (gem flat; deep n=5 words=8 bits=16 assignments=2; "
        "sift n=8 words=8 bits=24 assignments=2)",
    ]
    assert both.words_per_image == pytest.approx(deep.words_per_image + sift.words_per_image)
    assert sift.words_per_image < everything.words_per_image < both.words_per_image and gem.words_per_image is None
    assert both.codebook_bytes == deep.codebook_bytes + sift.codebook_bytes
    sizes = {}
    for index in work.glob("fused-*/index"):
        kinds = len(FusedIndex.open(index).weights)
        sizes.setdefault(kinds, []).append(sum(path.stat().st_size for path in index.glob("segment-*")) / IMAGES)
    assert {kinds: len(found) for kinds, found in sizes.items()} == {2: 2, 3: 2}
    assert both.bytes_per_image == pytest.approx(np.median(sizes[2]))
    assert everything.bytes_per_image == pytest.approx(np.median(sizes[3]))
    assert max(deep.bytes_per_image, sift.bytes_per_image) < both.bytes_per_image


def test_every_column_of_a_fused_row_is_measured(done: tuple[Path, TradeoffResult]) -> None:
    *singles, both, everything = done[1].results
    for one in (both, everything):
        assert (one.seeds, one.images, one.queries, one.row) == (2, IMAGES, 2 * IMAGES // GROUP, singles[0].row)
        assert one.other_rows.keys() == singles[0].other_rows.keys() and one.other_rows
        assert one.precision.low <= one.precision.mean <= one.precision.high
        times = one.assignment_milliseconds, one.scoring_milliseconds, one.build_seconds, one.learning_seconds
        assert min(times) > 0
        million, many = one.extrapolated
        assert many.bytes == pytest.approx(100 * million.bytes) and many.milliseconds > million.milliseconds > 0
    assert both.learning_seconds == pytest.approx(singles[0].learning_seconds + singles[1].learning_seconds, rel=0.5)


def test_codebooks_are_shared_and_weights_need_no_other_index(
    place: Path, done: tuple[Path, TradeoffResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, outcome = done
    stored = {name: len(list(work.glob(f"{name}-*"))) for name in ("codebook", "index", "vectors", "fused")}
    assert stored == {"codebook": 4, "index": 4, "vectors": 1, "fused": 4}
    for name in ("train_codebook", "train_codec", "evaluate_index"):
        monkeypatch.setattr(stages, name, None)
    assert run_in(place, work) == outcome
    monkeypatch.undo()
    monkeypatch.setattr(measure, "COPIED_IMAGES", 100)
    monkeypatch.setattr(fused_stages, "encoder_of", None)  # what an index is made of
    other = run_in(place, work, [replace(BOTH, weights=(1.0, 0.0)), replace(BOTH, name="same", weights=(3.0, 3.0))])
    deep, _, _, alone, same = other.results
    assert not other.failures and len(list(work.glob("fused-*"))) == 4
    assert alone.precision.mean == pytest.approx(deep.precision.mean)
    assert same.precision == outcome.results[3].precision and same.configuration.method == "same=deep+sift"


def test_a_part_that_fails_fails_only_the_fused_row_too(place: Path, tmp_path: Path) -> None:
    outcome = run_in(place, tmp_path, [BOTH], replace(SWEEP, words=(8, 100_000), seeds=1))
    assert [one.configuration.source for one in outcome.results] == ["deep", "sift", "gem", "both=deep+sift"]
    assert [one.configuration.source for one in outcome.failures] == ["deep", "sift", "both=deep+sift"]
    assert "too few for 100000 words" in outcome.failures[-1].reason


def test_vectors_alone_can_be_fused(place: Path, tmp_path: Path) -> None:
    mac = samples.write_features(tmp_path / "mac", group_images(1, 10, 1.0, 7), recipe=Recipe("mac", {}, "0" * 64))
    paths = [SourcePaths("gem", place / "gem"), SourcePaths("mac", mac.path)]
    fusion = SourceFusion("both", (FusionPart("gem"), FusionPart("mac")))
    sweep = replace(SWEEP, pca=(11, 4))
    outcome = run(paths, read_ground_truth(place / "gnd.json"), sweep, tmp_path / "work", None, [fusion])
    fused = [one for one in outcome.results if isinstance(one.configuration, FusedConfiguration)]
    assert not outcome.failures and [one.seeds for one in fused] == [1, 1, 1]
    assert all(one.words_per_image is None and one.scoring_milliseconds > 0 for one in fused)
    rows = [row for row in table.rows(outcome.results) if row["method"] == "both=gem+mac"]
    assert [row["pca"] for row in rows] == ["", "11+-", "4"] and {row["words_per_image"] for row in rows} == {""}


def test_the_modelled_bytes_are_those_of_the_parts_by_hand(place: Path, done: tuple[Path, TradeoffResult]) -> None:
    index = FusedIndex.open(
        next(path for path in done[0].glob("fused-*/index") if len(FusedIndex.open(path).weights) == 3)
    )
    segment = index.snapshot.segments[0]
    expected = 0.0
    for part, dim in zip(segment.parts, (None, 16, 24), strict=True):
        names = [len(name) for name in NAMES]
        table_bytes = (sum(names) + 8 * (IMAGES + 1) + 4 * IMAGES + 8 * IMAGES) / IMAGES
        if dim is None:
            expected += table_bytes + 4 * DIMS["gem"]
        else:
            expected += naive_tradeoff.dense_bytes(part.list_lengths().tolist(), IMAGES, 8, names) - table_bytes
    assert extrapolate.fused_bytes_per_image(segment) == pytest.approx(expected)


def test_copies_score_as_the_images_do(done: tuple[Path, TradeoffResult], place: Path, tmp_path: Path) -> None:
    source = next(path for path in done[0].glob("fused-*/index") if len(FusedIndex.open(path).weights) == 3)
    index = FusedIndex.open(source)
    copied = measure.copied_fused(tmp_path / "copies", index)
    assert copied.images == 4 * IMAGES
    query = fused_stages.FusedFeatures(
        tuple(FeatureSet.open(place / name).read(NAMES[3]) for name in ("gem", "deep", "sift"))
    )
    found, copies = fused_stages.FusedSearcher(index).scores(query), fused_stages.FusedSearcher(copied).scores(query)
    order = [index.snapshot.segments[0].name(number) for number in range(IMAGES)]
    assert [copies[str(number)] for number in range(4 * IMAGES)] == pytest.approx([found[name] for name in order] * 4)


def test_copies_of_missing_vectors_are_missing(tmp_path: Path) -> None:
    images = {str(number): np.random.default_rng(number).normal(size=(30, 16)) for number in range(3)}
    vectors = {name: samples.make_features(np.ones((1, 4))) for name in list(images)[:2]}
    whole = samples.write_features(tmp_path / "gem", vectors, recipe=RECIPES["gem"])
    kinds = {"local": Codebook.train(images.values(), 2), "gem": train_codec(whole, CodecOptions())}
    index = FusedIndex.in_memory(kinds)
    index.add({"local": images.items(), "gem": whole})
    copied = measure.copied_fused(tmp_path / "copies", index)
    kind = copied.snapshot.encoder.kinds[1]
    assert isinstance(kind, GlobalKind)
    absent = kind.lacks(copied.snapshot.segments[0].parts[1])
    assert absent.tolist() == [False, False, True] * 33


def test_the_plan_gives_every_part_the_options_of_the_row() -> None:
    sweep = Sweep((1000, 400), (), (4096, 512), (5, 1), (128, 600), (8,), one_at_a_time=True)
    found = plan(sweep, SUPPLIES, [BOTH, ALL])
    both = [one for one in found if one.source == "both=deep+sift"]
    rows = [(1000, 4096, 5), (400, 4096, 5), (1000, 512, 5), (1000, 4096, 1)]
    assert [one.parts for one in both] == [
        (
            LocalConfiguration("deep", min(count, 900), 128, words, assignments),
            LocalConfiguration("sift", count, 64, words, assignments),
        )
        for count, words, assignments in rows
    ]
    everything = [one for one in found if one.source == "all=gem+deep+sift@2,1,1"]
    assert {one.weights for one in everything} == {(0.5, 0.25, 0.25)} and {one.weights for one in both} == {(0.5, 0.5)}
    assert {one.parts[1].strongest for one in everything} == {5}
    assert [one.parts[0] for one in everything[-2:]] == [
        GlobalConfiguration("gem", 128),
        GlobalConfiguration("gem", None, 8),
    ]
    assert len(everything) == 6  # PCA to more dimensions than there are is none
    assert found[: len(plan(sweep, SUPPLIES))] == plan(sweep, SUPPLIES)


def test_all_combinations_are_those_of_the_twin() -> None:
    sweep = Sweep((300, 200), (64, 32), (8, 4), (5, 1))
    found = [one.parts for one in plan(sweep, SUPPLIES, [BOTH]) if isinstance(one, FusedConfiguration)]
    wanted = naive_tradeoff.configurations([(300, 200), (64, 32), (8, 4), (5, 1)], False)
    assert len(found) == 16
    assert set(found) == {(LocalConfiguration("deep", *one), LocalConfiguration("sift", *one)) for one in wanted}


def test_columns_join_what_differs(done: tuple[Path, TradeoffResult]) -> None:
    rows = list(csv.DictReader(table.csv_text(done[1].results).splitlines()))
    columns = ("method", "features", "words", "bits", "assignments", "pca", "pq")
    assert [tuple(row[name] for name in columns) for row in rows[3:]] == [
        ("both=deep+sift", "8", "8", "16+24", "2", "", ""),
        ("all=gem+deep+sift@2,1,1", "5+8", "8", "16+24", "2", "", ""),
    ]
    short = table.short_rows(done[1].results)
    assert short[4]["setting"] == "n 5+8, words 8, bits 16+24, assign 2" and short[2]["setting"] == "flat"


def test_the_figure_has_a_colour_and_a_marker_for_fused_rows(done: tuple[Path, TradeoffResult]) -> None:
    drawn = figure._figure(done[1].results, "title")
    lines = {str(line.get_label()): line for line in drawn.axes[0].lines}
    both = done[1].results[3]
    assert lines["both=deep+sift"].get_xydata().tolist() == [[both.bytes_per_image, 100 * both.precision.mean]]
    colours = [lines[one.configuration.source].get_color() for one in done[1].results]
    assert len(set(colours)) == 5
    marks = [line for line in drawn.axes[0].lines if line.get_marker() == "P"]
    assert {line.get_color() for line in marks} == set(colours[3:])
    assert {"both=deep+sift", "fused index"} <= {text.get_text() for text in drawn.legends[0].get_texts()}


def test_the_command_fuses_sources_and_goes_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["both=deep:6+sift@0.67,0.33", f"deep={place / 'deep'}", f"sift={place / 'sift'}"]
    words += ["--ground-truth", str(place / "gnd.json"), "-o", str(tmp_path), "--n", "8", "--words", "8"]
    words += ["--assignments", "2", "--seeds", "1", "--rounds", "3"]
    monkeypatch.setattr("sys.argv", ["asmk-engine", "benchmark", *words])
    first = CliRunner().invoke(commands, ["benchmark", *words], catch_exceptions=False)
    assert first.exit_code == 0 and "[3/3] both=deep+sift@0.67,0.33 (deep n=6 words=8" in first.stderr
    contents = {path.name: path.read_bytes() for path in tmp_path.glob("tradeoff.*")}
    assert len(contents) == 5
    rows = list(csv.DictReader(contents["tradeoff.csv"].decode().splitlines()))
    assert [row["method"] for row in rows] == ["deep", "sift", "both=deep+sift@0.67,0.33"]
    assert rows[2]["features"] == "6+8" and all(rows[2][name] for name in rows[0] if rows[0][name])
    command = shlex.join(["asmk-engine", "benchmark", *words]).encode()
    for form in ("html", "md"):
        content = contents[f"tradeoff.{form}"]
        assert command in content and b"A fused row is one index" in content
    again = CliRunner().invoke(commands, ["benchmark", *words, "-q"], catch_exceptions=False)
    assert again.stderr == "" and {path.name: path.read_bytes() for path in tmp_path.glob("tradeoff.*")} == contents


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("deep+sfit", "'sfit' is none of the sources deep, sift with features"),
        ("deep+both", "'both' is none of the sources deep, sift"),
        ("deep", "both=deep: one part; join"),
        ("deep:500", "both=deep: one part; join"),
        ("deep@1", "both=deep: one part; join"),
        ("deep+deep", "'deep' is there twice"),
        ("deep+sift+deep:5", "'deep' is there twice"),
        ("deep:many+sift", "n of 'deep' is 'many'; give a whole number"),
        ("deep:+sift", "n of 'deep' is ''; give a whole number"),
        ("deep:1.5+sift", r"n of 'deep' is '1\.5'"),
        ("deep:-1+sift", "n of 'deep' is '-1'"),
        ("deep+sift:0", "n of 'sift' is 0; give a whole number of 1 or more"),
        ("deep+", "a part has no name"),
        ("deep+sift@", "weights are ''; give a number for each part"),
        ("deep+sift@1,x", "weights are '1,x'; give a number for each part"),
        ("deep+sift@1", r"weights are \[1\.0\] for 2 parts of both=deep\+sift"),
        ("deep+sift@1,-1", "give one of 0 or more for each"),
        ("deep+sift@0,0", "not all of them 0"),
        ("deep+sift@nan,1", "give one of 0 or more for each"),
    ],
)
def test_bad_fused_sources_are_refused_in_one_line(text: str, match: str, place: Path, tmp_path: Path) -> None:
    words = ["deep=d", "sift=s", f"both={text}"]
    with pytest.raises(InputError, match=match) as caught:
        divided(words)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=match):
        arguments = ["--ground-truth", str(place / "gnd.json"), "-o", str(tmp_path)]
        CliRunner().invoke(commands, ["benchmark", *words, *arguments], catch_exceptions=False)


def test_words_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c++").mkdir()
    features, fusions = divided(("a=x", "both=a:30+b@2,1", "b=y", "c=c++", "d=d"))
    assert features == ("a=x", "b=y", "c=c++", "d=d")
    assert fusions == [SourceFusion("both", (FusionPart("a", 30), FusionPart("b")), (2.0, 1.0))]
    assert str(fusions[0]) == "both=a+b@2,1" and fusions[0].shares == pytest.approx((2 / 3, 1 / 3))
    assert str(replace(fusions[0], weights=(2.0, 2.0))) == "both=a+b"
    assert divided(("a", "=a+b", "b=")) == (("a", "=a+b", "b="), [])  # refused where feature sets are named


def test_a_fused_source_needs_a_name_of_its_own(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different names"):
        run_in(place, tmp_path, [replace(BOTH, name="gem")])


def test_an_n_of_one_vector_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'gem' has one descriptor per image; leave its n, 500, out"):
        run_in(place, tmp_path, [SourceFusion("both", (FusionPart("deep"), FusionPart("gem", 500)))])


def test_parts_of_one_recipe_are_refused(place: Path, tmp_path: Path) -> None:
    paths = [SourcePaths("a", place / "deep"), SourcePaths("b", place / "deep")]
    fusion = SourceFusion("both", (FusionPart("a"), FusionPart("b")))
    with pytest.raises(InputError, match=r"both=a\+b: two parts are features of \[how"):
        run(paths, read_ground_truth(place / "gnd.json"), SWEEP, tmp_path, None, [fusion])


def test_parts_of_other_photographs_are_refused(place: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("deep", "sift")):
        images = group_images(5, DIMS[name], 0.5, number)
        samples.write_features(
            tmp_path / name, images, recipe=RECIPES[name], source=Source(1, 1, 7 + number), root=Root("/photos")
        )
    paths = [SourcePaths(name, tmp_path / name) for name in ("deep", "sift")]
    with pytest.raises(MismatchError, match=r"'thing 0/0\.jpg' is another file in each part"):
        run(paths, read_ground_truth(place / "gnd.json"), SWEEP, tmp_path / "work", None, [BOTH])


def test_parts_that_name_images_differently_are_refused(place: Path, tmp_path: Path) -> None:
    images = {f"photos/{name}": image for name, image in group_images(5, DIMS["sift"], 0.5, 1).items()}
    samples.write_features(tmp_path / "sift", images, recipe=RECIPES["sift"])
    paths = [SourcePaths("deep", place / "deep"), SourcePaths("sift", tmp_path / "sift")]
    with pytest.raises(MismatchError, match=r"'photos/thing 0/0\.jpg', in .*'thing 0/0\.jpg'; extract both"):
        run(paths, read_ground_truth(place / "gnd.json"), SWEEP, tmp_path / "work", None, [BOTH])
