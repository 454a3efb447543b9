"""Both sides described: feature sets of training images and queries, and the index that proposes candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asmk_engine.audit.sets import AuditQuery
from asmk_engine.codebooks.shipped import vocabularies, vocabulary_of
from asmk_engine.errors import AsmkError
from asmk_engine.features import FeatureSet
from asmk_engine.features.network_place import network_beside
from asmk_engine.images.listing import ImageFile, ImageList
from asmk_engine.indexes.manifest import NAMES
from asmk_engine.iteration import Display, Silent, counted
from asmk_engine.pipeline.extraction import IntakeOptions, run_extraction
from asmk_engine.pipeline.extractor_choice import ExtractionOptions, choose_extractor
from asmk_engine.pipeline.indexing import index_images


class QueryFeatures:
    """The features of queries by their names: of whole photographs in a feature set, of regions in memory.

    whole    the feature set; None without whole photographs
    regions  name → features
    """

    def __init__(self, whole: FeatureSet | None, regions: Mapping[str, Any]) -> None:
        self._whole, self._regions = whole, regions

    def of(self, query: AuditQuery) -> Any:
        """Return the features of a query; None if it could not be described."""
        if query.name in self._regions:
            return self._regions[query.name]
        return self._whole.read(query.name) if self._whole is not None and query.name in self._whole else None


@dataclass(frozen=True, eq=False)
class DescribedSide:
    """One kind of features of both sides.

    features  of the training images
    queries   of the queries
    unread    name of a training image or a query → why it could not be described
    """

    features: FeatureSet
    queries: QueryFeatures
    unread: dict[str, str]


def describe(
    images: Sequence[ImageFile],
    queries: Sequence[AuditQuery],
    place: Path,
    extraction: ExtractionOptions,
    display: Display,
) -> DescribedSide:
    """Describe training images and queries in the same way, into `place` and its neighbour; a killed run goes on.

    Raises what an extraction raises.
    """
    intake, asked = IntakeOptions(existing="update"), place.with_name(f"{place.stem}-queries.features")
    display.say(f"{len(images)} training images, {len(queries)} queries")
    summary = run_extraction(ImageList(list(images), "", {}), place, intake, extraction, display, prune=False)
    unread = dict(summary.failed)
    features = FeatureSet.open(place).selected(summary.names)
    same = replace(extraction, extractor=None, weights=None, others={}, train=False)
    recipe, network = features.recipe, network_beside(place)
    regions, failed = _regions(queries, features, same, place, display)
    unread |= failed
    whole = [ImageFile(query.name, query.path) for query in queries if query.box is None]
    found = None
    if whole:
        listed = ImageList(whole, "", {})
        done = run_extraction(
            listed, asked, intake, same, display, prune=False, recipe=recipe, network=network, allow_none=True
        )
        unread |= done.failed
        found = FeatureSet.open(asked).selected(done.names) if done.names else None
    return DescribedSide(features, QueryFeatures(found, regions), unread)


def _regions(
    queries: Sequence[AuditQuery], features: FeatureSet, options: ExtractionOptions, place: Path, display: Display
) -> tuple[dict[str, Any], dict[str, str]]:
    """Describe the regions of the queries that have a box; returns features, and why others could not be described."""
    asked = [query for query in queries if query.box is not None]
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    if not asked:
        return found, failed
    extractor = choose_extractor([], place, options, Silent(), recipe=features.recipe, network=network_beside(place))
    with display.bar("regions", "queries") as progress:
        for query in counted(asked, len(asked), progress):
            try:
                found[query.name] = extractor.extract(query.path, box=query.box)
            except AsmkError as error:
                failed[query.name] = str(error)
    return found, failed


def index_of(features: FeatureSet, place: Path, display: Display) -> Any:
    """Return the index of a feature set, brought up to date; raises what `index_images` raises.

    Its words are those of a vocabulary of the package if one fits, so that they do not depend on what is audited.
    """
    fits = (name for name in vocabularies() if vocabulary_of(features.recipe, name) is not None)
    is_there = any((place / name).exists() for name in NAMES)
    book = None if is_there or features.recipe.is_global else next(fits, None)
    report = index_images(features, place, intake=IntakeOptions(existing="update"), codebook=book, display=display)
    report.failures.check()
    return report.index
