"""Answers as JSON values: hits, and where two photographs match."""

from __future__ import annotations

from typing import Any

from asmk_engine.indexes.answers import Hit
from asmk_engine.pictures.explanation import best_match
from asmk_engine.serve.metadata import Metadata
from asmk_engine.verification.match import Match

_NOTHING: dict[str, Any] = {
    "size": None, "inliers": None, "places": None, "region": [], "query_region": [], "box": None, "query_box": None,
    "overlap": None, "affine": None,
}  # fmt: skip


def hit_values(hit: Hit, rank: int, question: int, metadata: Metadata) -> dict[str, Any]:
    """Return a hit as JSON values.

    rank      1 for the best
    question  which photograph of the question it fits best
    """
    match = best_match(hit)
    return {
        "rank": rank,
        "name": hit.name,
        "score": round(hit.score, 6),
        "verdict": hit.verdict,
        "probability": None if hit.probability is None else round(hit.probability, 4),
        "turn": hit.turn,
        "question": question,
        **(_NOTHING if match is None else match_values(match)),
        "metadata": metadata.of(hit.name),
    }


def match_values(match: Match) -> dict[str, Any]:
    """Return where two photographs match as JSON values, lengths in pixels of the upright originals."""
    values = match.as_dict()
    query, image = values["overlap"]
    return {
        "size": list(match.size),
        "inliers": values["inliers"],
        "places": values["places"],
        "region": values["outline"],
        "query_region": values["query_outline"],
        "box": values["box"],
        "query_box": values["query_box"],
        "overlap": {"query": query, "image": image},
        "affine": values["affine"] if match.inliers else None,
    }
