"""Repair of a damaged index: provably damaged files are dropped, everything else is kept.

A damaged, missing or outdated copy of the manifest is rewritten from the other. A damaged segment is dropped with its
images, a damaged network, damaged geometry, a damaged neighbour table and a damaged calibration by themselves. In a
fused index, where only the file of a kind of features is damaged, its images lose this kind and keep the others.
Damaged deletions are dropped, so that deleted images reappear, except those with a newer version in another segment. If
the last commit is damaged and a copy of the manifest has the previous one, the commit that loses less is kept. All
dropped files are moved to a new folder `dropped-N` inside the index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkError, DamagedError
from asmk_engine.fused.snapshot import Fusion, part_name, read_fusion
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.manifest import (
    NAMES,
    FileEntry,
    KindEntry,
    KindFile,
    Manifest,
    SegmentEntry,
    read_copies,
    read_manifest,
)
from asmk_engine.indexes.shard_marker import check_is_no_shard
from asmk_engine.indexes.snapshot import write_deleted, write_moved
from asmk_engine.maintenance.checking import (
    KINDS,
    Finding,
    check_calibration,
    check_commit,
    check_neighbours,
    damaged_kinds,
    number_of,
)
from asmk_engine.maintenance.geometry_check import without_geometry
from asmk_engine.storage.folder import Folder, WriterLock, encode_manifest


@dataclass(frozen=True)
class Repair:
    """The actions of a repair, done or planned.

    commit      the number of the commit afterwards
    findings    the damage found
    moved       files that are moved to `folder`
    folder      name of the new folder `dropped-N`, empty if no file is moved
    lost        number of images lost with damaged segments
    lost_names  their names, as far as they are readable
    returned    number of deleted images that reappear; their names are lost with the damaged file
    without     in a fused index, number of images by kind of features that lose it, with a damaged file of this kind
    without_geometry  number of images that lose their geometry, by the damaged file
    rewritten   copies of the manifest that are rewritten
    done        whether the repair was carried out
    """

    path: Path
    commit: int
    findings: tuple[Finding, ...]
    moved: tuple[str, ...] = ()
    folder: str = ""
    lost: int = 0
    lost_names: tuple[str, ...] = ()
    returned: int = 0
    without: dict[str, int] = field(default_factory=dict)
    without_geometry: dict[str, int] = field(default_factory=dict)
    rewritten: tuple[str, ...] = ()
    done: bool = False

    @property
    def needed(self) -> bool:
        """Whether there is anything to repair."""
        return bool(self.moved or self.rewritten)

    def to_json(self) -> dict[str, Any]:
        """Return the repair as JSON values."""
        findings = [vars(finding) for finding in self.findings]
        return {**vars(self), "path": str(self.path), "needed": self.needed, "findings": findings}


@dataclass
class _Draft:
    """A commit without its damaged parts, and the consequences.

    network    the network, if it is kept
    kinds      the kinds of features of a fused index, without damaged networks
    emptied    numbers of kinds by position of the segment, whose files are damaged there
    segments   the segments that are kept, in order
    lost       number of images lost, with the readable ones of their names in `lost_names`
    forgotten  number of deleted images by position of the segment, for those with damaged deletions
    clashes    duplicate images by position of the segment, from which they are deleted
    unrooted   positions of the segments with root numbers that are not in the manifest
    flattened  names of the damaged geometry files by the name of the file of their segment
    """

    manifest: Manifest
    findings: list[Finding]
    network: FileEntry | None = None
    kinds: tuple[KindEntry, ...] = ()
    emptied: dict[int, list[int]] = field(default_factory=dict)
    segments: list[tuple[SegmentEntry, ImageTable]] = field(default_factory=list)
    lost: int = 0
    lost_names: list[str] = field(default_factory=list)
    forgotten: dict[int, int] = field(default_factory=dict)
    clashes: dict[int, list[int]] = field(default_factory=dict)
    unrooted: set[int] = field(default_factory=set)
    flattened: dict[str, list[str]] = field(default_factory=dict)

    @property
    def loss(self) -> tuple[int, int]:
        """The sort key of drafts: the number of images, of their kinds and of deletions lost, then the later commit.

        Geometry does not count: to keep it, a draft would go back to before its images.
        """
        return self.lost + sum(self.without().values()) + sum(self.forgotten.values()), -self.manifest.commit

    def files(self) -> set[str]:
        """Return the names of the files that are kept."""
        each = [(one.file, one.deleted, one.moved, one.geometry) for one, _ in self.segments]
        entries = [entry for some in each for entry in some if entry]
        parts = [
            file
            for place, (one, _) in enumerate(self.segments)
            for number, part in enumerate(one.kinds)
            if number not in self.emptied.get(place, ())
            for file in (part.file, part.geometry)
            if file
        ]
        networks = [self.network, *(kind.network for kind in self.kinds)]
        whole = [*self.manifest.encoders, *(entry for entry in networks if entry)]
        return {entry.name for entry in (*whole, *entries, *parts)}

    def without(self) -> dict[str, int]:
        """Count by kind of features the images that lose it, those that are kept."""
        counts: dict[str, int] = {}
        for place, kinds in self.emptied.items():
            live = self._live(place)
            for number in kinds:
                name = self.manifest.kinds[number].name
                counts[name] = counts.get(name, 0) + live
        return counts

    def without_geometry(self) -> dict[str, int]:
        """Count by damaged geometry file the images that lose it, those that are kept."""
        places = {entry.file.name: place for place, (entry, _) in enumerate(self.segments)}
        return {
            name: self._live(places[segment])
            for segment, names in self.flattened.items()
            for name in names
            if segment in places
        }

    def _live(self, place: int) -> int:
        return self.segments[place][1].live - len(self.clashes.get(place, ()))

    def returned(self) -> int:
        """Count the deleted images that reappear: those with damaged deletions, except where a newer version exists."""
        return sum(count - len(self.clashes.get(place, ())) for place, count in self.forgotten.items())


def repair_index(path: Path | str, *, write: bool = False, is_shard: bool = False) -> Repair:
    """Find the damage of an index and, with `write`, repair it; an interrupted repair can be run again.

    Raises NotFoundError or FormatError if there is no index, and DamagedError if it cannot be repaired because both
    copies of the manifest, or the codebook or codec, are damaged. Raises InputError for a shard, unless `is_shard`.
    """
    folder = Folder(path)
    read_manifest(folder)
    if not is_shard:
        check_is_no_shard(folder.path)
    with WriterLock(folder.path) if write else contextlib.nullcontext():
        copies, problems = read_copies(folder)
        drafts = _drafts(folder, {copy.commit: copy for copy in copies.values()})
        found = [Finding(name, str(error)) for name, error in problems.items()]
        repair, draft = _planned(folder, drafts, [*found, *_damaged_tables(folder, drafts[0].manifest)])
        if write and repair.needed:
            _carry_out(folder, drafts, draft, repair)
            return replace(repair, done=True)
        return repair


def _damaged_tables(folder: Folder, manifest: Manifest) -> list[Finding]:
    """Return the findings of a damaged neighbour table and calibration, moved like a damaged copy of the manifest."""
    tables = [finding for finding in check_neighbours(folder, manifest) if finding.kind == "damage"]
    return [*tables, *check_calibration(folder, manifest)]


def _drafts(folder: Folder, manifests: dict[int, Manifest]) -> list[_Draft]:
    """Draft a repair from each manifest, the last commit first; from the previous one only if the last is damaged."""
    drafts: list[_Draft] = []
    hopeless: list[DamagedError] = []
    for commit in sorted(manifests, reverse=True):
        if not drafts or drafts[0].findings:
            try:
                drafts.append(_draft(folder, manifests[commit]))
            except DamagedError as error:
                hopeless.append(error)
    if not drafts:
        raise hopeless[0]
    return drafts


def _draft(folder: Folder, manifest: Manifest) -> _Draft:
    findings = [finding for finding in check_commit(folder, manifest) if finding.kind != "note"]
    damaged = {finding.file: finding.what for finding in findings if finding.kind == "damage"}
    if lost := next((entry.name for entry in manifest.encoders if entry.name in damaged), None):
        raise DamagedError(
            f"{folder.path / lost}: {damaged[lost]}; the index is unusable without "
            f"the {manifest.encoder_name}: restore a copy of this file, or index again"
        )
    network = manifest.network if manifest.network and manifest.network.name not in damaged else None
    kinds = tuple(
        replace(kind, network=None) if kind.network and kind.network.name in damaged else kind
        for kind in manifest.kinds
    )
    draft = _Draft(manifest, findings, network, kinds)
    for entry in {entry.file.name: entry for entry in manifest.segments}.values():
        if entry.moved is not None and entry.moved.name in damaged:
            entry = replace(entry, moved=None)  # its images get back the roots recorded in the segment
        if flat := [file.name for file in entry.geometries if file.name in damaged]:
            draft.flattened[entry.file.name] = flat
            entry = without_geometry(entry, flat)
        if entry.deleted is not None and entry.deleted.name in damaged:
            _take(folder, draft, replace(entry, deleted=None, deleted_images=0), entry.deleted_images)
        else:
            _take(folder, draft, entry, None)
    _note_clashes(draft)
    return draft


def _take(folder: Folder, draft: _Draft, entry: SegmentEntry, forgotten: int | None) -> None:
    """Keep a segment if it is intact.

    forgotten  number of its deleted images if the deletions are damaged, else None
    """
    kind = KINDS[draft.manifest.kind]
    encoder = kind.read_encoder(folder, draft.manifest)
    segment: ImageTable | None = None
    try:
        segment = kind.map_segment(folder, entry, encoder)
        kind.check_segment(segment, encoder, False)
    except AsmkError as error:
        if entry.kinds and _take_table(folder, draft, entry, encoder, forgotten):
            return
        if forgotten is not None:
            draft.findings.append(Finding(entry.file.name, str(error)))
        draft.lost += entry.images - entry.deleted_images - (forgotten or 0)
        with contextlib.suppress(AsmkError):
            draft.lost_names += segment.names() if segment else []
        return
    _keep(draft, entry, segment, forgotten)


def _take_table(folder: Folder, draft: _Draft, entry: SegmentEntry, fusion: Fusion, forgotten: int | None) -> bool:
    """Keep the images of a segment of a fused index if only files of its kinds are damaged; return whether so."""
    segment: ImageTable
    try:
        segment, damaged = damaged_kinds(folder, entry, fusion)
    except AsmkError:
        return False
    if forgotten is not None:
        draft.findings += [Finding(entry.kinds[number].file.name, what) for number, what in damaged.items()]
    draft.emptied[len(draft.segments)] = [*damaged]
    _keep(draft, entry, segment, forgotten)
    return True


def _keep(draft: _Draft, entry: SegmentEntry, segment: ImageTable, forgotten: int | None) -> None:
    if forgotten is not None:
        draft.forgotten[len(draft.segments)] = forgotten
    if int(segment.root_numbers.max(initial=0)) > len(draft.manifest.roots):
        draft.unrooted.add(len(draft.segments))
    draft.segments.append((entry, segment))


def _note_clashes(draft: _Draft) -> None:
    """Record duplicate names: the image of the later segment is kept, and any other rather than one that reappears."""
    holder: dict[str, tuple[int, int]] = {}
    for place in sorted(range(len(draft.segments)), key=lambda place: (place not in draft.forgotten, place)):
        segment = draft.segments[place][1]
        for number in segment.live_numbers().tolist():
            name = segment.name(number)
            if name in holder:
                draft.clashes.setdefault(holder[name][0], []).append(holder[name][1])
            holder[name] = place, number


def _planned(folder: Folder, drafts: list[_Draft], problems: list[Finding]) -> tuple[Repair, _Draft]:
    draft, last = min(drafts, key=lambda draft: draft.loss), drafts[0]
    changed = bool(last.findings or draft.clashes or draft is not last)
    content = encode_manifest(draft.manifest.to_json())
    stale = [name for name in NAMES if changed or folder.content(name) != content]
    # The files of a commit that is not kept are moved as well: a repair never removes anything.
    named = {entry.name for other in drafts for entry in other.manifest.files()}
    moved = sorted((named - draft.files() | {finding.file for finding in problems}) & {*folder.names()})
    repair = Repair(
        path=folder.path,
        commit=last.manifest.commit + changed,
        findings=(*problems, *last.findings),
        moved=tuple(moved),
        folder=_vacant(folder) if moved else "",
        lost=draft.lost,
        lost_names=tuple(draft.lost_names),
        returned=draft.returned(),
        without=draft.without(),
        without_geometry=draft.without_geometry(),
        rewritten=tuple(stale),
    )
    return repair, draft


def _vacant(folder: Folder) -> str:
    """Return an unused name for the folder of dropped files, so that nothing is ever overwritten."""
    there = {*folder.names()}
    return next(name for name in (f"dropped-{number}" for number in range(1, len(there) + 2)) if name not in there)


def _carry_out(folder: Folder, drafts: list[_Draft], draft: _Draft, repair: Repair) -> None:
    """Carry out a repair; files are moved first, so that after an interruption none is removed as a leftover."""
    if repair.moved:
        dropped = Folder(folder.path / repair.folder)
        dropped.make()
        for name in repair.moved:
            folder.move(name, dropped)
        dropped.sync()
        folder.sync()
    if repair.commit == draft.manifest.commit:
        manifest = draft.manifest
    else:
        numbers = [number_of(entry.name) for other in drafts for entry in other.manifest.files()]
        following = max(draft.manifest.next, *(other.manifest.next for other in drafts), 1 + max(numbers))
        entries = tuple(_entries(folder, draft, following))
        manifest = replace(draft.manifest, commit=repair.commit, segments=entries, network=draft.network)
        written = len(draft.clashes) + len(draft.unrooted) + len(draft.emptied)
        manifest = replace(manifest, kinds=draft.kinds, next=following + written)
        folder.sync()
    folder.replace_manifest(NAMES, manifest.to_json())


def _entries(folder: Folder, draft: _Draft, number: int) -> Iterator[SegmentEntry]:
    """Yield the entries of the kept segments, with deletions that make names unique, and with valid root numbers."""
    for place, (entry, segment) in enumerate(draft.segments):
        if place in draft.emptied:
            entry = _without_kinds(folder, draft, entry, draft.emptied[place], number)
            number += 1
        if place in draft.unrooted:
            numbers = np.where(segment.root_numbers <= len(draft.manifest.roots), segment.root_numbers, 0)
            entry = write_moved(folder, entry, numbers, number)
            number += 1
        if place not in draft.clashes:
            yield entry
            continue
        deleted = np.zeros(segment.images, bool) if segment.deleted is None else segment.deleted.copy()
        deleted[draft.clashes[place]] = True
        yield write_deleted(folder, entry, deleted, number)
        number += 1


def _without_kinds(folder: Folder, draft: _Draft, entry: SegmentEntry, kinds: list[int], number: int) -> SegmentEntry:
    """Write files that say that no image has features of some kinds, as file number `number`; return the new entry."""
    parts, fusion = list(entry.kinds), read_fusion(folder, draft.manifest)
    for place in kinds:
        name = part_name(f"segment-{number:06d}.safetensors", place + 1)
        written = fusion.kinds[place].write(folder, name, fusion.kinds[place].nothing(entry.images))
        parts[place] = KindFile(FileEntry.of(folder, name, written.checksum), written.entries)
    return replace(entry, entries=sum(part.entries for part in parts), kinds=tuple(parts))
