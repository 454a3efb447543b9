"""A process that searches an index repeatedly while others change it, and reports its results at the end."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from histories import queries


def read(path: Path, seed: int, pipe: Connection) -> None:
    """Search until a message comes; sends {(commit, names, hits)} and how many searches there were."""
    index = Index.open(path)
    seen, count = set(), 0
    pipe.send("ready")
    while not pipe.poll():
        if count % 3 == seed:
            index = Index.open(path)  # as a new process would
        else:
            index.refresh()
        snapshot = index.snapshot
        searcher = Searcher(index, threads=1 + seed)
        hits = tuple(tuple((hit.name, hit.score) for hit in searcher.search(query, None)) for query in queries())
        seen.add((snapshot.manifest.commit, tuple(index.names), hits))
        count += 1
    pipe.send((seen, count))
