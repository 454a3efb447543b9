"""The parts of the trade-off benchmark that need no run: plan, work folder, front, extrapolation, tables, pages."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import naive_tradeoff
import samples
from asmk_engine.errors import DependencyError, InputError
from asmk_engine.evaluation.bootstrap import Interval
from asmk_engine.inverted.index import Index
from asmk_engine.storage.stage_cache import StageCache, key_of
from asmk_engine.tradeoff import extrapolate, figure, measure, page, table
from asmk_engine.tradeoff.configurations import (
    Configuration,
    GlobalConfiguration,
    LocalConfiguration,
    Supply,
    Sweep,
    plan,
)
from asmk_engine.tradeoff.extrapolate import Extrapolated
from asmk_engine.tradeoff.results import Failure, Result, pareto_front, put_together
from asmk_engine.tradeoff.stages import Measurement

LOCAL, GLOBAL = Supply(False, 128, 1500), Supply(True, 512, 1)


def make_result(configuration: Configuration, size: float, precision: float) -> Result:
    interval = Interval(precision, precision - 0.05, precision + 0.05)
    sizes = tuple(Extrapolated(images, images * size, images / 1e6) for images in extrapolate.SIZES)
    return Result(
        configuration, "medium", interval, {"hard": 0.2}, 0.01, 2, 40, 10, size, 4096, 30.5, 1.0, 2.0, 3.0, 4.0, sizes
    )


RESULTS = [
    make_result(LocalConfiguration("how|x", 400, 128, 64, 5), 5000.0, 0.5),
    make_result(LocalConfiguration("how|x", 1000, 128, 64, 5), 12000.0, 0.4),
    make_result(GlobalConfiguration("<gem>", 128, 8), 100.0, 0.3),
]


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_the_plan_is_that_of_the_twin(one_at_a_time: bool) -> None:
    sweep = Sweep((1000, 400, 2000, 3000), (64, 256), (4096, 512), (5, 1), (128, 1024), (8, 1), one_at_a_time)
    found = plan(sweep, {"sift": LOCAL, "gem": GLOBAL})
    local = naive_tradeoff.configurations([(1000, 400, 1500), (64, 128), (4096, 512), (5, 1)], one_at_a_time)
    whole = naive_tradeoff.configurations([(None, 128), (None, 8, 1)], one_at_a_time)
    assert len(set(found)) == len(found)
    assert set(found) == {LocalConfiguration("sift", *configuration) for configuration in local} | {
        GlobalConfiguration("gem", *configuration) for configuration in whole
    }
    assert [configuration.source for configuration in found] == sorted(
        [configuration.source for configuration in found], reverse=True
    )


def test_bits_are_all_dimensions_by_default() -> None:
    assert plan(Sweep((10,)), {"sift": LOCAL}) == [LocalConfiguration("sift", 10, 128, 4096, 5)]


@pytest.mark.parametrize("wrong", [{"words": (0,)}, {"strongest": ()}, {"pca": (8, -1)}, {"seeds": 0}])
def test_a_sweep_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sweep(**wrong)


@pytest.mark.parametrize(
    ("configuration", "method", "kind", "text"),
    [
        (GlobalConfiguration("gem"), "gem", "flat", "gem flat"),
        (GlobalConfiguration("gem", 64), "gem+pca", "pca", "gem pca=64"),
        (GlobalConfiguration("gem", None, 1), "gem+pq1", "pq", "gem pq=1"),
        (GlobalConfiguration("gem", 64, 8), "gem+pca+pq8", "pca+pq", "gem pca=64 pq=8"),
        (LocalConfiguration("how", 9, 64, 32, 5), "how", "asmk", "how n=9 words=32 bits=64 assignments=5"),
    ],
)
def test_configurations_say_what_they_are(configuration: Configuration, method: str, kind: str, text: str) -> None:
    assert (configuration.method, configuration.kind, str(configuration)) == (method, kind, text)


def test_a_stage_is_made_once_and_again_for_other_inputs(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        assert not list(folder.iterdir())
        (folder / "thing").write_text("x")
        made.append(folder)
        return {"count": len(made)}

    first = StageCache(tmp_path).stage("index", {"a": 1, "b": 2}, make)
    assert StageCache(tmp_path).stage("index", {"b": 2, "a": 1}, make) == first
    assert StageCache(tmp_path).stage("index", {"a": 1, "b": 3}, make).numbers == {"count": 2}
    assert StageCache(tmp_path).stage("codebook", {"a": 1, "b": 2}, make).numbers == {"count": 3}
    assert StageCache(tmp_path, version=2).stage("index", {"a": 1, "b": 2}, make).numbers == {"count": 4}
    assert len(set(made)) == 4


@pytest.mark.parametrize("left", [None, "", "{", '{"numbers": 1}', "[]"])
def test_an_unfinished_stage_is_made_again_in_an_empty_folder(tmp_path: Path, left: str | None) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("x")
        raise InputError("broken")

    def make(folder: Path) -> dict[str, Any]:
        assert not list(folder.iterdir())
        return {"good": True}

    with pytest.raises(InputError, match="broken"):
        StageCache(tmp_path).stage("index", {}, fail)
    if left is not None:
        (next(tmp_path.iterdir()) / "numbers.json").write_text(left)
    assert StageCache(tmp_path).stage("index", {}, make).numbers == {"good": True}


def test_keys_depend_on_every_value() -> None:
    keys = {key_of(content) for content in ({}, {"a": 1}, {"a": "1"}, {"a": None}, {"b": 1})}
    assert len(keys) == 5 and all(len(key) == 16 for key in keys)


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_that_of_the_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [(float(size), float(value) / 8) for size, value in rng.integers(1, 8, (int(rng.integers(0, 12)), 2))]
    results = [make_result(GlobalConfiguration("gem", place + 1), *point) for place, point in enumerate(points)]
    found = pareto_front(results)
    assert {one.configuration for one in found} == {
        GlobalConfiguration("gem", place + 1) for place in naive_tradeoff.front(points)
    }
    assert [one.bytes_per_image for one in found] == sorted(one.bytes_per_image for one in found)


def test_seeds_are_put_together() -> None:
    def measured(precisions: dict[str, float], milliseconds: float) -> Measurement:
        index = {"seconds": milliseconds, "images": 10, "bytes": {"segments": 1000, "codebook": 7}}
        index |= {"words_per_image": 30.0, "dense_bytes_per_image": 80.0}
        search = {"assignment_milliseconds": milliseconds, "scoring_milliseconds": 2.0, "nanoseconds_per_image": 500.0}
        rows = {"medium": 9.0, "hard": milliseconds / 10}
        return Measurement(9.0, index, search, {"row": "medium", "rows": rows, "per_query": precisions})

    both = [measured({"a": 0.2, "b": 0.6}, 1.0), measured({"a": 0.4, "b": 1.0}, 3.0)]
    found = put_together(LocalConfiguration("how", 9, 64, 32, 5), both)
    assert found.precision.mean == pytest.approx((0.3 + 0.8) / 2)
    assert found.precision.low == pytest.approx(0.3) and found.precision.high == pytest.approx(0.8)
    assert found.seed_spread == pytest.approx(0.7 - 0.4)
    assert found.other_rows == {"hard": pytest.approx(0.2)}
    assert (found.seeds, found.queries, found.bytes_per_image, found.words_per_image) == (2, 2, 100.0, 30.0)
    million = found.extrapolated[0]
    assert million == Extrapolated(1_000_000, 8e7, 2.0 + 1e6 * 500 / 1e6)


@pytest.mark.parametrize(("images", "features", "bits"), [(1, 12, 64), (7, 12, 64), (40, 3, 72)])
def test_bytes_of_a_full_range_are_those_of_the_twin(tmp_path: Path, images: int, features: int, bits: int) -> None:
    rng = np.random.default_rng(images)
    named = {f"{n}.jpg": samples.make_features(rng.normal(size=(features, bits))) for n in range(images)}
    index = Index.create(tmp_path / "index", samples.random_codebook(16, bits))
    index.add(samples.write_features(tmp_path / "features", named))
    segment = index.snapshot.segments[0]
    lengths = segment.list_lengths().tolist()
    expected = naive_tradeoff.dense_bytes(lengths, images, 8 * -(-bits // 64), [len(name) for name in named])
    assert extrapolate.dense_bytes_per_image(segment) == pytest.approx(expected)


def test_the_model_meets_an_index_of_a_full_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full range of copies of a few images takes what the model says of the few, but for the names of the copies."""
    monkeypatch.setattr(measure, "COPIED_IMAGES", 1 << 16)
    images = samples.random_images(64, 64, features=6)
    index = Index.create(tmp_path / "index", samples.random_codebook(64, 64))
    index.add(samples.write_features(tmp_path / "features", images))
    copied, copies = measure.copied_index(tmp_path / "copies", index)
    assert (copies, copied.images) == (1 << 10, 1 << 16)
    modelled = extrapolate.dense_bytes_per_image(index.snapshot.segments[0])
    names = np.mean([len(name) for name in copied.names]) - np.mean([len(name) for name in images])
    assert measure.disk_bytes(copied)["segments"] / copied.images == pytest.approx(modelled + names, rel=0.01)


def test_csv_has_a_row_for_each_result_and_says_what_is_extrapolated() -> None:
    listed = list(csv.DictReader(io.StringIO(table.csv_text(RESULTS))))
    assert [row["method"] for row in listed] == ["how|x", "how|x", "<gem>+pca+pq8"]
    assert [row["pareto"] for row in listed] == ["1", "0", "1"]
    assert [row["features"] for row in listed] == ["400", "1000", ""]
    assert [listed[0][name] for name in ("map_low", "map", "map_high")] == ["45.00", "50.00", "55.00"]
    assert float(listed[2]["extrapolated_GiB_100M"]) == pytest.approx(100 * 1e8 / 2**30, rel=1e-3)
    others = [name for name in listed[0] if not name.startswith("extrapolated_")]
    assert [name for name in others if name != "map_hard"] == list(table.CSV_NOTES)
    assert listed[0]["map_hard"] == "20.00" and table.short_rows(RESULTS)[0]["mAP hard"] == "20.00"
    assert table.csv_text([]) == ""


def test_markdown_has_as_many_cells_in_each_line() -> None:
    text = table.markdown(RESULTS, [Failure(GlobalConfiguration("mac|"), "no <luck>")])
    lines = [line.replace("\\|", "") for line in text.splitlines()]
    assert len({line.count("|") for line in lines[:5]}) == 1 and len(lines) == 6
    assert "★" in lines[2] and "★" not in lines[3] and "(extrapolated)" in lines[0]
    assert "failed" in lines[5] and "<luck" not in text


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    """The figure of the results."""
    return figure.draw(RESULTS, "title")


def test_the_page_loads_and_runs_nothing_and_escapes_names(drawn: dict[str, bytes]) -> None:
    told = page.Circumstances("asmk-engine benchmark '<x>'", "a machine", "2026-01-01")
    text = page.page("A < B", drawn["svg"], RESULTS, [Failure(GlobalConfiguration("<b>"), "<script>")], told)
    assert "<script" not in text and "&lt;script" in text and text.count("A &lt; B") == 2 and "&lt;gem&gt;" in text
    assert text.count("<svg") == 1 and "<?xml" not in text and "<b>" not in text
    assert not [word for word in ("src=", 'href="http', "@import", "url(http") if word in text]


def test_the_figure_is_drawn_twice_alike(drawn: dict[str, bytes]) -> None:
    assert figure.draw(RESULTS, "title") == drawn
    assert drawn["png"].startswith(b"\x89PNG") and drawn["svg"].startswith(b"<?xml")


def test_points_whiskers_and_front_stand_where_the_results_are() -> None:
    axes = figure._figure(RESULTS, "title").axes[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    assert lines["how|x"].get_xydata().tolist() == [[5000.0, 50.0]]
    front = lines["Pareto front"]
    assert front.get_xydata().tolist() == [[100.0, 30.0], [5000.0, 50.0]] and front.get_drawstyle() == "steps-post"
    points = {tuple(place) for line in axes.lines if line.get_marker() in "ov" for place in line.get_xydata().tolist()}
    assert points == {(5000.0, 50.0), (12000.0, 40.0), (100.0, 30.0)}
    segments = axes.containers[0].lines[2][0].get_segments()
    assert [end.tolist() for end in segments] == [
        [pytest.approx([100, 25]), pytest.approx([100, 35])],
        [pytest.approx([5000, 45]), pytest.approx([5000, 55])],
    ]
    assert axes.get_xscale() == "log"


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(InputError, match=r"failed\.txt"):
        figure.draw([], "title")


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="plots"):
        figure.draw(RESULTS, "title")


def test_results_of_two_sizes_are_named_by_them() -> None:
    assert [table.short_count(images) for images in (1_000_000, 100_000_000, 1_500)] == ["1M", "100M", "1500"]
    assert json.dumps(table.short_rows(RESULTS)[0]).count("extrapolated") == 4


def test_times_are_medians_of_the_best_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that each task advances by what it takes: 5, 3 and 4 ms, then 1, 2 and 9, then 7, 8 and 6."""
    now, waits = 0.0, iter([99, 5, 3, 4, 1, 2, 9, 7, 8, 6])

    def work() -> None:
        nonlocal now
        now += next(waits) / 1000

    monkeypatch.setattr(measure.time, "process_time", lambda: now)
    assert measure.milliseconds([work, work, work], 3) == pytest.approx(3.0)
    assert next(waits, None) is None
