"""A process that changes an index in an endless loop and reports on a pipe each change before and after it."""

from __future__ import annotations

import random
from multiprocessing.connection import Connection
from pathlib import Path

from asmk_engine.inverted.index import Index
from asmk_engine.kernels import Kernel, aggregate, elias_fano, match, names, postings
from histories import NAMES, signed

# A process that imports this and has children spares them the time, in which they would be killed, to load the kernels.
for module in (aggregate, elias_fano, match, names, postings):
    for kernel in vars(module).values():
        if isinstance(kernel, Kernel):
            _ = kernel.compiled


def ingest(path: Path, seed: int, pipe: Connection) -> None:
    """Add, delete and merge at random; sends ("begin" or "done", deed, names)."""
    rng = random.Random(seed)
    index = Index.open(path)
    while True:
        deed = rng.choice(("add", "add", "add", "delete", "merge"))
        if deed == "add":
            names = [f"{rng.getrandbits(60):015x}.jpg" for _ in range(rng.randrange(1, 4))]
        elif deed == "delete":
            names = rng.sample(index.names, min(2, index.images))
        else:
            names = []
        pipe.send(("begin", deed, names))
        if deed == "add":
            index.add_signatures([(name, signed(rng.choice(NAMES))) for name in names], segment_postings=1)
        elif deed == "delete":
            index.delete(names)
        else:
            index.merge()
        pipe.send(("done", deed, names))
