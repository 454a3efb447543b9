"""The features that a run adds to an index, from its inputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.extraction.intake import Held
from asmk_engine.extraction.run import ExtractionSummary
from asmk_engine.features import FeatureSet
from asmk_engine.flat import GlobalIndex
from asmk_engine.fused.index import FusedIndex
from asmk_engine.images.listing import ImageList, PathLike
from asmk_engine.images.objects import find_anywhere
from asmk_engine.inverted.index import Index
from asmk_engine.pipeline.extraction import IntakeOptions, check_prunable, is_feature_set, run_extraction
from asmk_engine.pipeline.extractor_choice import ExtractionOptions
from asmk_engine.pipeline.global_indexing import opened
from asmk_engine.pipeline.reports import Reporter
from asmk_engine.recipes import Recipe
from asmk_engine.sharding.index import ShardedIndex

Inputs = Sequence[PathLike | FeatureSet]
AnyIndex = Index | GlobalIndex | FusedIndex | ShardedIndex
LocalIndex = Index | ShardedIndex
"""An index of one kind of local features."""


@dataclass
class Prepared:
    """The features to be added to the index.

    removed     names to be removed from the index, since their files are gone
    extraction  summary of the extraction, if there was one
    """

    features: FeatureSet
    removed: list[str] = field(default_factory=list)
    extraction: ExtractionSummary | None = None


def prepare(
    inputs: Inputs,
    output: Path,
    features_path: Path | None,
    target: LocalIndex | GlobalIndex | None,
    book: Codebook | None,
    intake: IntakeOptions,
    extraction: ExtractionOptions,
    reporter: Reporter,
) -> Prepared:
    """Return the features of the inputs; images are extracted by the recipe of the index or codebook by default."""
    if sets := sets_among(inputs):
        return prepare_set(_only_set(inputs, sets[0], features_path, intake), target, intake, reporter)
    images = [one for one in inputs if not isinstance(one, FeatureSet)]
    found = find_anywhere(images, prefix=intake.prefix, every_file=intake.all_files)
    check_prunable(found, intake)
    recipe: Recipe | None = None if book is None else book.recipe
    network: Path | None = None
    if target is not None:
        recipe, network = target.recipe, target.network
    place = features_path or _kept_so_far(target) or features_beside(output)
    removed = removed_names(target, found, intake, reporter)
    summary = run_extraction(
        found, place, intake, extraction, reporter.display,
        prune=intake.prune and removed is not None, held=held_by(target), recipe=recipe, network=network,
    )  # fmt: skip
    reporter.report_extraction(summary, place)
    reporter.left.note(summary.intake)
    removed = without_left(removed or [], target, summary.intake.left)
    reporter.report_removal(removed, 0 if target is None else target.images)
    return Prepared(FeatureSet.open(place).selected(summary.names), removed, summary)


def sets_among(inputs: Inputs) -> list[PathLike | FeatureSet]:
    """Return the inputs that are feature sets."""
    return [entry for entry in inputs if isinstance(entry, FeatureSet) or is_feature_set(entry)]


def _only_set(
    inputs: Inputs, first: PathLike | FeatureSet, features_path: Path | None, intake: IntakeOptions
) -> FeatureSet:
    """Open the feature set that is the only input; InputError if it is not, and for options of images."""
    where = first.path if isinstance(first, FeatureSet) else first
    if len(inputs) > 1:
        raise InputError(f"{where}: a feature set must be the only input; index several one after the other")
    if intake.prefix or intake.all_files:
        raise InputError(f"{where}: --prefix and --all-files apply to images, and this is a feature set")
    if features_path:
        raise InputError(f"{where}: --features applies to images, and this is a feature set already; leave it out")
    return opened(first)


def prepare_set(
    features: FeatureSet, target: LocalIndex | GlobalIndex | None, intake: IntakeOptions, reporter: Reporter
) -> Prepared:
    """Prepare a feature set; with `prune`, images that are neither in it nor on disk are removed from the index."""
    found = ImageList([], "", {}, roots=features.roots())
    removed = removed_names(target, found, intake, reporter) or []
    removed = [name for name in removed if name not in features]
    removed = without_left(removed, target, set() if intake.updates else _other_contents(features, target))
    reporter.report_removal(removed, 0 if target is None else target.images)
    return Prepared(features, removed)


def removed_names(
    target: AnyIndex | None, found: ImageList, intake: IntakeOptions, reporter: Reporter
) -> list[str] | None:
    """Return the names that `prune` removes from the index, or None if it must not."""
    if not intake.prune or target is None:
        return []
    return reporter.allowed_removal(target.snapshot.origins(), found, yes=intake.yes)


def held_by(target: AnyIndex | None) -> Held:
    """Return a function that gives the fingerprint of the indexed image of a name."""

    def held(name: str) -> int | None:
        known = None if target is None else target.identity(name)
        return known.fingerprint if known else None

    return held


def _other_contents(features: FeatureSet, target: LocalIndex | GlobalIndex | None) -> set[int]:
    """Return the fingerprints of images of a set whose names have another content in the index."""
    if target is None:
        return set()
    known = target.snapshot.find_all(features.names)
    there, found = target.snapshot.identities(list(known.values())), features.identities(list(known))
    differs = (there.fingerprints != 0) & (there.fingerprints != found.fingerprints)
    return set(found.fingerprints[differs].tolist())


def without_left(removed: Sequence[str], target: AnyIndex | None, left: set[int]) -> list[str]:
    """Return the names to remove, without images whose content was left out of this run.

    left  fingerprints of the contents that were left out
    """
    known = {name: target.identity(name) for name in removed} if target is not None and left else {}
    return [name for name in removed if not ((one := known.get(name)) and one.fingerprint in left)]


def _kept_so_far(target: LocalIndex | GlobalIndex | None) -> Path | None:
    """Return where early versions kept the features of an index whose name does not end in .index, or None."""
    if target is None:
        return None
    whole = Path(os.path.realpath(target.path))
    early = whole.with_name(whole.name + ".features")
    remembered = any(early in places for places in target.feature_places)
    return early if remembered and is_feature_set(early) else None


def features_beside(index: Path) -> Path:
    """Return the default feature set of an index: photos.features for photos.index.

    For an index with another name, such as `photos`, it is photos.feature-set, so that no two indexes share one.
    """
    whole = index.resolve()
    if whole.name.endswith(".index"):
        return whole.with_name(whole.name.removesuffix(".index") + ".features")
    return whole.with_name(whole.name + ".feature-set")
