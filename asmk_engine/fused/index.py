"""The fused index: several kinds of features of the same images in one durable folder (see `indexes.base`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_names
from asmk_engine.features import (
    ArrayFeatures,
    FeatureSource,
    IdentifiedSource,
    NamedArrays,
    identified,
    source_of_images,
)
from asmk_engine.flat.codec import Codec
from asmk_engine.fused.kinds import FeatureKind, kind_of
from asmk_engine.fused.queries import FusedExtractor
from asmk_engine.fused.scores import shares
from asmk_engine.fused.snapshot import FusedSegment, FusedSnapshot, map_fused_snapshot, part_name, write_table
from asmk_engine.fused.sources import FusedSource
from asmk_engine.indexes.additions import AdditionPlan, AddSummary, check_existing
from asmk_engine.indexes.base import Facts
from asmk_engine.indexes.creation import in_temporary_folder, make_folder, new_manifest
from asmk_engine.indexes.image_table import joined_facts, joined_names
from asmk_engine.indexes.manifest import FUSED_KIND, KIND, FileEntry, KindEntry, KindFile, Manifest, Written
from asmk_engine.indexes.photographs import extractor_of
from asmk_engine.indexes.snapshot import copy_network, map_network
from asmk_engine.inverted.geometry_file import features_kept
from asmk_engine.inverted.index import SEGMENT_POSTINGS
from asmk_engine.inverted.placed_collection import PlacedCollection
from asmk_engine.iteration import Progress
from asmk_engine.recipes import ARRAYS, GLOBAL_ARRAYS
from asmk_engine.storage.folder import Folder

Encoders = Mapping[str, Codebook | Codec]
Sources = Mapping[str, FeatureSource | NamedArrays]


@dataclass(frozen=True)
class FusedContents:
    """The images of a segment, in memory.

    names, fingerprints, roots  the table of images, as in `Contents`
    parts                       for each kind what its `load` returned
    """

    names: Sequence[bytes]
    fingerprints: np.ndarray
    roots: np.ndarray
    parts: tuple[Any, ...]


class FusedIndex(PlacedCollection[FusedSnapshot, FusedContents]):
    """A persistent index of several kinds of features of the same images.

    All kinds have one table of images and change in one commit. Objects are made by `create` and `open`.

    Examples
    --------
    >>> import numpy as np
    >>> from asmk_engine import Codebook, FusedIndex, FusedSearcher
    >>> from asmk_engine.flat import Codec
    >>> from asmk_engine.fused import FusedFeatures
    >>> from asmk_engine.recipes import GLOBAL_ARRAYS, Recipe
    >>> rng = np.random.default_rng(0)
    >>> local = {f"image {number}": rng.normal(size=(100, 16)) for number in range(5)}
    >>> whole = {name: rng.normal(size=(1, 8)) for name in local}
    >>> kinds = {"parts": Codebook.train(local.values(), words=2), "whole": Codec(Recipe(GLOBAL_ARRAYS), 8)}
    >>> index = FusedIndex.in_memory(kinds)
    >>> index.add({"parts": local.items(), "whole": whole.items()}).added
    5
    >>> query = FusedFeatures.of_arrays([local["image 3"], whole["image 3"]])
    >>> FusedSearcher(index).search(query, top=1)[0].name
    'image 3'
    """

    kind = FUSED_KIND
    room = SEGMENT_POSTINGS
    small_segment = 1 << 15
    merge_chunk = 0  # each kind has its own

    @classmethod
    def create(
        cls,
        path: Path | str,
        kinds: Encoders,
        weights: Sequence[float] | None = None,
        networks: Mapping[str, Path | None] | None = None,
        geometry: int | str | None = None,
    ) -> FusedIndex:
        """Create an empty index in a new or empty folder.

        Parameters
        ----------
        path : path-like
            The folder of the index.
        kinds : mapping of str to Codebook or Codec
            The codebook of each kind of local features and the codec of each kind of global descriptors, by name.
        weights : sequence of float, optional
            Weights in the fused score, in the order of the kinds; all equal by default.
        networks : mapping of str to Path, optional
            The files of the networks that make the features, by name, which are copied into the index.
        geometry : int or "all", optional
            Keep the geometry of so many features of each image and kind, as `Index.create`.

        Returns
        -------
        FusedIndex

        Raises
        ------
        InputError
            If there is no kind or two of the same recipe, weights or `geometry` do not fit, or the path is taken.
        DamagedError
            If a network file is not in the layout of `storage.arrays` or is damaged.
        """
        named = {name: kind_of(encoder) for name, encoder in kinds.items()}
        _check_kinds(path, named)
        if (kept := features_kept(geometry)) is not None:
            _check_local(path, named.values())
        parts = shares(weights, len(named), "kinds of features")
        sources = {name: map_network(file) for name, file in (networks or {}).items() if file is not None}

        def first(folder: Folder) -> Manifest:
            entries = []
            for (name, kind), weight in zip(named.items(), parts, strict=True):
                network = copy_network(folder, sources[name]) if name in sources else None
                entries.append(KindEntry(name, weight, kind.kind, kind.write_encoder(folder), network))
            return replace(new_manifest(entries[0].encoder, FUSED_KIND), kinds=tuple(entries), geometry=kept)

        return cls(make_folder(path, first))

    @classmethod
    def in_memory(cls, kinds: Encoders, weights: Sequence[float] | None = None) -> FusedIndex:
        """Create an empty temporary index, in a folder that is removed as that of `Index.in_memory`.

        Parameters
        ----------
        kinds, weights
            As for `create`.

        Returns
        -------
        FusedIndex
        """
        return in_temporary_folder(lambda path: cls.create(path, kinds, weights))

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each kind in the fused score, by name, with the sum 1."""
        return {entry.name: entry.weight for entry in self._snapshot.manifest.kinds}

    @property
    def encoders(self) -> dict[str, Codebook | Codec]:
        """The codebook or codec of each kind, by name."""
        kinds = self._snapshot.encoder.kinds
        return {name: kind.encoder for name, kind in zip(self.weights, kinds, strict=True)}

    def set_weights(self, weights: Sequence[float]) -> None:
        """Store other weights, in one commit.

        Parameters
        ----------
        weights : sequence of float
            One of 0 or more for each kind, in the order of the index.

        Raises
        ------
        InputError
            If the number of weights is not that of the kinds, one is negative, or all are 0; nothing is changed.
        """
        with self._writing():
            manifest = self._snapshot.manifest
            parts = shares(weights, len(manifest.kinds), "kinds of features")
            if parts != [entry.weight for entry in manifest.kinds]:
                pairs = zip(manifest.kinds, parts, strict=True)
                kinds = tuple(replace(entry, weight=weight) for entry, weight in pairs)
                self._publish(manifest.following(kinds=kinds))

    @functools.cached_property
    def extractor(self) -> FusedExtractor:  # type: ignore[override]
        """The extractors that describe a photograph as those of the index were described, made when first used.

        Raises InputError if the features of a kind were made by another program or given as arrays, and NotFoundError
        if the weights of a network are neither in the index nor in the cache.
        """
        recipes = [kind.recipe for kind in self._snapshot.encoder.kinds]
        each = (
            extractor_of(recipe, self.kind_network(number), self.feature_places)
            for number, recipe in enumerate(recipes)
        )
        return FusedExtractor(tuple(each))

    def kind_network(self, number: int) -> Path | None:
        """Return the network file of a kind in the index, or None; its checksums are not compared here."""
        entry = self._snapshot.manifest.kinds[number].network
        return self._folder.path / entry.name if entry else None

    def preload(self) -> None:
        """Read the whole index into memory now, see `Index.preload`."""
        super().preload()
        for segment in self._snapshot.segments:
            for part in segment.parts:
                part.file.preload()

    def add(
        self,
        features: Sources,
        *,
        existing: str = "refuse",
        prune: bool = False,
        remove: Iterable[str] = (),
        segment_postings: int = SEGMENT_POSTINGS,
        on_image: Progress | None = None,
    ) -> AddSummary:
        """Add images by their features of each kind; every commit has the same images of all kinds.

        An image that is missing from the source of a kind, or has no features in it, is found by the other kinds. If
        the index has an image of the same content without features of a kind, and they are there now, together with
        those of all kinds that it has, it is replaced, unless `existing` is "refuse".

        Parameters
        ----------
        features : mapping of str to FeatureSource, or iterable of (str, ndarray or Features)
            The source of each kind, by its name in the index; a kind that is left out gets no features.
        existing, prune, remove, on_image
            As for `Index.add`.
        segment_postings : int, optional
            Number of postings of all kinds in memory at which a segment is written and committed.

        Returns
        -------
        AddSummary
            Numbers and names of images by what was done.

        Raises
        ------
        InputError, MismatchError
            As for `Index.add`, for each kind; also for a kind that the index does not have.
        """
        check_existing(existing)
        source = self.source_of(features)
        return self._add_identified(source, existing, prune, remove, segment_postings, on_image)

    def source_of(self, features: Sources, recipe: None = None) -> IdentifiedSource:
        """Return the sources of all kinds as one, whose features fit; raises as `add`."""
        source = FusedSource(self._sources(features))
        self._check_fits(cast(FeatureSource, source))
        return cast(IdentifiedSource, source)

    def add_contents(self, contents: FusedContents) -> None:
        """Add the contents of a whole segment.

        Parameters
        ----------
        contents : FusedContents
            Images, with what the kinds of this index have of them.

        Raises
        ------
        InputError
            If a name is already in the index; nothing is changed.
        MismatchError
            If there is not one part for each kind; nothing is changed.
        """
        found, expected = len(contents.parts), len(self._snapshot.encoder.kinds)
        if found != expected:
            raise MismatchError(f"{self.path}: contents have {found} kinds of features, the index {expected}; give all")
        self._add_segment(contents)

    def _sources(self, features: Sources) -> list[IdentifiedSource]:
        """Return the source of each kind, an empty one for a kind that was left out."""
        if unknown := sorted(set(features) - set(self.weights)):
            known = list_names([*self.weights])
            raise InputError(f"{self.path}: has no kind of features named {list_names(unknown)}; it has {known}")
        found: list[IdentifiedSource] = []
        for name, kind in zip(self.weights, self._snapshot.encoder.kinds, strict=True):
            given = features.get(name)
            if given is None:
                found.append(ArrayFeatures({}, kind.recipe, kind.encoder.input_dim))
                continue
            is_array = not isinstance(given, FeatureSource) and kind.recipe.is_of_arrays
            arrays = GLOBAL_ARRAYS if kind.recipe.is_global else ARRAYS
            recipe = kind.recipe if is_array else None
            found.append(identified(source_of_images(given, recipe, arrays, kind.encoder.input_dim)))
        return found

    def merge(self) -> int:
        """Merge all segments into one and reclaim the disk space of deleted images.

        Returns
        -------
        int
            Number of segments before.

        Raises
        ------
        DamagedError
            If a segment is damaged.
        """
        return self._merge(self.merge_chunk)

    def _map(self, manifest: Manifest, known: FusedSnapshot | None) -> FusedSnapshot:
        return map_fused_snapshot(self._folder, manifest, known)

    def _check_placed(self) -> None:
        _check_local(self.path, self._snapshot.encoder.kinds)

    def _check_fits(self, features: FeatureSource) -> None:
        sources = cast(FusedSource, features).sources
        for kind, source in zip(self._snapshot.encoder.kinds, sources, strict=True):
            kind.check_fits(source, self.path)

    def plan(
        self, view: FusedSnapshot, features: IdentifiedSource, existing: str, prune: bool, remove: Iterable[str]
    ) -> AdditionPlan:
        """Plan an addition, see `Collection.plan`; images that get a kind they lacked are replaced."""
        plan = super().plan(view, features, existing, prune, remove)
        known = view.find_all(features.names)
        for name in _incomplete(view, cast(FusedSource, features), known, {*plan.replaced, *plan.removed}):
            plan.replaced.append(name)
            plan.unchanged -= 1
            plan.moved.pop(name, None)
        return plan

    def _feature_paths(self, features: IdentifiedSource) -> list[Path]:
        return cast(FusedSource, features).paths

    def _batches(
        self, features: FeatureSource, wanted: Sequence[str], facts: Facts, room: int, on_image: Progress | None
    ) -> Iterator[FusedContents]:
        source = cast(FusedSource, features)
        done = 0
        for names in self._groups(source, wanted, room):
            parts = tuple(
                kind.load(one, names, source.held(number, names), self.geometry)
                for number, (kind, one) in enumerate(zip(self._snapshot.encoder.kinds, source.sources, strict=True))
            )
            prints, roots = zip(*map(facts, names), strict=True)
            encoded = [name.encode() for name in names]
            yield FusedContents(encoded, np.array(prints, np.uint64), np.array(roots, np.uint32), parts)
            done += len(names)
            if on_image is not None:
                on_image(done, len(wanted))

    def _groups(self, source: FusedSource, wanted: Sequence[str], room: int) -> Iterator[list[str]]:
        """Divide the images into those of one segment each, by the most postings that they can have."""
        kinds = self._snapshot.encoder.kinds
        names: list[str] = []
        size = 0
        for name in wanted:
            names.append(name)
            size += sum(
                kinds[number].size(source.sources[number], name, self.geometry) for number in source.holders(name)
            )
            if size >= room:
                yield names
                names, size = [], 0
        if names:
            yield names

    def _write(self, name: str, contents: FusedContents) -> Written:
        table = write_table(self._folder, name, contents.names, contents.fingerprints, contents.roots)
        kinds = self._snapshot.encoder.kinds
        writers = [
            functools.partial(kind.write, self._folder, contents=part)
            for kind, part in zip(kinds, contents.parts, strict=True)
        ]
        return self._with_parts(name, table, writers)

    def _join(self, name: str, joined: Sequence[FusedSegment], chunk: int) -> Written:
        for segment in joined:  # altered data must not get new, valid checksums
            segment.file.verify()
        table = write_table(self._folder, name, joined_names(joined), *joined_facts(joined))
        deleted = [segment.deleted for segment in joined]
        writers = [
            functools.partial(
                kind.join, self._folder, parts=[segment.parts[number] for segment in joined], deleted=deleted
            )
            for number, kind in enumerate(self._snapshot.encoder.kinds)
        ]
        return self._with_parts(name, table, writers)

    def _with_parts(self, name: str, table: Written, writers: Sequence[Callable[..., Written]]) -> Written:
        """Write the file of each kind next to the table of images `name`."""
        parts = []
        for number, write in enumerate(writers, start=1):
            file = part_name(name, number)
            written = write(name=file)
            entry = FileEntry.of(self._folder, file, written.checksum)
            parts.append(KindFile(entry, written.entries, written.geometry))
        return replace(table, entries=sum(part.entries for part in parts), kinds=tuple(parts))


def _incomplete(
    view: FusedSnapshot, source: FusedSource, known: dict[str, tuple[int, int]], others: set[str]
) -> list[str]:
    """Return the indexed images of the same content that now have features of a kind they lacked, and no fewer."""
    lacking = _lacking(view)
    places = {name: place for name, place in known.items() if lacking[place[0]][:, place[1]].any()}
    there, found = view.identities(list(places.values())), source.identities(list(places))
    late = []
    for (name, place), same in zip(places.items(), there.fingerprints == found.fingerprints, strict=True):
        has = set(np.flatnonzero(~lacking[place[0]][:, place[1]]).tolist())
        if same and name not in others and has < set(source.kinds_of(name)):
            late.append(name)
    return late


def _lacking(snapshot: FusedSnapshot) -> list[np.ndarray]:
    """Return for each segment which images have no features of each kind, [kinds, images] bool."""
    kinds = snapshot.encoder.kinds
    pairs = [zip(kinds, segment.parts, strict=True) for segment in snapshot.segments]
    return [np.array([kind.lacks(part) for kind, part in each]) for each in pairs]


def _check_local(path: Path | str, kinds: Iterable[FeatureKind]) -> None:
    if not any(kind.kind == KIND for kind in kinds):
        raise InputError(f"{path}: global descriptors have no geometry, and no kind has local features; leave it out")


def _check_kinds(path: Path | str, kinds: Mapping[str, FeatureKind]) -> None:
    if not kinds:
        raise InputError(f"{path}: no kind of features was given; give the codebook or codec of one or more")
    recipes = [kind.recipe for kind in kinds.values()]
    if twice := next((recipe for recipe in recipes if recipes.count(recipe) > 1), None):
        raise InputError(f"{path}: two kinds of features are of [{twice}], which is the same; give it once")
