"""Read-only check of an index: all checksums and all invariants."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkError, DamagedError, MismatchError, NotFoundError
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.segment import GlobalSegment, map_global_segment, vector_problems
from asmk_engine.flat.snapshot import read_codec
from asmk_engine.fused.kinds import FeatureKind
from asmk_engine.fused.snapshot import FusedSegment, Fusion, map_fused_segment, map_part, map_table, read_fusion
from asmk_engine.indexes.calibrations import NAME as CALIBRATION
from asmk_engine.indexes.calibrations import read_calibration
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.manifest import (
    FUSED_KIND,
    GLOBAL_KIND,
    KIND,
    NAMES,
    FileEntry,
    Manifest,
    SegmentEntry,
    read_copies,
    read_manifest,
)
from asmk_engine.indexes.neighbours import commit_of, map_neighbours, table_name
from asmk_engine.indexes.shard_marker import MARKER
from asmk_engine.indexes.snapshot import check_network, read_deleted, read_moved
from asmk_engine.inverted.segment import LIST_DIGESTS, RANGE_BITS, Segment, range_images
from asmk_engine.inverted.snapshot import map_segment, read_codebook
from asmk_engine.kernels import elias_fano, match
from asmk_engine.maintenance.geometry_check import damaged_geometry, without_geometry
from asmk_engine.storage.arrays import map_arrays
from asmk_engine.storage.folder import LOCK, Folder

# Postings checked at a time: 64 MiB of codes at 128 bits.
CHUNK_POSTINGS = 1 << 22
UNKNOWN_ROOTS = "names roots of images that are not in the manifest; they count as unknown"
_NUMBER = re.compile(r"(?:segment|geometry|deleted|moved)-(\d+)[-.]")


@dataclass(frozen=True)
class Finding:
    """A result of a check, about one file of an index.

    file  its name in the folder
    what  one sentence
    kind  `damage`: the file cannot be used; `contradiction`: it is intact, but contradicts other files; `note`: a
          harmless leftover of an interrupted writer
    """

    file: str
    what: str
    kind: str = "damage"


@dataclass(frozen=True)
class CheckReport:
    """The findings of a check; `manifest` is None if no copy of it is intact."""

    path: Path
    fast: bool
    manifest: Manifest | None
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether there are no findings except notes."""
        return all(finding.kind == "note" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        manifest = self.manifest
        entries = manifest.files() if manifest else []
        return {
            "path": str(self.path),
            "clean": self.clean,
            "fast": self.fast,
            "commit": manifest.commit if manifest else None,
            "images": sum(e.images - e.deleted_images for e in manifest.segments) if manifest else None,
            "files": len(entries),
            "bytes": sum(entry.bytes for entry in entries),
            "findings": [vars(finding) for finding in self.findings],
        }


def check_index(path: Path | str, *, fast: bool = False) -> CheckReport:
    """Check the last commit of an index, also while it is being read or written.

    Raises NotFoundError or FormatError if there is no index.

    fast  skip the checks that read all codes and image numbers: their checksums, and the order of the lists
    """
    folder = Folder(path)
    while True:
        try:
            manifest = read_manifest(folder)
        except DamagedError as error:
            return CheckReport(folder.path, fast, None, (Finding(NAMES[0], _said(error, folder)),))
        findings = [*check_copies(folder, manifest), *check_commit(folder, manifest, fast=fast)]
        findings += [*check_neighbours(folder, manifest), *check_calibration(folder, manifest)]
        if read_manifest(folder).commit == manifest.commit:
            return CheckReport(folder.path, fast, manifest, tuple(findings))


def check_copies(folder: Folder, manifest: Manifest) -> Iterator[Finding]:
    """Check the two copies of the manifest, and list files that belong to no commit."""
    found, problems = read_copies(folder)
    for name, error in problems.items():
        if isinstance(error, NotFoundError) and manifest.commit == 1:  # creation may stop between the two copies
            yield Finding(name, "missing; the other copy is used, and the next change writes it", "note")
        else:
            yield Finding(name, _said(error, folder))
    for name, copy in found.items():
        if copy.commit != manifest.commit and copy.identity == manifest.identity:
            what = f"has commit {copy.commit}, the last is {manifest.commit}; the next change updates it"
            yield Finding(name, what, "note")
        elif copy != manifest:
            what = f"differs from the other copy of commit {manifest.commit}; one of them belongs to another index"
            yield Finding(name, what, "contradiction")
    known = {*NAMES, LOCK, CALIBRATION, MARKER, *(entry.name for entry in manifest.files())}
    for name in folder.names():
        if name not in known and commit_of(name) != manifest.commit:
            yield Finding(name, "belongs to no commit", "note")


def check_neighbours(folder: Folder, manifest: Manifest) -> Iterator[Finding]:
    """Check the neighbour table of a commit, and list the pieces of one that is not complete."""
    name = table_name(manifest.commit)
    for other in folder.names():
        if commit_of(other) == manifest.commit and other != name:
            what = "a piece of a neighbour table; `asmk-engine neighbours` completes it, the next change removes it"
            yield Finding(other, what, "note")
    if name not in folder.names():
        return
    try:
        table = map_neighbours(folder, manifest)
        if table is None:
            yield Finding(name, "of another index; `asmk-engine neighbours` replaces it", "note")
        else:
            table.verify()
    except AsmkError as error:
        yield Finding(name, _said(error, folder))


def check_calibration(folder: Folder, manifest: Manifest) -> Iterator[Finding]:
    """Check the calibration of an index, if it has one."""
    try:
        read_calibration(folder, manifest)
    except MismatchError as error:
        yield Finding(CALIBRATION, _said(error, folder), "contradiction")
    except AsmkError as error:
        yield Finding(CALIBRATION, _said(error, folder))


def check_commit(folder: Folder, manifest: Manifest, *, fast: bool = False) -> Iterator[Finding]:
    """Check all files that a manifest lists."""
    names = [entry.name for entry in manifest.files()]
    for name, times in Counter(names).items():
        if times > 1 or number_of(name) >= manifest.next:
            yield Finding(name, "listed twice in the manifest, or numbered too high", "contradiction")
    kind, encoder = KINDS[manifest.kind], None
    try:
        encoder = kind.read_encoder(folder, manifest)
    except AsmkError:
        yield from _encoder_findings(folder, manifest)
    for network in manifest.networks:
        try:
            check_network(folder, network)
        except AsmkError as error:
            yield Finding(network.name, _said(error, folder))
    segments: list[ImageTable] = []
    for entry in manifest.segments:
        try:
            read_moved(folder, entry)
        except AsmkError as error:
            yield Finding(entry.moved.name if entry.moved else entry.file.name, _said(error, folder))
            entry = replace(entry, moved=None)
        damaged = damaged_geometry(folder, entry, encoder, fast)
        yield from (Finding(name, _said(error, folder)) for name, error in damaged.items())
        entry = without_geometry(entry, damaged)
        try:
            read_deleted(folder, entry)
        except AsmkError as error:
            yield Finding(entry.deleted.name if entry.deleted else entry.file.name, _said(error, folder))
            continue  # `repair` checks the segment without its deletions
        try:
            if encoder is None:
                for file in (entry.file, *(part.file for part in entry.kinds)):
                    map_arrays(folder, file.name, file.checksum).verify()
            else:
                segment = kind.map_segment(folder, entry, encoder)
                kind.check_segment(segment, encoder, fast)
                segments.append(segment)
                if int(segment.root_numbers.max(initial=0)) > len(manifest.roots):
                    yield Finding((entry.moved or entry.file).name, UNKNOWN_ROOTS, "contradiction")
        except AsmkError as error:
            yield Finding(_damaged_file(entry, error), _said(error, folder))
    yield from _repeated_names(segments)


def _encoder_findings(folder: Folder, manifest: Manifest) -> Iterator[Finding]:
    """Check the codebook or codec, or all of them."""
    kinds = [(entry.kind, entry.encoder) for entry in manifest.kinds] or [(manifest.kind, manifest.encoder)]
    for kind, entry in kinds:
        try:
            READERS[kind](folder, entry)
        except AsmkError as error:
            yield Finding(entry.name, _said(error, folder))


def _damaged_file(entry: SegmentEntry, error: AsmkError) -> str:
    """Return the file of a segment that an error names; that of the images if it names none."""
    names = [part.file.name for part in entry.kinds]
    return next((name for name in names if name in str(error)), entry.file.name)


def number_of(name: str) -> int:
    """Return the number in the name of a file of a segment, geometry, deletions or roots, -1 for other files."""
    match = _NUMBER.match(name)
    return int(match[1]) if match else -1


def _check_postings(segment: Segment, codebook: Codebook, fast: bool) -> None:
    more = () if fast else _posting_problems(segment, codebook.dim)
    _check_segment(segment, itertools.chain(_table_problems(segment), _name_problems(segment), more), fast)


def _check_vectors(segment: GlobalSegment, codec: Codec, fast: bool) -> None:
    _check_segment(segment, itertools.chain(_name_problems(segment), () if fast else vector_problems(segment)), fast)


def _check_segment(segment: ImageTable, problems: Iterator[str], fast: bool) -> None:
    if not fast:
        segment.file.verify()
    segment.file.verified("fingerprints")
    for problem in problems:
        raise DamagedError(f"{segment.path}: {problem}; restore a copy, or index the images again")


def _check_fused(segment: FusedSegment, fusion: Fusion, fast: bool) -> None:
    """Check the table of images and every part; what a part repeats of the table is checked once."""
    _check_segment(segment, _name_problems(segment), fast)
    for kind, part in zip(fusion.kinds, segment.parts, strict=True):
        _check_part(part, kind, fast)


def _check_part(part: Segment | GlobalSegment, kind: FeatureKind, fast: bool) -> None:
    if isinstance(part, Segment):
        more = () if fast else _posting_problems(part, kind.encoder.dim)
        _check_segment(part, itertools.chain(_table_problems(part), more), fast)
    else:
        _check_segment(part, iter(()) if fast else vector_problems(part), fast)


def damaged_kinds(folder: Folder, entry: SegmentEntry, fusion: Fusion) -> tuple[FusedSegment, dict[int, str]]:
    """Check the parts of a segment of a fused index one by one.

    Returns its table of images, and by the number of each damaged kind what is wrong. Raises an AsmkError if the table
    itself is damaged.
    """
    table = map_table(folder, entry)
    _check_segment(table, _name_problems(table), False)
    found = {}
    for number, (kind, stored) in enumerate(zip(fusion.kinds, entry.kinds, strict=True)):
        try:
            file = map_arrays(folder, stored.file.name, stored.file.checksum)
            _check_part(map_part(table, kind, file, stored), kind, False)
        except AsmkError as error:
            found[number] = _said(error, folder)
    return table, found


@dataclass(frozen=True)
class Kind:
    """The functions that check one kind of index.

    read_encoder   reads what `map_segment` needs to know of a commit; raises an AsmkError for damage
    map_segment    maps a segment encoded by it; likewise
    check_segment  raises DamagedError for the first problem of a segment; its last argument is `fast` of `check_index`
    """

    read_encoder: Callable[[Folder, Manifest], Any]
    map_segment: Callable[[Folder, SegmentEntry, Any], Any]
    check_segment: Callable[[Any, Any, bool], None]


READERS: dict[str, Callable[[Folder, FileEntry], Any]] = {KIND: read_codebook, GLOBAL_KIND: read_codec}
KINDS = {
    KIND: Kind(lambda folder, manifest: read_codebook(folder, manifest.encoder), map_segment, _check_postings),
    GLOBAL_KIND: Kind(
        lambda folder, manifest: read_codec(folder, manifest.encoder), map_global_segment, _check_vectors
    ),
    FUSED_KIND: Kind(read_fusion, map_fused_segment, _check_fused),
}


def _table_problems(segment: Segment) -> Iterator[str]:
    lengths = np.diff(segment.posting_starts)
    _ = segment.entry_starts  # which compares them with the number of entries
    if segment.posting_starts[0] != 0 or (lengths <= 0).any() or (lengths > 1 << RANGE_BITS).any():
        yield "posting_starts does not rise from 0 by at least one for each list"
    if segment.id_starts[0] != 0:
        yield "id_starts does not begin at 0"
    if (segment.list_words >= segment.vocabulary).any():
        yield f"list_words holds a word of {segment.vocabulary} or more"
    for r in range(segment.ranges):
        first, last = int(segment.range_starts[r]), int(segment.range_starts[r + 1])
        if (np.diff(segment.list_words[first:last].astype(np.int64)) <= 0).any():
            yield f"the words of range {r} do not increase"
        sizes = elias_fano.list_starts(lengths[first:last], range_images(r, segment.entries))
        if not np.array_equal(np.diff(segment.id_starts[first : last + 1]), np.diff(sizes)):
            yield f"the lists of range {r} are not as long as their image numbers"
    if int(segment.entry_word_counts.sum(dtype=np.int64)) != segment.postings:
        yield "word_counts and the number of postings differ"


def _name_problems(segment: ImageTable) -> Iterator[str]:
    names = [segment.name_as_bytes(number) for number in range(segment.images)]
    for number in range(segment.images):
        if not segment.name(number) or "\0" in segment.name(number):
            yield f"the name of image {number} is empty or holds a NUL character"
    if sum(map(len, names)) != len(segment.file.arrays["name_bytes"]):
        yield "name_offsets leaves out a part of the names"
    order = segment.name_order.tolist()
    if sorted(order) != list(range(segment.images)):
        yield "name_order does not hold every image once"
    elif any(names[one] >= names[other] for one, other in itertools.pairwise(order)):
        yield "the names are not in order, or one of them occurs twice"


def _posting_problems(segment: Segment, dim: int) -> Iterator[str]:
    """Check that image numbers increase, are in range and match word_counts, and that no bit beyond the last is set."""
    counts = np.zeros(segment.entries, np.int64)
    for first, last, r in _chunks(segment):
        begin = r << RANGE_BITS
        starts = segment.posting_starts[first : last + 1]
        rows = slice(int(starts[0]), int(starts[-1]))
        numbers = np.empty(rows.stop - rows.start, np.uint32)
        universe = range_images(r, segment.entries)
        tables = starts - starts[0], segment.id_starts[first : last + 1]
        damaged = elias_fano.decode(segment.ids, *tables, universe, numbers)
        if damaged >= 0:
            yield f"list {first + damaged} does not hold increasing image numbers of its range"
            return
        counts[begin : begin + universe] += np.bincount(numbers, minlength=universe)
        if dim % 64 and (segment.codes[rows, -1] >> np.uint64(dim % 64)).any():
            yield f"a code has a bit beyond the last of {dim}"
        if (problem := _digest_problem(segment, first, last)) is not None:
            yield problem
    if not np.array_equal(counts, segment.entry_word_counts):
        yield "word_counts and the postings of the images differ"
    if segment.ids[len(segment.ids) - elias_fano.PADDING :].any():
        yield "there is data after the last list"


def _digest_problem(segment: Segment, first: int, last: int) -> str | None:
    if LIST_DIGESTS not in segment.file.arrays:
        return None
    found = np.empty(last - first, np.uint32)
    tables = segment.posting_starts[first : last + 1], segment.id_starts[first : last + 1]
    match.digest_lists(*tables, segment.ids, segment.codes, found)
    different = np.flatnonzero(found != segment.file.arrays[LIST_DIGESTS][first:last])
    return f"list {first + int(different[0])} and its digest differ" if len(different) else None


def _chunks(segment: Segment) -> Iterator[tuple[int, int, int]]:
    """Divide the lists into chunks of at most CHUNK_POSTINGS postings, or one list; yields first, last and range."""
    for r in range(segment.ranges):
        first, end = int(segment.range_starts[r]), int(segment.range_starts[r + 1])
        while first < end:
            limit = segment.posting_starts[first] + CHUNK_POSTINGS
            last = int(np.searchsorted(segment.posting_starts, limit, side="right")) - 1
            last = min(max(last, first + 1), end)
            yield first, last, r
            first = last


def _repeated_names(segments: list[ImageTable]) -> Iterator[Finding]:
    names: set[str] = set()
    for segment in segments:
        own = {*segment.names()}
        for name in sorted(names & own)[:1]:
            what = f"repeats {len(names & own)} images of an earlier segment, such as {name!r}"
            yield Finding(segment.path.name, what, "contradiction")
        names |= own


def _said(error: AsmkError, folder: Folder) -> str:
    """Return the message without the path, which the finding has."""
    return re.sub(f"^{re.escape(str(folder.path))}[^:]*: ", "", str(error))
