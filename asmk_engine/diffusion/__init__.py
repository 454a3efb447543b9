"""Ranking with the nearest neighbours of the indexed images: diffusion over their graph, and augmentation."""

from __future__ import annotations

from asmk_engine.diffusion.augmentation import AugmentingSearcher, NeighbourAugmentation
from asmk_engine.diffusion.building import build_neighbours
from asmk_engine.diffusion.graph import Diffusion
from asmk_engine.diffusion.search import DiffusionSearcher

__all__ = ["AugmentingSearcher", "Diffusion", "DiffusionSearcher", "NeighbourAugmentation", "build_neighbours"]
