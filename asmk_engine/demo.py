"""The collection of the demo: photographs, altered views of some of them, and the ground truth that follows.

    bundled or own photographs ──views──▶ root/a.jpg, root/views/a/1.jpg … ──▶ gnd.json

View 1 of a photograph is altered mildly, the last one severely. The views of a photograph depend on its name and the
seed alone.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from asmk_engine import threads
from asmk_engine.errors import AsmkError, DependencyError, InputError
from asmk_engine.image_lists import ImageFile, ImageList, shown
from asmk_engine.images import view_image
from asmk_engine.store import Folder, storage_errors

BUNDLED = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "page.png"),
    *("retina.jpg", "rocket.jpg", "text.png"),
)
"""The photographs inside the package scikit-image; its drawings, silhouettes and blurred pictures are left out."""

SAME_SUBJECT = {"motorcycle_left.png": ("motorcycle_right.png",)}
"""Real second photographs of the same thing: no queries themselves, but answers."""

MARKER = "demo.txt"
VIEWS = "views"
MAX_SIDE = 1024
SMALLEST_SIDE = 64
_FEWEST_BUNDLED = 5
_INSTALL = "python -m pip install 'scikit-image>=0.24'"


@dataclass(frozen=True)
class QueryViews:
    """A photograph that is asked for, and the images that show the same: easy and hard to find."""

    name: str
    easy: tuple[str, ...]
    hard: tuple[str, ...]


def claim_folder(folder: Path) -> None:
    """Make the folder of a demo and mark it as one; InputError when it holds other files."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{shown(folder)}: a file is in the way; the demo needs a folder of its own, give it with -o")
    target = Folder(folder)
    names = target.names()
    if names and MARKER not in names:
        raise InputError(f"{shown(folder)}: holds files that no demo made; give a new or empty folder with -o")
    target.make()
    target.write(MARKER, [b"Everything in this folder was made by `asmk-engine demo` and may be deleted.\n"])


def make_photos(folder: Path) -> list[ImageFile]:
    """Write the photographs that are bundled with scikit-image into a folder; DependencyError without them."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise DependencyError(
            f"the photographs of the demo come with scikit-image, which is not installed; run {_INSTALL}, "
            "or give a folder of your own photographs"
        )
    source = Path(next(iter(found.submodule_search_locations))) / "data"
    names = [name for name in BUNDLED if (source / name).is_file()]
    if len(names) < _FEWEST_BUNDLED:
        raise DependencyError(
            f"{source}: holds {len(names)} of the {len(BUNDLED)} photographs that scikit-image bundles; run {_INSTALL}, "
            "or give a folder of your own photographs"
        )
    for name in names:
        _copy(source / name, folder / name)
    return [ImageFile(name, folder / name) for name in names]


def link_photos(photos: Sequence[ImageFile], folder: Path) -> list[ImageFile]:
    """Put photographs under their names into a folder, as hard links, or as copies where links cannot be made."""
    for photo in photos:
        target = folder / photo.name
        Folder(target.parent).make()
        if not (_link(photo.path, target) or _is_copy(photo.path, target)):
            _copy(photo.path, target)
    return [ImageFile(photo.name, folder / photo.name) for photo in photos]


def remove_others(folder: Path, kept: Iterable[str]) -> int:
    """Remove the files below a folder of the demo whose names are not `kept`, and return how many there were."""
    wanted = set(kept)
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    others = [path for path in paths if path.relative_to(folder).as_posix() not in wanted]
    for path in others:
        Folder(path.parent).remove(path.name)
    return len(others)


def spread(photos: Sequence[ImageFile], most: int) -> list[ImageFile]:
    """At most so many of the photographs, evenly spread over all."""
    count = min(most, len(photos))
    return [photos[place * len(photos) // count] for place in range(count)]


def choose_queries(photos: Sequence[ImageFile], most: int) -> list[ImageFile]:
    """At most so many photographs, evenly spread, each of them readable and large enough for views.

    InputError when there is none.
    """
    count = min(most, len(photos))
    bounds = [place * len(photos) // count for place in range(count + 1)] if count else []
    parts = [photos[begin:end] for begin, end in zip(bounds, bounds[1:], strict=False)]
    chosen = [photo for part in parts if (photo := next(filter(_is_usable, part), None))]
    if not chosen:
        raise InputError(
            f"none of {len(photos)} photographs can serve as a query; "
            f"expected some that can be read, with sides of {SMALLEST_SIDE} pixels or more"
        )
    return chosen


def free_name(photos: Iterable[ImageFile], wanted: str = VIEWS) -> str:
    """A name for the folder of views that none of the photographs uses: `views`, else `views-2` and so on."""
    taken = {photo.name.split("/")[0].casefold() for photo in photos}
    return _unused(wanted, taken)


def make_views(
    photos: Sequence[ImageFile],
    folder: Path,
    per_photo: int = 8,
    seed: int = 0,
    *,
    below: str = VIEWS,
    progress: Callable[[int, int], None] | None = None,
) -> list[QueryViews]:
    """Write `below`/<stem>/<k>.jpg into a folder, k from 1 to `per_photo`, for each of the photographs.

    The first half of the views of a photograph counts as easy to find, the rest as hard.
    Names are relative to `folder`. InputError for a photograph that cannot be read.
    """
    stems: dict[str, ImageFile] = {}
    for photo in photos:
        stems[_unused(Path(photo.name).stem[:60], {stem.casefold() for stem in stems})] = photo
    made: list[QueryViews] = []
    batch = 2 * threads.available_threads()
    items = [(f"{below}/{stem}", photo) for stem, photo in stems.items()]
    for begin in range(0, len(items), batch):
        write = functools.partial(_write_views, folder=folder, per_photo=per_photo, seed=seed)
        made += threads.run(write, items[begin : begin + batch], threads.thread_count(None))
        if progress:
            progress(len(made), len(items))
    return made


def add_same_subject(queries: Iterable[QueryViews], names: Iterable[str]) -> list[QueryViews]:
    """The queries, with real second photographs among `names` added to what is easy to find."""
    there = set(names)
    return [
        QueryViews(query.name, (*(name for name in SAME_SUBJECT.get(query.name, ()) if name in there), *query.easy), query.hard)
        for query in queries
    ]


def write_truth(path: Path, images: Sequence[str], queries: Iterable[QueryViews]) -> None:
    """Write a ground truth that `evaluation.truth.read_truth` reads: `images` is the whole database.

    Views of a photograph are what its query should find, and all other images count as wrong.
    """
    entries = [
        {
            "query": query.name,
            "bbox": None,
            "positives": [*query.easy, *query.hard],
            "easy": list(query.easy),
            "hard": list(query.hard),
            "junk": [],
        }
        for query in queries
    ]
    protocol = "Each photograph asks for its altered views: mild ones are easy, severe ones hard; all other images are wrong."
    content = {"name": "demo", "protocol": protocol, "imlist": list(images), "queries": entries}
    folder = Folder(path.parent)
    folder.write(path.name, [json.dumps(content, indent=1).encode()])
    folder.sync()


def _unused(name: str, taken: set[str]) -> str:
    number, unused = 1, name
    while unused.casefold() in taken:
        number += 1
        unused = f"{name}-{number}"
    return unused


def _is_usable(photo: ImageFile) -> bool:
    try:
        return min(view_image(photo.path, MAX_SIDE).image_size) >= SMALLEST_SIDE
    except AsmkError:  # the extraction will list it with the reason
        return False


def _link(source: Path, target: Path) -> bool:
    """Whether the target is now the same file as the source."""
    try:
        if target.exists() and os.path.samefile(source, target):
            return True
        target.unlink(missing_ok=True)
        os.link(os.path.realpath(source), target)
        return True
    except OSError:  # another file system, or one without links: the photograph is copied
        return False


def _is_copy(source: Path, target: Path) -> bool:
    try:
        old, new = source.stat(), target.stat()
    except OSError:
        return False
    return old.st_size == new.st_size and old.st_mtime <= new.st_mtime


def _copy(source: Path, target: Path) -> None:
    if _is_copy(source, target):
        return
    folder = Folder(target.parent)
    folder.make()
    with storage_errors(source, "copy the photograph"):
        shutil.copyfile(source, folder.temporary(target.name))
    folder.publish(target.name)


def _write_views(item: tuple[str, ImageFile], folder: Path, per_photo: int, seed: int) -> QueryViews:
    where, photo = item
    target = Folder(folder / where)
    target.make()
    pixels = view_image(photo.path, MAX_SIDE).pixels
    rng = np.random.default_rng([seed, zlib.crc32(photo.name.encode("utf-8"))])
    names = []
    for number in range(1, per_photo + 1):
        name = f"{number}.jpg"
        data = encode_view(pixels, number / per_photo, rng)
        if not (target.path / name).is_file() or (target.path / name).read_bytes() != data:
            target.write(name, [data])
        names.append(f"{where}/{name}")
    easy = math.ceil(per_photo / 2)
    return QueryViews(photo.name, tuple(names[:easy]), tuple(names[easy:]))


def encode_view(pixels: np.ndarray, severity: float, rng: np.random.Generator) -> bytes:
    """A JPEG file of [H, W, 3] uint8 RGB pixels seen from elsewhere, cropped, re-lit, blurred and noisy.

    severity  from 0, hardly altered, to 1: up to 60 degrees of rotation, half the scale, strong perspective
    """
    view = _relit(_warped(pixels, severity, rng), severity, rng)
    quality = round(92 - 52 * severity)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(view, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def _warped(pixels: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """What stands inside a random quadrilateral of the image, as a rectangle."""
    corners = _quadrilateral(pixels.shape[1], pixels.shape[0], severity, rng)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    zoom = 2 ** (severity * rng.uniform(-1, 0.5))
    zoom = min(max(zoom, SMALLEST_SIDE / min(width, height)), MAX_SIDE / max(width, height))
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    if zoom < 1:
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 * math.sqrt(1 / zoom**2 - 1) + 1e-3)
    target = np.array([[0, 0], [size[0], 0], size, [0, size[1]]], np.float32) - 0.5
    homography = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    return cv2.warpPerspective(pixels, homography, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _quadrilateral(width: int, height: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Corners [4, 2] of a turned, shrunken and jittered rectangle that lies inside the image."""
    half = np.array([width, height]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    corners = corners + severity * rng.uniform(-0.35, 0.35, (4, 2)) * half
    angle = math.radians(60 * severity * rng.choice([-1, 1]) * rng.uniform(0.4, 1))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = corners @ turn.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    fit = min(1.0, float(((2 * half) / (high - low)).min())) * (1 - severity * rng.uniform(0.1, 0.4))
    slack = 2 * half - fit * (high - low)
    return fit * (corners - low) + slack * rng.uniform(0, 1, 2) - 0.5


def _relit(pixels: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """The image with another gamma, contrast and brightness, light from one side, some blur and noise."""
    height, width = pixels.shape[:2]
    values = (pixels.astype(np.float32) / 255) ** 2 ** (severity * rng.uniform(-1, 1))
    values = (values - 0.5) * (1 + severity * rng.uniform(-0.5, 0.4)) + 0.5 + severity * rng.uniform(-0.2, 0.2)
    direction = rng.uniform(0, 2 * math.pi)
    x, y = np.linspace(-1, 1, width) * math.cos(direction), np.linspace(-1, 1, height) * math.sin(direction)
    values = values * (1 + 0.4 * severity * (x[None, :, None] + y[:, None, None])).astype(np.float32)
    values = cv2.GaussianBlur(values, (0, 0), 0.1 + severity * rng.uniform(0.3, 1.2))
    values = values + (0.04 * severity * rng.standard_normal(values.shape)).astype(np.float32)
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
