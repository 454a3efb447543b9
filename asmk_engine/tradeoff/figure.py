"""The figure: mAP over bytes per image and over milliseconds per query, on logarithmic axes, with Pareto fronts.

The first panel is like figure 1 of Tolias et al., ECCV 2020, which plots mAP over the memory of a million images. Both
have a line per source. Needs matplotlib, which the extra `plots` installs.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from asmk_engine.errors import DependencyError, InputError
from asmk_engine.tradeoff.labels import PointLabel, draw_labels
from asmk_engine.tradeoff.point_names import point_names
from asmk_engine.tradeoff.results import Cost, Result, bytes_of, milliseconds_of, pareto_front
from asmk_engine.tradeoff.table import GIBIBYTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    *("#d1495b", "#1f6feb", "#0b7a75", "#e09f3e", "#6f42c1", "#57606a", "#a3572b", "#2da44e", "#bf3989", "#0a3069"),
    *("#8c6d00", "#0891b2", "#e5532d", "#5b8a72", "#9d4edd", "#7f1d1d", "#4d7c0f", "#2563a8", "#c2185b", "#3f3f46"),
)
MARKERS = {
    **{"asmk": "o", "flat": "s", "pca": "^", "pq": "D", "pca+pq": "v", "fused": "P"},
    **{"reranked": "*", "described": "X", "placed": "h"},
}
KINDS = {
    **{"asmk": "ASMK index", "flat": "global, float32", "pca": "global, PCA", "pq": "global, PQ", "pca+pq": "PCA, PQ"},
    **{"fused": "fused index", "reranked": "re-ranked by places"},
    **{"described": "re-ranked by descriptors", "placed": "re-ranked by both"},
}
LARGER = {"reranked": 1.6, "described": 1.15, "placed": 1.3}  # these markers are smaller than others of their size
PARETO, INK = "#24292f", "#1f2328"
SIZE = (10.5, 12.4)  # inches
WIDE = 3.2  # powers of ten from end to end
MILLION = 1_000_000


def draw(results: Sequence[Result], title: str) -> dict[str, bytes]:
    """Draw the figure as `png` and `svg`, with the same bytes for the same results and version of matplotlib.

    In each panel a configuration is a point, a line joins the Pareto front of each source, and error bars on the
    overall Pareto front are the 95 % intervals. Names stand beside the points of `point_names`. Raises DependencyError
    without matplotlib, InputError if there are no results.
    """
    check_matplotlib()
    if not results:
        raise InputError("no results to draw, since every configuration failed; see failed.txt in the work folder")
    return drawn(lambda: _figure(results, title))


def check_matplotlib() -> None:
    """Raise DependencyError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise DependencyError("matplotlib, which draws the figure, is missing: pip install 'asmk-engine[plots]'")


def drawn(make: Callable[[], Figure]) -> dict[str, bytes]:
    """Return the figure that `make` draws as `png` and `svg`, with the same bytes for the same drawing."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "asmk-engine", "font.family": "DejaVu Sans", "font.size": 10}):
        figure = make()
        return {form: _saved(figure, form) for form in ("png", "svg")}


def _saved(figure: Figure, form: str) -> bytes:
    made = io.BytesIO()
    dated: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(made, format=form, dpi=150, metadata=dated)
    return made.getvalue()


def _figure(results: Sequence[Result], title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    memory, time = figure.subplots(2, 1)
    memory.set_title(title, color=INK, fontsize=11)
    for axes, cost in ((memory, bytes_of), (time, milliseconds_of)):
        _draw_panel(axes, results, cost)
    _label(memory, results, "bytes per image on disk, without the codebook (log scale)")
    _label(time, results, "milliseconds of processor time per query, without feature extraction (log scale)")
    _draw_gibibytes(memory)
    _legends(figure, memory, [kind for kind in MARKERS if any(one.configuration.kind == kind for one in results)])
    _draw_names(figure, results)
    return figure


def _colours(results: Sequence[Result]) -> dict[str, str]:
    sources = dict.fromkeys(one.configuration.source for one in results)
    return {source: COLOURS[place % len(COLOURS)] for place, source in enumerate(sources)}


def _draw_panel(axes: Axes, results: Sequence[Result], cost: Cost) -> None:
    for source, colour in _colours(results).items():
        _draw_source(axes, source, [one for one in results if one.configuration.source == source], colour, cost)
    _draw_front(axes, pareto_front(results, cost), cost)


def _draw_source(axes: Axes, source: str, results: list[Result], colour: str, cost: Cost) -> None:
    best = pareto_front(results, cost)
    axes.plot(*_places(best, cost), color=colour, linewidth=1.4, alpha=0.75, label=source, zorder=3)
    for kind, marker in MARKERS.items():
        for one in (one for one in results if one.configuration.kind == kind):
            strong = one in best
            axes.plot(
                *_places([one], cost), marker, color=colour, alpha=1.0 if strong else 0.35,
                markersize=(7 if strong else 5) * LARGER.get(kind, 1.0),
                markeredgecolor="white", markeredgewidth=0.6, zorder=4 if strong else 2,
            )  # fmt: skip


def _draw_front(axes: Axes, front: list[Result], cost: Cost) -> None:
    costs, precisions = _places(front, cost)
    stepped: dict[str, Any] = {"drawstyle": "steps-post"}  # nothing better was measured between two points
    axes.plot(
        costs, precisions, color=PARETO, linewidth=1.1, linestyle=(0, (4, 3)), label="Pareto front", zorder=5, **stepped
    )
    low = [100 * (one.precision.mean - one.precision.low) for one in front]
    high = [100 * (one.precision.high - one.precision.mean) for one in front]
    axes.errorbar(
        costs, precisions, yerr=[low, high], fmt="none", ecolor=PARETO, elinewidth=0.7, capsize=2, alpha=0.55, zorder=1
    )


def _places(results: Sequence[Result], cost: Cost) -> tuple[list[float], list[float]]:
    return [cost(one) for one in results], [100 * one.precision.mean for one in results]


def _draw_names(figure: Figure, results: Sequence[Result]) -> None:
    """Write names beside points; last, since free places depend on everything else."""
    figure.draw_without_rendering()
    colours = _colours(results)
    for axes, cost in zip(figure.axes, (bytes_of, milliseconds_of), strict=True):
        labels = [
            PointLabel(name, cost(one), 100 * one.precision.mean, colours[one.configuration.source])
            for one, name in point_names(results, cost)
        ]
        points = list(zip(*_places(results, cost), strict=True))
        draw_labels(axes, labels, points, [_corners(line) for line in axes.lines])


def _corners(line: Any) -> list[tuple[float, float]]:
    """Return the corners of a line, also those of its steps."""
    places = list(map(tuple, line.get_xydata().tolist()))
    if line.get_drawstyle() != "steps-post":
        return places
    steps = [((right, low), (right, high)) for (_, low), (right, high) in itertools.pairwise(places)]
    return [places[0], *(corner for step in steps for corner in step)]


def _label(axes: Axes, results: Sequence[Result], cost: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(cost)
    axes.set_ylabel(f"mAP [%], {results[0].row}")
    axes.margins(x=0.09, y=0.06)  # for names beside the outermost points
    axes.grid(True, color="#d8dee4", linewidth=0.6)
    axes.set_axisbelow(True)
    _mark_plainly(axes.xaxis, axes.get_xlim())


def _draw_gibibytes(axes: Axes) -> None:
    above = axes.secondary_xaxis("top", functions=(_gibibytes, _bytes))
    above.set_xlabel("GiB of a million such images (extrapolated: a million times the bytes per image)", fontsize=8.5)
    above.tick_params(labelsize=8.5)
    _mark_plainly(above.xaxis, axes.get_xlim())


def _gibibytes(size: Any) -> Any:
    return size * MILLION / GIBIBYTE


def _bytes(size: Any) -> Any:
    return size * GIBIBYTE / MILLION


def _mark_plainly(axis: Any, limits: tuple[float, float]) -> None:
    """Place ticks at 1, 2 and 5 times the powers of ten, or 1 and 3 times if there are many, with full numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    is_wide = math.log10(limits[1] / limits[0]) > WIDE
    axis.set_major_locator(LogLocator(subs=(1, 3) if is_wide else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", " ")))
    axis.set_minor_formatter(NullFormatter())


def _legends(figure: Figure, axes: Axes, kinds: list[str]) -> None:
    from matplotlib.lines import Line2D

    def mark(marker: str, label: str, strength: float = 1.0) -> Line2D:
        return Line2D([], [], marker=marker, color="#6e7781", alpha=strength, linestyle="none", label=label)

    marks = [mark(MARKERS[kind], KINDS[kind]) for kind in kinds]
    handles = [*axes.get_legend_handles_labels()[0], *marks, mark("o", "not on the front of its source", 0.35)]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
