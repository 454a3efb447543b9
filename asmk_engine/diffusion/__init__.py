"""Diffusion: ranking by a walk over the graph of nearest neighbours of the indexed images."""

from asmk_engine.diffusion.building import build_neighbours as build_neighbours
from asmk_engine.diffusion.graph import Diffusion as Diffusion
from asmk_engine.diffusion.search import DiffusionSearcher as DiffusionSearcher
