"""Which images of a run have features already, which need some, and which bear the name of another photograph."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from asmk_engine.attempts import file_fingerprint, file_stamp
from asmk_engine.features import FeatureSet
from asmk_engine.image_lists import ImageFile, ImageList
from asmk_engine.roots import Root, is_elsewhere, is_gone, is_other


@dataclass
class Intake:
    """The images of a run by what is to be done with them.

    wanted     to be extracted: new, changed, or failed before
    unchanged  names whose features are there
    moved      of the unchanged: found below another root than before, which is gone
    changed    names whose photograph was replaced at its place, and whose features are to stay
    taken      names that another photograph, from another place, bears in the set
    same       names of files that the set has under another name: which
    """

    wanted: list[ImageFile] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    moved: dict[str, Root] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)


def take_in(
    images: Iterable[ImageFile], known: FeatureSet | None, *, update: bool = False, held: Container[str] | None = None
) -> Intake:
    """Sort images by what a feature set has of them already.

    known   the set, or None where there is none yet
    update  let photographs take the names of others, and of what they were before
    held    names whose features must not be replaced by those of another content, but those of any other name may: an
            index holds them. None: those of photographs from other places must not.
    """
    intake, files = Intake(), _Files(known)
    for image in images:
        if known is None:
            intake.wanted.append(image)
        elif image.name not in known:
            _place_new(intake, image, files)
        else:
            _place_known(intake, image, known, update=update, held=held)
    return intake


class _Files:
    """The images of a feature set by their files; made when first asked for."""

    def __init__(self, known: FeatureSet | None) -> None:
        self._known = known

    @functools.cached_property
    def _names(self) -> dict[Path, str]:
        names = self._known.names if self._known else []
        files = ((self._known.root(name).file(name), name) for name in names) if self._known else ()
        return {file: name for file, name in files if file is not None}

    def twin(self, image: ImageFile) -> str | None:
        """The name under which the set has this very file, with the content it has now."""
        file = image.root.file(image.name)
        name = self._names.get(file) if file is not None else None
        return name if name and self._known and _has_content(image.path, self._known, name) else None


def _place_new(intake: Intake, image: ImageFile, files: _Files) -> None:
    twin = files.twin(image)
    if twin is None:
        intake.wanted.append(image)
    else:
        intake.same[image.name] = twin


def _place_known(
    intake: Intake, image: ImageFile, known: FeatureSet, *, update: bool, held: Container[str] | None
) -> None:
    root = known.root(image.name)
    other = is_other(root, image.root, image.name)
    if _is_unchanged(image, known):
        intake.unchanged.append(image.name)
        if is_elsewhere(root, image.root, image.name):
            intake.moved[image.name] = image.root
    elif update or (not other if held is None else image.name not in held):
        intake.wanted.append(image)
    elif other:
        intake.taken.append(image.name)
    elif can_be_read(image.path):
        intake.changed.append(image.name)
    else:  # the attempt to extract it will say what is wrong with it
        intake.wanted.append(image)


def _is_unchanged(image: ImageFile, known: FeatureSet) -> bool:
    """Whether the set has features of this content; the time of a file at its old place is believed."""
    recorded, in_place = known.source(image.name), known.root(image.name) == image.root
    try:
        size, mtime = file_stamp(image.path)
    except OSError:
        return False
    if size != recorded.size:
        return False
    return (in_place and mtime == recorded.mtime) or _has_content(image.path, known, image.name)


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


def vanished(images: Iterable[tuple[str, Root]], found: ImageList, *, trusting: bool = False) -> list[str]:
    """Those of some images, given by name and root, whose files are gone from roots that a run named: see `is_gone`."""
    roots = set(found.roots)
    files = ((name, root, root.file(name)) for name, root in images if root in roots)
    return [
        name for name, root, file in files if file is not None and is_gone(file, Path(root.folder), trusting=trusting)
    ]
