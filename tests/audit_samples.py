"""Training sets and test queries whose overlap is known: the same rooms drawn from other places, or photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from asmk_engine.audit import AuditReport
from asmk_engine.demo import bundled_photos
from asmk_engine.images.decoding import view_image
from asmk_engine.pipeline.extractor_choice import ExtractionOptions
from scenes import SHARED, render

SIDE = 360
CROP = (0.15, 0.1, 0.85, 0.9)
EXTRACTION = ExtractionOptions("rootsift", workers=0, others={"max_features": 400, "max_side": SIDE})


@dataclass(frozen=True)
class Sides:
    """The two sides, and for each query the class that it shows, None for a query of nothing that is trained on."""

    train: Path
    test: Path
    truth: dict[str, str | None]

    @property
    def overlapping(self) -> dict[str, str]:
        """The queries that show a class of the training set."""
        return {name: label for name, label in self.truth.items() if label is not None}


def save(path: Path, pixels: np.ndarray, *, quality: int = 90, crop: Sequence[float] = (0, 0, 1, 1)) -> None:
    """Write a JPEG of a part of a photograph, given in shares of its sides."""
    picture = Image.fromarray(pixels)
    width, height = picture.size
    picture = picture.crop((int(crop[0] * width), int(crop[1] * height), int(crop[2] * width), int(crop[3] * height)))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=quality)


def drawn_sides(folder: Path) -> Sides:
    """Three rooms, each seen from several places and on both sides, two other classes, and two foreign queries."""
    textures = [view_image(photo.path, 480).pixels for photo in bundled_photos()]
    sides = Sides(folder / "train", folder / "test", {})
    for number in range(3):
        chosen = [textures[(3 * number + place) % 9] for place in range(3)]
        for view in (2, 5):
            save(sides.train / f"room-{number}" / f"{view}.jpg", render(chosen, view))
        room = f"room-{number}"
        queries = {"view": (8, 80, (0, 0, 1, 1)), "encoded": (2, 35, (0, 0, 1, 1)), "cropped": (5, 80, CROP)}
        for kind, (view, quality, crop) in queries.items():
            save(sides.test / f"{room}-{kind}.jpg", render(chosen, view), quality=quality, crop=crop)
            sides.truth[f"{room}-{kind}.jpg"] = room
    for number, texture in enumerate(textures[9:13]):
        save(sides.train / f"other-{number // 2}" / f"{number}.jpg", texture)
    for number, texture in enumerate(textures[13:15]):
        save(sides.test / f"foreign-{number}.jpg", texture)
        sides.truth[f"foreign-{number}.jpg"] = None
    return sides


def photographed_sides(folder: Path, instances: int, distractors: int) -> Sides:
    """Instances of the shared photographs put into both sides, among distractors that are on one side only.

    Half of the views of an instance are its class. Queries are two other views, and two of the photographs of the class
    itself: encoded again, and cropped.
    """
    sides = Sides(folder / "train", folder / "test", {})
    several = [place for place in sorted(SHARED.iterdir()) if place.name != "_distractors" and _views(place) >= 4]
    for place in several[:: max(1, len(several) // instances)][:instances]:
        photos = [view_image(path, 640).pixels for path in sorted(place.iterdir())]
        half = len(photos) // 2
        for number, pixels in enumerate(photos[:half]):
            save(sides.train / place.name / f"{number}.jpg", pixels)
        queries = {f"view-{number}": (pixels, 80, (0, 0, 1, 1)) for number, pixels in enumerate(photos[half:][:2])}
        queries |= {"encoded": (photos[0], 40, (0, 0, 1, 1)), "cropped": (photos[half - 1], 80, CROP)}
        for kind, (pixels, quality, crop) in queries.items():
            save(sides.test / f"{place.name}-{kind}.jpg", pixels, quality=quality, crop=crop)
            sides.truth[f"{place.name}-{kind}.jpg"] = place.name
    others = sorted((SHARED / "_distractors").iterdir())
    chosen = others[:: max(1, len(others) // distractors)][:distractors]
    for number, path in enumerate(chosen):
        pixels = view_image(path, 640).pixels
        if number % 5:
            save(sides.train / f"other-{number // 4}" / f"{number}.jpg", pixels)
        else:
            save(sides.test / f"foreign-{number}.jpg", pixels)
            sides.truth[f"foreign-{number}.jpg"] = None
    return sides


def _views(place: Path) -> int:
    return sum(1 for _ in place.iterdir())


def landmarks(sides: Sides, folder: Path) -> Path:
    """Write the drawn training set as Google Landmarks has it: classes 1 to 5, images at train/a/b/c/ID.jpg."""
    lines = ["landmark_id,images"]
    for number, place in enumerate(sorted(sides.train.iterdir(), key=lambda path: ("other" in path.name, path.name))):
        names = []
        for path in sorted(place.iterdir()):
            names.append(hashlib.sha256(str(path.relative_to(sides.train)).encode()).hexdigest()[:16])
            target = folder / "train" / names[-1][0] / names[-1][1] / names[-1][2] / f"{names[-1]}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        lines.append(f"{number + 1},{' '.join(names)}")
    (folder / "train_clean.csv").write_text("\n".join(lines))
    return folder / "train_clean.csv"


def recall(report: AuditReport, sides: Sides) -> float:
    """Share of the overlapping queries of which at least one right pair was found."""
    found = {(pair.query.removeprefix("test/"), pair.label) for pair in report.questions.pairs}
    return sum((name, label) in found for name, label in sides.overlapping.items()) / len(sides.overlapping)
