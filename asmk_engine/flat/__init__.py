"""Global descriptors: one vector per image, in a separate kind of index with the same durability as the ASMK index."""

from __future__ import annotations

from asmk_engine.flat.codec import Codec, CodecOptions
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import Expansion, GlobalSearcher

__all__ = ["Codec", "CodecOptions", "Expansion", "GlobalIndex", "GlobalSearcher"]
