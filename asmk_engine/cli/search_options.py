"""The search options that `query`, `evaluate` and `classify` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asmk_engine.cli.common import was_given
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.verification.reranking import Reranking

_OF_RERANKING = {"rerank_by": "--rerank-by", "joins": "--join"}


@dataclass(frozen=True)
class SearchOptions:
    """The search options of the commands; see their help."""

    alpha: float
    threshold: float
    multiple_assignment: int
    idf: bool
    threads: int | None
    expansion: int | None = None
    expansion_alpha: float = 3.0
    kind_weights: tuple[float, ...] | None = None
    rerank: int | None = None
    rerank_by: str = "places"
    joins: int | None = None
    reranker: str | None = None
    reranker_weights: Path | None = None
    reranker_weight: float = 0.5
    reranker_side: int = 1024
    reranker_cache: Path | None = None
    reranker_precision: str = "fp32"
    reranker_seed: int | None = None
    rotations: bool = False
    mirror: bool = False
    diffusion: bool = False
    diffusion_neighbours: int = 5
    diffusion_alpha: float = 0.6
    augmentation: int | None = None
    augmentation_power: float | None = None

    @property
    def turns(self) -> bool:
        """Whether the query is also searched in other turns."""
        return self.rotations or self.mirror

    @property
    def reranking(self) -> Reranking | None:
        """How the first images are ranked anew by features; raises InputError for options that exclude each other."""
        from asmk_engine.verification.reranking import Reranking

        if self.reranker is not None:
            return None
        if self.rerank is None:
            if given := [name for name in _OF_RERANKING if was_given(name)]:
                raise InputError(f"{_OF_RERANKING[given[0]]} needs --rerank; add --rerank 50")
            return None
        if self.rerank_by != "places" and self.joins:
            raise InputError("--join needs --rerank-by places; leave one of the two out")
        if self.rerank_by == "descriptors":
            return Reranking.by_descriptors(self.rerank)
        if self.rerank_by == "both":
            return Reranking.by_both(self.rerank)
        return Reranking(self.rerank, expansions=self.joins or 0)
