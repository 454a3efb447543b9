"""Which images of a run have features already, which need some, and which bear the name of another photograph."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asmk_engine.extraction.attempts import file_fingerprint, file_stamp
from asmk_engine.features import FeatureSet, Source
from asmk_engine.images.listing import ImageFile, ImageList
from asmk_engine.images.roots import Absence, Root, is_other

Held = Callable[[str], int | None]


@dataclass
class Intake:
    """The images of a run by what is to be done with them.

    wanted     to be extracted: new, changed, or failed before
    unchanged  names whose features are there
    moved      of the unchanged: found below another root than before, or touched since they were looked at last
    changed    names whose photograph was replaced at its place, and whose features are to stay
    taken      names that another photograph, from another place, bears in the set
    same       names of files that the set has under another name: which
    left       fingerprints of the files of `changed` and `taken`, whose content may be known by a name that is gone
    """

    wanted: list[ImageFile] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    moved: dict[str, Root] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)

    def leave(self, image: ImageFile, names: list[str]) -> None:
        """Leave an image out."""
        names.append(image.name)
        with contextlib.suppress(OSError):
            self.left.add(file_fingerprint(image.path))


def take_in(
    images: Iterable[ImageFile], known: FeatureSet | None, *, update: bool = False, held: Held | None = None
) -> Intake:
    """Sort images by what a feature set has of them already.

    known   the set, or None where there is none yet
    update  let photographs take the names of others, and of what they were before
    held    the fingerprint of what an index has under a name, or None: features of a name that it has must not be
            replaced by those of another content, those of any other name may. Without an index, those of photographs
            from other places must not.
    """
    intake, roots = Intake(), known.roots() if known else ()
    for image in images:
        if known is None:
            intake.wanted.append(image)
        elif image.name in known and _is_unchanged(image, known):
            _place_unchanged(intake, image, known)
        elif (twin := _twin(image, known, roots)) is not None and _is_held(twin, known, held):
            intake.same[image.name] = twin
        elif image.name in known:
            _place_other(intake, image, known, update=update, held=held)
        else:
            intake.wanted.append(image)
    return intake


def _twin(image: ImageFile, known: FeatureSet, roots: Iterable[Root]) -> str | None:
    """The name under which a set has this very file, with the content it has now."""
    file = image.root.file(image.name)
    names = (root.name(file) for root in roots) if file is not None else ()
    there = (name for name in names if name is not None and name in known and known.root(name).file(name) == file)
    return next((name for name in there if _has_content(image.path, known, name)), None)


def _is_held(name: str, known: FeatureSet, held: Held | None) -> bool:
    """Whether the index, if there is one, has what the set has under a name."""
    return held is None or held(name) in (0, known.source(name).fingerprint)


def _place_unchanged(intake: Intake, image: ImageFile, known: FeatureSet) -> None:
    intake.unchanged.append(image.name)
    root, source = known.root(image.name), known.source(image.name)
    if is_elsewhere(root, image.root, image.name, source) or (root == image.root and _is_touched(image, known)):
        intake.moved[image.name] = image.root


def _place_other(intake: Intake, image: ImageFile, known: FeatureSet, *, update: bool, held: Held | None) -> None:
    """An image whose name the set has for another content."""
    other = is_other(known.root(image.name), image.root, image.name)
    if update or (not other if held is None else _is_free(image, held(image.name))):
        intake.wanted.append(image)
    elif other:
        intake.leave(image, intake.taken)
    elif can_be_read(image.path):
        intake.leave(image, intake.changed)
    else:  # the attempt to extract it will say what is wrong with it
        intake.wanted.append(image)


def _is_free(image: ImageFile, fingerprint: int | None) -> bool:
    """Whether an index has nothing under the name of an image, or this very content, whose features the set lost."""
    try:
        return fingerprint is None or file_fingerprint(image.path) == fingerprint
    except OSError:
        return False


def is_elsewhere(known: Root, found: Root, name: str, source: Source) -> bool:
    """Whether an image is to be remembered below the root where it was found, since it is no longer where it was.

    source  its file as it was read
    """
    if not found.is_known or known == found:
        return False
    file = known.file(name)
    if file is None:
        return True
    try:
        return file_stamp(file) != (source.size, source.mtime) and file_fingerprint(file) != source.fingerprint
    except OSError:
        return True


def _is_unchanged(image: ImageFile, known: FeatureSet) -> bool:
    """Whether the set has features of this content; of a file that nobody touched, its size and time are believed."""
    recorded, in_place = known.source(image.name), known.root(image.name) == image.root
    try:
        size, mtime = file_stamp(image.path)
    except OSError:
        return False
    if size != recorded.size:
        return False
    is_believed = in_place and mtime == recorded.mtime and not _is_touched(image, known)
    return is_believed or _has_content(image.path, known, image.name)


def _is_touched(image: ImageFile, known: FeatureSet) -> bool:
    """Whether a file was renamed, restored or given another time since the set spoke of it last."""
    try:
        return os.stat(image.path).st_ctime_ns > known.spoken_at(image.name)
    except OSError:
        return True


def _has_content(path: Path, known: FeatureSet, name: str) -> bool:
    try:
        return file_fingerprint(path) == known.source(name).fingerprint
    except OSError:
        return False


def can_be_read(path: Path) -> bool:
    """Whether a file is there and may be read."""
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


@dataclass
class Vanished:
    """Names of images whose files are gone from the folders of a run; of the doubtful, the folders are empty."""

    gone: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)


def find_vanished(images: Sequence[tuple[str, Root]], found: ImageList) -> Vanished:
    """Those of some images, given by name and root, whose files are gone from folders that a run was given.

    An image counts when its root is such a folder or lies below one, and has the same prefix. What the run found under
    its name, there or anywhere, is not gone.
    """
    vanished, absence = Vanished(), Absence()
    present = {image.name for image in found.images if os.path.lexists(image.path)}
    folders = {root: _above(root, found.roots) for root in dict.fromkeys(root for _, root in images)}
    for name, root in images:
        folder, file = folders[root], root.file(name)
        if folder is None or file is None or name in present:
            continue
        state = absence.of(file, folder)
        if state:
            (vanished.gone if state == "gone" else vanished.doubtful).append(name)
    return vanished


def _above(root: Root, given: Iterable[Root]) -> Path | None:
    """The outermost of the folders given that holds a root, or None."""
    folder = Path(root.folder)
    above = [Path(other.folder) for other in given if other.prefix == root.prefix and other.is_known]
    holding = [other for other in above if root.is_known and folder.is_relative_to(other)]
    return min(holding, key=lambda other: len(other.parts), default=None)
