"""The trade-off benchmark from feature sets to files, on a few synthetic images."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import naive
import samples
from asmk_engine.cli import commands
from asmk_engine.cli.benchmark import source_paths
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.features import Features, FeatureSet, descriptor_count
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.recipes import Recipe
from asmk_engine.tradeoff import measure, stages
from asmk_engine.tradeoff.configurations import GlobalConfiguration, LocalConfiguration, Sweep
from asmk_engine.tradeoff.run import Step, TradeoffResult, run
from asmk_engine.tradeoff.sources import SourcePaths, StrongestFeatures, features_key, open_source

IMAGES, GROUP, DIM, FEATURES = 24, 4, 16, 20
SIFT, GEM = Recipe("rootsift", {}), Recipe("gem", {}, "0" * 64)
NAMES = [f"thing {number // GROUP}/{number % GROUP}.jpg" for number in range(IMAGES)]
SWEEP = Sweep((FEATURES, 8), (DIM, 8), (8,), (2, 1), (4,), (), one_at_a_time=True, seeds=2, rounds=3)


@pytest.fixture(autouse=True)
def _few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "COPIED_IMAGES", 100)
    monkeypatch.setattr(measure, "REPEATS", 1)


def group_images(count: int, dim: int, noise: float) -> dict[str, Features]:
    """Images in groups of like descriptors."""
    images = {}
    for number, name in enumerate(NAMES):
        base = np.random.default_rng(number // GROUP).normal(size=(count, dim))
        images[name] = samples.make_features(base + noise * np.random.default_rng([number, 9]).normal(size=base.shape))
    return images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two feature sets and a ground truth."""
    folder = tmp_path_factory.mktemp("sources")
    samples.write_features(folder / "sift", group_images(FEATURES, DIM, 0.8), recipe=SIFT)
    samples.write_features(folder / "gem", group_images(1, 12, 0.8), recipe=GEM)
    queries = [
        {"query": name, "bbox": None, "easy": [other for other in group if other != name], "hard": [], "junk": []}
        for group in (NAMES[begin : begin + GROUP] for begin in range(0, IMAGES, GROUP))
        for name in group[:1]
    ]
    (folder / "gnd.json").write_text(json.dumps({"imlist": NAMES, "queries": queries}))
    return folder


def run_in(place: Path, work: Path, sweep: Sweep = SWEEP, on_step: Any = None, **changes: Any) -> TradeoffResult:
    paths = [replace(SourcePaths("sift", place / "sift"), **changes), SourcePaths("gem", place / "gem")]
    return run(paths, read_ground_truth(place / "gnd.json"), sweep, work, on_step)


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TradeoffResult, list[Step]]:
    """A run that was finished: its work folder, what came of it, and its steps."""
    work, steps = tmp_path_factory.mktemp("work"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "COPIED_IMAGES", 100)
        return work, run_in(place, work, on_step=steps.append), steps


def test_every_cell_is_measured(done: tuple[Path, TradeoffResult, list[Step]]) -> None:
    work, outcome, steps = done
    made = {name: len(list(work.glob(f"{name}-*"))) for name in ("codebook", "index", "vectors", "search")}
    # Two seeds of each; the codebook of the base serves all but that of fewer bits.
    assert made == {"codebook": 4, "index": 6, "vectors": 2, "search": 10}
    base = LocalConfiguration("sift", FEATURES, DIM, 8, 2)
    local = [base, replace(base, strongest=8), replace(base, bits=8), replace(base, multiple_assignment=1)]
    assert [one.configuration for one in outcome.results] == [
        *local,
        GlobalConfiguration("gem"),
        GlobalConfiguration("gem", 4),
    ]
    assert not outcome.failures and [step.number for step in steps] == list(range(1, 7)) and steps[-1].total == 6
    assert steps[-1].seconds_left == 0
    assert [one.seeds for one in outcome.results] == [2, 2, 2, 2, 1, 1]
    for one in outcome.results:
        assert 0 <= one.precision.low <= one.precision.mean <= one.precision.high <= 1
        assert (one.images, one.queries, one.row) == (IMAGES, IMAGES // GROUP, "medium")
        assert one.other_rows == {"easy": pytest.approx(one.precision.mean)}  # all that is to be found is easy
        assert min(one.bytes_per_image, one.scoring_milliseconds, one.assignment_milliseconds, one.build_seconds) > 0
        million, many = one.extrapolated
        assert many.bytes == pytest.approx(100 * million.bytes) and many.milliseconds > million.milliseconds
    assert outcome.results[0].words_per_image > outcome.results[1].words_per_image > 0


def test_precision_and_sizes_are_those_of_the_steps_by_hand(
    place: Path, done: tuple[Path, TradeoffResult, list[Step]], tmp_path: Path
) -> None:
    """The base configuration, from the codebook on, with the twin's average precision, averaged over two seeds."""
    features = FeatureSet.open(place / "sift")
    precisions, sizes = [], []
    for seed in range(2):
        index = Index.create(tmp_path / str(seed), Codebook.train(features, 8, seed=seed, rounds=3))
        index.add(features)
        searcher = Searcher(index, multiple_assignment=2)
        sizes.append(sum(path.stat().st_size for path in (tmp_path / str(seed)).glob("segment-*")) / IMAGES)
        for query in read_ground_truth(place / "gnd.json").queries:
            ranking = [hit.name for hit in searcher.search(features.read(query.name), None)]
            precisions.append(naive.trapezoid_average_precision(ranking, query.easy, {query.name}))
    base = done[1].results[0]
    assert base.precision.mean == pytest.approx(np.mean(precisions))
    assert base.bytes_per_image == pytest.approx(np.median(sizes))


def test_a_second_run_takes_everything_from_the_work_folder(
    place: Path, done: tuple[Path, TradeoffResult, list[Step]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train_codebook", "train_codec", "evaluate_index"):
        monkeypatch.setattr(stages, name, None)
    assert run_in(place, done[0]) == done[1]


def test_a_cell_that_fails_does_not_lose_the_others_and_is_tried_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        raise ValueError("a\nbug")

    sweep = replace(SWEEP, bits=(DIM,), strongest=(8,), multiple_assignment=(1,), words=(8, 100_000), seeds=1)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "train_codec", broken)
        outcome = run_in(place, tmp_path, sweep)
    assert [one.configuration.source for one in outcome.results] == ["sift"]
    reasons = {str(one.configuration): one.reason for one in outcome.failures}
    assert reasons["gem flat"] == reasons["gem pca=4"] == "ValueError: a bug"
    assert "too few for 100000 words" in reasons["sift n=8 words=100000 bits=16 assignments=1"]
    assert "in broken" in (tmp_path / "failed.txt").read_text()
    again = run_in(place, tmp_path, sweep)
    assert [str(one.configuration) for one in again.failures] == ["sift n=8 words=100000 bits=16 assignments=1"]
    assert again.results[0] == outcome.results[0]


def test_fewer_bits_are_the_strongest_directions(place: Path) -> None:
    features = FeatureSet.open(place / "sift")
    codebook = stages.train_codebook(features, 8, 5, 0, SWEEP)
    assert codebook.projection.shape == (5, DIM) and codebook.dim == 5
    descriptors = np.concatenate([image.descriptors for _, image in features.images()])
    projected = codebook.project(descriptors).astype(np.float64)
    assert np.cov(projected.T, bias=True) == pytest.approx(np.eye(5), abs=1e-3)
    covariance = np.cov(descriptors.astype(np.float64).T, bias=True)
    strongest = sorted(np.linalg.eigvalsh(covariance))[::-1][:5]
    lengths = 1 / np.square(np.linalg.norm(codebook.projection.astype(np.float64), axis=1))
    assert lengths == pytest.approx(strongest, rel=1e-3)


def test_fewer_bits_of_reduced_descriptors_are_only_turned(tmp_path: Path) -> None:
    features = samples.write_features(tmp_path / "how", group_images(FEATURES, DIM, 0.8), recipe=Recipe("how", {}, "1"))
    projection = stages.train_codebook(features, 8, 5, 0, SWEEP).projection.astype(np.float64)
    assert projection @ projection.T == pytest.approx(np.eye(5), abs=1e-5)
    assert stages.train_codebook(features, 8, DIM, 0, SWEEP).projection == pytest.approx(np.eye(DIM))


def test_the_strongest_features_are_the_first_ones(place: Path) -> None:
    whole, some = FeatureSet.open(place / "sift"), StrongestFeatures.of(place / "sift", 3)
    assert descriptor_count(some) == 3 * IMAGES and some.names == whole.names
    for name, image in some.images(NAMES[:2]):
        assert np.array_equal(image.descriptors, whole.read(name).descriptors[:3])
        assert np.array_equal(some.read(name).scores, image.scores) and some.count(name) == 3
    assert descriptor_count(StrongestFeatures.of(place / "sift", 999)) == whole.descriptor_count


def test_keys_of_feature_sets_depend_on_recipe_and_content(place: Path, tmp_path: Path) -> None:
    images = group_images(2, DIM, 0.8)
    same = [samples.write_features(tmp_path / name, images, recipe=SIFT) for name in "ab"]
    other = samples.write_features(tmp_path / "c", images, recipe=GEM)
    changed = samples.write_features(tmp_path / "d", group_images(2, DIM, 0.7), recipe=SIFT)
    assert features_key(same[0]) == features_key(same[1])
    assert len({features_key(one) for one in (same[0], other, changed)}) == 3


def test_learning_from_other_features(place: Path, tmp_path: Path) -> None:
    images = {f"other/{name}": image for name, image in group_images(FEATURES, DIM, 0.5).items()}
    learned = samples.write_features(tmp_path / "learned", images, recipe=SIFT)
    sweep = replace(SWEEP, bits=(DIM,), strongest=(FEATURES,), multiple_assignment=(1,), pca=(), seeds=1)
    run_in(place, tmp_path / "work", sweep, learn_on=learned.path)
    codebook = Codebook.open(next((tmp_path / "work").glob("codebook-*/codebook.h5")))
    assert codebook.fingerprint == Codebook.train(learned, 8, rounds=3).fingerprint


def test_learning_from_another_kind_of_features_is_refused(place: Path) -> None:
    paths = SourcePaths("sift", place / "sift", learn_on=place / "gem")
    with pytest.raises(MismatchError, match="extract both with the same options"):
        open_source(paths, read_ground_truth(place / "gnd.json"))


def test_regions_take_their_features_from_a_set_of_their_own(place: Path, tmp_path: Path) -> None:
    ground_truth = read_ground_truth(place / "gnd.json")
    first, *others = ground_truth.queries
    boxed = replace(ground_truth, queries=(replace(first, box=(0.0, 0.0, 10.0, 10.0)), *others))
    with pytest.raises(InputError, match=r"1 queries, such as 'thing 0/0.jpg'.*--queries sift="):
        open_source(SourcePaths("sift", place / "sift"), boxed).queries(5)
    region = {first.name: group_images(7, DIM, 0.1)[first.name]}
    samples.write_features(tmp_path / "regions", region, recipe=SIFT)
    found = open_source(SourcePaths("sift", place / "sift", queries=tmp_path / "regions"), boxed).queries(5)
    assert np.array_equal(found[0][1].descriptors, region[first.name].descriptors[:5])
    assert [query.name for query, _ in found] == [query.name for query in ground_truth.queries]


def test_images_of_the_truth_that_are_missing_are_an_error(place: Path, tmp_path: Path) -> None:
    few = dict(list(group_images(3, DIM, 0.1).items())[:5])
    samples.write_features(tmp_path / "few", few, recipe=SIFT)
    with pytest.raises(NotFoundError, match="missing"):
        open_source(SourcePaths("few", tmp_path / "few"), read_ground_truth(place / "gnd.json"))


def test_two_sources_of_one_name_are_refused(place: Path, tmp_path: Path) -> None:
    paths = [SourcePaths("a", place / "sift"), SourcePaths("a", place / "gem")]
    with pytest.raises(InputError, match="different names"):
        run(paths, read_ground_truth(place / "gnd.json"), SWEEP, tmp_path)


def test_the_command_writes_every_file_and_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["asmk-engine", "benchmark", "a b"])
    words = [f"sift={place / 'sift'}", f"gem={place / 'gem'}", "--ground-truth", str(place / "gnd.json")]
    words += ["-o", str(tmp_path), "--n", "8", "--words", "8", "--bits", "8", "--pca", "4", "--seeds", "1"]
    first = CliRunner().invoke(commands, ["benchmark", *words], catch_exceptions=False)
    written = [Path(line).name for line in first.stdout.splitlines()]
    assert first.exit_code == 0 and written == [f"tradeoff.{form}" for form in ("csv", "md", "png", "svg", "html")]
    assert "[3/3] gem pca=4: mAP" in first.stderr
    contents = {name: (tmp_path / name).read_bytes() for name in written}
    rows = list(csv.DictReader(contents["tradeoff.csv"].decode().splitlines()))
    assert [row["method"] for row in rows] == ["sift", "gem", "gem+pca"]
    assert b"asmk-engine benchmark 'a b'" in contents["tradeoff.md"] and b"extrapolated" in contents["tradeoff.md"]
    again = CliRunner().invoke(commands, ["benchmark", *words, "-q"], catch_exceptions=False)
    assert again.stderr == "" and {name: (tmp_path / name).read_bytes() for name in written} == contents


def test_the_command_says_what_failed(place: Path, tmp_path: Path) -> None:
    words = [
        f"sift={place / 'sift'}",
        "--ground-truth",
        str(place / "gnd.json"),
        "-o",
        str(tmp_path),
        "--words",
        "8,99999",
    ]
    with pytest.raises(InputError, match=r"1 of 2 configurations failed, first sift .*words=99999.*again"):
        CliRunner().invoke(commands, ["benchmark", *words, "--bits", "8", "--seeds", "1", "-q"], catch_exceptions=False)
    assert (tmp_path / "tradeoff.csv").is_file()


@pytest.mark.parametrize(
    ("sources", "learn_on", "match"),
    [
        (("sift",), (), "NAME=FEATURES"),
        (("=x",), (), "NAME=FEATURES"),
        (("sift=",), (), "NAME=FEATURES"),
        (("a=x", "a=y"), (), "same name"),
        (("a=x",), ("b=y",), "is not one of the sources a"),
    ],
)
def test_words_that_name_no_source_are_refused(sources: tuple[str, ...], learn_on: tuple[str, ...], match: str) -> None:
    with pytest.raises(InputError, match=match):
        source_paths(sources, learn_on, ())


def test_words_name_sources() -> None:
    found = source_paths(("a=x=1", "b=y"), ("b=z",), ("a=q",))
    assert found == [
        SourcePaths("a", Path("x=1"), None, Path("q")),
        SourcePaths("b", Path("y"), Path("z"), None),
    ]


@pytest.mark.parametrize("wrong", ["0", "a", "1,,2", "-3", "1.5"])
def test_lists_of_numbers_are_checked(wrong: str, tmp_path: Path) -> None:
    words = ["a=x", "--ground-truth", "gnd.json", "-o", str(tmp_path), f"--n={wrong}"]
    found = CliRunner().invoke(commands, ["benchmark", *words])
    assert found.exit_code == 2 and "whole numbers" in found.output
