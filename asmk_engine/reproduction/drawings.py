"""Drawn photographs with a ground truth, so that an experiment can be rehearsed without any data."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from asmk_engine.reproduction.datasets import Rehearsed
from asmk_engine.storage.folder import Folder

SUBJECTS, VIEWS = 4, 4
WIDTH, HEIGHT = 64, 48
_GROUND_TRUTH = "gnd.json"


def draw(subject: int, view: int) -> NDArray[np.uint8]:
    """Return a scene of blotches, [48, 64, 3] BGR, turned and shrunk a little more in every view."""
    generator = np.random.Generator(np.random.PCG64(subject))
    layers = [generator.normal(size=(HEIGHT // step, WIDTH // step, 3)) for step in (16, 8, 4)]
    scene = sum(cv2.resize(layer, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for layer in layers)
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 3 * view, 1 - 0.04 * view)
    pixels = np.clip(128 + 45 * np.asarray(scene), 0, 255).astype(np.uint8)
    return np.asarray(cv2.warpAffine(pixels, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def draw_photographs(folder: Path) -> Rehearsed:
    """Write 16 drawn photographs of four subjects into a folder; each subject has a query with a region.

    raises  StorageError
    """
    images, queries = [], []
    writer = Folder(folder)
    writer.make()
    for subject in range(SUBJECTS):
        names = [f"subject-{subject}-view-{view}.png" for view in range(VIEWS)]
        for view, name in enumerate(names):
            writer.write(name, [cv2.imencode(".png", draw(subject, view))[1].tobytes()])
        box = [2, 2, WIDTH - 4, HEIGHT - 4]
        queries.append({"query": names[0], "bbox": box, "easy": names[1:3], "hard": names[3:], "junk": []})
        images += names[1:]
    writer.write(_GROUND_TRUTH, [json.dumps({"imlist": images, "queries": queries}).encode()])
    return Rehearsed(folder, folder / _GROUND_TRUTH)
