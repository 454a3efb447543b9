"""Global descriptors: one vector per image, in an index of their own that is as durable as one of local features."""

from __future__ import annotations

from asmk_engine.descriptors.codec import Codec, CodecOptions
from asmk_engine.descriptors.index import GlobalIndex
from asmk_engine.descriptors.opening import open_index
from asmk_engine.descriptors.search import Expansion, GlobalSearcher

__all__ = ["Codec", "CodecOptions", "Expansion", "GlobalIndex", "GlobalSearcher", "open_index"]
