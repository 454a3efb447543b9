"""The shards of an index: made from an index, split, joined and moved to other folders, without describing images anew.

What an index stores of an image is copied to the other shard, so that every answer stays the same, bit for bit.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.indexes.creation import make_folder
from asmk_engine.indexes.manifest import NAMES, Manifest, read_manifest
from asmk_engine.indexes.shard_marker import ShardMarker, check_is_no_shard, marker_of, write_marker
from asmk_engine.iteration import Progress
from asmk_engine.sharding.index import ShardedIndex
from asmk_engine.sharding.manifest import ShardedManifest, ShardEntry, is_sharded, read_sharded
from asmk_engine.sharding.shards import AnyShard, class_of, is_same_content
from asmk_engine.sharding.slots import SLOTS, even_spans, slots_in, slots_of, spans_of
from asmk_engine.sharding.transaction import Transaction, changing, check_free, publish, remove_shard
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.version import __version__

MOST_SHARDS = 1024


def shard_index(index: Path | str, path: Path | str, shards: int, *, on_shard: Progress | None = None) -> ShardedIndex:
    """Make a sharded index of the images of an index, which stays as it is.

    Parameters
    ----------
    index : path-like
        An index of any kind.
    path : path-like
        A new or empty folder, in which the shards are made.
    shards : int
        Number of shards, 1 to 1024.
    on_shard : callable, optional
        Receives progress as (done, total) in shards.

    Returns
    -------
    ShardedIndex

    Raises
    ------
    InputError
        If the folder is taken, or the number of shards is out of range.
    """
    if not 1 <= shards <= MOST_SHARDS:
        raise InputError(f"{shards} shards are asked for; give 1 to {MOST_SHARDS}")
    if is_sharded(index):
        raise InputError(f"{index}: has shards already; `asmk-engine shards split` divides one of them")
    source = class_of(read_manifest(Folder(index)).kind).open(index)
    check_is_no_shard(source.path)
    home = _new_home(Path(path))
    with WriterLock(home.path):
        made = ShardedManifest(uuid.uuid4().hex, f"asmk-engine {__version__}", ())
        entries = []
        for number, spans in enumerate(even_spans(shards), start=1):
            shard = _empty_shard(home.path / _name(number), source, made, home.path)
            shard.take_over(_segments_in(source, slots_in(spans)))
            entries.append(ShardEntry(_name(number), spans, shard.snapshot.manifest))
            if on_shard is not None:
                on_shard(number, shards)
        publish(home.path, replace(made, shards=tuple(entries), next=shards + 1))
    return ShardedIndex.open(home.path)


def split_shard(path: Path | str, shard: str, to: Path | str | None = None) -> str:
    """Move half of the slots of a shard, with their images, to a new shard; returns its folder as listed.

    shard  the folder of the shard as `info` lists it, or its number from 1
    to     the folder of the new shard, such as one on another node; by default inside the sharded index
    Raises NotFoundError if there is no such shard, and InputError if it has one slot only or the folder is taken.
    """
    home = Path(path)
    with changing(home) as change:
        place = _place(change, shard)
        old, source = change.manifest.shards[place], change.shards[place]
        slots = slots_in(old.spans)
        if len(slots) < 2:
            raise InputError(f"{home}: the shard {old.folder} has one slot, which cannot be divided")
        target, listed = _target(change, to)
        moved = slots[len(slots) // 2 :]
        made = _empty_shard(target, source, change.manifest, home)
        _move(source, made, moved)
        entries = [*change.manifest.shards, ShardEntry(listed, spans_of(moved), made.snapshot.manifest)]
        entries[place] = replace(old, spans=spans_of(slots[: len(slots) // 2]))
        change.commit(entries, [*change.shards, made])
        return listed


def join_shards(path: Path | str, shard: str, into: str) -> None:
    """Move all images of a shard into another one, and remove the empty one.

    Raises NotFoundError if there is no such shard, and InputError if both are the same.
    """
    with changing(Path(path)) as change:
        place, other = _place(change, shard), _place(change, into)
        if place == other:
            raise InputError(f"{path}: {shard} and {into} are the same shard; give two")
        gone, kept = change.manifest.shards[place], change.manifest.shards[other]
        change.shards[other].take_over(change.shards[place].snapshot.segments)
        entries = list(change.manifest.shards)
        entries[other] = replace(kept, spans=spans_of([*slots_in(gone.spans), *slots_in(kept.spans)]))
        shards = list(change.shards)
        del entries[place], shards[place]
        change.commit(entries, shards)


def move_shard(path: Path | str, shard: str, to: Path | str) -> None:
    """Move a shard to another folder, such as one on another node; or note that it was moved there by other means.

    Raises NotFoundError if there is no such shard, and InputError if the folder is taken.
    """
    home, target = Path(path), Path(to).resolve()
    if _note_moved(home, shard, target):
        return
    with changing(home) as change:
        place = _place(change, shard)
        source = change.shards[place]
        check_free(home, target, change.manifest)
        marker = ShardMarker(change.manifest.identity, str(home.resolve()))
        make_folder(target, lambda folder: _copied(source, folder, marker))
        moved = _held(class_of(source.kind).open(target), source)
        entries, shards = list(change.manifest.shards), list(change.shards)
        entries[place], shards[place] = replace(entries[place], folder=str(target)), moved
        change.commit(entries, shards)


def _note_moved(home: Path, shard: str, target: Path) -> bool:
    """Point the sharded index to a folder that holds this very shard already; returns whether it does."""
    folder = Folder(home)
    with WriterLock(home):
        manifest = read_sharded(folder)
        place = place_of(home, manifest, shard)
        entry = manifest.shards[place]
        if is_sharded(target) or not any((target / name).exists() for name in NAMES):
            return False
        found = read_manifest(Folder(target))
        if found.identity != entry.manifest.identity or not is_same_content(found, entry.manifest):
            return False
        if entry.path(home).is_dir():
            raise InputError(
                f"{home}: the shard {entry.folder} is there and in {target}; remove one of the two folders first"
            )
        entries = list(manifest.shards)
        entries[place] = replace(entry, folder=str(target))
        publish(home, manifest.following(shards=tuple(entries)))
    return True


def place_of(home: Path, manifest: ShardedManifest, shard: str) -> int:
    """Return the position of a shard given by its folder or its number from 1; NotFoundError if there is none."""
    folders = [entry.folder for entry in manifest.shards]
    if shard in folders:
        return folders.index(shard)
    if shard.isdecimal() and 1 <= int(shard) <= len(folders):
        return int(shard) - 1
    raise NotFoundError(f"{home}: has no shard {shard!r}; it has {', '.join(folders)}")


def _place(change: Transaction, shard: str) -> int:
    return place_of(change.home, change.manifest, shard)


def _name(number: int) -> str:
    return f"shard-{number:04d}"


def _new_home(path: Path) -> Folder:
    """Return a folder for a new sharded index; leftovers of an interrupted creation are removed."""
    home = Folder(path)
    if path.exists() and (not path.is_dir() or is_sharded(path)):
        raise InputError(f"{path}: a {'sharded index' if path.is_dir() else 'file'} is in the way; give a new folder")
    names = [name for name in home.names() if name != "lock"]
    if foreign := [name for name in names if not name.startswith("shard-")]:
        raise InputError(f"{path}: the folder is not empty ({foreign[0]}); give a new folder")
    for name in names:
        marker = marker_of(Folder(path / name))
        remove_shard(path / name, marker.identity if marker else "")
        if (path / name).exists():
            raise InputError(f"{path}: the folder is not empty ({name}); give a new folder")
    home.make()
    return home


def _target(change: Transaction, to: Path | str | None) -> tuple[Path, str]:
    """Return the folder of a new shard, and how the manifest lists it."""
    if to is None:
        name = _name(change.manifest.next)
        return change.home / name, name
    target = Path(to).resolve()
    check_free(change.home, target, change.manifest)
    return target, str(target)


def _empty_shard(path: Path, like: AnyShard, sharded: ShardedManifest, home: Path) -> AnyShard:
    """Make a shard without images: encoders, networks, roots and options are those of another index."""
    marker = ShardMarker(sharded.identity, str(home.resolve()))

    def first(folder: Folder) -> Manifest:
        known = like.snapshot.manifest
        source = Folder(like.path)
        for entry in dict.fromkeys([*known.encoders, *known.networks]):
            folder.write(entry.name, [source.map(entry.name)])
        write_marker(folder, marker)
        return replace(known, identity=uuid.uuid4().hex, commit=1, next=1, segments=(), beside={})

    return _held(class_of(like.kind).open(make_folder(path, first)), like)


def _held(made: AnyShard, like: AnyShard) -> AnyShard:
    """Return a new shard that can be changed, with the places of features and photographs as seen from its folder."""
    made.hold(made.snapshot.manifest)
    made.remember(like)
    made.hold(made.snapshot.manifest)
    return made


def _copied(source: AnyShard, folder: Folder, marker: ShardMarker) -> Manifest:
    """Copy all files of a shard; returns its manifest."""
    manifest: Manifest = source.snapshot.manifest
    here = Folder(source.path)
    for name in dict.fromkeys(entry.name for entry in manifest.files()):
        folder.write(name, [here.map(name)])
    write_marker(folder, marker)
    return manifest


def _segments_in(source: AnyShard, slots: Sequence[int]) -> list[Any]:
    """Return the segments of an index with only the images in some slots live."""
    is_wanted = np.zeros(SLOTS, bool)
    is_wanted[list(slots)] = True
    found = []
    for segment in source.snapshot.segments:
        numbers = segment.live_numbers()
        kept = numbers[is_wanted[slots_of(segment.names_as_bytes(numbers))]]
        if len(kept):
            found.append(_with_live(segment, kept))
    return found


def _with_live(segment: Any, kept: np.ndarray) -> Any:
    """Return a segment of which only the images `kept` are not deleted."""
    deleted = np.ones(segment.images, bool)
    deleted[kept] = False
    masked = copy.copy(segment)
    masked.deleted = deleted
    if hasattr(segment, "parts"):  # the parts of a fused segment have deletions of their own
        masked.parts = tuple(_with_live(part, kept) for part in segment.parts)
    return masked


def _move(source: AnyShard, target: AnyShard, slots: Sequence[int]) -> None:
    """Copy the images in some slots to another shard, and delete them here."""
    segments = _segments_in(source, slots)
    target.take_over(segments)
    names = [name.decode() for segment in segments for name in segment.names_as_bytes(segment.live_numbers())]
    if names:
        source.delete(names)
