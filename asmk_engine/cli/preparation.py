"""The features that `asmk-engine index` adds, from its inputs, and the report at its end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asmk_engine.cli.common import Console, Failures
from asmk_engine.cli.extract import is_feature_set, run_extraction
from asmk_engine.cli.reports import (
    Left,
    allowed_removal,
    report_duplicates,
    report_extraction,
    report_found,
    report_left,
    report_removal,
    report_without_features,
)
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.codebooks import Codebook
    from asmk_engine.extraction.intake import Held
    from asmk_engine.extraction.run import ExtractionSummary
    from asmk_engine.features import FeatureSet
    from asmk_engine.flat import GlobalIndex
    from asmk_engine.images.listing import ImageList
    from asmk_engine.indexes.additions import AddSummary
    from asmk_engine.inverted.index import Index
    from asmk_engine.recipes import Recipe


@dataclass(frozen=True)
class Call:
    """The arguments of `index`; see its help. `features_path` is the feature set that keeps the features of images."""

    inputs: Sequence[Path]
    output: Path
    features_path: Path | None
    prefix: str
    all_files: bool
    update: bool
    prune: bool
    yes: bool


@dataclass
class Prepared:
    """The features to be added to the index, and what is to be reported.

    removed     names to be removed from the index, since their files are gone
    extraction  summary of the extraction, if there was one
    """

    features: FeatureSet
    removed: list[str] = field(default_factory=list)
    failures: Failures = field(default_factory=Failures)
    left: Left = field(default_factory=Left)
    extraction: ExtractionSummary | None = None

    def report(self, summary: AddSummary, output: Path, console: Console) -> None:
        """Report what was left out, duplicate or empty; raises InputError at the end if there were failures."""
        if self.extraction is not None:
            report_found(self.extraction.found, self.failures, console)
        self.left.note(summary)
        report_left(self.left, self.failures, console)
        report_duplicates(summary, console)
        empty = [name for name in self.features.names if self.features.count(name) == 0]
        report_without_features(empty, output, console)
        self.failures.tell()


def prepare(
    call: Call,
    target: Index | GlobalIndex | None,
    book: Codebook | None,
    console: Console,
    options: dict[str, Any],
) -> Prepared:
    """Return the features of the inputs; images are extracted by the recipe of the index or codebook by default."""
    from asmk_engine.features import FeatureSet
    from asmk_engine.images.listing import find_images

    sets = [entry for entry in call.inputs if is_feature_set(entry)]
    if sets and len(call.inputs) > 1:
        raise InputError(f"{sets[0]}: a feature set must be the only input; index several one after the other")
    if sets and (call.prefix or call.all_files):
        raise InputError(f"{sets[0]}: --prefix and --all-files apply to images, and this is a feature set")
    if sets and call.features_path:
        raise InputError(f"{sets[0]}: --features applies to images, and this is a feature set already; leave it out")
    if sets:
        return prepare_set(FeatureSet.open(sets[0]), call, target, console)
    found = find_images(call.inputs, prefix=call.prefix, every_file=call.all_files)
    recipe: Recipe | None = None if book is None else book.recipe
    if target is not None:
        recipe, options = target.recipe, {**options, "network": target.network}
    place = call.features_path or _kept_so_far(target) or features_beside(call.output)
    failures, left = Failures(), Left()
    removed = _removed(call, target, found, failures, console)
    prune = call.prune and removed is not None
    summary = run_extraction(
        found, place, console, prune=prune, trusting=call.yes, update=call.update, held=_held(target), recipe=recipe,
        **options,
    )  # fmt: skip
    report_extraction(summary, place, console)
    left.note(summary.intake)
    removed = _without_left(removed or [], target, summary.intake.left)
    report_removal(removed, console, 0 if target is None else target.images)
    return Prepared(FeatureSet.open(place).selected(summary.names), removed, failures, left, summary)


def prepare_set(features: FeatureSet, call: Call, target: Index | GlobalIndex | None, console: Console) -> Prepared:
    """Prepare a feature set; under --prune, images that are neither in it nor on disk are removed from the index."""
    from asmk_engine.images.listing import ImageList

    failures = Failures()
    found = ImageList([], "", {}, roots=features.roots())
    removed = _removed(call, target, found, failures, console) or []
    removed = [name for name in removed if name not in features]
    removed = _without_left(removed, target, set() if call.update else _other_contents(features, target))
    report_removal(removed, console, 0 if target is None else target.images)
    return Prepared(features, removed, failures)


def _removed(
    call: Call, target: Index | GlobalIndex | None, found: ImageList, failures: Failures, console: Console
) -> list[str] | None:
    """Return the names that `--prune` removes from the index, or None if it must not."""
    if not call.prune or target is None:
        return []
    return allowed_removal(target.snapshot.origins(), found, failures, console, yes=call.yes)


def _held(target: Index | GlobalIndex | None) -> Held:
    """Return a function that gives the fingerprint of the indexed image of a name."""

    def held(name: str) -> int | None:
        known = None if target is None else target.identity(name)
        return known.fingerprint if known else None

    return held


def _other_contents(features: FeatureSet, target: Index | GlobalIndex | None) -> set[int]:
    """Return the fingerprints of images of a set whose names have another content in the index."""
    if target is None:
        return set()
    known = target.snapshot.find_all(features.names)
    there, found = target.snapshot.identities(list(known.values())), features.identities(list(known))
    differs = (there.fingerprints != 0) & (there.fingerprints != found.fingerprints)
    return set(found.fingerprints[differs].tolist())


def _without_left(removed: Sequence[str], target: Index | GlobalIndex | None, left: set[int]) -> list[str]:
    """Return the names to remove, without images whose content was left out of this run.

    left  fingerprints of the contents that were left out
    """
    known = {name: target.identity(name) for name in removed} if target is not None and left else {}
    return [name for name in removed if not ((one := known.get(name)) and one.fingerprint in left)]


def _kept_so_far(target: Index | GlobalIndex | None) -> Path | None:
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
