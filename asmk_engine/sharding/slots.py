"""Which shard an image belongs to: its name has a slot for ever, and each slot is assigned to a shard.

Splitting or joining shards assigns slots anew, so that only the images in them move.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

SLOTS = 4096
"""Number of slots of every sharded index, and so the most shards that it can have."""
Spans = tuple[tuple[int, int], ...]
"""Slots as ranges `first` to `last` (exclusive), increasing."""


def slot_of(name: bytes) -> int:
    """Return the slot of a name in UTF-8: the first 8 bytes of its BLAKE2b digest, little-endian, modulo the slots."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") % SLOTS


def slots_of(names: Iterable[bytes]) -> np.ndarray:
    """Return the slots of names, [n] int64."""
    return np.fromiter(map(slot_of, names), np.int64)


def even_spans(shards: int) -> list[Spans]:
    """Divide the slots evenly among a number of shards."""
    ends = [SLOTS * number // shards for number in range(shards + 1)]
    return [((first, last),) for first, last in itertools.pairwise(ends)]


def spans_of(slots: Iterable[int]) -> Spans:
    """Return slots as ranges."""
    spans: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if spans and spans[-1][1] == slot:
            spans[-1] = spans[-1][0], slot + 1
        else:
            spans.append((slot, slot + 1))
    return tuple(spans)


def slots_in(spans: Spans) -> list[int]:
    """Return the slots of ranges, increasing."""
    return [slot for first, last in spans for slot in range(first, last)]


def owners_of(shards: Sequence[Spans]) -> np.ndarray:
    """Return the position of the shard of each slot, [SLOTS] int64.

    Raises ValueError unless each slot belongs to exactly one.
    """
    owners = np.full(SLOTS, -1, np.int64)
    for place, spans in enumerate(shards):
        for first, last in spans:
            if not 0 <= first < last <= SLOTS or (owners[first:last] >= 0).any():
                raise ValueError(f"slots {first} to {last} are out of range, or of two shards")
            owners[first:last] = place
    if (owners < 0).any():
        raise ValueError(f"slot {int(np.argmin(owners))} belongs to no shard")
    return owners
