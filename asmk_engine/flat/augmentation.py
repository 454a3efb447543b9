"""Database-side augmentation: a new index in which every vector is blended with its nearest neighbours."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.index import SEGMENT_BYTES, GlobalIndex
from asmk_engine.flat.search import Expansion, GlobalSearcher, expanded
from asmk_engine.flat.segment import VectorContents
from asmk_engine.flat.snapshot import GlobalSnapshot
from asmk_engine.iteration import Progress


def augment(
    index: GlobalIndex,
    output: Path | str,
    expansion: Expansion | None = None,
    *,
    device: str = "auto",
    segment_bytes: int = SEGMENT_BYTES,
    on_image: Progress | None = None,
) -> GlobalIndex:
    """Make a new index at `output` with the vectors of `index`, each blended with its nearest neighbours.

    x' = x + sum over the k nearest other x_j of max(x . x_j, 0)^alpha x_j, normalised to length 1 (as in the deep image
    retrieval code: query expansion with the database as queries, the similarity to itself set to 0).

    The time is quadratic in the number of images. Queries of the new index are not changed. No images can be added to
    it, since each would change others. Raises InputError if `index` is already augmented, or `output` is taken.

    expansion      number of neighbours and exponent; Expansion() by default
    device         device of the matrix products, see `GlobalSearcher`
    segment_bytes  size of the vectors at which a segment is written
    on_image       receives progress as (done, total) in images
    """
    codec, snapshot, expansion = index.codec, index.snapshot, expansion or Expansion()
    if codec.augmentation is not None:
        raise InputError(f"{index.path}: its vectors are already augmented; give the index it was made from")
    codec = replace(codec, training={**codec.training, "augmentation": asdict(expansion)})
    made = GlobalIndex.create(output, codec, index.network)
    made.remember(index)
    searcher = GlobalSearcher(index, device=device)
    room = max(1, segment_bytes // (codec.width * codec.dtype.itemsize))
    done = 0
    for place, segment in enumerate(snapshot.segments):
        live = segment.live_numbers()
        for begin in range(0, len(live), room):
            numbers = live[begin : begin + room]
            vectors = np.empty((len(numbers), codec.width), codec.dtype)
            for first in range(0, len(numbers), searcher.group_size):
                rows = slice(first, first + searcher.group_size)
                vectors[rows] = _blended(searcher, snapshot, codec, expansion, place, numbers[rows])
                done += len(numbers[rows])
                if on_image:
                    on_image(done, snapshot.images)
            names = segment.names_as_bytes(numbers)
            facts = segment.fingerprints[numbers], vectors, segment.root_numbers[numbers]
            made.add_vectors(VectorContents(names, *facts))
    return made


def _blended(
    searcher: GlobalSearcher,
    snapshot: GlobalSnapshot,
    codec: Codec,
    expansion: Expansion,
    place: int,
    numbers: np.ndarray,
) -> np.ndarray:
    vectors = codec.decode(snapshot.segments[place].rows_of(numbers))
    found = searcher.nearest(vectors, expansion.neighbours + 1, snapshot=snapshot)
    rows = zip(vectors, found, numbers.tolist(), strict=True)
    others = ((vector, near.without(place, number, expansion.neighbours)) for vector, near, number in rows)
    return codec.encode(np.array([expanded(snapshot, expansion, vector, near) for vector, near in others]))
