"""Opening an index of any kind: its images, and what it remembers of features and photographs.

Reading never waits for writing: a snapshot maps everything it needs when it is opened.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from asmk_engine.images.roots import Root
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.indexes.snapshot import Commit, Identity, open_commit
from asmk_engine.recipes import Recipe
from asmk_engine.storage.folder import Folder

View = TypeVar("View", bound=Commit[Any, Any])


class IndexReader(abc.ABC, Generic[View]):
    """An index of any kind at the commit it was opened at; a kind says by `_map` how a commit is mapped.

    kind  what its manifest says it is
    """

    kind: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = Folder(path)
        self._snapshot: View = self._open(None)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open an index at its last commit; NotFoundError, FormatError or DamagedError name what is wrong."""
        return cls(Path(path))

    @abc.abstractmethod
    def _map(self, manifest: Manifest, known: View | None) -> View:
        """Map one commit; what it has in common with `known` is mapped already."""

    def _open(self, known: View | None) -> View:
        return open_commit(self._folder, self.kind, lambda manifest: self._map(manifest, known))

    @property
    def snapshot(self) -> View:
        """The commit this object sees: the last one it made, or the one it was opened at."""
        return self._snapshot

    @property
    def recipe(self) -> Recipe:
        """What makes the descriptors that the index takes."""
        recipe: Recipe = self._snapshot.encoder.recipe
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
