"""Description of a global index: content, size and origin."""

from __future__ import annotations

from typing import Any

from asmk_engine.flat.index import GlobalIndex
from asmk_engine.images.roots import listed_roots
from asmk_engine.indexes.manifest import NAMES
from asmk_engine.maintenance.extractor_facts import describe_extractor
from asmk_engine.maintenance.neighbour_facts import describe_neighbours, neighbour_bytes
from asmk_engine.storage.folder import Folder


def describe_global(index: GlobalIndex) -> dict[str, Any]:
    """Describe a global index, as JSON values: images, segments, dimensions, precision, bytes by part, codec, origin.

    `words`, `postings` and `bytes_per_posting` are None, since they do not apply; bytes_per_image is the size of all
    files except the codec, the network and the neighbour table, per vector on disk.
    """
    codec, manifest = index.codec, index.snapshot.manifest
    parts = _bytes_by_part(index)
    size, vectors = sum(parts.values()), sum(segment.images for segment in index.snapshot.segments)
    own = size - parts["codec"] - parts.get("network", 0) - parts.get("neighbours", 0)
    return {
        "kind": "global index",
        "path": str(index.path),
        "images": index.images,
        "words": None,
        "postings": None,
        "bytes": size,
        "bytes_per_posting": None,
        "bytes_per_image": own / vectors if vectors else None,
        "bytes_per_vector": codec.width * codec.dtype.itemsize,
        "bytes_by_part": parts,
        "neighbours": describe_neighbours(Folder(index.path), manifest),
        "deleted_images": sum(entry.deleted_images for entry in manifest.segments),
        "segments": len(manifest.segments),
        "input_dim": codec.input_dim,
        "dim": codec.dim,
        "precision": codec.precision,
        "sub_space": None if codec.centroids is None else codec.centroids.shape[2],
        "augmentation": codec.augmentation,
        "recipe": codec.recipe.as_dict(),
        "extractor": describe_extractor(codec.recipe, index.network),
        "training": codec.training,
        "fingerprint": codec.fingerprint,
        **{key: getattr(manifest, key) for key in ("identity", "commit", "made_by")},
        **{key: list(getattr(manifest, key)) for key in ("features", "images_roots")},
        "roots": listed_roots(index.snapshot.root_counts()),
    }


def _bytes_by_part(index: GlobalIndex) -> dict[str, int]:
    """Return the bytes in the folder by content; `leftover` belongs to no commit."""
    manifest, folder = index.snapshot.manifest, Folder(index.path)
    vectors = sum(segment.vectors.nbytes for segment in index.snapshot.segments)
    parts = {"vectors": vectors, "names": sum(entry.file.bytes for entry in manifest.segments) - vectors}
    changes = [file for entry in manifest.segments for file in (entry.deleted, entry.moved) if file]
    parts["deletions"] = sum(file.bytes for file in changes)
    parts["codec"] = manifest.encoder.bytes
    if manifest.network is not None:
        parts["network"] = manifest.network.bytes
    sizes = {name: folder.size(name) for name in folder.names() if (index.path / name).is_file()}
    parts["manifest"] = sum(sizes.pop(name, 0) for name in NAMES)
    parts |= neighbour_bytes(folder, manifest)
    known = sum(sizes.get(entry.name, 0) for entry in manifest.files()) + parts.get("neighbours", 0)
    parts["leftover"] = sum(sizes.values()) - known
    return parts
