"""The datasets that an experiment names: the published ones, or one small set of images in place of all (rehearsal).

A task is what a test searches: the database, the queries with their regions, and the ground truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from asmk_engine.errors import NotFoundError
from asmk_engine.evaluation.ground_truth import GroundTruth, read_ground_truth
from asmk_engine.evaluation.landmarks import Recognition, read_labels, read_recognition
from asmk_engine.evaluation.names import match_names, resolve
from asmk_engine.images.boxes import Box
from asmk_engine.images.listing import ImageFile, ImageList, find_images, shown
from asmk_engine.reproduction.files import dataset_of, is_recognition
from asmk_engine.training.sfm120k import image_place, read_sfm120k

LANDMARKS = 50
DATABASE_OF_LANDMARK = 200
QUERIES_OF_LANDMARK = 20


@dataclass(frozen=True)
class Query:
    """A query image: its name in the ground truth, its file, and its region (None for the whole image)."""

    name: str
    path: Path
    box: Box | None


@dataclass(frozen=True)
class RetrievalTask:
    """What a test searches.

    database      images of the index
    queries       query images
    ground_truth  what each query should find; None for a recognition task
    labels        database image → label, for a recognition task
    answers       query → its correct labels, for a recognition task
    """

    database: ImageList
    queries: tuple[Query, ...]
    ground_truth: GroundTruth | None = None
    labels: Mapping[str, str] | None = None
    answers: Mapping[str, frozenset[str]] | None = None


class Datasets(Protocol):
    """Access to the images and tasks of datasets by name."""

    def photographs(self, name: str, first: int = 0) -> ImageList:
        """Return the first `first` images of a dataset, or all of them for 0."""
        ...

    def task(self, name: str, recognition: bool) -> RetrievalTask:
        """Return the task of a dataset: recognition of labels, or retrieval of images."""
        ...


@dataclass(frozen=True)
class Published:
    """The published datasets in subfolders of `data`, see `files`."""

    data: Path

    def photographs(self, name: str, first: int = 0) -> ImageList:
        """See `Datasets`; sorted by name, but SfM-120k in the order of its training part."""
        folder = self.data / name
        if dataset_of(name).kind == "sfm120k":
            files = read_sfm120k(folder / "retrieval-SfM-120k.pkl", folder / "ims").images
            return _first(ImageList(list(files), str(folder / "ims"), {}), first)
        if dataset_of(name).kind in ("revisited", "validation", "original", "retrieval"):
            return _first(self.task(name, False).database, first)
        return _first(find_images([folder / ("train" if is_recognition(name) else "jpg")], every_file=True), first)

    def task(self, name: str, recognition: bool) -> RetrievalTask:
        """See `Datasets`."""
        folder, kind = self.data / name, dataset_of(name).kind
        if kind == "recognition":
            solution = read_recognition(folder / "recognition_solution_v2.1.csv")
            return all_landmarks(read_labels(folder / "train.csv"), solution, folder)
        if recognition:
            return few_landmarks(read_labels(folder / "train_clean.csv"), folder / "train")
        if kind == "validation":
            ground_truth = read_ground_truth(folder / "retrieval-SfM-120k-val-eccv2020.pkl")
            return revisited_task(ground_truth, _sfm_images(ground_truth, folder / "ims"))
        if kind == "original":
            return original_task(read_ground_truth(folder / "gt"), find_images([folder / "jpg"], every_file=True))
        if kind == "retrieval":
            wanted = read_ground_truth(folder / "retrieval_solution_v2.1.csv")
            return landmark_retrieval(wanted, find_images([folder / "index"], every_file=True), folder / "test")
        return revisited_task(
            read_ground_truth(folder / f"gnd_{name}.pkl"), find_images([folder / "jpg"], every_file=True)
        )


@dataclass(frozen=True)
class Rehearsed:
    """One folder of images with a ground truth, used in place of every dataset."""

    photos: Path
    ground_truth: Path

    def photographs(self, name: str, first: int = 0) -> ImageList:
        """See `Datasets`."""
        return _first(find_images([self.photos], every_file=True), first)

    def task(self, name: str, recognition: bool) -> RetrievalTask:
        """See `Datasets`; the label of an image is the name of the query that should find it."""
        task = revisited_task(read_ground_truth(self.ground_truth), find_images([self.photos], every_file=True))
        return labelled_task(task) if recognition else task


def _sfm_images(ground_truth: GroundTruth, root: Path) -> ImageList:
    """Return the images of a ground truth over SfM-120k, whose files have no suffix that a listing would find."""
    files = [ImageFile(name, root / image_place(name)) for name in ground_truth.images]
    _check_files(files)
    return ImageList(files, str(root), {})


def _first(images: ImageList, first: int) -> ImageList:
    return ImageList(images.images[:first], images.root, {}) if first else images


def revisited_task(ground_truth: GroundTruth, found: ImageList) -> RetrievalTask:
    """Return the retrieval task of a ground truth and its images; raises NotFoundError if images are missing.

    The database holds exactly the images of the ground truth; other images of the folder are ignored.
    """
    files = {image.name: image for image in found.images}
    resolved = resolve(ground_truth, files).ground_truth
    matched = match_names([query.name for query in resolved.queries], files)
    if missing := [query.name for query in resolved.queries if query.name not in matched]:
        raise NotFoundError(
            f"{shown(found.root)}: {len(missing)} photographs of queries are missing, such as {missing[0]!r}; add them"
        )
    queries = tuple(Query(one.name, files[matched[one.name]].path, one.box) for one in resolved.queries)
    wanted = set(resolved.images)
    database = [image for image in found.images if image.name in wanted]
    return RetrievalTask(ImageList(database, found.root, {}), queries, resolved)


def original_task(ground_truth: GroundTruth, found: ImageList) -> RetrievalTask:
    """Return the retrieval task of a ground truth whose database is every image found, its queries among them.

    raises  NotFoundError if images are missing
    """
    return replace(revisited_task(ground_truth, found), database=found)


def landmark_retrieval(solution: GroundTruth, found: ImageList, root: Path) -> RetrievalTask:
    """Return the retrieval task of Google Landmarks v2: the private test images, among all images of its index.

    Source: Lee et al., CVPR 2022, section 5.2: 750 queries, 762 thousand images.

    solution  the retrieval solution, which has a private part
    found     the images of the index
    root      folder of the test images
    raises    NotFoundError without a private part, and for missing photographs
    """
    private = tuple(query for query in solution.queries if query.part == "private")
    if not private:
        raise NotFoundError(f"{shown(root)}: the retrieval solution has no private images; give the published file")
    files = {query.name: _landmark_file(query.name, root) for query in private}
    _check_files(files.values())
    named = sorted(frozenset[str]().union(*(query.easy for query in private)))
    truth = resolve(replace(solution, images=tuple(named), queries=private), (one.name for one in found.images))
    queries = tuple(Query(name, file.path, None) for name, file in files.items())
    return RetrievalTask(found, queries, truth.ground_truth)


def labelled_task(task: RetrievalTask) -> RetrievalTask:
    """Turn a retrieval task into a recognition task: the images that a query should find get its name as their label.

    An image that several queries should find gets the label of the first; that label is correct for all of them.
    """
    ground_truth = task.ground_truth or GroundTruth((), ())
    labels: dict[str, str] = {}
    for query in ground_truth.queries:
        for name in sorted((query.easy | query.hard) - {query.name}):
            labels.setdefault(name, query.name)
    used = set(labels.values())
    images = [image for image in task.database.images if image.name in labels]
    queries = tuple(query for query in task.queries if query.name in used)
    found = {query.name: query.easy | query.hard for query in ground_truth.queries}
    answers = {
        query.name: frozenset([query.name, *(labels[name] for name in found[query.name] if name in labels)])
        for query in queries
    }
    return RetrievalTask(ImageList(images, task.database.root, {}), queries, None, labels, answers)


def few_landmarks(labels: Mapping[str, str], root: Path) -> RetrievalTask:
    """Return a small recognition task from Google Landmarks v2, like Tiny-GLD2, which was not released.

    Takes the first 50 landmarks, by number, with at least 220 images; of each, 200 are the database and 20 the queries.
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
    queried = {image: label for label in chosen for image in members[label][DATABASE_OF_LANDMARK:each]}
    files = {image: _landmark_file(image, root) for image in [*database, *queried]}
    _check_files(files.values())
    queries = tuple(Query(image, files[image].path, None) for image in queried)
    named = {files[image].name: label for image, label in database.items()}
    return RetrievalTask(
        ImageList([files[image] for image in database], str(root), {}),
        queries,
        None,
        named,
        {image: frozenset([label]) for image, label in queried.items()},
    )


def all_landmarks(labels: Mapping[str, str], solution: Recognition, root: Path) -> RetrievalTask:
    """Return the recognition task of Google Landmarks v2: the private test images, among all training images.

    Source: Tolias et al., ECCV 2020, section 5.1: 4 132 914 images with a label, 76 627 private queries.

    labels    training image → landmark
    solution  the recognition solution, which has a private part
    root      folder with `train` and `test`
    raises    NotFoundError without a private part, and for missing photographs
    """
    if "private" not in solution.parts:
        raise NotFoundError(f"{shown(root)}: the recognition solution has no private images; give the published file")
    answers = solution.parts["private"]
    database = [_landmark_file(image, root / "train") for image in labels]
    queries = tuple(Query(image, _landmark_file(image, root / "test").path, None) for image in answers)
    _check_files([*database, *(ImageFile(query.name, query.path) for query in queries)])
    named = {file.name: label for file, label in zip(database, labels.values(), strict=True)}
    return RetrievalTask(ImageList(database, str(root / "train"), {}), queries, None, named, answers)


def _by_number(label: str) -> tuple[int, str]:
    return (int(label), label) if label.isdecimal() else (-1, label)


def _landmark_file(image: str, root: Path) -> ImageFile:
    """Return the file of an image: as in the archives, in three folders named by the first characters of its id."""
    name = f"{image[:1]}/{image[1:2]}/{image[2:3]}/{image}.jpg"
    return ImageFile(name, root / name)


def _check_files(files: Iterable[ImageFile]) -> None:
    missing = [file.path for file in files if not file.path.is_file()]
    if missing:
        raise NotFoundError(f"{len(missing)} photographs are missing, such as {shown(missing[0])}; unpack all archives")
