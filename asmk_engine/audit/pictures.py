"""The pictures of questions: query and training image, plain and with what they have in common, or images of a class.

People judge by the plain one, so that they do not follow the machine. A picture has the name of its question and does
not change, so a run that was killed draws only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from asmk_engine import threads
from asmk_engine.audit.finding import VerifiedCandidate
from asmk_engine.audit.model import AuditPair, NamedClass
from asmk_engine.audit.sets import AuditedSet, AuditQuery
from asmk_engine.iteration import Display, counted
from asmk_engine.pictures.encoding import jpeg_bytes
from asmk_engine.pictures.group_sheet import SheetImage, draw_group_sheet
from asmk_engine.pictures.match_picture import Caption, draw_match, draw_pair
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.storage.folder import Folder

MOST_BYTES = 200_000
SHOWN_OF_CLASS, SHOWN_QUERIES, COLUMNS, THUMB = 12, 6, 6, 160
WRITTEN_TOGETHER = 64
DRAWN_OF = "drawn-of.txt"
Drawing = tuple[str, Callable[[], np.ndarray]]
"""The name of a picture, and what draws it."""


def picture_name(key: str) -> str:
    """Return the name of the picture by which people judge: both photographs, or images of a class."""
    return f"{key}.jpg"


def match_picture_name(key: str) -> str:
    """Return the name of the picture of a pair with what both have in common."""
    return f"{key}-match.jpg"


def write_pictures(folder: Path, drawings: Sequence[Drawing], how: str, display: Display, count: int) -> None:
    """Write the pictures that are not there yet, and remove those of no question; raises StorageError.

    how  what they depend on besides their questions; pictures of something else are drawn again
    """
    target = Folder(folder)
    target.make()
    _remove_others(target, how)
    there = set(target.names())
    wanted = {name for name, _ in drawings}
    due = [one for one in drawings if one[0] not in there]
    with display.bar("pictures", "pictures") as progress:
        for first in counted(range(0, len(due), WRITTEN_TOGETHER), -(-len(due) // WRITTEN_TOGETHER), progress):
            some = due[first : first + WRITTEN_TOGETHER]
            drawn = threads.run(lambda one: jpeg_bytes(one[1](), MOST_BYTES), some, count)
            for (name, _), data in zip(some, drawn, strict=True):
                target.write(name, [data], "a picture")
    for name in there - wanted:
        if name.endswith((".jpg", ".jpg.tmp")):
            target.remove(name)
    target.sync()


def _remove_others(target: Folder, how: str) -> None:
    """Remove pictures that were drawn of other photographs or another verification."""
    if target.content(DRAWN_OF) == how.encode():
        return
    for name in target.names():
        target.remove(name)
    target.write(DRAWN_OF, [how.encode()], "what the pictures are of")
    target.sync()


def pair_drawings(
    pairs: Iterable[tuple[AuditPair, VerifiedCandidate]], queries: Sequence[AuditQuery], training: AuditedSet
) -> list[Drawing]:
    """Return what draws both pictures of each pair."""
    opened = lru_cache(maxsize=8)(ShownPhotograph.open)

    def drawing(pair: AuditPair, found: VerifiedCandidate, is_plain: bool) -> Callable[[], np.ndarray]:
        def draw() -> np.ndarray:
            query = queries[found.query]
            one = opened(query.path)
            other = ShownPhotograph.open(training.images[found.image].path)
            names = f"query  {pair.query}", f"{pair.label}  {pair.image}"
            if is_plain:
                return draw_pair(one, other, *names, query.box)
            return draw_match(one, other, found.match, Caption(*names, ("evidence", pair.evidence)), query.box)

        return draw

    return [
        (name(pair.key), drawing(pair, found, name is picture_name))
        for pair, found in pairs
        for name in (picture_name, match_picture_name)
    ]


def class_drawings(named: Iterable[NamedClass], training: AuditedSet, queries: Sequence[AuditQuery]) -> list[Drawing]:
    """Return what draws the pictures of classes: their first images, and below them queries that are most like them.

    queries  those that are shown
    """

    def drawing(one: NamedClass) -> Callable[[], np.ndarray]:
        def draw() -> np.ndarray:
            own = [SheetImage(image.path) for image in training.first_images(one.label, SHOWN_OF_CLASS)]
            asked = [SheetImage(query.path, query.test_set) for query in queries]
            note = f"{one.images} images. Below the line are some of the queries."
            sheet = draw_group_sheet([own, asked], title=one.name, note=note, columns=COLUMNS, thumb=THUMB)
            return np.asarray(sheet.convert("RGB"))

        return draw

    return [(picture_name(one.key), drawing(one)) for one in named]
