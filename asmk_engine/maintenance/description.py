"""Description of a feature set, a codebook or an index: content, size and origin."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.codebook import KIND as CODEBOOK
from asmk_engine.errors import FormatError, InputError, NotFoundError
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.features.network_place import network_beside
from asmk_engine.features.parts import KIND as FEATURES
from asmk_engine.flat import GlobalIndex
from asmk_engine.fused.index import FusedIndex
from asmk_engine.images.roots import listed_roots
from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND, NAMES
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.snapshot import Snapshot
from asmk_engine.maintenance.calibration_facts import calibration_bytes, describe_calibration
from asmk_engine.maintenance.extractor_facts import describe_extractor
from asmk_engine.maintenance.flat_description import describe_global
from asmk_engine.maintenance.fused_description import describe_fused, empty_images
from asmk_engine.maintenance.geometry_description import describe_geometry
from asmk_engine.maintenance.neighbour_facts import describe_neighbours, neighbour_bytes
from asmk_engine.maintenance.sharded_description import describe_sharded
from asmk_engine.search.opening import open_any
from asmk_engine.sharding.index import ShardedIndex
from asmk_engine.storage.folder import Folder, storage_errors
from asmk_engine.storage.hdf5 import open_hdf5
from asmk_engine.storage.user_files import file_sha256

# Arrays of a segment by the part under which their size is reported; the others count as `other`.
PARTS_OF_SEGMENT = {
    "codes": ("codes",),
    "ids": ("ids",),
    "tables": (
        "posting_starts",
        "id_starts",
        "list_words",
        "list_digests",
        "range_starts",
        "word_counts",
        "entry_starts",
    ),
    "names": ("name_bytes", "name_offsets", "name_order"),
    "fingerprints": ("fingerprints", "root_numbers"),
}
NOT_OF_POSTINGS = ("codebook", "network", "geometry", "neighbours", "calibration")
EXPECTED = "expected a feature set, a codebook or an index of asmk-engine"
_SIGNATURES = {
    b"\x89HDF": "an HDF5 file that is not a codebook; use `asmk-engine import` for local features of hloc",
    b"\xff\xd8\xff": "a JPEG image; use `asmk-engine index` or `extract` for images",
    b"\x89PNG": "a PNG image; use `asmk-engine index` or `extract` for images",
    b"\x80": "a pickle, which is never read",
    b"PK\x03\x04": "a zip archive; unpack it first",
}


def describe(path: Path | str) -> dict[str, Any]:
    """Describe what is at `path`, as JSON values.

    All kinds have the keys kind (`features`, `codebook`, `index`, `global index`, `fused index` or `sharded index`),
    path, bytes, and images, words, postings and bytes_per_posting, which are None if not applicable; for the others see
    `describe_features`, `describe_codebook`, `describe_index`, `describe_global`, `describe_fused` and
    `describe_sharded`. Raises NotFoundError, FormatError, which states what was found instead, or DamagedError.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "features":
        return describe_features(FeatureSet.open(path))
    if kind == "codebook":
        return describe_codebook(Codebook.open(path), path)
    index = open_any(path)
    if isinstance(index, ShardedIndex):
        return describe_sharded(index)
    if isinstance(index, FusedIndex):
        return describe_fused(index)
    return describe_global(index) if isinstance(index, GlobalIndex) else describe_index(index)


def image_names(path: Path | str) -> list[str]:
    """List the names of the images in a feature set or an index, in byte order; raises InputError for a codebook."""
    path = Path(path)
    kind = kind_of(path)
    if kind == "codebook":
        raise InputError(f"{path}: a codebook holds no images; give a feature set or an index")
    return FeatureSet.open(path).names if kind == "features" else open_any(path).names


def failures(path: Path | str) -> dict[str, str]:
    """Return the failed images with the reasons, in byte order; raises InputError unless `path` is a feature set."""
    path = Path(path)
    kind = kind_of(path)
    if kind != "features":
        article = "an index" if kind == "index" else "a codebook"
        raise InputError(f"{path}: {article} does not record skipped images; give the feature set")
    return _sorted_failures(FeatureSet.open(path))


def without_features(path: Path | str) -> list[str]:
    """List the names of the images without features, in byte order; raises InputError for a codebook."""
    path = Path(path)
    kind = kind_of(path)
    if kind == "codebook":
        raise InputError(f"{path}: a codebook holds no images; give a feature set or an index")
    if kind == "features":
        found = FeatureSet.open(path)
        return [name for name in found.names if not found.count(name)]
    index: Any = open_any(path)
    if index.kind == GLOBAL_KIND:
        return []  # every image has a vector
    if index.kind == FUSED_KIND:
        return empty_images(index)
    empty = (
        segment.name(number)
        for segment in index.snapshot.segments
        for number in segment.live_numbers().tolist()
        if not segment.word_counts[number]
    )
    return sorted(empty, key=str.encode)


def kind_of(path: Path) -> str:
    """Return `features`, `codebook` or `index`; raises NotFoundError, or FormatError, which states what was found."""
    with storage_errors(path, "read it"):
        if path.is_dir():
            return _kind_of_folder(path)
        if not path.exists():
            raise NotFoundError(f"{path}: no such file or folder; {EXPECTED}")
        if not path.is_file():
            raise FormatError(f"{path}: neither a file nor a folder; {EXPECTED}")
        return _kind_of_file(path)


def _kind_of_folder(path: Path) -> str:
    if part_names(path):
        return "features"
    held = Folder(path).names()
    if not set(NAMES).isdisjoint(held):
        return "index"
    found = f"a folder of {len(held)} other files, such as {held[0]!r}" if held else "an empty folder"
    raise FormatError(f"{path}: {found}; {EXPECTED}")


def _kind_of_file(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    kind = _hdf5_kind(path) if start.startswith(b"\x89HDF") else ""
    if kind == CODEBOOK:
        return "codebook"
    if kind == FEATURES:
        raise FormatError(f"{path}: one part of a feature set; give the folder {path.parent}")
    if path.name in NAMES or path.suffix == ".safetensors":
        raise FormatError(f"{path}: one file of an index; give the folder {path.parent}")
    found = next((text for mark, text in _SIGNATURES.items() if start.startswith(mark)), "a file of another kind")
    raise FormatError(f"{path}: {found if start else 'an empty file'}; {EXPECTED}")


def _hdf5_kind(path: Path) -> str:
    """Return the `kind` of an HDF5 file; CODEBOOK if the file does not open, so that its reader reports the error."""
    try:
        with open_hdf5(path) as file:
            return str(file.attrs.get("kind", ""))
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):
        return CODEBOOK


def describe_features(found: FeatureSet) -> dict[str, Any]:
    """Describe a feature set: images, descriptors, dim, dtype, recipe, extractor, parts, empty images, failures
    by name."""
    counts = [found.count(name) for name in found.names]
    descriptors = sum(counts)
    first = next((name for name, count in zip(found.names, counts, strict=True) if count), None)
    return {
        "kind": "features",
        "path": str(found.path),
        "images": len(found),
        "words": None,
        "postings": None,
        "bytes": found.bytes,
        "bytes_per_posting": None,
        "descriptors": descriptors,
        "descriptors_per_image": _ratio(descriptors, len(found)),
        "empty_images": counts.count(0),
        "dim": found.dim,
        "dtype": str(found.read(first).descriptors.dtype) if first is not None else None,
        "parts": len(part_names(found.path)),
        "recipe": found.recipe.as_dict(),
        "extractor": describe_extractor(found.recipe, _network_of(found)),
        "images_roots": list(dict.fromkeys(root.folder for root in found.roots())),
        "roots": listed_roots(found.root_counts()),
        "failed": len(found.failures),
        "failures": _sorted_failures(found),
    }


def _network_of(found: FeatureSet) -> Path | None:
    """Return the network next to a feature set, if it is the one that made the features."""
    place = network_beside(found.path)
    return place if found.recipe.weights and place.is_file() and file_sha256(place) == found.recipe.weights else None


def _sorted_failures(found: FeatureSet) -> dict[str, str]:
    return dict(sorted(found.failures.items(), key=lambda item: item[0].encode()))


def describe_codebook(codebook: Codebook, path: Path) -> dict[str, Any]:
    """Describe a codebook: words, dim, input_dim, assignment (`exact`, `graph`), graph, recipe, training, fingerprint.

    graph is None without graph and measurement, else
    beam, spread           of the graph; None if it was given up because it finds too few of the nearest words
    measured_beam          with which it was measured; None, with the following, if it was not measured
    descriptors            the number of held-out descriptors it was measured on
    recall_at_1, recall_at_5, enough
    """
    with storage_errors(path, "read the size"):
        size = path.stat().st_size
    return {
        "kind": "codebook",
        "path": str(path),
        "images": None,
        "words": codebook.words,
        "postings": None,
        "bytes": size,
        "bytes_per_posting": None,
        **_codebook(codebook),
    }


def _codebook(codebook: Codebook) -> dict[str, Any]:
    return {
        "dim": codebook.dim,
        "input_dim": codebook.input_dim,
        "assignment": codebook.assignment,
        "graph": _graph(codebook),
        "recipe": codebook.recipe.as_dict(),
        "training": codebook.training if isinstance(codebook.training, dict) else {},
        "fingerprint": codebook.fingerprint,
    }


def _graph(codebook: Codebook) -> dict[str, Any] | None:
    graph, recall = codebook.graph, codebook.graph_recall
    if graph is None and recall is None:
        return None
    return {
        "beam": graph.beam if graph else None,
        "spread": graph.spread if graph else None,
        "measured_beam": recall.beam if recall else None,
        "descriptors": recall.descriptors if recall else None,
        "recall_at_1": recall.recall_at_1 if recall else None,
        "recall_at_5": recall.recall_at_5 if recall else None,
        "enough": recall.is_enough if recall else None,
    }


def describe_index(index: Index) -> dict[str, Any]:
    """Describe an index: counts, sizes and origin.

    images, live_postings, words_per_image, empty_images   of the images that are not deleted
    postings              on disk, including those of deleted images until `merge`
    bytes                 of all files in the folder, divided up in bytes_by_part
    bytes_per_posting     of all files except the codebook, the network, the geometry, the neighbour table and the
                          calibration, per posting on disk
    id_bytes_per_posting  of the image numbers only
    neighbours            of the neighbour table, see `describe_neighbours`; None if there is none
    calibration           see `describe_calibration`; None if there is none
    imbalance             K Σ n² / (Σ n)² over the live list lengths n: 1 if all words are equally frequent; the factor
                          by which uneven lists slow down a search (imbalance_factor of faiss)
    geometry              None if none is kept, else see `describe_geometry`
    regions               None if images are not described by regions, else mode, levels, least_score, and entries, the
                          number of images and separate regions that are not deleted
    """
    snapshot = index.snapshot
    parts, postings = bytes_by_part(index), index.postings
    size = sum(parts.values())
    apart = sum(parts.get(part, 0) for part in NOT_OF_POSTINGS)
    return {
        "kind": "index",
        "path": str(index.path),
        "images": snapshot.images,
        "words": index.codebook.words,
        "postings": postings,
        "bytes": size,
        "bytes_per_posting": _ratio(size - apart, postings),
        "id_bytes_per_posting": _ratio(parts["ids"], postings),
        "bytes_by_part": parts,
        "neighbours": describe_neighbours(Folder(index.path), snapshot.manifest),
        "calibration": describe_calibration(Folder(index.path), snapshot.manifest),
        **_statistics(snapshot),
        "deleted_images": sum(entry.deleted_images for entry in snapshot.manifest.segments),
        "segments": len(snapshot.segments),
        "bits": index.codebook.dim,
        "geometry": describe_geometry(snapshot.manifest, snapshot.segments),
        "regions": _regions(snapshot),
        **_codebook(index.codebook),
        "extractor": describe_extractor(index.recipe, index.network),
        **_origin(snapshot),
    }


def _statistics(snapshot: Snapshot) -> dict[str, Any]:
    lengths = snapshot.list_lengths
    counts = np.concatenate([np.zeros(0, np.int64), *(_live_counts(segment) for segment in snapshot.segments)])
    return {
        "live_postings": int(lengths.sum()),
        "words_per_image": _ratio(int(counts.sum()), len(counts)),
        "empty_images": int(np.count_nonzero(counts == 0)),
        "imbalance": imbalance(lengths),
        "empty_words": int(np.count_nonzero(lengths == 0)),
    }


def _regions(snapshot: Snapshot) -> dict[str, Any] | None:
    options = snapshot.manifest.regions
    if options is None:
        return None
    return {**options.to_json(), "entries": sum(len(segment.live_entries()) for segment in snapshot.segments)}


def _live_counts(segment: Segment) -> np.ndarray:
    return segment.word_counts[segment.live_numbers()].astype(np.int64)


def imbalance(lengths: np.ndarray) -> float | None:
    """Compute K Σ n² / (Σ n)² of list lengths [K]; None if all are 0."""
    total = float(lengths.sum())
    return len(lengths) * float(np.square(lengths, dtype=np.float64).sum()) / total**2 if total else None


def _origin(snapshot: Snapshot) -> dict[str, Any]:
    manifest = snapshot.manifest
    origin = {key: getattr(manifest, key) for key in ("identity", "commit", "made_by")}
    return {
        **origin,
        "features": list(manifest.features),
        "images_roots": list(manifest.images_roots),
        "roots": listed_roots(snapshot.root_counts()),
    }


def bytes_by_part(index: Index) -> dict[str, int]:
    """Return the bytes in the folder of an index by content.

    codes, ids, tables, names, fingerprints   arrays of the segments
    other      headers and checksums of the segments
    geometry   files of the geometry, if there are any
    deletions  files of deletions and of changed roots
    manifest   both copies
    codebook   file of the codebook
    network    file of the network, if the index has one
    neighbours file of the neighbour table, if there is one, or pieces of it
    calibration   file of the calibration, if there is one
    leftover   files of no commit, which the next writer removes
    """
    manifest, held = index.snapshot.manifest, [segment.file.arrays for segment in index.snapshot.segments]
    parts = {
        part: sum(arrays[name].nbytes for arrays in held for name in names if name in arrays)
        for part, names in PARTS_OF_SEGMENT.items()
    }
    parts["other"] = sum(entry.file.bytes for entry in manifest.segments) - sum(parts.values())
    if geometries := [file for entry in manifest.segments for file in entry.geometries]:
        parts["geometry"] = sum(file.bytes for file in geometries)
    changes = [file for entry in manifest.segments for file in (entry.deleted, entry.moved) if file]
    parts["deletions"] = sum(file.bytes for file in changes)
    parts["codebook"] = manifest.encoder.bytes
    if manifest.network is not None:
        parts["network"] = manifest.network.bytes
    sizes = _sizes(index.path)
    parts["manifest"] = sum(sizes.pop(name, 0) for name in NAMES)
    parts |= neighbour_bytes(Folder(index.path), manifest) | calibration_bytes(Folder(index.path))
    known = sum(sizes.get(entry.name, 0) for entry in manifest.files())
    known += parts.get("neighbours", 0) + parts.get("calibration", 0)
    parts["leftover"] = sum(sizes.values()) - known
    return parts


def _sizes(path: Path) -> dict[str, int]:
    """Return the size of every file in a folder; a writer may remove some meanwhile."""
    with storage_errors(path, "list the folder"), os.scandir(path) as entries:
        files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    sizes = {}
    for entry in files:
        with contextlib.suppress(FileNotFoundError):
            sizes[entry.name] = entry.stat().st_size
    return sizes


def _ratio(total: int, count: int) -> float | None:
    return total / count if count else None
