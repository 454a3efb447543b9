"""Several kinds of features of the same images in one index: one table of images, one commit, one fused score."""

from __future__ import annotations

from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.joint import JointFusedIndex
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher

__all__ = ["FusedFeatures", "FusedIndex", "FusedSearcher", "JointFusedIndex"]
