"""The photographs behind the names of a recipe: published datasets, or one small set that rehearses all of them.

A task is what a test searches: the database, the queries with their regions, and what is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asmk_engine.errors import NotFoundError
from asmk_engine.evaluation.ground_truth import GroundTruth, read_ground_truth
from asmk_engine.evaluation.landmarks import read_labels
from asmk_engine.evaluation.names import match_names, resolve
from asmk_engine.images.boxes import Box
from asmk_engine.images.listing import ImageFile, ImageList, find_images, shown
from asmk_engine.reproduction.files import dataset_of
from asmk_engine.training.sfm120k import read_sfm120k

LANDMARKS = 50
DATABASE_OF_LANDMARK = 200
QUERIES_OF_LANDMARK = 20


@dataclass(frozen=True)
class Query:
    """A photograph that is asked for: its name in the ground truth, its file, and its region, or None for all of it."""

    name: str
    path: Path
    box: Box | None


@dataclass(frozen=True)
class RetrievalTask:
    """What a test searches.

    database  photographs of the index
    queries   photographs that are asked for
    ground_truth     what each should find; None where labels are to be told
    labels    image of the database → label, where labels are to be told
    answers   query → its labels, likewise
    """

    database: ImageList
    queries: tuple[Query, ...]
    ground_truth: GroundTruth | None = None
    labels: Mapping[str, str] | None = None
    answers: Mapping[str, frozenset[str]] | None = None


class Datasets(Protocol):
    """What knows the photographs behind the names of datasets."""

    def photographs(self, name: str, first: int = 0) -> ImageList:
        """The photographs of a dataset, or the first so many, 0 being all."""
        ...

    def task(self, name: str, recognition: bool) -> RetrievalTask:
        """What a dataset asks; `recognition` for labels rather than images."""
        ...


@dataclass(frozen=True)
class Published:
    """The published datasets below a folder, see `files`."""

    data: Path

    def photographs(self, name: str, first: int = 0) -> ImageList:
        """See `Datasets`; in the order of the names, for SfM-120k in that of its training part."""
        folder = self.data / name
        if dataset_of(name).kind == "sfm120k":
            files = read_sfm120k(folder / "retrieval-SfM-120k.pkl", folder / "ims").images
            return _first(ImageList(list(files), str(folder / "ims"), {}), first)
        if dataset_of(name).kind == "revisited":
            return _first(self.task(name, False).database, first)
        return _first(find_images([folder / ("train" if dataset_of(name).kind == "landmarks" else "jpg")]), first)

    def task(self, name: str, recognition: bool) -> RetrievalTask:
        """See `Datasets`."""
        folder = self.data / name
        if recognition:
            return few_landmarks(read_labels(folder / "train_clean.csv"), folder / "train")
        return revisited_task(read_ground_truth(folder / f"gnd_{name}.pkl"), find_images([folder / "jpg"]))


@dataclass(frozen=True)
class Rehearsed:
    """One folder of photographs with a ground truth in the place of every dataset."""

    photos: Path
    ground_truth: Path

    def photographs(self, name: str, first: int = 0) -> ImageList:
        """See `Datasets`."""
        return _first(find_images([self.photos]), first)

    def task(self, name: str, recognition: bool) -> RetrievalTask:
        """See `Datasets`; the label of an image is the query that should find it."""
        task = revisited_task(read_ground_truth(self.ground_truth), find_images([self.photos]))
        return labelled_task(task) if recognition else task


def _first(images: ImageList, first: int) -> ImageList:
    return ImageList(images.images[:first], images.root, {}) if first else images


def revisited_task(ground_truth: GroundTruth, found: ImageList) -> RetrievalTask:
    """A ground truth and the photographs it is about; NotFoundError where some are not there.

    The database is exactly the images of the ground truth, whatever else lies in the folder.
    """
    files = {image.name: image for image in found.images}
    resolved = resolve(ground_truth, files).ground_truth
    asked = match_names([query.name for query in resolved.queries], files)
    if missing := [query.name for query in resolved.queries if query.name not in asked]:
        raise NotFoundError(
            f"{shown(found.root)}: {len(missing)} photographs of queries are missing, such as {missing[0]!r}; add them"
        )
    queries = tuple(Query(one.name, files[asked[one.name]].path, one.box) for one in resolved.queries)
    wanted = set(resolved.images)
    database = [image for image in found.images if image.name in wanted]
    return RetrievalTask(ImageList(database, found.root, {}), queries, resolved)


def labelled_task(task: RetrievalTask) -> RetrievalTask:
    """A task of labels made of one of images: each query is a label, which the images it finds bear.

    An image that several queries find bears the label of the first; it is right for all of them.
    """
    ground_truth = task.ground_truth or GroundTruth((), ())
    labels: dict[str, str] = {}
    for query in ground_truth.queries:
        for name in sorted((query.easy | query.hard) - {query.name}):
            labels.setdefault(name, query.name)
    told = set(labels.values())
    images = [image for image in task.database.images if image.name in labels]
    asked = tuple(query for query in task.queries if query.name in told)
    found = {query.name: query.easy | query.hard for query in ground_truth.queries}
    answers = {
        query.name: frozenset([query.name, *(labels[name] for name in found[query.name] if name in labels)])
        for query in asked
    }
    return RetrievalTask(ImageList(images, task.database.root, {}), asked, None, labels, answers)


def few_landmarks(labels: Mapping[str, str], root: Path) -> RetrievalTask:
    """A small recognition task out of Google Landmarks v2, in the style of Tiny-GLD2, which was not released.

    The first 50 landmarks, by number, of 220 images or more; 200 of each are the database, 20 more are asked for.
    Source of the sizes: Tolias et al., ECCV 2020, section 5.1: 50 landmarks, 1000 queries, some 10 000 images.

    labels  image → landmark, in the order of the published list
    """
    members: dict[str, list[str]] = {}
    for image, label in labels.items():
        members.setdefault(label, []).append(image)
    each = DATABASE_OF_LANDMARK + QUERIES_OF_LANDMARK
    chosen = sorted((label for label, images in members.items() if len(images) >= each), key=_by_number)[:LANDMARKS]
    if not chosen:
        raise NotFoundError(f"{shown(root)}: no landmark has {each} images; give the whole train_clean.csv")
    database = {image: label for label in chosen for image in members[label][:DATABASE_OF_LANDMARK]}
    asked = {image: label for label in chosen for image in members[label][DATABASE_OF_LANDMARK:each]}
    files = {image: _landmark_file(image, root) for image in [*database, *asked]}
    _check_files(files.values())
    queries = tuple(Query(image, files[image].path, None) for image in asked)
    named = {files[image].name: label for image, label in database.items()}
    return RetrievalTask(
        ImageList([files[image] for image in database], str(root), {}),
        queries,
        None,
        named,
        {image: frozenset([label]) for image, label in asked.items()},
    )


def _by_number(label: str) -> tuple[int, str]:
    return (int(label), label) if label.isdecimal() else (-1, label)


def _landmark_file(image: str, root: Path) -> ImageFile:
    """Three folders by the first three characters of the id, as the archives have it."""
    name = f"{image[:1]}/{image[1:2]}/{image[2:3]}/{image}.jpg"
    return ImageFile(name, root / name)


def _check_files(files: Iterable[ImageFile]) -> None:
    missing = [file.path for file in files if not file.path.is_file()]
    if missing:
        raise NotFoundError(f"{len(missing)} photographs are missing, such as {shown(missing[0])}; unpack all archives")
