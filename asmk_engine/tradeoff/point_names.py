"""Which points of the figure are named, and how: enough to find every method, few enough to be read."""

from __future__ import annotations

from collections.abc import Sequence

from asmk_engine.tradeoff.configurations import (
    BOTH,
    DESCRIPTORS,
    PLACES,
    Configuration,
    GlobalConfiguration,
    RerankedConfiguration,
)
from asmk_engine.tradeoff.results import Cost, Result, pareto_front

_COMPARED = {PLACES: "", DESCRIPTORS: " desc.", BOTH: " both"}


def point_names(results: Sequence[Result], cost: Cost) -> list[tuple[Result, str]]:
    """Return the named results and their names, each once.

    These are of each source the most accurate result, also of each way of ranking anew, and what is on the overall
    Pareto front. Of equally accurate results the cheapest is named, and of those with the same name the most accurate.
    """
    best = sorted(results, key=lambda one: (-one.precision.mean, cost(one)))
    methods: dict[tuple[str, str], Result] = {}
    for one in best:
        methods.setdefault((one.configuration.source, _reranking(one.configuration)), one)
    wanted = [*methods.values(), *pareto_front(results, cost)]
    named: dict[str, Result] = {}
    for one in (one for one in best if one in wanted):
        named.setdefault(point_name(one.configuration), one)
    return [(one, name) for name, one in named.items()]


def point_name(configuration: Configuration) -> str:
    """Return a short name: of a fused source without its parts, of local features without their options."""
    name = configuration.source.partition("=")[0]
    if isinstance(configuration, GlobalConfiguration):
        options = (("PCA", configuration.pca), ("PQ", configuration.pq))
        return ", ".join([name, *(f"{option} {value}" for option, value in options if value)])
    return ", ".join(filter(None, [name, _reranking(configuration)]))


def _reranking(configuration: Configuration) -> str:
    if not isinstance(configuration, RerankedConfiguration):
        return ""
    return f"rerank {configuration.images}{_COMPARED[configuration.by]}"
