"""The result of a configuration, combined over its seeds, and the Pareto fronts over all configurations."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
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
    bytes_per_image   on disk, without the codebook; of a re-ranked row with what verification reads
    codebook_bytes    on disk, of the codebook or codec
    words_per_image   postings per image, those of all parts of a fused row; None without local features
    assignment_milliseconds, scoring_milliseconds
                      per query, processor time like all times
    build_seconds     of indexing, without feature extraction
    learning_seconds  of the codebook, or of PCA and sub-spaces
    extrapolated      memory and time of more images by the model of `extrapolate`
    verification_milliseconds
                      per query, of ranking anew; 0 without
    reranking_bytes_per_image
                      of the bytes, those of the geometry or of the features that verification reads
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
    verification_milliseconds: float = 0.0
    reranking_bytes_per_image: float = 0.0

    @property
    def query_milliseconds(self) -> float:
        """All of a query whose features are given: assignment, scoring and verification."""
        return self.assignment_milliseconds + self.scoring_milliseconds + self.verification_milliseconds


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
    verification = _median(one.search.get("verification_milliseconds", 0.0) for one in measured)
    sizes = [{name: size / index["images"] for name, size in one.index["bytes"].items()} for one in measured]
    besides = [size.get("reranking", 0.0) for size in sizes]
    dense = _median(one.index["dense_bytes_per_image"] + size for one, size in zip(measured, besides, strict=True))
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
        bytes_per_image=_median(size["segments"] + size.get("reranking", 0.0) for size in sizes),
        codebook_bytes=index["bytes"]["codebook"],
        words_per_image=_median(one.index["words_per_image"] for one in measured) if has_words else None,
        assignment_milliseconds=assignment,
        scoring_milliseconds=_median(one.search["scoring_milliseconds"] for one in measured),
        build_seconds=_median(one.index["seconds"] for one in measured),
        learning_seconds=_median(one.learning_seconds for one in measured),
        extrapolated=tuple(extrapolated(images, dense, assignment + verification, per_image) for images in SIZES),
        verification_milliseconds=verification,
        reranking_bytes_per_image=_median(besides),
    )


def _other_rows(measured: Sequence[Measurement]) -> dict[str, float]:
    first = measured[0].evaluation
    rows = [row for row in first["rows"] if row != first["row"]]
    return {row: statistics.fmean(one.evaluation["rows"][row] for one in measured) for row in rows}


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


Cost = Callable[[Result], float]


def bytes_of(result: Result) -> float:
    """Return the bytes per image, one of the two costs of a result."""
    return result.bytes_per_image


def milliseconds_of(result: Result) -> float:
    """Return the milliseconds per query, the other cost."""
    return result.query_milliseconds


def pareto_front(results: Iterable[Result], cost: Cost = bytes_of) -> list[Result]:
    """Return the results that no other result beats in both cost and mAP, the cheapest first.

    Of results with the same cost, keeps the one with the highest mAP, and of ties the first.
    """
    front: list[Result] = []
    for result in sorted(results, key=lambda one: (cost(one), -one.precision.mean)):
        if not front or result.precision.mean > front[-1].precision.mean:
            front.append(result)
    return front
