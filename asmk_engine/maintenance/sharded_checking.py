"""Read-only check of a sharded index: its manifest, every shard, and that each image is in the shard of its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkError, InputError, MismatchError, NotFoundError
from asmk_engine.indexes.manifest import NAMES, read_manifest
from asmk_engine.maintenance.checking import Finding, check_commit, check_index
from asmk_engine.sharding.manifest import (
    ShardedManifest,
    ShardEntry,
    check_shards,
    read_sharded_copies,
)
from asmk_engine.sharding.shards import check_place, is_same_content, pinned_shard
from asmk_engine.sharding.slots import SLOTS, slots_in, slots_of
from asmk_engine.sharding.transaction import OWN_FOLDER
from asmk_engine.storage.folder import LOCK, Folder


@dataclass(frozen=True)
class ShardedReport:
    """The findings of a check of a sharded index; `manifest` is None if no copy of it is intact."""

    path: Path
    fast: bool
    manifest: ShardedManifest | None
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether there are no findings except notes."""
        return all(finding.kind == "note" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, with the keys of `CheckReport.to_json`."""
        shards = self.manifest.shards if self.manifest else ()
        entries = [entry for shard in shards for entry in shard.manifest.segments]
        files = [file for shard in shards for file in shard.manifest.files()]
        return {
            "path": str(self.path),
            "clean": self.clean,
            "fast": self.fast,
            "commit": self.manifest.commit if self.manifest else None,
            "images": sum(one.images - one.deleted_images for one in entries) if self.manifest else None,
            "files": len(files),
            "bytes": sum(file.bytes for file in files),
            "shards": len(shards),
            "findings": [vars(finding) for finding in self.findings],
        }


def check_sharded(path: Path | str, *, fast: bool = False) -> ShardedReport:
    """Check the last whole commit of a sharded index, also while it is being read or written.

    fast  as for `check_index`
    """
    folder = Folder(path)
    while True:
        found, problems = read_sharded_copies(folder)
        damage = tuple(Finding(name, _said(error, folder)) for name, error in problems.items())
        if not found:
            return ShardedReport(folder.path, fast, None, damage)
        manifest = max(found.values(), key=lambda one: one.commit)
        findings = [*_own_findings(folder, manifest, found, problems)]
        for entry in manifest.shards:
            findings += _shard_findings(folder.path, entry, fast)
        again = read_sharded_copies(folder)[0]
        if again and max(one.commit for one in again.values()) == manifest.commit:
            return ShardedReport(folder.path, fast, manifest, tuple(findings))


def _own_findings(
    folder: Folder, manifest: ShardedManifest, found: dict[str, ShardedManifest], problems: dict[str, AsmkError]
) -> Iterator[Finding]:
    """Check what is in the folder itself."""
    for name, error in problems.items():
        is_early = isinstance(error, NotFoundError) and manifest.commit == 1
        what = "missing; the other copy is used, and the next change writes it"
        yield Finding(name, what, "note") if is_early else Finding(name, _said(error, folder))
    for name, copy in found.items():
        if copy.commit != manifest.commit:
            what = f"has commit {copy.commit}, the last is {manifest.commit}; the next change updates it"
            yield Finding(name, what, "note")
    try:
        check_shards(folder.path, manifest)
    except (InputError, MismatchError) as error:
        yield Finding(NAMES[0], _said(error, folder), "contradiction")
    listed = {entry.folder for entry in manifest.shards}
    for name in folder.names():
        if name not in {*NAMES, LOCK, *listed}:
            removed = "a shard of an interrupted change; the next one removes it" if OWN_FOLDER.fullmatch(name) else ""
            yield Finding(name, removed or "belongs to no commit", "note")


def _shard_findings(home: Path, entry: ShardEntry, fast: bool) -> Iterator[Finding]:
    """Check a shard at the commit that is pinned, with names of files below the sharded index."""
    path = entry.path(home)
    try:
        check_place(home, entry)
        last = read_manifest(Folder(path))
        if is_same_content(last, entry.manifest):
            own = [*check_index(path, fast=fast).findings]
        else:
            what = "has a commit of an interrupted change, which the next one takes back"
            own = [Finding(NAMES[0], what, "note"), *check_commit(Folder(path), entry.manifest, fast=fast)]
        if all(finding.kind == "note" for finding in own):
            own += _misplaced(home, entry)
    except AsmkError as error:
        yield Finding(entry.folder, str(error))
        return
    yield from (replace(finding, file=f"{entry.folder}/{finding.file}") for finding in own)


def _misplaced(home: Path, entry: ShardEntry) -> Iterator[Finding]:
    """Look for images whose names belong to another shard, which would not find them."""
    belongs = np.zeros(SLOTS, bool)
    belongs[slots_in(entry.spans)] = True
    for segment in pinned_shard(home, entry).snapshot.segments:
        names = segment.names_as_bytes(segment.live_numbers())
        wrong = np.flatnonzero(~belongs[slots_of(names)])
        if len(wrong):
            example = names[int(wrong[0])].decode(errors="replace")
            what = f"has {len(wrong)} images whose names belong to another shard, such as {example!r}"
            yield Finding(segment.file.path.name, what, "contradiction")


def _said(error: AsmkError, folder: Folder) -> str:
    return str(error).removeprefix(f"{folder.path}/")
