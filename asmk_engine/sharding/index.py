"""A sharded index in one process: it answers and changes as one index with all its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError, InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.fused.joint import JointFusedIndex
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.manifest import FUSED_KIND
from asmk_engine.indexes.snapshot import Identity
from asmk_engine.iteration import Progress
from asmk_engine.sharding.addition import add_to_shards
from asmk_engine.sharding.manifest import ShardedManifest, read_sharded
from asmk_engine.sharding.shards import AnyShard, pinned_shard
from asmk_engine.sharding.slots import owners_of, slot_of
from asmk_engine.sharding.transaction import Transaction, changing
from asmk_engine.storage.folder import Folder


class ShardedIndex(JointIndex[Any]):
    """An index of any kind whose images are in several shards, each an index of its own.

    Which shard has an image follows from its name. Scores, inverse document frequencies and ties are those of one index
    with all images, bit for bit. A change of several shards is one commit: after an interruption the index is at the
    last whole one. Objects are made by `open`, and folders by `sharding.layout`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from asmk_engine import GlobalIndex, GlobalSearcher
    >>> from asmk_engine.sharding.index import ShardedIndex
    >>> from asmk_engine.sharding.layout import shard_index
    >>> vectors = np.random.default_rng(0).normal(size=(100, 16))
    >>> index = GlobalIndex.in_memory(16)
    >>> index.add_matrix([f"image {number}" for number in range(100)], vectors).added
    100
    >>> folder = tempfile.mkdtemp() + "/photos.shards"
    >>> sharded = shard_index(index.path, folder, shards=3)
    >>> GlobalSearcher(sharded).search_matrix(vectors[:2], top=1).names.tolist()
    [['image 0'], ['image 1']]
    """

    def __init__(self, path: Path) -> None:
        self._home = path
        self._open()

    @classmethod
    def open(cls, path: Path | str) -> ShardedIndex:
        """Open a sharded index at its last whole commit.

        Raises NotFoundError if there is none or a shard is missing, FormatError for another kind of folder,
        DamagedError if a file is damaged, InputError if a shard is listed twice, and MismatchError if one is of another
        codebook.
        """
        return class_of_shards(Path(path))(Path(path))

    def _open(self) -> None:
        """Open all shards where the manifest pins them; again if a writer removed files of it in the meantime."""
        folder = Folder(self._home)
        manifest = read_sharded(folder)
        while True:
            try:
                shards = tuple(pinned_shard(self._home, entry) for entry in manifest.shards)
                break
            except (NotFoundError, DamagedError) as error:
                newer = read_sharded(folder)
                if newer.commit == manifest.commit:
                    raise error
                manifest = newer
        self.manifest: ShardedManifest = manifest
        self._indexes, self._distractors = shards, ()
        self._owners = owners_of([entry.spans for entry in manifest.shards])
        self._joint = _joined(manifest, shards)

    @property
    def shards(self) -> tuple[AnyShard, ...]:
        """The shards, each at the commit that is pinned."""
        return self._indexes

    @property
    def kind(self) -> str:
        """The kind of the shards, as in their manifests."""
        return self.manifest.kind

    @property
    def path(self) -> Path:
        """The folder of the sharded index."""
        return self._home

    @property
    def snapshot(self) -> Any:
        """The images of all shards as one commit, which a search runs on."""
        return self._joint

    def refresh(self) -> None:
        """Switch to the last whole commit, including those of other processes."""
        if read_sharded(Folder(self._home)) != self.manifest:
            self._open()

    def shard_of(self, name: str) -> AnyShard:
        """Return the shard that has the image of this name, if there is one."""
        return self.shards[self._owners[slot_of(name.encode("utf-8", "surrogatepass"))]]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.shard_of(name)

    def identity(self, name: str) -> Identity | None:
        """Return root and fingerprint of the image with this name, or None if there is none."""
        found: Identity | None = self.shard_of(name).identity(name)
        return found

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """The possible paths of each feature set that was added, the last one first."""
        return list(dict.fromkeys(super().feature_places))

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of the image file with this name."""
        places: Iterator[Path] = self.shard_of(name).photograph_places(name)
        return places

    @property
    def codebook(self) -> Any:
        """The codebook or codec of all shards."""
        return self.snapshot.encoder

    @property
    def geometry(self) -> int | None:
        """The number of features of an image whose geometry is kept when it is added; None keeps none."""
        kept: int | None = self.manifest.shards[0].manifest.geometry
        return kept

    @property
    def regions(self) -> Any:
        """How images are described by their regions; None if they are not."""
        return self.manifest.shards[0].manifest.regions

    @property
    def postings(self) -> int:
        """Number of postings on disk, including those of deleted images until `merge`; vectors in a global index."""
        return sum(entry.entries for shard in self.manifest.shards for entry in shard.manifest.segments)

    def add(
        self,
        features: Any,
        *,
        recipe: Any = None,
        existing: str = "refuse",
        prune: bool = False,
        remove: Iterable[str] = (),
        segment_postings: int | None = None,
        on_image: Progress | None = None,
        boxes: Any = None,
        builder: Any = None,
    ) -> AddSummary:
        """Add images, each to the shard of its name; as `add` of an index of the kind of the shards.

        Every 100 000 images are a commit; until then a run that is interrupted adds nothing. Raises InputError for an
        index whose regions are given boxes.
        """
        if boxes is not None or (self.regions is not None and self.regions.are_given):
            raise InputError(
                f"{self.path}: images with given boxes cannot be added to shards; add them to an index, and shard that"
            )
        with self._changing() as change:
            if builder is not None:
                for shard in change.shards:
                    shard.build_by(builder)  # type: ignore[attr-defined]
            return add_to_shards(change, features, recipe, existing, prune, remove, segment_postings, on_image)

    def keep_geometry(self, geometry: int | str) -> None:
        """Keep the geometry of images that are added from now on, in one commit; see `Index.keep_geometry`."""
        with self._changing() as change:
            for shard in change.shards:
                shard.keep_geometry(geometry)  # type: ignore[attr-defined]
            change.commit()

    def delete(self, names: Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete images in one commit over all shards; see `Index.delete`."""
        return self._each("delete", names, missing_ok, self._check_known)

    def restore(self, names: Iterable[str], *, missing_ok: bool = False) -> int:
        """Take the deletion of images back in one commit over all shards; see `Index.restore`."""
        return self._each("restore", names, missing_ok, self._check_deleted)

    def merge(self) -> int:
        """Merge the segments of each shard into one and reclaim the space of deleted images.

        Each shard is a commit of its own, so that no more disk space is needed than a second copy of one of them.
        Returns the number of segments before.
        """
        with self._changing() as change:
            before = 0
            for shard in change.shards:
                before += shard.merge()  # type: ignore[attr-defined]
                change.commit()
            return before

    def _each(self, what: str, names: Iterable[str], missing_ok: bool, check: Callable[[Sequence[str]], None]) -> int:
        """Delete or restore the names of each shard; nothing is changed unless all of them can be."""
        wanted = list(dict.fromkeys(names))
        with self._changing() as change:
            if not missing_ok:
                check(wanted)
            parts: dict[int, list[str]] = {}
            for name in wanted:
                owner = int(self._owners[slot_of(name.encode("utf-8", "surrogatepass"))])
                parts.setdefault(owner, []).append(name)
            count = sum(
                getattr(change.shards[owner], what)(part, missing_ok=missing_ok) for owner, part in parts.items()
            )
            change.commit()
            return int(count)

    def _check_known(self, names: Sequence[str]) -> None:
        if unknown := [name for name in names if name not in self]:
            raise NotFoundError(f"{self.path}: not in the index: {list_names(unknown)}; nothing was deleted")

    def _check_deleted(self, names: Sequence[str]) -> None:
        """Raise as `Index.restore` before any shard is changed."""
        if live := [name for name in names if name in self]:
            raise InputError(
                f"{self.path}: images of these names are in the index: {list_names(live)}; nothing was restored: names "
                "must be unique, leave these out"
            )
        if unknown := [name for name in names if not self.shard_of(name).snapshot.find_deleted([name])]:
            raise NotFoundError(
                f"{self.path}: no deleted image is left of {list_names(unknown)}; nothing was restored: they were "
                "never in the index, or a merge has removed them; index the photographs again"
            )

    def _changing(self) -> _Change:
        return _Change(self)


class ShardedFusedIndex(ShardedIndex, JointFusedIndex):
    """A sharded index of several kinds of features, see `ShardedIndex`."""


class _Change:
    """A transaction of an opened index, which is at its last commit while it runs, and afterwards at the new one."""

    def __init__(self, index: ShardedIndex) -> None:
        self._index, self._within = index, changing(index.path)

    def __enter__(self) -> Transaction:
        change = self._within.__enter__()
        self._index.refresh()
        return change

    def __exit__(self, *error: Any) -> None:
        self._within.__exit__(*error)
        if error[0] is None:
            self._index.refresh()


def class_of_shards(path: Path) -> type[ShardedIndex]:
    """Return the class of the sharded index in a folder."""
    return ShardedFusedIndex if read_sharded(Folder(path)).kind == FUSED_KIND else ShardedIndex


def _joined(manifest: ShardedManifest, shards: Sequence[AnyShard]) -> Any:
    """Return the images of all shards as one commit, with the number and the identity of the sharded index."""
    first = shards[0].snapshot
    entries = tuple(entry for shard in manifest.shards for entry in shard.manifest.segments)
    own = replace(first.manifest, identity=manifest.identity, commit=manifest.commit, segments=entries)
    segments = tuple(segment for shard in shards for segment in shard.snapshot.segments)
    return replace(first, manifest=own, segments=segments)
