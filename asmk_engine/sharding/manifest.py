"""The manifest of a sharded index, which pins every shard at one of its commits.

It is a JSON file with a checksum, kept in two identical copies and replaced as the last step of a commit. It holds the
whole manifest of each shard, so that a reader needs nothing of a shard but the files of the commit that is pinned,
whatever the shard has committed since.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.indexes.manifest import NAMES, SHARDED_KIND, Manifest, manifest_of
from asmk_engine.sharding.slots import Spans, owners_of
from asmk_engine.storage.folder import Folder, decode_manifest

FORMAT = 1


@dataclass(frozen=True)
class ShardEntry:
    """One shard.

    folder    its folder: relative to that of the sharded index, or an absolute path
    spans     its slots
    manifest  its manifest at the commit that is pinned
    """

    folder: str
    spans: Spans
    manifest: Manifest

    def path(self, home: Path) -> Path:
        """Return the path of the shard of a sharded index in the folder `home`."""
        return home / self.folder


@dataclass(frozen=True)
class ShardedManifest:
    """One commit of a sharded index.

    identity  random identifier drawn at creation, constant for the life of the index
    commit    1 for the first, incremented with each change
    next      the number of the next shard
    """

    identity: str
    made_by: str
    shards: tuple[ShardEntry, ...]
    commit: int = 1
    next: int = 1

    @property
    def kind(self) -> str:
        """The kind of all shards, as in their manifests."""
        return self.shards[0].manifest.kind

    def following(self, **changes: Any) -> ShardedManifest:
        """Return the manifest of the next commit, with these fields changed."""
        return replace(self, commit=self.commit + 1, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the manifest file."""
        shards = [
            {
                "folder": shard.folder,
                "slots": [list(span) for span in shard.spans],
                "manifest": shard.manifest.to_json(),
            }
            for shard in self.shards
        ]
        own = {key: getattr(self, key) for key in ("identity", "made_by", "commit", "next")}
        return {"kind": SHARDED_KIND, "format": FORMAT, "shards": shards, **own}


def is_sharded(path: Path | str) -> bool:
    """Return whether a copy of the manifest in a folder is that of a sharded index; False if none can be read."""
    folder = Folder(path)
    for name in NAMES:
        try:
            if decode_manifest(bytes(folder.map(name)), folder.path / name)["kind"] == SHARDED_KIND:
                return True
        except AsmkError:
            continue
    return False


def read_sharded(folder: Folder) -> ShardedManifest:
    """Read the newest intact copy of the manifest of a sharded index.

    Raises NotFoundError if there is none, FormatError for another kind of content, DamagedError if no copy is intact,
    and InputError or MismatchError for shards that do not belong together.
    """
    found, problems = read_sharded_copies(folder)
    if not found:
        raise next(iter(problems.values()))
    manifest = max(found.values(), key=lambda one: one.commit)
    check_shards(folder.path, manifest)
    return manifest


def read_sharded_copies(folder: Folder) -> tuple[dict[str, ShardedManifest], dict[str, AsmkError]]:
    """Read both copies of the manifest: the intact ones by file name, and the errors of the others."""
    found: dict[str, ShardedManifest] = {}
    problems: dict[str, AsmkError] = {}
    for name in NAMES:
        path = folder.path / name
        try:
            found[name] = _parse(decode_manifest(bytes(folder.map(name)), path), path)
        except NotFoundError:
            problems[name] = NotFoundError(
                f"{path}: no sharded index; make one with `asmk-engine shard INDEX -o {folder.path}`"
            )
        except FormatError:
            raise
        except AsmkError as error:
            problems[name] = error
    return found, dict(sorted(problems.items(), key=lambda item: isinstance(item[1], NotFoundError)))


def check_shards(home: Path, manifest: ShardedManifest) -> None:
    """Raise InputError for a shard that is listed twice, MismatchError for one of another codebook, kind or roots."""
    for what, values in (
        ("folder", [str(shard.path(home).resolve()) for shard in manifest.shards]),
        ("index", [shard.manifest.identity for shard in manifest.shards]),
    ):
        if twice := [value for value, times in Counter(values).items() if times > 1]:
            raise InputError(f"{home}: the shard with the {what} {twice[0]} is listed twice; list each shard once")
    first = manifest.shards[0]
    for shard in manifest.shards[1:]:
        one, other = first.manifest, shard.manifest
        if (one.kind, one.encoders, one.regions) != (other.kind, other.encoders, other.regions):
            raise MismatchError(
                f"{shard.path(home)}: its {other.encoder_name} is not that of the shard {first.folder}, so their "
                f"scores do not compare; make the shards of one index with `asmk-engine shard`"
            )
        if one.roots != other.roots:
            raise MismatchError(f"{shard.path(home)}: its folders of images are not those of the shard {first.folder}")


def _parse(content: dict[str, Any], path: Path) -> ShardedManifest:
    if content["kind"] != SHARDED_KIND:
        raise FormatError(f"{path}: this is {content['kind']!r}, not a sharded index")
    if content.get("format") != FORMAT:
        raise FormatError(
            f"{path}: sharded index of format {content.get('format')!r}, this version reads {FORMAT}; "
            "update asmk-engine"
        )
    try:
        shards = tuple(
            ShardEntry(
                _text(one["folder"]),
                tuple((int(first), int(last)) for first, last in one["slots"]),
                manifest_of(dict(one["manifest"]), path),
            )
            for one in content["shards"]
        )
        owners_of([shard.spans for shard in shards])
        own = (_text(content["identity"]), _text(content["made_by"]), shards, int(content["commit"]))
        return ShardedManifest(*own, int(content["next"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: an entry is missing or invalid ({error}); restore a copy") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r}, expected text")
    return value
