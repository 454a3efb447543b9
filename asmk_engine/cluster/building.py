"""Segments built by tasks on a cluster; the process that asked for them commits them, as the only writer.

A task writes no file of the index: it returns the bytes of its segment. So what a lost node had in work is nowhere, and
Ray runs its task again.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asmk_engine import threads
from asmk_engine.cluster.connecting import check_versions, ray_errors, versions
from asmk_engine.features import Features, FeatureSet, IdentifiedSource
from asmk_engine.features.parts import read_part
from asmk_engine.indexes.base import Facts
from asmk_engine.inverted.building import BuiltSegment, SegmentEncoding

AHEAD = 2
"""Segments, beyond one for each processor, that may be in work or wait to be committed."""
RETRIES = 5


@dataclass(frozen=True)
class SegmentOrder:
    """The images of a segment, and where their features are.

    parts   the files of the feature set that hold them, with their sizes in bytes
    facts   fingerprint and number of the root by name, in the order of the images
    images  their features, where the node does not see the files
    """

    parts: Sequence[tuple[str, int]]
    facts: Mapping[str, tuple[int, int]]
    images: Sequence[tuple[str, Features]] | None = None


def build_segments(
    order: SegmentOrder, encoding: SegmentEncoding, room: int, expected: dict[str, str]
) -> list[BuiltSegment] | None:
    """Return the segments of an order, in a process of a node; None if it does not see the same files.

    room      as for `SegmentBuilder.build`
    expected  the versions that must be here
    """
    check_versions(expected, "of the cluster")
    images = order.images
    if images is None:
        if not _are_here(order.parts):
            return None
        parts = [read_part(Path(path)) for path, _ in order.parts]
        found = FeatureSet(parts[0].path.parent, parts).images(order.facts) if parts else iter(())
    else:
        found = iter(images)
    segments = encoding.gathered(encoding.encode(found, lambda name: order.facts[name]), room)
    # A process of Ray may serve something else afterwards, with all threads.
    with threads.limited_threads(1), tempfile.TemporaryDirectory(prefix="asmk-engine-") as scratch:
        return [BuiltSegment.of(contents, encoding.codebook.words, Path(scratch)) for contents in segments]


def _are_here(parts: Sequence[tuple[str, int]]) -> bool:
    try:
        return all(Path(path).stat().st_size == size for path, size in parts)
    except OSError:
        return False


class ClusterBuilder:
    """Builds segments on a cluster, see `SegmentBuilder`; `ray` is the connected package."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(build_segments)

    def build(
        self, features: IdentifiedSource, names: Sequence[str], facts: Facts, encoding: SegmentEncoding, room: int
    ) -> Iterator[BuiltSegment]:
        """Yield segments of the images of these names, in the order of the features, each of about `room` postings.

        Features on storage that the nodes see are read there, others are sent.
        """
        ray, waiting = self._ray, deque[tuple[Any, SegmentOrder]]()
        codebook = replace(encoding.codebook)  # without what it has computed for itself
        with ray_errors("the codebook of an index"):
            common = (ray.put(replace(encoding, codebook=codebook)), room, versions())
        ahead = AHEAD + max(1, int(ray.cluster_resources().get("CPU", 1)))
        sees = isinstance(features, FeatureSet)
        for order in _orders(features, names, facts, room):
            sent = order if sees else _whole(order, features)
            waiting.append((self._task.remote(sent, *common), order))
            if len(waiting) >= ahead:
                built = self._result(waiting.popleft(), features, common)
                sees = sees and built[1]
                yield from built[0]
        while waiting:
            yield from self._result(waiting.popleft(), features, common)[0]

    def _result(
        self, asked: tuple[Any, SegmentOrder], features: IdentifiedSource, common: tuple[Any, ...]
    ) -> tuple[list[BuiltSegment], bool]:
        """Return the segments of an order, and whether the node saw the files."""
        answer, order = asked
        with ray_errors("a segment"):
            built = self._ray.get(answer)
            if built is not None:
                return built, True
            return self._ray.get(self._task.remote(_whole(order, features), *common)), False


def _whole(order: SegmentOrder, features: IdentifiedSource) -> SegmentOrder:
    return replace(order, images=list(features.images(list(order.facts))))


def _orders(features: IdentifiedSource, names: Sequence[str], facts: Facts, room: int) -> Iterator[SegmentOrder]:
    """Divide images into orders of at least `room` features, which is the most postings they can have."""
    parts: dict[str, int] = {}
    held: dict[str, tuple[int, int]] = {}
    count = 0
    for path, some in features.parts_of(names) if isinstance(features, FeatureSet) else [(None, list(names))]:
        for name in some:
            if path is not None:
                parts[str(path.resolve())] = path.stat().st_size
            held[name] = facts(name)
            count += features.count(name)
            if count >= room:
                yield SegmentOrder(list(parts.items()), held)
                parts, held, count = {}, {}, 0
    if held:
        yield SegmentOrder(list(parts.items()), held)
