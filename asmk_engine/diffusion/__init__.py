"""Diffusion: ranking by a walk over the graph of nearest neighbours of the indexed images."""

from __future__ import annotations

from asmk_engine.diffusion.building import build_neighbours
from asmk_engine.diffusion.graph import Diffusion
from asmk_engine.diffusion.search import DiffusionSearcher

__all__ = ["Diffusion", "DiffusionSearcher", "build_neighbours"]
