"""Photographs drawn for rehearsals of experiments, and a display that shows nothing."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from asmk_engine.reproduction.datasets import Rehearsed


class Silent:
    """A display that shows nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def bar(self, what: str, unit: str) -> Any:
        """Show no progress."""
        return nullcontext(lambda *_: None)


def write_ground_truth(views: dict[str, list[str]], path: Path) -> None:
    """One query for each subject, which should find its other views."""
    queries = [{"query": names[0], "bbox": None, "easy": names[1:], "hard": [], "junk": []} for names in views.values()]
    path.write_text(json.dumps({"imlist": [name for names in views.values() for name in names], "queries": queries}))


def drawn(folder: Path, subjects: int = 4) -> Rehearsed:
    """Scenes of blotches, each seen seven times, turned and shrunk a little."""
    (folder / "photos").mkdir(parents=True)
    views: dict[str, list[str]] = {}
    for subject in range(subjects):
        rng = np.random.default_rng(subject)
        layers = [rng.normal(size=(96 // step, 128 // step, 3)) for step in (16, 8, 4)]
        scene = sum(cv2.resize(layer, (128, 96), interpolation=cv2.INTER_CUBIC) for layer in layers)
        for number in range(7):
            turn = cv2.getRotationMatrix2D((64, 48), 2 * number, 1 - 0.03 * number)
            seen = cv2.warpAffine(np.clip(128 + 45 * scene, 0, 255).astype(np.uint8), turn, (128, 96), borderMode=4)
            name = f"subject {subject} {number}.png"
            cv2.imencode(".png", seen)[1].tofile(folder / "photos" / name)
            views.setdefault(str(subject), []).append(name)
    write_ground_truth(views, folder / "gnd.json")
    return Rehearsed(folder / "photos", folder / "gnd.json")
