"""A map of the descriptors of images in two dimensions by t-SNE (van der Maaten and Hinton, JMLR 2008).

As Fig. 7 of Song et al., CVPR 2024. Needs scikit-learn and matplotlib, which the extra `plots` installs.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from asmk_engine.errors import DependencyError, InputError
from asmk_engine.pictures.lettering import letter, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERPLEXITY = 30.0
LEAST_IMAGES = 5
FORMS = (".png", ".svg", ".pdf")
COLOURS = (
    *("#d1495b", "#1f6feb", "#0b7a75", "#e09f3e", "#6f42c1", "#57606a", "#a3572b", "#2da44e", "#bf3989", "#0a3069"),
    *("#8c6d00", "#0891b2", "#e5532d", "#5b8a72", "#9d4edd", "#7f1d1d", "#4d7c0f", "#2563a8", "#c2185b", "#3f3f46"),
)
MARKERS = "os^DvP"
"""Every ten classes have another; with the colours, 60 differ."""
OTHER, NONE, INK = "#8c959f", "#d0d7de", "#1f2328"
SIZE, WIDEST_NAME, MARGIN = (10.0, 7.4), 190, 1.06  # inches; pixels of a name in the legend; side over extent


@dataclass(frozen=True, eq=False)
class Embedding:
    """The places of images on a map.

    points      [n, 2] float32
    divergence  the Kullback-Leibler divergence that was reached; less is better
    perplexity  the one that was used
    seed        likewise
    """

    points: np.ndarray
    divergence: float
    perplexity: float
    seed: int


def check_packages() -> None:
    """Raise DependencyError if scikit-learn or matplotlib is not installed."""
    for module, package, purpose in (("sklearn", "scikit-learn", "computes"), ("matplotlib", "matplotlib", "draws")):
        if find_spec(module) is None:
            raise DependencyError(f"{package}, which {purpose} the map, is missing: pip install 'asmk-engine[plots]'")


def embed(vectors: np.ndarray, perplexity: float | None = None, seed: int = 0) -> Embedding:
    """Return a map of descriptors by t-SNE, by their Euclidean distances; it begins with their principal components.

    Parameters
    ----------
    vectors : ndarray
        [n, D], of length 1, so that the order of distances is that of cosines.
    perplexity : float, optional
        About how many neighbours an image has, less than n; by default 30, or a third of the others if there are few.
    seed : int, default 0
        Equal vectors and an equal seed give an equal map on one machine.

    Returns
    -------
    Embedding

    Raises
    ------
    InputError
        For less than five images, images with equal descriptors only, and a perplexity out of range.
    DependencyError
        Without scikit-learn.
    """
    count = len(vectors)
    if count < LEAST_IMAGES:
        raise InputError(f"{count} images with a descriptor; a map needs {LEAST_IMAGES} or more: add images")
    chosen = min(PERPLEXITY, (count - 1) / 3) if perplexity is None else perplexity
    if not 0 < chosen < count:
        raise InputError(f"perplexity {chosen:g} for {count} images; give one above 0 and below the number of images")
    if not (vectors != vectors[0]).any():
        raise InputError(f"all {count} descriptors are equal, so there is nothing to map; give other images")
    check_packages()
    from sklearn.manifold import TSNE

    start = "pca" if vectors.shape[1] > 1 else "random"
    method = TSNE(perplexity=chosen, init=start, learning_rate="auto", random_state=seed)
    points = method.fit_transform(np.ascontiguousarray(vectors, np.float32))
    return Embedding(points, float(method.kl_divergence_), float(chosen), seed)


def draw_embedding(
    points: np.ndarray, names: Sequence[str], classes: Mapping[str, str], title: str, form: str, legend: int = 20
) -> bytes:
    """Draw a map as a file of the form `png`, `svg` or `pdf`, with equal bytes for equal input.

    points   [n, 2] of the images with these names
    classes  name of an image → its class; images without are pale
    legend   the most frequent classes that have a colour and a line in the legend; the others are grey
    """
    import matplotlib

    settings: Any = {"svg.hashsalt": "asmk-engine", "font.family": "DejaVu Sans", "font.size": 10, "pdf.fonttype": 42}
    settings["text.parse_math"] = False  # names are no formulas
    with matplotlib.rc_context(settings):
        figure = _figure(points, names, classes, title, legend)
        file = io.BytesIO()
        undated: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(file, format=form, dpi=150, metadata=undated[form])
        return file.getvalue()


def _figure(points: np.ndarray, names: Sequence[str], classes: Mapping[str, str], title: str, legend: int) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    labels = [classes.get(name) for name in names]
    counts = Counter(label for label in labels if label is not None)
    kept = sorted(counts, key=lambda label: (-counts[label], label))[:legend]
    rows = {label: np.array([label == one for one in labels]) for label in kept}
    without = np.array([one is None for one in labels])
    others = ~without & ~np.any([*rows.values(), np.zeros(len(labels), bool)], axis=0)
    _draw(axes, points[without], NONE, "o", f"no class ({without.sum()})", 10)
    _draw(axes, points[others], OTHER, "x", f"{len(counts) - len(kept)} other classes ({others.sum()})", 14)
    shown = _legible(kept)
    for place, label in enumerate(kept):
        marker = MARKERS[place // 10 % len(MARKERS)]
        _draw(axes, points[rows[label]], COLOURS[place % len(COLOURS)], marker, f"{shown[place]} ({counts[label]})", 24)
    axes.set_title(title, color=INK, fontsize=11)
    _frame(axes, points)
    handles, texts = axes.get_legend_handles_labels()
    order = [*range(len(handles) - len(kept), len(handles)), *range(len(handles) - len(kept))]
    if counts:
        figure.legend(
            [handles[place] for place in order], [texts[place] for place in order],
            loc="outside right upper", fontsize=9, frameon=False, handletextpad=0.3,
        )  # fmt: skip
    return figure


def _frame(axes: Axes, points: np.ndarray) -> None:
    """Show all points in a square, without numbers, since neither directions nor units mean anything."""
    low, high = points.min(0), points.max(0)
    half, middle = float((high - low).max()) / 2 * MARGIN or 1.0, (low + high) / 2
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_color(NONE)


def _draw(axes: Axes, points: np.ndarray, colour: str, marker: str, label: str, size: float) -> None:
    if len(points):
        edge: dict[str, Any] = {} if marker == "x" else {"edgecolors": "white"}
        x, y = points.T
        axes.scatter(x, y, s=size, c=colour, marker=marker, linewidths=0.5, label=label, **edge)


def _legible(names: Sequence[str]) -> list[str]:
    """Return names as the legend has them: shortened, and not beginning with _, by which matplotlib hides a line."""
    short = [shorten(letter(names), name, WIDEST_NAME) for name in names]
    return [f" {name}" if name.startswith("_") else name for name in short]
