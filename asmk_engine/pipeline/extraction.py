"""From images to a feature set: the extractor is chosen, its network completed, new and changed images described."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asmk_engine.errors import InputError, StorageError
from asmk_engine.extraction.intake import Held
from asmk_engine.extraction.run import ExtractionSummary, extract_images
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.features.network_place import keeping, network_beside
from asmk_engine.images.listing import ImageList, PathLike
from asmk_engine.images.objects import find_anywhere
from asmk_engine.iteration import Display, Silent
from asmk_engine.pipeline.extractor_choice import ExtractionOptions, choose_extractor
from asmk_engine.pipeline.failures import Failures
from asmk_engine.pipeline.reports import Reporter
from asmk_engine.recipes import Recipe

Existing = Literal["skip", "update", "replace"]


def existing(update: bool, replace: bool = False) -> Existing:
    """Return what is meant by the two options; `replace` includes `update`."""
    return "replace" if replace else "update" if update else "skip"


@dataclass(frozen=True)
class IntakeOptions:
    """Which images a run takes, and what it does with those that are there already.

    prefix     what the names of these images begin with
    all_files  also include files without an image extension whose first bytes are those of an image
    existing   whether an image replaces another of its name: never, if its content differs, or (in an index) always
    prune      remove images whose files are gone from the given folders
    yes        let `prune` remove more than half of the images, and images of folders that are now empty
    """

    prefix: str = ""
    all_files: bool = False
    existing: Existing = "skip"
    prune: bool = False
    yes: bool = False

    @property
    def updates(self) -> bool:
        """Whether images replace others of their names."""
        return self.existing != "skip"


@dataclass(frozen=True)
class ExtractionReport:
    """What a run of `extract_features` did, and what it could not do.

    features    the feature set, with all of its images
    extraction  the images of this run by what became of them
    remarks     what may be unexpected, one line each
    failures    what has to be acted upon; `failures.reasons` lists it, `failures.check()` raises it
    """

    features: FeatureSet
    extraction: ExtractionSummary
    remarks: tuple[str, ...] = ()
    failures: Failures = field(default_factory=Failures)

    @property
    def skipped(self) -> dict[str, str]:
        """The names of images that could not be read, with the reasons."""
        return self.extraction.failed


def extract_features(
    images: PathLike | Iterable[PathLike],
    features: PathLike,
    *,
    intake: IntakeOptions | None = None,
    extraction: ExtractionOptions | None = None,
    display: Display | None = None,
) -> ExtractionReport:
    """Extract the features of images into the feature set at `features`, which is created or extended.

    This is all that `asmk-engine extract` does; another run extracts only new and changed images.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Folders, image files, and text files that list images; or URLs of object storage, such as s3://bucket/photos.
    features : path-like
        Folder of the feature set.
    intake : IntakeOptions, optional
        Which images are taken.
    extraction : ExtractionOptions, optional
        How they are described; by default as those of the feature set, if there is one.
    display : Display, optional
        Where messages and progress are shown; by default nowhere.

    Returns
    -------
    ExtractionReport
        Images that could not be read are in `skipped`; locked folders and images whose names are in use are in
        `failures`. Neither is raised.

    Raises
    ------
    AsmkError
        For what stops the run: no images, none that can be read, options that do not fit, a full disk.
    """
    intake, extraction = intake or IntakeOptions(), extraction or ExtractionOptions()
    reporter, output = Reporter(display or Silent()), Path(features)
    found = find_anywhere(images, prefix=intake.prefix, every_file=intake.all_files)
    check_prunable(found, intake)
    prune = intake.prune
    if prune and is_feature_set(output):
        known = FeatureSet.open(output)
        origins = [(name, known.root(name)) for name in known.names]
        prune = reporter.allowed_removal(origins, found, yes=intake.yes) is not None
    summary = run_extraction(found, output, intake, extraction, reporter.display, prune=prune)
    reporter.report_removal(summary.forgotten)
    reporter.left.note(summary.intake)
    reporter.report_extraction(summary, output)
    reporter.report_found(found)
    reporter.report_left()
    return ExtractionReport(FeatureSet.open(output), summary, tuple(reporter.remarks), reporter.failures)


def run_extraction(
    found: ImageList,
    output: Path,
    intake: IntakeOptions,
    extraction: ExtractionOptions,
    display: Display,
    *,
    prune: bool,
    held: Held | None = None,
    recipe: Recipe | None = None,
    network: Path | None = None,
    allow_none: bool = False,
) -> ExtractionSummary:
    """Extract features and show the progress.

    prune            whether images that are gone are to be removed: `intake.prune`, unless they are too many
    held             as for `extract_images`
    recipe, network  used if no extractor and no option is given; by default those of the existing set
    allow_none       as for `extract_images`
    """
    known = FeatureSet.open(output).recipe if is_feature_set(output) else None
    if recipe is None and known is not None:
        recipe, network = known, network_beside(output)
    with keeping(network_beside(output), known.weights if known else None):
        chosen = choose_extractor(found.images, output, extraction, display, recipe=recipe, network=network)
    with display.bar("extract", "images") as progress:
        return extract_images(
            chosen, found, output, workers=extraction.workers, strict=extraction.strict, prune=prune,
            trusting=intake.yes, update=intake.updates, held=held, allow_none=allow_none, progress=progress,
            pool=None if extraction.machines is None else extraction.machines.image_pool,
        )  # fmt: skip


def check_prunable(found: ImageList, intake: IntakeOptions) -> None:
    """Raise InputError if images that are gone shall be removed, and the others are in object storage."""
    if intake.prune and any(image.stored is not None for image in found.images):
        raise InputError(
            "--prune was given with URLs, but only a file of a folder is provably gone; leave it out, and remove "
            "images by name with `asmk-engine delete`"
        )


def is_feature_set(path: PathLike) -> bool:
    """Return whether a path is a folder of feature parts."""
    try:
        return os.path.isdir(path) and bool(part_names(Path(path)))
    except StorageError:  # an unreadable folder is reported by the search for images in it
        return False
