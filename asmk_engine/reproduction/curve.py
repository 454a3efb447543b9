"""Accuracy against the number of strongest features, from one extraction; like figure 4 of the HOW paper.

    features with most of the numbers ──strongest n──▶ index, queries ──search──▶ score, words per image

The codebook is that of the experiment: it is learned once for each seed, from the training features, with as many of
them as the experiment takes. Source: Tolias, Jenicek and Chum, ECCV 2020, figure 4, which plots mAP on the validation
set over the average number of vectors per image for n = 400 to 1400, mean and standard deviation of five runs.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asmk_engine.errors import InputError
from asmk_engine.iteration import Display
from asmk_engine.reproduction.datasets import Datasets
from asmk_engine.reproduction.evaluation import Measured
from asmk_engine.reproduction.experiment import PublishedRow, Test
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.report import plain_number
from asmk_engine.reproduction.stages import ReproductionRun, started
from asmk_engine.reproduction.variants import Variant, combined, deviation
from asmk_engine.storage.folder import Folder
from asmk_engine.tradeoff.figure import COLOURS, INK, check_matplotlib, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRONGEST = tuple(range(200, 2001, 200))
"""The numbers of strongest features of a curve, where no others are given."""
NAME = "curve"
COLUMNS = ("test", "row", "strongest", "words_per_image", "score", "low", "high", "deviation", "seeds", "queries")
_MAIN_ROWS = ("medium", "all", "cls3")


@dataclass(frozen=True)
class CurvePoint:
    """The scores of a test with the strongest features only.

    strongest        maximum number of features per image and query
    words_per_image  mean number of visual words of an image, the mean of all seeds
    scores           row → score in percent, the mean of all seeds
    deviations       row → sample standard deviation over the seeds; None for one seed
    """

    test: str
    strongest: int
    words_per_image: float
    scores: dict[str, Measured]
    deviations: dict[str, float | None]


def run_curve(
    row: PublishedRow,
    datasets: Datasets,
    settings: Settings,
    display: Display,
    strongest: Sequence[int] = STRONGEST,
) -> list[CurvePoint]:
    """Measure every test of a local experiment at each number of strongest features; an interrupted run resumes.

    raises  InputError for an experiment with global descriptors, for no numbers and numbers below 1; else as `run`
    """
    counts = sorted(set(strongest))
    if row.kind != "local":
        raise InputError(f"{row.name}: one descriptor per image, a curve needs an experiment with local features")
    if not counts or counts[0] < 1:
        raise InputError(f"{list(strongest)} strongest features: give one number or more, each 1 or more")
    with started(with_features(row, counts[-1]), datasets, settings, display) as going:
        points = [point for count in counts for point in _points(going, count, settings.seeds)]
        going.journal.write()
    return points


def with_features(row: PublishedRow, most: int) -> PublishedRow:
    """Return the experiment with `most` features extracted per image and query; training is unchanged."""
    part, own = row.describe[0], row.describe[0].options.get("max_features")
    train = row.train
    if train is not None and "max_features" not in train.options and own is not None:
        train = replace(train, options={**train.options, "max_features": own})
    return replace(row, describe=(replace(part, options={**part.options, "max_features": most}),), train=train)


def _points(going: ReproductionRun, count: int, seeds: int) -> Iterator[CurvePoint]:
    variants = [Variant(seed, count) for seed in range(seeds)]
    found = [going.scores(variant) for variant in variants]
    for test in going.tests:
        words = [_words(going, test, variant) for variant in variants]
        rows = {row: [scores[test.name][row] for scores in found] for row in found[0][test.name]}
        yield CurvePoint(
            test.name,
            count,
            math.fsum(words) / len(words),
            {row: combined(values) for row, values in rows.items()},
            {row: deviation([one.value for one in values]) for row, values in rows.items()},
        )


def _words(going: ReproductionRun, test: Test, variant: Variant) -> float:
    index = going.journal.facts[f"index of {test.dataset}{variant.words}"]
    return float(index["postings"] / max(index["images"], 1))


def csv_text(points: Sequence[CurvePoint], seeds: int) -> str:
    """Return a table with a line for each row of each point; empty cells for what was not measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points:
        for row, one in point.scores.items():
            numbers = (point.words_per_image, one.value, one.low, one.high, point.deviations[row])
            cells = ["" if value is None or math.isnan(value) else f"{value:.4f}" for value in numbers]
            writer.writerow([point.test, row, point.strongest, *cells, seeds, one.queries])
    return text.getvalue()


def as_dict(points: Sequence[CurvePoint]) -> list[dict[str, Any]]:
    """Return the points as JSON values, None for NaN."""
    return [
        {
            "test": point.test,
            "strongest": point.strongest,
            "words_per_image": point.words_per_image,
            "scores": {row: plain_number(one.value) for row, one in point.scores.items()},
            "deviations": {row: plain_number(value) for row, value in point.deviations.items()},
        }
        for point in points
    ]


def write_curve(points: Sequence[CurvePoint], work: Path, title: str, seeds: int) -> list[Path]:
    """Write `curve.csv`, `curve.png` and `curve.svg` into the work folder; DependencyError without matplotlib.

    The table is written before the figure is drawn, so it is there also without matplotlib.
    """
    folder = Folder(work)
    folder.write(f"{NAME}.csv", [csv_text(points, seeds).encode()])
    folder.sync()
    for form, content in draw(points, title).items():
        folder.write(f"{NAME}.{form}", [content])
    folder.sync()
    return [work / f"{NAME}.{form}" for form in ("csv", "png", "svg")]


def draw(points: Sequence[CurvePoint], title: str) -> dict[str, bytes]:
    """Draw the main row of every test over the words per image, as `png` and `svg`; the points bear their n.

    Error bars are the standard deviation over the seeds, or the 95 % interval of a single one.
    """
    check_matplotlib()
    return drawn(lambda: _figure(points, title))


def main_row(scores: dict[str, Measured]) -> str:
    """Return the row that is drawn: Medium, the only one of a validation set, or CLS3."""
    return next((row for row in _MAIN_ROWS if row in scores), next(iter(scores)))


def _figure(points: Sequence[CurvePoint], title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for number, test in enumerate(dict.fromkeys(point.test for point in points)):
        _draw_test(axes, [point for point in points if point.test == test], COLOURS[number % len(COLOURS)])
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel("visual words per image, mean; the points bear n, the number of strongest features")
    axes.set_ylabel("mAP or µAP [%]")
    axes.grid(True, color="#d8dee4", linewidth=0.6)
    axes.legend(frameon=False)
    return figure


def _draw_test(axes: Axes, points: list[CurvePoint], colour: str) -> None:
    row = main_row(points[0].scores)
    found, spread = [point.scores[row] for point in points], [point.deviations[row] for point in points]
    low = [one.value - one.low if wide is None else wide for one, wide in zip(found, spread, strict=True)]
    high = [one.high - one.value if wide is None else wide for one, wide in zip(found, spread, strict=True)]
    places, values = [point.words_per_image for point in points], [one.value for one in found]
    bars = "95 % interval" if spread[0] is None else "standard deviation over the seeds"
    label = f"{points[0].test}, {row}; bars: {bars}"
    axes.errorbar(places, values, yerr=[low, high], color=colour, marker="o", capsize=2, linewidth=1.6, label=label)
    for point, place, value in zip(points, places, values, strict=True):
        axes.annotate(str(point.strongest), (place, value), (4, -11), textcoords="offset points", fontsize=8)
