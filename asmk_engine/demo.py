"""The demo collection: photographs, altered views of some of them, and the ground truth that follows from both.

    bundled or own photographs ──views──▶ root/a.jpg, root/views/a/1.jpg … ──▶ gnd.json

View 1 of a photograph is altered mildly, the last one severely. The views of a photograph depend only on its name and
the seed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from asmk_engine import threads
from asmk_engine.errors import AsmkError, DependencyError, InputError
from asmk_engine.images.decoding import view_image
from asmk_engine.images.listing import ImageFile, shown
from asmk_engine.iteration import Progress
from asmk_engine.storage.folder import Folder, storage_errors

BUNDLED = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "page.png"),
    *("retina.jpg", "rocket.jpg", "text.png"),
)
"""The photographs bundled with scikit-image, without its drawings, silhouettes and blurred images."""

SECOND_PHOTOS = {"motorcycle_left.png": ("motorcycle_right.png",)}
"""Real second photographs of the same object: used as positives, not as queries."""

MARKER = "demo.txt"
VIEWS = "views"
MAX_SIDE = 1024
SMALLEST_SIDE = 64
_FEWEST_BUNDLED = 5
_CURE = "run python -m pip install 'scikit-image>=0.24', or give a folder of your own photographs"


@dataclass(frozen=True)
class QueryViews:
    """A query photograph and its positives, easy and hard."""

    name: str
    easy: tuple[str, ...]
    hard: tuple[str, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """All positives."""
        return self.easy + self.hard


def claim_folder(folder: Path) -> None:
    """Create the folder of a demo and mark it as one. Raises InputError if it holds other files."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{shown(folder)}: a file is in the way; give a new or empty folder with -o")
    target = Folder(folder)
    names = target.names()
    if names and MARKER not in names:
        raise InputError(f"{shown(folder)}: holds files that are not from a demo; give a new or empty folder with -o")
    target.make()
    target.write(MARKER, [b"Everything in this folder was made by `asmk-engine demo` and may be deleted.\n"])


def bundled_photos() -> list[ImageFile]:
    """Return the photographs of the installed scikit-image. Raises DependencyError if it or most of them are absent."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise DependencyError(f"the photographs of the demo come with scikit-image, which is not installed; {_CURE}")
    folder = Path(next(iter(found.submodule_search_locations))) / "data"
    photos = [ImageFile(name, folder / name) for name in BUNDLED if (folder / name).is_file()]
    if len(photos) < _FEWEST_BUNDLED:
        raise DependencyError(
            f"{folder}: holds {len(photos)} of the {len(BUNDLED)} photographs of scikit-image; {_CURE}"
        )
    return photos


def place_photos(photos: Sequence[ImageFile], folder: Path, *, link: bool) -> list[ImageFile]:
    """Link or copy photographs into a folder under their names; unreadable ones are left out.

    link  link to the originals, which saves space; copy only if links cannot be made
    """
    placed = []
    for photo in photos:
        if os.access(photo.path, os.R_OK):
            target = folder / photo.name
            Folder(target.parent).make()
            if not (link and _link(photo.path, target)):
                _copy(photo.path, target)
            placed.append(ImageFile(photo.name, target))
    return placed


def remove_others(folder: Path, kept: Iterable[str]) -> int:
    """Remove the files below a demo folder whose names are not in `kept`, and return their number."""
    wanted = set(kept)
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    others = [path for path in paths if path.relative_to(folder).as_posix() not in wanted]
    for path in others:
        Folder(path.parent).remove(path.name)
    return len(others)


def choose_queries(photos: Sequence[ImageFile], most: int) -> list[ImageFile]:
    """Return at most `most` photographs, evenly spread, each readable and large enough for views.

    Raises InputError if there is none.
    """
    count = min(most, len(photos))
    bounds = [index * len(photos) // count for index in range(count + 1)] if count else []
    parts = [photos[begin:end] for begin, end in itertools.pairwise(bounds)]
    chosen = [photo for part in parts if (photo := next(filter(_is_usable, part), None))]
    if not chosen:
        raise InputError(
            f"none of {len(photos)} photographs can be a query; "
            f"expected readable ones with sides of at least {SMALLEST_SIDE} pixels"
        )
    return chosen


def free_name(photos: Iterable[ImageFile]) -> str:
    """Return a name for the folder of views that no photograph uses: `views`, else `views-2` and so on."""
    return _unused(VIEWS, {photo.name.split("/")[0].casefold() for photo in photos})


def make_views(
    photos: Sequence[ImageFile],
    folder: Path,
    per_photo: int = 12,
    seed: int = 0,
    *,
    below: str = VIEWS,
    progress: Progress | None = None,
) -> list[QueryViews]:
    """Write views of each photograph to `below`/<stem>/<k>.jpg in a folder, k from 1 to `per_photo`.

    The first half of the views of a photograph is easy, the rest hard. Names are relative to `folder`.
    Raises InputError for a photograph that cannot be read. Receives progress as (done, total) photographs.
    """
    stems: dict[str, ImageFile] = {}
    for photo in photos:
        stems[_unused(Path(photo.name).stem[:60], {stem.casefold() for stem in stems})] = photo
    made: list[QueryViews] = []
    items = [(f"{below}/{stem}", photo) for stem, photo in stems.items()]
    write = functools.partial(_write_views, folder=folder, per_photo=per_photo, seed=seed)
    count = threads.thread_count(None)
    for begin in range(0, len(items), 2 * count):
        made += threads.run(write, items[begin : begin + 2 * count], count)
        if progress:
            progress(len(made), len(items))
    return made


def is_second_photo(photo: ImageFile) -> bool:
    """Return whether a photograph is one of `SECOND_PHOTOS`."""
    return any(photo.name in names for names in SECOND_PHOTOS.values())


def add_second_photos(queries: Iterable[QueryViews], placed: Iterable[ImageFile]) -> list[QueryViews]:
    """Return the queries with the available `SECOND_PHOTOS` added to their easy positives."""
    available = {photo.name for photo in placed}
    more = {name: available.intersection(others) for name, others in SECOND_PHOTOS.items()}
    return [replace(query, easy=(*sorted(more.get(query.name, ())), *query.easy)) for query in queries]


def write_ground_truth(path: Path, images: Sequence[str], queries: Iterable[QueryViews]) -> None:
    """Write a ground truth that `evaluation.truth.read_ground_truth` reads; `images` is the whole database.

    The views of a photograph are the positives of its query; all other images are negatives.
    """
    entries: list[dict[str, object]] = [
        {"query": query.name, "bbox": None, "easy": query.easy, "hard": query.hard, "junk": []} for query in queries
    ]
    protocol = "A photograph asks for its altered views: mild ones are easy, severe ones hard; other images are wrong."
    content = {"name": "demo", "protocol": protocol, "imlist": list(images), "queries": entries}
    folder = Folder(path.parent)
    folder.write(path.name, [json.dumps(content, indent=1).encode()])
    folder.sync()


def _unused(name: str, taken: set[str]) -> str:
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(unused for unused in names if unused.casefold() not in taken)


def _is_usable(photo: ImageFile) -> bool:
    try:
        return min(view_image(photo.path, MAX_SIDE).image_size) >= SMALLEST_SIDE
    except AsmkError:  # the extraction reports the reason
        return False


def _link(source: Path, target: Path) -> bool:
    """Link the target to the source, hard or symbolic; return whether it is now the same file."""
    if target.exists() and os.path.samefile(source, target):
        return True
    Folder(target.parent).remove(target.name)
    for make_link in (os.link, os.symlink):
        with contextlib.suppress(OSError):  # another file system, or one without links
            make_link(os.path.realpath(source), target)
            return True
    return False


def _copy(source: Path, target: Path) -> None:
    folder, original = Folder(target.parent), source.stat()
    if target.is_file():
        copy = target.stat()
        if copy.st_size == original.st_size and copy.st_mtime >= original.st_mtime:
            return
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
    """Return a JPEG file of a view of [H, W, 3] uint8 RGB pixels: warped, cropped, relit, blurred and noisy.

    severity  from 0, hardly altered, to 1: up to 60 degrees of rotation, half the scale, strong perspective
    """
    view = _relit(_warped(pixels, severity, rng), severity, rng)
    quality = round(92 - 52 * severity)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(view, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def _warped(pixels: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Warp a random quadrilateral of the image to a rectangle."""
    corners = _quadrilateral(pixels.shape[1], pixels.shape[0], severity, rng)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    least, most = SMALLEST_SIDE / min(width, height), MAX_SIDE / max(width, height)
    zoom = min(max(2 ** (severity * rng.uniform(-1, 0.5)), least), most)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    if zoom < 1:
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 * math.sqrt(1 / zoom**2 - 1) + 1e-3)
    target = np.array([[0, 0], [size[0], 0], size, [0, size[1]]], np.float32) - 0.5
    homography = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    return cv2.warpPerspective(pixels, homography, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _quadrilateral(width: int, height: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Return the corners [4, 2] of a rotated, shrunken and jittered rectangle inside the image."""
    half = np.array([width, height]) / 2
    corners = half * ([[-1, -1], [1, -1], [1, 1], [-1, 1]] + severity * rng.uniform(-0.35, 0.35, (4, 2)))
    angle = math.radians(60 * severity * rng.choice([-1, 1]) * rng.uniform(0.4, 1))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = corners @ turn.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    fit = min(1.0, float(((2 * half) / (high - low)).min())) * (1 - severity * rng.uniform(0.1, 0.4))
    slack = 2 * half - fit * (high - low)
    return np.asarray(fit * (corners - low) + slack * rng.uniform(0, 1, 2) - 0.5)


def _relit(pixels: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Return the image with another gamma, contrast and brightness, lit from one side, with some blur and noise."""
    height, width = pixels.shape[:2]
    values: np.ndarray = (pixels.astype(np.float32) / 255) ** 2 ** (severity * rng.uniform(-1, 1))
    values = (values - 0.5) * (1 + severity * rng.uniform(-0.5, 0.4)) + 0.5 + severity * rng.uniform(-0.2, 0.2)
    direction = rng.uniform(0, 2 * math.pi)
    x, y = np.linspace(-1, 1, width) * math.cos(direction), np.linspace(-1, 1, height) * math.sin(direction)
    values = values * (1 + 0.4 * severity * (x[None, :, None] + y[:, None, None])).astype(np.float32)
    values = cv2.GaussianBlur(values, (0, 0), 0.1 + severity * rng.uniform(0.3, 1.2))
    values = values + (0.04 * severity * rng.standard_normal(values.shape)).astype(np.float32)
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
