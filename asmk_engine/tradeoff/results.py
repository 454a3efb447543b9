"""The result of a configuration, combined over its seeds, and the Pareto front over all configurations."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asmk_engine.evaluation.bootstrap import Interval, bootstrap
from asmk_engine.tradeoff.configurations import Configuration
from asmk_engine.tradeoff.extrapolate import SIZES, Extrapolated, extrapolated
from asmk_engine.tradeoff.stages import Measurement


@dataclass(frozen=True)
class Result:
    """A measured configuration; means over its seeds, times and bytes of the median seed.

    row               row of the report that `precision` is from, such as `medium`
    precision         mAP in [0, 1] and its 95 % interval over queries, each query's mean over the seeds
    other_rows        mAP in [0, 1] of the other rows of the report, such as `hard`
    seed_spread       largest minus smallest mAP of a seed
    bytes_per_image   on disk, without the codebook
    codebook_bytes    on disk, of the codebook or codec
    words_per_image   postings per image, those of all parts of a fused row; None without local features
    assignment_milliseconds, scoring_milliseconds
                      per query, processor time like all times
    build_seconds     of indexing, without feature extraction
    learning_seconds  of the codebook, or of PCA and sub-spaces
    extrapolated      memory and time of more images by the model of `extrapolate`
    """

    configuration: Configuration
    row: str
    precision: Interval
    other_rows: dict[str, float]
    seed_spread: float
    seeds: int
    images: int
    queries: int
    bytes_per_image: float
    codebook_bytes: int
    words_per_image: float | None
    assignment_milliseconds: float
    scoring_milliseconds: float
    build_seconds: float
    learning_seconds: float
    extrapolated: tuple[Extrapolated, ...]


@dataclass(frozen=True)
class Failure:
    """A configuration that could not be measured, and the reason in one line."""

    configuration: Configuration
    reason: str


def put_together(configuration: Configuration, measured: Sequence[Measurement]) -> Result:
    """Combine the measurements of a configuration, one per seed and at least one."""
    per_seed = [statistics.fmean(one.evaluation["per_query"].values()) for one in measured]
    names = list(measured[0].evaluation["per_query"])
    precisions = [statistics.fmean(one.evaluation["per_query"][name] for one in measured) for name in names]
    index = measured[0].index
    assignment = _median(one.search["assignment_milliseconds"] for one in measured)
    per_image = _median(one.search["nanoseconds_per_image"] for one in measured)
    dense = _median(one.index["dense_bytes_per_image"] for one in measured)
    has_words = index["words_per_image"] is not None
    return Result(
        configuration=configuration,
        row=measured[0].evaluation["row"],
        precision=bootstrap(precisions),
        other_rows=_other_rows(measured),
        seed_spread=max(per_seed) - min(per_seed),
        seeds=len(measured),
        images=index["images"],
        queries=len(names),
        bytes_per_image=_median(one.index["bytes"]["segments"] / one.index["images"] for one in measured),
        codebook_bytes=index["bytes"]["codebook"],
        words_per_image=_median(one.index["words_per_image"] for one in measured) if has_words else None,
        assignment_milliseconds=assignment,
        scoring_milliseconds=_median(one.search["scoring_milliseconds"] for one in measured),
        build_seconds=_median(one.index["seconds"] for one in measured),
        learning_seconds=_median(one.learning_seconds for one in measured),
        extrapolated=tuple(extrapolated(images, dense, assignment, per_image) for images in SIZES),
    )


def _other_rows(measured: Sequence[Measurement]) -> dict[str, float]:
    first = measured[0].evaluation
    rows = [row for row in first["rows"] if row != first["row"]]
    return {row: statistics.fmean(one.evaluation["rows"][row] for one in measured) for row in rows}


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def pareto_front(results: Iterable[Result]) -> list[Result]:
    """Return the results that no other result beats in both bytes per image and mAP, fewest bytes first.

    Of results with the same bytes, keeps the one with the highest mAP, and of ties the first.
    """
    front: list[Result] = []
    for result in sorted(results, key=lambda one: (one.bytes_per_image, -one.precision.mean)):
        if not front or result.precision.mean > front[-1].precision.mean:
            front.append(result)
    return front
