"""Changes of a sharded index: every shard commits, then one manifest makes all of these commits valid at once.

Until then readers of the sharded index open each shard at the commit that is pinned, whose files stay. A process that
is killed in between leaves commits of shards that nobody looks at; the next change takes them back.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from asmk_engine.errors import InputError
from asmk_engine.indexes.creation import OURS
from asmk_engine.indexes.manifest import NAMES
from asmk_engine.indexes.shard_marker import MARKER, marker_of
from asmk_engine.sharding.manifest import ShardedManifest, ShardEntry, check_shards, read_sharded
from asmk_engine.sharding.shards import AnyShard, levelled_shard
from asmk_engine.storage.folder import LOCK, TEMPORARY, Folder, WriterLock, encode_manifest, storage_errors

OWN_FOLDER = re.compile(r"shard-\d+")
"""The names of folders that this package makes in that of a sharded index."""


class Transaction:
    """A change under way, made by `changing`.

    home      the folder of the sharded index
    manifest  the last whole commit
    shards    the shards, in its order, at this commit; changes of them become valid with `commit`
    """

    def __init__(self, home: Path, manifest: ShardedManifest, shards: list[AnyShard]) -> None:
        self.home, self.manifest, self.shards = home, manifest, shards

    def commit(self, entries: Sequence[ShardEntry] | None = None, shards: Sequence[AnyShard] | None = None) -> None:
        """Make what the shards committed valid, in one step; then files of the commit before are removed.

        entries, shards  folders and slots, and the opened shards in the same order, if the shards are others than
                         before; their manifests are replaced by those of the commits
        """
        opened = list(shards if shards is not None else self.shards)
        listed = entries if entries is not None else self.manifest.shards
        pinned = tuple(
            ShardEntry(entry.folder, entry.spans, shard.snapshot.manifest)
            for entry, shard in zip(listed, opened, strict=True)
        )
        if pinned == self.manifest.shards:
            return
        number = max([self.manifest.next, *(number_after(entry.folder) for entry in pinned)])
        manifest = self.manifest.following(shards=pinned, next=number)
        check_shards(self.home, manifest)
        publish(self.home, manifest)
        gone = [shard for shard in self.shards if shard not in opened]
        self.manifest, self.shards = manifest, opened
        for shard in opened:
            shard.hold(shard.snapshot.manifest)
            shard.collect()
        for shard in gone:
            remove_shard(shard.path, manifest.identity)


@contextlib.contextmanager
def changing(home: Path) -> Iterator[Transaction]:
    """Begin a change of the sharded index in a folder: one at a time, each from the last whole commit."""
    folder = Folder(home)
    read_sharded(folder)  # says what is wrong before a lock file is made
    with WriterLock(home):
        manifest = read_sharded(folder)
        _level_copies(folder, manifest)
        _remove_unlisted(home, manifest)
        yield Transaction(home, manifest, [levelled_shard(home, entry) for entry in manifest.shards])


def publish(home: Path, manifest: ShardedManifest) -> None:
    """Make a commit of a sharded index, whose shards are durable, the last one."""
    folder = Folder(home)
    folder.sync()
    folder.replace_manifest(NAMES, manifest.to_json())


def number_after(folder: str) -> int:
    """Return the number behind that of a folder named by this package, 1 for any other."""
    return 1 + int(folder.removeprefix("shard-")) if OWN_FOLDER.fullmatch(folder) else 1


def remove_shard(path: Path, identity: str) -> None:
    """Remove the folder of a shard of the sharded index with this identity, also one just begun; others stay."""
    folder = Folder(path)
    marker = marker_of(folder)
    if marker is None and not _is_begun(folder):
        return
    if marker is not None and marker.identity != identity:
        return
    with storage_errors(path, "remove the shard"):
        for name in sorted(folder.names(), key=lambda name: name == MARKER):  # last: an interrupted removal goes on
            shutil.rmtree(path / name) if (path / name).is_dir() else folder.remove(name)
        path.rmdir()


def _is_begun(folder: Folder) -> bool:
    """Return whether a folder without a marker is what an interrupted creation leaves: only our files, no commit."""
    names = folder.names()
    ours = all(name == LOCK or OURS.fullmatch(name.removesuffix(TEMPORARY)) for name in names)
    return ours and set(names).isdisjoint(NAMES)


def check_free(home: Path, target: Path, manifest: ShardedManifest) -> None:
    """Raise InputError if a folder for a new shard is one already; what an interrupted change left is removed."""
    marker = marker_of(Folder(target))
    if any(entry.path(home).resolve() == target.resolve() for entry in manifest.shards):
        raise InputError(f"{target}: already a shard of {home}; give another folder")
    if marker is not None and marker.identity == manifest.identity:
        remove_shard(target, manifest.identity)


def _level_copies(folder: Folder, manifest: ShardedManifest) -> None:
    """Update an outdated or damaged copy of the manifest to the last commit."""
    content = manifest.to_json()
    if any(folder.content(name) != encode_manifest(content) for name in NAMES):
        folder.replace_manifest(NAMES, content)


def _remove_unlisted(home: Path, manifest: ShardedManifest) -> None:
    """Remove shards inside the folder that an interrupted change made or forgot."""
    listed = {entry.folder for entry in manifest.shards}
    for name in Folder(home).names():
        if OWN_FOLDER.fullmatch(name) and name not in listed:
            remove_shard(home / name, manifest.identity)
