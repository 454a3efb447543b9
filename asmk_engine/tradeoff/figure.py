"""The figure: mAP over bytes per image on a logarithmic axis, a line per source, and the Pareto front.

Like figure 1 of Tolias et al., ECCV 2020, which plots mAP over the memory of a million images. Needs matplotlib, which
the extra `plots` installs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from asmk_engine.errors import DependencyError, InputError
from asmk_engine.tradeoff.results import Result, pareto_front
from asmk_engine.tradeoff.table import GIBIBYTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#d1495b", "#1f6feb", "#0b7a75", "#e09f3e", "#6f42c1", "#57606a", "#a3572b", "#2da44e", "#bf3989", "#0a3069")
MARKERS = {"asmk": "o", "flat": "s", "pca": "^", "pq": "D", "pca+pq": "v", "fused": "P"}
KINDS = {
    **{"asmk": "ASMK index", "flat": "global, float32", "pca": "global, PCA", "pq": "global, PQ", "pca+pq": "PCA, PQ"},
    "fused": "fused index",
}
PARETO, INK = "#24292f", "#1f2328"
SIZE = (10.5, 6.4)  # inches
MILLION = 1_000_000


def draw(results: Sequence[Result], title: str) -> dict[str, bytes]:
    """Draw the figure as `png` and `svg`, with the same bytes for the same results and version of matplotlib.

    Each configuration is a point, a line joins the Pareto front of each source, and error bars on the overall Pareto
    front are the 95 % intervals. Raises DependencyError without matplotlib, InputError if there are no results.
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
    axes = figure.add_subplot()
    sources = list(dict.fromkeys(one.configuration.source for one in results))
    for place, source in enumerate(sources):
        _draw_source(
            axes, source, [one for one in results if one.configuration.source == source], COLOURS[place % len(COLOURS)]
        )
    _draw_front(axes, pareto_front(results))
    _label(axes, results, title)
    _legends(figure, axes, [kind for kind in MARKERS if any(one.configuration.kind == kind for one in results)])
    return figure


def _draw_source(axes: Axes, source: str, results: list[Result], colour: str) -> None:
    best = pareto_front(results)
    axes.plot(*_places(best), color=colour, linewidth=1.8, label=source, zorder=3)
    for kind, marker in MARKERS.items():
        for one in (one for one in results if one.configuration.kind == kind):
            strong = one in best
            axes.plot(
                *_places([one]), marker, color=colour, markersize=7 if strong else 5, alpha=1.0 if strong else 0.35,
                markeredgecolor="white", markeredgewidth=0.6, zorder=4 if strong else 2,
            )  # fmt: skip


def _draw_front(axes: Axes, front: list[Result]) -> None:
    sizes, precisions = _places(front)
    stepped: dict[str, Any] = {"drawstyle": "steps-post"}  # nothing better was measured between two points
    axes.plot(
        sizes, precisions, color=PARETO, linewidth=1.1, linestyle=(0, (4, 3)), label="Pareto front", zorder=5, **stepped
    )
    low = [100 * (one.precision.mean - one.precision.low) for one in front]
    high = [100 * (one.precision.high - one.precision.mean) for one in front]
    axes.errorbar(
        sizes, precisions, yerr=[low, high], fmt="none", ecolor=PARETO, elinewidth=0.7, capsize=2, alpha=0.55, zorder=1
    )


def _places(results: Sequence[Result]) -> tuple[list[float], list[float]]:
    return [one.bytes_per_image for one in results], [100 * one.precision.mean for one in results]


def _label(axes: Axes, results: Sequence[Result], title: str) -> None:
    axes.set_xscale("log")
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel("bytes per image on disk, without the codebook (log scale)")
    axes.set_ylabel(f"mAP [%], {results[0].row}")
    axes.grid(True, color="#d8dee4", linewidth=0.6)
    axes.set_axisbelow(True)
    above = axes.secondary_xaxis("top", functions=(_gibibytes, _bytes))
    above.set_xlabel("GiB of a million such images (extrapolated: a million times the bytes per image)", fontsize=8.5)
    above.tick_params(labelsize=8.5)
    for axis in (axes.xaxis, above.xaxis):
        _mark_plainly(axis)


def _gibibytes(size: Any) -> Any:
    return size * MILLION / GIBIBYTE


def _bytes(size: Any) -> Any:
    return size * GIBIBYTE / MILLION


def _mark_plainly(axis: Any) -> None:
    """Place ticks at 1, 2 and 5 times the powers of ten, with full numbers as labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", " ")))
    axis.set_minor_formatter(NullFormatter())


def _legends(figure: Figure, axes: Axes, kinds: list[str]) -> None:
    from matplotlib.lines import Line2D

    def mark(marker: str, label: str, strength: float = 1.0) -> Line2D:
        return Line2D([], [], marker=marker, color="#6e7781", alpha=strength, linestyle="none", label=label)

    marks = [mark(MARKERS[kind], KINDS[kind]) for kind in kinds]
    handles = [*axes.get_legend_handles_labels()[0], *marks, mark("o", "not on the front of its source", 0.35)]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
