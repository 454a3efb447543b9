"""Pairs of images for structure from motion: the nearest images of each image, filtered, each pair once."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.escape import escape_name
from asmk_engine.evaluation.runs import check_pair_names
from asmk_engine.groups.finding import collection_graph, notices_of
from asmk_engine.groups.images import ComparedImages
from asmk_engine.groups.journal import PieceJournal
from asmk_engine.groups.model import Notice
from asmk_engine.groups.options import Grouping
from asmk_engine.groups.verified import Comparer
from asmk_engine.iteration import Display, Silent
from asmk_engine.storage.folder import Folder
from asmk_engine.threads import thread_count

VERIFIED_NEIGHBOURS = 50
"""Least number of nearest images that are verified, from which the best are taken."""


@dataclass(frozen=True)
class Pairing:
    """Which pairs of images are wanted.

    Parameters
    ----------
    per_image : int, optional
        Pairs of each image, its best ones; by default `automatic_pairs` of the number of images.
    minimum_score : float, default 0.0
        Least similarity in the index.
    verified : bool, default False
        Only pairs that the places of their features confirm, in both directions; the best are those of most weight.
    skip_neighbours : int, default 0
        Leave out pairs whose names are within so many places of each other, in byte order: the next in a sequence.
    grouping : Grouping
        What confirms a pair.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    per_image: int | None = None
    minimum_score: float = 0.0
    verified: bool = False
    skip_neighbours: int = 0
    grouping: Grouping = field(default_factory=Grouping)

    def __post_init__(self) -> None:
        if self.per_image is not None and self.per_image < 1:
            raise InputError(f"{self.per_image} pairs of an image; give 1 or more")
        if not math.isfinite(self.minimum_score):
            raise InputError(f"minimum_score is {self.minimum_score}; give a number")
        if self.skip_neighbours < 0:
            raise InputError(f"skip_neighbours is {self.skip_neighbours}; give 0 or more")


def automatic_pairs(images: int) -> int:
    """Return how many pairs an image has by default: 10 + 10 log10(images), rounded, at most all others.

    So 21 images have all pairs, a thousand 40 of each, a million 70: the more images, the more of the nearest ones show
    something else.
    """
    return max(0, min(images - 1, round(10 + 10 * math.log10(max(1, images)))))


@dataclass(frozen=True)
class Pair:
    """Two images, by name, and what they are ranked by: their similarity, or the weight of their match."""

    one: str
    other: str
    score: float


@dataclass(frozen=True)
class Pairs:
    """What `find_pairs` found.

    Attributes
    ----------
    pairs : tuple of Pair
        Each unordered pair once: image after image in byte order of their names, the best pair first.
    per_image : int
        The number of pairs of an image that was asked for.
    lonely : tuple of str
        Images without a pair, in byte order.
    notices : tuple of Notice
        Pairs that may be look-alikes; empty if nothing was verified.
    """

    pairs: tuple[Pair, ...]
    per_image: int
    lonely: tuple[str, ...]
    notices: tuple[Notice, ...]


def find_pairs(
    index: Any,
    options: Pairing | None = None,
    *,
    look_alikes: bool = False,
    work: Path | str | None = None,
    threads: int | None = None,
    display: Display | None = None,
) -> Pairs:
    """Find pairs of the images of an index that are worth matching.

    Parameters
    ----------
    index : Index, GlobalIndex or FusedIndex
        The index, at its present commit.
    options : Pairing, optional
        Which pairs are wanted.
    look_alikes : bool, default False
        Whether pairs are verified to name doubtful ones even where pairs that are not verified are wanted.
    work, threads, display
        As for `find_groups`.

    Returns
    -------
    Pairs

    Raises
    ------
    InputError
        For several indexes searched as one, and for global descriptors if pairs are to be verified.
    NotFoundError, StorageError, DamagedError
        As `find_groups`.
    """
    options, shown = options or Pairing(), display or Silent()
    wanted = automatic_pairs(len(index)) if options.per_image is None else options.per_image
    width = max(1, wanted + 2 * options.skip_neighbours)
    if not (options.verified or look_alikes):
        images, found = _similar(index, width, work, thread_count(threads), shown)
        return _chosen(images, found, options, wanted, ())
    grouping = _with_neighbours(options.grouping, max(width, VERIFIED_NEIGHBOURS))
    with collection_graph(index, grouping, work=work, threads=threads, display=shown) as graph:
        doubtful = tuple(notice for notice in notices_of(graph) if len(notice.images) == 2)
        if options.verified:
            rows = graph.edges[graph.edges["score"] >= np.float32(options.minimum_score)]
            return _chosen(graph.images, _both_ways(rows), options, wanted, doubtful)
        found = _listed(graph.candidates.numbers, graph.candidates.similarities)
        return _chosen(graph.images, found, options, wanted, doubtful)


def _with_neighbours(grouping: Grouping, neighbours: int) -> Grouping:
    return Grouping(neighbours, grouping.places, grouping.weight, grouping.overlays, False, grouping.verification)


Ranked = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images, the images they are ranked with, and what by, [n] each."""


def _similar(
    index: Any, width: int, work: Path | str | None, threads: int, display: Display
) -> tuple[ComparedImages, Ranked]:
    images, grouping = ComparedImages(index, threads), Grouping(width)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if work is None else work)
        journal = stack.enter_context(PieceJournal(folder, images.snapshot.manifest, f"{width} neighbours"))
        candidates = Comparer(images, grouping, journal, display).candidates()
    return images, _listed(candidates.numbers, candidates.similarities)


def _listed(numbers: np.ndarray, similarities: np.ndarray) -> Ranked:
    ones, places = np.nonzero(similarities > 0)
    return ones, numbers[ones, places].astype(np.int64), similarities[ones, places].astype(np.float64)


def _both_ways(rows: np.ndarray) -> Ranked:
    ones, others = rows["one"].astype(np.int64), rows["other"].astype(np.int64)
    weights = rows["weight"].astype(np.float64)
    return np.concatenate([ones, others]), np.concatenate([others, ones]), np.concatenate([weights, weights])


def _chosen(images: ComparedImages, found: Ranked, options: Pairing, wanted: int, notices: tuple[Notice, ...]) -> Pairs:
    """Take the best pairs of each image, in byte order of the names."""
    names = images.names(images.live)
    order = sorted(range(len(names)), key=lambda place: names[place].encode())
    names = [names[place] for place in order]
    ranks = np.full(images.count, -1, np.int64)
    ranks[images.live[np.array(order, np.int64)]] = np.arange(len(order))
    ones, others, scores = ranks[found[0]], ranks[found[1]], found[2]
    kept = np.abs(ones - others) > options.skip_neighbours
    if not options.verified:  # else the weight is what counts, and similarities were compared before
        kept &= scores >= options.minimum_score
    ones, others, scores = ones[kept], others[kept], scores[kept]
    by_rank = np.lexsort((others, -scores, ones))
    ones, others, scores = ones[by_rank], others[by_rank], scores[by_rank]
    within = np.arange(len(ones)) - np.searchsorted(ones, ones)
    first = within < wanted
    seen: set[tuple[int, int]] = set()
    pairs = []
    for one, other, score in zip(ones[first].tolist(), others[first].tolist(), scores[first].tolist(), strict=True):
        ends = (min(one, other), max(one, other))
        if ends not in seen:
            seen.add(ends)
            pairs.append(Pair(names[one], names[other], score))
    paired = {name for pair in pairs for name in (pair.one, pair.other)}
    return Pairs(tuple(pairs), wanted, tuple(name for name in names if name not in paired), notices)


def write_pairs(pairs: Pairs, path: Path | str, *, scores: bool = False) -> None:
    """Write pairs as COLMAP and hloc read them, `one other` a line, whole or not at all.

    scores  add what the pair is ranked by as a third column, which COLMAP ignores and hloc refuses
    Raises InputError for names with white space, which the file cannot hold, and StorageError.
    """
    path = Path(path)
    check_pair_names({name for pair in pairs.pairs for name in (pair.one, pair.other)})
    _write(path, (f"{one.one} {one.other}{f' {one.score:.6f}' * scores}\n" for one in pairs.pairs))


def write_look_alikes(notices: Iterable[Notice], path: Path | str) -> None:
    """Write doubtful pairs as a table with tabs: kind, score, both names, why; whole or not at all.

    White space in names is written as %20, as in tables.
    """
    _write(Path(path), ("\t".join([*_columns(one), one.text]) + "\n" for one in notices))


def _columns(notice: Notice) -> list[str]:
    return [notice.kind, f"{notice.score:.6f}", *map(escape_name, notice.images)]


def _write(path: Path, lines: Iterator[str]) -> None:
    folder = Folder(path.parent)
    folder.make()
    folder.write(path.name, ["".join(lines).encode()], "the pairs")
    folder.sync()
