"""Features of a query, which is the name of an indexed image, an image file, or the query of a ground truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.evaluation.names import match_names
from asmk_engine.features import Features
from asmk_engine.fused.queries import FusedExtractor, FusedFeatures, FusedNamedImages, content_of, gathered
from asmk_engine.fused.snapshot import Fusion
from asmk_engine.images.boxes import Box
from asmk_engine.images.listing import find_images
from asmk_engine.indexes.named_images import NamedImages, QueriedIndex, looked_in
from asmk_engine.recipes import IMPORTED


class QuerySource(NamedImages):
    """Finds or extracts the features of queries to an index, those of a ground truth among them; see `NamedImages`."""

    def __init__(
        self,
        index: QueriedIndex,
        *,
        features: Path | str | None = None,
        images_roots: Sequence[Path | str] = (),
    ) -> None:
        super().__init__(index, features=features, images_roots=images_roots)
        self._photographs: dict[Path, list[str]] = {}

    def ground_truth_features(self, name: str, box: Box | None) -> Features:
        """Return the features of a ground truth query, whose name may lack the extension of the photograph."""
        if name in self.index:
            return self.features(name, box)[0]
        # There is no extractor for imported features: those of a query are already of its region.
        if self.index.recipe.extractor == IMPORTED and (found := self.of_set(name)) is not None:
            return found
        return self.extractor.extract(self._photograph(name), box=box)

    def ground_truth_photograph(self, name: str) -> Path:
        """Return the path of the photograph of an indexed image or a query, whose name may lack the extension.

        Raises what `image_path` raises, and NotFoundError if a query that is not indexed is in no image folder.
        """
        return self.image_path(name) if name in self.index else self._photograph(name)

    def _photograph(self, name: str) -> Path:
        """Find the photograph of a query that is not indexed, in the image folders; raises NotFoundError."""
        roots = [root for root in self.folders if os.path.isdir(root) and str(root) != root.anchor]
        for root in roots:
            if root not in self._photographs:  # listed once: there may be a hundred thousand
                self._photographs[root] = _names_below(root)
            if match := match_names([name], self._photographs[root]):
                return root / match[name]
        raise NotFoundError(
            f"the photograph of query {name!r} is not indexed and not {looked_in(roots)}; give its folder with --images"
        )


class FusedQuerySource(FusedNamedImages):
    """Finds or extracts the features of queries of a fused index, those of a ground truth among them."""

    source = QuerySource

    @property
    def extractor(self) -> FusedExtractor:
        """The extractors of all kinds."""
        extractor: FusedExtractor = self.index.extractor
        return extractor

    def ground_truth_features(self, name: str, box: Box | None) -> FusedFeatures:
        """Return the features of a ground truth query, see `QuerySource.ground_truth_features`."""
        if name in self.index:
            return self.named(name, box)
        sources: list[Any] = self.sources
        each = [partial(source.ground_truth_features, name, box) for source in sources]
        try:
            return gathered(each, content_of(sources[0]._photograph(name)))
        except NotFoundError:  # imported features of the query, or none, as the sources say
            return gathered(each, 0)

    def ground_truth_photograph(self, name: str) -> Path:
        """Return the path of a photograph, see `QuerySource.ground_truth_photograph`."""
        first: Any = self.sources[0]
        found: Path = first.ground_truth_photograph(name)
        return found


def query_source(
    index: Any, *, features: Path | str | None = None, images_roots: Sequence[Path | str] = ()
) -> QuerySource | FusedQuerySource:
    """Return the source of query features of an index of any kind, or of several as one; options as `NamedImages`."""
    is_fused = isinstance(index.snapshot.encoder, Fusion)
    return (FusedQuerySource if is_fused else QuerySource)(index, features=features, images_roots=images_roots)


def _names_below(folder: Path) -> list[str]:
    """Return the names of the photographs below a folder; none if it cannot be listed."""
    try:
        return [image.name for image in find_images([folder], every_file=True).images]
    except InputError:
        return []
