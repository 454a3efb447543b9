"""Several fused indexes searched as one, without copying; see `indexes.joint`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from asmk_engine.fused.queries import FusedExtractor, KindView
from asmk_engine.fused.snapshot import FusedSnapshot
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.photographs import extractor_of


class JointFusedIndex(JointIndex[FusedSnapshot]):
    """A read-only view of several fused indexes that a searcher treats as one; weights are those of the first."""

    @functools.cached_property
    def extractor(self) -> FusedExtractor:  # type: ignore[override]
        """The extractors of all kinds, see `FusedIndex.extractor`."""
        views = [KindView(self, number) for number in range(len(self.snapshot.encoder.kinds))]
        return FusedExtractor(tuple(extractor_of(view.recipe, view.network, self.feature_places) for view in views))

    def kind_network(self, number: int) -> Path | None:
        """Return the network file of a kind in the first index that contains one, or None."""
        indexes: list[Any] = [*self._indexes, *self._distractors]
        found = (index.kind_network(number) for index in indexes)
        return next((path for path in found if path), None)
