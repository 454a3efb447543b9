"""The index: a codebook and a list of segments in one durable folder.

Reading never waits for writing: a snapshot maps everything it needs when it is opened. A change writes new files
and then replaces the manifest; until that moment the old commit is what everybody sees.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from asmk_engine import __version__
from asmk_engine import segment as segments
from asmk_engine.arrays import write_arrays
from asmk_engine.batch import Batch
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.features import FeatureSet, check_name
from asmk_engine.manifest import NAMES, FileEntry, Manifest, SegmentEntry
from asmk_engine.merging import merge_segments
from asmk_engine.segment import Segment
from asmk_engine.segment_writer import CHUNK_POSTINGS, Contents, write_segment
from asmk_engine.signatures import Signature, code_width, sign_many
from asmk_engine.snapshot import Snapshot, copy_network, map_network, map_snapshot, open_snapshot, write_deleted
from asmk_engine.store import LOCK, TEMPORARY, Folder, WriterLock, encode_manifest

# A segment is written and committed when this many postings are in hand: 256 MiB of codes at 128 bits.
SEGMENT_POSTINGS = 1 << 24
# When so many segments are of like size they are joined; those below SMALL_POSTINGS are all alike.
TIER_SEGMENTS = 8
SMALL_POSTINGS = 1 << 15
_OURS = re.compile(
    r"(?:segment-\d+|deleted-\d+|codebook-[0-9a-f]+|network-[0-9a-f]+)\.safetensors|manifest(?:\.copy)?\.json"
)
EXISTING = ("refuse", "skip", "update", "replace")
Progress = Callable[[int, int], None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class AddSummary:
    """What `Index.add` did, in images: new, replaced, left as they were, and removed because they vanished."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0


class Index:
    """A persistent ASMK index; see `create`, `open`, `add`, `delete` and `merge`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = Folder(path)
        self._snapshot = open_snapshot(self._folder)

    @classmethod
    def open(cls, path: Path | str) -> Index:
        """Open an index at its last commit; NotFoundError, FormatError or DamagedError name what is wrong."""
        return cls(Path(path))

    @classmethod
    def create(cls, path: Path | str, codebook: Codebook, network: Path | None = None) -> Index:
        """Make an empty index in a new or empty folder; InputError when something is in the way.

        network  the file of the network that makes the features, copied into the index; it must be in the layout of
                 `arrays`, or DamagedError says what it lacks
        """
        folder = Folder(path)
        check_vacant(folder)
        source = map_network(network) if network else None
        folder.make()
        with WriterLock(folder.path):
            check_vacant(folder)  # again: another process may have made one while we waited
            folder.remove_leftovers(_OURS)
            name = f"codebook-{codebook.fingerprint[:12]}.safetensors"
            manifest = Manifest(uuid.uuid4().hex, f"asmk-engine {__version__}", _write_codebook(folder, name, codebook))
            if source is not None:
                manifest = replace(manifest, network=copy_network(folder, source))
            folder.sync()
            folder.replace_manifest(NAMES, manifest.to_json())
        return cls(folder.path)

    @property
    def snapshot(self) -> Snapshot:
        """The commit this object sees: the last one it made, or the one it was opened at."""
        return self._snapshot

    @property
    def codebook(self) -> Codebook:
        """The codebook every image of the index went through."""
        return self._snapshot.codebook

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
    def postings(self) -> int:
        """Postings on disk, those of deleted images included until `merge`."""
        return sum(segment.postings for segment in self._snapshot.segments)

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
        self._snapshot = open_snapshot(self._folder, self._snapshot)

    def add(
        self,
        features: FeatureSet,
        *,
        existing: str = "refuse",
        prune: bool = False,
        segment_postings: int = SEGMENT_POSTINGS,
        on_image: Progress | None = None,
    ) -> AddSummary:
        """Add the images of a feature set; each full segment is committed, the last one with everything else.

        existing  what to do with a name that is there already: `refuse` the whole call, `skip` it, `update` it when
                  its content changed, or `replace` it
        prune     also remove the images that the feature set does not hold
        Raises InputError, or MismatchError when recipe or dimension differ from the codebook's; then nothing changed.
        """
        if existing not in EXISTING:
            raise InputError(f"existing is {existing!r}; choose one of {', '.join(EXISTING)}")
        with self._writing():
            check_fits(features, self.codebook, self.path)
            plan = self._plan(features, existing, prune)
            wanted = [*plan.new, *plan.changed]
            signed = sign_many(features.images(wanted), self.codebook)
            described = ((name, features.source(name).fingerprint, signature) for name, signature in signed)
            batch = self._commit_full(_counted(described, len(wanted), on_image), features, segment_postings)
            if batch.names or plan.vanished or self._remembers_other(features):
                self._commit(batch.contents(), [*batch.names, *plan.vanished], features)
        return AddSummary(len(plan.new), len(plan.changed), plan.unchanged, len(plan.vanished))

    def add_signatures(
        self, images: Iterable[tuple[str, Signature]], *, segment_postings: int = SEGMENT_POSTINGS
    ) -> int:
        """Add images that were signed elsewhere, with this codebook and one assignment; returns how many.

        Raises InputError for a name that is there already and MismatchError for another code size; what was committed
        before stays.
        """
        with self._writing():
            checked = ((name, 0, self._check_new(name, signature)) for name, signature in images)
            before = self.images
            batch = self._commit_full(checked, None, segment_postings)
            if batch.names:
                self._commit(batch.contents(), (), None)
        return self.images - before

    def add_contents(self, contents: Contents) -> None:
        """Add postings that are at hand as one segment; raises as `add_signatures`, and then nothing changed."""
        width = code_width(self.codebook.dim)
        if contents.codes.shape != (len(contents.words), width):
            raise MismatchError(f"codes are {contents.codes.shape}, the index takes [m, {width}]")
        with self._writing():
            if known := list(self._snapshot.find_all(name.decode() for name in contents.names)):
                raise InputError(f"{self.path}: {_listed(known)} there already; names must be unique")
            if contents.names:
                self._commit(contents, (), None)

    def _check_new(self, name: str, signature: Signature) -> Signature:
        if check_name(name) in self:
            raise InputError(f"{self.path}: {_listed([name])} there already; names must be unique")
        width = code_width(self.codebook.dim)
        if signature.codes.shape != (len(signature), width):
            raise MismatchError(f"{name}: codes are {signature.codes.shape}, the index takes [m, {width}]")
        return signature

    def _commit_full(
        self, images: Iterable[tuple[str, int, Signature]], features: FeatureSet | None, segment_postings: int
    ) -> Batch:
        """Commit each segment that is full, and return the batch that is left."""
        batch = Batch(code_width(self.codebook.dim))
        for name, fingerprint, signature in images:
            batch.append(name, fingerprint, signature)
            if batch.postings >= segment_postings:
                self._commit(batch.contents(), batch.names, features)
                batch = Batch(batch.width)
        return batch

    def delete(self, names: Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete images at once; returns how many. NotFoundError, before anything changed, for an unknown name."""
        with self._writing():
            wanted = list(dict.fromkeys(names))
            known = list(self._snapshot.find_all(wanted))
            unknown = [name for name in wanted if name not in set(known)] if len(known) < len(wanted) else []
            if unknown and not missing_ok:
                raise NotFoundError(f"{self.path}: {_listed(unknown)} not in the index; nothing was deleted")
            if known:
                self._commit(None, known, None)
        return len(known)

    def merge(self, *, chunk_postings: int = CHUNK_POSTINGS) -> int:
        """Join all segments into one and give back the space of deleted images; returns how many there were.

        chunk_postings  how many postings are held in memory at a time
        """
        with self._writing():
            before = self._snapshot.segments
            if len(before) > 1 or any(segment.deleted is not None for segment in before):
                manifest = self._snapshot.manifest
                entries = [self._merge(before, manifest.next, chunk_postings)] if self.images else []
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

    def _plan(self, features: FeatureSet, existing: str, prune: bool) -> _Plan:
        names = features.names
        known = self._snapshot.find_all(names)
        if known and existing == "refuse":
            raise InputError(f"{self.path}: {_listed(list(known))} there already; ask for skip, update or replace")
        changed = [name for name, place in known.items() if self._is_due(features, name, place, existing)]
        vanished = [name for name in self._snapshot.names() if name not in features] if prune else []
        return _Plan([name for name in names if name not in known], changed, len(known) - len(changed), vanished)

    def _is_due(self, features: FeatureSet, name: str, place: tuple[int, int], existing: str) -> bool:
        if existing == "update":
            indexed = self._snapshot.segments[place[0]].fingerprints[place[1]]
            return features.source(name).fingerprint != int(indexed)
        return existing == "replace"

    def _remembers_other(self, features: FeatureSet) -> bool:
        manifest = self._snapshot.manifest
        return _origins(manifest, features) != {"features": manifest.features, "images_roots": manifest.images_roots}

    def _commit(self, contents: Contents | None, deleted: Sequence[str], features: FeatureSet | None) -> None:
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
            tiers.setdefault(_tier(segment.postings), []).append(place)
        full = next((places for places in tiers.values() if self._can_join(places)), None)
        if full is not None:
            manifest = self._snapshot.manifest
            joined = [self._snapshot.segments[place] for place in full]
            kept = [entry for place, entry in enumerate(manifest.segments) if place not in full]
            if any(segment.live for segment in joined):
                kept.append(self._merge(joined, manifest.next, CHUNK_POSTINGS))
            self._publish(manifest.following(segments=tuple(kept), next=manifest.next + 1))
            self._tidy()

    def _can_join(self, places: list[int]) -> bool:
        live = sum(self._snapshot.segments[place].live for place in places)
        return len(places) >= TIER_SEGMENTS and live < segments.MAX_IMAGES

    def _entries_without(self, names: Sequence[str], number: int) -> tuple[list[SegmentEntry], int]:
        gone: dict[int, list[int]] = {}
        for place in self._snapshot.find_all(names).values():
            gone.setdefault(place[0], []).append(place[1])
        entries = list(self._snapshot.manifest.segments)
        for segment, numbers in gone.items():
            entries[segment] = self._without(entries[segment], self._snapshot.segments[segment], numbers, number)
            number += 1
        return entries, number

    def _without(self, entry: SegmentEntry, segment: Segment, numbers: list[int], number: int) -> SegmentEntry:
        deleted = np.zeros(segment.images, bool) if segment.deleted is None else segment.deleted.copy()
        deleted[numbers] = True
        return write_deleted(self._folder, entry, deleted, number)

    def _write(self, contents: Contents, number: int) -> SegmentEntry:
        name = f"segment-{number:06d}.safetensors"
        checksum = write_segment(self._folder, name, contents, self.codebook.words)
        return SegmentEntry(_entry(self._folder, name, checksum), len(contents.names), len(contents.words))

    def _merge(self, segments: Sequence[Segment], number: int, chunk_postings: int) -> SegmentEntry:
        name = f"segment-{number:06d}.safetensors"
        merged = merge_segments(self._folder, name, segments, self.codebook.words, chunk_postings=chunk_postings)
        return SegmentEntry(_entry(self._folder, name, merged.checksum), merged.images, merged.postings)

    def _publish(self, manifest: Manifest) -> None:
        self._folder.sync()
        self._folder.replace_manifest(NAMES, manifest.to_json())
        self._snapshot = map_snapshot(self._folder, manifest, self._snapshot)


@dataclass(frozen=True)
class _Plan:
    new: list[str]
    changed: list[str]
    unchanged: int
    vanished: list[str]


def _counted(items: Iterable[Item], total: int, on_image: Progress | None) -> Iterator[Item]:
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


def check_fits(features: FeatureSet, codebook: Codebook, path: Path) -> None:
    """Raise MismatchError unless features can go through the codebook of the index at `path`."""
    if features.recipe != codebook.recipe:
        raise MismatchError(
            f"{features.path}: features of [{features.recipe}], but the codebook of {path} was trained on "
            f"[{codebook.recipe}]; extract with the same options, or build another index"
        )
    if features.dim != codebook.input_dim:
        raise MismatchError(
            f"{features.path}: descriptors have {features.dim} dimensions, the codebook of {path} takes "
            f"{codebook.input_dim}; build a codebook for these features"
        )


def _tier(postings: int) -> int:
    """Segments of one tier differ in size by at most the number of segments that are joined at a time."""
    return int(math.log(max(postings, SMALL_POSTINGS), TIER_SEGMENTS))


def _origins(manifest: Manifest, features: FeatureSet) -> dict[str, tuple[str, ...]]:
    """Where all features and photographs of the index are, in full, those indexed last at the end."""
    sets, roots = [str(features.path.resolve())], features.images_roots
    return {
        "features": (*(path for path in manifest.features if path not in sets), *sets),
        "images_roots": (*(root for root in manifest.images_roots if root not in roots), *roots),
    }


def _listed(names: Sequence[str], shown: int = 3) -> str:
    """`'a', 'b', 'c' and 7 more images are`, for an error."""
    text = ", ".join(repr(name) for name in names[:shown])
    more = f" and {len(names) - shown} more images" if len(names) > shown else ""
    return f"{text}{more} {'is' if len(names) == 1 else 'are'}"


def _entry(folder: Folder, name: str, checksum: int) -> FileEntry:
    return FileEntry(name, folder.size(name), checksum)


def _write_codebook(folder: Folder, name: str, codebook: Codebook) -> FileEntry:
    metadata = {"recipe": codebook.recipe.to_json(), "training": json.dumps(codebook.training)}
    if codebook.graph is not None:
        metadata |= {"assignment": codebook.assignment, "graph_beam": str(codebook.graph.beam)}
    checksum = write_arrays(folder, name, codebook.arrays(), {"kind": "asmk-engine codebook", **metadata})
    return _entry(folder, name, checksum)
