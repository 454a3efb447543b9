"""From an index to the groups of its images."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.groups.graph import communities, components, members, renumbered
from asmk_engine.groups.images import ComparedImages
from asmk_engine.groups.journal import PieceJournal
from asmk_engine.groups.kinds import is_same_photograph
from asmk_engine.groups.mirrored import Mirrored
from asmk_engine.groups.model import Groups, ImageGroup, Notice
from asmk_engine.groups.notices import Overlay, common_words, hubs_of, overlays_of, single_edges, unverified
from asmk_engine.groups.options import Grouping
from asmk_engine.groups.settling import Settling
from asmk_engine.groups.verified import Candidates, Comparer
from asmk_engine.iteration import Display, Silent
from asmk_engine.threads import thread_count

MOST_UNVERIFIED = 1000
"""Pairs that are similar and not verified are named up to this number, the most similar ones."""


@dataclass(frozen=True, eq=False)
class CollectionGraph:
    """The graph of a collection.

    images      its images
    candidates  the nearest images of each
    edges       [n] of EVIDENCE, the pairs that are joined
    overlays    the images with overlays
    unplaced    number of images whose geometry is not at hand
    unread      number of an image → why its photograph could not be read
    """

    images: ComparedImages
    candidates: Candidates
    edges: np.ndarray
    overlays: list[Overlay]
    unplaced: int
    unread: dict[int, str]


def find_groups(
    index: Any,
    options: Grouping | None = None,
    *,
    work: Path | str | None = None,
    images_roots: Sequence[Path | str] = (),
    threads: int | None = None,
    display: Display | None = None,
) -> Groups:
    """Find which images of an index belong together.

    Each image is compared with the images nearest to it, by the places of their features. Two that match in both
    directions are joined; what is joined directly or through others is a group. The time grows with the number of
    images times that of the nearest ones, but for the search of these, which grows with the square of the images.

    Parameters
    ----------
    index : Index or FusedIndex
        The index, at its present commit. The geometry of its images is taken from it, or else from the feature set that
        it remembers.
    options : Grouping, optional
        What is compared and what joins two images.
    work : pathlib.Path or str, optional
        A folder for what the run has found so far: after an interruption, the same call goes on from there, and other
        limits of `options` need no new comparison. By default a temporary one.
    images_roots : sequence of path-like, default ()
        Folders of the photographs that are to be mirrored, if they have moved.
    threads : int, optional
        Threads, all available by default; the result does not depend on it.
    display : Display, optional
        Where messages and progress are shown; nowhere by default.

    Returns
    -------
    Groups

    Raises
    ------
    InputError
        For an index of global descriptors only, and several indexes searched as one.
    NotFoundError
        If neither the geometry nor the features of the images are at hand.
    StorageError
        If the folder cannot be written, or another run is writing there.
    DamagedError
        If the index is damaged.

    Examples
    --------
    >>> from asmk_engine import open_index
    >>> from asmk_engine.groups import find_groups
    >>> for group in find_groups(open_index("photos.index")):  # doctest: +SKIP
    ...     print(len(group), group.images[0])
    """
    options = options or Grouping()
    roots, count = images_roots, threads
    with collection_graph(index, options, work=work, images_roots=roots, threads=count, display=display) as graph:
        return _groups(graph, options)


@contextlib.contextmanager
def collection_graph(
    index: Any,
    options: Grouping,
    *,
    work: Path | str | None = None,
    images_roots: Sequence[Path | str] = (),
    threads: int | None = None,
    display: Display | None = None,
) -> Iterator[CollectionGraph]:
    """Compare the images of an index, with arguments and errors of `find_groups`; the journal is locked meanwhile."""
    images, shown = ComparedImages(index, thread_count(threads), images_roots), display or Silent()
    images.check_places()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if work is None else work)
        key = f"{options.neighbours} neighbours, {options.verification}"
        journal = stack.enter_context(PieceJournal(folder, images.snapshot.manifest, key))
        comparer = Comparer(images, options, journal, shown)
        candidates = comparer.candidates()
        rows = comparer.verified(candidates)
        unread: dict[int, str] = {}
        if options.mirror:
            mirrored = Mirrored(images, options, journal, shown)
            rows = np.concatenate([rows, mirrored.rows()])
            unread |= mirrored.unread
        settling = Settling(images, journal, shown)
        rows = settling.settled(rows)
        unread |= settling.unread
        enough = rows[(rows["places"] >= options.places) & (rows["weight"] >= np.float32(options.weight))]
        overlays, pictures = overlays_of(enough)
        edges = enough if options.overlays else enough[~overlays]
        yield CollectionGraph(images, candidates, edges, pictures, len(comparer.unplaced), unread)


def _groups(graph: CollectionGraph, options: Grouping) -> Groups:
    images, rows = graph.images, graph.edges
    labels, photographs = divided(images.count, rows)
    parts = _communities(photographs, rows)
    live = np.zeros(images.count, bool)
    live[images.live] = True
    names = dict(zip(images.live.tolist(), images.names(images.live), strict=True))
    of_row = np.argsort(labels[rows["one"]], kind="stable")
    cuts = np.searchsorted(labels[rows["one"]][of_row], np.arange(int(labels.max(initial=-1)) + 2))
    found, alone = [], []
    for label, numbers in enumerate(members(labels)):
        if len(numbers) > 1:
            own = rows[of_row[cuts[label] : cuts[label + 1]]]
            found.append(_group(images, numbers, parts, photographs, own, names))
        elif live[numbers[0]]:
            alone.append(names[int(numbers[0])])
    return Groups(
        path=images.index.path,
        commit=images.snapshot.manifest.commit,
        options=options,
        images=len(images.live),
        groups=tuple(sorted(found, key=lambda group: (-len(group), group.images[0].encode()))),
        alone=tuple(sorted(alone, key=str.encode)),
        notices=tuple(notices_of(graph)),
        words=tuple(common_words(images.views, len(images.live))),
        unplaced=graph.unplaced,
        unread={names[number]: reason for number, reason in sorted(graph.unread.items())},
    )


def divided(count: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the group and the photograph of each image, [count] int64 each, from the rows that join images."""
    same = rows[is_same_photograph(rows)]
    return components(count, rows["one"], rows["other"]), components(count, same["one"], same["other"])


def _communities(photographs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the community of each image; all copies of a photograph are one node."""
    count = int(photographs.max(initial=-1)) + 1
    ones, others = photographs[rows["one"]], photographs[rows["other"]]
    between = ones != others
    parts = communities(count, ones[between], others[between], rows["weight"][between].astype(np.float64))
    return renumbered(parts[photographs]) if count else photographs


def _group(
    images: ComparedImages,
    numbers: np.ndarray,
    parts: np.ndarray,
    photographs: np.ndarray,
    rows: np.ndarray,
    names: dict[int, str],
) -> ImageGroup:
    def named(some: np.ndarray) -> tuple[str, ...]:
        return tuple(sorted((names[number] for number in some.tolist()), key=str.encode))

    def largest_first(some: np.ndarray) -> tuple[str, ...]:
        if len(some) == 1:
            return named(some)
        sizes = {number: images.size(number) for number in some.tolist()}
        # Of equal ones the shortest name: what a copy is called is often longer than what it is a copy of.
        keys = {
            number: (-size[0] * size[1], len(names[number]), names[number].encode()) for number, size in sizes.items()
        }
        return tuple(names[number] for number in sorted(keys, key=keys.__getitem__))

    divided = [named(numbers[places]) for places in members(parts[numbers])]
    files = [largest_first(numbers[places]) for places in members(photographs[numbers])]
    return ImageGroup(
        images=named(numbers),
        communities=tuple(sorted(divided, key=lambda one: (-len(one), one[0].encode()))),
        photographs=tuple(sorted(files, key=lambda one: one[0].encode())),
        rows=rows,
        names={number: names[number] for number in numbers.tolist()},
    )


def notices_of(graph: CollectionGraph) -> Iterator[Notice]:
    """Yield what is doubtful in a graph: overlays and hubs, then pairs."""
    rows, images = graph.edges, graph.images
    labels, photographs = divided(images.count, rows)
    names = dict(zip(images.live.tolist(), images.names(images.live), strict=True))
    for overlay in sorted(graph.overlays, key=lambda one: (-one.edges, one.image)):
        row, column = overlay.cell
        text = (
            f"has the same place as {overlay.edges} images, about {12.5 * column + 6.25:.0f} % from the left "
            f"and {12.5 * row + 6.25:.0f} % from the top: a watermark, a frame or a date?"
        )
        yield Notice("overlay", (names[overlay.image],), text, float(overlay.edges))
    for hub in hubs_of(rows):
        text = (
            f"matches {hub.degree} images, of whose pairs only {hub.clustering:.1%} match: what it shows may be common"
        )
        yield Notice("hub", (names[hub.image],), text, float(hub.degree))
    for pair in single_edges(photographs, int(photographs.max(initial=-1)) + 1, rows):
        one, other = pair.sides
        text = f"alone join {one} images with {other} others: are they of one thing?"
        yield Notice("single pair", (names[pair.one], names[pair.other]), text, pair.score)
    for pair in unverified(graph.candidates, rows, labels)[:MOST_UNVERIFIED]:
        text = f"look alike (score {pair.score:.3f}), but nothing in the places of their features confirms it"
        yield Notice("unverified", (names[pair.one], names[pair.other]), text, pair.score)
