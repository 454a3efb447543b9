"""A sharded index as the process that asks the hosts sees it: without the images, which only the hosts read."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkError, StorageError
from asmk_engine.extractors import Extractor
from asmk_engine.fused.queries import FusedExtractor
from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND, Manifest
from asmk_engine.indexes.photographs import extractor_of
from asmk_engine.indexes.reading import IndexReader
from asmk_engine.indexes.snapshot import Commit, Identity
from asmk_engine.recipes import Recipe
from asmk_engine.sharding.hosts import PinnedShard, ShardHosts
from asmk_engine.sharding.manifest import ShardedManifest, read_sharded
from asmk_engine.sharding.slots import owners_of, slot_of
from asmk_engine.storage.folder import Folder


class ShardPlaces(IndexReader[Any]):
    """The places of features and photographs that a shard remembers, read from its manifest alone."""

    kind = "any"

    def _map(self, manifest: Manifest, known: Any) -> Any:
        return Commit(manifest, None, ())

    def kind_network(self, number: int) -> Path | None:
        """Return the network file of a kind of a fused shard, or None."""
        entry = self.snapshot.manifest.kinds[number].network
        return self.path / entry.name if entry else None


@dataclass(frozen=True, eq=False)
class HostedCommit:
    """One commit of a sharded index.

    manifest  the pinned shards
    encoder   the codebook or codec of all of them, or the fusion of several kinds
    pinned    the shards, as requests name them
    segment_starts, image_starts  numbers of the first segment of each shard, and of the first image of each segment, in
                                  the numbering over all shards; both with the total at the end
    index     asked for places of images
    """

    manifest: ShardedManifest
    encoder: Any
    pinned: tuple[PinnedShard, ...]
    segment_starts: np.ndarray
    image_starts: np.ndarray
    index: HostedIndex

    @functools.cached_property
    def views(self) -> tuple[HostedCommit, ...]:
        """For each kind of a fused index this commit with the encoder of the kind."""
        return tuple(replace(self, encoder=kind.encoder) for kind in self.encoder.kinds)

    def lacking(self, place: tuple[int, int]) -> tuple[bool, ...]:
        """Return for each kind of a fused index whether the image at a place has no features of it."""
        shard = int(np.searchsorted(self.segment_starts, place[0], side="right")) - 1
        segment = place[0] - int(self.segment_starts[shard])
        found: tuple[bool, ...] = self.index.ask_all("lacking", {shard: (segment, place[1])})[shard]
        return found

    def find(self, name: str) -> tuple[int, int] | None:
        """Return the position of the segment over all shards, and the number in it, of a live image, or None."""
        found = self.index.find([name]).get(name)
        if found is None:
            return None
        segment = int(np.searchsorted(self.image_starts, found[0], side="right")) - 1
        return segment, found[0] - int(self.image_starts[segment])

    @property
    def images(self) -> int:
        """Number of images that are not deleted."""
        entries = [entry for shard in self.manifest.shards for entry in shard.manifest.segments]
        return sum(entry.images - entry.deleted_images for entry in entries)


class HostedIndex:
    """A sharded index whose shards are read by hosts.

    path   the folder of the sharded index
    hosts  what answers for the shards
    """

    def __init__(self, path: Path | str, hosts: ShardHosts) -> None:
        self.path, self.hosts = Path(path), hosts
        self._encoder: Any = None
        self.refresh()

    def refresh(self) -> None:
        """Switch to the last whole commit."""
        manifest = read_sharded(Folder(self.path))
        pinned = tuple(PinnedShard(str(shard.path(self.path).resolve()), shard.manifest) for shard in manifest.shards)
        counts = [len(shard.manifest.segments) for shard in manifest.shards]
        images = [entry.images for shard in manifest.shards for entry in shard.manifest.segments]
        self._places = [ShardPlaces(Path(one.path), one.manifest) for one in pinned]
        self._owners = owners_of([shard.spans for shard in manifest.shards])
        starts = [np.concatenate([[0], np.cumsum(each, dtype=np.int64)]).astype(np.int64) for each in (counts, images)]
        if self._encoder is None:
            self._encoder = self._read_encoder(pinned)
        self.snapshot = HostedCommit(manifest, self._encoder, pinned, starts[0], starts[1], self)

    def _read_encoder(self, pinned: tuple[PinnedShard, ...]) -> Any:
        """Read the codebook or codec from a shard that this process can read, or ask a host for it."""
        for shard in pinned:
            try:
                return read_encoder(shard)
            except AsmkError:
                continue
        answers = self.hosts.ask("encoder", dict.fromkeys(range(len(pinned)), ()), pinned)
        if not answers.found:
            raise StorageError(f"{self.path}: no shard answers: {next(iter(answers.missing.values()))}")
        return next(iter(answers.found.values()))

    @property
    def kind(self) -> str:
        """The kind of the shards, as in their manifests."""
        return self.snapshot.manifest.kind

    @property
    def recipe(self) -> Recipe:
        """The recipe of the descriptors."""
        recipe: Recipe = self.snapshot.encoder.recipe
        return recipe

    @property
    def network(self) -> Path | None:
        """The network file in the first shard that this process can read, or None."""
        found = (places.network for places in self._places)
        return next((path for path in found if path and path.exists()), None)

    def kind_network(self, number: int) -> Path | None:
        """Return the network file of a kind of a fused index, as `network`."""
        found = (places.kind_network(number) for places in self._places)
        return next((path for path in found if path and path.exists()), None)

    @functools.cached_property
    def extractor(self) -> Extractor | FusedExtractor:
        """The extractor that describes a photograph as those of the index were described; see `Index.extractor`."""
        if self.kind != FUSED_KIND:
            return extractor_of(self.recipe, self.network, self.feature_places)
        kinds = enumerate(self.snapshot.encoder.kinds)
        each = (extractor_of(kind.recipe, self.kind_network(number), self.feature_places) for number, kind in kinds)
        return FusedExtractor(tuple(each))

    @property
    def images(self) -> int:
        """Number of images that are not deleted."""
        return self.snapshot.images

    def __len__(self) -> int:
        return self.images

    @property
    def names(self) -> list[str]:
        """The names of the images, in byte order."""
        found = self.ask_all("names")
        return sorted((name for names in found.values() for name in names), key=str.encode)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.find([name])

    def identity(self, name: str) -> Identity | None:
        """Return root and fingerprint of the image with this name, or None if there is none."""
        found = self.find([name]).get(name)
        return None if found is None else found[1]

    def find(self, names: list[str]) -> dict[str, tuple[int, Identity]]:
        """Return number over all shards and identity of those names that are images; asks the shards they belong to."""
        parts: dict[int, tuple[Any, ...]] = {}
        for name in names:
            parts.setdefault(self._owner(name), ([],))[0].append(name)
        commit, found = self.snapshot, {}
        for shard, places in self.ask_all("identities", parts).items():
            for name, (segment, number, identity) in places.items():
                start = commit.image_starts[commit.segment_starts[shard] + segment]
                found[name] = int(start) + number, identity
        return found

    def _owner(self, name: str) -> int:
        return int(self._owners[slot_of(name.encode("utf-8", "surrogatepass"))])

    def ask_all(self, method: str, requests: dict[int, tuple[Any, ...]] | None = None) -> dict[int, Any]:
        """Call a method of `ShardHost` for shards, all if None, every one of which has to answer."""
        pinned = self.snapshot.pinned
        answers = self.hosts.ask(
            method, dict.fromkeys(range(len(pinned)), ()) if requests is None else requests, pinned
        )
        if answers.missing:
            number, reason = next(iter(answers.missing.items()))
            raise StorageError(missing_text(self.path, self.snapshot, number, reason))
        return answers.found

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """The possible paths of each feature set that was added, the last one first."""
        return list(dict.fromkeys(places for one in self._places for places in one.feature_places))

    @property
    def photograph_folders(self) -> list[Path]:
        """The recorded image folders, the last one first."""
        return list(dict.fromkeys(folder for one in self._places for folder in one.photograph_folders))

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of an image file: under its own root first, then under the other roots."""
        known, shard = self.identity(name), self._places[self._owner(name)]
        roots = [known.root] if known and known.root.is_known else []
        for root in dict.fromkeys([*roots, *reversed(shard.snapshot.manifest.roots)]):
            for folder in shard.places(root.folder):
                if (file := type(root)(str(folder), root.prefix).file(name)) is not None:
                    yield file

    def preload(self) -> None:
        """Do nothing: the hosts map what they need."""


def read_encoder(shard: PinnedShard) -> Any:
    """Read the codebook or codec, or those of all kinds, of a shard; raises AsmkError if this process cannot."""
    folder = Folder(shard.path)
    if shard.manifest.kind == FUSED_KIND:
        from asmk_engine.fused.snapshot import read_fusion

        return read_fusion(folder, shard.manifest)
    if shard.manifest.kind == GLOBAL_KIND:
        from asmk_engine.flat.snapshot import read_codec

        return read_codec(folder, shard.manifest.encoder)
    from asmk_engine.inverted.snapshot import read_codebook

    return read_codebook(folder, shard.manifest.encoder)


def missing_text(path: Path, commit: HostedCommit, number: int, reason: str) -> str:
    """Return the message about a shard that did not answer."""
    folder = commit.manifest.shards[number].folder
    return (
        f"{path}: the shard {folder} did not answer ({reason}); start its node, or allow partial answers, which leave "
        "its images out"
    )
