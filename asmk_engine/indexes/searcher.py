"""Search in an index of any kind: one query or many, with results by name or as numbers."""

from __future__ import annotations

import abc
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeGuard, TypeVar, overload

import numpy as np

from asmk_engine.errors import AsmkError, AsmkWarning, InputError, NotFoundError
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.answers import Hit, RankedImages, decoded
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.calibrations import StoredCalibration, read_calibration
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.indexes.numbering import image_numbers, image_starts, name_ranks
from asmk_engine.indexes.photographs import Photograph, described, is_photograph
from asmk_engine.indexes.ranking import BestImages, Part, ordered
from asmk_engine.indexes.snapshot import Commit
from asmk_engine.storage.folder import Folder
from asmk_engine.threads import run, thread_count
from asmk_engine.verification.match import Match
from asmk_engine.verification.reranking import Comparison, Reranking, reranked, reranking_of
from asmk_engine.verification.verdict import Calibration, constants_of, is_judged

View = TypeVar("View", bound=Commit[Any, Any])
QueryT = TypeVar("QueryT")
Ranked = TypeVar("Ranked")
Places = tuple[np.ndarray, np.ndarray]
"""Images by the positions of their segments and their numbers in them, both [m] int64."""


class IndexSearcher(abc.ABC, Generic[View, QueryT]):
    """Ranks the images of an index or a joint index for a query; a subclass implements `_best` and `_all`.

    group_size  number of queries that are scored together
    kinds       types of a query besides photographs
    """

    group_size: ClassVar[int]
    kinds: ClassVar[tuple[type, ...]]

    def __init__(self, index: Collection[View, Any] | JointIndex[View], threads: int | None) -> None:
        self.index = index
        self._requested_threads = threads
        self._name_ranks: weakref.WeakKeyDictionary[View, np.ndarray] = weakref.WeakKeyDictionary()
        self._named: weakref.WeakKeyDictionary[View, Any] = weakref.WeakKeyDictionary()
        self._count(None)

    @overload
    def search(
        self,
        query: QueryT | Photograph,
        top: int | None = 10,
        *,
        box: Box | None = None,
        threads: int | None = None,
        rerank: int | Reranking | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: Iterable[QueryT | Photograph],
        top: int | None = 10,
        *,
        box: Box | None = None,
        threads: int | None = None,
        rerank: int | Reranking | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: QueryT | Photograph | Iterable[QueryT | Photograph],
        top: int | None = 10,
        *,
        box: Box | None = None,
        threads: int | None = None,
        rerank: int | Reranking | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Find the best images for one or several queries.

        Parameters
        ----------
        query : photograph, Features, Signature, or iterable of these
            A photograph is described as the images of the index were, by `index.extractor`: a `str` or `Path`, which is
            always a file and never the name of an indexed image; an image of Pillow; or a uint8 array of shape
            (H, W, 3), RGB, or (H, W), upright. A `GlobalSearcher` takes no signatures, and features of one descriptor.
            Several queries, of any of these types, keep all threads busy.
        top : int or None, default 10
            Number of images, all that the class returns if None.
        box : tuple of float, optional
            x1, y1, x2, y2 in pixels of the upright photograph: only this region is described. For one photograph only.
        threads : int, optional
            Replaces the `threads` of the searcher.
        rerank : int or Reranking, optional
            Number of images, or all options: the first images are verified by the places of their features and ranked
            anew. Their geometry comes from the index, or else from the feature set that it remembers. By places with
            default options they also get a verdict and a probability, see `Hit`.

        Returns
        -------
        list of Hit, or list of list of Hit
            The images, best first, equal scores in byte order of the names; one list per query for an iterable.

        Raises
        ------
        InputError
            If `top` is less than 1, a query is of another type, a photograph cannot be decoded, the box is not inside
            it or given for features, or photographs cannot be described because the index is of arrays or of features
            of another program.
        NotFoundError
            If a file, or the weights of the network, do not exist.
        StorageError
            If a file cannot be read.

        Examples
        --------
        >>> from asmk_engine import Index, Searcher
        >>> searcher = Searcher(Index.open("photos.index"))  # doctest: +SKIP
        >>> hits = searcher.search("query.jpg", top=5, box=(100, 50, 400, 380))  # doctest: +SKIP
        """
        check_top(top)
        count, reranking = self._count(threads), reranking_of(rerank)
        if self._is_query(query) or is_photograph(query):
            return self._search_group([self._taken(query, box)], top, count, reranking)[0]
        if not isinstance(query, Iterable) or isinstance(query, bytes):
            raise self._other(query)
        if box is not None:
            raise InputError("a box is a region of one photograph; search for photographs with boxes one by one")
        waiting = (self._taken(one, None) for one in query)
        size = self.group_size if top is not None else 1  # rankings of all images are large: one at a time
        groups = iter(lambda: list(itertools.islice(waiting, size)), [])
        return [hits for group in groups for hits in self._search_group(group, top, count, reranking)]

    def search_name(
        self,
        name: str,
        top: int | None = 10,
        *,
        box: Box | None = None,
        threads: int | None = None,
        rerank: int | Reranking | None = None,
    ) -> list[Hit]:
        """Find the best images for an image of the index, which is usually the first of them.

        Its features are those of the recorded feature set, or extracted again from the photograph; in both cases only
        if the content is that of the indexed image.

        Parameters
        ----------
        name : str
            Name of an image of the index.
        top, box, threads, rerank
            As for `search`.

        Returns
        -------
        list of Hit
            The images, best first.

        Raises
        ------
        NotFoundError
            If there is no image of this name, or neither its features nor its photograph are found.
        MismatchError
            If the photograph changed since it was indexed.
        InputError
            As for `search`.
        """
        check_top(top)
        snapshot = self.index.snapshot
        if snapshot not in self._named:
            self._named[snapshot] = self._names()
        query = self._named[snapshot].named(name, box)
        if not self._is_query(query):
            raise self._other(query)
        return self._search_group([query], top, self._count(threads), reranking_of(rerank))[0]

    def scores(self, query: QueryT | Photograph) -> dict[str, float]:
        """Return the score of every live image.

        Parameters
        ----------
        query : photograph, Features or Signature
            As for `search`.

        Returns
        -------
        dict of str to float
            Score by name; 0 for images that `search` does not return.
        """
        found = {hit.name: hit.score for hit in self.search(query, None)}
        return {name: found.get(name, 0.0) for name in self.index.snapshot.names()}

    def rank(
        self, query: QueryT | Photograph, *, threads: int | None = None, rerank: int | Reranking | None = None
    ) -> RankedImages:
        """Rank all images of `search(query, None)`, in its order, as numbers.

        Much faster for large indexes, because no name is read.

        Parameters
        ----------
        query : photograph, Features or Signature
            As for `search`.
        threads : int, optional
            Replaces the `threads` of the searcher.
        rerank : int or Reranking, optional
            As for `search`.

        Returns
        -------
        RankedImages
            Numbers, which `image_numbers` maps from names, and scores.
        """
        snapshot, reranking, count = self.index.snapshot, reranking_of(rerank), self._count(threads)
        taken = self._taken(query, None)
        if reranking is not None:
            taken = self.ready(snapshot, taken, count)
        if snapshot not in self._name_ranks:
            self._name_ranks[snapshot] = name_ranks(snapshot.segments)
        starts = image_starts(snapshot.segments)

        def found(asked: QueryT) -> tuple[RankedImages, Places]:
            ranked = ordered(self._all(snapshot, asked, count), starts, self._name_ranks[snapshot])
            first = ranked.numbers[: reranking.images if reranking else 0]
            segments = np.searchsorted(starts, first, side="right") - 1
            return ranked, (segments, first - starts[segments])

        if reranking is None:
            return found(taken)[0]
        ranked, matches = self._verified(snapshot, taken, found, reranking, count)
        order, scores = reranked(ranked.scores, matches, reranking)
        return RankedImages(ranked.numbers[order], scores)

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Return the numbers of images as used by `rank`.

        Parameters
        ----------
        names : iterable of str
            Names of images.

        Returns
        -------
        dict of str to int
            Number by name, for those names that are live images.
        """
        return image_numbers(self.index.snapshot, names)

    def all_images(self, snapshot: View, query: QueryT, threads: int) -> list[Part]:
        """Return all images that `search(query, None)` returns, in any order, for a searcher of several indexes."""
        return self._all(snapshot, query, threads)

    def best_of(self, snapshot: View, queries: Sequence[QueryT], top: int | None, threads: int) -> list[BestImages]:
        """Return the images that `search` returns for each query, as numbers, for a searcher that ranks them anew."""
        return self._best(snapshot, queries, top, threads)

    @abc.abstractmethod
    def _best(self, snapshot: View, queries: Sequence[QueryT], top: int | None, count: int) -> list[BestImages]:
        """Find the best images for each query, with `count` threads."""

    @abc.abstractmethod
    def _all(self, snapshot: View, query: QueryT, count: int) -> list[Part]:
        """Find all images that a search returns, in any order, with `count` threads."""

    def _names(self) -> Any:
        """Return what finds the features of indexed images by their names."""
        return NamedImages(self.index)

    def _is_query(self, given: object) -> TypeGuard[QueryT]:
        return isinstance(given, self.kinds)

    def _taken(self, query: object, box: Box | None) -> QueryT:
        """Return a query as it is, or the features of a photograph."""
        if is_photograph(query):
            query = self._described(query, box)
        elif box is not None and self._is_query(query):
            raise InputError("a box is a region of a photograph, not of features; extract the features of the region")
        if not self._is_query(query):
            raise self._other(query)
        return query

    def _described(self, photograph: Photograph, box: Box | None) -> object:
        try:
            return described(photograph, self.index.extractor, box)
        except NotFoundError as error:
            if isinstance(photograph, str) and photograph in self.index:
                raise NotFoundError(f"{error}; for the indexed image of this name use search_name") from None
            raise

    def _other(self, query: object) -> InputError:
        kinds = ", ".join(kind.__name__ for kind in self.kinds)
        return InputError(
            f"a query is a {type(query).__name__}; expected {kinds}, a file, an image of Pillow, uint8 pixels, or an "
            "iterable of these"
        )

    def _count(self, threads: int | None) -> int:
        return thread_count(self._requested_threads if threads is None else threads)

    def _search_group(
        self, queries: Sequence[QueryT], top: int | None, count: int, reranking: Reranking | None
    ) -> list[list[Hit]]:
        snapshot = self.index.snapshot
        if reranking is None:
            return [_hits(best) for best in self._best(snapshot, queries, top, count)]
        depth = top if top is None else max(top, reranking.images)
        queries = run(lambda query: self.ready(snapshot, query, count), queries, count)
        found = self._best(snapshot, queries, depth, count)
        return [
            self._reranked(snapshot, query, best, depth, reranking, count)[:top]
            for query, best in zip(queries, found, strict=True)
        ]

    def _reranked(
        self, snapshot: View, query: QueryT, first: BestImages, depth: int | None, reranking: Reranking, count: int
    ) -> list[Hit]:
        def found(asked: QueryT) -> tuple[BestImages, Places]:
            best = first if asked is query else self._best(snapshot, [asked], depth, count)[0]
            return best, (best.segments[: reranking.images], best.numbers[: reranking.images])

        best, matches = self._verified(snapshot, query, found, reranking, count)
        order, scores = reranked(best.scores, matches, reranking)
        of_image: list[tuple[Match | None, ...]] = list(zip(*matches, strict=True))
        calibration = self.calibration() if is_judged(reranking.verification) else None
        return [
            _verified_hit(decoded(best.names[row]), score, of_image[row], calibration)
            if row < len(of_image)
            else Hit(decoded(best.names[row]), score)
            for row, score in zip(order.tolist(), scores.tolist(), strict=True)
        ]

    def _verified(
        self,
        snapshot: View,
        query: QueryT,
        found: Callable[[QueryT], tuple[Ranked, Places]],
        reranking: Reranking,
        count: int,
    ) -> tuple[Ranked, list[list[Match | None]]]:
        """Rank and verify, and again with the expanded query; returns the last ranking and its matches with the query.

        found  ranks for a query; returns also the first images
        """
        ranked, images = found(query)
        matches = self.matches_of(snapshot, query, images, reranking.verification, count)
        for _ in range(reranking.expansions):
            wider = self.expanded(snapshot, query, images, matches, reranking)
            if wider is None:
                break
            ranked, images = found(wider)
            matches = self.matches_of(snapshot, query, images, reranking.verification, count)
        return ranked, matches

    def ready(self, snapshot: View, query: QueryT, count: int) -> QueryT:
        """Return a query with what both its ranking and its verification need, computed once with `count` threads."""
        return query

    def matches_of(
        self, snapshot: View, query: QueryT, images: Places, options: Comparison, count: int
    ) -> list[list[Match | None]]:
        """Compare images with the query; returns a list of matches for each kind of local features."""
        raise InputError(
            f"{self.index.path}: global descriptors have no places, so nothing can be verified; leave the "
            "re-ranking out, or index local features"
        )

    def calibration(self) -> Calibration:
        """Return what gives the answers their verdicts: what was learned from the index, or constants of the package.

        Several indexes searched as one have the constants. Warns, and returns them, if the file of an index is damaged.
        """
        try:
            stored = self.stored_calibration()
        except AsmkError as error:
            warnings.warn(f"{error}; verdicts are by the constants of the package", AsmkWarning, stacklevel=2)
            stored = None
        return stored.calibration if stored else constants_of(self.local_extractors(self.index.snapshot))

    def stored_calibration(self) -> StoredCalibration | None:
        """Return the calibration of the index, None if it has none, or is several; raises as `read_calibration`."""
        if not isinstance(self.index, Collection):
            return None
        return read_calibration(Folder(self.index.path), self.index.snapshot.manifest)

    def local_extractors(self, snapshot: View) -> list[str]:
        """Return the name of the extractor of each kind of local features."""
        return []

    def expanded(
        self, snapshot: View, query: QueryT, images: Places, matches: list[list[Match | None]], reranking: Reranking
    ) -> QueryT | None:
        """Return the query joined by the images that surely show the same thing, None if there are none."""
        return None


def _hits(best: BestImages) -> list[Hit]:
    return [Hit(decoded(name), score) for name, score in zip(best.names, best.scores.tolist(), strict=True)]


def _verified_hit(name: str, score: float, matches: tuple[Match | None, ...], calibration: Calibration | None) -> Hit:
    verdict, probability = (None, None) if calibration is None else calibration.judged(matches)
    return Hit(name, score, matches, verdict=verdict, probability=probability)


class RerankingSearcher(Generic[QueryT]):
    """Ranks images like another searcher, and the first of them anew by their matches; for `evaluate_index`.

    searcher  of an index of local features
    """

    def __init__(self, searcher: IndexSearcher[Any, QueryT], reranking: int | Reranking) -> None:
        self.searcher, self._reranking = searcher, reranking
        self.index = searcher.index

    def search(self, query: Any, top: int | None = 10) -> Any:
        """Find the best images for one query or several, as `IndexSearcher.search`."""
        return self.searcher.search(query, top, rerank=self._reranking)

    def rank(self, query: QueryT) -> RankedImages:
        """Rank all images as numbers, as `IndexSearcher.rank`."""
        return self.searcher.rank(query, rerank=self._reranking)

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Return the numbers of images as used by `rank`."""
        return self.searcher.image_numbers(names)


def check_top(top: int | None) -> None:
    """Raise InputError if the number of images to return is less than 1."""
    if top is not None and top < 1:
        raise InputError(f"top is {top}; give 1 or more, or leave it out for all")
