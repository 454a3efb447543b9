"""`index_folder` and `extract_folder`: the whole way in one call that returns the result, warns, and raises."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkWarning, InputError
from asmk_engine.escape import list_first
from asmk_engine.features import FeatureSet
from asmk_engine.images.listing import PathLike
from asmk_engine.pipeline.codebook_training import CodebookOptions
from asmk_engine.pipeline.display import StageProgress, display_of
from asmk_engine.pipeline.extraction import ExtractionReport, IntakeOptions, existing, extract_features
from asmk_engine.pipeline.extractor_choice import AUTO, ExtractionOptions
from asmk_engine.pipeline.global_indexing import GlobalIndexOptions
from asmk_engine.pipeline.indexing import IndexingReport, index_images
from asmk_engine.pipeline.preparation import AnyIndex, sets_among
from asmk_engine.pipeline.wording import plural
from asmk_engine.regions.boxes import ImageBoxes
from asmk_engine.regions.options import RegionOptions

NAMED = 3
Numbers = Sequence[float] | None
Count = int | str | None


def index_folder(
    images: PathLike | FeatureSet | Iterable[PathLike | FeatureSet], index: PathLike, *, extractor: str = AUTO,
    weights: PathLike | None = None, max_features: int | None = None, max_side: int | None = None,
    scales: Numbers = None, device: str | None = None, workers: int | None = None, strict: bool = False,
    train: bool = False, words: int | str = "auto", seed: int = 0, rounds: int = 10, whitening: str = "auto",
    backend: str = "auto", assignment: str = "auto", codebook: Codebook | PathLike | None = None,
    features: PathLike | None = None, prefix: str = "", all_files: bool = False, update: bool = False,
    replace: bool = False, prune: bool = False, yes: bool = False, memory: int | str | None = None,
    pca: int | None = None, whiten: bool = False, pq: int | None = None, half: bool = False,
    train_on: PathLike | FeatureSet | None = None, concatenate: bool = False, part_weights: Numbers = None,
    kind_weights: Numbers = None, geometry: Count = None, regions: RegionOptions | None = None,
    boxes: ImageBoxes | PathLike | None = None, progress: StageProgress | bool | None = None, **options: Any,
) -> AnyIndex:  # fmt: skip
    """Create an index of photographs or add to one: extract, whiten, train a codebook, index, carry the network.

    Another call adds what is new; one that was interrupted resumes. Options are those of ``asmk-engine index``.

    Parameters
    ----------
    images : path-like or FeatureSet, or iterable of them
        Folders, image files, and text files that list images; or a feature set; or, with `concatenate`, several.
    index : path-like
        Folder of the index.
    extractor : str, default "auto"
        Such as ``"how-r18"``, or ``"gem-resnet50"`` for one global descriptor per image. ``"auto"`` is that of the
        index or codebook if there is one, else ``"how-efficientnet-lite0"``, or RootSIFT if its network is not
        installed. Several, separated by commas, make an index of several kinds of features, for `FusedSearcher`.
    weights, max_features, max_side, scales, device, workers, strict, **options
        Weights (a file), options and device of the extractor; worker processes; whether to stop at an unreadable image.
    train, words, seed, rounds, whitening, backend, assignment
        Whether to learn the whitening of the network and the codebook from these images, even if both come with the
        package; training of the codebook of a new index, see `Codebook.train`.
    codebook, features : path-like, optional
        Codebook of a new index, or the name of one that comes with the package, instead of a trained one; where the
        features of images are kept, by default ``photos.features`` next to ``photos.index``.
    prefix, all_files, update, replace, prune, yes
        Which images are taken, replaced and removed: `prefix` is put before their names, `all_files` includes images
        without an image extension, `update` replaces changed ones and others of the same name, `replace` all, `prune`
        removes those whose files are gone, if they are no more than half or `yes` is given.
    memory : int or str, optional
        Memory limit of indexing, in bytes or as a text such as ``"4G"``.
    pca, whiten, pq, half, train_on, concatenate, part_weights, kind_weights, geometry, regions, boxes
        Storage of global descriptors; weights of several kinds; features with geometry, or ``"all"``; `index_images`.
    progress : bool or callable, optional
        True shows bars and messages on standard error; a callable receives the stage (such as ``"extract"``), how many
        of its units are done, and how many there are. If it raises, the run ends, and the next call resumes it.

    Returns
    -------
    Index, GlobalIndex or FusedIndex
        At the commit of this call. `AsmkWarning` names what was skipped or had no effect, unless `progress` is True.

    Raises
    ------
    InputError
        For contradicting arguments; and when all else is committed, for images left out because their names are in use
        or their files were replaced, and for locked folders. ``--update`` in messages is ``update=True``.
    """
    training = CodebookOptions(words, seed, rounds, whitening, backend, assignment)
    smaller = GlobalIndexOptions(pca, whiten, pq, half, train_on, concatenate, _tuple(part_weights))
    how = _extraction(extractor, weights, max_features, max_side, scales, device, workers, strict, train, options)
    given = [images] if isinstance(images, PathLike | FeatureSet) else images
    report = index_images(
        _checked(given, how, training, smaller), index, extraction=how, codebook=codebook, features=features,
        intake=IntakeOptions(prefix, all_files, existing(update, replace), prune, yes), smaller=smaller, memory=memory,
        training=None if training == CodebookOptions() else training, kind_weights=kind_weights, geometry=geometry,
        regions=regions, boxes=boxes, display=display_of(progress),
    )  # fmt: skip
    _tell(report, index, progress)
    return report.index


def extract_folder(
    images: PathLike | Iterable[PathLike], features: PathLike, *,
    extractor: str = AUTO, weights: PathLike | None = None, max_features: int | None = None,
    max_side: int | None = None, scales: Sequence[float] | None = None, device: str | None = None,
    workers: int | None = None, strict: bool = False, train: bool = False, prefix: str = "", all_files: bool = False,
    update: bool = False, prune: bool = False, yes: bool = False, progress: StageProgress | bool | None = None,
    **options: Any,
) -> FeatureSet:  # fmt: skip
    """Extract the features of photographs into a feature set.

    Another call extracts only new and changed photographs; one that was interrupted resumes. Options are those of
    ``asmk-engine extract``.

    Parameters
    ----------
    images : path-like or iterable of path-like
        Folders (with their subfolders), image files, and text files that list images.
    features : path-like
        Folder of the feature set, which is created or extended.
    extractor : str, default "auto"
        ``"auto"`` is that of the feature set if there is one, else as for `index_folder`.
    weights, max_features, max_side, scales, device, workers, strict, train
        As for `index_folder`.
    prefix, all_files, prune, yes, progress, **options
        As for `index_folder`.
    update : bool, default False
        Replace images by images of the same name from another folder.

    Returns
    -------
    FeatureSet
        With all of its images; its ``failures`` are those that could not be read. `AsmkWarning` names those of this
        call, unless `progress` is True.

    Raises
    ------
    InputError
        As for `index_folder`.
    MismatchError
        If the features in the set were made by another extractor or with other options.

    Examples
    --------
    >>> import asmk_engine
    >>> features = asmk_engine.extract_folder("photos/", "photos.features", max_features=2000)  # doctest: +SKIP
    """
    extraction = _extraction(
        extractor, weights, max_features, max_side, scales, device, workers, strict, train, options
    )
    intake = IntakeOptions(prefix, all_files, existing(update), prune, yes)
    report = extract_features(images, features, intake=intake, extraction=extraction, display=display_of(progress))
    _tell(report, features, progress)
    return report.features


def _extraction(
    extractor: str,
    weights: PathLike | None,
    max_features: int | None,
    max_side: int | None,
    scales: Sequence[float] | None,
    device: str | None,
    workers: int | None,
    strict: bool,
    train: bool,
    options: dict[str, Any],
) -> ExtractionOptions:
    others = {"max_features": max_features, "max_side": max_side, "scales": _tuple(scales), **options}
    return ExtractionOptions(
        extractor, None if weights is None else Path(weights), device, workers, strict, train, others
    )


def _tuple(numbers: Numbers) -> tuple[float, ...] | None:
    return None if numbers is None else tuple(numbers)


def _checked(
    images: Iterable[PathLike | FeatureSet],
    extraction: ExtractionOptions,
    training: CodebookOptions,
    smaller: GlobalIndexOptions,
) -> list[PathLike | FeatureSet]:
    """Return the inputs; raise InputError for arguments that contradict each other, before any work."""
    training.check()
    smaller.codec_options(training.seed)
    inputs = list(images)
    given = [*(["extractor"] if extraction.name else []), *extraction.given]
    if sets := sets_among(inputs) if given else []:
        where = sets[0].path if isinstance(sets[0], FeatureSet) else sets[0]
        raise InputError(
            f"{where}: {' and '.join(given)} given for a feature set, whose features are extracted already; leave "
            "that out, or give the images"
        )
    return inputs


def _tell(report: IndexingReport | ExtractionReport, output: PathLike, progress: object) -> None:
    """Warn of what a caller who sees no messages would not notice, and raise what has to be acted upon."""
    if report.skipped and progress is not True:
        reasons = [f"{name!r}: {reason}" for name, reason in list(report.skipped.items())[:NAMED]]
        listed = list_first(reasons, len(report.skipped), "; ")
        text = f"{output}: {plural(len(report.skipped), 'image')} could not be read and left out: {listed}"
        warnings.warn(text, AsmkWarning, stacklevel=3)
    incomplete = report.incomplete if isinstance(report, IndexingReport) and progress is not True else {}
    if incomplete:
        reasons = [f"{name!r}: {reason}" for name, reason in list(incomplete.items())[:NAMED]]
        listed = list_first(reasons, len(incomplete), "; ")
        text = f"{output}: {plural(len(incomplete), 'image')} kept without some kinds of features: {listed}"
        warnings.warn(text, AsmkWarning, stacklevel=3)
    for remark in report.remarks if progress is not True else ():
        warnings.warn(f"{output}: {remark}", AsmkWarning, stacklevel=3)
    report.failures.check()
