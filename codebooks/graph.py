"""Approximate assignment with a neighbour graph: every word is linked to near words, and a search follows the links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import DamagedError, InputError
from asmk_engine.kernels.graph import BLOCK, LARGEST, quantise, reach, search, thin

BEAM = 72  # candidates kept during a search: more give a higher recall and take longer
SPREAD = 1.11  # larger ones find more of the nearest words and take longer
WIDER = 8  # candidates per requested word, if that is more than the beam
MOST_IN_VIEW = 1 << 16
ENTRIES = 256  # read sequentially, so that many of them cost less than the steps they save
# Short rows only cost space; too few links at hub words, which are near to many others, would disconnect some of these.
DEGREE = 96
CHOSEN = 24  # links that a word selects itself; the others are reverse links
CANDIDATES = 100
SLACK_CHOSEN, SLACK_ALL = 1.5, 1.4
FIRST = 1024  # words whose links are found by exhaustive comparison in the first step
GROWTH = 4
# The range of the 8-bit copies is MARGIN times the COVERED quantile of the distances of components from the centre.
SPAN_SAMPLE = 4096
COVERED, MARGIN = 0.999, 1.25
ROWS = 64  # queries per task
LINE = 64
GRAPH_ARRAYS = ("graph_neighbours", "graph_entries")
ASSIGNMENTS = ("auto", "exact", "graph")
GRAPH_WORDS = 16_384  # `auto` uses the graph from this number of words on: 1.6 times as fast there, 3.7 times at 65 536


@dataclass(frozen=True, eq=False)
class Graph:
    """A navigable graph over the K words of a codebook.

    neighbours  [K, R] int32, the words linked to each word, nearest first; -1 after the last
    entries     [E] int32, the words at which every search starts
    beam        candidates kept during a search, or 8 per requested word if that is more
    spread      a search stops at a word whose squared distance exceeds this multiple of that of the k-th nearest, for
                k less than 5 of the fifth nearest
    """

    neighbours: np.ndarray
    entries: np.ndarray
    beam: int = BEAM
    spread: float = SPREAD

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by the names under which they are stored."""
        return dict(zip(GRAPH_ARRAYS, (self.neighbours, self.entries), strict=True))

    def settings(self) -> dict[str, int | float]:
        """Return the numbers by the names under which they are stored; the usual spread is not, as in older files."""
        usual: dict[str, int | float] = {"graph_beam": self.beam}
        return usual if self.spread == SPREAD else usual | {"graph_spread": self.spread}


class Navigator:
    """Centroids and their graph, prepared for search: 8-bit copies of the words, and the links as one flat array.

    Both are ordered by position, with the entries first, so that comparing all entries reads memory sequentially.
    """

    def __init__(self, centroids: np.ndarray, graph: Graph) -> None:
        self._centroids = centroids = np.ascontiguousarray(centroids)
        self._centre, self._scale = _span(centroids)
        self.codes = self._quantised(centroids)
        self.follow(graph)

    def follow(self, graph: Graph) -> None:
        """Use another graph for the following searches."""
        self.graph = graph
        entries = np.unique(graph.entries)
        others = np.ones(len(self.codes), bool)
        others[entries] = False
        self._labels = np.concatenate([entries, np.flatnonzero(others).astype(np.int32)])
        places = np.empty(len(self.codes), np.int32)
        places[self._labels] = np.arange(len(self.codes), dtype=np.int32)
        linked = graph.neighbours[self._labels]
        used = linked >= 0
        self._starts = np.concatenate([np.zeros(1, np.int32), np.cumsum(used.sum(axis=1), dtype=np.int32)])
        self._links = places[linked[used]]
        self._entries = np.arange(len(entries), dtype=np.int32)
        self._laid_out = _aligned(*self.codes.shape)
        np.take(self.codes, self._labels, axis=0, out=self._laid_out)

    def nearest(self, queries: np.ndarray, k: int, *, beam: int = 0, workers: int = 1) -> np.ndarray:
        """Find the k nearest words reachable through the graph, [n, k] int32, nearest first; -1 where there are fewer.

        Rows depend neither on the number of threads nor on each other.

        queries  [n, D] float32, contiguous
        beam     if given, it is searched exhaustively; the beam of the graph (0) only as far as its spread
        """
        codes = self._quantised(queries)
        words = np.empty((len(queries), k), np.int32)
        spread = np.inf if beam else self.graph.spread
        beam = beam or max(self.graph.beam, WIDER * k)
        graph = (self._labels, self._starts, self._links, self._entries)

        def walk(begin: int) -> None:
            rows = slice(begin, begin + ROWS)
            search(queries[rows], codes[rows], self._centroids, self._laid_out, *graph, beam, spread, words[rows])

        threads.run(walk, range(0, len(queries), ROWS), workers)
        return words

    def _quantised(self, vectors: np.ndarray) -> np.ndarray:
        codes = _aligned(len(vectors), -(-vectors.shape[1] // BLOCK) * BLOCK)
        quantise(vectors, self._centre, self._scale, codes)
        return codes


def build_graph(centroids: np.ndarray, *, start: Graph | None = None, workers: int | None = None) -> Graph:
    """Build the neighbour graph of a codebook; the same centroids and start give the same graph.

    A few words are linked first, by comparing all of them; then candidates for four times as many words are found
    through the links so far, and finally once more for all words.

    centroids  [K, D] float32, contiguous
    start      the graph of similar centroids; with it, only the last step is needed
    """
    count, workers = len(centroids), threads.thread_count(workers)
    order = np.random.default_rng(0).permutation(count).astype(np.int32)
    graph = start or Graph(np.full((count, 1), -1, np.int32), order[:FIRST])
    sizes = [count] if start else _sizes(count)
    navigator = Navigator(centroids, graph)
    for size in sizes:
        members = np.sort(order[:size])
        wanted = min(CANDIDATES, count)
        found = navigator.nearest(centroids[members], wanted, beam=wanted, workers=workers)
        neighbours = _link(navigator.codes, members, found, workers)
        navigator.follow(Graph(neighbours, np.sort(order[:ENTRIES])))
    return _completed(navigator, centroids, wanted)


def _sizes(count: int) -> list[int]:
    """Return the number of words linked in each step; all are linked twice, as words of one step miss each other."""
    sizes = [min(FIRST, count)]
    while sizes[-1] < count:
        sizes.append(min(GROWTH * sizes[-1], count))
    return [*sizes, count] if count > FIRST else sizes


def _link(codes: np.ndarray, members: np.ndarray, found: np.ndarray, workers: int) -> np.ndarray:
    """Select the neighbours of all words, [K, DEGREE] int32, among those found; add reverse links and prune again."""
    count = len(codes)
    lengths = np.zeros(count, np.int64)
    lengths[members] = found.shape[1]
    chosen = _thinned(codes, lengths, found.reshape(-1), SLACK_CHOSEN, CHOSEN, workers)
    sources, places = np.nonzero(chosen >= 0)
    targets = chosen[sources, places]
    both = np.concatenate([sources, targets])
    candidates = np.concatenate([targets, sources.astype(np.int32)])[np.argsort(both, kind="stable")]
    return _thinned(codes, np.bincount(both, minlength=count), candidates, SLACK_ALL, DEGREE, workers)


def _thinned(
    codes: np.ndarray, lengths: np.ndarray, candidates: np.ndarray, slack: float, degree: int, workers: int
) -> np.ndarray:
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    neighbours = np.empty((len(codes), degree), np.int32)

    def work(begin: int) -> None:
        thin(codes, begin, min(begin + FIRST, len(codes)), starts, candidates, slack, neighbours)

    threads.run(work, range(0, len(codes), FIRST), workers)
    return neighbours


def _completed(navigator: Navigator, centroids: np.ndarray, candidates: int) -> Graph:
    """Make every word reachable: by a link from the nearest word with a free slot, or else as a further entry."""
    neighbours, entries = navigator.graph.neighbours, navigator.graph.entries
    reached, queue = np.zeros(len(neighbours), np.uint8), np.empty(len(neighbours), np.int32)
    for entry in entries:
        reach(neighbours, int(entry), reached, queue)
    missed = np.flatnonzero(reached == 0).astype(np.int32)
    added = []
    for word, near in zip(missed, navigator.nearest(centroids[missed], candidates, beam=candidates), strict=True):
        if reached[word]:
            continue
        near = near[(near >= 0) & (near != word)]
        near = near[(reached[near] > 0) & (neighbours[near, -1] < 0)]
        if len(near):
            row = neighbours[near[0]]
            row[np.count_nonzero(row >= 0)] = word
        else:
            added.append(word)
        reach(neighbours, int(word), reached, queue)
    return Graph(neighbours, np.concatenate([entries, np.array(added, np.int32)]))


def is_linked_for(assignment: str, words: int) -> bool:
    """Return whether an assignment, as in `Codebook.train`, asks for a graph; raises InputError if it is unknown."""
    if assignment not in ASSIGNMENTS:
        raise InputError(f"assignment {assignment!r} is unknown; choose {', '.join(ASSIGNMENTS)}")
    return assignment == "graph" or (assignment == "auto" and words >= GRAPH_WORDS)


def arrays_of_graph(assignment: str, where: object) -> tuple[str, ...]:
    """Return the names of the arrays that a codebook stores for its assignment; none if that is exact.

    Raises DamagedError if the assignment is unknown.
    """
    if assignment not in ("exact", "graph"):
        raise DamagedError(f"{where}: assignment is {assignment!r}, expected exact or graph; the file was altered")
    return GRAPH_ARRAYS if assignment == "graph" else ()


def stored_graph(
    neighbours: np.ndarray, entries: np.ndarray, settings: Mapping[str, Any], words: int, where: object
) -> Graph:
    """Return the graph of a file, checked; raises DamagedError as `check_graph`.

    settings  what `Graph.settings` returned, as numbers or as text; files of earlier versions have no spread
    """
    try:
        beam, spread = int(settings["graph_beam"]), float(settings.get("graph_spread", SPREAD))
    except (KeyError, ValueError, TypeError):
        found = {key: settings[key] for key in ("graph_beam", "graph_spread") if key in settings}
        raise DamagedError(f"{where}: the settings of the graph are {found}, expected numbers") from None
    graph = Graph(neighbours, entries, beam, spread)
    check_graph(graph, words, where)
    return graph


def check_graph(graph: Graph, words: int, where: object) -> None:
    """Raise DamagedError unless the arrays are a graph over this number of words."""
    neighbours, entries, beam = graph.neighbours, graph.entries, graph.beam
    cure = "the file was altered; restore a copy, or train the codebook again"
    if neighbours.dtype != np.int32 or neighbours.ndim != 2 or len(neighbours) != words or not neighbours.size:
        raise DamagedError(
            f"{where}: graph_neighbours is {neighbours.dtype} {neighbours.shape}, expected int32 ({words}, any); {cure}"
        )
    if entries.dtype != np.int32 or entries.ndim != 1 or not 1 <= len(entries) <= words:
        raise DamagedError(
            f"{where}: graph_entries is {entries.dtype} {entries.shape}, expected int32 (1 to {words}); {cure}"
        )
    for name, array, least in (("graph_neighbours", neighbours, -1), ("graph_entries", entries, 0)):
        if array.min() < least or array.max() >= words:
            raise DamagedError(
                f"{where}: {name} holds {array.min()} to {array.max()}, expected {least} to {words - 1}; {cure}"
            )
    if not 1 <= graph.spread < np.inf:
        raise DamagedError(f"{where}: the spread of the graph is {graph.spread}, expected 1 or more; {cure}")
    if not 1 <= beam <= MOST_IN_VIEW:
        raise DamagedError(f"{where}: the beam of the graph is {beam}, expected 1 to {MOST_IN_VIEW}; {cure}")


def _span(centroids: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return the centre [D] and scale of the 8-bit copies; outliers are clipped to keep the others precise."""
    sample = centroids[:: max(1, len(centroids) // SPAN_SAMPLE)]
    centre = np.median(sample, axis=0).astype(np.float32)
    covered = MARGIN * float(np.quantile(np.abs(sample - centre), COVERED))
    return centre, np.float32(LARGEST / covered if covered > 0 else 1.0)


def _aligned(rows: int, width: int) -> np.ndarray:
    """Allocate an int8 array aligned to a cache line, so that a row of 128 bytes spans two lines instead of three."""
    raw = np.empty(rows * width + LINE, np.int8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + rows * width].reshape(rows, width)
