"""A durable collection, the base of all kinds of index: a folder of immutable segments, changed by commits.

A change writes new files and then replaces the manifest; until then all readers see the old commit.
"""

from __future__ import annotations

import abc
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.features import FeatureSource, IdentifiedSource, identified
from asmk_engine.images.roots import Root
from asmk_engine.indexes import image_table
from asmk_engine.indexes.additions import AdditionPlan, AddSummary, check_existing, plan_addition
from asmk_engine.indexes.calibrations import NAME as CALIBRATION
from asmk_engine.indexes.creation import OURS
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.manifest import NAMES, FileEntry, Manifest, SegmentEntry, Written
from asmk_engine.indexes.neighbours import commit_of
from asmk_engine.indexes.reading import IndexReader, View
from asmk_engine.indexes.shard_marker import MARKER, check_is_no_shard
from asmk_engine.indexes.snapshot import write_deleted, write_moved
from asmk_engine.iteration import Progress
from asmk_engine.storage.folder import WriterLock, encode_manifest

TIER_SEGMENTS = 8
"""Segments of similar size are merged when there are this many."""
Facts = Callable[[str], tuple[int, int]]
"""Returns the fingerprint and the root number of an image by its name."""
Origins = dict[str, Any]
"""The fields of a manifest that record where features and images are."""


class Named(Protocol):
    """The content of a future segment: the data of the kind of index, and the names of its images."""

    @property
    def names(self) -> Sequence[bytes]:
        """The names in UTF-8, in the order of the images."""


Held = TypeVar("Held", bound=Named)


class Collection(IndexReader[View], Generic[View, Held]):
    """Segments in a durable folder, and the operations that change them.

    A subclass defines how images become the contents of segments, and how these are written and merged.

    room           when a new segment is committed, if nothing else is asked for, in the unit of `_batches`
    small_segment  segments with fewer entries all count as of similar size
    merge_chunk    amount held in memory at a time when segments are merged, in the unit of `_join`
    """

    room: ClassVar[int]
    small_segment: ClassVar[int]
    merge_chunk: ClassVar[int]
    _held: Manifest | None = None

    def hold(self, manifest: Manifest) -> None:
        """Keep the files of a commit from now on, also when later ones need them no more; only for shards.

        They are removed by the next change after another commit is held.
        """
        self._held = manifest

    @abc.abstractmethod
    def _check_fits(self, features: FeatureSource) -> None:
        """Raise MismatchError or InputError unless the features can be added to this index."""

    @abc.abstractmethod
    def _batches(
        self, features: IdentifiedSource, wanted: Sequence[str], facts: Facts, room: int, on_image: Progress | None
    ) -> Iterator[Held]:
        """Yield the contents of new segments, each as soon as it fills `room`; raises InputError before the first."""

    @abc.abstractmethod
    def _write(self, name: str, contents: Held) -> Written:
        """Write a segment to the file `name`."""

    @abc.abstractmethod
    def _join(self, name: str, joined: Sequence[Any], chunk: int) -> Written:
        """Write the live images of the segments to the file `name`."""

    def _add(
        self,
        features: FeatureSource,
        existing: str,
        prune: bool,
        remove: Iterable[str],
        room: int,
        on_image: Progress | None,
    ) -> AddSummary:
        """Add the images of a source of features, see `Index.add`; a segment is committed when it fills `room`."""
        check_existing(existing)
        self._check_fits(features)
        return self._add_identified(identified(features), existing, prune, remove, room, on_image)

    def _add_identified(
        self,
        source: IdentifiedSource,
        existing: str,
        prune: bool,
        remove: Iterable[str],
        room: int,
        on_image: Progress | None,
    ) -> AddSummary:
        """Do `_add` for images whose features fit this index."""
        with self._writing():
            plan = self.plan(self._snapshot, source, existing, prune, remove)
            self._carry_out(source, plan, room, on_image)
        return plan.summary()

    def carry_out(self, source: IdentifiedSource, plan: AdditionPlan, room: int, on_image: Progress | None) -> None:
        """Do what was planned for images of a source whose features fit, as `_add` does."""
        with self._writing():
            self._carry_out(source, plan, room, on_image)

    def _carry_out(self, source: IdentifiedSource, plan: AdditionPlan, room: int, on_image: Progress | None) -> None:
        origins = self._origins(source)
        batches = self._batches(source, plan.wanted, _facts(source, origins), room, on_image)
        last = self._commit_full(batches, len(plan.wanted), origins)
        if last is not None or self._is_due(plan, origins):
            self._commit(last, [*_names(last), *plan.removed], origins, plan.moved)

    def _commit_full(self, batches: Iterable[Held], images: int, origins: Origins) -> Held | None:
        """Commit each batch except the one that ends with the last of `images` images; returns that one."""
        last = None
        for contents in batches:
            images -= len(contents.names)
            if images:
                self._commit(contents, _names(contents), origins)
            else:
                last = contents
            del contents  # free its memory before the next one is filled
        return last

    def _add_segment(self, contents: Held) -> None:
        """Commit contents as one segment; raises InputError, and changes nothing, if a name is already in the index."""
        with self._writing():
            if known := list(self._snapshot.find_all(_names(contents))):
                raise InputError(f"{self.path}: already in the index: {list_names(known)}; names must be unique")
            if contents.names:
                self._commit(contents, (), {})

    def delete(self, names: Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete images in one commit; until their disk space is reclaimed by `merge`, `restore` takes it back.

        Parameters
        ----------
        names : iterable of str
            Names of the images.
        missing_ok : bool, default False
            Ignore names that are not in the index.

        Returns
        -------
        int
            Number of images deleted.

        Raises
        ------
        NotFoundError
            If a name is not in the index and `missing_ok` is false; nothing is changed.
        """
        with self._writing():
            wanted = list(dict.fromkeys(names))
            known = list(self._snapshot.find_all(wanted))
            unknown = [name for name in wanted if name not in set(known)] if len(known) < len(wanted) else []
            if unknown and not missing_ok:
                raise NotFoundError(f"{self.path}: not in the index: {list_names(unknown)}; nothing was deleted")
            if known:
                self._commit(None, known, {})
        return len(known)

    def restore(self, names: Iterable[str], *, missing_ok: bool = False) -> int:
        """Take the deletion of images back in one commit, exactly as they were.

        That is possible until a merge, by `merge` or by an addition that joins small segments, removes what is deleted.
        Of several deleted images of a name, such as one that was replaced, the one that was added last comes back.

        Parameters
        ----------
        names : iterable of str
            Names of the images.
        missing_ok : bool, default False
            Ignore names of which there is no deleted image.

        Returns
        -------
        int
            Number of images restored.

        Raises
        ------
        InputError
            If there is an image of one of these names; nothing is changed.
        NotFoundError
            If there is no deleted image of a name and `missing_ok` is false; nothing is changed.
        """
        with self._writing():
            wanted = list(dict.fromkeys(names))
            if live := list(self._snapshot.find_all(wanted)):
                raise InputError(
                    f"{self.path}: images of these names are in the index: {list_names(live)}; nothing was restored: "
                    "names must be unique, leave these out"
                )
            found = self._snapshot.find_deleted(wanted)
            unknown = [name for name in wanted if name not in found]
            if unknown and not missing_ok:
                raise NotFoundError(
                    f"{self.path}: no deleted image is left of {list_names(unknown)}; nothing was restored: they were "
                    "never in the index, or a merge has removed them; index the photographs again"
                )
            if found:
                manifest = self._snapshot.manifest
                entries, number = self._marked(found.values(), False, manifest.next)
                self._publish(manifest.following(segments=tuple(entries), next=number))
        return len(found)

    def remember(self, other: Collection[Any, Any]) -> None:
        """Commit the feature sets, image folders and roots of another index to this one, which is empty.

        Parameters
        ----------
        other : Index or GlobalIndex
            The index to copy them from.
        """
        with self._writing():
            known = other.snapshot.manifest
            places = (*known.features, *known.images_roots, *(root.folder for root in known.roots))
            found = {
                place: next(filter(os.path.exists, other.places(place)), Path(place)) for place in dict.fromkeys(places)
            }
            origins = {key: getattr(known, key) for key in ("features", "images_roots", "roots")}
            self._publish(self._snapshot.manifest.following(**origins, beside=self._ways(found)))

    def take_over(self, segments: Sequence[Any]) -> int:
        """Commit the live images of segments of an index with this encoder and these roots; returns their number.

        The names must be new here. What is stored of each image is copied, so that it answers as before.
        """
        with self._writing():
            images = sum(segment.live for segment in segments)
            if images:
                manifest = self._snapshot.manifest
                entry = self._joined(segments, manifest.next, self.merge_chunk)
                self._publish(manifest.following(segments=(*manifest.segments, entry), next=manifest.next + 1))
        return images

    def collect(self) -> None:
        """Remove files that belong neither to the last commit nor to the one that is held."""
        with self._writing():
            pass

    def _merge(self, chunk: int) -> int:
        """Merge all segments into one without the deleted images; returns the number of segments before."""
        with self._writing():
            before = self._snapshot.segments
            if len(before) > 1 or any(segment.deleted is not None for segment in before):
                manifest = self._snapshot.manifest
                entries = (self._joined(before, manifest.next, chunk),) if self.images else ()
                self._publish(manifest.following(segments=entries, next=manifest.next + 1))
        return len(before)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._held is None:
            check_is_no_shard(self.path)
        with WriterLock(self.path):
            self.refresh()
            self._level_copies()
            self._collect()
            yield
            self._collect()

    def _level_copies(self) -> None:
        """Update an outdated or damaged copy of the manifest to this commit, before files it names are removed."""
        content = self._snapshot.manifest.to_json()
        if any(self._folder.content(name) != encode_manifest(content) for name in NAMES):
            self._folder.replace_manifest(NAMES, content)

    def _collect(self) -> None:
        """Remove files that belong to no commit: leftovers of a killed writer, replaced files, old neighbour tables."""
        manifest = self._snapshot.manifest
        tables = {name for name in self._folder.names() if commit_of(name) == manifest.commit}
        held = self._held.files() if self._held else []
        kept = {*NAMES, CALIBRATION, MARKER, *tables, *(entry.name for entry in (*manifest.files(), *held))}
        self._folder.remove_leftovers(OURS, keep=kept)

    def plan(
        self, view: View, features: IdentifiedSource, existing: str, prune: bool, remove: Iterable[str]
    ) -> AdditionPlan:
        """Plan an addition to the images of a commit of this index, or of all shards of which it is one.

        Raises InputError if a name is already there and `existing` is `refuse`.
        """
        if existing == "refuse" and (known := list(view.find_all(features.names))):
            raise InputError(f"{self.path}: already in the index: {list_names(known)}; use skip, update or replace")
        given = set(features.names) if prune else set()
        vanished = [name for name in view.names() if name not in given] if prune else []
        removed = dict.fromkeys([*vanished, *view.find_all(remove)])
        return plan_addition(view, features, existing, removed)

    def _is_due(self, plan: AdditionPlan, origins: Origins) -> bool:
        """Return whether a commit without new images is needed."""
        manifest = self._snapshot.manifest
        return bool(plan.removed or plan.moved) or manifest.following(**origins) != manifest.following()

    def _commit(
        self,
        contents: Held | None,
        deleted: Sequence[str],
        origins: Origins,
        moved: Mapping[str, Root] | None = None,
    ) -> None:
        """Make one commit that deletes the names in `deleted` and adds the contents as a new segment.

        origins  as returned by `_origins`, if the images come from a feature set; else empty
        moved    unchanged images that were found under other roots
        """
        manifest = self._snapshot.manifest
        entries, number = self._marked(self._snapshot.find_all(deleted).values(), True, manifest.next)
        if moved:
            number = self._move(entries, moved, origins["roots"], number)
        if contents is not None and contents.names:
            entries.append(self._segment(number, lambda name: self._write(name, contents)))
            number += 1
        self._publish(manifest.following(segments=tuple(entries), next=number, **origins))
        if contents is not None:  # a deletion alone merges nothing, so that it can be taken back
            self._tidy()

    def _tidy(self) -> None:
        """Merge segments of similar size once there are many, so that their number stays logarithmic."""
        tiers: dict[int, list[int]] = {}
        for place, entry in enumerate(self._snapshot.manifest.segments):
            tiers.setdefault(self._tier(entry), []).append(place)
        full = next((places for places in tiers.values() if self._can_join(places)), None)
        if full is not None:
            manifest = self._snapshot.manifest
            joined = [self._snapshot.segments[place] for place in full]
            kept = [entry for place, entry in enumerate(manifest.segments) if place not in full]
            if any(segment.live for segment in joined):
                kept.append(self._joined(joined, manifest.next, self.merge_chunk))
            self._publish(manifest.following(segments=tuple(kept), next=manifest.next + 1))
            self._tidy()

    def _tier(self, entry: SegmentEntry) -> int:
        """Return the size tier of a segment; sizes within a tier differ by a factor of at most TIER_SEGMENTS."""
        return int(math.log(max(entry.entries, self.small_segment), TIER_SEGMENTS))

    def _can_join(self, places: list[int]) -> bool:
        live = sum(self._snapshot.segments[place].live for place in places)
        return len(places) >= TIER_SEGMENTS and live < image_table.MAX_IMAGES

    def _joined(self, joined: Sequence[Any], number: int, chunk: int) -> SegmentEntry:
        return self._segment(number, lambda name: self._join(name, joined, chunk))

    def _segment(self, number: int, write: Callable[[str], Written]) -> SegmentEntry:
        """Write a segment as file number `number`; `write` receives the name of the file."""
        name = f"segment-{number:06d}.safetensors"
        written = write(name)
        file = FileEntry.of(self._folder, name, written.checksum)
        return SegmentEntry(file, written.images, written.entries, kinds=written.kinds, geometry=written.geometry)

    def _marked(
        self, places: Iterable[tuple[int, int]], is_deleted: bool, number: int
    ) -> tuple[list[SegmentEntry], int]:
        """Mark images as deleted or as live; returns all entries and the number of the next file."""
        changed: dict[int, list[int]] = {}
        for place, image in places:
            changed.setdefault(place, []).append(image)
        entries = list(self._snapshot.manifest.segments)
        for place, images in changed.items():
            segment: ImageTable = self._snapshot.segments[place]
            deleted = np.zeros(segment.images, bool) if segment.deleted is None else segment.deleted.copy()
            deleted[images] = is_deleted
            entries[place] = write_deleted(self._folder, entries[place], deleted, number)
            number += 1
        return entries, number

    def _move(self, entries: list[SegmentEntry], moved: Mapping[str, Root], roots: Sequence[Root], number: int) -> int:
        """Change the roots of images; returns the number of the next file."""
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

    def _origins(self, features: IdentifiedSource) -> Origins:
        """Return the manifest fields that record features and images once a set is added, the last added at the end."""
        manifest, roots = self._snapshot.manifest, features.roots()
        sets = [str(path.resolve()) for path in self._feature_paths(features)]
        folders = list(dict.fromkeys(root.folder for root in roots))
        return {
            "features": (*(path for path in manifest.features if path not in sets), *sets),
            "images_roots": (*(root for root in manifest.images_roots if root not in folders), *folders),
            "roots": (*manifest.roots, *(root for root in roots if root not in manifest.roots)),
            "beside": manifest.beside | self._ways({place: Path(place) for place in (*sets, *folders)}),
        }

    def _feature_paths(self, features: IdentifiedSource) -> list[Path]:
        """Return the folders of the feature sets that a source consists of; none for features in memory."""
        return [] if features.path is None else [features.path]

    def _ways(self, places: Mapping[str, Path]) -> dict[str, str]:
        """Return the path of each existing place relative to the folder that contains this index."""
        home, ways = os.path.dirname(os.path.realpath(self.path)), {}
        for place, path in places.items():
            if os.path.exists(path):
                with contextlib.suppress(ValueError):  # another drive
                    ways[place] = Path(os.path.relpath(path, home)).as_posix()
        return ways

    def _publish(self, manifest: Manifest) -> None:
        self._folder.sync()
        self._folder.replace_manifest(NAMES, manifest.to_json())
        self._snapshot = self._map(manifest, self._snapshot)


def _names(contents: Named | None) -> list[str]:
    return [name.decode() for name in contents.names] if contents is not None else []


def _facts(features: IdentifiedSource, origins: Origins) -> Facts:
    """Return a function from a name to the fingerprint and the root number in the new manifest, 0 for no root."""
    numbers = {root: number for number, root in enumerate(origins["roots"], start=1)}
    return lambda name: (features.source(name).fingerprint, numbers.get(features.root(name), 0))
