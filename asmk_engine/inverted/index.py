"""The index: a codebook and a list of segments of postings in one durable folder (see `indexes.base`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import FeatureSet, check_name
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.indexes.base import Collection, Facts
from asmk_engine.indexes.creation import make_empty
from asmk_engine.indexes.manifest import KIND, Manifest, Written
from asmk_engine.inverted.batch import Batch
from asmk_engine.inverted.merging import merge_segments
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.segment_writer import CHUNK_POSTINGS, Contents, write_segment
from asmk_engine.inverted.signatures import Signature, code_width, sign_many
from asmk_engine.inverted.snapshot import Snapshot, map_snapshot, write_codebook
from asmk_engine.iteration import Progress, counted

# A segment is written and committed when this many postings are in hand: 256 MiB of codes at 128 bits.
SEGMENT_POSTINGS = 1 << 24


class Index(Collection[Snapshot, Contents]):
    """A persistent ASMK index; see `create`, `open`, `add`, `delete` and `merge`."""

    kind = KIND
    small_segment = 1 << 15
    merge_chunk = CHUNK_POSTINGS

    @classmethod
    def create(cls, path: Path | str, codebook: Codebook, network: Path | None = None) -> Index:
        """Make an empty index in a new or empty folder; InputError when something is in the way.

        network  the file of the network that makes the features, copied into the index; it must be in the layout of
                 `arrays`, or DamagedError says what it lacks
        """
        return cls(make_empty(path, cls.kind, lambda folder: write_codebook(folder, codebook), network))

    @property
    def codebook(self) -> Codebook:
        """The codebook every image of the index went through."""
        return self._snapshot.encoder

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
        return self._add(features, existing, prune, remove, segment_postings, on_image)

    def add_signatures(
        self, images: Iterable[tuple[str, Signature]], *, segment_postings: int = SEGMENT_POSTINGS
    ) -> int:
        """Add images that were signed elsewhere, with this codebook and one assignment; returns how many.

        Raises InputError for a name that is there already and MismatchError for another code size; what was committed
        before stays.
        """
        with self._writing():
            before = self.images
            checked = ((name, self._check_new(name, signature), 0, 0) for name, signature in images)
            for contents in self._gathered(checked, segment_postings):
                self._commit(contents, (), {})
                del contents  # or it would stay in memory while the next one grows
        return self.images - before

    def add_contents(self, contents: Contents) -> None:
        """Add postings that are at hand as one segment; raises as `add_signatures`, and then nothing changed."""
        width = code_width(self.codebook.dim)
        if contents.codes.shape != (len(contents.words), width):
            raise MismatchError(f"codes are {contents.codes.shape}, the index takes [m, {width}]")
        self._add_segment(contents)

    def _check_new(self, name: str, signature: Signature) -> Signature:
        if check_name(name) in self:
            raise InputError(f"{self.path}: there already: {name!r}; names must be unique")
        width = code_width(self.codebook.dim)
        if signature.codes.shape != (len(signature), width):
            raise MismatchError(f"{name}: codes are {signature.codes.shape}, the index takes [m, {width}]")
        return signature

    def merge(self, *, chunk_postings: int = CHUNK_POSTINGS) -> int:
        """Join all segments into one and give back the space of deleted images; returns how many there were.

        chunk_postings  how many postings are held in memory at a time
        """
        return self._merge(chunk_postings)

    def _map(self, manifest: Manifest, known: Snapshot | None) -> Snapshot:
        return map_snapshot(self._folder, manifest, known)

    def _check_fits(self, features: FeatureSet) -> None:
        check_fits(features, self.codebook, self.path)

    def _batches(
        self, features: FeatureSet, wanted: Sequence[str], facts: Facts, room: int, on_image: Progress | None
    ) -> Iterator[Contents]:
        signed = counted(sign_many(features.images(wanted), self.codebook), len(wanted), on_image)
        return self._gathered(((name, signature, *facts(name)) for name, signature in signed), room)

    def _gathered(self, images: Iterable[tuple[str, Signature, int, int]], room: int) -> Iterator[Contents]:
        """Names with signatures, fingerprints and roots as segments, each as soon as it has so many postings."""
        batch = Batch(code_width(self.codebook.dim))
        for image in images:
            batch.append(*image)
            if batch.postings >= room:
                yield batch.contents()
                batch = Batch(batch.width)
        if batch.names:
            yield batch.contents()

    def _write(self, name: str, contents: Contents) -> Written:
        return write_segment(self._folder, name, contents, self.codebook.words)

    def _join(self, name: str, joined: Sequence[Segment], chunk: int) -> Written:
        return merge_segments(self._folder, name, joined, self.codebook.words, chunk_postings=chunk)


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
