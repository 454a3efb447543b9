"""Opening an index of any kind: its images, and the recorded locations of features and image files.

Readers never wait for writers: a snapshot maps all files it needs when it is opened.
"""

from __future__ import annotations

import abc
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from asmk_engine.extractors import Extractor
from asmk_engine.images.roots import Root
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.indexes.photographs import extractor_of
from asmk_engine.indexes.snapshot import Commit, Identity, open_commit
from asmk_engine.recipes import Recipe
from asmk_engine.storage.folder import Folder

View = TypeVar("View", bound=Commit[Any, Any])


class IndexReader(abc.ABC, Generic[View]):
    """An index of any kind at one commit; a subclass defines in `_map` how a commit is mapped.

    kind  the kind in its manifest
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        self.path = path
        self._folder = Folder(path)
        self._snapshot: View = self._open(None) if manifest is None else self._map(manifest, None)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open an index at its last commit.

        Parameters
        ----------
        path : path-like
            The folder of the index.

        Returns
        -------
        Self

        Raises
        ------
        NotFoundError
            If there is no such folder.
        FormatError
            If the folder is not an index of this kind, or of a newer format.
        DamagedError
            If both copies of the manifest or a file of the commit are damaged.
        """
        return cls(Path(path))

    @classmethod
    def at(cls, path: Path | str, manifest: Manifest) -> Self:
        """Open an index at a commit that need not be its last; NotFoundError if a file of it is gone."""
        return cls(Path(path), manifest)

    def switch(self, manifest: Manifest) -> None:
        """Switch to a commit that need not be the last, see `at`."""
        self._snapshot = self._map(manifest, self._snapshot)

    @abc.abstractmethod
    def _map(self, manifest: Manifest, known: View | None) -> View:
        """Map one commit, reusing the files it shares with `known`."""

    def _open(self, known: View | None) -> View:
        return open_commit(self._folder, self.kind, lambda manifest: self._map(manifest, known))

    @property
    def snapshot(self) -> View:
        """The current commit of this object: the last one it made, or the one it was opened at."""
        return self._snapshot

    @property
    def recipe(self) -> Recipe:
        """The recipe of the descriptors in the index."""
        recipe: Recipe = self._snapshot.encoder.recipe
        return recipe

    @property
    def network(self) -> Path | None:
        """The network file in the index, or None; its checksums are not compared here."""
        entry = self._snapshot.manifest.network
        return self._folder.path / entry.name if entry else None

    @functools.cached_property
    def extractor(self) -> Extractor:
        """The extractor that describes a photograph as those of the index were described, made when first used.

        Raises InputError if the features were made by another program or given as arrays, and NotFoundError if the
        weights of its network are neither in the index nor in the cache.
        """
        return extractor_of(self.recipe, self.network, self.feature_places)

    @property
    def images(self) -> int:
        """Number of images that are not deleted."""
        return self._snapshot.images

    @property
    def names(self) -> list[str]:
        """The names of the live images, in byte order."""
        return sorted(self._snapshot.names(), key=str.encode)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._snapshot.find(name) is not None

    def __len__(self) -> int:
        return self.images

    def preload(self) -> None:
        """Read the whole index into memory now, so that the first queries are as fast as later ones.

        Useful for a process that answers many queries; useless for a few queries, or if the index is larger than the
        memory.
        """
        for segment in self._snapshot.segments:
            segment.file.preload()

    def refresh(self) -> None:
        """Switch to the last commit, including those of other processes."""
        self._snapshot = self._open(self._snapshot)

    def identity(self, name: str) -> Identity | None:
        """Return the root and the content fingerprint of an image.

        Parameters
        ----------
        name : str
            Name of the image.

        Returns
        -------
        Identity or None
            None if there is no such image.
        """
        place = self._snapshot.find(name)
        return None if place is None else self._snapshot.identity(place)

    def places(self, place: str) -> tuple[Path, ...]:
        """Return the paths at which a recorded file or folder may be now.

        Parameters
        ----------
        place : str
            An absolute path in the manifest.

        Returns
        -------
        tuple of Path
            The path itself, the same relative path from the index as before, and a sibling of the index, in this
            order. Empty for a relative path, which this package never writes.
        """
        if not os.path.isabs(place):
            return ()
        home = Path(os.path.dirname(os.path.realpath(self.path)))
        way = self._snapshot.manifest.beside.get(place)
        found = (Path(place), *([home / way] if way else []), home / Path(place).name)
        return tuple(dict.fromkeys(Path(os.path.normpath(path)) for path in found))

    @property
    def feature_places(self) -> list[tuple[Path, ...]]:
        """The possible paths of each feature set that was added, the last one first."""
        return [places for path in reversed(self._snapshot.manifest.features) if (places := self.places(path))]

    @property
    def photograph_folders(self) -> list[Path]:
        """The recorded image folders, the last one first, each at all its possible paths."""
        manifest = self._snapshot.manifest
        folders = (*(root.folder for root in reversed(manifest.roots)), *reversed(manifest.images_roots))
        return list(dict.fromkeys(path for folder in folders for path in self.places(folder)))

    def photograph_places(self, name: str) -> Iterator[Path]:
        """Iterate over possible paths of an image file: under its own root first, then under the other roots.

        Parameters
        ----------
        name : str
            Name of the image.

        Yields
        ------
        Path
        """
        known = self.identity(name)
        manifest = self._snapshot.manifest
        own = [known.root] if known and known.root.is_known else []
        others = [*reversed(manifest.roots), *(Root(folder) for folder in reversed(manifest.images_roots))]
        for root in dict.fromkeys([*own, *others]):
            for folder in self.places(root.folder):
                if (file := Root(str(folder), root.prefix).file(name)) is not None:
                    yield file
