"""The automatic stages: candidates of each query, and which of them are verified.

Both keep what they found in pieces with checksums, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.audit.described import DescribedSide, QueryFeatures, describe, index_of
from asmk_engine.audit.options import SIFT, AuditOptions
from asmk_engine.audit.refusals import refuse_second_features, refuse_vectors
from asmk_engine.audit.sets import AuditedSet, AuditQuery
from asmk_engine.audit.verifying import PlacesVerifier, SiftVerifier, Verifier
from asmk_engine.errors import NotFoundError
from asmk_engine.extraction.attempts import file_stamp
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.groups.journal import PieceJournal
from asmk_engine.iteration import Display
from asmk_engine.pipeline.extractor_choice import ExtractionOptions
from asmk_engine.search.opening import plain_searcher
from asmk_engine.threads import thread_count
from asmk_engine.verification.match import Match

TOGETHER = 16
"""Queries of a piece."""
Piece = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class AuditStage:
    """What the stages of one training set have in common.

    training    the training set
    queries     the queries
    options     of the audit
    extraction  how the features of the candidates are made
    verified_by how local features for the verification are made, where those of the candidates do not serve
    work        folder of what is kept between runs
    threads     number of threads; None for all
    display     where messages and progress are shown
    """

    training: AuditedSet
    queries: Sequence[AuditQuery]
    options: AuditOptions
    extraction: ExtractionOptions
    verified_by: ExtractionOptions
    work: Path
    threads: int | None
    display: Display

    @property
    def digest(self) -> str:
        """What the pieces depend on besides the index: the queries, their files, and the order of the images."""
        names = (image.name for image in self.training.images)
        asked = (f"{one.name}\1{one.box}\1{file_stamp(one.path)}" for one in self.queries)
        text = "\0".join([*names, "", *asked])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class VerifiedCandidate:
    """A query and a training image, by their places, with the score, the evidence and the match."""

    query: int
    image: int
    score: float
    evidence: float
    match: Match


@dataclass(frozen=True, eq=False)
class Verified:
    """The pairs whose evidence suffices, how many were verified, how many pass by chance, and what was unreadable."""

    pairs: tuple[VerifiedCandidate, ...]
    verified: int
    chance: int
    unread: dict[str, str]


def find_pairs(stage: AuditStage) -> Verified:
    """Find the pairs of queries and training images that the automatic stages take for the same thing.

    Raises NotFoundError if no query can be described, InputError for extractors that do not fit, and what extraction
    and indexing raise.
    """
    side = describe(stage.training.images, stage.queries, stage.work / "train.features", stage.extraction,
                    stage.display)  # fmt: skip
    refuse_second_features(side.features.recipe, stage.verified_by)
    index = index_of(side.features, stage.work / "train.index", stage.display)
    manifest, key = index.snapshot.manifest, f"{stage.digest}, top {stage.options.top}"
    with PieceJournal(stage.work / "candidates", manifest, key) as journal:
        search = plain_searcher(index)
        candidates = _pieces(stage, journal, "candidates", lambda place: _candidates(stage, side, search, place))
    if not any(len(piece["images"]) for piece in candidates) and not _any_described(stage, side.queries):
        raise NotFoundError(f"none of {len(stage.queries)} queries can be described; see whether they are photographs")
    verifier, queries, unread = _verifier(stage, side, index, candidates)
    least = stage.options.evidence or verifier.least
    key = f"{key}, {stage.options.verification}, evidence {least}, {stage.verified_by}"
    with PieceJournal(stage.work / "pairs", manifest, key) as journal:

        def verified(place: int) -> Piece:
            return _verified(stage, queries, verifier, candidates[place], place, least)

        pieces = _pieces(stage, journal, "verified", verified)
    pairs = tuple(pair for piece in pieces for pair in _pairs_of(piece))
    compared, chance = (sum(int(piece[name][0]) for piece in pieces) for name in ("compared", "chance"))
    return Verified(pairs, compared, chance, side.unread | unread)


def _any_described(stage: AuditStage, queries: QueryFeatures) -> bool:
    return any(queries.of(query) is not None for query in stage.queries)


def _pieces(stage: AuditStage, journal: PieceJournal, what: str, make: Callable[[int], Piece]) -> list[Piece]:
    count = -(-len(stage.queries) // TOGETHER)
    found = []
    with stage.display.bar(what, "queries") as progress:
        for place in range(count):
            found.append(journal.piece(what, place, partial(make, place)))
            progress(min((place + 1) * TOGETHER, len(stage.queries)), len(stage.queries))
    return found


def _of_piece(stage: AuditStage, place: int) -> Iterator[tuple[int, AuditQuery]]:
    first = place * TOGETHER
    yield from enumerate(stage.queries[first : first + TOGETHER], start=first)


def _candidates(stage: AuditStage, side: DescribedSide, searcher: Any, place: int) -> Piece:
    """Return the nearest training images of the queries of a piece: query, image [n] int64, and score [n]."""
    rows: list[tuple[int, int, float]] = []
    for number, query in _of_piece(stage, place):
        features = side.queries.of(query)
        if features is None or not len(features):
            continue
        hits = searcher.search(features, stage.options.top, threads=stage.threads)
        known = ((stage.training.places.get(hit.name), hit.score) for hit in hits)
        rows += [(number, image, score) for image, score in known if image is not None]
    table = np.array(rows, np.float64).reshape(-1, 3)
    return {"queries": table[:, 0].astype(np.int64), "images": table[:, 1].astype(np.int64), "scores": table[:, 2]}


def _verifier(
    stage: AuditStage, side: DescribedSide, index: Any, candidates: Sequence[Piece]
) -> tuple[Verifier, QueryFeatures, dict[str, str]]:
    """Return what verifies, the features of the queries for it, and what could not be described.

    Where the features of the candidates do not serve, only the candidates are described anew.
    """
    count, by_sift = thread_count(stage.threads), stage.options.verification == SIFT
    if by_sift and side.features.recipe.extractor == "rootsift":
        return SiftVerifier(side.features, count), side.queries, {}
    if not by_sift and not isinstance(index, GlobalIndex):
        return PlacesVerifier(index, count), side.queries, {}
    chosen = np.unique(np.concatenate([piece["images"] for piece in candidates]))
    images = [stage.training.images[place] for place in chosen.tolist()]
    how = ExtractionOptions("rootsift", workers=stage.extraction.workers) if by_sift else stage.verified_by
    place = stage.work / ("sift.features" if by_sift else "local.features")
    local = describe(images, stage.queries, place, how, stage.display)
    if by_sift:
        return SiftVerifier(local.features, count), local.queries, local.unread
    refuse_vectors(local.features.recipe)
    local_index = index_of(local.features, stage.work / "local.index", stage.display)
    return PlacesVerifier(local_index, count), local.queries, local.unread


def _verified(
    stage: AuditStage,
    queries: QueryFeatures,
    verifier: Verifier,
    piece: Mapping[str, np.ndarray],
    place: int,
    least: float,
) -> Piece:
    """Verify the candidates of the queries of a piece; see `_packed`."""
    found: list[VerifiedCandidate] = []
    compared = chance = 0
    for number, query in _of_piece(stage, place):
        of_query = np.flatnonzero(piece["queries"] == number)
        features = queries.of(query) if len(of_query) else None
        if features is None or not len(features):
            continue
        images, scores = piece["images"][of_query].tolist(), piece["scores"][of_query].tolist()
        names = [stage.training.images[image].name for image in images]
        comparisons = verifier.compare(features, names)
        compared += len(names)
        chance += sum(one.evidence < least <= one.mirrored for one in comparisons)
        for image, score, one in zip(images, scores, comparisons, strict=True):
            if one.match is not None and one.evidence >= least:
                found.append(VerifiedCandidate(number, image, score, one.evidence, one.match))
    found.sort(key=lambda one: (one.query, -one.evidence))
    return {**_packed(found), "compared": np.array([compared]), "chance": np.array([chance])}


def _packed(found: Sequence[VerifiedCandidate]) -> Piece:
    """Return pairs as arrays; the inliers of all, x, y in the query and in the image and a weight, lie in one table."""
    matches = [one.match for one in found]
    inliers = [np.column_stack([one.query_points, one.points, one.weights]) for one in matches]
    return {
        "places": np.array([(one.query, one.image) for one in found], np.int64).reshape(-1, 2),
        "scores": np.array([(one.score, one.evidence) for one in found], np.float64).reshape(-1, 2),
        "counts": np.array([(one.inliers, one.places, one.pairs, one.is_copy) for one in matches], np.int64).reshape(
            -1, 4
        ),
        "sizes": np.array([(*one.query_size, *one.size) for one in matches], np.int64).reshape(-1, 4),
        "inliers": np.concatenate([np.empty((0, 5)), *inliers]),
    }


def _pairs_of(piece: Piece) -> Iterator[VerifiedCandidate]:
    begin = 0
    for row in range(len(piece["places"])):
        (query, image), (score, evidence) = piece["places"][row].tolist(), piece["scores"][row].tolist()
        inliers, places, pairs, is_copy = piece["counts"][row].tolist()
        table = piece["inliers"][begin : begin + inliers]
        begin += inliers
        width, height, image_width, image_height = piece["sizes"][row].tolist()
        match = _match_of(table, places, pairs, (width, height), (image_width, image_height), bool(is_copy))
        yield VerifiedCandidate(query, image, score, evidence, match)


def _match_of(
    table: np.ndarray, places: int, pairs: int, query_size: tuple[int, int], size: tuple[int, int], is_copy: bool
) -> Match:
    """Return a match as far as pictures need it."""
    whole, single = np.zeros(len(table), np.int32), np.zeros(len(table), np.float32)
    return Match(
        pairs=pairs, mass=float(table[:, 4].sum()), weight=float(table[:, 4].sum()), places=places,
        places_weight=float(table[:, 4].sum()), affine=np.zeros((2, 3)), query_points=table[:, :2].astype(np.float32),
        points=table[:, 2:4].astype(np.float32), query_features=whole, features=whole, weights=table[:, 4],
        similarities=table[:, 4], words=whole.astype(np.uint32), query_scales=single, scales=single,
        query_size=query_size, size=size, is_copy=is_copy,
    )  # fmt: skip
