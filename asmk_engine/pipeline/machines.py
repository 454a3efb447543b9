"""What a run leaves to other machines, if the caller brings any: the room `cluster` has those of a Ray cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from asmk_engine.codebooks.kmeans import DescriptorRows
from asmk_engine.extraction.attempts import Extractor
from asmk_engine.extraction.pools import ImagePool
from asmk_engine.inverted.building import SegmentBuilder


class Machines(Protocol):
    """Machines that do the work of a run; what they return has the bits of the work of this one."""

    def image_pool(self, extractor: Extractor, seconds: float) -> AbstractContextManager[ImagePool]:
        """Return the processes that describe images, each within so many seconds."""
        ...

    def spread(self, descriptors: np.ndarray, backend: str, words: int) -> DescriptorRows:
        """Spread the descriptors [n, D] float32 of k-means."""
        ...

    @property
    def builder(self) -> SegmentBuilder:
        """What writes the segments of an index."""
        ...
