"""The stages of a re-ranked configuration: an index with what verification reads, its verification and its evaluation.

    places       placed (an index with geometry) ──▶ verification ──▶ evaluation
    descriptors  strongest (the features that the index has) ──▶ described (an index of them) ──▶ verification ──▶ …

Codebooks, scores and their times are those of the configuration without re-ranking, whose stages are shared: geometry
changes no posting. The index of a row by descriptors remembers a feature set with just the features of the row, as if
they had been extracted so, since it is that set that is read and that takes its bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook
from asmk_engine.features import FeatureSet, FeatureWriter
from asmk_engine.fused.index import FusedIndex
from asmk_engine.indexes.searcher import IndexSearcher, RerankingSearcher
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.iteration import evenly
from asmk_engine.storage.stage_cache import Stage, StageCache
from asmk_engine.tradeoff import measure
from asmk_engine.tradeoff.configurations import (
    PLACES,
    FusedConfiguration,
    LocalConfiguration,
    PartConfiguration,
    RerankedConfiguration,
    Sweep,
)
from asmk_engine.tradeoff.fused_stages import (
    encoder_of,
    fused_features,
    fused_searcher,
    learned_stage,
    measure_fused,
    strongest_of,
)
from asmk_engine.tradeoff.sources import FeatureSupply, StrongestFeatures, joint_ground_truth, queries_key
from asmk_engine.tradeoff.stages import INDEX, Measurement, PreparedQueries, evaluation_stage, measure_configuration

FEATURES = "features"

RerankedQueries = PreparedQueries[RerankingSearcher[Any], Any, Any]


def measure_reranked(
    cache: StageCache, sources: Sequence[FeatureSupply], configuration: RerankedConfiguration, sweep: Sweep, seed: int
) -> Measurement:
    """Run the stages of a re-ranked configuration with one seed, see `measure_configuration`.

    sources  those of its parts, in order; one if it is not fused
    """
    plain = _plain(cache, sources, configuration, sweep, seed)
    index = _index(cache, sources, configuration, sweep, seed)
    prepared = functools.cache(functools.partial(_prepared, sources, configuration, index))
    verification = _verification(cache, sources, configuration, index, prepared)
    evaluation = evaluation_stage(cache, joint_ground_truth(sources), verification, prepared)
    of_index = {**plain.index, "seconds": index.numbers["seconds"], "bytes": index.numbers["bytes"]}
    return Measurement(plain.learning_seconds, of_index, {**plain.search, **verification.numbers}, evaluation.numbers)


def _plain(
    cache: StageCache, sources: Sequence[FeatureSupply], configuration: RerankedConfiguration, sweep: Sweep, seed: int
) -> Measurement:
    if isinstance(configuration.plain, FusedConfiguration):
        return measure_fused(cache, sources, configuration.plain, sweep, seed)
    return measure_configuration(cache, sources[0], configuration.plain, sweep, seed)


def _parts(configuration: RerankedConfiguration) -> tuple[PartConfiguration, ...]:
    plain = configuration.plain
    return plain.parts if isinstance(plain, FusedConfiguration) else (plain,)


def _index(
    cache: StageCache, sources: Sequence[FeatureSupply], configuration: RerankedConfiguration, sweep: Sweep, seed: int
) -> Stage:
    """Index with geometry, or a feature set of the row for each kind of local features."""
    pairs = list(zip(sources, _parts(configuration), strict=True))
    learned = [learned_stage(cache, source, part, sweep, seed) for source, part in pairs]
    keys = [
        {"learned": one.key, "features": source.key, "strongest": strongest_of(part)}
        for one, (source, part) in zip(learned, pairs, strict=True)
    ]
    by_places = configuration.by == PLACES
    copies = {part.source: _strongest(cache, source, part) for source, part in pairs if _is_read(part, by_places)}

    def make(folder: Path) -> dict[str, Any]:
        encoders = {part.source: encoder_of(one, part) for one, (_, part) in zip(learned, pairs, strict=True)}
        features = {part.source: _indexed(source, part, copies.get(part.source)) for source, part in pairs}
        geometry = "all" if by_places else None
        index, seconds = measure.timed(lambda: _made(folder / INDEX, encoders, features, geometry))
        besides = measure.geometry_bytes(index) if by_places else sum(one.numbers["bytes"] for one in copies.values())
        return {"seconds": seconds, "bytes": {**measure.disk_bytes(index), "reranking": besides}}

    return cache.stage("placed" if by_places else "described", {"parts": keys}, make)


def _is_read(part: PartConfiguration, by_places: bool) -> bool:
    """Return whether re-ranking reads the feature set of a part."""
    return isinstance(part, LocalConfiguration) and not by_places


def _strongest(cache: StageCache, source: FeatureSupply, part: PartConfiguration) -> Stage:
    """Write a feature set of the features that a row has."""

    def make(folder: Path) -> dict[str, Any]:
        strongest = StrongestFeatures.of(source.paths.features, strongest_of(part))
        with FeatureWriter(folder / FEATURES, strongest.recipe, strongest.dim) as writer:
            for name, image in strongest.images():
                writer.add(name, image, strongest.source(name), strongest.root(name))
        return {"bytes": sum(path.stat().st_size for path in (folder / FEATURES).glob("part-*.h5"))}

    return cache.stage("strongest", {"features": source.key, "strongest": strongest_of(part)}, make)


def _indexed(source: FeatureSupply, part: PartConfiguration, copy: Stage | None) -> FeatureSet | StrongestFeatures:
    if copy is not None:
        return FeatureSet.open(copy.path / FEATURES)
    return StrongestFeatures.of(source.paths.features, strongest_of(part))


def _made(
    path: Path,
    encoders: dict[str, Any],
    features: dict[str, FeatureSet | StrongestFeatures],
    geometry: str | None,
) -> Index | FusedIndex:
    """Create an index of one kind of features or a fused one, with all images in one segment."""
    [first, *others] = encoders
    if not others and isinstance(encoders[first], Codebook):
        index = Index.create(path, encoders[first], geometry=geometry)
        index.add(features[first])
        index.merge()
        return index
    fused = FusedIndex.create(path, encoders, geometry=geometry)
    fused.add(features)
    fused.merge()
    return fused


def _opened(configuration: RerankedConfiguration, path: Path) -> Any:
    return FusedIndex.open(path) if isinstance(configuration.plain, FusedConfiguration) else Index.open(path)


def _searcher(configuration: RerankedConfiguration, index: Any) -> IndexSearcher[Any, Any]:
    plain = configuration.plain
    if isinstance(plain, FusedConfiguration):
        return fused_searcher(index, plain)
    return Searcher(index, multiple_assignment=plain.multiple_assignment)


def _prepared(sources: Sequence[FeatureSupply], configuration: RerankedConfiguration, index: Stage) -> RerankedQueries:
    plain, opened = configuration.plain, _opened(configuration, index.path / INDEX)
    features: list[Any] = (
        fused_features(sources, plain, opened)
        if isinstance(plain, FusedConfiguration)
        else [found for _, found in sources[0].queries(plain.strongest)]
    )
    searcher = RerankingSearcher(_searcher(configuration, opened), configuration.reranking)
    return PreparedQueries(searcher, features, features)


def _verification(
    cache: StageCache,
    sources: Sequence[FeatureSupply],
    configuration: RerankedConfiguration,
    index: Stage,
    prepare: Callable[[], RerankedQueries],
) -> Stage:
    plain = configuration.plain
    inputs = {
        "index": index.key,
        "queries": [queries_key(source) for source in sources],
        "assignments": plain.multiple_assignment,
        "weights": plain.weights if isinstance(plain, FusedConfiguration) else None,
        "rerank": configuration.images,
        "by": configuration.by,
    }

    def make(folder: Path) -> dict[str, Any]:
        opened, searcher = _opened(configuration, index.path / INDEX), prepare().searcher.searcher
        asked = [
            searcher.ready(searcher.index.snapshot, one, 1) for one in evenly(prepare().features, measure.TIMED_QUERIES)
        ]
        fresh = functools.partial(_searcher, configuration, opened)
        milliseconds = measure.verification_milliseconds(fresh, asked, configuration.reranking)
        return {"verification_milliseconds": milliseconds}

    return cache.stage("verification", inputs, make)
