"""Repair of the shards of a sharded index, each as an index of its own, in one commit over all of them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from asmk_engine.indexes.manifest import read_manifest
from asmk_engine.maintenance.repair import Repair, repair_index
from asmk_engine.sharding.manifest import read_sharded
from asmk_engine.sharding.shards import check_place, take_back
from asmk_engine.sharding.transaction import publish
from asmk_engine.storage.folder import Folder, WriterLock


def repair_shards(path: Path | str, *, write: bool = False) -> list[Repair]:
    """Find the damage of the shards of a sharded index and, with `write`, repair it; returns the repair of each.

    Raises as `repair_index`; an interrupted repair can be run again.
    """
    home, folder = Path(path), Folder(path)
    with WriterLock(home) if write else contextlib.nullcontext():
        manifest = read_sharded(folder)
        repairs, entries = [], []
        for entry in manifest.shards:
            check_place(home, entry)
            if write:
                take_back(home, entry)
            repairs.append(repair_index(entry.path(home), write=write, is_shard=True))
            entries.append(replace(entry, manifest=read_manifest(Folder(entry.path(home)))))
        if write and any(repair.done for repair in repairs):
            publish(home, manifest.following(shards=tuple(entries)))
    return repairs
