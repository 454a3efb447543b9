"""The ASMK index: a codebook and segments of postings in one durable folder (see `indexes.base`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import (
    FeatureSource,
    IdentifiedSource,
    NamedArrays,
    check_name,
    identified,
    label,
    source_of_images,
)
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.indexes.base import Facts
from asmk_engine.indexes.creation import in_temporary_folder, make_empty
from asmk_engine.indexes.manifest import KIND, Manifest, Written
from asmk_engine.inverted.building import BuiltSegment, SegmentBuilder, SegmentEncoding
from asmk_engine.inverted.geometry_file import features_kept
from asmk_engine.inverted.geometry_writer import merge_geometry, write_geometry
from asmk_engine.inverted.merging import merge_segments
from asmk_engine.inverted.placed_collection import PlacedCollection
from asmk_engine.inverted.regional import Regional
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.segment_writer import CHUNK_POSTINGS, Contents, write_segment
from asmk_engine.inverted.signatures import Signature, code_width
from asmk_engine.inverted.snapshot import Snapshot, map_snapshot, write_codebook
from asmk_engine.iteration import Progress, counted
from asmk_engine.recipes import Recipe
from asmk_engine.regions.boxes import ImageBoxes
from asmk_engine.regions.options import RegionOptions

# A segment is written and committed when this many postings are in memory: 256 MiB of codes at 128 bits.
SEGMENT_POSTINGS = 1 << 24


class Index(PlacedCollection[Snapshot, Contents | BuiltSegment]):
    """A persistent ASMK index: a codebook and an inverted file in one folder.

    Objects are made by `create` and `open`. Every change is one or more commits; other processes may read meanwhile.

    Examples
    --------
    >>> from asmk_engine import Codebook, FeatureSet, Index, Searcher
    >>> features = FeatureSet.open("features")  # doctest: +SKIP
    >>> index = Index.create("index", Codebook.train(features))  # doctest: +SKIP
    >>> index.add(features).added  # doctest: +SKIP
    1000
    >>> hits = Searcher(index).search(features.read("a.jpg"))  # doctest: +SKIP
    """

    kind = KIND
    room = SEGMENT_POSTINGS
    small_segment = 1 << 15
    merge_chunk = CHUNK_POSTINGS
    _boxes: ImageBoxes | None = None
    _builder: SegmentBuilder | None = None

    @classmethod
    def create(
        cls,
        path: Path | str,
        codebook: Codebook,
        network: Path | None = None,
        geometry: int | str | None = None,
        regions: RegionOptions | None = None,
    ) -> Index:
        """Create an empty index in a new or empty folder.

        Parameters
        ----------
        path : path-like
            The folder of the index.
        codebook : Codebook
            The codebook, which is stored in the index.
        network : Path, optional
            The file of the network that makes the features, which is copied into the index.
        geometry : int or "all", optional
            Keep word, code and place of each feature beside the postings, for the verification of answers: of the
            strongest `geometry` features of each image, or of all.
        regions : RegionOptions, optional
            Describe each image by the whole image and its regions; fixed for the life of the index.

        Returns
        -------
        Index

        Raises
        ------
        InputError
            If the path is a file or a folder that is not empty, or `geometry` is not a number of 1 or more.
        DamagedError
            If the network file is not in the layout of `storage.arrays` or is damaged.
        """
        kept = features_kept(geometry)
        return cls(make_empty(path, cls.kind, lambda folder: write_codebook(folder, codebook), network, kept, regions))

    @classmethod
    def in_memory(cls, codebook: Codebook) -> Index:
        """Create an empty temporary index, for images that need not be kept.

        Its files are in a temporary folder (`TMPDIR`), which is removed when the object is collected, and at the latest
        when the process ends; a forked child does not remove it. A process that is killed leaves it behind.

        Parameters
        ----------
        codebook : Codebook
            The codebook.

        Returns
        -------
        Index

        Raises
        ------
        StorageError
            If the folder cannot be made or written.

        Examples
        --------
        >>> import numpy as np
        >>> from asmk_engine import Codebook, Features, Index, Searcher
        >>> images = np.random.default_rng(0).normal(size=(5, 100, 16))
        >>> index = Index.in_memory(Codebook.train(images, words=2))
        >>> index.add((f"image {number}", image) for number, image in enumerate(images)).added
        5
        >>> searcher = Searcher(index, multiple_assignment=1)
        >>> searcher.search(Features.from_descriptors(images[3]), top=1)[0].name
        'image 3'
        """
        return in_temporary_folder(lambda path: cls.create(path, codebook))

    @property
    def codebook(self) -> Codebook:
        """The codebook with which all images of the index are encoded."""
        return self._snapshot.encoder

    @property
    def regions(self) -> RegionOptions | None:
        """How images are described by their regions; None if they are not."""
        return self._snapshot.manifest.regions

    @property
    def _encoding(self) -> SegmentEncoding:
        """How the images that are being added are encoded."""
        return SegmentEncoding(self.codebook, self.geometry, self.regions, self._boxes)

    @property
    def postings(self) -> int:
        """Number of postings on disk, including those of deleted images until `merge`."""
        return sum(segment.postings for segment in self._snapshot.segments)

    def add(
        self,
        features: FeatureSource | NamedArrays,
        *,
        recipe: Recipe | str | None = None,
        existing: str = "refuse",
        prune: bool = False,
        remove: Iterable[str] = (),
        segment_postings: int = SEGMENT_POSTINGS,
        on_image: Progress | None = None,
        boxes: ImageBoxes | None = None,
        builder: SegmentBuilder | None = None,
    ) -> AddSummary:
        """Add the images of a feature set, or arrays.

        Each full segment is committed; replacements and removals are committed with the last one.

        Parameters
        ----------
        features : FeatureSource, or iterable of (str, ndarray or Features)
            The images to add, such as a `FeatureSet`; or names with descriptors of shape (n, D0), which are held in
            memory. An image of arrays is identified by the fingerprint of its features.
        recipe : Recipe or str, optional
            Recipe of arrays, or its name, as given to `Codebook.train`; `index.recipe` asserts that they were made
            exactly as the features that the codebook was trained on.
        existing : {"refuse", "skip", "update", "replace"}, default "refuse"
            What to do if a name is already in the index: refuse the whole call, skip the image, update it if its
            content changed, or replace it. The summary lists the images that were skipped although their content
            differs.
        prune : bool, default False
            Also remove the images that are not in the feature set.
        remove : iterable of str, optional
            Names of images to remove as well; unknown names are ignored.
        segment_postings : int, optional
            Number of postings in memory at which a segment is written and committed; geometry counts by its bytes.
        on_image : callable, optional
            Receives progress as (done, total) in images.
        boxes : ImageBoxes, optional
            The regions of the images, in an index whose regions are given boxes, where they are required. An image
            without boxes has no region but the whole image.
        builder : SegmentBuilder, optional
            What encodes the images and writes their segments elsewhere, such as the machines of a cluster. This process
            commits what comes back; answers do not depend on it.

        Returns
        -------
        AddSummary
            Numbers and names of images by what was done.

        Raises
        ------
        InputError
            If `existing` is unknown, or is `refuse` and a name is already in the index; if a name is given twice or an
            array is no matrix of finite floating-point numbers; if boxes are given or missing against `regions`;
            nothing is changed.
        MismatchError
            If recipe or dimension differ from those of the codebook; nothing is changed.
        """
        source = source_of_images(features, recipe, dim=self.codebook.input_dim)
        self._check_boxes(boxes)
        self._boxes, self._builder = boxes, builder
        try:
            return self._add(source, existing, prune, remove, segment_postings, on_image)
        finally:
            self._boxes, self._builder = None, None

    def source_of(self, features: FeatureSource | NamedArrays, recipe: Recipe | str | None = None) -> IdentifiedSource:
        """Return what `add` is given as a source of features that fit; raises as `add`."""
        source = source_of_images(features, recipe, dim=self.codebook.input_dim)
        self._check_fits(source)
        return identified(source)

    def build_by(self, builder: SegmentBuilder | None) -> None:
        """Let `builder` encode the images that `carry_out` adds from now on, and write their segments; None ends it."""
        self._builder = builder

    def _check_boxes(self, boxes: ImageBoxes | None) -> None:
        are_given = self.regions is not None and self.regions.are_given
        if are_given and boxes is None:
            raise InputError(f"{self.path}: its regions are boxes that are given with the images; add the boxes")
        if boxes is not None and not are_given:
            found = f"has regions ({self.regions})" if self.regions else "has no regions"
            raise InputError(f"{self.path}: {found}; leave the boxes out, or make another index with them")

    def add_signatures(
        self, images: Iterable[tuple[str, Signature | Regional]], *, segment_postings: int = SEGMENT_POSTINGS
    ) -> int:
        """Add images by signatures that were computed with this codebook and one word per descriptor.

        Signatures have no places, so these images have no geometry.

        Parameters
        ----------
        images : iterable of (str, Signature or sequence of Signature)
            Names and signatures; several of an image, that of the whole image first, in an index of separate regions.
        segment_postings : int, optional
            Number of postings in memory at which a segment is written and committed.

        Returns
        -------
        int
            Number of images added.

        Raises
        ------
        InputError
            If a name is already in the index, or an image has no signature, or several without separate regions;
            segments already committed stay.
        MismatchError
            If the size of a code differs; segments already committed stay.
        """
        with self._writing():
            before = self.images
            checked = ((name, self._check_new(name, given), 0, 0, None) for name, given in images)
            for contents in self._encoding.gathered(checked, segment_postings):
                self._commit(contents, (), {})
                del contents  # free its memory before the next one is filled
        return self.images - before

    def add_contents(self, contents: Contents) -> None:
        """Add the contents of a whole segment.

        Parameters
        ----------
        contents : Contents
            Images and postings.

        Raises
        ------
        InputError
            If a name is already in the index; nothing is changed.
        MismatchError
            If the size of a code differs, or the contents have geometry and the index keeps none; nothing is changed.
        """
        width = code_width(self.codebook.dim)
        found = 0 if contents.geometry is None else contents.geometry.rows.shape[1]
        expected = self._encoding.row_bytes
        if found and not (expected and found - expected in (0, 1)):  # one byte more with angles
            raise MismatchError(f"features take {found} bytes, the index expects {expected}; encode them again")
        if contents.codes.shape != (len(contents.words), width):
            raise MismatchError(f"codes are {contents.codes.shape}, the index expects [m, {width}]")
        if self._encoding.is_separate != (contents.entries is not None):
            raise MismatchError(
                f"{self.path}: only the index, or only the contents, have separate regions; encode them again"
            )
        self._add_segment(contents)

    def _check_new(self, name: str, given: Signature | Regional) -> Regional:
        if check_name(name) in self:
            raise InputError(f"{self.path}: already in the index: {name!r}; names must be unique")
        signatures = [given] if isinstance(given, Signature) else given
        if len(signatures) != 1 and not (signatures and self._encoding.is_separate):
            raise InputError(
                f"{name}: {len(signatures)} signatures; give one, or several to an index of separate regions"
            )
        width = code_width(self.codebook.dim)
        for signature in signatures:
            if signature.codes.shape != (len(signature), width):
                raise MismatchError(f"{name}: codes are {signature.codes.shape}, the index expects [m, {width}]")
        return signatures

    def merge(self, *, chunk_postings: int = CHUNK_POSTINGS) -> int:
        """Merge all segments into one and reclaim the disk space of deleted images.

        Parameters
        ----------
        chunk_postings : int, optional
            Number of postings held in memory at a time.

        Returns
        -------
        int
            Number of segments before.

        Raises
        ------
        DamagedError
            If a segment is damaged.
        """
        return self._merge(chunk_postings)

    def _map(self, manifest: Manifest, known: Snapshot | None) -> Snapshot:
        return map_snapshot(self._folder, manifest, known)

    def _check_fits(self, features: FeatureSource) -> None:
        check_fits(features, self.codebook, self.path)

    def _batches(
        self, features: IdentifiedSource, wanted: Sequence[str], facts: Facts, room: int, on_image: Progress | None
    ) -> Iterator[Contents | BuiltSegment]:
        if self._builder is not None:
            return self._built(self._builder, features, wanted, facts, room, on_image)
        encoding = self._encoding
        images = counted(encoding.encode(features.images(wanted), facts), len(wanted), on_image)
        return iter(encoding.gathered(images, room))

    def _built(
        self,
        builder: SegmentBuilder,
        features: IdentifiedSource,
        wanted: Sequence[str],
        facts: Facts,
        room: int,
        on_image: Progress | None,
    ) -> Iterator[BuiltSegment]:
        done = 0
        for segment in builder.build(features, wanted, facts, self._encoding, room) if wanted else ():
            yield segment
            done += len(segment.names)
            if on_image is not None:
                on_image(done, len(wanted))

    def _write(self, name: str, contents: Contents | BuiltSegment) -> Written:
        if isinstance(contents, BuiltSegment):
            return contents.write(self._folder, name)
        written = write_segment(self._folder, name, contents, self.codebook.words)
        return replace(written, geometry=write_geometry(self._folder, name, contents.geometry))

    def _join(self, name: str, joined: Sequence[Segment], chunk: int) -> Written:
        written = merge_segments(self._folder, name, joined, self.codebook.words, chunk_postings=chunk)
        return replace(written, geometry=merge_geometry(self._folder, name, joined))


def check_fits(features: FeatureSource, codebook: Codebook, path: Path) -> None:
    """Raise MismatchError unless recipe and dimension of the features match the codebook of the index at `path`."""
    if features.recipe != codebook.recipe:
        cure = "extract with the same options, or build another index"
        if features.recipe.is_of_arrays:
            cure = "give the recipe of the codebook if they were made in exactly this way, else build another index"
        raise MismatchError(
            f"{label(features)}: features of [{features.recipe}], but the codebook of {path} was trained on "
            f"[{codebook.recipe}]; {cure}"
        )
    if features.dim != codebook.input_dim:
        raise MismatchError(
            f"{label(features)}: descriptors have {features.dim} dimensions, the codebook of {path} expects "
            f"{codebook.input_dim}; build a codebook for these features"
        )
