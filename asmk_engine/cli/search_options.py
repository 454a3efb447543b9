"""The search options that `query`, `evaluate` and `classify` share."""

from __future__ import annotations

from dataclasses import dataclass


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
    rotations: bool = False
    mirror: bool = False
    diffusion: bool = False
    diffusion_neighbours: int = 5
    diffusion_alpha: float = 0.6
    augmentation: int | None = None
    augmentation_power: float | None = None
