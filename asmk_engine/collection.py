"""A durable collection: a folder of immutable segments, changed by commits; what indexes of every kind have in common.

Reading never waits for writing: a snapshot maps everything it needs when it is opened. A change writes new files
and then replaces the manifest; until that moment the old commit is what everybody sees.
"""

from __future__ import annotations

import abc
import contextlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from asmk_engine import __version__
from asmk_engine import segment as segments
from asmk_engine.arrays import ArrayFile
from asmk_engine.commits import Commit, copy_network, write_deleted
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.features import FeatureSet
from asmk_engine.image_table import ImageTable
from asmk_engine.manifest import NAMES, FileEntry, Manifest, SegmentEntry
from asmk_engine.recipes import Recipe
from asmk_engine.store import LOCK, TEMPORARY, Folder, WriterLock, encode_manifest

_OURS = re.compile(
    r"(?:segment-\d+|deleted-\d+|(?:codebook|codec|network)-[0-9a-f]+)\.safetensors|manifest(?:\.copy)?\.json"
)
EXISTING = ("refuse", "skip", "update", "replace")
Progress = Callable[[int, int], None]
Item = TypeVar("Item")


class Named(Protocol):
    """The content of a segment to be: whatever a kind of index holds, and the names of its images."""

    @property
    def names(self) -> Sequence[bytes]:
        """Names in UTF-8, in the order of the images."""


View = TypeVar("View", bound=Commit[Any, Any])
Held = TypeVar("Held", bound=Named)


@dataclass(frozen=True)
class AddSummary:
    """What `Index.add` did, in images: new, replaced, left as they were, and removed because they vanished."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0


class Collection(abc.ABC, Generic[View, Held]):
    """Segments in a durable folder; a kind of index says how its segments are mapped, written and joined.

    A kind defines `_open`, `_mapped`, `_write`, `_join`, `_tier` and `_tier_segments`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = Folder(path)
        self._snapshot: View = self._open(None)

    @abc.abstractmethod
    def _open(self, known: View | None) -> View:
        """The last commit."""

    @abc.abstractmethod
    def _mapped(self, manifest: Manifest) -> View:
        """The commit that was just made."""

    @abc.abstractmethod
    def _write(self, contents: Held, number: int) -> SegmentEntry:
        """Write a segment as file number `number`."""

    @abc.abstractmethod
    def _join(self, joined: Sequence[Any], number: int) -> SegmentEntry:
        """Write the live images of some segments as file number `number`."""

    @abc.abstractmethod
    def _tier(self, segment: Any) -> int:
        """Segments of one tier are of like size."""

    @property
    @abc.abstractmethod
    def _tier_segments(self) -> int:
        """When so many segments are of like size they are joined."""

    @property
    def snapshot(self) -> View:
        """The commit this object sees: the last one it made, or the one it was opened at."""
        return self._snapshot

    @property
    def recipe(self) -> Recipe:
        """What makes the descriptors that the index takes."""
        recipe: Recipe = self._snapshot.codebook.recipe
        return recipe

    @property
    def network(self) -> Path | None:
        """The file of the network that the index carries, or None; whoever reads it compares its checksums."""
        entry = self._snapshot.manifest.network
        return self._folder.path / entry.name if entry else None

    @property
    def images(self) -> int:
        """Images that are not deleted."""
        return self._snapshot.images

    @property
    def names(self) -> list[str]:
        """Names of the live images, in byte order."""
        return sorted(self._snapshot.names(), key=str.encode)

    def __contains__(self, name: str) -> bool:
        return self._snapshot.find(name) is not None

    def __len__(self) -> int:
        return self.images

    def preload(self) -> None:
        """Read the whole index into memory now, so that the first queries are as fast as later ones.

        Worth a second for a process that answers many queries, and nothing for one that answers a few, or when the
        index is larger than the memory.
        """
        for segment in self._snapshot.segments:
            segment.file.preload()

    def refresh(self) -> None:
        """See the last commit, also when another process made it."""
        self._snapshot = self._open(self._snapshot)

    def delete(self, names: Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete images at once; returns how many. NotFoundError, before anything changed, for an unknown name."""
        with self._writing():
            wanted = list(dict.fromkeys(names))
            known = list(self._snapshot.find_all(wanted))
            unknown = [name for name in wanted if name not in set(known)] if len(known) < len(wanted) else []
            if unknown and not missing_ok:
                raise NotFoundError(f"{self.path}: {listed(unknown)} not in the index; nothing was deleted")
            if known:
                self._commit(None, known, None)
        return len(known)

    def remember(self, features: Sequence[str], images_roots: Sequence[str]) -> None:
        """Commit where the feature sets and the photographs of the images are, the last ones at the end."""
        with self._writing():
            origins = {"features": tuple(features), "images_roots": tuple(images_roots)}
            self._publish(self._snapshot.manifest.following(**origins))

    def _merge_all(self, join: Callable[[Sequence[Any], int], SegmentEntry]) -> int:
        """Join all segments into one without the deleted images; returns how many there were."""
        with self._writing():
            before = self._snapshot.segments
            if len(before) > 1 or any(segment.deleted is not None for segment in before):
                manifest = self._snapshot.manifest
                entries = [join(before, manifest.next)] if self.images else []
                self._publish(manifest.following(segments=tuple(entries), next=manifest.next + 1))
        return len(before)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with WriterLock(self.path):
            self.refresh()
            self._level_copies()
            self._collect()
            yield
            self._collect()

    def _level_copies(self) -> None:
        """Bring a copy of the manifest that lags or is damaged up to this commit, before files it names are removed."""
        content = self._snapshot.manifest.to_json()
        if any(self._folder.content(name) != encode_manifest(content) for name in NAMES):
            self._folder.replace_manifest(NAMES, content)

    def _collect(self) -> None:
        """Remove what belongs to no commit: leftovers of a killed writer, and files that were replaced."""
        self._folder.remove_leftovers(_OURS, keep={entry.name for entry in self._snapshot.manifest.files()} | {*NAMES})

    def _plan(self, features: FeatureSet, existing: str, prune: bool) -> Plan:
        names = features.names
        known = self._snapshot.find_all(names)
        if known and existing == "refuse":
            raise InputError(f"{self.path}: {listed(list(known))} there already; ask for skip, update or replace")
        changed = [name for name, place in known.items() if self._is_due(features, name, place, existing)]
        vanished = [name for name in self._snapshot.names() if name not in features] if prune else []
        return Plan([name for name in names if name not in known], changed, len(known) - len(changed), vanished)

    def _is_due(self, features: FeatureSet, name: str, place: tuple[int, int], existing: str) -> bool:
        if existing == "update":
            indexed = self._snapshot.segments[place[0]].fingerprints[place[1]]
            return features.source(name).fingerprint != int(indexed)
        return existing == "replace"

    def _remembers_other(self, features: FeatureSet) -> bool:
        manifest = self._snapshot.manifest
        return _origins(manifest, features) != {"features": manifest.features, "images_roots": manifest.images_roots}

    def _commit(self, contents: Held | None, deleted: Sequence[str], features: FeatureSet | None) -> None:
        """One commit: the names in `deleted` leave the old segments, the contents come in as a new one."""
        manifest = self._snapshot.manifest
        entries, number = self._entries_without(deleted, manifest.next)
        if contents is not None and contents.names:
            entries.append(self._write(contents, number))
            number += 1
        changes: dict[str, Any] = {"segments": tuple(entries), "next": number}
        if features is not None:
            changes |= _origins(manifest, features)
        self._publish(manifest.following(**changes))
        self._tidy()

    def _tidy(self) -> None:
        """Join segments of like size once there are many, so that their number stays logarithmic under small adds."""
        tiers: dict[int, list[int]] = {}
        for place, segment in enumerate(self._snapshot.segments):
            tiers.setdefault(self._tier(segment), []).append(place)
        full = next((places for places in tiers.values() if self._can_join(places)), None)
        if full is not None:
            manifest = self._snapshot.manifest
            joined = [self._snapshot.segments[place] for place in full]
            kept = [entry for place, entry in enumerate(manifest.segments) if place not in full]
            if any(segment.live for segment in joined):
                kept.append(self._join(joined, manifest.next))
            self._publish(manifest.following(segments=tuple(kept), next=manifest.next + 1))
            self._tidy()

    def _can_join(self, places: list[int]) -> bool:
        live = sum(self._snapshot.segments[place].live for place in places)
        return len(places) >= self._tier_segments and live < segments.MAX_IMAGES

    def _entries_without(self, names: Sequence[str], number: int) -> tuple[list[SegmentEntry], int]:
        gone: dict[int, list[int]] = {}
        for place in self._snapshot.find_all(names).values():
            gone.setdefault(place[0], []).append(place[1])
        entries = list(self._snapshot.manifest.segments)
        for segment, numbers in gone.items():
            entries[segment] = self._without(entries[segment], self._snapshot.segments[segment], numbers, number)
            number += 1
        return entries, number

    def _without(self, entry: SegmentEntry, segment: ImageTable, numbers: list[int], number: int) -> SegmentEntry:
        deleted = np.zeros(segment.images, bool) if segment.deleted is None else segment.deleted.copy()
        deleted[numbers] = True
        return write_deleted(self._folder, entry, deleted, number)

    def _publish(self, manifest: Manifest) -> None:
        self._folder.sync()
        self._folder.replace_manifest(NAMES, manifest.to_json())
        self._snapshot = self._mapped(manifest)


def make_empty(
    path: Path | str, kind: str, write_book: Callable[[Folder], FileEntry], network: ArrayFile | None = None
) -> Path:
    """Make an empty index of a kind in a new or empty folder; InputError when something is in the way.

    write_book  writes what every descriptor goes through
    network     the mapped file of the network that makes the features, copied into the index
    """
    folder = Folder(path)
    check_vacant(folder)
    folder.make()
    with WriterLock(folder.path):
        check_vacant(folder)  # again: another process may have made one while we waited
        folder.remove_leftovers(_OURS)
        manifest = Manifest(uuid.uuid4().hex, f"asmk-engine {__version__}", write_book(folder), kind=kind)
        if network is not None:
            manifest = replace(manifest, network=copy_network(folder, network))
        folder.sync()
        folder.replace_manifest(NAMES, manifest.to_json())
    return folder.path


@dataclass(frozen=True)
class Plan:
    """What an add will do: names that are new and changed, how many stay, and names that vanished."""

    new: list[str]
    changed: list[str]
    unchanged: int
    vanished: list[str]


def counted(items: Iterable[Item], total: int, on_image: Progress | None) -> Iterator[Item]:
    """The items, with progress told after each."""
    for done, item in enumerate(items):
        yield item
        if on_image:
            on_image(done + 1, total)


def check_vacant(folder: Folder) -> None:
    """Raise InputError unless an index may be made in a folder: it is missing, or empty but for our own leftovers."""
    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path}: a file is in the way; the index needs a folder of its own")
    names = folder.names()
    foreign = [name for name in names if name != LOCK and not _OURS.fullmatch(name.removesuffix(TEMPORARY))]
    if foreign or set(names) & {*NAMES}:
        raise InputError(f"{folder.path}: the folder is not empty; open the index in it, or give another folder")


def _origins(manifest: Manifest, features: FeatureSet) -> dict[str, tuple[str, ...]]:
    """Where all features and photographs of the index are, in full, those indexed last at the end."""
    sets, roots = [str(features.path.resolve())], features.images_roots
    return {
        "features": (*(path for path in manifest.features if path not in sets), *sets),
        "images_roots": (*(root for root in manifest.images_roots if root not in roots), *roots),
    }


def listed(names: Sequence[str], shown: int = 3) -> str:
    """`'a', 'b', 'c' and 7 more images are`, for an error."""
    text = ", ".join(repr(name) for name in names[:shown])
    more = f" and {len(names) - shown} more images" if len(names) > shown else ""
    return f"{text}{more} {'is' if len(names) == 1 else 'are'}"


def file_entry(folder: Folder, name: str, checksum: int) -> FileEntry:
    """The entry of a file that was just written."""
    return FileEntry(name, folder.size(name), checksum)
