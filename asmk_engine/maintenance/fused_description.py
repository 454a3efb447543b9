"""Description of a fused index: content, size and origin, of each kind of features and of all together."""

from __future__ import annotations

from typing import Any

import numpy as np

from asmk_engine.flat.codec import Codec
from asmk_engine.fused.index import FusedIndex
from asmk_engine.images.roots import listed_roots
from asmk_engine.indexes.manifest import KIND, NAMES
from asmk_engine.maintenance.calibration_facts import calibration_bytes, describe_calibration
from asmk_engine.maintenance.extractor_facts import describe_extractor
from asmk_engine.maintenance.geometry_description import describe_geometry
from asmk_engine.maintenance.neighbour_facts import describe_neighbours, neighbour_bytes
from asmk_engine.storage.folder import Folder


def describe_fused(index: FusedIndex) -> dict[str, Any]:
    """Describe a fused index, as JSON values: images, bytes by part, origin, and `kinds` with what each kind has.

    `words`, `postings` and `bytes_per_posting` are None, since each kind has its own. bytes_per_image is the size of
    all files except codebooks, codecs, networks, the neighbour table and the calibration, per image on disk, and that
    of a kind the size of its own files.
    """
    manifest = index.snapshot.manifest
    stored = sum(entry.images for entry in manifest.segments)
    kinds = [_kind(index, number, stored) for number in range(len(manifest.kinds))]
    parts = _bytes_by_part(index, kinds)
    size = sum(parts.values())
    beside = parts.get("neighbours", 0) + parts.get("calibration", 0)
    own = size - parts["codebooks"] - parts["networks"] - beside
    return {
        "kind": "fused index",
        "path": str(index.path),
        "images": index.images,
        "words": None,
        "postings": None,
        "bytes": size,
        "bytes_per_posting": None,
        "bytes_per_image": own / stored if stored else None,
        "bytes_by_part": parts,
        "empty_images": len(empty_images(index)),
        "neighbours": describe_neighbours(Folder(index.path), manifest),
        "calibration": describe_calibration(Folder(index.path), manifest),
        "deleted_images": sum(entry.deleted_images for entry in manifest.segments),
        "segments": len(manifest.segments),
        "kinds": kinds,
        **{key: getattr(manifest, key) for key in ("identity", "commit", "made_by")},
        **{key: list(getattr(manifest, key)) for key in ("features", "images_roots")},
        "roots": listed_roots(index.snapshot.root_counts()),
    }


def empty_images(index: FusedIndex) -> list[str]:
    """List the names of the images without features of any kind, in byte order."""
    names = []
    for segment in index.snapshot.segments:
        kinds = zip(index.snapshot.encoder.kinds, segment.parts, strict=True)
        lacking = np.logical_and.reduce([kind.lacks(part) for kind, part in kinds])
        names += [segment.name(number) for number in segment.live_numbers().tolist() if lacking[number]]
    return sorted(names, key=str.encode)


def _kind(index: FusedIndex, number: int, stored: int) -> dict[str, Any]:
    """Describe one kind of features; `stored` is the number of images on disk."""
    manifest, kind = index.snapshot.manifest, index.snapshot.encoder.kinds[number]
    files = [entry.kinds[number] for entry in manifest.segments]
    size = sum(part.file.bytes for part in files)
    lacking = sum(
        int(np.count_nonzero(kind.lacks(segment.parts[number])[segment.live_numbers()]))
        for segment in index.snapshot.segments
    )
    entry = manifest.kinds[number]
    return {
        "name": entry.name,
        "weight": entry.weight,
        "images": index.images - lacking,
        "bytes": size,
        "bytes_per_image": size / stored if stored else None,
        "encoder_bytes": entry.encoder.bytes,
        **_encoder(kind.encoder, sum(part.entries for part in files)),
        "recipe": kind.recipe.as_dict(),
        "geometry": _geometry(index, number),
        "extractor": describe_extractor(kind.recipe, index.kind_network(number)),
        "training": kind.encoder.training if isinstance(kind.encoder.training, dict) else {},
        "fingerprint": kind.fingerprint,
    }


def _geometry(index: FusedIndex, number: int) -> dict[str, Any] | None:
    """Describe the geometry of a kind of local features; None for global descriptors, or if there is none."""
    if index.snapshot.manifest.kinds[number].kind != KIND:
        return None
    return describe_geometry(index.snapshot.manifest, index.snapshot.views[number].segments)


def _encoder(encoder: Any, entries: int) -> dict[str, Any]:
    """Describe what a kind stores: words, postings and bits of a code, or dimensions and precision of a vector."""
    if isinstance(encoder, Codec):
        return {"words": None, "postings": None, "bits": None, "dim": encoder.dim, "precision": encoder.precision}
    return {"words": encoder.words, "postings": entries, "bits": encoder.dim, "dim": encoder.dim, "precision": None}


def _bytes_by_part(index: FusedIndex, kinds: list[dict[str, Any]]) -> dict[str, int]:
    """Return the bytes in the folder by content: `images` is their table, `leftover` belongs to no commit."""
    manifest, folder = index.snapshot.manifest, Folder(index.path)
    parts = {str(kind["name"]): int(kind["bytes"]) for kind in kinds}
    parts["images"] = sum(entry.file.bytes for entry in manifest.segments)
    if geometries := [file for entry in manifest.segments for file in entry.geometries]:
        parts["geometry"] = sum(file.bytes for file in geometries)
    changes = [file for entry in manifest.segments for file in (entry.deleted, entry.moved) if file]
    parts["deletions"] = sum(file.bytes for file in changes)
    parts["codebooks"] = sum(entry.bytes for entry in manifest.encoders)
    parts["networks"] = sum(entry.bytes for entry in manifest.networks)
    sizes = {name: folder.size(name) for name in folder.names() if (index.path / name).is_file()}
    parts["manifest"] = sum(sizes.pop(name, 0) for name in NAMES)
    parts |= neighbour_bytes(folder, manifest) | calibration_bytes(folder)
    known = sum(sizes.get(entry.name, 0) for entry in manifest.files())
    known += parts.get("neighbours", 0) + parts.get("calibration", 0)
    parts["leftover"] = sum(sizes.values()) - known
    return parts
