"""Mending a damaged index: what is provably broken is dropped, everything else stays.

A copy of the manifest that is damaged, missing or behind is written anew from the other. A damaged segment leaves the
index with its images, a damaged network leaves alone. Damaged deletions are forgotten, so that deleted images come
back, but for those of which another segment holds a newer version. Where the last commit is damaged and a copy of the
manifest speaks of the one before, the commit that loses less is kept. All files that leave are moved to a new folder
`dropped-N` inside the index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkError, DamagedError
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.manifest import NAMES, FileEntry, Manifest, SegmentEntry, read_copies, read_manifest
from asmk_engine.indexes.snapshot import write_deleted, write_moved
from asmk_engine.maintenance.checking import KINDS, Finding, check_commit, number_of
from asmk_engine.storage.folder import Folder, WriterLock, encode_manifest


@dataclass(frozen=True)
class Repair:
    """What a repair does, or would do.

    commit      the commit afterwards
    findings    the damage it starts from
    moved       files that go to `folder`, the `dropped-N`
    lost        images that leave with damaged segments; `lost_names` of those whose names can still be read
    returned    deleted images that come back; which they are is what the damaged file said
    rewritten   copies of the manifest that are written anew
    done        whether it was done, or only planned
    """

    path: Path
    commit: int
    findings: tuple[Finding, ...]
    moved: tuple[str, ...] = ()
    folder: str = ""
    lost: int = 0
    lost_names: tuple[str, ...] = ()
    returned: int = 0
    rewritten: tuple[str, ...] = ()
    done: bool = False

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.moved or self.rewritten)

    def to_json(self) -> dict[str, Any]:
        """The repair as JSON values."""
        findings = [vars(finding) for finding in self.findings]
        return {**vars(self), "path": str(self.path), "needed": self.needed, "findings": findings}


@dataclass
class _Draft:
    """A commit without its damaged parts, and what that means.

    network    the network, if it stays
    segments   those that stay
    forgotten  for those of them whose deletions are damaged, by place: how many images were deleted
    clashes    images that are there twice, by place: they are deleted from there
    unrooted   places of those whose images came from folders that the manifest does not have
    """

    manifest: Manifest
    findings: list[Finding]
    network: FileEntry | None = None
    segments: list[tuple[SegmentEntry, ImageTable]] = field(default_factory=list)
    lost: int = 0
    lost_names: list[str] = field(default_factory=list)
    forgotten: dict[int, int] = field(default_factory=dict)
    clashes: dict[int, list[int]] = field(default_factory=dict)
    unrooted: set[int] = field(default_factory=set)

    @property
    def loss(self) -> tuple[int, int]:
        """The less the better; among equals the later commit."""
        return self.lost + sum(self.forgotten.values()), -self.manifest.commit

    def files(self) -> set[str]:
        """The files that stay."""
        entries = [entry for one, _ in self.segments for entry in (one.file, one.deleted, one.moved) if entry]
        whole = [entry for entry in (self.manifest.encoder, self.network) if entry]
        return {entry.name for entry in (*whole, *entries)}

    def returned(self) -> int:
        """How many deleted images come back: all that were forgotten but those of which there is a newer version."""
        return sum(count - len(self.clashes.get(place, ())) for place, count in self.forgotten.items())


def repair_index(path: Path | str, *, write: bool = False) -> Repair:
    """Find out what is damaged and, with `write`, mend it; a repair that was stopped is begun again.

    Raises NotFoundError or FormatError when there is no index, and DamagedError when nothing can be saved: both copies
    of the manifest are damaged, or the codebook is.
    """
    folder = Folder(path)
    read_manifest(folder)
    with WriterLock(folder.path) if write else contextlib.nullcontext():
        copies, problems = read_copies(folder)
        drafts = _drafts(folder, {copy.commit: copy for copy in copies.values()})
        repair, draft = _planned(folder, drafts, [Finding(name, str(error)) for name, error in problems.items()])
        if write and repair.needed:
            _carry_out(folder, drafts, draft, repair)
            return replace(repair, done=True)
        return repair


def _drafts(folder: Folder, manifests: dict[int, Manifest]) -> list[_Draft]:
    """What can be made of each manifest, the last commit first; the one before only where the last is damaged."""
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
    if manifest.encoder.name in damaged:
        raise DamagedError(
            f"{folder.path / manifest.encoder.name}: {damaged[manifest.encoder.name]}; nothing can be found without "
            f"the {manifest.encoder_name}: restore a copy of this file, or index again"
        )
    network = manifest.network if manifest.network and manifest.network.name not in damaged else None
    draft = _Draft(manifest, findings, network)
    for entry in {entry.file.name: entry for entry in manifest.segments}.values():
        if entry.moved is not None and entry.moved.name in damaged:
            entry = replace(entry, moved=None)  # its images count as coming from where they came from first
        if entry.deleted is not None and entry.deleted.name in damaged:
            _take(folder, draft, replace(entry, deleted=None, deleted_images=0), entry.deleted_images)
        else:
            _take(folder, draft, entry, None)
    _note_clashes(draft)
    return draft


def _take(folder: Folder, draft: _Draft, entry: SegmentEntry, forgotten: int | None) -> None:
    """Keep a segment if it is sound; `forgotten` deletions are damaged."""
    kind = KINDS[draft.manifest.kind]
    encoder = kind.read_encoder(folder, draft.manifest.encoder)
    segment = None
    try:
        segment = kind.map_segment(folder, entry, encoder)
        kind.check_segment(segment, encoder, False)
    except AsmkError as error:
        if forgotten is not None:
            draft.findings.append(Finding(entry.file.name, str(error)))
        draft.lost += entry.images - entry.deleted_images - (forgotten or 0)
        with contextlib.suppress(AsmkError):
            draft.lost_names += segment.names() if segment else []
        return
    if forgotten is not None:
        draft.forgotten[len(draft.segments)] = forgotten
    if int(segment.root_numbers.max(initial=0)) > len(draft.manifest.roots):
        draft.unrooted.add(len(draft.segments))
    draft.segments.append((entry, segment))


def _note_clashes(draft: _Draft) -> None:
    """Of images of one name the one of the later segment stays, and any rather than one that comes back."""
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
    # Also the files of a commit that is not kept are moved: nothing is removed here.
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
        rewritten=tuple(stale),
    )
    return repair, draft


def _vacant(folder: Folder) -> str:
    """A name for the folder of what is dropped, so that nothing is ever overwritten."""
    there = {*folder.names()}
    return next(name for name in (f"dropped-{number}" for number in range(1, len(there) + 2)) if name not in there)


def _carry_out(folder: Folder, drafts: list[_Draft], draft: _Draft, repair: Repair) -> None:
    """Move files away before anything else, so that what a stopped repair dropped is never taken for a leftover."""
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
        manifest = replace(manifest, next=following + len(draft.clashes) + len(draft.unrooted))
        folder.sync()
    folder.replace_manifest(NAMES, manifest.to_json())


def _entries(folder: Folder, draft: _Draft, number: int) -> Iterator[SegmentEntry]:
    """The segments that stay, with deletions that let every name be there once, and with roots that there are."""
    for place, (entry, segment) in enumerate(draft.segments):
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
