"""The figure: mAP against bytes per image on a logarithmic axis, a line for each source, and the Pareto front.

After figure 1 of Tolias et al., ECCV 2020, which draws mAP against the memory of a million images. Needs matplotlib,
which comes with the extra `plots`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from asmk_engine.errors import DependencyError, InputError
from asmk_engine.tradeoff.results import Result, pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#d1495b", "#1f6feb", "#0b7a75", "#e09f3e", "#6f42c1", "#57606a", "#a3572b", "#2da44e", "#bf3989", "#0a3069")
MARKERS = {"asmk": "o", "flat": "s", "pca": "^", "pq": "D", "pca+pq": "v"}
KINDS = {"asmk": "ASMK index", "flat": "global, float32", "pca": "global, PCA", "pq": "global, PQ", "pca+pq": "PCA, PQ"}
PARETO, INK = "#24292f", "#1f2328"
SIZE = (10.5, 6.4)  # inches
MILLION = 1_000_000
GIBIBYTE = 1 << 30


def draw(results: Sequence[Result], title: str) -> dict[str, bytes]:
    """The figure as `png` and `svg`, the same bytes for the same results and version of matplotlib.

    Each cell is a point, a source's own best ones are joined by a line, and whiskers on the Pareto front are the 95 %
    intervals. Raises DependencyError without matplotlib, InputError for no results.
    """
    if find_spec("matplotlib") is None:
        raise DependencyError("matplotlib, which draws the figure, is missing: pip install 'asmk-engine[plots]'")
    if not results:
        raise InputError("there is no result to draw: every cell failed; see failed.txt in the work folder")
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "asmk-engine", "font.family": "DejaVu Sans", "font.size": 10}):
        figure = _figure(results, title)
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
    sources = list(dict.fromkeys(one.cell.source for one in results))
    for place, source in enumerate(sources):
        _draw_source(axes, source, [one for one in results if one.cell.source == source], COLOURS[place % len(COLOURS)])
    _draw_front(axes, pareto_front(results))
    _label(axes, results, title)
    _legends(axes, [kind for kind in MARKERS if any(one.cell.kind == kind for one in results)])
    return figure


def _draw_source(axes: Axes, source: str, results: list[Result], colour: str) -> None:
    best = pareto_front(results)
    axes.plot(*_places(best), color=colour, linewidth=1.8, label=source, zorder=3)
    for kind, marker in MARKERS.items():
        for one in (one for one in results if one.cell.kind == kind):
            strong = one in best
            axes.plot(
                *_places([one]), marker, color=colour, markersize=7 if strong else 5, alpha=1.0 if strong else 0.35,
                markeredgecolor="white", markeredgewidth=0.6, zorder=4 if strong else 2,
            )  # fmt: skip


def _draw_front(axes: Axes, front: list[Result]) -> None:
    sizes, precisions = _places(front)
    axes.plot(sizes, precisions, color=PARETO, linewidth=1.1, linestyle=(0, (4, 3)), label="Pareto front", zorder=5)
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
    axes.grid(True, which="major", color="#d0d7de", linewidth=0.6)
    axes.grid(True, which="minor", color="#eaeef2", linewidth=0.4)
    axes.set_axisbelow(True)
    factor = MILLION / GIBIBYTE
    above = axes.secondary_xaxis("top", functions=(lambda size: size * factor, lambda size: size / factor))
    above.set_xlabel("GiB of a million such images (extrapolated: a million times the bytes below)", fontsize=8.5)
    above.tick_params(labelsize=8.5)


def _legends(axes: Axes, kinds: list[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker=MARKERS[kind], color="#6e7781", linestyle="none", label=KINDS[kind]) for kind in kinds
    ]
    marks.append(
        Line2D([], [], marker="o", color="#6e7781", alpha=0.35, linestyle="none", label="beaten by its source")
    )
    first = axes.legend(loc="upper left", fontsize=9, framealpha=0.9)
    axes.add_artist(first)
    axes.legend(handles=marks, loc="lower right", fontsize=9, framealpha=0.9)
