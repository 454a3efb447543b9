"""Search in a fused index: every kind ranks the images, and their scores are fused, see `scores`."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from asmk_engine.errors import MismatchError
from asmk_engine.flat.search import Expansion, GlobalSearcher
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.joint import JointFusedIndex
from asmk_engine.fused.queries import FusedFeatures, FusedNamedImages, KindView
from asmk_engine.fused.scores import fused, shares
from asmk_engine.fused.snapshot import FusedSnapshot
from asmk_engine.indexes.manifest import GLOBAL_KIND, KindEntry
from asmk_engine.indexes.ranking import BestImages, Part, best_images
from asmk_engine.indexes.searcher import IndexSearcher, Places
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.inverted.statistics import WordStatistics
from asmk_engine.verification.match import Match
from asmk_engine.verification.reranking import Comparison, Reranking


class KindsSearcher(IndexSearcher[Any, FusedFeatures]):
    """What all searchers of fused indexes do kind by kind: they make queries ready, verify images, expand queries.

    index      with the commits of its kinds as `views`
    searchers  of each kind, in the order of the index
    weights    one of 0 or more for each kind; by default those that the index stores
    """

    group_size = 1  # the scores of all images are in memory, once for each kind
    kinds = (FusedFeatures,)

    def __init__(
        self, index: Any, searchers: Sequence[Any], weights: Sequence[float] | None, threads: int | None
    ) -> None:
        super().__init__(index, threads)
        if weights is not None:
            shares(weights, len(searchers), "kinds of features")
        self._searchers, self._weights = list(searchers), weights

    @property
    def weights(self) -> list[float]:
        """The weight of each kind, with the sum 1."""
        entries = self.kind_entries
        given = [entry.weight for entry in entries] if self._weights is None else self._weights
        return shares(given, len(entries), "kinds of features")

    @property
    @abc.abstractmethod
    def kind_entries(self) -> Sequence[KindEntry]:
        """The kinds of the current commit, as in the manifest."""

    def ready(self, snapshot: Any, query: FusedFeatures, count: int) -> FusedFeatures:
        """Make the features of each kind ready, as in `IndexSearcher`."""
        parts: list[Any] = list(query.parts)
        for kind, searcher, view, part in self._local(snapshot, query):
            parts[kind] = searcher.ready(view, part, count)
        return replace(query, parts=tuple(parts))

    def matches_of(
        self,
        snapshot: Any,
        query: FusedFeatures,
        images: Places,
        options: Comparison,
        count: int,
    ) -> list[list[Match | None]]:
        """Verify images, as in `IndexSearcher`, by every kind of local features that the query has."""
        local = [
            searcher.matches_of(view, part, images, options, count)
            for _, searcher, view, part in self._local(snapshot, query)
        ]
        if not local:
            return [[None] * len(images[0])]
        return [matches for kinds in local for matches in kinds]

    def local_extractors(self, snapshot: Any) -> list[str]:
        """Return the extractor of each kind of local features, as in `IndexSearcher`."""
        kinds = zip(self.kind_entries, snapshot.encoder.kinds, strict=True)
        return [kind.recipe.extractor for entry, kind in kinds if entry.kind != GLOBAL_KIND]

    def expanded(
        self,
        snapshot: Any,
        query: FusedFeatures,
        images: Places,
        matches: list[list[Match | None]],
        reranking: Reranking,
    ) -> FusedFeatures | None:
        """Expand each kind of local features by the images that its own places verify, as in `IndexSearcher`."""
        parts, is_expanded = list(query.parts), False
        for (kind, searcher, view, part), of_kind in zip(self._local(snapshot, query), matches, strict=False):
            wider = searcher.expanded(view, part, images, [of_kind], reranking)
            if wider is not None:
                parts[kind], is_expanded = wider, True
        return replace(query, parts=tuple(parts)) if is_expanded else None

    def _present(self, snapshot: Any, query: FusedFeatures) -> Iterator[tuple[int, Any, Any, Any]]:
        """Yield the kinds of features that a query has: number, searcher, commit and features."""
        if len(query.parts) != len(self._searchers):
            raise MismatchError(
                f"the query has features of {len(query.parts)} kinds, the index {self.index.path} has "
                f"{len(self._searchers)}; give one part for each kind, or None"
            )
        for kind, (searcher, view, part) in enumerate(zip(self._searchers, snapshot.views, query.parts, strict=True)):
            if part is not None and len(part):
                yield kind, searcher, view, part

    def _local(self, snapshot: Any, query: FusedFeatures) -> Iterator[tuple[int, Any, Any, Any]]:
        """Yield as `_present` the kinds of local features."""
        entries = self.kind_entries
        return (one for one in self._present(snapshot, query) if entries[one[0]].kind != GLOBAL_KIND)

    def _names(self) -> FusedNamedImages:
        return FusedNamedImages(self.index)


class FusedSearcher(KindsSearcher):
    """Ranks the images of a fused index, or of several searched as one, by their fused scores.

    Parameters
    ----------
    index : FusedIndex or JointFusedIndex
        The index to search.
    match, multiple_assignment
        As for `Searcher`, for the kinds of local features.
    expansion, device
        As for `GlobalSearcher`, for the kinds of global descriptors.
    weights : sequence of float, optional
        One of 0 or more for each kind, in the order of the index; by default those that the index stores.
    statistics : sequence of WordStatistics or None, optional
        For each kind, as for `Searcher`.
    threads : int, optional
        Threads of a search, all available by default; results do not depend on it.

    Raises
    ------
    InputError
        If the number of weights is not that of the kinds, one is negative, or all are 0.

    Notes
    -----
    Images that no kind with a weight above 0 finds are not returned.
    """

    def __init__(
        self,
        index: FusedIndex | JointFusedIndex,
        match: SelectiveMatch | None = None,
        *,
        multiple_assignment: int = 5,
        expansion: Expansion | None = None,
        weights: Sequence[float] | None = None,
        device: str = "auto",
        threads: int | None = None,
        statistics: Sequence[WordStatistics | None] | None = None,
    ) -> None:
        entries = index.snapshot.manifest.kinds
        searchers: list[IndexSearcher[Any, Any]] = []
        for number, entry in enumerate(entries):
            view: Any = KindView(index, number)
            if entry.kind == GLOBAL_KIND:
                searchers.append(GlobalSearcher(view, expansion, device=device, threads=threads))
            else:
                counted = None if statistics is None else statistics[number]
                searchers.append(
                    Searcher(
                        view, match, multiple_assignment=multiple_assignment, threads=threads, statistics=counted
                    )
                )
        super().__init__(index, searchers, weights, threads)
        self.multiple_assignment = multiple_assignment

    @property
    def kind_entries(self) -> Sequence[KindEntry]:
        """The kinds of the current commit, as in the manifest."""
        entries: Sequence[KindEntry] = self.index.snapshot.manifest.kinds
        return entries

    def images_by_kind(
        self, snapshot: FusedSnapshot, query: FusedFeatures, count: int
    ) -> list[tuple[float, list[Part]]]:
        """Return for each kind of the query, with a weight above 0, its share and the images that it finds."""
        weights = self.weights
        return [
            (weights[kind], searcher.all_images(view, part, count))
            for kind, searcher, view, part in self._present(snapshot, query)
            if weights[kind]
        ]

    def _best(
        self, snapshot: FusedSnapshot, queries: Sequence[FusedFeatures], top: int | None, count: int
    ) -> list[BestImages]:
        return [best_images(snapshot.segments, self._all(snapshot, query, count), top) for query in queries]

    def _all(self, snapshot: FusedSnapshot, query: FusedFeatures, count: int) -> list[Part]:
        return list(fused(snapshot.segments, self.images_by_kind(snapshot, query, count), query.fingerprint))
