"""The global index: a codec and segments of vectors in one durable folder (see `indexes.base`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import (
    ArrayFeatures,
    Features,
    FeatureSource,
    IdentifiedSource,
    NamedArrays,
    identified,
    label,
    recipe_of_arrays,
    source_of_images,
)
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.segment import (
    CHUNK_BYTES,
    GlobalSegment,
    VectorContents,
    merge_global_segments,
    write_global_segment,
)
from asmk_engine.flat.snapshot import GlobalSnapshot, map_global_snapshot, write_codec
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.indexes.base import Collection, Facts
from asmk_engine.indexes.creation import in_temporary_folder, make_empty
from asmk_engine.indexes.manifest import GLOBAL_KIND, Manifest, Written
from asmk_engine.iteration import Progress, counted
from asmk_engine.recipes import GLOBAL_ARRAYS, Recipe

# A segment is written and committed when this many bytes of vectors are in memory.
SEGMENT_BYTES = 256 << 20
BATCH_SIZE = 256  # images encoded by the codec at a time


class GlobalIndex(Collection[GlobalSnapshot, VectorContents]):
    """A persistent index of one vector per image; see `create`, `open`, `add`, `delete` and `merge`.

    Examples
    --------
    >>> import numpy as np
    >>> from asmk_engine import GlobalIndex, GlobalSearcher
    >>> vectors = np.random.default_rng(0).normal(size=(100, 16))
    >>> index = GlobalIndex.in_memory(16)
    >>> index.add_matrix([f"image {number}" for number in range(100)], vectors).added
    100
    >>> names, scores = GlobalSearcher(index).search_matrix(vectors[:2], top=1)
    >>> names.tolist()
    [['image 0'], ['image 1']]
    """

    kind = GLOBAL_KIND
    room = SEGMENT_BYTES
    small_segment = 1 << 12
    merge_chunk = CHUNK_BYTES

    @classmethod
    def create(cls, path: Path | str, codec: Codec | int, network: Path | None = None) -> GlobalIndex:
        """Create an empty index in a new or empty folder.

        Parameters
        ----------
        path : path-like
            The folder of the index.
        codec : Codec or int
            How vectors are transformed and stored; a number is the dimension of arrays, stored in single precision.
        network : Path, optional
            The file of the network that makes the descriptors, which is copied into the index.

        Returns
        -------
        GlobalIndex

        Raises
        ------
        InputError
            If the path is a file or a folder that is not empty.
        MismatchError
            If the dimension is not from 1 to 65 536.
        """
        used = codec if isinstance(codec, Codec) else Codec(recipe_of_arrays(None, GLOBAL_ARRAYS), int(codec))
        return cls(make_empty(path, cls.kind, lambda folder: write_codec(folder, used), network))

    @classmethod
    def in_memory(cls, codec: Codec | int) -> GlobalIndex:
        """Create an empty temporary index, in a folder that is removed as that of `Index.in_memory`.

        Parameters
        ----------
        codec : Codec or int
            As for `create`.

        Returns
        -------
        GlobalIndex
        """
        return in_temporary_folder(lambda path: cls.create(path, codec))

    @property
    def codec(self) -> Codec:
        """The codec with which all images of the index are encoded."""
        return self._snapshot.encoder

    def add(
        self,
        features: FeatureSource | NamedArrays,
        *,
        recipe: Recipe | str | None = None,
        existing: str = "refuse",
        prune: bool = False,
        remove: Iterable[str] = (),
        segment_bytes: int = SEGMENT_BYTES,
        on_image: Progress | None = None,
    ) -> AddSummary:
        """Add the images of a feature set of global descriptors, or arrays [1, D0]; options as for `Index.add`.

        Raises InputError if an image does not have exactly one descriptor or the vectors of the index are augmented,
        and MismatchError if recipe or dimension differ from those of the codec; then nothing is changed.

        segment_bytes  size of the vectors in memory at which a segment is written and committed
        """
        source = source_of_images(features, recipe, GLOBAL_ARRAYS, self.codec.input_dim)
        return self._add(source, existing, prune, remove, segment_bytes, on_image)

    def source_of(self, features: FeatureSource | NamedArrays, recipe: Recipe | str | None = None) -> IdentifiedSource:
        """Return what `add` is given as a source of features that fit; raises as `add`."""
        source = source_of_images(features, recipe, GLOBAL_ARRAYS, self.codec.input_dim)
        self._check_fits(source)
        return identified(source)

    def add_matrix(
        self,
        names: Sequence[str],
        matrix: np.ndarray,
        *,
        recipe: Recipe | str | None = None,
        existing: str = "refuse",
        segment_bytes: int = SEGMENT_BYTES,
        on_image: Progress | None = None,
    ) -> AddSummary:
        """Add images by the rows of a matrix.

        Parameters
        ----------
        names : sequence of str
            Names of the images, each once.
        matrix : ndarray of shape (n, D0), float16, float32 or float64
            One descriptor for each image, as the codec expects them; they need not be normalised.
        recipe : Recipe or str, optional
            Recipe of the descriptors, or its name; `index.recipe` asserts that they were made exactly as the others.
        existing, segment_bytes, on_image
            As for `add`.

        Returns
        -------
        AddSummary
            Numbers and names of images by what was done.

        Raises
        ------
        InputError
            If a name is given twice or is already in the index, if there is not one name for each row, or if the matrix
            is not of finite floating-point numbers; nothing is changed.
        MismatchError
            If recipe or dimension differ from those of the codec; nothing is changed.
        """
        source = ArrayFeatures.of_matrix(names, matrix, recipe_of_arrays(recipe, GLOBAL_ARRAYS))
        return self._add(source, existing, False, (), segment_bytes, on_image)

    def add_vectors(self, contents: VectorContents) -> None:
        """Add vectors encoded by this codec as one segment.

        Raises MismatchError for another shape or dtype, and InputError if a name is already in the index; then nothing
        is changed.
        """
        codec = self.codec
        wanted = (len(contents.names), codec.width)
        if contents.vectors.shape != wanted or contents.vectors.dtype != codec.dtype:
            found = f"{contents.vectors.dtype} {contents.vectors.shape}"
            raise MismatchError(f"vectors are {found}, the index expects {codec.dtype} {wanted}")
        self._add_segment(contents)

    def merge(self, *, chunk_bytes: int = CHUNK_BYTES) -> int:
        """Merge all segments into one and reclaim the space of deleted images; returns the number of segments before.

        chunk_bytes  size of the vectors held in memory at a time
        """
        return self._merge(chunk_bytes)

    def _map(self, manifest: Manifest, known: GlobalSnapshot | None) -> GlobalSnapshot:
        return map_global_snapshot(self._folder, manifest, known)

    def _check_fits(self, features: FeatureSource) -> None:
        check_fits(features, self.codec, self.path)

    def _batches(
        self, features: FeatureSource, wanted: Sequence[str], facts: Facts, room: int, on_image: Progress | None
    ) -> Iterator[VectorContents]:
        _check_single(features, wanted)
        images = counted(features.images(wanted), len(wanted), on_image)
        return self._gathered(images, facts, max(1, room // (self.codec.width * self.codec.dtype.itemsize)))

    def _gathered(self, images: Iterator[tuple[str, Features]], facts: Facts, room: int) -> Iterator[VectorContents]:
        """Encode images and group them into segments of `room` images."""
        codec = self.codec
        while True:
            names: list[str] = []
            stored: list[np.ndarray] = []
            while len(names) < room and (group := list(islice(images, min(BATCH_SIZE, room - len(names))))):
                names += [name for name, _ in group]
                stored.append(codec.encode(codec.apply(np.concatenate([image.descriptors for _, image in group]))))
            if not names:
                return
            yield _contents(names, np.concatenate(stored), facts)

    def _write(self, name: str, contents: VectorContents) -> Written:
        return write_global_segment(self._folder, name, contents)

    def _join(self, name: str, joined: Sequence[GlobalSegment], chunk: int) -> Written:
        return merge_global_segments(self._folder, name, joined, chunk)


def check_fits(features: FeatureSource, codec: Codec, path: Path) -> None:
    """Raise MismatchError or InputError unless the descriptors can be added to the index at `path`."""
    if features.recipe != codec.recipe:
        cure = "extract with the same options, or make another index"
        if features.recipe.is_of_arrays:
            cure = "give the recipe of the index if they were made in exactly this way, else make another index"
        raise MismatchError(
            f"{label(features)}: descriptors of [{features.recipe}], but {path} is for [{codec.recipe}]; {cure}"
        )
    if features.dim != codec.input_dim:
        raise MismatchError(
            f"{label(features)}: descriptors have {features.dim} dimensions, the codec of {path} was made for "
            f"{codec.input_dim}; make another index for these descriptors"
        )
    if codec.augmentation is not None:
        raise InputError(
            f"{path}: its vectors are augmented by their neighbours, which new images would change; add images to the "
            "index it was made from, and augment that again"
        )


def _contents(names: Sequence[str], vectors: np.ndarray, facts: Facts) -> VectorContents:
    prints, roots = zip(*map(facts, names), strict=True)
    encoded = [name.encode() for name in names]
    return VectorContents(encoded, np.array(prints, np.uint64), vectors, np.array(roots, np.uint32))


def _check_single(features: FeatureSource, names: Sequence[str]) -> None:
    for name in names:
        if (count := features.count(name)) != 1:
            raise InputError(
                f"{label(features)}: {name!r} has {count} descriptors, a global index takes exactly one per image; "
                "extract it again with a global extractor"
            )
