"""Rerankers that compare the features of an index, by their names: `gv` and `rrt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkError, InputError
from asmk_engine.networks.reranking.image_tokens import ScaleUnit
from asmk_engine.reranking.affine_ransac_scorer import AffineRansacScorer, by_inliers
from asmk_engine.reranking.described import AnyFeatures, Describe, Kinds, PairImages
from asmk_engine.reranking.ranking import PairReranker
from asmk_engine.reranking.transformer_scorer import TransformerScorer, by_logits
from asmk_engine.search.query_features import FusedQuerySource, QuerySource

RERANKERS = ("gv", "rrt")
"""gv: the verification of the DELF and DELG code; rrt: the Reranking Transformer."""


def feature_reranker(
    name: str,
    source: QuerySource | FusedQuerySource,
    images: int,
    weights: Path | None,
    describe: Describe,
    threads: int | None = None,
) -> PairReranker:
    """Return what ranks the first images of an index anew by its features.

    name      one of `RERANKERS`
    source    finds the features of indexed images
    images    number of images that are ranked anew
    weights   the network of `rrt`; `gv` needs none
    describe  finds the features of a query

    Raises InputError for an unknown name, weights that are missing or of no use, and an index that lacks a kind of
    features; and what the reader of the weights raises.
    """
    if name not in RERANKERS:
        raise InputError(f"reranker is {name!r}; choose one of {', '.join(RERANKERS)}")
    index: Any = source.index
    encoder = index.snapshot.encoder
    kinds = Kinds.of_encoder(encoder, None if hasattr(encoder, "kinds") else index.recipe)

    def named(image: str, box: Any) -> AnyFeatures:
        return source.named(image, box)

    described = PairImages(describe, named)
    if name == "gv":
        if weights is not None:
            raise InputError(f"{weights}: gv needs no weights; leave them out")
        return PairReranker(AffineRansacScorer(described, kinds, threads=threads), by_inliers(images))
    if weights is None:
        raise InputError("rrt needs the weights of its network; give a checkpoint of its code, or one trained here")
    from asmk_engine.networks.reranking.transformer_pairs import PairTransformer

    scorer = TransformerScorer(PairTransformer(weights), described, kinds, _unit(source, kinds))
    return PairReranker(scorer, by_logits(images))


def _unit(source: QuerySource | FusedQuerySource, kinds: Kinds) -> ScaleUnit:
    """Return how scales tell image scales, from the extractor of the local features; DELG's if there is none."""
    number = kinds.local or 0
    local = source.sources[number] if isinstance(source, FusedQuerySource) else source
    try:
        extractor: Any = local.extractor
    except AsmkError:  # arrays, and features of other programs
        return ScaleUnit()
    return unit_of(extractor)


def unit_of(extractor: Any) -> ScaleUnit:
    """Return how scales tell image scales, from an extractor; DELG's if it has no network or no limit of size."""
    usual = ScaleUnit()
    backbone = getattr(getattr(extractor, "network", None), "backbone", None)
    return ScaleUnit(
        float(getattr(backbone, "stride", usual.stride)), int(getattr(extractor, "max_side", usual.max_side))
    )
