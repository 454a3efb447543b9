"""The two sides of an audit: the classes of a training set, and the queries of test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.landmarks import header, retrieval_header
from asmk_engine.evaluation.oxford import is_oxford
from asmk_engine.images.boxes import Box
from asmk_engine.images.listing import ImageFile, find_images, shown
from asmk_engine.pictures.file_names import UnusedNames
from asmk_engine.storage.user_files import first_bytes
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.instances import NONE

HEADER_BYTES = 4096
SUFFIXES = ("", ".jpg", ".jpeg", ".png")


@dataclass(frozen=True, eq=False)
class AuditedSet:
    """A training set: its images and the class of each.

    images   the images, with the names that the training set gives them
    classes  the class of each; an image without one is a class of its own, under its name
    labelled whether each image has a class
    """

    images: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    labelled: tuple[bool, ...]

    @cached_property
    def counts(self) -> Counter[str]:
        """Number of images of each class, in the order in which the classes first appear."""
        return Counter(self.classes)

    @cached_property
    def places(self) -> dict[str, int]:
        """Name of an image → its place."""
        return {image.name: place for place, image in enumerate(self.images)}

    def first_images(self, name: str, most: int) -> list[ImageFile]:
        """Return the first images of a class."""
        found = (image for image, one in zip(self.images, self.classes, strict=True) if one == name)
        return [image for image, _ in zip(found, range(most), strict=False)]


@dataclass(frozen=True)
class AuditQuery:
    """A query: its name, `SET/name`, the label of its test set, its photograph and the region that it asks for."""

    name: str
    test_set: str
    path: Path
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class QuerySets:
    """The queries of all test sets, and the names of those without a photograph, with the reasons."""

    queries: tuple[AuditQuery, ...]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The labels of the test sets, in their order."""
        names = [query.test_set for query in self.queries] + [name.split("/")[0] for name in self.missing]
        return list(dict.fromkeys(names))


def read_training_set(data: Path, layout: str = "auto", images: Path | None = None) -> AuditedSet:
    """Read a training set in a layout of `asmk_engine.training.instance_layouts`, whose errors this raises."""
    found = read_instances(data, layout, images)
    labelled = tuple((found.instances != NONE).tolist())
    classes = tuple(
        found.names[number] if has else image.name
        for image, number, has in zip(found.images, found.instances.tolist(), labelled, strict=True)
    )
    return AuditedSet(found.images, classes, labelled)


def read_test_sets(paths: Sequence[Path], images: Sequence[Path] = ()) -> QuerySets:
    """Read the queries of test sets.

    paths   of each a folder of photographs; a list of them (`.txt`); a table (`.csv`) as of a training set; or a ground
            truth (`.json`, `.pkl`, the folder of Oxford5k, the solution of Google Landmarks v2), of which only the
            queries and their boxes are used
    images  folders in which the photographs of tables and ground truths are looked for, before that of the file

    Raises NotFoundError if no photograph of any query is found, and the errors of the files.
    """
    queries: list[AuditQuery] = []
    missing: dict[str, str] = {}
    for path, label in zip(paths, _labels(paths), strict=True):
        names: Counter[str] = Counter()
        for name, file, box in _read(path, images):
            names[name] += 1
            whole = f"{label}/{name}" + (f"#{names[name]}" if names[name] > 1 else "")
            if file is None:
                missing[whole] = "no photograph of this name"
            else:
                queries.append(AuditQuery(whole, label, file, box))
    if not queries:
        raise NotFoundError(
            f"{shown(paths[0])}: no photograph of {len(missing)} queries is found, such as "
            f"{list_names(list(missing)[:1])}; give their folder with --test-images"
        )
    return QuerySets(tuple(queries), missing)


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return a label for each path: its name without an extension, numbered where it occurs again."""
    if not paths:
        raise InputError("no test set is given; give a folder of queries, a table or a ground truth")
    unused = UnusedNames()
    return [unused.take(path.resolve().stem or "test") for path in paths]


Read = tuple[str, Path | None, Box | None]


def _read(path: Path, roots: Sequence[Path]) -> Iterable[Read]:
    if not path.exists():
        raise NotFoundError(f"{shown(path)}: no such test set; give a folder of queries, a table or a ground truth")
    suffix = path.suffix.lower()
    if (path.is_dir() and not is_oxford(path)) or suffix == ".txt":
        return [(image.name, image.path, None) for image in find_images([path]).images]
    start = first_bytes(path, HEADER_BYTES)
    if suffix == ".csv" and not retrieval_header(start):
        is_landmarks = "landmark_id" in header(start)
        found = read_instances(path, "gldv2" if is_landmarks else "csv", next(iter(roots), None))
        return [(image.name, image.path, None) for image in found.images]
    folders = [*roots, path if path.is_dir() else path.parent]
    truth = read_ground_truth(path)
    return [(query.name, _photograph(query.name, folders), query.box) for query in truth.queries]


def _photograph(name: str, folders: Sequence[Path]) -> Path | None:
    """Find the photograph of a query, whose name may lack its extension, also where published sets have it."""
    cut = Path(name[0], name[1], name[2]) if len(name) > 2 and "/" not in name else Path()
    inside = (Path(), Path("jpg"), Path("images"), cut, Path("test") / cut, Path("index") / cut)
    tried = (folder / part / f"{name}{suffix}" for folder in folders for part in inside for suffix in SUFFIXES)
    return next((path for path in tried if path.is_file()), None)
