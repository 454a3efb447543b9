"""The stages of a fused configuration: an index of all parts, its search and its evaluation.

Codebooks and codecs are those of the parts alone: the stages that learn them are shared with the rows of the parts.
Weights change no index, only its search.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.signatures import sign
from asmk_engine.iteration import evenly
from asmk_engine.storage.stage_cache import Stage, StageCache
from asmk_engine.tradeoff import measure
from asmk_engine.tradeoff.configurations import FusedConfiguration, LocalConfiguration, PartConfiguration, Sweep
from asmk_engine.tradeoff.extrapolate import fused_bytes_per_image
from asmk_engine.tradeoff.sources import FeatureSupply, StrongestFeatures, joint_ground_truth, queries_key
from asmk_engine.tradeoff.stages import (
    CODEBOOK,
    COPIES,
    INDEX,
    Measurement,
    PreparedQueries,
    codebook_stage,
    evaluation_stage,
    vectors_stage,
)

FusedQueries = PreparedQueries[FusedSearcher, FusedFeatures, FusedFeatures]


def measure_fused(
    cache: StageCache, sources: Sequence[FeatureSupply], configuration: FusedConfiguration, sweep: Sweep, seed: int
) -> Measurement:
    """Run the stages of a fused configuration with one seed, see `measure_configuration`.

    sources  those of its parts, in order
    """
    pairs = list(zip(sources, configuration.parts, strict=True))
    learned = [learned_stage(cache, source, part, sweep, seed) for source, part in pairs]
    index = _index(cache, sources, configuration, learned)
    prepared = functools.cache(functools.partial(_prepared, sources, configuration, index))
    search = _search(cache, sources, configuration, index, prepared)
    evaluation = evaluation_stage(cache, joint_ground_truth(sources), search, prepared)
    seconds = sum(map(_learning_seconds, learned, configuration.parts))
    return Measurement(seconds, index.numbers, search.numbers, evaluation.numbers)


def learned_stage(cache: StageCache, source: FeatureSupply, part: PartConfiguration, sweep: Sweep, seed: int) -> Stage:
    """Return the stage that learns the codebook or codec of a part."""
    if isinstance(part, LocalConfiguration):
        return codebook_stage(cache, source, part, sweep, seed)
    return vectors_stage(cache, source, part, seed)


def _learning_seconds(learned: Stage, part: PartConfiguration) -> float:
    name = "seconds" if isinstance(part, LocalConfiguration) else "learning_seconds"
    return float(learned.numbers[name])


def encoder_of(learned: Stage, part: PartConfiguration) -> Codebook | Codec:
    """Open the codebook or codec that `learned_stage` learned for a part."""
    if isinstance(part, LocalConfiguration):
        return Codebook.open(learned.path / CODEBOOK)
    return GlobalIndex.open(learned.path / INDEX).codec


def strongest_of(part: PartConfiguration) -> int:
    """Return the maximum number of features per image of a part, 1 for global descriptors."""
    return part.strongest if isinstance(part, LocalConfiguration) else 1


def _index(
    cache: StageCache, sources: Sequence[FeatureSupply], configuration: FusedConfiguration, learned: Sequence[Stage]
) -> Stage:
    parts = configuration.parts
    keys = [
        {"learned": one.key, "features": source.key, "strongest": strongest_of(part)}
        for one, source, part in zip(learned, sources, parts, strict=True)
    ]

    def make(folder: Path) -> dict[str, Any]:
        encoders = {part.source: encoder_of(one, part) for one, part in zip(learned, parts, strict=True)}
        index = FusedIndex.create(folder / INDEX, encoders)
        features = {
            part.source: StrongestFeatures.of(source.paths.features, strongest_of(part))
            for source, part in zip(sources, parts, strict=True)
        }
        _, seconds = measure.timed(lambda: (index.add(features), index.merge()))
        return {"seconds": seconds, **_sizes(index)}

    return cache.stage("fused", {"parts": keys}, make)


def _sizes(index: FusedIndex) -> dict[str, Any]:
    segment = index.snapshot.segments[0]
    postings = [part.postings for part in segment.parts if isinstance(part, Segment)]
    return {
        "images": index.images,
        "bytes": measure.disk_bytes(index),
        "words_per_image": sum(postings) / segment.images if postings else None,
        "dense_bytes_per_image": fused_bytes_per_image(segment),
    }


def _prepared(sources: Sequence[FeatureSupply], configuration: FusedConfiguration, index: Stage) -> FusedQueries:
    opened = FusedIndex.open(index.path / INDEX)
    features = fused_features(sources, configuration, opened)
    inputs = [_signed(opened, one, configuration.multiple_assignment) for one in features]
    return PreparedQueries(fused_searcher(opened, configuration), features, inputs)


def fused_features(
    sources: Sequence[FeatureSupply], configuration: FusedConfiguration, index: FusedIndex
) -> list[FusedFeatures]:
    """Return the features of the queries of a fused index, in the order of the ground truth."""
    each = [source.queries(strongest_of(part)) for source, part in zip(sources, configuration.parts, strict=True)]
    return [
        FusedFeatures(tuple(found for _, found in query), _fingerprint(index, query[0][0].name))
        for query in zip(*each, strict=True)
    ]


def _fingerprint(index: FusedIndex, name: str) -> int:
    """Return the fingerprint of a query by which its own image is recognised, 0 if it is not in the index."""
    known = index.identity(name)
    return known.fingerprint if known else 0


def fused_searcher(index: FusedIndex, configuration: FusedConfiguration) -> FusedSearcher:
    """Return what searches a fused index with the words per descriptor and the weights of a configuration."""
    return FusedSearcher(index, multiple_assignment=configuration.multiple_assignment, weights=configuration.weights)


def _signed(index: FusedIndex, query: FusedFeatures, multiple_assignment: int) -> FusedFeatures:
    """Return a query with the signatures of its local features."""
    pairs = zip(query.parts, index.encoders.values(), strict=True)
    parts = tuple(
        sign(part, encoder, min(multiple_assignment, encoder.words))
        if isinstance(encoder, Codebook) and isinstance(part, Features)
        else part
        for part, encoder in pairs
    )
    return replace(query, parts=parts)


def _search(
    cache: StageCache,
    sources: Sequence[FeatureSupply],
    configuration: FusedConfiguration,
    index: Stage,
    prepare: Callable[[], FusedQueries],
) -> Stage:
    inputs = {
        "fused": index.key,
        "queries": [queries_key(source) for source in sources],
        "assignments": configuration.multiple_assignment,
        "weights": configuration.weights,
    }

    def make(folder: Path) -> dict[str, Any]:
        queries, opened = prepare(), FusedIndex.open(index.path / INDEX)
        timed = evenly(queries.inputs, measure.TIMED_QUERIES)
        signing = [
            functools.partial(_signed, opened, one, configuration.multiple_assignment)
            for one in evenly(queries.features, measure.TIMED_QUERIES)
        ]
        copied = measure.copied_fused(folder / COPIES, opened)
        many = measure.scoring_milliseconds(fused_searcher(copied, configuration), timed)
        shutil.rmtree(folder / COPIES)
        return {
            "queries": len(queries.inputs),
            "assignment_milliseconds": measure.milliseconds(signing),
            "scoring_milliseconds": measure.scoring_milliseconds(queries.searcher, timed),
            "nanoseconds_per_image": 1e6 * many / copied.images,
        }

    return cache.stage("search", inputs, make)
