"""Consecutive numbering of the images of all segments of an index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.snapshot import Commit


def image_starts(segments: Sequence[ImageTable]) -> np.ndarray:
    """Return the number of the first image of each segment in the numbering over all segments, [segments] int64."""
    return np.concatenate([[0], np.cumsum([segment.images for segment in segments], dtype=np.int64)])[:-1]


def image_numbers(snapshot: Commit[Any, Any], names: Iterable[str]) -> dict[str, int]:
    """Return name → number over all segments, see `image_starts`, for those names that are live images."""
    starts = image_starts(snapshot.segments)
    return {name: int(starts[place]) + number for name, (place, number) in snapshot.find_all(names).items()}


def name_ranks(segments: Sequence[ImageTable]) -> np.ndarray:
    """Return the rank of each image, deleted or not, by its name in byte order over all segments, [images] int64."""
    orders = [segment.name_order.astype(np.int64) for segment in segments]
    starts = image_starts(segments)
    numbers = np.concatenate([start + order for start, order in zip(starts, orders, strict=True)] or [starts])
    if len(segments) > 1:
        # Each segment is already sorted, so this sort only merges runs.
        pairs = zip(segments, orders, strict=True)
        names = [name for segment, order in pairs for name in segment.names_as_bytes(order)]
        numbers = numbers[sorted(range(len(names)), key=names.__getitem__)]
    ranks = np.empty(len(numbers), np.int64)
    ranks[numbers] = np.arange(len(numbers))
    return ranks
