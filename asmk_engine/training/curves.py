"""Training curves: loss and validation score over the epochs, drawn from the log as a PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from asmk_engine.errors import DependencyError
from asmk_engine.storage.folder import Folder
from asmk_engine.training.log import read_log

CURVES = "curves.png"
PAIRS = ("cvnet-rerank", "rrt")
"""The trainings of networks that rank images anew."""


def draw_curves(folder: Path) -> Path:
    """Draw the log of a run folder and write the PNG into it; raises DependencyError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(f"{folder / CURVES}: not drawn; to draw it, pip install 'asmk-engine[plots]'") from None
    entries = read_log(folder)
    figure = Figure(figsize=(8, 5), layout="constrained")
    _draw_losses(figure.add_subplot(), entries)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    Folder(folder).write(CURVES, [content.getvalue()])
    return folder / CURVES


def _draw_losses(axes: Any, entries: list[dict[str, Any]]) -> None:
    steps = [one for one in entries if one["kind"] == "step"]
    epochs = [one for one in entries if one["kind"] == "epoch"]
    axes.plot([one["at"] for one in steps], [one["loss"] for one in steps], color="tab:blue", alpha=0.3, lw=0.8)
    axes.plot([one["epoch"] for one in epochs], [one["loss"] for one in epochs], "o-", color="tab:blue")
    axes.set_xlabel("epochs")
    axes.set_ylabel("loss", color="tab:blue")
    axes.set_ylim(bottom=0)
    validations = [one for one in entries if one["kind"] == "validation"]
    if validations:
        is_of_pairs = any(one.get("training") in PAIRS for one in entries if one["kind"] == "run")
        _draw_scores(axes.twinx(), validations, "ranked anew" if is_of_pairs else "ASMK")


def _draw_scores(axes: Any, validations: list[dict[str, Any]], label: str) -> None:
    _draw_score(axes, validations, "score", "s-", label)
    beside = [one for one in validations if "global_score" in one]
    if beside:  # as Fig. 5 of HOW's paper: the same network, used in two ways
        _draw_score(axes, beside, "global_score", "^--", "global descriptor")
        axes.legend(loc="lower right")
    axes.set_ylabel("validation mAP, %", color="tab:red")


def _draw_score(axes: Any, validations: list[dict[str, Any]], name: str, style: str, label: str) -> None:
    epochs, scores = [one["epoch"] for one in validations], [100 * one[name] for one in validations]
    axes.plot(epochs, scores, style, color="tab:red", label=label)
