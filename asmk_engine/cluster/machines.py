"""The machines of a Ray cluster as those that do the work of a run, see `pipeline.machines`."""

from __future__ import annotations

import functools

import numpy as np

from asmk_engine.cluster.building import ClusterBuilder
from asmk_engine.cluster.clustering import SpreadRows
from asmk_engine.cluster.connecting import AUTO, connect
from asmk_engine.cluster.image_pool import ActorPool, PoolSize
from asmk_engine.extraction.attempts import Extractor


class RayMachines:
    """The nodes of a cluster.

    Connecting raises the errors of `connecting.connect`.

    address  host:port of the head node, or `auto`
    size     the actors that describe images
    """

    def __init__(self, address: str = AUTO, size: PoolSize | None = None) -> None:
        self._ray, self._size = connect(address), size or PoolSize()

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return sum(bool(node["Alive"]) for node in self._ray.nodes())

    @property
    def processors(self) -> int:
        """The number of processors of all nodes, as they told Ray."""
        return int(self._ray.cluster_resources().get("CPU", 0))

    def image_pool(self, extractor: Extractor, seconds: float) -> ActorPool:
        """Return actors that describe images, each within so many seconds."""
        return ActorPool(self._ray, extractor, seconds, self._size)

    def spread(self, descriptors: np.ndarray, backend: str, words: int) -> SpreadRows:
        """Spread the descriptors [n, D] float32 of k-means."""
        return SpreadRows(self._ray, descriptors, backend, words)

    @functools.cached_property
    def builder(self) -> ClusterBuilder:
        """What writes the segments of an index."""
        return ClusterBuilder(self._ray)
