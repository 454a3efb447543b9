"""The global index: a codec and segments of vectors in one durable folder (see `indexes.base`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features, FeatureSet
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
from asmk_engine.indexes.creation import make_empty
from asmk_engine.indexes.manifest import GLOBAL_KIND, Manifest, Written
from asmk_engine.iteration import Progress, counted

# A segment is written and committed when this many bytes of vectors are in memory.
SEGMENT_BYTES = 256 << 20
BATCH_SIZE = 256  # images encoded by the codec at a time


class GlobalIndex(Collection[GlobalSnapshot, VectorContents]):
    """A persistent index of one vector per image; see `create`, `open`, `add`, `delete` and `merge`."""

    kind = GLOBAL_KIND
    small_segment = 1 << 12
    merge_chunk = CHUNK_BYTES

    @classmethod
    def create(cls, path: Path | str, codec: Codec, network: Path | None = None) -> GlobalIndex:
        """Make an empty index in a new or empty folder; raises InputError if the path is taken.

        network  the file of the network that makes the descriptors, copied into the index; as for `Index.create`
        """
        return cls(make_empty(path, cls.kind, lambda folder: write_codec(folder, codec), network))

    @property
    def codec(self) -> Codec:
        """The codec with which all images of the index are encoded."""
        return self._snapshot.encoder

    def add(
        self,
        features: FeatureSet,
        *,
        existing: str = "refuse",
        prune: bool = False,
        remove: Iterable[str] = (),
        segment_bytes: int = SEGMENT_BYTES,
        on_image: Progress | None = None,
    ) -> AddSummary:
        """Add the images of a feature set of global descriptors; options and commits as for `Index.add`.

        Raises InputError if an image does not have exactly one descriptor or the vectors of the index are augmented,
        and MismatchError if recipe or dimension differ from those of the codec; then nothing is changed.

        segment_bytes  size of the vectors in memory at which a segment is written and committed
        """
        return self._add(features, existing, prune, remove, segment_bytes, on_image)

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

    def _check_fits(self, features: FeatureSet) -> None:
        check_fits(features, self.codec, self.path)

    def _batches(
        self, features: FeatureSet, wanted: Sequence[str], facts: Facts, room: int, on_image: Progress | None
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


def check_fits(features: FeatureSet, codec: Codec, path: Path) -> None:
    """Raise MismatchError or InputError unless the descriptors can be added to the index at `path`."""
    if features.recipe != codec.recipe:
        raise MismatchError(
            f"{features.path}: descriptors of [{features.recipe}], but {path} is for [{codec.recipe}]; "
            "extract with the same options, or make another index"
        )
    if features.dim != codec.input_dim:
        raise MismatchError(
            f"{features.path}: descriptors have {features.dim} dimensions, the codec of {path} was made for "
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


def _check_single(features: FeatureSet, names: Sequence[str]) -> None:
    for name in names:
        if (count := features.count(name)) != 1:
            raise InputError(
                f"{features.path}: {name!r} has {count} descriptors, a global index takes exactly one per image; "
                "extract it again with a global extractor"
            )
