"""Addition of images to a sharded index: planned for all of it, carried out by each shard for the names it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from asmk_engine.indexes.additions import AdditionPlan, AddSummary, check_existing
from asmk_engine.iteration import Progress
from asmk_engine.sharding.slots import owners_of, slot_of
from asmk_engine.sharding.transaction import Transaction

COMMIT_IMAGES = 100_000
"""Images that are added in one commit of a sharded index."""


def add_to_shards(
    change: Transaction,
    features: Any,
    recipe: Any,
    existing: str,
    prune: bool,
    remove: Iterable[str],
    room: int | None,
    on_image: Progress | None,
) -> AddSummary:
    """Add images in one or more commits; as `add` of an index of the kind of the shards.

    room  when a shard writes a segment, in the unit of its kind; its default if None
    """
    check_existing(existing)
    first: Any = change.shards[0]
    source = first.source_of(features, recipe)
    plan = first.plan(_view(change), source, existing, prune, remove)
    groups = list(_groups(plan))
    done = 0
    for place, names in enumerate(groups):
        is_last = place == len(groups) - 1
        parts = _divided(change, plan, names, is_last)
        for shard, part in zip(change.shards, parts, strict=True):
            progress = None if on_image is None else _shifted(on_image, done, len(plan.wanted))
            shard.carry_out(source, part, room or shard.room, progress)
            done += len(part.wanted)
        change.commit()
    return plan.summary()


def _view(change: Transaction) -> Any:
    """Return the images of all shards as one commit; their roots are the same by `check_shards`."""
    first = change.shards[0].snapshot
    segments = tuple(segment for shard in change.shards for segment in shard.snapshot.segments)
    return replace(first, segments=segments)


def _groups(plan: AdditionPlan) -> Iterator[Sequence[str]]:
    """Yield the names that are added in each commit, at least one group."""
    wanted = plan.wanted
    yield from (wanted[begin : begin + COMMIT_IMAGES] for begin in range(0, max(len(wanted), 1), COMMIT_IMAGES))


def _divided(change: Transaction, plan: AdditionPlan, names: Sequence[str], is_last: bool) -> list[AdditionPlan]:
    """Return the part of each shard in one commit; the last also removes images and notes those that moved."""
    owners = owners_of([entry.spans for entry in change.manifest.shards])
    parts = [AdditionPlan() for _ in change.shards]

    def part_of(name: str) -> AdditionPlan:
        return parts[owners[slot_of(name.encode("utf-8", "surrogatepass"))]]

    replaced = set(plan.replaced)
    for name in names:
        part = part_of(name)
        (part.replaced if name in replaced else part.new).append(name)
    for name in plan.removed if is_last else ():
        part_of(name).removed.append(name)
    for name, root in plan.moved.items() if is_last else ():
        part_of(name).moved[name] = root
    return parts


def _shifted(on_image: Progress, before: int, total: int) -> Progress:
    return lambda done, _: on_image(before + done, total)
