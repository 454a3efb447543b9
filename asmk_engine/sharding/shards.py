"""Opening single shards, at the commit that is pinned or for changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkError, DamagedError, MismatchError, NotFoundError
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND, NAMES, Manifest, read_manifest
from asmk_engine.sharding.manifest import ShardEntry
from asmk_engine.storage.folder import Folder, WriterLock

AnyShard = Collection[Any, Any]


def class_of(kind: str) -> type[AnyShard]:
    """Return the class of indexes of a kind; imported here, so that no query waits for the code of other kinds."""
    if kind == FUSED_KIND:
        from asmk_engine.fused.index import FusedIndex

        return FusedIndex
    if kind == GLOBAL_KIND:
        from asmk_engine.flat.index import GlobalIndex

        return GlobalIndex
    from asmk_engine.inverted.index import Index

    return Index


def pinned_shard(home: Path, entry: ShardEntry) -> AnyShard:
    """Open a shard at the commit that is pinned; NotFoundError or MismatchError tell what is in its place."""
    try:
        return class_of(entry.manifest.kind).at(entry.path(home), entry.manifest)
    except (NotFoundError, DamagedError) as error:
        check_place(home, entry)
        raise error


def check_place(home: Path, entry: ShardEntry) -> None:
    """Raise NotFoundError if the folder of a shard is missing, and MismatchError if another index is in its place."""
    path = entry.path(home)
    if not path.is_dir():
        raise NotFoundError(
            f"{home}: the shard {entry.folder} is missing; bring the folder {path} back, or say where it is with "
            f"`asmk-engine shards move {home} {entry.folder} FOLDER`"
        )
    try:
        found = read_manifest(Folder(path))
    except AsmkError:
        return
    if found.identity != entry.manifest.identity:
        raise MismatchError(
            f"{path}: another index than the shard {entry.folder} of {home}, which is expected there; bring the "
            "shard back"
        )


def levelled_shard(home: Path, entry: ShardEntry) -> AnyShard:
    """Open a shard for changes, without commits that never became part of the sharded index.

    Such commits are left by a change that was interrupted; another commit takes them back. The files of the commit that
    is pinned stay until the caller holds another one.
    """
    check_place(home, entry)
    take_back(home, entry)
    shard = class_of(entry.manifest.kind).open(entry.path(home))
    shard.hold(entry.manifest)
    return shard


def take_back(home: Path, entry: ShardEntry) -> None:
    """Return a shard to the commit that is pinned, in a commit of its own, if it has others that became never valid."""
    folder, pinned = Folder(entry.path(home)), entry.manifest
    last = read_manifest(folder)
    if not is_same_content(last, pinned):
        with WriterLock(folder.path):
            back = replace(pinned, commit=last.commit + 1, next=max(last.next, pinned.next))
            folder.replace_manifest(NAMES, back.to_json())


def is_same_content(one: Manifest, other: Manifest) -> bool:
    """Return whether two manifests differ at most in the numbers of commit and next file."""
    return replace(one, commit=other.commit, next=other.next) == other
