"""The index: a codebook and a list of segments of postings in one durable folder (see `indexes.base`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_names
from asmk_engine.features import FeatureSet, check_name
from asmk_engine.indexes.additions import EXISTING, AddSummary
from asmk_engine.indexes.base import (
    Collection,
    Origins,
    file_entry,
    make_empty,
    root_numbers,
)
from asmk_engine.indexes.manifest import KIND, FileEntry, Manifest, SegmentEntry
from asmk_engine.indexes.snapshot import map_network
from asmk_engine.inverted.batch import Batch
from asmk_engine.inverted.merging import merge_segments
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.segment_writer import CHUNK_POSTINGS, Contents, write_segment
from asmk_engine.inverted.signatures import Signature, code_width, sign_many
from asmk_engine.inverted.snapshot import Snapshot, map_snapshot, open_snapshot
from asmk_engine.iteration import Progress, counted
from asmk_engine.storage.arrays import write_arrays
from asmk_engine.storage.folder import Folder

# A segment is written and committed when this many postings are in hand: 256 MiB of codes at 128 bits.
SEGMENT_POSTINGS = 1 << 24
# When so many segments are of like size they are joined; those below SMALL_POSTINGS are all alike.
TIER_SEGMENTS = 8
SMALL_POSTINGS = 1 << 15


class Index(Collection[Snapshot, Contents]):
    """A persistent ASMK index; see `create`, `open`, `add`, `delete` and `merge`."""

    @classmethod
    def open(cls, path: Path | str) -> Index:
        """Open an index at its last commit; NotFoundError, FormatError or DamagedError name what is wrong."""
        return cls(Path(path))

    @classmethod
    def create(cls, path: Path | str, codebook: Codebook, network: Path | None = None) -> Index:
        """Make an empty index in a new or empty folder; InputError when something is in the way.

        network  the file of the network that makes the features, copied into the index; it must be in the layout of
                 `arrays`, or DamagedError says what it lacks
        """
        source = map_network(network) if network else None
        return cls(make_empty(path, KIND, lambda folder: _write_codebook(folder, codebook), source))

    @property
    def codebook(self) -> Codebook:
        """The codebook every image of the index went through."""
        return self._snapshot.codebook

    @property
    def postings(self) -> int:
        """Postings on disk, those of deleted images included until `merge`."""
        return sum(segment.postings for segment in self._snapshot.segments)

    def add(
        self,
        features: FeatureSet,
        *,
        existing: str = "refuse",
        prune: bool = False,
        remove: Iterable[str] = (),
        segment_postings: int = SEGMENT_POSTINGS,
        on_image: Progress | None = None,
    ) -> AddSummary:
        """Add the images of a feature set; each full segment is committed, the last one with everything else.

        existing  what to do with a name that is there already: `refuse` the whole call, `skip` it, `update` it when
                  its content changed, or `replace` it; the summary names what was skipped though its content differs
        prune     also remove the images that the feature set does not hold
        remove    also remove these, where they are there
        Raises InputError, or MismatchError when recipe or dimension differ from the codebook's; then nothing changed.
        """
        if existing not in EXISTING:
            raise InputError(f"existing is {existing!r}; choose one of {', '.join(EXISTING)}")
        with self._writing():
            check_fits(features, self.codebook, self.path)
            plan, origins = self._plan(features, existing, prune, remove), self._origins(features)
            root_number = root_numbers(features, origins)
            signed = sign_many(features.images(plan.wanted), self.codebook)
            described = (
                (name, features.source(name).fingerprint, signature, root_number(name)) for name, signature in signed
            )
            batch = self._commit_full(counted(described, len(plan.wanted), on_image), origins, segment_postings)
            if batch.names or self._is_due(plan, origins):
                self._commit(batch.contents(), [*batch.names, *plan.removed], origins, plan.moved)
        return plan.summary()

    def add_signatures(
        self, images: Iterable[tuple[str, Signature]], *, segment_postings: int = SEGMENT_POSTINGS
    ) -> int:
        """Add images that were signed elsewhere, with this codebook and one assignment; returns how many.

        Raises InputError for a name that is there already and MismatchError for another code size; what was committed
        before stays.
        """
        with self._writing():
            checked = ((name, 0, self._check_new(name, signature), 0) for name, signature in images)
            before = self.images
            batch = self._commit_full(checked, {}, segment_postings)
            if batch.names:
                self._commit(batch.contents(), (), {})
        return self.images - before

    def add_contents(self, contents: Contents) -> None:
        """Add postings that are at hand as one segment; raises as `add_signatures`, and then nothing changed."""
        width = code_width(self.codebook.dim)
        if contents.codes.shape != (len(contents.words), width):
            raise MismatchError(f"codes are {contents.codes.shape}, the index takes [m, {width}]")
        with self._writing():
            if known := list(self._snapshot.find_all(name.decode() for name in contents.names)):
                raise InputError(f"{self.path}: there already: {list_names(known)}; names must be unique")
            if contents.names:
                self._commit(contents, (), {})

    def _check_new(self, name: str, signature: Signature) -> Signature:
        if check_name(name) in self:
            raise InputError(f"{self.path}: there already: {name!r}; names must be unique")
        width = code_width(self.codebook.dim)
        if signature.codes.shape != (len(signature), width):
            raise MismatchError(f"{name}: codes are {signature.codes.shape}, the index takes [m, {width}]")
        return signature

    def _commit_full(
        self, images: Iterable[tuple[str, int, Signature, int]], origins: Origins, segment_postings: int
    ) -> Batch:
        """Commit each segment that is full, and return the batch that is left."""
        batch = Batch(code_width(self.codebook.dim))
        for image in images:
            batch.append(*image)
            if batch.postings >= segment_postings:
                self._commit(batch.contents(), batch.names, origins)
                batch = Batch(batch.width)
        return batch

    def merge(self, *, chunk_postings: int = CHUNK_POSTINGS) -> int:
        """Join all segments into one and give back the space of deleted images; returns how many there were.

        chunk_postings  how many postings are held in memory at a time
        """
        return self._merge_all(lambda joined, number: self._merge(joined, number, chunk_postings))

    def _open(self, known: Snapshot | None) -> Snapshot:
        return open_snapshot(self._folder, known)

    def _mapped(self, manifest: Manifest) -> Snapshot:
        return map_snapshot(self._folder, manifest, self._snapshot)

    def _tier(self, segment: Segment) -> int:
        """Segments of one tier differ in size by at most the number of segments that are joined at a time."""
        return int(math.log(max(segment.postings, SMALL_POSTINGS), TIER_SEGMENTS))

    @property
    def _tier_segments(self) -> int:
        return TIER_SEGMENTS

    def _join(self, joined: Sequence[Segment], number: int) -> SegmentEntry:
        return self._merge(joined, number, CHUNK_POSTINGS)

    def _write(self, contents: Contents, number: int) -> SegmentEntry:
        name = f"segment-{number:06d}.safetensors"
        checksum = write_segment(self._folder, name, contents, self.codebook.words)
        return SegmentEntry(file_entry(self._folder, name, checksum), len(contents.names), len(contents.words))

    def _merge(self, segments: Sequence[Segment], number: int, chunk_postings: int) -> SegmentEntry:
        name = f"segment-{number:06d}.safetensors"
        merged = merge_segments(self._folder, name, segments, self.codebook.words, chunk_postings=chunk_postings)
        return SegmentEntry(file_entry(self._folder, name, merged.checksum), merged.images, merged.postings)


def check_fits(features: FeatureSet, codebook: Codebook, path: Path) -> None:
    """Raise MismatchError unless features can go through the codebook of the index at `path`."""
    if features.recipe != codebook.recipe:
        raise MismatchError(
            f"{features.path}: features of [{features.recipe}], but the codebook of {path} was trained on "
            f"[{codebook.recipe}]; extract with the same options, or build another index"
        )
    if features.dim != codebook.input_dim:
        raise MismatchError(
            f"{features.path}: descriptors have {features.dim} dimensions, the codebook of {path} takes "
            f"{codebook.input_dim}; build a codebook for these features"
        )


def _write_codebook(folder: Folder, codebook: Codebook) -> FileEntry:
    name = f"codebook-{codebook.fingerprint[:12]}.safetensors"
    metadata = {"recipe": codebook.recipe.to_json(), "training": json.dumps(codebook.training)}
    if codebook.graph is not None:
        metadata |= {"assignment": codebook.assignment, "graph_beam": str(codebook.graph.beam)}
    checksum = write_arrays(folder, name, codebook.arrays(), {"kind": "asmk-engine codebook", **metadata})
    return file_entry(folder, name, checksum)
