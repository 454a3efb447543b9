"""Photographs for the guides: of the shared collection where it is, else rendered views of corners of rooms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from asmk_engine.demo import bundled_photos
from asmk_engine.images.decoding import view_image

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared/data/photos/images"
SIDE, CHURCH_SIDE = 512, 640  # the longer side of the photographs in pixels; those that are reconstructed are larger
CHURCH = "herz_jesu"
SCENES = {CHURCH: 12, "sceaux_castle": 5, "groc_arla_sour_milk": 4, "kermit": 4}
OTHERS = 6

# A floor and two walls of a room, each by its corners in metres: x to the right, y down, z away from the first camera.
_PLANES = (
    ((-4, 1.5, 2), (4, 1.5, 2), (4, 1.5, 8), (-4, 1.5, 8)),
    ((-4, -2.5, 5), (0, -2.5, 8), (0, 1.5, 8), (-4, 1.5, 5)),
    ((0, -2.5, 8), (4, -2.5, 5), (4, 1.5, 5), (0, 1.5, 8)),
)


def has_shared() -> bool:
    """Whether the shared photographs are there."""
    return (SHARED / CHURCH).is_dir()


def write_photographs(folder: Path, *, shared: bool) -> None:
    """Write what the guides begin with: `photos/`, `new/`, `church/` and `query.jpg`."""
    collection = dict(_shared() if shared else _rendered())
    scenes = dict.fromkeys(Path(name).parent.as_posix() for name in collection)
    church = next(iter(scenes))
    count: dict[str, int] = {}
    for name, pixels in collection.items():
        scene = Path(name).parent.as_posix()
        count[scene] = count.get(scene, 0) + 1
        if scene == church:
            _save(folder / "church" / Path(name).name, pixels, CHURCH_SIDE)
        if scene == church and count[scene] == 8:
            _save(folder / "query.jpg", pixels)
        if scene == church and count[scene] > 8:
            _save(folder / "new" / f"{'abcd'[count[scene] - 9]}.jpg", pixels)
        elif scene != church or count[scene] < 8:
            _save(folder / "photos" / name, pixels)


def _shared() -> Iterator[tuple[str, np.ndarray]]:
    for scene, most in SCENES.items():
        for path in sorted((SHARED / scene).iterdir())[:most]:
            yield f"{scene}/{path.name}", view_image(path, CHURCH_SIDE).pixels
    for path in sorted((SHARED / "_distractors").iterdir())[:: 1200 // OTHERS][:OTHERS]:
        yield f"others/{path.name}", view_image(path, SIDE).pixels


def _rendered() -> Iterator[tuple[str, np.ndarray]]:
    textures = [view_image(photo.path, CHURCH_SIDE).pixels for photo in bundled_photos()]
    for number in range(4):
        for view in range(12 if number == 0 else 4):
            chosen = [textures[(3 * number + place) % len(textures)] for place in range(3)]
            yield f"room-{number}/view-{view:02d}.jpg", render(chosen, view)
    for number, texture in enumerate(textures[12:]):
        yield f"others/{number:02d}.jpg", texture


def render(textures: list[np.ndarray], view: int) -> np.ndarray:
    """[480, 640, 3] uint8 RGB: the corner of a room as a pinhole camera sees it that walks along an arc."""
    angle = np.deg2rad(3.0 * (view - 5.5))
    centre = np.array([5.5 * np.sin(angle), -0.2 + 0.04 * (view % 3), 6 - 5.5 * np.cos(angle)])
    rotation = cv2.Rodrigues(np.array([0.0, angle, 0.0]))[0]
    camera = np.array([[560.0, 0, 319.5], [0, 560.0, 239.5], [0, 0, 1]])
    picture = np.full((480, 640, 3), 96, np.uint8)
    for corners, texture in zip(_PLANES, textures, strict=True):
        seen = (camera @ rotation @ (np.array(corners, np.float64) - centre).T).T
        height, width = texture.shape[:2]
        outline = np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], np.float32)
        plane = cv2.getPerspectiveTransform(outline, (seen[:, :2] / seen[:, 2:]).astype(np.float32))
        warped = cv2.warpPerspective(texture, plane, (640, 480), flags=cv2.INTER_AREA)
        shown = cv2.warpPerspective(np.full((height, width), 255, np.uint8), plane, (640, 480))
        picture[shown > 127] = warped[shown > 127]
    return picture


def _save(path: Path, pixels: np.ndarray, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    picture.save(path, quality=92)
