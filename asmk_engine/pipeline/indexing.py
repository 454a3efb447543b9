"""From images or features to an index: extracted, encoded, added, in one call that resumes and reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.extraction.run import ExtractionSummary
from asmk_engine.features import FeatureSet
from asmk_engine.flat import GlobalIndex
from asmk_engine.fused.index import FusedIndex
from asmk_engine.images.listing import PathLike
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.indexes.creation import check_vacant
from asmk_engine.indexes.manifest import FUSED_KIND, KIND, NAMES, read_manifest
from asmk_engine.inverted.batch import postings_within
from asmk_engine.inverted.geometry_file import ALL_FEATURES, features_kept
from asmk_engine.inverted.index import SEGMENT_POSTINGS, Index, check_fits
from asmk_engine.iteration import Display, Silent
from asmk_engine.pipeline.codebook_training import (
    CodebookOptions,
    fitted_codebook,
    opened_codebook,
    shipped_codebook,
    train_codebook,
)
from asmk_engine.pipeline.extraction import IntakeOptions
from asmk_engine.pipeline.extractor_choice import ExtractionOptions, network_of
from asmk_engine.pipeline.failures import Failures
from asmk_engine.pipeline.fused_indexing import FusedJob, index_fused, several_kinds
from asmk_engine.pipeline.global_indexing import GlobalIndexOptions, add_global, concatenated
from asmk_engine.pipeline.preparation import (
    AnyIndex,
    Inputs,
    LocalIndex,
    Prepared,
    features_beside,
    prepare,
    prepare_set,
)
from asmk_engine.pipeline.regions import Regions
from asmk_engine.pipeline.reports import Reporter
from asmk_engine.pipeline.wording import parse_size, plural
from asmk_engine.regions.boxes import ImageBoxes
from asmk_engine.regions.options import RegionOptions
from asmk_engine.search.opening import open_any
from asmk_engine.sharding.index import ShardedIndex
from asmk_engine.sharding.manifest import is_sharded
from asmk_engine.storage.folder import Folder


@dataclass(frozen=True)
class IndexingReport:
    """What a run of `index_images` did, and what it could not do.

    index             the index, at the commit of this run
    features          the features of the images of this run; of several kinds, those of the first
    addition          its images by what became of them in the index, in numbers and names
    extraction        its images by what became of them in the feature set; None if the input was one
    removed           names of indexed images whose files are gone, which were removed
    without_features  names of images in which nothing was found, and which no query can find
    incomplete        names of images that are kept without some of several kinds of features, with the reasons
    remarks           what may be unexpected, one line each: options without effect, a missing network, broken links
    failures          what has to be acted upon, such as images left out because their names are in use;
                      `failures.reasons` lists it, `failures.check()` raises it
    """

    index: AnyIndex
    features: FeatureSet
    addition: AddSummary
    extraction: ExtractionSummary | None = None
    removed: tuple[str, ...] = ()
    without_features: tuple[str, ...] = ()
    incomplete: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    failures: Failures = field(default_factory=Failures)

    @property
    def skipped(self) -> dict[str, str]:
        """The names of images that could not be read, with the reasons."""
        return {} if self.extraction is None else self.extraction.failed


@dataclass(frozen=True)
class _Job:
    """The arguments of one call of `index_images`; `room` is its memory limit in bytes."""

    output: Path
    intake: IntakeOptions
    extraction: ExtractionOptions
    training: CodebookOptions
    smaller: GlobalIndexOptions
    codebook: Codebook | PathLike | None
    room: int | None
    reporter: Reporter
    trains: bool
    kind_weights: Sequence[float] | None = None
    geometry: int | None = None
    regions: Regions = field(default_factory=Regions)


def index_images(
    images: PathLike | FeatureSet | Iterable[PathLike | FeatureSet],
    index: PathLike,
    *,
    intake: IntakeOptions | None = None, extraction: ExtractionOptions | None = None,
    training: CodebookOptions | None = None, smaller: GlobalIndexOptions | None = None,
    codebook: Codebook | PathLike | None = None, features: PathLike | None = None, memory: int | str | None = None,
    kind_weights: Sequence[float] | None = None, geometry: int | str | None = None,
    regions: RegionOptions | None = None, boxes: ImageBoxes | PathLike | None = None, display: Display | None = None,
) -> IndexingReport:  # fmt: skip
    """Add images to the index at `index`, which is created if it is missing; `index_folder` is the short form.

    Another run adds what is new; one that was interrupted resumes.

    Parameters
    ----------
    images : path-like or FeatureSet, or iterable of them
        Folders, image files and lists of images; or one feature set, or several to be concatenated.
    index : path-like
        Folder of the index.
    intake : IntakeOptions, optional
        Which images are taken, and which replace others.
    extraction : ExtractionOptions, optional
        How images are described; by default as those of the index or the codebook. Several extractors, separated by
        commas, make an index of several kinds of features.
    training : CodebookOptions, optional
        How a codebook is trained, instead of taking the words that come with the package for the default extractor;
        a remark says so if there is a codebook already.
    smaller : GlobalIndexOptions, optional
        How global descriptors are stored in a new index.
    codebook : Codebook or path-like, optional
        Codebook of a new index of local features.
    features : path-like, optional
        Feature set in which the features of the images are kept; by default next to the index. Those of several kinds
        are in sets of their own, photos.rootsift.features for photos.features.
    memory : int or str, optional
        Memory limit of indexing in bytes, or a text such as ``"4G"``.
    kind_weights : sequence of float, optional
        Weights of the kinds of features in the fused score, in the order of the extractors, or of the index; by
        default equal in a new index, but half for RootSIFT beside a network.
    geometry : int or "all", optional
        Keep the geometry of the strongest features of each image, so many or all, as `Index.create`; by default as the
        index does. An index that keeps another number changes only together with ``existing="replace"``.
    regions, boxes : RegionOptions, ImageBoxes or path-like, optional
        Describe images by their regions, by default as the index does; the regions if they are given, see `read_boxes`.
    display : Display, optional
        Where messages and progress are shown; by default nowhere.

    Returns
    -------
    IndexingReport
        Images that could not be read are in `skipped`; locked folders and images left out because their names are in
        use are in `failures`. Neither is raised.

    Raises
    ------
    AsmkError
        For what stops the run: no images, none that can be read, options that do not fit, a full disk.
    """
    job = _Job(
        Path(index), intake or IntakeOptions(), extraction or ExtractionOptions(), training or CodebookOptions(),
        smaller or GlobalIndexOptions(), codebook, parse_size(memory) if isinstance(memory, str) else memory,
        Reporter(display or Silent()), training is not None or (extraction is not None and extraction.train),
        kind_weights, features_kept(geometry), Regions.of(regions, boxes),
    )  # fmt: skip
    inputs: Inputs = [images] if isinstance(images, PathLike | FeatureSet) else list(images)
    kept = None if features is None else Path(features)
    if (fused := _fused_target(job)) is not None or several_kinds(job.extraction.name):
        return _index_several(job, inputs, kept, fused, is_trained=training is not None)
    return _index_one(job, inputs, kept, is_trained=training is not None)


def _index_one(job: _Job, inputs: Inputs, features: Path | None, *, is_trained: bool) -> IndexingReport:
    """Do `index_images` for one kind of features."""
    if job.kind_weights is not None:
        raise InputError("weights were given for one kind of features; leave them out, or give several extractors")
    target, book = _existing(job.output, job.codebook)
    _check_geometry(job, target)
    job.regions.check(job.output, target)
    if book is not None and is_trained:
        job.reporter.remark("the codebook exists already: --words and the other training options are ignored")
    if book is not None:
        _segment_postings(job.room, book)  # report a memory limit that is too low before any work
    prepared = _prepared(job, inputs, features, target, book)
    changes: dict[str, Any] = {"existing": job.intake.existing, "remove": prepared.removed}
    if isinstance(target, GlobalIndex) or (target is None and prepared.features.recipe.is_global):
        return _reported(job, prepared, *_add_global(job, prepared.features, target, changes))
    return _reported(job, prepared, *_add_local(job, prepared.features, target, book, changes))


def _fused_target(job: _Job) -> FusedIndex | None:
    """Return the index at the output if it is one of several kinds; InputError if one of one kind shall get several."""
    if not any((job.output / name).exists() for name in NAMES) or is_sharded(job.output):
        return None
    if read_manifest(Folder(job.output)).kind == FUSED_KIND:
        return FusedIndex.open(job.output)
    if several_kinds(job.extraction.name):
        raise MismatchError(f"{job.output}: has one kind of features, not {job.extraction.name}; create another index")
    return None


def _index_several(
    job: _Job, inputs: Inputs, features: Path | None, target: FusedIndex | None, *, is_trained: bool
) -> IndexingReport:
    """Do `index_images` for several kinds of features."""
    _check_geometry(job, target)
    job.regions.refuse(job.output, "an index of several kinds of features")
    if target is None:
        check_vacant(Folder(job.output))
    elif is_trained or job.codebook is not None:
        job.reporter.remark("the codebooks exist already: --codebook and the training options are ignored")
    given = job.codebook
    book = given if given is None or isinstance(given, Codebook) else opened_codebook(given)
    done = index_fused(inputs, target, FusedJob(
        job.output, job.intake, job.extraction, job.training, job.smaller, book, job.kind_weights, features, job.room,
        job.reporter, job.trains, job.geometry,
    ))  # fmt: skip
    reporter = job.reporter
    reporter.report_found(done.extraction.found)
    reporter.left.note(done.addition)
    reporter.report_left()
    reporter.report_duplicates(done.addition)
    empty = sorted((name for name in done.extraction.names if not any(
        name in one and one.count(name) for one in done.features)), key=str.encode)  # fmt: skip
    reporter.report_without_features(empty, job.output)
    return IndexingReport(
        done.index, done.features[0], done.addition, done.extraction, tuple(done.removed), tuple(empty),
        done.incomplete, tuple(reporter.remarks), reporter.failures,
    )  # fmt: skip


def _prepared(
    job: _Job, inputs: Inputs, features: Path | None, target: LocalIndex | GlobalIndex | None, book: Codebook | None
) -> Prepared:
    if job.smaller.concatenate:
        place = features or features_beside(job.output)
        whole = concatenated(inputs, place, job.smaller, job.reporter.display)
        return prepare_set(whole, target, job.intake, job.reporter)
    return prepare(inputs, job.output, features, target, book, job.intake, job.extraction, job.reporter)


def _add_global(
    job: _Job, features: FeatureSet, target: GlobalIndex | None, changes: dict[str, Any]
) -> tuple[GlobalIndex, AddSummary]:
    if job.geometry is not None:
        raise InputError(f"{features.path}: global descriptors have no geometry; leave --geometry out")
    job.regions.refuse(job.output, "an index of global descriptors")
    network = network_of(features, job.extraction.weights, job.reporter.remark) if target is None else None
    return add_global(
        features, target, job.output, job.smaller, job.reporter,
        codebook=job.codebook, network=network, seed=job.training.seed, memory=job.room, **changes,
    )  # fmt: skip


def _add_local(
    job: _Job, features: FeatureSet, target: LocalIndex | None, book: Codebook | None, changes: dict[str, Any]
) -> tuple[LocalIndex, AddSummary]:
    """Add local features to the index, which is created, with its codebook, if missing, and report the counts."""
    job.smaller.refuse(features)
    display = job.reporter.display
    book = book and fitted_codebook(book, job.codebook, features.recipe)
    book = book or shipped_codebook(features, display, trains=job.trains)
    book = book or train_codebook(features, job.training, display, job.extraction.machines)
    if target is None:
        check_fits(features, book, job.output)
        network = network_of(features, job.extraction.weights, job.reporter.remark)
        target = Index.create(job.output, book, network, job.geometry, job.regions.options)
    if job.geometry is not None:
        target.keep_geometry(job.geometry)
    room, machines = _segment_postings(job.room, book), job.extraction.machines
    with job.reporter.display.bar("index", "images") as on_image:
        summary = target.add(
            features, segment_postings=room, on_image=on_image, boxes=job.regions.boxes,
            builder=None if machines is None else machines.builder, **changes,
        )  # fmt: skip
    job.regions.report(features.names, job.reporter)
    counts = f"{plural(target.images, 'image')}, {plural(target.postings, 'posting')}"
    job.reporter.say(f"{target.path}: {counts}: {job.reporter.counts(summary)}")
    return target, summary


def _reported(job: _Job, prepared: Prepared, target: LocalIndex | GlobalIndex, summary: AddSummary) -> IndexingReport:
    """Report what was left out, duplicate or empty."""
    reporter, features = job.reporter, prepared.features
    if prepared.extraction is not None:
        reporter.report_found(prepared.extraction.found)
    reporter.left.note(summary)
    reporter.report_left()
    reporter.report_duplicates(summary)
    empty = [name for name in features.names if features.count(name) == 0]
    reporter.report_without_features(empty, job.output)
    return IndexingReport(
        target, features, summary, prepared.extraction, tuple(prepared.removed), tuple(empty), {},
        tuple(reporter.remarks), reporter.failures,
    )  # fmt: skip


def _check_geometry(job: _Job, target: AnyIndex | None) -> None:
    """Raise InputError if the index at the output keeps other geometry than asked for, before any work."""
    if job.geometry is None or target is None:
        return
    if isinstance(target, GlobalIndex):
        raise InputError(f"{job.output}: global descriptors have no geometry; leave --geometry out")
    if target.geometry != job.geometry and job.intake.existing != "replace":
        kept = {None: "no geometry", ALL_FEATURES: "that of all features"}
        found = kept.get(target.geometry, f"that of {target.geometry} features")
        raise InputError(
            f"{job.output}: keeps {found} of an image; add --replace to index its images again with --geometry, or "
            "leave --geometry out"
        )


def _segment_postings(memory: int | None, book: Codebook) -> int:
    """Return the number of postings of a segment under a memory limit."""
    return SEGMENT_POSTINGS if memory is None else postings_within(memory, book)


def _existing(
    output: Path, codebook: Codebook | PathLike | None
) -> tuple[LocalIndex | GlobalIndex | None, Codebook | None]:
    """Return the index at `output`, if there is one, and the codebook, if it is known; checked before any work."""
    given = codebook if codebook is None or isinstance(codebook, Codebook) else opened_codebook(codebook)
    if not any((output / name).exists() for name in NAMES):
        check_vacant(Folder(output))
        return None, given
    target = open_any(output)
    if isinstance(target, FusedIndex):  # which `_fused_target` found: it is indexed another way
        return None, given
    if isinstance(target, GlobalIndex):
        return target, given
    if isinstance(target, ShardedIndex) and target.kind != KIND:
        raise InputError(
            f"{output}: only shards of one kind of local features can be extended from images; add to the index that "
            "they were made from, and shard it again, or use ShardedIndex.add"
        )
    given = given and fitted_codebook(given, codebook, target.recipe)
    if given and given.fingerprint != target.codebook.fingerprint:
        name = "the given one" if isinstance(codebook, Codebook) else codebook
        raise MismatchError(
            f"{output}: its codebook ({target.codebook}) differs from {name} ({given}); "
            "leave --codebook out, or create another index"
        )
    return target, target.codebook
