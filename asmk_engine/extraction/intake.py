"""Sorting of the images of a run: which have features already, which need some, and which have the name of another."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asmk_engine.errors import StorageError
from asmk_engine.extraction.attempts import file_fingerprint, file_stamp
from asmk_engine.features import FeatureSet, Source, fingerprint_bytes
from asmk_engine.images.listing import ImageFile, ImageList
from asmk_engine.images.roots import Absence, Root, is_other

Held = Callable[[str], int | None]


@dataclass
class Intake:
    """The images of a run, sorted by what to do with them.

    wanted     to be extracted: new, changed, or failed before
    unchanged  names whose features exist
    moved      those of the unchanged that were found below another root, or touched since they were last examined
    changed    names whose file has other content at the same place, but whose features are to stay
    taken      names that belong to another image, from another place, in the set
    same       name of a file → the other name that the set has for it
    left       fingerprints of the files of `changed` and `taken`, whose content the set may have under a vanished name
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
        with contextlib.suppress(OSError, StorageError):
            self.left.add(image_fingerprint(image))


def take_in(
    images: Iterable[ImageFile], known: FeatureSet | None, *, update: bool = False, held: Held | None = None
) -> Intake:
    """Sort images by what a feature set already has of them.

    known   the set, or None if there is none yet
    update  allow images to replace those of another place or of earlier content with the same name
    held    returns the fingerprint that an index has under a name, or None: features of a name that the index has must
            not be replaced by those of other content, but those of any other name may. Without an index, features of
            images from other places must not be replaced.
    """
    intake, roots = Intake(), known.roots() if known else ()
    for image in images:
        if known is None:
            intake.wanted.append(image)
        elif image.name in known and _is_unchanged(image, known):
            _add_unchanged(intake, image, known)
        elif (known_name := _known_name(image, known, roots)) is not None and _is_held(known_name, known, held):
            intake.same[image.name] = known_name
        elif image.name in known:
            _add_other(intake, image, known, update=update, held=held)
        else:
            intake.wanted.append(image)
    return intake


def _known_name(image: ImageFile, known: FeatureSet, roots: Iterable[Root]) -> str | None:
    """Return the name under which the set has this very file with its present content, or None."""
    file = image.root.file(image.name)
    names = (root.name(file) for root in roots) if file is not None else ()
    candidates = (name for name in names if name is not None and name in known and known.root(name).file(name) == file)
    return next((name for name in candidates if _has_content(image, known, name)), None)


def _is_held(name: str, known: FeatureSet, held: Held | None) -> bool:
    """Return whether the index, if there is one, has the same content as the set under a name."""
    return held is None or held(name) in (0, known.source(name).fingerprint)


def _add_unchanged(intake: Intake, image: ImageFile, known: FeatureSet) -> None:
    intake.unchanged.append(image.name)
    root, source = known.root(image.name), known.source(image.name)
    if is_elsewhere(root, image.root, image.name, source) or (root == image.root and _is_touched(image, known)):
        intake.moved[image.name] = image.root


def _add_other(intake: Intake, image: ImageFile, known: FeatureSet, *, update: bool, held: Held | None) -> None:
    """Sort an image whose name has other content in the set."""
    other = is_other(known.root(image.name), image.root, image.name)
    if update or (not other if held is None else _is_free(image, held(image.name))):
        intake.wanted.append(image)
    elif other:
        intake.leave(image, intake.taken)
    elif can_be_read(image):
        intake.leave(image, intake.changed)
    else:  # the attempt to extract it will report the reason
        intake.wanted.append(image)


def _is_free(image: ImageFile, fingerprint: int | None) -> bool:
    """Return whether an index has nothing under the name of an image, or the same content, lost from the set."""
    try:
        return fingerprint is None or image_fingerprint(image) == fingerprint
    except (OSError, StorageError):
        return False


def is_elsewhere(known: Root, found: Root, name: str, source: Source) -> bool:
    """Return whether to record an image below its new root `found`, because it is no longer at its old place.

    source  its file when it was read
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
    """Return whether the set has features of this content; size and time suffice for a file that was not touched."""
    recorded, in_place = known.source(image.name), known.root(image.name) == image.root
    try:
        size, mtime = image_stamp(image)
    except OSError:
        return False
    if size != recorded.size:
        return False
    is_believed = in_place and mtime == recorded.mtime and not _is_touched(image, known)
    return is_believed or _has_content(image, known, image.name)


def _is_touched(image: ImageFile, known: FeatureSet) -> bool:
    """Return whether a file was renamed, restored or had its times changed since the set last mentioned it."""
    if image.stored is not None:  # its time is when its content was stored, which nobody can change
        return False
    try:
        return os.stat(image.path).st_ctime_ns > known.spoken_at(image.name)
    except OSError:
        return True


def _has_content(image: ImageFile, known: FeatureSet, name: str) -> bool:
    try:
        return image_fingerprint(image) == known.source(name).fingerprint
    except (OSError, StorageError):
        return False


def image_stamp(image: ImageFile) -> tuple[int, int]:
    """Return the size in bytes and the time of an image in ns. Raises OSError for a file that does not exist."""
    return file_stamp(image.path) if image.stored is None else (image.stored.size, image.stored.mtime)


def image_fingerprint(image: ImageFile) -> int:
    """Return the fingerprint of the content of an image. Raises OSError or StorageError if it cannot be read."""
    return file_fingerprint(image.path) if image.stored is None else fingerprint_bytes(image.stored.read())


def can_be_read(image: ImageFile) -> bool:
    """Return whether the content of an image can be read."""
    try:
        if image.stored is not None:
            image.stored.read()
        else:
            open(image.path, "rb").close()
    except (OSError, StorageError):
        return False
    return True


@dataclass
class Vanished:
    """Names of images whose files are gone from the folders of a run; `doubtful` are those of empty folders."""

    gone: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)


def find_vanished(images: Sequence[tuple[str, Root]], found: ImageList) -> Vanished:
    """Find the images, given by name and root, whose files are gone from the folders of a run.

    An image counts if its root is such a folder or is below one, and has the same prefix. An image whose name the run
    found, anywhere, is not gone.
    """
    vanished, absence = Vanished(), Absence()
    present = {image.name for image in found.images if image.stored is not None or os.path.lexists(image.path)}
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
    """Return the outermost given folder that contains a root, or None."""
    folder = Path(root.folder)
    above = [Path(other.folder) for other in given if other.prefix == root.prefix and other.is_known]
    holding = [other for other in above if root.is_known and folder.is_relative_to(other)]
    return min(holding, key=lambda other: len(other.parts), default=None)
