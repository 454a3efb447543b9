"""A durable collection: a folder of immutable segments, changed by commits; what indexes of every kind have in common.

Reading never waits for writing: a snapshot maps everything it needs when it is opened. A change writes new files
and then replaces the manifest; until that moment the old commit is what everybody sees.
"""

from __future__ import annotations

import abc
import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.features import FeatureSet
from asmk_engine.images.roots import Root
from asmk_engine.indexes import image_table
from asmk_engine.indexes.additions import AdditionPlan, plan_addition
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.manifest import NAMES, FileEntry, Manifest, SegmentEntry
from asmk_engine.indexes.snapshot import Commit, Identity, copy_network, write_deleted, write_moved
from asmk_engine.recipes import Recipe
from asmk_engine.storage.arrays import ArrayFile
from asmk_engine.storage.folder import LOCK, TEMPORARY, Folder, WriterLock, encode_manifest
from asmk_engine.version import __version__

_OURS = re.compile(
    r"(?:(?:segment|deleted|moved)-\d+|(?:codebook|codec|network)-[0-9a-f]+)\.safetensors|manifest(?:\.copy)?\.json"
)
Origins = dict[str, Any]
"""The parts of a manifest that say where features and photographs are."""


class Named(Protocol):
    """The content of a segment to be: whatever a kind of index holds, and the names of its images."""

    @property
    def names(self) -> Sequence[bytes]:
        """Names in UTF-8, in the order of the images."""


View = TypeVar("View", bound=Commit[Any, Any])
Held = TypeVar("Held", bound=Named)


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

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._snapshot.find(name) is not None

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
                raise NotFoundError(f"{self.path}: not in the index: {list_names(unknown)}; nothing was deleted")
            if known:
                self._commit(None, known, {})
        return len(known)

    def remember(self, other: Collection[Any, Any]) -> None:
        """Commit that the images of this index, which is empty, will come from where those of another one came from."""
        with self._writing():
            known = other.snapshot.manifest
            places = (*known.features, *known.images_roots, *(root.folder for root in known.roots))
            found = {
                place: next(filter(os.path.exists, other.places(place)), Path(place)) for place in dict.fromkeys(places)
            }
            origins = {key: getattr(known, key) for key in ("features", "images_roots", "roots")}
            self._publish(self._snapshot.manifest.following(**origins, beside=self._ways(found)))

    def identity(self, name: str) -> Identity | None:
        """Which photograph the image of this name is, or None where there is no such image."""
        place = self._snapshot.find(name)
        return None if place is None else self._snapshot.identity(place)

    def places(self, place: str) -> tuple[Path, ...]:
        """Where something is that the index remembers: there, or else as near to the index as it was, or beside it."""
        if not os.path.isabs(place):  # it was not written by us and could mean anything here
            return ()
        home = Path(os.path.dirname(os.path.realpath(self.path)))
        way = self._snapshot.manifest.beside.get(place)
        found = (Path(place), *([home / way] if way else []), home / Path(place).name)
        return tuple(dict.fromkeys(Path(os.path.normpath(path)) for path in found))

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """For each feature set that was indexed, the last one first: where it may be."""
        return [places for path in reversed(self._snapshot.manifest.features) if (places := self.places(path))]

    @property
    def photograph_folders(self) -> list[Path]:
        """The folders of photographs that the index remembers, the last one first, each at every place it may be at."""
        manifest = self._snapshot.manifest
        folders = (*(root.folder for root in reversed(manifest.roots)), *reversed(manifest.images_roots))
        return list(dict.fromkeys(path for folder in folders for path in self.places(folder)))

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Where the photograph of this name may be: below its own root first, then below those of others."""
        known = self.identity(name)
        manifest = self._snapshot.manifest
        own = [known.root] if known and known.root.is_known else []
        others = [*reversed(manifest.roots), *(Root(folder) for folder in reversed(manifest.images_roots))]
        for root in dict.fromkeys([*own, *others]):
            for folder in self.places(root.folder):
                if (file := Root(str(folder), root.prefix).file(name)) is not None:
                    yield file

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

    def _plan(self, features: FeatureSet, existing: str, prune: bool, remove: Iterable[str]) -> AdditionPlan:
        """What an add will do; InputError when a name is there already and must not be."""
        if existing == "refuse" and (known := list(self._snapshot.find_all(features.names))):
            raise InputError(f"{self.path}: there already: {list_names(known)}; ask for skip, update or replace")
        vanished = [name for name in self._snapshot.names() if name not in features] if prune else []
        removed = dict.fromkeys([*vanished, *self._snapshot.find_all(remove)])
        return plan_addition(self._snapshot, features, existing, removed)

    def _is_due(self, plan: AdditionPlan, origins: Origins) -> bool:
        """Whether a commit without images is needed."""
        manifest = self._snapshot.manifest
        return bool(plan.removed or plan.moved) or manifest.following(**origins) != manifest.following()

    def _commit(
        self,
        contents: Held | None,
        deleted: Sequence[str],
        origins: Origins,
        moved: Mapping[str, Root] | None = None,
    ) -> None:
        """One commit: the names in `deleted` leave the old segments, the contents come in as a new one.

        origins  what `_origins` returned, where images come from a feature set
        moved    images that were found, unchanged, below other roots
        """
        manifest = self._snapshot.manifest
        entries, number = self._entries_without(deleted, manifest.next)
        if moved:
            number = self._move(entries, moved, origins["roots"], number)
        if contents is not None and contents.names:
            entries.append(self._write(contents, number))
            number += 1
        self._publish(manifest.following(segments=tuple(entries), next=number, **origins))
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
        return len(places) >= self._tier_segments and live < image_table.MAX_IMAGES

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

    def _move(self, entries: list[SegmentEntry], moved: Mapping[str, Root], roots: Sequence[Root], number: int) -> int:
        """Give images other roots; returns the number of the next file."""
        numbers = {root: place for place, root in enumerate(roots, start=1)}
        tables: dict[int, np.ndarray] = {}
        for name, (place, image) in self._snapshot.find_all(moved).items():
            if place not in tables:
                tables[place] = self._snapshot.segments[place].root_numbers.astype(np.uint32)
            tables[place][image] = numbers[moved[name]]
        for place, table in tables.items():
            entries[place] = write_moved(self._folder, entries[place], table, number)
            number += 1
        return number

    def _origins(self, features: FeatureSet) -> Origins:
        """What the manifest says of features and photographs once a set was added, those added last at the end."""
        manifest, roots = self._snapshot.manifest, features.roots()
        sets, folders = [str(features.path.resolve())], list(dict.fromkeys(root.folder for root in roots))
        return {
            "features": (*(path for path in manifest.features if path not in sets), *sets),
            "images_roots": (*(root for root in manifest.images_roots if root not in folders), *folders),
            "roots": (*manifest.roots, *(root for root in roots if root not in manifest.roots)),
            "beside": manifest.beside | self._ways({place: Path(place) for place in (*sets, *folders)}),
        }

    def _ways(self, places: Mapping[str, Path]) -> dict[str, str]:
        """The way from the folder that holds this index to where each place is now; none to what is not there."""
        home, ways = os.path.dirname(os.path.realpath(self.path)), {}
        for place, path in places.items():
            if os.path.exists(path):
                with contextlib.suppress(ValueError):  # another drive
                    ways[place] = Path(os.path.relpath(path, home)).as_posix()
        return ways

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


def check_vacant(folder: Folder) -> None:
    """Raise InputError unless an index may be made in a folder: it is missing, or empty but for our own leftovers."""
    if os.path.lexists(folder.path) and not os.path.isdir(folder.path):
        found = "a broken link" if os.path.islink(folder.path) else "a file"
        raise InputError(f"{folder.path}: {found} is in the way; the index needs a folder of its own")
    names = folder.names()
    foreign = [name for name in names if name != LOCK and not _OURS.fullmatch(name.removesuffix(TEMPORARY))]
    if foreign or set(names) & {*NAMES}:
        raise InputError(f"{folder.path}: the folder is not empty; open the index in it, or give another folder")


def root_numbers(features: FeatureSet, origins: Origins) -> Callable[[str], int]:
    """What gives the number of the root of an image, as it will stand in the manifest; 0 where none is known."""
    numbers = {root: number for number, root in enumerate(origins["roots"], start=1)}
    return lambda name: numbers.get(features.root(name), 0)


def file_entry(folder: Folder, name: str, checksum: int) -> FileEntry:
    """The entry of a file that was just written."""
    return FileEntry(name, folder.size(name), checksum)
