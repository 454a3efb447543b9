"""The manifest of an index, which lists the files of the current commit with sizes and checksums.

It is a JSON file, kept in two identical copies and replaced as the last step of a commit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, NotFoundError
from asmk_engine.images.roots import Root
from asmk_engine.regions.options import RegionOptions
from asmk_engine.storage.folder import Folder, decode_manifest

KIND = "asmk-engine index"
GLOBAL_KIND = "asmk-engine global index"
FUSED_KIND = "asmk-engine fused index"
SHARDED_KIND = "asmk-engine sharded index"
"""The kind of a folder of several indexes that are searched as one, see `sharding.manifest`."""
FORMATS = (1, 2, 3, 4)
"""The supported formats. Format 2 adds roots, format 3 geometry, which a program that does not know them would lose,
and format 4 regions, which it would score wrongly."""
NAMES = ("manifest.json", "manifest.copy.json")
# The key of the encoder in the manifest, and its name in messages, by the kind of index.
_ENCODERS = {KIND: "codebook", GLOBAL_KIND: "codec"}
_ENCODER_NAMES = {**_ENCODERS, FUSED_KIND: "set of codebooks and codecs"}
# A valid file name; anything else in a manifest could point outside the folder.
_FILE = re.compile(r"[a-z]+(?:[-.][a-z0-9]+)*\.safetensors")


@dataclass(frozen=True)
class FileEntry:
    """A file of the index: name, size in bytes, and the crc32 of the checksums in it."""

    name: str
    bytes: int
    checksum: int

    @classmethod
    def of(cls, folder: Folder, name: str, checksum: int) -> FileEntry:
        """Return the entry of a file that was just written."""
        return cls(name, folder.size(name), checksum)


@dataclass(frozen=True)
class KindFile:
    """The file that a segment of a fused index has for one kind of features, its postings or vectors, its geometry."""

    file: FileEntry
    entries: int
    geometry: FileEntry | None = None


@dataclass(frozen=True)
class KindEntry:
    """A kind of features in a fused index.

    name     the extractor as it was given, unique in the index
    weight   weight in the fused score
    kind     KIND for local features, GLOBAL_KIND for global descriptors
    encoder  the file of its codebook or codec
    network  the file of the network that makes the features, if the index contains one
    """

    name: str
    weight: float
    kind: str
    encoder: FileEntry
    network: FileEntry | None = None


@dataclass(frozen=True)
class Written:
    """A segment that was written: the crc32 of its checksums, and its images and entries as in `SegmentEntry`.

    kinds     in a fused index, the files of the kinds of features, which are written with the table of images
    geometry  the file of the geometry, if there is one
    """

    checksum: int
    images: int
    entries: int
    kinds: tuple[KindFile, ...] = ()
    geometry: FileEntry | None = None


@dataclass(frozen=True)
class SegmentEntry:
    """A segment: its file, the numbers of images and entries, and the files that record deletions and moved images.

    entries   number of postings, of vectors in a global index, or of both in a fused index
    moved     root numbers of all images, if one was found under another root than recorded in the segment
    kinds     the files of the kinds of features of a fused index, where `file` has only the table of images
    geometry  the places and codes of the features, if they are kept; those of a fused index are in `kinds`
    """

    file: FileEntry
    images: int
    entries: int
    deleted: FileEntry | None = None
    deleted_images: int = 0
    moved: FileEntry | None = None
    kinds: tuple[KindFile, ...] = ()
    geometry: FileEntry | None = None

    @property
    def geometries(self) -> list[FileEntry]:
        """The files of geometry, of the segment or of its kinds of features."""
        return [file for file in (self.geometry, *(part.geometry for part in self.kinds)) if file]


@dataclass(frozen=True)
class Manifest:
    """One commit of an index.

    identity      random identifier drawn at creation, constant for the life of the index
    encoder       the file of the codebook, or of the codec in a global index; in a fused index that of the first kind
    commit        1 for the empty index, incremented with each change
    next          the number of the next file
    features      paths of the feature sets when they were added, the last at the end
    images_roots  paths of the image folders, likewise
    roots         the roots of the images, numbered from 1; never removed
    beside        for each path of these three, the path relative to the folder that contains the index
    network       the file of the network that makes the features, if the index contains one
    kind          KIND for local features, GLOBAL_KIND for global descriptors, FUSED_KIND for several kinds of features
    kinds         the kinds of features of a fused index, in the order of their files in the segments
    geometry      the number of features of an image whose geometry is kept when it is added; None keeps none
    regions       how images are described by regions; None if they are not
    """

    identity: str
    made_by: str
    encoder: FileEntry
    commit: int = 1
    next: int = 1
    segments: tuple[SegmentEntry, ...] = ()
    features: tuple[str, ...] = ()
    images_roots: tuple[str, ...] = ()
    network: FileEntry | None = None
    kind: str = KIND
    roots: tuple[Root, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)
    kinds: tuple[KindEntry, ...] = ()
    geometry: int | None = None
    regions: RegionOptions | None = None

    @property
    def encoder_name(self) -> str:
        """The name of the encoder for this kind of index in messages, such as `codebook` or `codec`."""
        return _ENCODER_NAMES[self.kind]

    @property
    def encoders(self) -> list[FileEntry]:
        """The entries of the codebook or codec, or of all of them in a fused index."""
        return [one.encoder for one in self.kinds] or [self.encoder]

    @property
    def networks(self) -> list[FileEntry]:
        """The entries of the networks in the index, each once."""
        found = [self.network, *(one.network for one in self.kinds)]
        return list(dict.fromkeys(entry for entry in found if entry))

    def files(self) -> list[FileEntry]:
        """Return the entries of all files of the commit."""
        others = [(segment.deleted, segment.moved, *segment.geometries) for segment in self.segments]
        changes = [entry for some in others for entry in some if entry]
        parts = [part.file for segment in self.segments for part in segment.kinds]
        return [*self.encoders, *self.networks, *(segment.file for segment in self.segments), *parts, *changes]

    def following(self, **changes: Any) -> Manifest:
        """Return the manifest of the next commit, with these fields changed."""
        return replace(self, commit=self.commit + 1, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the manifest file."""
        content = {key: getattr(self, key) for key in ("identity", "made_by", "commit", "next")}
        content |= {"features": list(self.features), "images_roots": list(self.images_roots)}
        if self.network is not None:  # optional keys are left out, as in manifests of early versions
            content["network"] = vars(self.network)
        if self.roots:
            content["roots"] = [[root.folder, root.prefix] for root in self.roots]
        if self.beside:
            content["beside"] = self.beside
        if self.geometry is not None:
            content["geometry"] = self.geometry
        if self.regions is not None:
            content["regions"] = self.regions.to_json()
        segments = [_segment_to_json(segment) for segment in self.segments]
        kind = {"kind": self.kind, "format": self._format()}
        return {**kind, **self._encoders_to_json(), "segments": segments, **content}

    def _format(self) -> int:
        if self.regions is not None:
            return 4
        if self.geometry is not None or any(segment.geometries for segment in self.segments):
            return 3
        return 2 if self.roots else 1

    def _encoders_to_json(self) -> dict[str, Any]:
        if self.kind == FUSED_KIND:
            return {"kinds": [_kind_to_json(one) for one in self.kinds]}
        return {_ENCODERS[self.kind]: vars(self.encoder)}


def _segment_to_json(segment: SegmentEntry) -> dict[str, Any]:
    return {
        "file": vars(segment.file),
        "images": segment.images,
        "postings": segment.entries,  # the name in the file for all kinds
        "deleted": vars(segment.deleted) if segment.deleted else None,
        "deleted_images": segment.deleted_images,
        **({"moved": vars(segment.moved)} if segment.moved else {}),
        **({"kinds": [_part_to_json(part) for part in segment.kinds]} if segment.kinds else {}),
        **({"geometry": vars(segment.geometry)} if segment.geometry else {}),
    }


def _part_to_json(part: KindFile) -> dict[str, Any]:
    geometry = {"geometry": vars(part.geometry)} if part.geometry else {}
    return {"file": vars(part.file), "postings": part.entries, **geometry}


def _kind_to_json(one: KindEntry) -> dict[str, Any]:
    network = {"network": vars(one.network)} if one.network else {}
    return {"name": one.name, "weight": one.weight, _ENCODERS[one.kind]: vars(one.encoder), **network}


def read_manifest(folder: Folder) -> Manifest:
    """Read the newest intact copy of the manifest in a folder.

    Raises NotFoundError if there is no index, FormatError for another kind of content or a newer format, and
    DamagedError if neither copy is intact.
    """
    if not folder.path.exists():
        raise NotFoundError(f"{folder.path}: no such index; make one with `asmk-engine index IMAGES -o {folder.path}`")
    found, problems = read_copies(folder)
    if found:
        return max(found.values(), key=lambda manifest: manifest.commit)
    telling = [problem for problem in problems.values() if not isinstance(problem, NotFoundError)]
    if telling:
        raise telling[0]
    raise FormatError(
        f"{folder.path}: not an index, since it has no {NAMES[0]}; expected a folder from `asmk-engine index`"
    )


def read_copies(folder: Folder) -> tuple[dict[str, Manifest], dict[str, AsmkError]]:
    """Read both copies of the manifest: the intact ones by file name, and the errors of the others.

    Raises FormatError as `read_manifest`.
    """
    found: dict[str, Manifest] = {}
    problems: dict[str, AsmkError] = {}
    for name in NAMES:
        try:
            content = decode_manifest(bytes(folder.map(name)), folder.path / name)
            found[name] = manifest_of(content, folder.path / name)
        except FormatError:
            raise
        except AsmkError as error:
            problems[name] = error
    return found, problems


def manifest_of(content: dict[str, Any], path: Path) -> Manifest:
    """Return the manifest whose content was read from `path`; raises FormatError or DamagedError."""
    kind = content["kind"]
    if kind == SHARDED_KIND:
        raise FormatError(f"{path.parent}: a sharded index, expected a single one; give one of the shards in it")
    if kind not in _ENCODER_NAMES:
        raise FormatError(f"{path}: this is {kind!r}, not an index of asmk-engine")
    if content.get("format") not in FORMATS:
        raise FormatError(
            f"{path}: index format {content.get('format')!r}, this version reads {FORMATS[-1]} and below; "
            "update asmk-engine, or index again"
        )
    try:
        kinds = tuple(_kind(entry) for entry in content["kinds"]) if kind == FUSED_KIND else ()
        return Manifest(
            identity=_text(content["identity"]),
            made_by=_text(content["made_by"]),
            encoder=kinds[0].encoder if kind == FUSED_KIND else _file(content[_ENCODERS[kind]]),
            commit=_number(content["commit"]),
            next=_number(content["next"]),
            segments=tuple(_segment(entry, kind, kinds) for entry in content["segments"]),
            features=tuple(map(_text, content["features"])),
            images_roots=tuple(map(_text, content["images_roots"])),
            network=_file(content["network"]) if "network" in content else None,
            kind=kind,
            roots=tuple(Root(_text(folder), _text(prefix)) for folder, prefix in content.get("roots", [])),
            beside={_text(place): _text(way) for place, way in dict(content.get("beside", {})).items()},
            kinds=kinds,
            geometry=_number(content["geometry"]) if "geometry" in content else None,
            regions=_regions(content["regions"], kind) if "regions" in content else None,
        )
    except (KeyError, TypeError, ValueError, IndexError, InputError) as error:
        raise DamagedError(f"{path}: an entry is missing or invalid ({error}); restore a copy") from None


def _kind(entry: dict[str, Any]) -> KindEntry:
    kind = next((kind for kind, key in _ENCODERS.items() if key in entry), None)
    if kind is None:
        raise ValueError("a kind of features has neither a codebook nor a codec")
    network = _file(entry["network"]) if "network" in entry else None
    return KindEntry(_text(entry["name"]), _weight(entry["weight"]), kind, _file(entry[_ENCODERS[kind]]), network)


def _segment(entry: dict[str, Any], kind: str, kinds: tuple[KindEntry, ...]) -> SegmentEntry:
    deleted = _file(entry["deleted"]) if entry["deleted"] is not None else None
    images, entries, gone = (_number(entry[key]) for key in ("images", "postings", "deleted_images"))
    moved = _file(entry["moved"]) if "moved" in entry else None
    parts = tuple(map(_part, entry.get("kinds", ())))
    if len(parts) != len(kinds):
        raise ValueError(f"a segment has files of {len(parts)} kinds of features, the index has {len(kinds)}")
    geometry = _file(entry["geometry"]) if "geometry" in entry else None
    placed = [(kind, geometry), *((one.kind, part.geometry) for one, part in zip(kinds, parts, strict=True))]
    if any(file and owner != KIND for owner, file in placed):
        raise ValueError("a segment has geometry of features that have no words")
    return SegmentEntry(_file(entry["file"]), images, entries, deleted, gone, moved, parts, geometry)


def _regions(content: dict[str, Any], kind: str) -> RegionOptions:
    if kind != KIND:
        raise ValueError("an index that is not one of local features has regions")
    return RegionOptions.from_json(content)


def _part(entry: dict[str, Any]) -> KindFile:
    geometry = _file(entry["geometry"]) if "geometry" in entry else None
    return KindFile(_file(entry["file"]), _number(entry["postings"]), geometry)


def _file(entry: dict[str, Any]) -> FileEntry:
    name = _text(entry["name"])
    if not _FILE.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid file name of an index")
    return FileEntry(name, _number(entry["bytes"]), _number(entry["checksum"]))


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"found {value!r}, expected a count")
    return value


def _weight(value: object) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and value >= 0):  # type: ignore[arg-type,operator]
        raise ValueError(f"found {value!r}, expected a weight of 0 or more")
    return float(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r}, expected text")
    return value
