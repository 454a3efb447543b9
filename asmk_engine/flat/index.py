"""The global index: a codec and a list of segments of vectors in one durable folder (see `indexes.base`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_names
from asmk_engine.features import FeatureSet
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.segment import CHUNK_BYTES, GlobalSegment, VectorContents, merge_global_segments
from asmk_engine.flat.segment import write_global_segment as write_segment
from asmk_engine.flat.snapshot import GlobalSnapshot, map_global_snapshot, open_global_snapshot, write_codec
from asmk_engine.indexes.additions import EXISTING, AddSummary
from asmk_engine.indexes.base import Collection, file_entry, make_empty, root_numbers
from asmk_engine.indexes.manifest import GLOBAL_KIND, Manifest, SegmentEntry
from asmk_engine.indexes.snapshot import map_network
from asmk_engine.iteration import Progress, counted

# A segment is written and committed when so many bytes of vectors are in hand.
SEGMENT_BYTES = 256 << 20
# When so many segments are of like size they are joined; those of fewer images than SMALL_IMAGES are all alike.
TIER_SEGMENTS = 8
SMALL_IMAGES = 1 << 12
TOGETHER = 256  # images that go through the codec at a time


class GlobalIndex(Collection[GlobalSnapshot, VectorContents]):
    """A persistent index of one vector per image; see `create`, `open`, `add`, `delete` and `merge`."""

    @classmethod
    def open(cls, path: Path | str) -> GlobalIndex:
        """Open an index at its last commit; NotFoundError, FormatError or DamagedError name what is wrong."""
        return cls(Path(path))

    @classmethod
    def create(cls, path: Path | str, codec: Codec, network: Path | None = None) -> GlobalIndex:
        """Make an empty index in a new or empty folder; InputError when something is in the way.

        network  the file of the network that makes the descriptors, copied into the index; as for `Index.create`
        """
        source = map_network(network) if network else None
        return cls(make_empty(path, GLOBAL_KIND, lambda folder: write_codec(folder, codec), source))

    @property
    def codebook(self) -> Codec:
        """The codec every image of the index went through; it has the place of a codebook."""
        return self._snapshot.codebook

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

        Raises InputError when an image has not exactly one descriptor or the vectors of the index are augmented, and
        MismatchError when recipe or dimension differ from the codec's; then nothing changed.
        """
        if existing not in EXISTING:
            raise InputError(f"existing is {existing!r}; choose one of {', '.join(EXISTING)}")
        with self._writing():
            check_fits(features, self.codebook, self.path)
            plan, origins = self._plan(features, existing, prune, remove), self._origins(features)
            _check_single(features, plan.wanted)
            left = None
            root_number = root_numbers(features, origins)
            for contents in self._contents(features, plan.wanted, root_number, segment_bytes, on_image):
                if left is not None:
                    self._commit(left, [name.decode() for name in left.names], origins)
                left = contents
            names = [name.decode() for name in left.names] if left else []
            if names or self._is_due(plan, origins):
                self._commit(left, [*names, *plan.removed], origins, plan.moved)
        return plan.summary()

    def add_vectors(self, contents: VectorContents) -> None:
        """Add vectors that went through this codec, as it stores them, as one segment.

        Raises MismatchError for another shape or type, InputError for a name that is there; then nothing changed.
        """
        codec = self.codebook
        wanted = (len(contents.names), codec.width)
        if contents.vectors.shape != wanted or contents.vectors.dtype != codec.dtype:
            found = f"{contents.vectors.dtype} {contents.vectors.shape}"
            raise MismatchError(f"vectors are {found}, the index takes {codec.dtype} {wanted}")
        with self._writing():
            if known := list(self._snapshot.find_all(name.decode() for name in contents.names)):
                raise InputError(f"{self.path}: there already: {list_names(known)}; names must be unique")
            if contents.names:
                self._commit(contents, (), {})

    def merge(self, *, chunk_bytes: int = CHUNK_BYTES) -> int:
        """Join all segments into one and give back the space of deleted images; returns how many there were.

        chunk_bytes  how much is held in memory at a time
        """
        return self._merge_all(lambda joined, number: self._merge(joined, number, chunk_bytes))

    def _contents(
        self,
        features: FeatureSet,
        wanted: Sequence[str],
        root_number: Callable[[str], int],
        segment_bytes: int,
        on_image: Progress | None,
    ) -> Iterator[VectorContents]:
        """The images of the segments to be, one segment after the other."""
        codec = self.codebook
        room = max(1, segment_bytes // (codec.width * codec.dtype.itemsize))
        images = counted(features.images(wanted), len(wanted), on_image)
        while True:
            names: list[bytes] = []
            fingerprints: list[int] = []
            stored: list[np.ndarray] = []
            while len(names) < room and (group := list(islice(images, min(TOGETHER, room - len(names))))):
                names += [name.encode() for name, _ in group]
                fingerprints += [features.source(name).fingerprint for name, _ in group]
                stored.append(codec.encode(codec.apply(np.concatenate([image.descriptors for _, image in group]))))
            if not names:
                return
            roots = np.array([root_number(name.decode()) for name in names], np.uint32)
            yield VectorContents(names, np.array(fingerprints, np.uint64), np.concatenate(stored), roots)

    def _open(self, known: GlobalSnapshot | None) -> GlobalSnapshot:
        return open_global_snapshot(self._folder, known)

    def _mapped(self, manifest: Manifest) -> GlobalSnapshot:
        return map_global_snapshot(self._folder, manifest, self._snapshot)

    def _tier(self, segment: GlobalSegment) -> int:
        return int(math.log(max(segment.images, SMALL_IMAGES), TIER_SEGMENTS))

    @property
    def _tier_segments(self) -> int:
        return TIER_SEGMENTS

    def _write(self, contents: VectorContents, number: int) -> SegmentEntry:
        name = f"segment-{number:06d}.safetensors"
        checksum = write_segment(self._folder, name, contents)
        return SegmentEntry(file_entry(self._folder, name, checksum), len(contents.names), len(contents.names))

    def _join(self, joined: Sequence[GlobalSegment], number: int) -> SegmentEntry:
        return self._merge(joined, number, CHUNK_BYTES)

    def _merge(self, joined: Sequence[GlobalSegment], number: int, chunk_bytes: int) -> SegmentEntry:
        name = f"segment-{number:06d}.safetensors"
        checksum = merge_global_segments(self._folder, name, joined, chunk_bytes)
        images = sum(segment.live for segment in joined)
        return SegmentEntry(file_entry(self._folder, name, checksum), images, images)


def check_fits(features: FeatureSet, codec: Codec, path: Path) -> None:
    """Raise MismatchError or InputError unless descriptors can go through the codec of the index at `path`."""
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
            f"{path}: its vectors are augmented by their neighbours, which new images would change; add to the index "
            "it was made from, and augment that again"
        )


def _check_single(features: FeatureSet, names: Sequence[str]) -> None:
    for name in names:
        if (count := features.count(name)) != 1:
            raise InputError(
                f"{features.path}: {name!r} has {count} descriptors, a global index takes exactly one of each image; "
                "extract it again with a global extractor"
            )
