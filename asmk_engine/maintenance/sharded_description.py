"""Description of a sharded index: its images over all shards, and each shard."""

from __future__ import annotations

from typing import Any

from asmk_engine.images.roots import listed_roots
from asmk_engine.maintenance.extractor_facts import describe_extractor
from asmk_engine.sharding.index import ShardedIndex
from asmk_engine.sharding.manifest import ShardEntry
from asmk_engine.sharding.slots import slots_in


def describe_sharded(index: ShardedIndex) -> dict[str, Any]:
    """Describe a sharded index, as JSON values.

    shard_kind  `index`, `global index` or `fused index`
    shards      for each its folder, images, deleted_images, slots, segments, bytes and commit
    recipes     of each kind of features
    words, postings, bytes_per_posting  None unless the shards are of one kind of local features
    """
    manifest, encoder = index.manifest, index.snapshot.encoder
    shards = [_shard(entry) for entry in manifest.shards]
    size = sum(one["bytes"] for one in shards)
    kinds = getattr(encoder, "kinds", None)
    recipes = [kind.recipe for kind in kinds] if kinds is not None else [index.recipe]
    words = getattr(encoder, "words", None)
    postings = None if words is None else index.postings
    return {
        "kind": "sharded index",
        "path": str(index.path),
        "images": index.images,
        "words": words,
        "postings": postings,
        "bytes": size,
        "bytes_per_posting": size / postings if postings else None,
        "shard_kind": manifest.kind.removeprefix("asmk-engine "),
        "deleted_images": sum(one["deleted_images"] for one in shards),
        "segments": sum(one["segments"] for one in shards),
        "shards": shards,
        "recipes": [recipe.as_dict() for recipe in recipes],
        "extractor": describe_extractor(recipes[0], index.network),
        **{key: getattr(manifest, key) for key in ("identity", "commit", "made_by")},
        **{key: list(getattr(manifest.shards[0].manifest, key)) for key in ("features", "images_roots")},
        "roots": listed_roots(index.snapshot.root_counts()),
    }


def _shard(entry: ShardEntry) -> dict[str, Any]:
    segments = entry.manifest.segments
    return {
        "folder": entry.folder,
        "images": sum(one.images - one.deleted_images for one in segments),
        "deleted_images": sum(one.deleted_images for one in segments),
        "slots": len(slots_in(entry.spans)),
        "segments": len(segments),
        "bytes": sum(file.bytes for file in entry.manifest.files()),
        "commit": entry.manifest.commit,
    }
